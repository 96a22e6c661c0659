//! The port to the record of operations.
//!
//! The record is the truth about what was asked for and what was tried: nothing that changes
//! anything is sent before it is on disk. Every write of a driver is guarded by the operation's
//! `version`, so that a late driver cannot overwrite a newer one, and no transaction of the store
//! is open while the vendor is asked.

use std::{collections::HashMap, error::Error as _, time::Duration};

use async_trait::async_trait;
use jiff::Timestamp;

use super::{
    access::Reach,
    history::History,
    operation::{Operation, OperationEvent, OperationId, Status},
    service::{CallerName, ProjectName, ServiceName},
    task::{TaskId, TaskRef},
};

/// By how much the clocks of two machines that share a record may differ.
pub const CLOCKS_APART: Duration = Duration::from_secs(10);

/// A durable record of operations. Usable from any thread.
///
/// A write that fails with [`StoreError::Unsure`] may have been recorded all the same, or may still
/// be: the answer to it can get lost. One that fails with any other error was not and will not be.
/// Times are kept to the microsecond.
#[async_trait]
pub trait OperationStore: Send + Sync {
    /// Records a fresh operation with all that belongs to it, unless an operation is running on the
    /// same task and is not superseded by it. After `Created` the operation survives a crash. All
    /// this happens in one transaction, so that of two requests at the same moment one creates and
    /// the other is shown what was created.
    async fn create(&self, fresh: &NewOperation) -> Result<Creation, StoreError>;

    /// Adds a caller, with the event that says so unless it is among the callers already, and its
    /// key, to an operation that is running. The version stays, so that the driver is not
    /// disturbed; the driver's copy of the operation does not show the caller.
    async fn join(
        &self,
        id: OperationId,
        caller: &CallerName,
        key: Option<&IdempotencyKey>,
        at: Timestamp,
    ) -> Result<Joining, StoreError>;

    /// The operation that a caller's key stands for, and the fingerprint of the request that it
    /// came with.
    async fn recall(
        &self,
        caller: &CallerName,
        key: &str,
    ) -> Result<Option<(Operation, String)>, StoreError>;

    /// The operation with this id, events and callers included. [`StoreError::Unreadable`] if it
    /// was written by a newer version of this program.
    async fn find(&self, id: OperationId) -> Result<Option<Operation>, StoreError>;

    /// The operation that is running on a task, in short: every look of a caller asks this, so it
    /// has to be cheap.
    async fn running(&self, task: &TaskRef) -> Result<Option<Running>, StoreError>;

    /// The operations on a task, newest first, in short: every request for an operation asks this,
    /// so it has to be cheap.
    async fn former(&self, task: &TaskRef, limit: u32) -> Result<Vec<Former>, StoreError>;

    /// Operations, newest first, events and callers included. Those that cannot be read are logged
    /// and left out.
    async fn list(&self, query: &OperationQuery) -> Result<Page, StoreError>;

    /// Leases up to `limit` running operations whose next look is due and which nobody holds,
    /// oldest look first, and raises their version. An operation that this owner holds already is
    /// in a round, so it is not leased again before its lease has ended. One that is kept for
    /// another owner is left to it until it is late by the duration of a lease and
    /// [`CLOCKS_APART`]. A lease that seems to last longer than that from the present moment on was
    /// begun before the clock was set back: it lasts for one duration from then on. Those that
    /// cannot be read are logged and left alone; after very many of them it may lease none, and be
    /// due again at once.
    async fn claim(&self, lease: &Lease, limit: u32) -> Result<Claim, StoreError>;

    /// Makes the lease on those of these operations that this owner holds last for the whole
    /// duration again, also on what it let end and nobody else has leased since. Tells which these
    /// are.
    async fn renew(
        &self,
        lease: &Lease,
        held: &[OperationId],
    ) -> Result<Vec<OperationId>, StoreError>;

