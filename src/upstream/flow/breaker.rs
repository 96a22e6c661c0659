//! The circuit breaker of one endpoint, shared by all threads.
//!
//! After some failures in a row it opens: nothing is sent for a while, which saves whoever asks the
//! wait and the endpoint the load. Then one request is let through as a probe. If it succeeds the
//! breaker closes; if it fails the endpoint is left alone for twice as long as before.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::metrics::Metrics;
use crate::{domain::service::ServiceName, transport::Endpoint};

/// So many failures in a row, and it opens. More than one request can meet with its retries, since
/// a single task that the service chokes on says little about the others.
const FAILURES_MAX: u32 = 10;
/// How long it stays open at first; twice as long after each probe that fails.
const OPEN_FIRST: Duration = Duration::from_secs(1);
/// How long it stays open at most.
const OPEN_MAX: Duration = Duration::from_secs(30);
/// The shortest time that those are told to wait who meet a probe: one that goes well takes less.
const PROBE_TIME: Duration = Duration::from_secs(1);

/// A circuit breaker.
#[derive(Debug)]
pub(super) struct Breaker {
    service: ServiceName,
    endpoint: Endpoint,
    metrics: Metrics,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// How often it opened since it was last closed.
    openings: u32,
    /// How long it was to stay open the last time.
    open_time: Duration,
    /// Counts changes of phase: what comes of a request tells nothing about a phase that it did not
    /// begin in.
    era: u64,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Closed {
        failures: u32,
    },
    Open {
        until: Instant,
    },
    /// `is_vacant`: what was the probe told nothing, so that the next request is it.
    Probing {
        is_vacant: bool,
    },
}

impl State {
    fn check(&self) -> Result<(), LeftAlone> {
        let wait = match self.phase {
            Phase::Closed { .. } | Phase::Probing { is_vacant: true } => Duration::ZERO,
            Phase::Open { until } => until.saturating_duration_since(Instant::now()),
            // The longer it was away, the longer a probe may take and the less does a little more
            // matter.
            Phase::Probing { is_vacant: false } => PROBE_TIME.max(self.open_time / 4),
        };
        wait.is_zero().then_some(()).ok_or(LeftAlone { wait })
    }
}

/// The endpoint is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LeftAlone {
    /// How long still, as far as is known.
    pub(super) wait: Duration,
}

/// What can be seen of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum BreakerView {
    /// Requests pass.
    Closed,
    /// One request passes.
    Probing,
    /// Nothing passes for so long; zero if the next request is the probe.
    Open(Duration),
}

impl Breaker {
    pub(super) fn new(service: ServiceName, endpoint: Endpoint, metrics: Metrics) -> Self {
        Self {
            service,
            endpoint,
            metrics,
            state: Mutex::new(State {
                phase: Phase::Closed { failures: 0 },
                openings: 0,
                open_time: Duration::ZERO,
                era: 0,
            }),
        }
    }

    /// Whether a request may be prepared. Nothing is promised by it.
    pub(super) fn check(&self) -> Result<(), LeftAlone> {
        self.lock().check()
    }

    /// Lets a request through, which has to be sent now. The first after the time of an open
    /// breaker is the probe.
    pub(super) fn admit(self: &Arc<Self>) -> Result<Admission, LeftAlone> {
        let mut state = self.lock();
        state.check()?;
        match &mut state.phase {
            Phase::Closed { .. } => {}
            Phase::Open { .. } => self.turn(&mut state, Phase::Probing { is_vacant: false }),
            Phase::Probing { is_vacant } => *is_vacant = false,
        }
        Ok(Admission {
            breaker: Arc::clone(self),
            era: state.era,
            is_settled: false,
        })
    }

    pub(super) fn view(&self) -> BreakerView {
        match self.lock().phase {
            Phase::Closed { .. } => BreakerView::Closed,
            Phase::Probing { .. } => BreakerView::Probing,
            Phase::Open { until } => {
                BreakerView::Open(until.saturating_duration_since(Instant::now()))
            }
        }
    }

