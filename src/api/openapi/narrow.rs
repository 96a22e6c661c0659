//! Which values of parameters are taken: patterns, as narrow as the readers of the parameters are.
//!
//! What one value means for another is beyond a schema: which ids are a service's own, which
//! projects are configured, and which page tokens belong to which filters.

use serde_json::{Map, Value, json};

const TASK_ID: &str = "^[0-9A-Za-z-]{1,36}$";
/// `op_` and a ULID, whose first digit has three bits.
const OPERATION_ID: &str = "^op_[0-7][0-9A-HJKMNP-TV-Z]{25}$";
const NAME: &str = "^[a-z0-9-]{1,63}$";
const PAGE_TOKEN: &str = "^[A-Za-z0-9_-]+$";
/// The preferences that are heeded; there may be others, which are ignored.
const PREFER: &str = "^(respond-async|wait=[0-9]{1,9})( *, *(respond-async|wait=[0-9]{1,9}))*$";
/// The number of an event of an operation.
const EVENT_NUMBER: &str = "^(0|[1-9][0-9]{0,8})$";
/// How a task looked.
const SIGHT_ID: &str = "^[0-9a-f]{32}$";
/// Visible ASCII.
const IDEMPOTENCY_KEY: &str = "^[!-~]{1,64}$";

/// Narrows the parameters of every operation, and what types cannot narrow in a body. `services`:
/// the names of the services, in the order in which they are listed.
pub(super) fn narrow(document: &mut Value, services: &[&str]) {
    if let Some(name) = document.pointer_mut("/components/schemas/StorageCredential/oneOf/0") {
        name["pattern"] = json!(NAME);
    }
    if let Some(body) = document.pointer_mut("/paths/~1tasks~1{id}~1start/post/requestBody") {
        // One service needs it, the other takes none.
        body["required"] = json!(false);
    }
    let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) else {
        return;
    };
    for (path, item) in paths {
        let is_about_operations = path.starts_with("/operations");
        for operation in item.as_object_mut().into_iter().flat_map(Map::values_mut) {
            let parameters = operation.get_mut("parameters");
            for parameter in parameters
                .and_then(Value::as_array_mut)
                .into_iter()
                .flatten()
            {
                let name = parameter["name"].as_str().unwrap_or_default();
                let (member, value) = match (name, is_about_operations) {
                    ("id" | "page_token", true) => ("pattern", json!(OPERATION_ID)),
                    ("id", false) | ("task", _) => ("pattern", json!(TASK_ID)),
                    ("page_token", false) => ("pattern", json!(PAGE_TOKEN)),
                    ("project", _) => ("pattern", json!(NAME)),
                    ("service", _) => ("enum", json!(services)),
                    ("Prefer", _) => ("pattern", json!(PREFER)),
                    ("Last-Event-ID", true) => ("pattern", json!(EVENT_NUMBER)),
                    ("Last-Event-ID", false) => ("pattern", json!(SIGHT_ID)),
                    ("Idempotency-Key", _) => ("pattern", json!(IDEMPOTENCY_KEY)),
                    _ => continue,
                };
                if name == "Prefer" {
                    let text = parameter["description"].as_str().unwrap_or_default();
                    let rest = "Other preferences are ignored (RFC 7240).";
                    parameter["description"] = json!(format!("{text} {rest}"));
                }
                parameter["schema"]["type"] = json!("string");
                parameter["schema"][member] = value;
            }
        }
    }
}
