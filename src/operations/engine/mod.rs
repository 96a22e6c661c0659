//! Drives everything that is on record, on a thread of its own.
//!
//! The loop leases what is due, runs a bounded number of rounds side by side, and sleeps until the
//! next look is due or somebody wakes it. It keeps nothing in memory that is not on record, but for
//! what the board knows of tasks: after a crash the next process goes on. On a stop it takes up
//! nothing more; rounds in flight end, or are left to the next start.
//!
//! A round has a place until its requests are answered, also by a service that hangs: that bounds
//! what is under way at the same time, and what is held in memory for it. What is due beyond that
//! is leased by the process that has a place first, the oldest look first. Nothing is leased ahead,
//! also not what a dead process drove: nobody would look at it any sooner, and a lease that waits
//! for a place keeps the operation from all processes that have one. So it is taken over within ten
//! seconds by a process with a place; where requests that hang have them all, once they are given
//! up, after which the circuit breaker keeps the next ones from hanging.

mod house;
mod leases;

use std::{io, pin::pin, rc::Rc, sync::Arc, thread, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::oneshot,
    task::{Id, JoinError, JoinSet, LocalSet},
    time::Instant,
};

use self::{house::keep_house, leases::Leases};
use super::{
    Operations, Shared,
    board::{Board, Economy},
    kill_point::kill_point,
    later, round,
};
use crate::domain::{
    service::Services,
    store::{Claim, Leased},
};

/// The longest sleep: whatever is due for a reason this process was not told of is found after
/// this.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// The longest time between two claims for the sake of more to be claimed together.
const CLAIMS_APART: Duration = Duration::from_millis(100);
/// How long to leave a store alone that failed.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// An engine that did not come round its loop for so long is not alive.
pub const SILENCE_MAX: Duration = Duration::from_secs(15);

/// The thread that drives operations.
pub struct Engine {
    stopped: oneshot::Receiver<()>,
}

/// Why the engine could not be started.
#[derive(Debug, thiserror::Error)]
pub enum EngineError<E> {
    /// No thread could be had.
    #[error("no thread for the engine")]
    Thread(#[source] io::Error),
    /// The services could not be built.
    #[error("the services cannot be set up")]
    Services(#[source] E),
}

impl Engine {
    /// Starts driving. `services` is called on the engine's own thread, since clients are bound to
    /// theirs.
    pub fn start<E: Send + 'static>(
        operations: &Operations,
        services: impl FnOnce() -> Result<Services, E> + Send + 'static,
    ) -> Result<Self, EngineError<E>> {
        let shared = Arc::clone(&operations.0);
        let (built, is_built) = std::sync::mpsc::sync_channel(1);
        let (stopped_sender, stopped) = oneshot::channel();
        thread::Builder::new()
            .name("engine".to_owned())
            .spawn(move || {
                let runtime = match tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                {
                    Ok(runtime) => runtime,
                    Err(error) => {
                        let _unheard = built.send(Err(EngineError::Thread(error)));
                        return;
                    }
                };
                LocalSet::new().block_on(&runtime, async {
                    match services() {
                        Ok(services) => {
                            // Nobody to hear it means that the start was given up.
                            if built.send(Ok(())).is_ok() {
                                Loop::new(shared, services, Economy::ENGINE).run().await;
                            }
                        }
                        Err(error) => {
                            let _unheard = built.send(Err(EngineError::Services(error)));
                        }
                    }
                });
                let _nobody_waits = stopped_sender.send(());
            })
            .map_err(EngineError::Thread)?;
        let outcome = is_built.recv().unwrap_or_else(|_| {
            Err(EngineError::Thread(io::Error::other(
                "the thread ended before it was ready",
            )))
        });
        outcome.map(|()| Self { stopped })
    }

    /// Returns once all rounds have ended after [`Operations::drain`].
    /// Before that, that its thread was lost. Not to be called again once it has returned.
    pub async fn stopped(&mut self) {
        // An error means that the thread is gone, which is what is waited for.
        let _gone = (&mut self.stopped).await;
    }
}

/// The engine itself, which lives on one thread.
pub(super) struct Loop {
    shared: Arc<Shared>,
    services: Rc<Services>,
    board: Rc<Board>,
    rounds: JoinSet<Option<Timestamp>>,
    leases: Leases,
    /// When the next operation that is on record is due.
    due: Timestamp,
    /// Whether something is due that is not to wait for others to become due.
    is_urgent: bool,
    /// Whether the last claim filled all places.
    was_full: bool,
    /// Until when claims rest unless there is reason to hurry.
    claims_rest_until: Instant,
    /// Until when a store that failed is left alone.
    store_rests_until: Instant,
}

impl Loop {
    pub(super) fn new(shared: Arc<Shared>, services: Services, economy: Economy) -> Self {
        let leases = Leases::new(Arc::clone(&shared));
        Self {
            shared,
            services: Rc::new(services),
            board: Rc::new(Board::new(economy)),
            rounds: JoinSet::new(),
            leases,
            due: Timestamp::MIN,
            is_urgent: false,
            was_full: false,
            claims_rest_until: Instant::now(),
            store_rests_until: Instant::now(),
        }
    }

