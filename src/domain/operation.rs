//! Operations: a goal for one task, driven to its end by the gateway whether or not the caller
//! stays.

use std::{fmt, str::FromStr as _};

use jiff::Timestamp;
use ulid::Ulid;

use super::{
    history::{Change, History},
    service::{Binding, CallerName, Sent, UpstreamAnswer},
    start::StartRecord,
    task::{TaskRef, TaskState},
    words::words,
};

/// The id of an operation: `op_` and a ULID, so that ids sort by the time of their making.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OperationId(Ulid);

impl OperationId {
    /// Before every other.
    pub const FIRST: Self = Self(Ulid::nil());

    /// A fresh id for an operation accepted at this moment.
    pub fn at(now: Timestamp) -> Self {
        let milliseconds = u64::try_from(now.as_millisecond()).unwrap_or(0);
        Self(Ulid::from_parts(milliseconds, fastrand::u128(..)))
    }

    /// A fresh id for an operation accepted at this moment that sorts behind this one, also if it
    /// was made by a clock that is ahead.
    #[must_use]
    pub fn after(self, now: Timestamp) -> Self {
        let now = Self::at(now).0.timestamp_ms();
        let milliseconds = now.max(self.0.timestamp_ms().saturating_add(1));
        Self(Ulid::from_parts(milliseconds, fastrand::u128(..)))
    }

    /// Reads an id as [`fmt::Display`] writes it; other spellings of the same ULID are not
    /// accepted.
    pub fn parse(text: &str) -> Option<Self> {
        let id = Self(Ulid::from_str(text.strip_prefix("op_")?).ok()?);
        (id.to_string() == text).then_some(id)
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "op_{}", self.0)
    }
}

/// What is to be true of the task in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Goal {
    /// The task is gone. With `force`, a running task is paused first.
    Absent {
        /// Whether the task may be paused to get there.
        force: bool,
    },
    /// The task is paused.
    Paused,
    /// The task runs, or has run to its good end since.
    Running,
}

impl Goal {
    /// The kind of the operation, as callers see it.
    pub fn kind(self) -> &'static str {
        match self {
            Self::Absent { .. } => "delete",
            Self::Paused => "pause",
            Self::Running => "start",
        }
    }

    /// The value of `force`, as callers see it.
    pub fn force(self) -> Option<&'static str> {
        (self == Self::Absent { force: true }).then_some("pause")
    }

    /// What is wanted, in one word.
    pub fn action(self) -> &'static str {
        match self {
            Self::Absent { force: true } => "force-delete",
            Self::Absent { force: false } | Self::Paused | Self::Running => self.kind(),
        }
    }

    /// What was sent for earlier operations and matters to one with this goal.
    pub fn heeds(self) -> &'static [Change] {
        match self {
            Self::Absent { .. } => &[Change::Start, Change::Pause, Change::Delete],
            Self::Paused => &[Change::Start, Change::Pause],
            Self::Running => &[Change::Pause],
        }
    }

    /// The goal with this kind and force.
    pub fn parse(kind: &str, force: Option<&str>) -> Option<Self> {
        match (kind, force) {
            ("delete", None) => Some(Self::Absent { force: false }),
            ("delete", Some("pause")) => Some(Self::Absent { force: true }),
            ("pause", None) => Some(Self::Paused),
            ("start", None) => Some(Self::Running),
            _ => None,
        }
    }
}

words! {
    /// Where an operation stands.
    Status {
        /// Being driven.
        Running = "running",
        /// The goal holds.
        Succeeded = "succeeded",
        /// It ended with an error.
        Failed = "failed",
        /// Somebody who may do so ended it.
        Cancelled = "cancelled",
        /// Another operation took over.
        Superseded = "superseded",
    }
}

words! {
    /// What the operation is about just now. A memo for people: nothing is decided by it.
    Phase {
        /// Looking at the task.
        Observing = "observing",
        /// A pause is being sent.
        Pausing = "pausing",
        /// Waiting for the task to be at rest.
        WaitingUntilPaused = "waiting_until_paused",
        /// A start is being sent.
        Starting = "starting",
        /// Waiting for the task to run.
        WaitingUntilRunning = "waiting_until_running",
        /// A delete is being sent, or waits for its gate.
        Deleting = "deleting",
        /// A delete was accepted; looking until the task is gone.
        Verifying = "verifying",
    }
}

words! {
    /// How a goal came to hold.
    Outcome {
        /// Gone, and a delete of ours was sent and not definitely refused.
        Deleted = "deleted",
        /// Gone without our doing.
        AlreadyGone = "already_gone",
        /// Paused by us.
        Paused = "paused",
        /// Found paused.
        AlreadyPaused = "already_paused",
        /// Started by us.
        Started = "started",
        /// Found running.
        AlreadyRunning = "already_running",
    }
}

