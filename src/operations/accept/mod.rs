//! From a request to a record: repeat, join, take over, refuse, or begin.
//!
//! Nothing that changes anything at the vendor is sent from here. Where two requests race, the
//! store's transaction decides; whoever loses begins again, with what the winner recorded before
//! its eyes.

mod inheritance;
mod look;
mod noted;
mod record;
mod standing;

use tokio::time::Instant;

use self::inheritance::Inheritance;
pub(crate) use self::noted::to_its_end;
pub(super) use self::{
    look::{LookResult, refuse},
    standing::Standing,
};
use super::{Operations, WRITES_FOR, kill_point::kill_point, later, log_event, plan::Course};
use crate::domain::{
    access::TaskNames,
    audit::{AuditUnavailable, Auditor},
    history::History,
    operation::{EventKind, Goal, Operation, OperationEvent, OperationId, Phase, Reason, Status},
    service::{CallerName, Services, UpstreamError},
    start::{StartRecord, StartRequest},
    store::{Creation, IdempotencyKey, Joining, NewOperation, StoreError},
    task::{Task, TaskRef},
};

/// What a caller asks for.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Who asks.
    pub caller: CallerName,
    /// Of which task.
    pub task: TaskRef,
    /// The names that the task must have for this caller to ask for this.
    pub names: TaskNames,
    /// What is to be true of it.
    pub goal: Goal,
    /// What a start needs; `None` for other goals and for services whose start needs nothing.
    pub start: Option<StartRequest>,
    /// The caller's own name for the request.
    pub key: Option<IdempotencyKey>,
    /// How many operations of the caller may run at the same time.
    pub running_max: u32,
    /// Who notes down what is decided, before it is done; `None` if nobody does.
    pub auditor: Option<Auditor>,
}

/// What a request led to.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The operation that does what was asked for.
    pub operation: Operation,
    /// Whether the key of the request was known already, so that nothing was done this time.
    pub is_replayed: bool,
}

impl Accepted {
    fn now(operation: Operation) -> Self {
        Self {
            operation,
            is_replayed: false,
        }
    }
}

