//! Rows of the tables to and from the types of the domain, and a word in the log on those that
//! cannot be read.
//!
//! A row is read whole or not at all: a word that this program does not know, written by a newer
//! version, makes the operation unreadable, so that nothing is decided on half of it.

mod columns;
mod failure;
mod reports;

use jiff::Timestamp;
use sqlx::any::AnyRow;

use self::failure::FailureRow;
pub(super) use self::{
    columns::{Columns, Unreadable, columns, id_of},
    reports::Reports,
};
use crate::domain::{
    history::Change,
    operation::{
        EventKind, Failure, Goal, Operation, OperationEvent, OperationId, Outcome, Phase, Status,
    },
    service::{Binding, CallerName, CredentialName, ProjectName, ServiceName},
    start::StartRecord,
    task::{TaskId, TaskRef, TaskState},
};

/// An operation from its row and those of its callers and events, each in the order of their
/// numbers.
pub(super) fn operation(
    columns: Columns<'_>,
    callers: &[AnyRow],
    events: &[AnyRow],
) -> Result<Operation, Unreadable> {
    let kind = columns.text("kind")?;
    let force = columns.optional_text("force")?;
    let (status, history) = columns.record()?;
    columns.lease()?;
    Ok(Operation {
        id: columns.id()?,
        task: TaskRef {
            project: columns.word("project", ProjectName::parse)?,
            service: columns.word("service", ServiceName::parse)?,
            id: columns.word("task", TaskId::parse)?,
        },
        binding: Binding {
            project_id: columns.text("project_id")?.to_owned(),
            region: columns.text("region")?.to_owned(),
            endpoint: columns.text("endpoint")?.to_owned(),
        },
        goal: Goal::parse(kind, force).ok_or_else(|| columns.unreadable("kind"))?,
        start: StartRecord {
            source: columns.optional_word("source_credential", CredentialName::parse)?,
            destination: columns.optional_word("destination_credential", CredentialName::parse)?,
            inline: columns.flag("inline_credentials")?,
            migrate_failed_objects: columns.flag("migrate_failed_objects")?,
        },
        status,
        phase: columns.optional_word("phase", Phase::parse)?,
        outcome: columns.optional_word("outcome", Outcome::parse)?,
        failure: columns.optional_word("failure", failure_from_text)?,
        superseded_by: columns.optional_word("superseded_by", OperationId::parse)?,
        requested_by: columns.word("requested_by", CallerName::parse)?,
        callers: read_all(columns, callers, |row| {
            row.word("caller", CallerName::parse)
        })?,
        created_at: columns.time("created_at")?,
        updated_at: columns.time("updated_at")?,
        deadline_at: columns.time("deadline_at")?,
        finished_at: columns.optional_time("finished_at")?,
        next_look_at: columns.time("next_look_at")?,
        version: columns.count("version")?,
        history,
        last_seen: columns.optional_word("last_seen", TaskState::parse)?,
        events: read_all(columns, events, event)?,
    })
}

fn read_all<T>(
    operation: Columns<'_>,
    rows: &[AnyRow],
    read: impl Fn(Columns<'_>) -> Result<T, Unreadable>,
) -> Result<Vec<T>, Unreadable> {
    let one = |row| {
        let columns = operation.beside(row);
        // Those to come are numbered on from the last one.
        columns.count("number")?;
        read(columns)
    };
    rows.iter().map(one).collect()
}

fn event(columns: Columns<'_>) -> Result<OperationEvent, Unreadable> {
    let detail = columns.optional_text("detail")?.map(str::to_owned);
    Ok(OperationEvent {
        at: columns.time("happened_at")?,
        kind: event_kind(columns.text("kind")?, detail)
            .ok_or_else(|| columns.unreadable("event"))?,
    })
}

fn event_kind(word: &str, detail: Option<String>) -> Option<EventKind> {
    let kind = match word {
        "accepted" => EventKind::Accepted,
        "joined" => EventKind::Joined,
        "observed" => EventKind::Observed(match detail {
            Some(state) => Some(TaskState::parse(&state)?),
            None => None,
        }),
        "pause_sent" => EventKind::PauseSent(detail),
        "start_sent" => EventKind::StartSent(detail),
        "delete_sent" => EventKind::DeleteSent(detail),
        "refused" => EventKind::Refused(detail),
        "fault" => EventKind::Fault(detail?),
        "resumed" => EventKind::Resumed,
        "superseded" => EventKind::Superseded,
        "cancelled" => EventKind::Cancelled,
        "ended" => EventKind::Ended,
        _ => return None,
    };
    Some(kind)
}

/// What the column `detail` holds of an event.
pub(super) fn event_detail(kind: &EventKind) -> Option<&str> {
    match kind {
        EventKind::Observed(state) => state.map(TaskState::as_str),
        EventKind::PauseSent(detail)
        | EventKind::StartSent(detail)
        | EventKind::DeleteSent(detail)
        | EventKind::Refused(detail) => detail.as_deref(),
        EventKind::Fault(detail) => Some(detail),
        EventKind::Accepted
        | EventKind::Joined
        | EventKind::Resumed
        | EventKind::Superseded
        | EventKind::Cancelled
        | EventKind::Ended => None,
    }
}

fn failure_from_text(text: &str) -> Option<Failure> {
    serde_json::from_str::<FailureRow>(text)
        .ok()?
        .into_failure()
}

/// The columns that change during the life of an operation, as they are written.
pub(super) struct Mutable {
    pub(super) status: &'static str,
    pub(super) phase: Option<&'static str>,
    pub(super) outcome: Option<&'static str>,
    pub(super) failure: Option<String>,
    pub(super) superseded_by: Option<String>,
    pub(super) updated_at: i64,
    pub(super) deadline_at: i64,
    pub(super) finished_at: Option<i64>,
    pub(super) next_look_at: i64,
    pub(super) history: String,
    pub(super) last_seen: Option<&'static str>,
    pub(super) delete_sent: i64,
}

impl Mutable {
    /// Fails only if a value cannot be written as JSON.
    pub(super) fn of(operation: &Operation) -> Result<Self, serde_json::Error> {
        let failure = operation.failure.as_ref().map(FailureRow::of);
        Ok(Self {
            status: operation.status.as_str(),
            phase: operation.phase.map(Phase::as_str),
            outcome: operation.outcome.map(Outcome::as_str),
            failure: failure
                .map(|failure| serde_json::to_string(&failure))
                .transpose()?,
            superseded_by: operation.superseded_by.map(|id| id.to_string()),
            updated_at: operation.updated_at.as_microsecond(),
            deadline_at: operation.deadline_at.as_microsecond(),
            finished_at: operation.finished_at.map(Timestamp::as_microsecond),
            next_look_at: operation.next_look_at.as_microsecond(),
            history: serde_json::to_string(&operation.history)?,
            last_seen: operation.last_seen.map(TaskState::as_str),
            delete_sent: operation.history.was_sent(Change::Delete).into(),
        })
    }

    /// Whether the operation has ended.
    pub(super) fn ends(&self) -> bool {
        self.status != Status::Running.as_str()
    }
}
