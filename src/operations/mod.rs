//! Operations: accepted once, driven to their end.
//!
//! [`Operations`] is what the API uses: it records what is asked for, answers for what is on record, and lets a request
//! wait for an end. The [`engine`] drives everything that is on record, on a thread of its own, whether or not anybody
//! waits; one step of it is a [`round`]. What to do in a round is decided in [`crate::domain::decide`].
//!
//! Nothing here names a vendor, a database or HTTP: it knows the ports only.

mod endings;
pub mod engine;
mod inline_keys;
pub mod metrics;
mod round;
mod sentences;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use self::{endings::Endings, inline_keys::InlineKeys, metrics::Metrics};
use crate::domain::{
    clock::Clock,
    decide::{self, Sight},
    history::History,
    operation::{
        EventKind, Goal, Operation, OperationEvent, OperationId, Outcome, Phase, Reason, Status,
    },
    service::{CallerName, Services},
    start::{StartRecord, StartRequest, StorageCredential},
    store::{Creation, OperationQuery, OperationStore, StoreError},
    task::{TaskRef, TaskState},
};

/// How often whoever waits for an operation reads the record: another process may drive it, and its end is announced
/// there only.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// How operations are driven: section `operations` of the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// An operation that has not ended by then fails.
    pub deadline: Duration,
    /// The first wait between two looks at a task; it doubles from look to look.
    pub poll_min: Duration,
    /// The longest wait between two looks.
    pub poll_max: Duration,
    /// Rounds at the same time.
    pub concurrency: usize,
    /// How long ended operations are kept.
    pub history: Duration,
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
    endings: Endings,
    inline_keys: InlineKeys,
    draining: watch::Sender<bool>,
    /// When the engine last came round its loop.
    heartbeat: watch::Sender<Option<Instant>>,
}

/// What a caller asks for.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Who asks.
    pub caller: CallerName,
    /// Of which task.
    pub task: TaskRef,
    /// What is to be true of it.
    pub goal: Goal,
    /// What a start needs; `None` for other goals and for services whose start needs nothing.
    pub start: Option<StartRequest>,
}

/// Why nothing was recorded.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The task's state stands against it; it was seen a moment ago.
    #[error("{detail}")]
    Refused {
        /// Why.
        reason: Reason,
        /// One sentence for people.
        detail: String,
        /// Where the task stands; `None` if there is no such task.
        sight: Option<Sight>,
    },
    /// Another operation is running on the task.
    #[error("another operation is running on the task")]
    Conflict(Box<Operation>),
    /// The project does not offer the service.
    #[error("the project does not offer the service")]
    NotOffered,
    /// It could not be recorded.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Operations {
    /// Operations kept in this store.
    pub fn new(
        settings: Settings,
        store: Arc<dyn OperationStore>,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Self {
        Self(Arc::new(Shared {
            settings,
            store,
            clock,
            metrics,
            wake: Notify::new(),
            endings: Endings::default(),
            inline_keys: InlineKeys::default(),
            draining: watch::Sender::new(false),
            heartbeat: watch::Sender::new(None),
        }))
    }

    /// Records an operation, or joins the one that does the same already. Once this returns `Ok` the operation survives
    /// a crash. Nothing that changes anything at the vendor is sent from here.
    pub async fn start(&self, services: &Services, ask: &Ask) -> Result<Operation, AskError> {
        let record = record_of(ask.start.as_ref());
        if let Some(running) = self.running_on(&ask.task).await? {
            return self.join(running, ask, &record).await;
        }
        self.refuse_by_a_look(services, ask).await?;
        let operation = self.fresh(services, ask, record.clone())?;
        if let (true, Some(start)) = (record.inline, &ask.start) {
            self.0.inline_keys.keep(operation.id, start.clone());
        }
        match self.0.store.create(&operation).await {
            Ok(Creation::Created) => {
                self.0.metrics.running.inc();
                log_event(&operation, &EventKind::Accepted);
                self.0.wake.notify_one();
                Ok(operation)
            }
            Ok(Creation::Running(running)) => {
                self.0.inline_keys.forget(operation.id);
                self.join(*running, ask, &record).await
            }
            Err(error) => {
                self.0.inline_keys.forget(operation.id);
                Err(error.into())
            }
        }
    }

    /// The operation with this id, whoever asks.
    pub async fn show(&self, id: OperationId) -> Result<Option<Operation>, StoreError> {
        self.0.store.find(id).await
    }

    /// Operations, newest first.
    pub async fn list(&self, query: &OperationQuery) -> Result<Vec<Operation>, StoreError> {
        self.0.store.list(query).await
    }

    /// The operation that is running on a task.
    pub async fn running_on(&self, task: &TaskRef) -> Result<Option<Operation>, StoreError> {
        let query = OperationQuery {
            task: Some(task.clone()),
            status: Some(Status::Running),
            limit: 1,
            ..OperationQuery::default()
        };
        Ok(self.0.store.list(&query).await?.pop())
    }

    /// Waits until the operation has ended, the time is over or the process is to stop, and tells how it stands then.
    /// `None`: there is no such operation.
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
            let found = self.show(id).await?;
            let is_running = found
                .as_ref()
                .is_some_and(|one| one.status == Status::Running);
            if !is_running || *draining.borrow_and_update() || Instant::now() >= until {
                return Ok(found);
            }
            tokio::select! {
                () = subscription.announced() => {}
                () = tokio::time::sleep_until(until.min(Instant::now() + READ_AGAIN)) => {}
                // An error means that the sender is gone, and with it this process's operations.
                _ = draining.changed() => {}
            }
        }
    }

    /// Ends all waiting and takes up no more rounds; rounds in flight go on.
    pub fn drain(&self) {
        self.0.draining.send_replace(true);
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

    /// Whether the record can be written to.
    pub async fn check_store(&self) -> Result<(), StoreError> {
        self.0.store.check().await.map(|_running| ())
    }

    async fn join(
        &self,
        running: Operation,
        ask: &Ask,
        record: &StartRecord,
    ) -> Result<Operation, AskError> {
        // Whoever wants a task gone, if it is at rest, is served by a deletion that also pauses it.
        let served = running.goal == (Goal::Absent { force: true })
            && ask.goal == (Goal::Absent { force: false });
        if !served && !running.is_same_request(ask.goal, record) {
            return Err(AskError::Conflict(Box::new(running)));
        }
        if !running.callers.contains(&ask.caller) {
            self.0
                .store
                .join(running.id, &ask.caller, self.0.clock.now())
                .await?;
            log_event(&running, &EventKind::Joined);
        }
        Ok(running)
    }

    /// One look at the task. A definite answer can refuse the request; a fault cannot, since the operation will look
    /// again.
    async fn refuse_by_a_look(&self, services: &Services, ask: &Ask) -> Result<(), AskError> {
        let service = services.of(&ask.task).ok_or(AskError::NotOffered)?;
        let seen = match service.port.show(&ask.task.id).await {
            Ok(seen) => seen,
            Err(error) => {
                tracing::warn!(
                    task.service = %ask.task.service,
                    task.id = %ask.task.id,
                    error.kind = error.kind.as_str(),
                    "the look before accepting an operation failed: {error}"
                );
                return Ok(());
            }
        };
        let Some(task) = seen else {
            let detail = sentences::refused(Reason::TaskNotFound, &ask.task, None);
            return Err(AskError::Refused {
                reason: Reason::TaskNotFound,
                detail,
                sight: None,
            });
        };
        let sight = Sight::from(&task);
        match decide::refusal(ask.goal, sight) {
            None => Ok(()),
            Some(reason) => {
                let state: TaskState = sight.stage.state();
                let detail = sentences::refused(reason, &ask.task, Some(state));
                Err(AskError::Refused {
                    reason,
                    detail,
                    sight: Some(sight),
                })
            }
        }
    }

    fn fresh(
        &self,
        services: &Services,
        ask: &Ask,
        start: StartRecord,
    ) -> Result<Operation, AskError> {
        let service = services.of(&ask.task).ok_or(AskError::NotOffered)?;
        let now = self.0.clock.now();
        Ok(Operation {
            id: OperationId::at(now),
            task: ask.task.clone(),
            binding: service.binding.clone(),
            goal: ask.goal,
            start,
            status: Status::Running,
            phase: Some(Phase::Observing),
            outcome: None,
            failure: None,
            superseded_by: None,
            requested_by: ask.caller.clone(),
            callers: vec![ask.caller.clone()],
            created_at: now,
            updated_at: now,
            deadline_at: later(now, self.0.settings.deadline),
            finished_at: None,
            next_look_at: now,
            version: 1,
            history: History::default(),
            last_seen: None,
            events: vec![OperationEvent {
                at: now,
                kind: EventKind::Accepted,
            }],
        })
    }
}