/// Why nothing was recorded, as far as is known.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The task's state stands against it; it was seen a moment ago.
    #[error("{detail}")]
    Refused {
        /// Why.
        reason: Reason,
        /// One sentence for people.
        detail: String,
        /// The task; `None` if there is none.
        task: Option<Box<Task>>,
    },
    /// The caller may not ask for this of a task of its name, or the task has none.
    #[error("the caller may not change a task of this name")]
    NameDenied,
    /// The task could not be looked at, and its name decides whether the caller may ask for this.
    #[error("the name of the task could not be seen")]
    Unseen(#[source] UpstreamError),
    /// Another operation is running on the task.
    #[error("another operation is running on the task")]
    Conflict(Box<Operation>),
    /// The key stands for another request.
    #[error("the key was used for another request")]
    KeyReused,
    /// So many operations of the caller are running, and no more may.
    #[error("{0} operations of the caller are running, and no more may")]
    TooMany(u32),
    /// The project does not offer the service.
    #[error("the project does not offer the service")]
    NotOffered,
    /// It could not be noted down for those who audit it.
    #[error(transparent)]
    Unaudited(#[from] AuditUnavailable),
    /// It could not be recorded, or may have been: [`StoreError::Unsure`].
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Operations {
    /// Records an operation, or joins the one that does the same already. Once this returns `Ok`
    /// the operation survives a crash.
    pub async fn start(&self, services: &Services, ask: &Ask) -> Result<Accepted, AskError> {
        let record = StartRecord::of(ask.start.as_ref());
        let mut id = OperationId::at(self.0.clock.now());
        let mut noted = None;
        let (mut was_looked_at, mut is_admitted) = (false, ask.names.are_all());
        let mut until = Instant::now() + WRITES_FOR;
        while Instant::now() < until {
            let supersedes = match self.standing(ask, &record).await? {
                Standing::Known(operation) => {
                    let course = (operation.id, Course::Replay);
                    self.noted(ask, (&mut noted, course), async |_, _| Ok(()))
                        .await?;
                    return Ok(Accepted {
                        operation,
                        is_replayed: true,
                    });
                }
                Standing::Free => None,
                Standing::Same(running) => {
                    is_admitted = is_admitted || self.admit(services, ask, &running).await?;
                    let course = (running.id, Course::Join);
                    let join = async move |this: Self, ask| Ok(this.join(running, &ask).await?);
                    match self.noted(ask, (&mut noted, course), join).await? {
                        Some(operation) => return Ok(Accepted::now(operation)),
                        None => continue,
                    }
                }
                Standing::Lesser(running) => Some(running),
                Standing::Other(running) => {
                    self.admit(services, ask, &running).await?;
                    return Err(AskError::Conflict(Box::new(running)));
                }
            };
            let Inheritance { history, follows } = self
                .inheritance(ask.goal, &ask.task, supersedes.as_ref())
                .await?;
            if !was_looked_at {
                let _seen = refuse(ask, self.look(services, ask).await?, &history)?;
                (was_looked_at, is_admitted) = (true, true);
                // What the cloud takes to answer is no race that was lost.
                until = Instant::now() + WRITES_FOR;
                // A look takes long enough for everything to be different.
                if supersedes.is_some() {
                    continue;
                }
            }
            // A later operation has a later one, also if the clock that made the other is ahead.
            if id <= follows {
                id = follows.after(self.0.clock.now());
            }
            let operation = Operation {
                history,
                ..self.fresh(services, ask, (id, record.clone()))?
            };
            let course = match &supersedes {
                None => Course::Begin,
                Some(_) => Course::Supersede,
            };
            let (course, fresh) = ((operation.id, course), operation.clone());
            let create =
                async move |this: Self, ask| this.create(&fresh, &ask, (supersedes, follows)).await;
            if self.noted(ask, (&mut noted, course), create).await? {
                return Ok(Accepted::now(operation));
            }
        }
        Err(StoreError::Stale.into())
    }

    /// `None`: it ended, or the key was taken, meanwhile.
    async fn join(&self, running: Operation, ask: &Ask) -> Result<Option<Operation>, StoreError> {
        if running.callers.contains(&ask.caller) && ask.key.is_none() {
            return Ok(Some(running));
        }
        let now = self.0.clock.now();
        kill_point!("accept.join.before");
        let joining = self
            .0
            .store
            .join(running.id, &ask.caller, ask.key.as_ref(), now)
            .await;
        kill_point!("accept.join.after");
        match joining? {
            Joining::Joined => {
                log_event(&running, &EventKind::Joined);
                self.0.endings.announce_change(running.id);
                Ok(Some(running))
            }
            Joining::Lost => {
                kill_point!("accept.join.lost");
                Ok(None)
            }
        }
    }

    /// `false`: somebody else recorded something first.
    async fn create(
        &self,
        operation: &Operation,
        ask: &Ask,
        (supersedes, follows): (Option<Operation>, OperationId),
    ) -> Result<bool, AskError> {
        let supersedes = supersedes.map(|mut old| {
            kill_point!("accept.supersede.before");
            old.superseded_by = Some(operation.id);
            let events = self.end(&mut old, Status::Superseded, EventKind::Superseded);
            (old, events)
        });
        let fresh = NewOperation {
            operation: operation.clone(),
            key: ask.key.clone(),
            follows: supersedes.is_none().then_some(follows),
            supersedes,
            owes_end: ask.auditor.is_some(),
            running_max: Some(ask.running_max),
            kept_for: operation.start.inline.then(|| self.0.owner.clone()),
        };
        if let (true, Some(start)) = (operation.start.inline, &ask.start) {
            self.0.inline_keys.keep(operation.id, start.clone());
        }
        let creation = self.record(&fresh).await;
        // What may be on record needs its keys. If it is not, they are dropped later.
        if !matches!(creation, Ok(Creation::Created) | Err(StoreError::Unsure(_))) {
            self.0.inline_keys.forget(operation.id);
        }
        match creation? {
            Creation::Created => {}
            Creation::Running(_) | Creation::Lost => {
                kill_point!("accept.create.lost");
                return Ok(false);
            }
            Creation::TooMany => return Err(AskError::TooMany(ask.running_max)),
        }
        if let Some((old, _)) = &fresh.supersedes {
            kill_point!("accept.supersede.recorded");
            log_event(old, &EventKind::Superseded);
            self.0.ended(old);
            kill_point!("accept.supersede.announced");
        }
        log_event(operation, &EventKind::Accepted);
        kill_point!("accept.wake.before");
        self.0.wake.notify_one();
        kill_point!("accept.wake.after");
        Ok(true)
    }

    fn fresh(
        &self,
        services: &Services,
        ask: &Ask,
        (id, start): (OperationId, StartRecord),
    ) -> Result<Operation, AskError> {
        let service = services.of(&ask.task).ok_or(AskError::NotOffered)?;
        let now = self.0.clock.now();
        Ok(Operation {
            id,
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
