//! Migration tasks as every service shows them: identity, state, and what the state allows.

use std::fmt;

use jiff::Timestamp;

use super::{
    service::{ProjectName, ServiceName},
    words::words,
};

/// The id of a task as its service writes it: 1 to 36 characters of `0-9 A-Z a-z -`.
///
/// The alphabet has no character with a meaning in a URL, so an id can be placed into a path as it
/// is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(String);

impl TaskId {
    /// Checks the alphabet and the length; each service narrows further which ids are its own.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=36).contains(&text.len());
        let clean = text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        (fits && clean).then(|| Self(text.to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Which task is meant: an id is unique only within a project and a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TaskRef {
    /// The configured project that owns the task.
    pub project: ProjectName,
    /// The service that runs the task.
    pub service: ServiceName,
    /// The service's own id of the task.
    pub id: TaskId,
}

words! {
    /// The state of a task in the words of this API, the same for every service.
    TaskState {
        /// Not running yet.
        Waiting = "waiting",
        /// Moving data, or busy with a step that cannot be paused.
        Running = "running",
        /// On its way to being paused.
        Pausing = "pausing",
        /// At rest, can be started again.
        Paused = "paused",
        /// Ended well.
        Succeeded = "succeeded",
        /// Ended badly, can be started again.
        Failed = "failed",
        /// Being removed by the service.
        Deleting = "deleting",
        /// A state this program does not know. It is shown and never acted on.
        Unknown = "unknown",
    }
}

/// Where a task stands, as finely as the rules need it. A service maps each of its own states to
/// one of these; what each of them allows is decided in [`super::decide`] alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Being set up by the service; nothing can be done yet (OMS 0).
    Initialising,
    /// Waiting for its turn; starts by itself (OMS 1).
    Queued,
    /// Created, waits for somebody to start it (SMS `READY`).
    Ready,
    /// Moving data; can be paused.
    Running,
    /// In a step that can be neither paused nor deleted (SMS `SKIPPING`, `RESETING`,
    /// `SYNC_F_ROLLBACKING`).
    Busy,
    /// A pause was accepted and is not complete.
    Pausing,
    /// At rest.
    Paused,
    /// Ended badly.
    Failed,
    /// Ended well.
    Succeeded,
    /// The service is removing it.
    Deleting,
    /// Not known to this program.
    Unknown,
}

impl Stage {
    /// Every stage.
    pub const ALL: [Self; 11] = [
        Self::Initialising,
        Self::Queued,
        Self::Ready,
        Self::Running,
        Self::Busy,
        Self::Pausing,
        Self::Paused,
        Self::Failed,
        Self::Succeeded,
        Self::Deleting,
        Self::Unknown,
    ];

    /// Whether nothing moves until somebody starts or deletes the task.
    pub fn is_at_rest(self) -> bool {
        matches!(
            self,
            Self::Ready | Self::Paused | Self::Failed | Self::Succeeded
        )
    }

    /// The state that callers are shown for this stage.
    pub fn state(self) -> TaskState {
        match self {
            Self::Initialising | Self::Queued | Self::Ready => TaskState::Waiting,
            Self::Running | Self::Busy => TaskState::Running,
            Self::Pausing => TaskState::Pausing,
            Self::Paused => TaskState::Paused,
            Self::Failed => TaskState::Failed,
            Self::Succeeded => TaskState::Succeeded,
            Self::Deleting => TaskState::Deleting,
            Self::Unknown => TaskState::Unknown,
        }
    }
}

/// Whether the service would accept a delete of a task at rest, as far as can be told from a look
/// at it.
///
/// SMS decides by the *source server*, not by the task: a delete is refused while the server is
/// connected and busy. OMS has no such gate; its tasks are always `Open`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeleteGate {
    /// Nothing stands against a delete.
    Open,
    /// The service did not tell whether the source server is connected, as in its lists. Whether a
    /// delete is possible is found out by sending it.
    Untold,
    /// The source server is connected and busy.
    Closed,
    /// The source server is known to be disconnected: a delete is possible even while a pause
    /// hangs.
    Offline,
}

/// What one look at a task told.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Which task this is. It is the one that was asked for; an adapter refuses an answer about
    /// another.
    pub reference: TaskRef,
    /// The name given to it at the vendor, if any.
    pub name: Option<String>,
    /// Where it stands.
    pub stage: Stage,
    /// The gate for a delete.
    pub gate: DeleteGate,
    /// The vendor's own word for its state, for people.
    pub upstream_state: String,
    /// How far it is, 0 to 1.
    pub progress: Option<f64>,
    /// Bytes moved and to be moved.
    pub bytes: Option<Amount>,
    /// Objects moved, when the service counts objects.
    pub objects: Option<ObjectCounts>,
    /// Present speed.
    pub bytes_per_second: Option<u64>,
    /// The vendor's estimate of the time left, in seconds.
    pub remaining_seconds: Option<u64>,
    /// When it was last started.
    pub started_at: Option<Timestamp>,
    /// Why it failed, in the vendor's words.
    pub error: Option<TaskError>,
    /// When this look was taken.
    pub observed_at: Timestamp,
    /// The vendor's whole document, without members named like secrets, and with its texts masked
    /// as that of `error` is. Null for a row of a list.
    pub details: serde_json::Value,
}

/// A part of a whole, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount {
    /// Bytes moved so far.
    pub done: u64,
    /// Bytes to be moved in all.
    pub total: u64,
}

/// Objects by what became of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectCounts {
    /// Copied.
    pub succeeded: u64,
    /// Could not be copied.
    pub failed: u64,
    /// Left out on purpose, being at the destination already.
    pub skipped: u64,
    /// All that were found at the source.
    pub total: u64,
}

/// The vendor's reason for the failure of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskError {
    /// The vendor's code, such as `TRF.0155` or `SMS.0515`.
    pub code: String,
    /// The vendor's text; empty when it gives none.
    pub message: String,
}