    /// Writes what can change of an operation (id, task, binding, goal, start, callers and creation
    /// never do), appends `events` as far as [`EVENTS_MAX`](super::operation::EVENTS_MAX) allows,
    /// and raises the version: all this in the record and in `operation`. Whether the lease is kept
    /// says `hold`; with the end of the operation it ends. [`StoreError::Stale`] if the version on
    /// record is another or the operation has ended: then nothing was written. After any error
    /// `operation` is as it was.
    async fn save(
        &self,
        operation: &mut Operation,
        events: &[OperationEvent],
        hold: Hold,
    ) -> Result<(), StoreError>;

    /// How far each of these operations has come. Those that are not there or cannot be read are
    /// left out.
    async fn progress(
        &self,
        ids: &[OperationId],
    ) -> Result<HashMap<OperationId, Progress>, StoreError>;

    /// An operation that was ended, by whichever process, soon after it was. Not every store tells,
    /// and none tells of all ends: whoever waits for one has to look by itself at times. For one
    /// listener.
    async fn next_end(&self) -> OperationId {
        std::future::pending().await
    }

    /// Removes up to `limit` operations that ended before a moment, the oldest first, with all that
    /// belongs to them. Tells how many were removed.
    async fn remove_ended(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError>;

    /// Up to `limit` operations that have ended and whose end is still to be told to the audit log,
    /// the first to end first.
    async fn owed_ends(&self, limit: u32) -> Result<Vec<Operation>, StoreError>;

    /// Records that the ends of these operations were told.
    async fn ends_told(&self, ids: &[OperationId]) -> Result<(), StoreError>;

    /// How many operations are running on tasks of one service of one project.
    async fn count_running(
        &self,
        project: &ProjectName,
        service: &ServiceName,
    ) -> Result<u64, StoreError>;

    /// How many operations are running that this caller asked for first. Those that were found to
    /// be unreadable do not count.
    async fn count_running_of(&self, caller: &CallerName) -> Result<u64, StoreError>;

    /// Looks at some of the operations again that could not be read, and treats those that can be
    /// like all others from then on. Before the first of them it looks for those whose status is
    /// none that is known. Tells whether to go on soon, since there are more.
    async fn look_again(&self) -> Result<bool, StoreError>;

    /// How many operations there are on record, whichever process has them.
    async fn counts(&self) -> Result<Counts, StoreError>;

    /// Whether the store can be written to, found out by writing.
    async fn check(&self) -> Result<(), StoreError>;
}

/// A caller's own name for a request, so that it can be repeated without harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// 1 to 64 visible ASCII characters.
    pub key: String,
    /// The hash of what was asked for, secrets aside.
    pub fingerprint: String,
}

/// An operation that is to be recorded, with all that is recorded in the same transaction.
#[derive(Clone, Debug)]
pub struct NewOperation {
    /// The operation.
    pub operation: Operation,
    /// The key that its caller gave the request.
    pub key: Option<IdempotencyKey>,
    /// A running operation on the same task that it takes over from: as it is to be written, with
    /// the version that guards it, and with the events to be appended.
    pub supersedes: Option<(Operation, Vec<OperationEvent>)>,
    /// Whether its end is to be told to the audit log.
    pub owes_end: bool,
    /// The latest operation on the task that it knows of: nothing is written if there is a later
    /// one.
    pub follows: Option<OperationId>,
    /// How many operations of its caller may run with it; `None` for any number.
    pub running_max: Option<u32>,
    /// The owner of leases that it is left to, unless it is late by the duration of a lease and
    /// [`CLOCKS_APART`].
    pub kept_for: Option<String>,
}

impl NewOperation {
    /// An operation without a key that takes over from nothing, whatever came before it.
    pub fn new(operation: Operation) -> Self {
        Self {
            operation,
            key: None,
            supersedes: None,
            owes_end: false,
            follows: None,
            running_max: None,
            kept_for: None,
        }
    }
}

/// What became of an attempt to join an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joining {
    /// The caller is among its callers, and the key stands for it.
    Joined,
    /// Nothing was written: it is not running any more, or the key stands for another one
    /// meanwhile.
    Lost,
}

