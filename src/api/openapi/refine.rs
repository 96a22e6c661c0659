//! What the types of handlers cannot say: the words of enumerations, common headers, the errors of
//! each route, and whole examples.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    errors, events,
    examples::{cloud_status, ended_operation, plan, running_operation, task, whoami},
};
use crate::{
    api::problem::kinds::ProblemType,
    domain::{
        access::Permission,
        operation::{Outcome, Phase, Status},
        service::status::{CredentialKind, CredentialState},
        task::TaskState,
    },
    identity::Method,
    operations::Course,
};

/// Completes the document that was made of the routes.
pub(super) fn refine(document: &mut Value) {
    enumerate_words(document);
    events::describe_data(document);
    let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) else {
        return;
    };
    for item in paths.values_mut().filter_map(Value::as_object_mut) {
        for operation in item.values_mut().filter_map(Value::as_object_mut) {
            add_problems(operation);
            add_headers(operation);
            add_examples(operation);
            events::add_example(operation);
        }
    }
}

fn enumerate_words(document: &mut Value) {
    for (place, words) in words_of_answers()
        .into_iter()
        .chain(events::words())
        .chain(words_of_operations())
        .chain(status_words())
    {
        enumerate(document, &format!("/components/schemas/{place}"), words);
    }
    let parameters = [
        (
            "~1tasks/get",
            "state",
            words(TaskState::ALL, TaskState::as_str),
        ),
        (
            "~1operations/get",
            "status",
            words(Status::ALL, Status::as_str),
        ),
        ("~1tasks~1{id}/delete", "force", vec![json!("pause")]),
        ("~1tasks~1{id}/get", "view", vec![json!("full")]),
        (
            "~1problems~1{slug}/get",
            "slug",
            words(ProblemType::ALL, ProblemType::slug),
        ),
    ];
    for (operation, name, words) in parameters {
        let parameters = document.pointer(&format!("/paths/{operation}/parameters"));
        let index = parameters
            .and_then(Value::as_array)
            .and_then(|all| all.iter().position(|parameter| parameter["name"] == name));
        if let Some(index) = index {
            let place = format!("/paths/{operation}/parameters/{index}/schema");
            enumerate(document, &place, words);
        }
    }
}

/// The words of everything that is about tasks, callers and problems.
fn words_of_answers() -> Vec<(&'static str, Vec<Value>)> {
    let types: Vec<Value> = ProblemType::ALL
        .iter()
        .map(|kind| json!(format!("/problems/{}", kind.slug())))
        .collect();
    vec![
        (
            "Task/properties/state",
            words(TaskState::ALL, TaskState::as_str),
        ),
        (
            "Task/properties/actions/items",
            texts(&["pause", "start", "delete", "force_delete"]),
        ),
        (
            "Whoami/properties/authenticated_by",
            words(Method::ALL, Method::as_str),
        ),
        (
            "Grant/properties/permissions/items",
            words(Permission::ALL, Permission::as_str),
        ),
        ("Problem/properties/type", types.clone()),
        ("CredentialError/properties/type", types),
        ("Problem/properties/sent", texts(&["no", "yes", "unknown"])),
    ]
}

/// The words of operations and of plans for them.
fn words_of_operations() -> Vec<(&'static str, Vec<Value>)> {
    let kinds = texts(&["delete", "pause", "start"]);
    let force = or_null(texts(&["pause"]));
    let outcomes = or_null(words(Outcome::ALL, Outcome::as_str));
    vec![
        ("Operation/properties/kind", kinds.clone()),
        ("Operation/properties/force", force.clone()),
        (
            "Operation/properties/status",
            words(Status::ALL, Status::as_str),
        ),
        (
            "Operation/properties/phase",
            or_null(words(Phase::ALL, Phase::as_str)),
        ),
        ("Operation/properties/outcome", outcomes.clone()),
        ("Plan/properties/kind", kinds),
        ("Plan/properties/force", force),
        ("Plan/properties/course", words(Course::ALL, Course::as_str)),
        (
            "Plan/properties/state",
            or_null(words(TaskState::ALL, TaskState::as_str)),
        ),
        (
            "Plan/properties/next",
            or_null(texts(&["pause", "start", "delete", "wait"])),
        ),
        ("Plan/properties/outcome", outcomes),
    ]
}

pub(super) fn texts(all: &[&str]) -> Vec<Value> {
    all.iter().map(|text| json!(text)).collect()
}

