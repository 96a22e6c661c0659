//! Operations: a goal for one task, driven to its end by the gateway whether or not the caller stays.

use std::{fmt, str::FromStr as _};

use jiff::Timestamp;
use ulid::Ulid;

use super::{
    secret::Secret,
    service::{Binding, CallerName, CredentialName, Sent, UpstreamAnswer},
    task::{TaskRef, TaskState},
};

/// The id of an operation: `op_` and a ULID, so that ids sort by the time of their making.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OperationId(Ulid);

impl OperationId {
    /// A fresh id for an operation accepted at this moment.
    pub fn at(now: Timestamp) -> Self {
        let milliseconds = u64::try_from(now.as_millisecond()).unwrap_or(0);
        Self(Ulid::from_parts(milliseconds, fastrand::u128(..)))
    }

    /// Reads an id as [`fmt::Display`] writes it; other spellings of the same ULID are not accepted.
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

/// Where an operation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Being driven.
    Running,
    /// The goal holds.
    Succeeded,
    /// It ended with an error.
    Failed,
    /// Somebody who may do so ended it.
    Cancelled,
    /// Another operation took over.
    Superseded,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 5] = [
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::Superseded,
    ];

    /// The word used in JSON, logs and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Superseded => "superseded",
        }
    }

    /// The status with this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// What the operation is about just now. A memo for people: nothing is decided by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Looking at the task.
    Observing,
    /// A pause is being sent.
    Pausing,
    /// Waiting for the task to be at rest.
    WaitingUntilPaused,
    /// A start is being sent.
    Starting,
    /// Waiting for the task to run.
    WaitingUntilRunning,
    /// A delete is being sent, or waits for its gate.
    Deleting,
    /// A delete was accepted; looking until the task is gone.
    Verifying,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 7] = [
        Self::Observing,
        Self::Pausing,
        Self::WaitingUntilPaused,
        Self::Starting,
        Self::WaitingUntilRunning,
        Self::Deleting,
        Self::Verifying,
    ];

    /// The word used in JSON and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Observing => "observing",
            Self::Pausing => "pausing",
            Self::WaitingUntilPaused => "waiting_until_paused",
            Self::Starting => "starting",
            Self::WaitingUntilRunning => "waiting_until_running",
            Self::Deleting => "deleting",
            Self::Verifying => "verifying",
        }
    }

    /// The phase with this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.as_str() == text)
    }
}

/// How a goal came to hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Gone, and a delete of ours was sent and not definitely refused.
    Deleted,
    /// Gone without our doing.
    AlreadyGone,
    /// Paused by us.
    Paused,
    /// Found paused.
    AlreadyPaused,
    /// Started by us.
    Started,
    /// Found running.
    AlreadyRunning,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 6] = [
        Self::Deleted,
        Self::AlreadyGone,
        Self::Paused,
        Self::AlreadyPaused,
        Self::Started,
        Self::AlreadyRunning,
    ];

    /// The word used in JSON, logs and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::AlreadyGone => "already_gone",
            Self::Paused => "paused",
            Self::AlreadyPaused => "already_paused",
            Self::Started => "started",
            Self::AlreadyRunning => "already_running",
        }
    }

    /// The outcome with this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|outcome| outcome.as_str() == text)
    }
}

/// Why an operation failed, or was refused before it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// There is no such task.
    TaskNotFound,
    /// The task is in a state that has to end first.
    TaskInProgress,
    /// The task has ended; it can be neither paused nor (after success) started.
    TaskFinished,
    /// The task was never started, so it cannot be paused.
    TaskNotStarted,
    /// The task was started and failed.
    TaskFailed,
    /// The storage keys were in the memory of a process that is gone.
    CredentialsLost,
    /// The configuration of the project is not the one the operation was accepted under.
    ProjectChanged,
    /// It did not end in time.
    DeadlineExceeded,
    /// The vendor refused the gateway's credentials.
    CredentialsRefused,
    /// The gateway's identity lacks a permission at the vendor.
    UpstreamForbidden,
    /// The vendor kept refusing.
    UpstreamRejected,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 11] = [
        Self::TaskNotFound,
        Self::TaskInProgress,
        Self::TaskFinished,
        Self::TaskNotStarted,
        Self::TaskFailed,
        Self::CredentialsLost,
        Self::ProjectChanged,
        Self::DeadlineExceeded,
        Self::CredentialsRefused,
        Self::UpstreamForbidden,
        Self::UpstreamRejected,
    ];

    /// The word used in problem types, logs and records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TaskNotFound => "task-not-found",
            Self::TaskInProgress => "task-in-progress",
            Self::TaskFinished => "task-finished",
            Self::TaskNotStarted => "task-not-started",
            Self::TaskFailed => "task-failed",
            Self::CredentialsLost => "credentials-lost",
            Self::ProjectChanged => "project-changed",
            Self::DeadlineExceeded => "deadline-exceeded",
            Self::CredentialsRefused => "credentials-refused",
            Self::UpstreamForbidden => "upstream-forbidden",
            Self::UpstreamRejected => "upstream-rejected",
        }
    }

    /// The reason with this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