words! {
    /// Why an operation failed, or was refused before it began.
    Reason {
        /// There is no such task.
        TaskNotFound = "task-not-found",
        /// The task is in a state that has to end first.
        TaskInProgress = "task-in-progress",
        /// The task has ended; it can be neither paused nor (after success) started.
        TaskFinished = "task-finished",
        /// The task was never started, so it cannot be paused.
        TaskNotStarted = "task-not-started",
        /// The task was started and failed.
        TaskFailed = "task-failed",
        /// The storage keys were in the memory of a process that is gone.
        CredentialsLost = "credentials-lost",
        /// The configuration of the project is not the one the operation was accepted under.
        ProjectChanged = "project-changed",
        /// It did not end in time.
        DeadlineExceeded = "deadline-exceeded",
        /// The vendor refused the gateway's credentials.
        CredentialsRefused = "credentials-refused",
        /// The gateway's identity lacks a permission at the vendor.
        UpstreamForbidden = "upstream-forbidden",
        /// The vendor kept refusing.
        UpstreamRejected = "upstream-rejected",
    }
}

/// The error that ended an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub reason: Reason,
    /// One sentence for people.
    pub detail: String,
    /// Whether a request that changes something reached the vendor at any time during the
    /// operation.
    pub sent: Sent,
    /// The last thing the vendor said that has to do with the failure.
    pub answer: Option<UpstreamAnswer>,
}

/// One entry of an operation's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationEvent {
    /// When.
    pub at: Timestamp,
    /// What.
    pub kind: EventKind,
}

/// What happened to an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It was recorded.
    Accepted,
    /// Another caller asked for the same.
    Joined,
    /// The task was seen in another state than before. `None`: the service said that there is no
    /// such task.
    Observed(Option<TaskState>),
    /// A pause was accepted; with the vendor's id of the request.
    PauseSent(Option<String>),
    /// A start was accepted.
    StartSent(Option<String>),
    /// A delete was accepted.
    DeleteSent(Option<String>),
    /// The service refused a change, with its code.
    Refused(Option<String>),
    /// An exchange failed: the kind of failure and the vendor's code, if any.
    Fault(String),
    /// Another process went on with it.
    Resumed,
    /// Another operation took over.
    Superseded,
    /// It was cancelled.
    Cancelled,
    /// It ended.
    Ended,
}

impl EventKind {
    /// The word used in JSON, logs and records.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Joined => "joined",
            Self::Observed(_) => "observed",
            Self::PauseSent(_) => "pause_sent",
            Self::StartSent(_) => "start_sent",
            Self::DeleteSent(_) => "delete_sent",
            Self::Refused(_) => "refused",
            Self::Fault(_) => "fault",
            Self::Resumed => "resumed",
            Self::Superseded => "superseded",
            Self::Cancelled => "cancelled",
            Self::Ended => "ended",
        }
    }
}

/// The most events that are kept of one operation. The last place is the end's; what does not fit
/// is dropped.
pub const EVENTS_MAX: usize = 200;

/// An operation as it is on record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its id.
    pub id: OperationId,
    /// The task.
    pub task: TaskRef,
    /// Where the task lives.
    pub binding: Binding,
    /// What is wanted.
    pub goal: Goal,
    /// What a start needs, for goal [`Goal::Running`].
    pub start: StartRecord,
    /// Where it stands.
    pub status: Status,
    /// The memo for people; `None` once it ended.
    pub phase: Option<Phase>,
    /// How the goal came to hold.
    pub outcome: Option<Outcome>,
    /// Why it failed.
    pub failure: Option<Failure>,
    /// The operation that took over.
    pub superseded_by: Option<OperationId>,
    /// Who asked first.
    pub requested_by: CallerName,
    /// Everybody who asked, the first included.
    pub callers: Vec<CallerName>,
    /// When it was recorded.
    pub created_at: Timestamp,
    /// When the record last changed.
    pub updated_at: Timestamp,
    /// When it fails if it has not ended.
    pub deadline_at: Timestamp,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// When the task is to be looked at next.
    pub next_look_at: Timestamp,
    /// Grows with every change of the record; whoever writes must hold the latest.
    pub version: i64,
    /// What decisions rest on.
    pub history: History,
    /// What the task's state was when last seen, for events on change only.
    pub last_seen: Option<TaskState>,
    /// What happened, oldest first.
    pub events: Vec<OperationEvent>,
}

impl Operation {
    /// Whether asking for this goal, with these named credentials, is asking for what this
    /// operation does already. A start with keys in the request is never the same as another.
    pub fn is_same_request(&self, goal: Goal, start: &StartRecord) -> bool {
        self.goal == goal && self.start == *start && !start.inline
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_sorts_behind_the_one_it_follows_whatever_the_clocks_say() {
        let moment = |second: i64| Timestamp::constant(1_767_600_000 + second, 0);
        let before = OperationId::at(moment(3));
        for now in [moment(0), moment(3), moment(9)] {
            let id = before.after(now);
            assert!(before < id, "{before} {id}");
            assert!(before.to_string() < id.to_string());
        }
        assert!(before.after(moment(9)) < OperationId::at(moment(10)));
        assert!(OperationId::FIRST.after(moment(0)) < OperationId::at(moment(1)));
    }
}