    /// Drives until it is to stop and all rounds have ended.
    pub(super) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut draining = shared.draining.subscribe();
        let mut house = pin!(keep_house(Arc::clone(&shared), Rc::clone(&self.board)));
        loop {
            shared.heartbeat.send_replace(Some(Instant::now()));
            let stopping = *draining.borrow_and_update();
            if stopping && self.rounds.is_empty() {
                return;
            }
            if !stopping {
                self.take_up().await;
            }
            // On a stop nothing that is due is taken up: only the ends of rounds matter.
            let sleep = if stopping {
                SLEEP_MAX
            } else {
                self.until_due()
            };
            // The order is fixed so that a simulation can be repeated; those that matter most and
            // come least stand first.
            tokio::select! {
                biased;
                // It never ends, and so keeps nothing from its turn.
                never = &mut house, if !stopping => match never {},
                () = self.leases.keep_up() => {}
                Some(ended) = self.rounds.join_next_with_id() => self.round_ended(ended),
                () = shared.wake.notified() => {
                    self.due = Timestamp::MIN;
                    self.is_urgent = true;
                }
                () = tokio::time::sleep(sleep) => {}
                _ = draining.changed() => {}
            }
            kill_point!("engine.woken");
            while let Some(ended) = self.rounds.try_join_next_with_id() {
                self.round_ended(ended);
            }
        }
    }

    /// Leases what is due and starts its rounds.
    async fn take_up(&mut self) {
        let free = self
            .shared
            .settings
            .concurrency
            .saturating_sub(self.rounds.len());
        if free == 0 {
            // Nobody knows whether any could be.
            *self.shared.claims_fail_since() = None;
        }
        let now = self.shared.clock.now();
        // Nothing is ever due later than the longest sleep from when that was said: if it seems so,
        // the clock was set back.
        let is_due = self.due <= now || self.due > later(now, SLEEP_MAX);
        if free == 0 || !is_due || !self.rest().is_zero() {
            return;
        }
        let limit = u32::try_from(free).unwrap_or(u32::MAX);
        let apart = CLAIMS_APART.min(self.shared.settings.poll_min / 5);
        self.claims_rest_until = Instant::now() + apart;
        self.is_urgent = false;
        kill_point!("engine.claim.before");
        let until = self.leases.until();
        let terms = self.leases.terms(now);
        let claim = self.shared.store.claim(&terms, limit);
        let claimed = self.leases.keep_up_during(claim).await;
        kill_point!("engine.claim.after");
        match claimed {
            Ok(Claim {
                operations,
                next_due_at,
            }) => {
                *self.shared.claims_fail_since() = None;
                // Whatever is added to the record without this process being told is found at the
                // next sleep's end.
                self.due = next_due_at
                    .unwrap_or(Timestamp::MAX)
                    .min(later(now, SLEEP_MAX));
                self.was_full = operations.len() >= free;
                for leased in operations {
                    self.begin_round(leased, until);
                    kill_point!("engine.round.begun");
                }
            }
            Err(error) => {
                self.shared.metrics.store_faults.inc();
                let now = Instant::now();
                self.shared.claims_fail_since().get_or_insert(now);
                self.store_rests_until = now + STORE_PAUSE;
                tracing::error!(
                    error = error.with_causes(),
                    "operations cannot be taken up; trying again"
                );
                kill_point!("engine.claim.failed");
            }
        }
    }

    fn begin_round(&mut self, leased: Leased, until: Duration) {
        let operation = leased.operation.id;
        let lease = self.leases.take(operation, until);
        let (shared, services) = (Arc::clone(&self.shared), Rc::clone(&self.services));
        let (board, held) = (Rc::clone(&self.board), lease.clone());
        let task = self.rounds.spawn_local(async move {
            round::run((&shared, &services, &board), leased, held).await
        });
        self.leases.keep(task.id(), operation, lease);
    }

    fn round_ended(&mut self, ended: Result<(Id, Option<Timestamp>), JoinError>) {
        match ended {
            Ok((id, next)) => {
                kill_point!("engine.round.ended");
                self.leases.give_up(id);
                if let Some(next) = next {
                    self.due = self.due.min(next);
                    self.is_urgent |= next <= self.shared.clock.now();
                    kill_point!("engine.round.followed");
                }
            }
            Err(error) => {
                // Its lease runs out, and it is taken up again.
                let id = self.leases.give_up(error.id());
                tracing::error!(
                    operation.id = id.map(tracing::field::display),
                    "a round panicked"
                );
            }
        }
    }

    /// How long nothing is claimed whatever is due. Between two claims some time passes, so that
    /// what becomes due meanwhile is claimed together; unless something is urgent, or more was due
    /// than there were places and half of them are free again.
    fn rest(&self) -> Duration {
        let half = self.shared.settings.concurrency / 2;
        let hurries = self.is_urgent || self.was_full && self.rounds.len() <= half;
        let until = if hurries {
            self.store_rests_until
        } else {
            self.store_rests_until.max(self.claims_rest_until)
        };
        until.saturating_duration_since(Instant::now())
    }

    fn until_due(&self) -> Duration {
        let now = self.shared.clock.now();
        let wait = Duration::try_from(self.due.duration_since(now)).unwrap_or(Duration::ZERO);
        // With no room for another round only the end of one matters, and that wakes the loop by
        // itself.
        let full = self.rounds.len() >= self.shared.settings.concurrency;
        if full {
            SLEEP_MAX
        } else {
            wait.max(self.rest()).min(SLEEP_MAX)
        }
    }
}
