//! The JSON of SMS v3. Every member is optional here: rows of the list lack members that a single
//! task has, and editions of the service differ.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    domain::task::{DeleteGate, Stage, Task, TaskError, TaskId},
    upstream::{
        answer::{self, Codes},
        loose::{self, nested, plain},
        reader::{ReasonWire, Sighting},
    },
};

/// From the error pages of the SMS API reference. It has no code for a refused token: those answers
/// come from the API gateway in front of it.
pub(super) const CODES: Codes = Codes {
    prefix: "SMS.",
    gone: "SMS.7703",
    still_in_progress: &[],
    forbidden: &["SMS.2002", "SMS.2248", "SMS.9004"],
    credentials: &[],
    transient: &[],
};

/// States of a source server in which, while it is connected, SMS refuses to delete its task: page
/// "Deleting a Migration Task", editions since November 2025.
const BUSY_SOURCES: [&str; 10] = [
    "initialize",
    "stopping",
    "deleting",
    "cloning",
    "replicate",
    "syncing",
    "cutovering",
    "skipping",
    "clearing",
    "premiging",
];

/// `migrate_speed` is in megabits a second.
const BYTES_PER_MEGABIT: f64 = 125_000.0;

/// A task as "Querying a Migration Task" and, in part, "Querying Migration Tasks" show it. Times
/// are in milliseconds.
#[derive(Default, Deserialize)]
#[serde(default)]
struct TaskWire {
    #[serde(deserialize_with = "plain")]
    id: Option<String>,
    #[serde(deserialize_with = "plain")]
    name: Option<String>,
    #[serde(deserialize_with = "plain")]
    state: Option<String>,
    #[serde(deserialize_with = "plain")]
    connected: Option<bool>,
    #[serde(deserialize_with = "plain")]
    start_date: Option<u64>,
    #[serde(deserialize_with = "plain")]
    migrate_speed: Option<f64>,
    #[serde(deserialize_with = "plain")]
    remain_seconds: Option<u64>,
    error_json: Value,
    #[serde(deserialize_with = "nested")]
    source_server: Option<SourceWire>,
}

/// The server that is migrated.
#[derive(Default, Deserialize)]
#[serde(default)]
struct SourceWire {
    #[serde(deserialize_with = "plain")]
    state: Option<String>,
}

/// The stage for a value of `state`.
fn stage(state: &str) -> Stage {
    match state {
        "READY" => Stage::Ready,
        "RUNNING" | "SYNCING" => Stage::Running,
        "ABORTING" => Stage::Pausing,
        "ABORT" | "SYNC_F_ROLLBACK_SUCCESS" => Stage::Paused,
        "MIGRATE_FAIL" | "SYNC_FAIL" => Stage::Failed,
        "MIGRATE_SUCCESS" | "SYNC_SUCCESS" => Stage::Succeeded,
        // The vendor spells it like this.
        "SKIPPING" | "RESETING" | "SYNC_F_ROLLBACKING" => Stage::Busy,
        "DELETING" => Stage::Deleting,
        _ => Stage::Unknown,
    }
}

/// `connected` is missing in rows of the list.
fn gate(wire: &TaskWire) -> DeleteGate {
    let source = wire
        .source_server
        .as_ref()
        .and_then(|source| source.state.as_deref());
    let busy = source.is_some_and(|state| {
        BUSY_SOURCES
            .iter()
            .any(|busy| state.eq_ignore_ascii_case(busy))
    });
    match wire.connected {
        Some(true) if busy => DeleteGate::Closed,
        Some(true) => DeleteGate::Open,
        None => DeleteGate::Untold,
        Some(false) => DeleteGate::Offline,
    }
}

/// Reads one task; `None` if the document has no id or no state that can be read.
pub(super) fn task(document: &Value, look: &Sighting<'_>) -> Option<Task> {
    let wire: TaskWire = loose::object(document)?;
    let id = TaskId::parse(wire.id.as_deref()?)?;
    let state = answer::clean(wire.state.as_deref()?, answer::MESSAGE_MAX);
    let reached = stage(&state);
    Some(Task {
        reference: look.reference(id),
        stage: reached,
        gate: gate(&wire),
        upstream_state: state,
        // SMS tells the progress of steps, not of the task, and counts neither bytes nor objects.
        progress: None,
        bytes: None,
        objects: None,
        // A task at rest keeps showing the speed that it had.
        bytes_per_second: wire
            .migrate_speed
            .filter(|_| reached == Stage::Running)
            .and_then(|speed| loose::whole(speed * BYTES_PER_MEGABIT)),
        remaining_seconds: wire.remain_seconds,
        started_at: wire.start_date.and_then(loose::moment),
        error: error(&wire.error_json),
        name: wire.name,
        observed_at: look.at,
        details: Value::Null,
    })
}

/// `error_json` is a text with JSON in it, empty while all is well. Whatever else it may hold tells
/// no code.
fn error(written: &Value) -> Option<TaskError> {
    let wire: ReasonWire = match written.as_str() {
        Some(text) => loose::object(&serde_json::from_str(text).ok()?)?,
        None => loose::object(written)?,
    };
    wire.told()
}

/// What a task is asked to do.
#[derive(Clone, Copy)]
pub(super) enum Action {
    /// Pause. There is no operation of that name: the vendor calls it "stop".
    Stop,
    /// Start, or go on after a pause.
    Start,
}

/// The body of "Managing a Migration Task".
pub(super) fn action_body(action: Action) -> Value {
    let operation = match action {
        Action::Stop => "stop",
        Action::Start => "start",
    };
    json!({ "operation": operation })
}

#[cfg(test)]
mod tests;