/// What became of an attempt to record an operation.
#[derive(Clone, Debug)]
pub enum Creation {
    /// It is on record.
    Created,
    /// Nothing was written: this operation is running on the task.
    Running(Box<Operation>),
    /// Nothing was written: the operation to be superseded has moved on, there is a later one than
    /// the one that it follows, or the key stands for another one meanwhile.
    Lost,
    /// Nothing was written: as many operations of its caller are running as may.
    TooMany,
}

/// How many operations there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those that have not ended.
    pub running: i64,
    /// Those that were come across and could not be read. Most of them are running, too.
    pub unreadable: i64,
}

/// How far an operation has come: it has changed if this has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Its version.
    pub version: i64,
    /// How many events it has.
    pub events: i64,
    /// Whether it has ended.
    pub has_ended: bool,
}

/// A running operation in short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its id.
    pub id: OperationId,
    /// Who asked for it: the first one, then whoever joined.
    pub callers: Vec<CallerName>,
}

/// An operation on a task, in short.
#[derive(Clone, Debug)]
pub struct Former {
    /// Its id.
    pub id: OperationId,
    /// Where it stands and what it has tried. `None`: this cannot be read, and was logged.
    pub record: Option<(Status, History)>,
}

/// Which operations a list shows.
#[derive(Clone, Debug, Default)]
pub struct OperationQuery {
    /// Only those on this task.
    pub task: Option<TaskRef>,
    /// Only those on a task with this id, in whatever project and service.
    pub task_id: Option<TaskId>,
    /// Only those with this status.
    pub status: Option<Status>,
    /// Only those for which a delete was sent and not definitely refused.
    pub sent_delete: bool,
    /// Only those that this caller asked for or joined, and those in `or_within`.
    pub caller: Option<CallerName>,
    /// Projects and services whose operations are shown besides those of `caller`.
    pub or_within: Vec<Reach>,
    /// Only those older than this one: the last of the page before.
    pub before: Option<OperationId>,
    /// At most this many.
    pub limit: u32,
}

/// A part of a list of operations.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The operations. Fewer than were asked for where some cannot be read.
    pub operations: Vec<Operation>,
    /// The [`OperationQuery::before`] of the next part; `None` if there is none.
    pub next: Option<OperationId>,
}

/// Who drives, and until when nobody else may.
#[derive(Clone, Debug)]
pub struct Lease {
    /// A name that no other process, and no earlier run of this one, has.
    pub owner: String,
    /// How long from `now` on.
    pub duration: Duration,
    /// The present moment.
    pub now: Timestamp,
    /// The longest that an operation can have until its next look. One that seems to have more was
    /// put there before the clock was set back: it is due.
    pub longest_rest: Duration,
}

/// Operations to be driven now.
#[derive(Clone, Debug, Default)]
pub struct Claim {
    /// The leased operations.
    pub operations: Vec<Leased>,
    /// When the next operation is due that this owner does not hold, if any is running. Not later
    /// than the present moment if one that is due found no room; what somebody else holds counts as
    /// due at the end of its lease, and what is kept for somebody else does not count.
    pub next_due_at: Option<Timestamp>,
}

/// An operation to be driven.
#[derive(Clone, Debug)]
pub struct Leased {
    /// The operation.
    pub operation: Operation,
    /// Whether another process drove it before and let its lease end without giving it back: its
    /// last intent may or may not have been carried out.
    pub taken_over: bool,
}

/// What happens to the lease with a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// The same driver goes on.
    Keep,
    /// Whoever is next may take it when the next look is due.
    Release,
}

/// What can go wrong with the record.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else wrote since this operation was read, or it has ended.
    #[error("the operation was changed by somebody else")]
    Stale,
    /// The record cannot be reached or written. Nothing was written.
    #[error("the store is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The record was lost while a write was under way: it may have taken effect, or may do so
    /// later.
    #[error("the store was lost while it was written to")]
    Unsure(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A row that this version of the program cannot read.
    #[error("the record of {0} cannot be read")]
    Unreadable(String),
}

impl StoreError {
    /// The error and its causes in one line, for the log, whose JSON form shows the message of an
    /// error only: and that does not say whether the disk is full.
    pub fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut source = self.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        text
    }
}