    fn open(&self, state: &mut State) {
        let grown = OPEN_FIRST.saturating_mul(1 << state.openings.min(5));
        // A part by chance, so that many gateways do not come back together.
        let wait = grown.min(OPEN_MAX).mul_f64(0.75 + 0.25 * fastrand::f64());
        state.openings = state.openings.saturating_add(1);
        state.open_time = wait;
        let until = Instant::now() + wait;
        self.turn(state, Phase::Open { until });
    }

    fn turn(&self, state: &mut State, phase: Phase) {
        state.phase = phase;
        state.era += 1;
        let (service, endpoint) = (&self.service, &self.endpoint);
        match phase {
            Phase::Closed { .. } => {
                self.metrics.breaker_turned(service, "closed");
                tracing::info!(%service, %endpoint, "the circuit breaker closed");
            }
            Phase::Open { until } => {
                let wait = until.saturating_duration_since(Instant::now());
                self.metrics.breaker_turned(service, "open");
                tracing::warn!(
                    %service,
                    %endpoint,
                    seconds = wait.as_secs_f64(),
                    "the circuit breaker opened: the service is left alone for a while"
                );
            }
            Phase::Probing { .. } => {
                self.metrics.breaker_turned(service, "probing");
                tracing::info!(
                    %service,
                    %endpoint,
                    "the circuit breaker lets one request through"
                );
            }
        }
    }

    /// The lock is held for a few statements that do not wait, and the state is whole after each.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that was let through. What came of it is told with one of its methods; dropped before
/// that, it counts as never sent, and if it was the probe, the next request is one.
#[derive(Debug)]
pub(super) struct Admission {
    breaker: Arc<Breaker>,
    era: u64,
    is_settled: bool,
}

impl Admission {
    /// The endpoint answered, in whatever sense.
    pub(super) fn succeeded(mut self) {
        self.is_settled = true;
        let mut state = self.breaker.lock();
        if self.era != state.era {
            return;
        }
        match &mut state.phase {
            Phase::Closed { failures } => *failures = 0,
            Phase::Probing { .. } => {
                state.openings = 0;
                let closed = Phase::Closed { failures: 0 };
                self.breaker.turn(&mut state, closed);
            }
            Phase::Open { .. } => {}
        }
    }

