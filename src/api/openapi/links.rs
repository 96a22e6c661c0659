//! Which answer leads to which request: links from what was read to what can be asked about it.

use serde_json::{Value, json};

/// Where a link starts, its name, where it leads, and the place of what it is about in the answer.
const LINKS: [(&str, &str, &str, &str, &str); 19] = [
    ("list_tasks", "200", "first_task", "show_task", "/tasks/0"),
    ("show_task", "200", "events", "watch_task", ""),
    ("show_task", "200", "pause", "pause_task", ""),
    ("show_task", "200", "start", "start_task", ""),
    ("show_task", "200", "delete", "delete_task", ""),
    ("pause_task", "200", "operation", "show_operation", ""),
    ("pause_task", "200", "task", "show_task", "/task"),
    ("pause_task", "202", "operation", "show_operation", ""),
    ("start_task", "200", "operation", "show_operation", ""),
    ("start_task", "200", "task", "show_task", "/task"),
    ("start_task", "202", "operation", "show_operation", ""),
    ("delete_task", "200", "operation", "show_operation", ""),
    ("delete_task", "202", "operation", "show_operation", ""),
    ("delete_task", "202", "events", "watch_operation", ""),
    (
        "list_operations",
        "200",
        "newest",
        "show_operation",
        "/operations/0",
    ),
    (
        "list_operations",
        "200",
        "task",
        "show_task",
        "/operations/0/task",
    ),
    ("show_operation", "200", "again", "show_operation", ""),
    ("show_operation", "200", "events", "watch_operation", ""),
    ("show_operation", "200", "task", "show_task", "/task"),
];

/// Adds the links.
pub(super) fn add(document: &mut Value) {
    let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) else {
        return;
    };
    let operations = paths
        .values_mut()
        .filter_map(Value::as_object_mut)
        .flat_map(|item| item.values_mut());
    for operation in operations {
        for (from, status, name, to, place) in LINKS {
            if operation["operationId"] == from {
                operation["responses"][status]["links"][name] = link(to, place);
            }
        }
    }
}

fn link(to: &str, place: &str) -> Value {
    let member = |name: &str| format!("$response.body#{place}/{name}");
    let mut parameters = json!({"id": member("id")});
    // The id of an operation is enough; that of a task needs its project and service.
    if !to.ends_with("_operation") {
        parameters["project"] = json!(member("project"));
        parameters["service"] = json!(member("service"));
    }
    json!({"operationId": to, "parameters": parameters})
}
