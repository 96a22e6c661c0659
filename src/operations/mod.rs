//! Operations: accepted once, driven to their end.
//!
//! [`Operations`] is what the API uses: it records what is asked for, answers for what is on
//! record, and lets a request wait for an end. The [`engine`] drives everything that is on record,
//! on a thread of its own, whether or not anybody waits; one step of it is a `round`. What to do in
//! a round is decided in [`crate::domain::decide`].
//!
//! Nothing here names a vendor, a database or HTTP: it knows the ports only.

mod accept;
mod audit_outbox;
mod board;
mod endings;
pub mod engine;
mod inline_keys;
pub(crate) mod kill_point;
pub mod metrics;
mod phases;
mod plan;
mod round;
mod send;
mod sentences;
#[cfg(test)]
mod simulation;
mod watching;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use ulid::Ulid;

use self::{
    audit_outbox::OwnEnds,
    endings::Endings,
    inline_keys::InlineKeys,
    kill_point::kill_point,
    metrics::{Ended, Metrics},
    sentences::log_event,
};
use crate::domain::{
    audit::AuditLog,
    clock::Clock,
    history::Change,
    operation::{EventKind, Operation, OperationEvent, OperationId, Status},
    store::{Hold, OperationQuery, OperationStore, Page, Running, StoreError},
    task::TaskRef,
};

pub(crate) use self::accept::to_its_end;
pub use self::accept::{Accepted, Ask, AskError};
#[cfg(any(test, feature = "kill-points"))]
pub use self::kill_point::KILL_POINTS;
pub use self::plan::{Course, Plan};
pub use self::watching::OperationWatch;

/// How operations are driven: section `operations` of the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// An operation that has not ended by then fails.
    pub deadline: Duration,
    /// The first wait between two looks at a task; it doubles from look to look.
    pub poll_min: Duration,
    /// The longest wait between two looks.
    pub poll_max: Duration,
    /// The longest that one request can be on its way to the cloud: `upstream.request_timeout`.
    pub exchange_max: Duration,
    /// Rounds at the same time.
    pub concurrency: usize,
    /// How long ended operations are kept.
    pub history: Duration,
}

/// For how long a write is tried again that somebody else was faster with. A driver writes a few
/// times a second at most, but a busy machine can take as long between a read and the write that
/// rests on it.
const WRITES_FOR: Duration = Duration::from_secs(10);

/// What became of an attempt to cancel an operation.
#[derive(Clone, Debug)]
pub enum Cancellation {
    /// There is no such operation.
    Unknown,
    /// It has ended: by this, or before.
    Ended(Box<Operation>),
    /// A delete was sent, and cannot be taken back.
    TooLate(Box<Operation>),
}

/// The operations of this process. Cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Operations(Arc<Shared>);

struct Shared {
    settings: Settings,
    store: Arc<dyn OperationStore>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    /// Told whenever something on record may have become due.
    wake: Notify,
    own_ends: OwnEnds,
    audit: Option<Arc<dyn AuditLog>>,
    endings: Endings,
    inline_keys: InlineKeys,
    /// The owner of leases: a name that no other process has, and no other run of this one.
    owner: String,
    draining: watch::Sender<bool>,
    /// When an operation could last not be recorded, if none was since. A disk can be full for
    /// those and take a probe.
    refused_at: Mutex<Option<Instant>>,
    /// Since when no operation can be taken up, if the last attempt failed.
    claims_fail_since: Mutex<Option<Instant>>,
    /// When the operations on record were last counted.
    counted_at: tokio::sync::Mutex<Option<Instant>>,
    /// When the engine last came round its loop.
    heartbeat: watch::Sender<Option<Instant>>,
}

/// For how long operations may not be taken up before the record is taken to be away.
const CLAIMS_FAIL_FOR: Duration = Duration::from_secs(5);
/// For how long a record that did not take an operation counts as one that cannot be written to.
const REFUSED_FOR: Duration = Duration::from_secs(5);
/// So many operations that may have deleted a task are looked through for one that a caller may
/// see.
const DELETIONS_MAX: u32 = 10;