    /// The endpoint could not be reached, did not answer, or answered with a fault of its own.
    pub(super) fn failed(mut self) {
        self.is_settled = true;
        let mut state = self.breaker.lock();
        if self.era != state.era {
            return;
        }
        match &mut state.phase {
            Phase::Closed { failures } if *failures + 1 < FAILURES_MAX => *failures += 1,
            Phase::Closed { .. } | Phase::Probing { .. } => self.breaker.open(&mut state),
            Phase::Open { .. } => {}
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if self.is_settled {
            return;
        }
        let mut state = self.breaker.lock();
        if self.era == state.era
            && let Phase::Probing { is_vacant } = &mut state.phase
        {
            *is_vacant = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use prometheus_client::{encoding::text::encode, registry::Registry};
    use tokio::time::advance;

    use super::{Breaker, BreakerView, LeftAlone, OPEN_MAX, PROBE_TIME};
    use crate::{
        domain::service::ServiceName, transport::Endpoint, upstream::flow::metrics::Metrics,
    };

    fn breaker() -> Arc<Breaker> {
        let service = ServiceName::parse("oms").unwrap();
        let endpoint = Endpoint::parse("http://127.0.0.1:9").unwrap();
        Arc::new(Breaker::new(service, endpoint, Metrics::default()))
    }

    fn fail(breaker: &Arc<Breaker>, times: u32) {
        for _ in 0..times {
            breaker.admit().unwrap().failed();
        }
    }

    /// How long it is open, at most.
    fn open_for(breaker: &Breaker) -> Duration {
        match breaker.view() {
            BreakerView::Open(wait) => wait,
            view @ (BreakerView::Closed | BreakerView::Probing) => panic!("{view:?}"),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_ten_failures_in_a_row_and_not_before() {
        let breaker = breaker();
        for _ in 0..3 {
            fail(&breaker, 9);
            breaker.admit().unwrap().succeeded();
        }
        fail(&breaker, 9);
        assert_eq!(breaker.check(), Ok(()));
        fail(&breaker, 1);
        let LeftAlone { wait } = breaker.check().unwrap_err();
        let range = Duration::from_millis(750)..=Duration::from_secs(1);
        assert!(range.contains(&wait), "{wait:?}");
        assert_eq!(breaker.admit().unwrap_err(), LeftAlone { wait });
    }

    #[tokio::test(start_paused = true)]
    async fn one_probe_goes_through_and_its_success_closes() {
        let breaker = breaker();
        fail(&breaker, 10);
        advance(open_for(&breaker)).await;
        assert_eq!(breaker.check(), Ok(()));
        let probe = breaker.admit().unwrap();
        let refused = LeftAlone { wait: PROBE_TIME };
        assert_eq!(breaker.admit().unwrap_err(), refused);
        assert_eq!(breaker.check(), Err(refused));
        probe.succeeded();
        assert_eq!(breaker.view(), BreakerView::Closed);
        fail(&breaker, 9);
        assert_eq!(breaker.view(), BreakerView::Closed);
    }

    #[tokio::test(start_paused = true)]
    async fn each_probe_that_fails_doubles_the_time_up_to_thirty_seconds() {
        let breaker = breaker();
        fail(&breaker, 10);
        for seconds in [1, 2, 4, 8, 16, 30, 30, 30] {
            let grown = Duration::from_secs(seconds);
            let wait = open_for(&breaker);
            assert!(wait <= grown && wait >= grown.mul_f64(0.75), "{wait:?}");
            advance(wait).await;
            let probe = breaker.admit().unwrap();
            let told = breaker.check().unwrap_err().wait;
            assert_eq!(told, PROBE_TIME.max(wait / 4));
            probe.failed();
        }
        assert!(open_for(&breaker) <= OPEN_MAX);
        advance(OPEN_MAX).await;
        breaker.admit().unwrap().succeeded();
        fail(&breaker, 10);
        assert!(
            open_for(&breaker) <= Duration::from_secs(1),
            "it begins anew"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_lost_leaves_its_place_to_the_next() {
        let breaker = breaker();
        fail(&breaker, 10);
        advance(open_for(&breaker)).await;
        for _ in 0..5 {
            let probe = breaker.admit().unwrap();
            assert!(breaker.check().is_err() && breaker.admit().is_err());
            drop(probe);
            assert_eq!(breaker.check(), Ok(()));
            assert_eq!(breaker.view(), BreakerView::Probing);
        }
        breaker.admit().unwrap().succeeded();
        assert_eq!(breaker.view(), BreakerView::Closed);
        let mut registry = Registry::default();
        breaker.metrics.register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for to in ["open", "probing", "closed"] {
            let once = format!("to=\"{to}\"}} 1");
            assert!(text.contains(&once), "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_to_older_requests_tell_nothing() {
        let breaker = breaker();
        let old: Vec<_> = (0..15).map(|_| breaker.admit().unwrap()).collect();
        fail(&breaker, 10);
        advance(open_for(&breaker)).await;
        let probe = breaker.admit().unwrap();
        let mut old = old.into_iter();
        old.next().unwrap().succeeded();
        assert_eq!(breaker.view(), BreakerView::Probing);
        drop(old.next());
        assert_eq!(breaker.view(), BreakerView::Probing);
        probe.succeeded();
        old.for_each(super::Admission::failed);
        assert_eq!(breaker.view(), BreakerView::Closed);
    }
}