/// The error that ended an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub reason: Reason,
    /// One sentence for people.
    pub detail: String,
    /// Whether a request that changes something reached the vendor at any time during the operation.
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
    /// The task was seen in another state than before. `None`: the service said that there is no such task.
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

/// The most events that are kept of one operation. The last place is the end's; what does not fit is dropped.
pub const EVENTS_MAX: usize = 200;

/// What a start needs besides the task.
#[derive(Clone, Debug)]
pub struct StartRequest {
    /// Keys to the source bucket; not needed for tasks that read a list of URLs.
    pub source: Option<StorageCredential>,
    /// Keys to the destination bucket.
    pub destination: Option<StorageCredential>,
    /// Copy only the objects that failed before.
    pub migrate_failed_objects: bool,
}

/// Keys to a bucket: by name, or as they are.
#[derive(Clone, Debug)]
pub enum StorageCredential {
    /// An entry of the configuration, looked up each time it is sent.
    Named(CredentialName),
    /// Sent by the caller. They live in memory only.
    Inline(StorageKeys),
}

/// Keys to a bucket.
#[derive(Clone, Debug)]
pub struct StorageKeys {
    /// The access key. Not a secret by the vendor's rules, and not shown all the same.
    pub access_key: Secret,
    /// The secret key.
    pub secret_key: Secret,
    /// The token of temporary keys.
    pub security_token: Option<Secret>,
}

/// What is recorded of a [`StartRequest`]: names, never keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartRecord {
    /// The name of the source's credential.
    pub source: Option<CredentialName>,
    /// The name of the destination's credential.
    pub destination: Option<CredentialName>,
    /// Whether keys came with the request; they are in no record.
    pub inline: bool,
    /// Copy only the objects that failed before.
    pub migrate_failed_objects: bool,
}

/// The intents recorded so far and what came of them, as far as later decisions need it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct History {
    /// A change that was about to be sent when this was recorded, and of which no result was recorded since. After a
    /// crash it may or may not have been sent.
    pub intent: Option<Change>,
    /// Pauses sent.
    pub pause: Attempts,
    /// Starts sent.
    pub start: Attempts,
    /// Deletes sent.
    pub delete: Attempts,
    /// The task's start time as it was when a start was sent.
    pub started_before: Option<Timestamp>,
    /// The last change that the service accepted.
    pub last_accepted: Option<Change>,
    /// Looks that found the task since the last accepted change.
    pub looks_since_accepted: u32,
    /// Looks in a row that found the task failed, since the last accepted change.
    pub failed_looks: u32,
    /// Looks in a row that said "no such task".
    pub gone_looks: u32,
    /// Refusals since the task was last seen in another state.
    pub refusals: u32,
    /// Rounds in a row that failed in a way that waiting does not mend.
    pub permanent_faults: u32,
    /// Whether a request that changes something reached the vendor at any time.
    pub reached: Sent,
    /// Waits since the task was last seen in another state; the wait before the next look grows with it.
    pub waits: u32,
}

/// What became of the requests of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Attempts {
    /// One was sent and not definitely refused.
    pub sent: bool,
    /// How many the service accepted.
    pub accepted: u32,
}

/// A request that changes a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Pause it.
    Pause,
    /// Start it.
    Start,
    /// Delete it.
    Delete,
}

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
    /// Whether asking for this goal, with these named credentials, is asking for what this operation does already.
    /// A start with keys in the request is never the same as another.
    pub fn is_same_request(&self, goal: Goal, start: &StartRecord) -> bool {
        self.goal == goal && self.start == *start && !start.inline
    }
}
