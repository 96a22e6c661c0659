//! The pace of one service of one project, kept by all threads together.
//!
//! Whoever wants to send takes a permit. Without one at hand it waits in a queue, up to a moment of
//! its own; one whose turn would come too late is refused at once, which bounds the queue by what
//! the pace lets through until then. Nobody serves the queue: those who wait do, each with a timer
//! for when its own turn should be, so that a thread that stands still holds up nobody else.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{
    Pace,
    bucket::{Bucket, Turn},
    metrics::Metrics,
    queue::{Lane, Queue, Ticket},
};
use crate::{
    domain::service::{ProjectName, ServiceName},
    transport::Purpose,
};

/// A pacer.
#[derive(Debug)]
pub(super) struct Pacer {
    project: ProjectName,
    service: ServiceName,
    metrics: Metrics,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    bucket: Bucket,
    queue: Queue,
}

/// Nobody is let through in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooBusy {
    /// When one who comes now would be let through.
    pub(super) wait: Duration,
}

/// What can be seen of a pacer.
#[derive(Clone, Copy, Debug)]
pub(super) struct PacerView {
    pub(super) rate: f64,
    pub(super) rate_max: f64,
    /// How long nothing goes at all.
    pub(super) pause: Duration,
    pub(super) waiting: usize,
}

impl Pacer {
    pub(super) fn new(
        project: ProjectName,
        service: ServiceName,
        pace: Pace,
        metrics: Metrics,
    ) -> Self {
        Self {
            project,
            service,
            metrics,
            state: Mutex::new(State {
                bucket: Bucket::new(pace, Instant::now()),
                queue: Queue::new(),
            }),
        }
    }

    /// Waits for a permit until this moment. Whoever stops waiting gives its place to the next.
    pub(super) async fn permit(
        self: &Arc<Self>,
        lane: Lane,
        purpose: Purpose,
        until: Instant,
    ) -> Result<Permit, TooBusy> {
        let began = Instant::now();
        let permit = self.wait(lane, purpose, until).await;
        let waited = began.elapsed();
        self.metrics.waited(&self.service, lane.as_str(), waited);
        permit
    }

    /// A permit, if there is one and nobody waits for it.
    pub(super) fn permit_now(self: &Arc<Self>) -> Option<Permit> {
        let (mut state, now) = (self.lock(), Instant::now());
        self.pass_time(&mut state, now);
        let has_one = state.queue.len() == 0 && state.bucket.take(now);
        has_one.then(|| Permit::new(self, &mut state))
    }

    async fn wait(
        self: &Arc<Self>,
        lane: Lane,
        purpose: Purpose,
        until: Instant,
    ) -> Result<Permit, TooBusy> {
        let wake = Arc::new(Notify::new());
        let mut place = {
            let (mut state, now) = (self.lock(), Instant::now());
            self.pass_time(&mut state, now);
            if state.queue.len() == 0 && state.bucket.take(now) {
                return Ok(Permit::new(self, &mut state));
            }
            let ahead = state.queue.ahead_of_next(lane, purpose);
            let due = state.bucket.due(ahead);
            if due > until {
                return Err(TooBusy {
                    wait: due.saturating_duration_since(now),
                });
            }
            Place {
                pacer: self,
                ticket: state.queue.push(lane, purpose, Arc::clone(&wake)),
                is_left: false,
            }
        };
        loop {
            let due = {
                let (mut state, now) = (self.lock(), Instant::now());
                self.pass_time(&mut state, now);
                let Some(ahead) = state.queue.ahead_of(place.ticket) else {
                    place.is_left = true;
                    return Ok(Permit::new(self, &mut state));
                };
                let due = state.bucket.due(ahead);
                if now >= until {
                    return Err(TooBusy {
                        wait: due.saturating_duration_since(now),
                    });
                }
                due.min(until)
            };
            tokio::select! {
                biased;
                () = wake.notified() => {}
                () = sleep_until(due) => {}
            }
        }
    }

