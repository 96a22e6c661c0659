//! The JSON of OMS v2. Every member is optional here, since editions of the service differ in what
//! they send.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    domain::{
        start::StorageKeys,
        task::{Amount, DeleteGate, ObjectCounts, Stage, Task, TaskId},
    },
    upstream::{
        answer::{self, Codes},
        loose::{self, nested, plain},
        reader::{ReasonWire, Sighting},
    },
};

/// From the page "Error Codes" of the OMS API reference. `OMS.0053` ("query failed or no
/// permission") is left out, because it can be either.
pub(super) const CODES: Codes = Codes {
    prefix: "OMS.",
    gone: "OMS.1009",
    still_in_progress: &["OMS.0063"],
    forbidden: &["OMS.0072", "OMS.0205", "OMS.0206"],
    credentials: &["OMS.0068", "OMS.1005"],
    transient: &["OMS.1001", "OMS.2004"],
};

/// A task as "Querying a Migration Task" and "Querying Migration Tasks" show it. Times and
/// durations are in milliseconds, sizes in bytes, speed in bytes a second, progress from 0 to 1.
#[derive(Default, Deserialize)]
#[serde(default)]
struct TaskWire {
    #[serde(deserialize_with = "plain")]
    id: Option<String>,
    #[serde(deserialize_with = "plain")]
    name: Option<String>,
    #[serde(deserialize_with = "plain")]
    status: Option<String>,
    #[serde(deserialize_with = "plain")]
    progress: Option<f64>,
    #[serde(deserialize_with = "plain")]
    start_time: Option<u64>,
    #[serde(deserialize_with = "plain")]
    left_time: Option<u64>,
    #[serde(deserialize_with = "plain")]
    total_num: Option<u64>,
    #[serde(deserialize_with = "plain")]
    successful_num: Option<u64>,
    #[serde(deserialize_with = "plain")]
    failed_num: Option<u64>,
    #[serde(deserialize_with = "plain")]
    skipped_num: Option<u64>,
    #[serde(deserialize_with = "plain")]
    total_size: Option<u64>,
    #[serde(deserialize_with = "plain")]
    complete_size: Option<u64>,
    #[serde(deserialize_with = "plain")]
    migrate_speed: Option<u64>,
    /// A task that did not fail has null or an empty text here.
    #[serde(deserialize_with = "nested")]
    error_reason: Option<ReasonWire>,
}

/// The stage for a value of `status`.
fn stage(status: &str) -> Stage {
    match status {
        "0" => Stage::Initialising,
        "1" => Stage::Queued,
        // 6 is "retrying", which moves data like 2 does.
        "2" | "6" => Stage::Running,
        "3" => Stage::Paused,
        "4" => Stage::Failed,
        "5" => Stage::Succeeded,
        "7" => Stage::Pausing,
        _ => Stage::Unknown,
    }
}

/// Reads one task; `None` if the document has no id or no state that can be read.
pub(super) fn task(document: &Value, look: &Sighting<'_>) -> Option<Task> {
    let wire: TaskWire = loose::object(document)?;
    let id = TaskId::parse(wire.id.as_deref()?).filter(super::owns)?;
    let status = answer::clean(wire.status.as_deref()?, answer::MESSAGE_MAX);
    Some(Task {
        reference: look.reference(id),
        stage: stage(&status),
        gate: DeleteGate::Open,
        upstream_state: status,
        progress: wire
            .progress
            .filter(|progress| (0.0..=1.0).contains(progress)),
        bytes: bytes(&wire),
        objects: objects(&wire),
        bytes_per_second: wire.migrate_speed,
        remaining_seconds: wire.left_time.map(|milliseconds| milliseconds / 1_000),
        started_at: wire.start_time.and_then(loose::moment),
        name: wire.name,
        error: wire.error_reason.and_then(ReasonWire::told),
        observed_at: look.at,
        details: Value::Null,
    })
}

fn bytes(wire: &TaskWire) -> Option<Amount> {
    Some(Amount {
        done: wire.complete_size?,
        total: wire.total_size?,
    })
}

fn objects(wire: &TaskWire) -> Option<ObjectCounts> {
    Some(ObjectCounts {
        succeeded: wire.successful_num?,
        failed: wire.failed_num?,
        skipped: wire.skipped_num?,
        total: wire.total_num?,
    })
}

/// The body of "Starting a Migration Task". OMS forgets the keys when a task rests, so each start
/// sends them again; a task that reads a list of URLs has no source keys.
pub(super) fn start_body(
    source: Option<&StorageKeys>,
    destination: &StorageKeys,
    migrate_failed_objects: bool,
) -> Value {
    let mut body = json!({ "migrate_failed_object": migrate_failed_objects });
    for (side, keys) in [("src", source), ("dst", Some(destination))] {
        let Some(keys) = keys else { continue };
        body[format!("{side}_ak")] = keys.access_key.expose().into();
        body[format!("{side}_sk")] = keys.secret_key.expose().into();
        if let Some(token) = &keys.security_token {
            body[format!("{side}_security_token")] = token.expose().into();
        }
    }
    body
}

#[cfg(test)]
mod tests;