/// What is recorded of a start: names, never keys.
fn record_of(start: Option<&StartRequest>) -> StartRecord {
    let Some(start) = start else {
        return StartRecord::default();
    };
    let name = |credential: &Option<StorageCredential>| match credential {
        Some(StorageCredential::Named(name)) => Some(name.clone()),
        Some(StorageCredential::Inline(_)) | None => None,
    };
    let is_inline = |credential: &Option<StorageCredential>| {
        matches!(credential, Some(StorageCredential::Inline(_)))
    };
    StartRecord {
        source: name(&start.source),
        destination: name(&start.destination),
        inline: is_inline(&start.source) || is_inline(&start.destination),
        migrate_failed_objects: start.migrate_failed_objects,
    }
}

/// The one log line of an event of an operation.
fn log_event(operation: &Operation, event: &EventKind) {
    let (state, code) = match event {
        EventKind::Observed(state) => (Some(state.map_or("gone", TaskState::as_str)), None),
        EventKind::Refused(code) => (None, code.as_deref()),
        EventKind::Fault(what) => (None, Some(what.as_str())),
        EventKind::Accepted
        | EventKind::Joined
        | EventKind::PauseSent(_)
        | EventKind::StartSent(_)
        | EventKind::DeleteSent(_)
        | EventKind::Resumed
        | EventKind::Superseded
        | EventKind::Cancelled
        | EventKind::Ended => (None, None),
    };
    tracing::info!(
        operation.id = %operation.id,
        operation.kind = operation.goal.kind(),
        operation.force = operation.goal.force(),
        operation.status = operation.status.as_str(),
        operation.outcome = operation.outcome.map(Outcome::as_str),
        operation.error = operation.failure.as_ref().map(|failure| failure.reason.as_str()),
        task.service = %operation.task.service,
        task.project = %operation.task.project,
        task.id = %operation.task.id,
        task.state = state,
        upstream.code = code,
        "operation {}",
        event.as_str()
    );
}

/// A moment so much later, or the end of time.
fn later(now: Timestamp, wait: Duration) -> Timestamp {
    now.saturating_add(wait).unwrap_or(Timestamp::MAX)
}
