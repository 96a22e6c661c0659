//! Rows of the tables to and from the types of the domain, and a word in the log on those that cannot be read.
//!
//! A row is read whole or not at all: a word that this program does not know, written by a newer version, makes the
//! operation unreadable, so that nothing is decided on half of it.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use sqlx::{Any, Decode, Row as _, Type, any::AnyRow};

use super::failure::FailureRow;
use crate::domain::{
    history::{Change, History},
    operation::{
        EventKind, Failure, Goal, Operation, OperationEvent, OperationId, Outcome, Phase, Status,
    },
    service::{Binding, CallerName, CredentialName, ProjectName, ServiceName},
    start::StartRecord,
    store::StoreError,
    task::{TaskId, TaskRef, TaskState},
};

/// Which operation cannot be read, and by which column that was noticed.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) id: String,
    pub(super) column: &'static str,
}

impl From<Unreadable> for StoreError {
    fn from(unreadable: Unreadable) -> Self {
        Self::Unreadable(format!("{} ({})", unreadable.id, unreadable.column))
    }
}

/// The id in a row, whatever else is there.
pub(super) fn id_of(row: &AnyRow) -> Result<&str, Unreadable> {
    row.try_get("id").map_err(|_| {
        let bytes: Vec<u8> = row.try_get("id").unwrap_or_default();
        Unreadable {
            id: String::from_utf8_lossy(&bytes).into_owned(),
            column: "id",
        }
    })
}

/// The highest version that is read: nobody counts that far, and there is room to count on.
const VERSION_MAX: i64 = i64::MAX / 2;

/// One row and the operation that it belongs to.
#[derive(Clone, Copy)]
pub(super) struct Columns<'r> {
    row: &'r AnyRow,
    id: &'r str,
}

impl<'r> Columns<'r> {
    pub(super) fn new(row: &'r AnyRow, id: &'r str) -> Self {
        Self { row, id }
    }

    fn unreadable(&self, column: &'static str) -> Unreadable {
        Unreadable {
            id: self.id.to_owned(),
            column,
        }
    }

    pub(super) fn value<T>(&self, column: &'static str) -> Result<T, Unreadable>
    where
        T: Decode<'r, Any> + Type<Any>,
    {
        self.row
            .try_get(column)
            .map_err(|_| self.unreadable(column))
    }

    fn word<T>(
        &self,
        column: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, Unreadable> {
        self.optional_word(column, parse)?
            .ok_or_else(|| self.unreadable(column))
    }

    fn optional_word<T>(
        &self,
        column: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Unreadable> {
        let Some(text) = self.value::<Option<&str>>(column)? else {
            return Ok(None);
        };
        parse(text).map(Some).ok_or_else(|| self.unreadable(column))
    }

    fn json<T: DeserializeOwned>(&self, column: &'static str) -> Result<Option<T>, Unreadable> {
        self.optional_word(column, |text| serde_json::from_str(text).ok())
    }

    pub(super) fn id(&self) -> Result<OperationId, Unreadable> {
        self.word("id", OperationId::parse)
    }

    /// Where the operation stands and what it has tried.
    pub(super) fn record(&self) -> Result<(Status, History), Unreadable> {
        let history = self.json("history")?;
        Ok((
            self.word("status", Status::parse)?,
            history.ok_or_else(|| self.unreadable("history"))?,
        ))
    }

    fn flag(&self, column: &'static str) -> Result<bool, Unreadable> {
        Ok(self.value::<i64>(column)? != 0)
    }

    fn version(&self) -> Result<i64, Unreadable> {
        let version = self.value("version")?;
        if version > VERSION_MAX {
            return Err(self.unreadable("version"));
        }
        Ok(version)
    }

    /// The lease, which is no part of the operation, but decides who drives it.
    fn lease(&self) -> Result<(), Unreadable> {
        self.value::<Option<&str>>("lease_owner")?;
        self.optional_time("lease_until")?;
        Ok(())
    }

    fn time(&self, column: &'static str) -> Result<Timestamp, Unreadable> {
        self.optional_time(column)?
            .ok_or_else(|| self.unreadable(column))
    }

    fn optional_time(&self, column: &'static str) -> Result<Option<Timestamp>, Unreadable> {
        let Some(microseconds) = self.value::<Option<i64>>(column)? else {
            return Ok(None);
        };
        Timestamp::from_microsecond(microseconds)
            .map(Some)
            .map_err(|_| self.unreadable(column))
    }
}

/// An operation from its row and those of its callers and events, each in the order of their numbers.
pub(super) fn operation(
    columns: Columns<'_>,
    callers: &[AnyRow],
    events: &[AnyRow],
) -> Result<Operation, Unreadable> {
    let kind = columns.value::<&str>("kind")?;
    let force = columns.value::<Option<&str>>("force")?;
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
            project_id: columns.value("project_id")?,
            region: columns.value("region")?,
            endpoint: columns.value("endpoint")?,
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
        callers: read_all(columns.id, callers, |row| {
            row.word("caller", CallerName::parse)
        })?,
        created_at: columns.time("created_at")?,
        updated_at: columns.time("updated_at")?,
        deadline_at: columns.time("deadline_at")?,
        finished_at: columns.optional_time("finished_at")?,
        next_look_at: columns.time("next_look_at")?,
        version: columns.version()?,
        history,
        last_seen: columns.optional_word("last_seen", TaskState::parse)?,
        events: read_all(columns.id, events, event)?,
    })
}

fn read_all<T>(
    id: &str,
    rows: &[AnyRow],
    read: impl Fn(Columns<'_>) -> Result<T, Unreadable>,
) -> Result<Vec<T>, Unreadable> {
    rows.iter().map(|row| read(Columns::new(row, id))).collect()
}

fn event(columns: Columns<'_>) -> Result<OperationEvent, Unreadable> {
    let detail = columns.value::<Option<String>>("detail")?;
    Ok(OperationEvent {
        at: columns.time("happened_at")?,
        kind: event_kind(columns.value("kind")?, detail)
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
}

/// Reports every operation that cannot be read, once until it is read again: it is come across with every claim and
/// list.
#[derive(Default)]
pub(super) struct Reports(Mutex<HashSet<String>>);

impl Reports {
    /// Operations that could not be read are remembered up to this number; any further are reported every time.
    pub(super) const MAX: usize = 1000;

    /// What was read, or `None` after reporting why it is left alone.
    pub(super) fn readable<T>(&self, read: Result<T, Unreadable>) -> Option<T> {
        match read {
            Ok(readable) => Some(readable),
            Err(unreadable) => {
                self.report(unreadable);
                None
            }
        }
    }

    /// Does the same with a whole operation. One that was reported and can be read has been mended.
    pub(super) fn operation(&self, read: Result<Operation, Unreadable>) -> Option<Operation> {
        let operation = self.readable(read)?;
        let mut reported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Nearly always there are none.
        if !reported.is_empty() {
            reported.remove(&operation.id.to_string());
        }
        drop(reported);
        Some(operation)
    }

    /// The ids of those that were reported.
    pub(super) fn unreadable(&self) -> Vec<String> {
        let reported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reported.iter().cloned().collect()
    }

    fn report(&self, unreadable: Unreadable) {
        let mut reported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.contains(&unreadable.id) {
            return;
        }
        tracing::error!(
            operation.id = %unreadable.id,
            column = unreadable.column,
            "The record of an operation cannot be read. It is left alone; was it written by a newer version?"
        );
        if reported.len() < Self::MAX {
            reported.insert(unreadable.id);
        }
    }
}