impl Operations {
    /// Operations kept in this store, whose ends are told to this log.
    pub fn new(
        settings: Settings,
        store: Arc<dyn OperationStore>,
        audit: Option<Arc<dyn AuditLog>>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Self {
        let now = u64::try_from(clock.now().as_millisecond()).unwrap_or(0);
        let owner = Ulid::from_parts(now, fastrand::u128(..)).to_string();
        Self(Arc::new(Shared {
            settings,
            store,
            clock,
            metrics,
            wake: Notify::new(),
            own_ends: OwnEnds::default(),
            audit,
            endings: Endings::default(),
            inline_keys: InlineKeys::default(),
            owner,
            draining: watch::Sender::new(false),
            refused_at: Mutex::default(),
            claims_fail_since: Mutex::default(),
            counted_at: tokio::sync::Mutex::default(),
            heartbeat: watch::Sender::new(None),
        }))
    }

    /// Where decisions are noted down before they take effect; `None` if nobody wants them to be.
    pub fn audit(&self) -> Option<&Arc<dyn AuditLog>> {
        self.0.audit.as_ref()
    }

    /// The operation with this id, whoever asks.
    pub async fn show(&self, id: OperationId) -> Result<Option<Operation>, StoreError> {
        self.0.store.find(id).await
    }

    /// Operations, newest first.
    pub async fn list(&self, query: &OperationQuery) -> Result<Page, StoreError> {
        self.0.store.list(query).await
    }

    /// The operation that is running on a task, in short.
    pub async fn running(&self, task: &TaskRef) -> Result<Option<Running>, StoreError> {
        self.0.store.running(task).await
    }

    /// The operation that is running on a task.
    async fn running_on(&self, task: &TaskRef) -> Result<Option<Operation>, StoreError> {
        let query = OperationQuery {
            task: Some(task.clone()),
            status: Some(Status::Running),
            limit: 1,
            ..OperationQuery::default()
        };
        Ok(self.0.store.list(&query).await?.operations.pop())
    }

    /// The operations that may have deleted a task that is gone, the last of them first: those for
    /// which a delete was sent and not definitely refused, however they ended.
    pub async fn deletions_of(&self, task: &TaskRef) -> Result<Vec<Operation>, StoreError> {
        let query = OperationQuery {
            task: Some(task.clone()),
            sent_delete: true,
            limit: DELETIONS_MAX,
            ..OperationQuery::default()
        };
        Ok(self.0.store.list(&query).await?.operations)
    }

    /// Waits until the operation has ended, the time is over or the process is to stop, and tells
    /// how it stands then. `None`: there is no such operation.
    pub async fn wait(
        &self,
        id: OperationId,
        limit: Duration,
    ) -> Result<Option<Operation>, StoreError> {
        let until = Instant::now() + limit;
        // Subscribed before the record is read, so that an end between the two is not missed.
        let mut subscription = self.0.endings.subscribe(id);
        let mut draining = self.0.draining.subscribe();
        loop {
            kill_point!("wait.show.before");
            let found = self.show(id).await;
            kill_point!("wait.show.after");
            let found = found?;
            let is_running = found
                .as_ref()
                .is_some_and(|one| one.status == Status::Running);
            if !is_running || *draining.borrow_and_update() || Instant::now() >= until {
                return Ok(found);
            }
            tokio::select! {
                biased;
                () = subscription.announced() => {}
                () = tokio::time::sleep_until(until) => {}
                // An error means that the sender is gone, and with it this process's operations.
                _ = draining.changed() => {}
            }
            kill_point!("wait.woken");
        }
    }

    /// Ends a running operation without a result. What it did to the task stays done. An operation
    /// that has ended stays as it is.
    pub async fn cancel(&self, id: OperationId) -> Result<Cancellation, StoreError> {
        let until = Instant::now() + WRITES_FOR;
        while Instant::now() < until {
            kill_point!("cancel.show.before");
            let shown = self.show(id).await;
            kill_point!("cancel.show.after");
            let Some(mut operation) = shown? else {
                return Ok(Cancellation::Unknown);
            };
            if operation.status != Status::Running {
                return Ok(Cancellation::Ended(Box::new(operation)));
            }
            if operation.history.was_sent(Change::Delete) {
                return Ok(Cancellation::TooLate(Box::new(operation)));
            }
            let events = self.end(&mut operation, Status::Cancelled, EventKind::Cancelled);
            kill_point!("cancel.save.before");
            let saved = self
                .0
                .store
                .save(&mut operation, &events, Hold::Release)
                .await;
            kill_point!("cancel.save.after");
            match saved {
                Ok(()) => {
                    self.0.ended(&operation);
                    kill_point!("cancel.announced");
                    return Ok(Cancellation::Ended(Box::new(operation)));
                }
                // The driver was faster. What it did may have made it too late.
                Err(StoreError::Stale) => {
                    kill_point!("cancel.save.stale");
                }
                Err(error) => return Err(error),
            }
        }
        Err(StoreError::Stale)
    }

    /// Makes an operation one that was ended from outside, and gives the events that say so.
    fn end(
        &self,
        operation: &mut Operation,
        status: Status,
        why: EventKind,
    ) -> Vec<OperationEvent> {
        let at = self.0.clock.now();
        // Its driver, if it is in the middle of a request, will not get to record what comes of it.
        operation.history.settle_unknown();
        operation.status = status;
        operation.phase = None;
        operation.updated_at = at;
        operation.finished_at = Some(at);
        [why, EventKind::Ended]
            .map(|kind| OperationEvent { at, kind })
            .into()
    }

    /// Ends all waiting and takes up no more rounds; rounds in flight go on.
    pub fn drain(&self) {
        self.0.draining.send_replace(true);
    }

    /// Returns once [`Operations::drain`] was called.
    pub async fn draining(&self) {
        // An error means that the sender is gone, and with it this process's operations.
        _ = self.0.draining.subscribe().wait_for(|is| *is).await;
    }

    /// Whether [`Operations::drain`] was called.
    pub fn is_draining(&self) -> bool {
        *self.0.draining.borrow()
    }

    /// Whether the engine has come round its loop lately.
    pub fn is_driven(&self) -> bool {
        self.0
            .heartbeat
            .borrow()
            .is_some_and(|beat| beat.elapsed() < engine::SILENCE_MAX)
    }

    /// Whether the record can be written to, and operations can be taken up from it.
    pub async fn check_store(&self) -> Result<(), StoreError> {
        self.0.store.check().await?;
        let refused_at = *self.0.refused_at();
        if refused_at.is_some_and(|at| at.elapsed() < REFUSED_FOR) {
            let reason = "an operation could not be recorded a moment ago";
            return Err(StoreError::Unavailable(reason.into()));
        }
        let claims_fail_since = *self.0.claims_fail_since();
        if claims_fail_since.is_some_and(|since| since.elapsed() > CLAIMS_FAIL_FOR) {
            let reason = "no operation can be taken up";
            return Err(StoreError::Unavailable(reason.into()));
        }
        Ok(())
    }
}

impl Shared {
    fn claims_fail_since(&self) -> MutexGuard<'_, Option<Instant>> {
        // Whole at any moment.
        self.claims_fail_since
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn refused_at(&self) -> MutexGuard<'_, Option<Instant>> {
        // Whole at any moment.
        self.refused_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells everybody that an operation has ended, which is on record already.
    fn ended(&self, operation: &Operation) {
        let kind = operation.goal.kind();
        let outcome = match (operation.outcome, &operation.failure) {
            (Some(outcome), _) => outcome.as_str(),
            (None, Some(failure)) => failure.reason.as_str(),
            (None, None) => operation.status.as_str(),
        };
        self.metrics
            .ended
            .get_or_create(&Ended { kind, outcome })
            .inc();
        self.inline_keys.forget(operation.id);
        self.endings.announce(operation.id);
        if self.audit.is_some() {
            self.own_ends.add(operation.id);
        }
    }
}

/// A moment so much later, or the end of time.
fn later(now: Timestamp, wait: Duration) -> Timestamp {
    now.saturating_add(wait).unwrap_or(Timestamp::MAX)
}
