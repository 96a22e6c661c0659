//! Streams of events in the document. The schema of a stream is that of each of its events, and
//! says what their data are, which are JSON in a text.

use serde_json::{Map, Value, json};

use super::{
    examples::{running_operation, task},
    refine::{or_null, texts, words as all_words},
};
use crate::{
    api::tasks::watch::Ending,
    domain::operation::{Phase, Status},
};

/// The words of events, and where they stand.
pub(super) fn words() -> [(&'static str, Vec<Value>); 5] {
    [
        (
            "OperationMessage/properties/event",
            texts(&["progress", "problem", "end"]),
        ),
        (
            "TaskMessage/properties/event",
            texts(&["task", "problem", "end"]),
        ),
        (
            "TaskEnd/properties/ending",
            all_words(Ending::ALL, Ending::as_str),
        ),
        (
            "OperationUpdate/allOf/1/properties/status",
            all_words(Status::ALL, Status::as_str),
        ),
        (
            "OperationUpdate/allOf/1/properties/phase",
            or_null(all_words(Phase::ALL, Phase::as_str)),
        ),
    ]
}

/// Says what the texts of events hold.
pub(super) fn describe_data(document: &mut Value) {
    let schemas = [
        ("OperationMessage", &["OperationUpdate", "Problem"][..]),
        ("TaskMessage", &["Task", "Problem", "TaskEnd"]),
    ];
    for (message, data) in schemas {
        let place = format!("/components/schemas/{message}/properties/data");
        let Some(text) = document.pointer_mut(&place) else {
            continue;
        };
        let choices = data
            .iter()
            .map(|name| json!({"$ref": format!("#/components/schemas/{name}")}));
        text["contentMediaType"] = json!("application/json");
        text["contentSchema"] = json!({"oneOf": choices.collect::<Vec<_>>()});
    }
}

/// An example of an event for a stream of them.
pub(super) fn add_example(operation: &mut Map<String, Value>) {
    let example = match operation.get("operationId").and_then(Value::as_str) {
        Some("watch_task") => json!({
            "id": "6f1ed002ab5595859014ebf0951522d9", "event": "task", "data": task().to_string(),
        }),
        Some("watch_operation") => {
            let operation = running_operation();
            let mut update = operation["events"][1].clone();
            update["status"] = operation["status"].clone();
            update["phase"] = operation["phase"].clone();
            json!({"id": "2", "event": "progress", "data": update.to_string()})
        }
        _ => return,
    };
    let content = operation
        .get_mut("responses")
        .and_then(|responses| responses.pointer_mut("/200/content/text~1event-stream"));
    if let Some(content) = content {
        content["example"] = example;
    }
}
