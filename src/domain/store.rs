//! The port to the record of operations.
//!
//! The record is the truth about what was asked for and what was tried: nothing that changes anything is sent before
//! it is on disk. Every write of a driver is guarded by the operation's `version`, so that a late driver cannot
//! overwrite a newer one, and no transaction of the store is open while the vendor is asked.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::{
    operation::{Operation, OperationEvent, OperationId, Status},
    service::CallerName,
    task::TaskRef,
};

/// A durable record of operations. Usable from any thread.
#[async_trait]
pub trait OperationStore: Send + Sync {
    /// Records a fresh operation, its caller and its events, unless an operation is running on the same task.
    /// After `Created` the operation survives a crash. Both happen in one transaction, so that of two requests at
    /// the same moment one creates and the other is shown what was created.
    async fn create(&self, operation: &Operation) -> Result<Creation, StoreError>;

    /// Adds a caller, and the event that says so, to an operation that is running. Nothing happens if the caller is
    /// among its callers already. The version stays, so that the driver is not disturbed.
    async fn join(
        &self,
        id: OperationId,
        caller: &CallerName,
        at: Timestamp,
    ) -> Result<(), StoreError>;

    /// The operation with this id, events and callers included.
    async fn find(&self, id: OperationId) -> Result<Option<Operation>, StoreError>;

    /// Operations, newest first.
    async fn list(&self, query: &OperationQuery) -> Result<Vec<Operation>, StoreError>;

    /// Leases up to `limit` running operations whose next look is due and which nobody else holds, oldest look first,
    /// and raises their version.
    async fn claim(&self, lease: &Lease, limit: u32) -> Result<Claim, StoreError>;

    /// Keeps the lease on those of these operations that this owner still holds.
    async fn renew(&self, lease: &Lease, held: &[OperationId]) -> Result<(), StoreError>;

    /// Writes an operation, appends `events`, and raises the version: both on the row and in `operation`. Whether the
    /// lease is kept says `hold`. [`StoreError::Stale`] if the row's version is another or it has ended: then nothing
    /// was written.
    async fn save(
        &self,
        operation: &mut Operation,
        events: &[OperationEvent],
        hold: Hold,
    ) -> Result<(), StoreError>;

    /// How many operations are running. Also tells whether the store can be written to, by writing.
    async fn check(&self) -> Result<u64, StoreError>;
}

/// What became of an attempt to record an operation.
#[derive(Clone, Debug)]
pub enum Creation {
    /// It is on record.
    Created,
    /// Nothing was written: this operation is running on the task.
    Running(Box<Operation>),
}

/// Which operations a list shows.
#[derive(Clone, Debug, Default)]
pub struct OperationQuery {
    /// Only those on this task.
    pub task: Option<TaskRef>,
    /// Only those with this status.
    pub status: Option<Status>,
    /// Only those that this caller asked for or joined.
    pub caller: Option<CallerName>,
    /// Only those older than this one: the last of the page before.
    pub before: Option<OperationId>,
    /// At most this many.
    pub limit: u32,
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
}

/// Operations to be driven now.
#[derive(Clone, Debug, Default)]
pub struct Claim {
    /// The leased operations.
    pub operations: Vec<Leased>,
    /// When the next operation that was not leased is due, if any is running. A lease that somebody else holds counts
    /// as due at its end.
    pub next_due_at: Option<Timestamp>,
}

/// An operation to be driven.
#[derive(Clone, Debug)]
pub struct Leased {
    /// The operation.
    pub operation: Operation,
    /// Whether the driver before was another process: its last intent may or may not have been carried out.
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
    /// The record cannot be reached or written.
    #[error("the store is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A row that this version of the program cannot read.
    #[error("the record of {0} cannot be read")]
    Unreadable(String),
}