/// Where words of `GET /status` stand, and which.
fn status_words() -> [(&'static str, Vec<Value>); 3] {
    [
        (
            "CredentialStatus/properties/kind",
            words(CredentialKind::ALL, CredentialKind::as_str),
        ),
        (
            "CredentialStatus/properties/state",
            words(CredentialState::ALL, CredentialState::as_str),
        ),
        (
            "BreakerStatus/properties/state",
            vec![json!("closed"), json!("open"), json!("probing")],
        ),
    ]
}

pub(super) fn words<T: Copy>(all: &[T], word: fn(T) -> &'static str) -> Vec<Value> {
    all.iter().map(|value| json!(word(*value))).collect()
}

pub(super) fn or_null(mut words: Vec<Value>) -> Vec<Value> {
    words.push(Value::Null);
    words
}

fn enumerate(document: &mut Value, place: &str, mut words: Vec<Value>) {
    let Some(schema) = document.pointer_mut(place).and_then(Value::as_object_mut) else {
        return;
    };
    if words.last() == Some(&Value::Null) {
        // Null as a choice beside the words, since generators of clients make one type of each list
        // of words.
        words.pop();
        schema.remove("type");
        let choices = json!([{"type": "string", "enum": words}, {"type": "null"}]);
        schema.insert("oneOf".to_owned(), choices);
    } else {
        schema.insert("enum".to_owned(), Value::Array(words));
    }
}

/// The errors of a route, those of one status together, each with an example.
fn add_problems(operation: &mut Map<String, Value>) {
    let id = operation
        .get("operationId")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let mut by_status: BTreeMap<u16, Vec<ProblemType>> = BTreeMap::new();
    for kind in errors::problems_of(id) {
        by_status.entry(kind.status()).or_default().push(kind);
    }
    let Some(responses) = operation
        .get_mut("responses")
        .and_then(Value::as_object_mut)
    else {
        return;
    };
    for (status, kinds) in by_status {
        let lines: Vec<String> = kinds
            .iter()
            .map(|kind| format!("- `{}`: {}.", kind.slug(), kind.title()))
            .collect();
        let examples: Map<String, Value> = kinds
            .iter()
            .map(|kind| {
                (
                    kind.slug().to_owned(),
                    json!({"value": problem_example(*kind)}),
                )
            })
            .collect();
        let content = json!({
            "schema": {"$ref": "#/components/schemas/Problem"},
            "examples": examples,
        });
        responses.insert(
            status.to_string(),
            json!({
                "description": lines.join("\n"),
                "content": {"application/problem+json": content},
            }),
        );
    }
}

fn problem_example(kind: ProblemType) -> Value {
    let mut example = json!({
        "type": format!("/problems/{}", kind.slug()),
        "title": kind.title(),
        "status": kind.status(),
        "detail": format!("{}.", kind.title()),
        "request_id": "01JGZ4K8W3M5N7P9R1T3V5X7Z9",
    });
    if kind == ProblemType::TaskInProgress {
        example["detail"] =
            json!("Task 191297407830872 is running. Pause it first, or repeat with ?force=pause.");
        example["sent"] = json!("no");
        example["allowed"] = json!(["pause", "force=pause"]);
    }
    if kind == ProblemType::InvalidRequest {
        example["detail"] = json!("force must be pause.");
        example["errors"] =
            json!([{"in": "query", "pointer": "/force", "detail": "force must be pause."}]);
    }
    example
}

/// Headers that answers of a status have on every route.
fn add_headers(operation: &mut Map<String, Value>) {
    let has_prefer = operation
        .get("parameters")
        .and_then(Value::as_array)
        .is_some_and(|all| all.iter().any(|parameter| parameter["name"] == "Prefer"));
    let Some(responses) = operation
        .get_mut("responses")
        .and_then(Value::as_object_mut)
    else {
        return;
    };
    let text =
        |description: &str| json!({"description": description, "schema": {"type": "string"}});
    let seconds =
        |description: &str| json!({"description": description, "schema": {"type": "integer"}});
    // Answers to callers who are known.
    let is_counted = responses.contains_key("429");
    for (status, response) in responses {
        let mut headers = Map::new();
        if is_counted && status != "401" {
            let policy = text(
                "How many requests a caller may send at once (`q`), and in how many seconds as many again (`w`).",
            );
            headers.insert("RateLimit-Policy".to_owned(), policy);
            let left = text(
                "How many requests the caller has left (`r`), and in how many seconds all of them (`t`).",
            );
            headers.insert("RateLimit".to_owned(), left);
        }
        headers.insert(
            "X-Request-Id".to_owned(),
            text("The gateway's id of the request."),
        );
        if has_prefer && matches!(status.as_str(), "200" | "202") {
            let applied = text("The preference that was heeded, if one was sent.");
            headers.insert("Preference-Applied".to_owned(), applied);
        }
        if status == "202" {
            headers.insert("Location".to_owned(), text("The operation."));
            let wait = seconds("Ask again after so many seconds.");
            headers.insert("Retry-After".to_owned(), wait);
        }
        if status == "401" {
            headers.insert("WWW-Authenticate".to_owned(), text("`Bearer`."));
        }
        if matches!(status.as_str(), "429" | "503") {
            let wait = seconds("Try again after so many seconds.");
            headers.insert("Retry-After".to_owned(), wait);
        }
        response["headers"] = Value::Object(headers);
    }
}

/// A whole example for every answer with a document.
fn add_examples(operation: &mut Map<String, Value>) {
    let Some(responses) = operation
        .get_mut("responses")
        .and_then(Value::as_object_mut)
    else {
        return;
    };
    for (status, response) in responses {
        let Some(content) = response.pointer_mut("/content/application~1json") else {
            continue;
        };
        let schema = content["schema"]["$ref"].as_str().unwrap_or_default();
        let example = match (
            schema.rsplit('/').next().unwrap_or_default(),
            status.as_str(),
        ) {
            ("Task", _) => task(),
            ("TaskList", _) => json!({"tasks": [task()], "next_page_token": null}),
            ("Change", _) => {
                content["examples"] = json!({
                    "operation": {"value": ended_operation()}, "dry_run": {"value": plan()},
                });
                continue;
            }
            ("Operation", "202") => running_operation(),
            ("Operation", _) => ended_operation(),
            ("OperationList", _) => {
                json!({"operations": [running_operation()], "next_page_token": null})
            }
            ("Whoami", _) => whoami(),
            ("Status", _) => cloud_status(),
            ("Health", "503") => json!({"status": "failing", "failing": ["draining"]}),
            ("Health", _) => json!({"status": "ok", "failing": []}),
            _ => continue,
        };
        content["example"] = example;
    }
}