    /// Notes a throttling answer to a request that went with a permit of this stretch of time.
    pub(super) fn throttled(&self, stretch: u64, asked: Option<Duration>) {
        self.metrics.throttled(&self.service);
        let mut state = self.lock();
        let now = Instant::now();
        self.pass_time(&mut state, now);
        let turn = state.bucket.throttled(stretch, asked, now);
        self.tell(turn, &state);
    }

    pub(super) fn view(&self) -> PacerView {
        let (mut state, now) = (self.lock(), Instant::now());
        self.pass_time(&mut state, now);
        PacerView {
            rate: state.bucket.rate(),
            rate_max: state.bucket.rate_max(),
            pause: state.bucket.paused_until().saturating_duration_since(now),
            waiting: state.queue.len(),
        }
    }

    /// Fills the bucket, and lets go whoever's turn has come.
    fn pass_time(&self, state: &mut State, now: Instant) {
        let turn = state.bucket.fill(now);
        self.tell(turn, state);
        let mut is_changed = false;
        while state.queue.head().is_some() && state.bucket.take(now) {
            if let Some(wake) = state.queue.pop() {
                wake.notify_one();
            }
            is_changed = true;
        }
        if is_changed && let Some(next) = state.queue.head() {
            // Its turn may come earlier than it thought when it last looked.
            next.notify_one();
        }
    }

    fn tell(&self, turn: Option<Turn>, state: &State) {
        let Some(turn) = turn else { return };
        let (project, service) = (&self.project, &self.service);
        let pause = state.bucket.paused_until();
        let pause = pause.saturating_duration_since(Instant::now());
        match turn {
            Turn::Slowed => tracing::warn!(
                %project,
                %service,
                requests_per_second = state.bucket.rate(),
                pause_seconds = pause.as_secs(),
                "the pace was slowed down, since the cloud throttles"
            ),
            Turn::Paused => tracing::warn!(
                %project,
                %service,
                pause_seconds = pause.as_secs(),
                "the service is not asked for a while, as the cloud wishes"
            ),
            Turn::Recovered => tracing::info!(
                %project,
                %service,
                requests_per_second = state.bucket.rate(),
                "the pace has recovered"
            ),
        }
    }

    /// The lock is held for a few statements that do not wait, and the state is whole after each.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the queue, which is given up when it is dropped.
struct Place<'a> {
    pacer: &'a Arc<Pacer>,
    ticket: Ticket,
    /// Whether its owner went on with a permit.
    is_left: bool,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if self.is_left {
            return;
        }
        let mut state = self.pacer.lock();
        if !state.queue.remove(self.ticket) {
            // It was let go in the very moment in which it gave up.
            state.bucket.give_back();
        }
        self.pacer.pass_time(&mut state, Instant::now());
        if let Some(next) = state.queue.head() {
            next.notify_one();
        }
    }
}

/// Leave to send one request. As long as it is held, the request counts as part of the burst: it is
/// to be dropped in the moment in which the request goes. Dropped without having been used, it goes
/// to the next who waits.
#[derive(Debug)]
pub(super) struct Permit {
    pacer: Arc<Pacer>,
    stretch: u64,
    is_used: bool,
}

impl Permit {
    fn new(pacer: &Arc<Pacer>, state: &mut State) -> Self {
        state.bucket.set_out();
        Self {
            pacer: Arc::clone(pacer),
            stretch: state.bucket.stretch(),
            is_used: false,
        }
    }

    /// From here on it is spent, whatever becomes of the request.
    pub(super) fn used(mut self) -> Self {
        self.is_used = true;
        self
    }

    /// The stretch of time in which it was given, for [`Pacer::throttled`].
    pub(super) fn stretch(&self) -> u64 {
        self.stretch
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let (mut state, now) = (self.pacer.lock(), Instant::now());
        // What came in until here had less room.
        self.pacer.pass_time(&mut state, now);
        state.bucket.arrive();
        if !self.is_used {
            state.bucket.give_back();
            self.pacer.pass_time(&mut state, now);
        }
    }
}

#[cfg(test)]
mod tests;
