//! The way of one request: let through, sent, judged, and perhaps sent again.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    Flow,
    breaker::{Admission, LeftAlone},
    budget::Leave,
    metrics::Retry,
    pacer::{Permit, TooBusy},
};
use crate::{
    domain::service::{Clearance, Patience, Sent, UpstreamError, UpstreamErrorKind},
    transport::{self, Limits, Method, Purpose, Response, TransportError, TransportErrorKind},
    upstream::{answer, fault},
};

/// How often a request is sent again.
const RETRIES_MAX: u32 = 2;
/// How often a request is tried again that was not good any more when it was about to be written.
const WITHDRAWALS_MAX: u32 = 2;
/// The pause before the first retry; it doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// A vendor who asks for a longer pause gets no retry: whoever sent the request is told to come
/// back.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How often an attempt gives up its turn, since what else it takes is not at hand.
const TURNS_MAX: usize = 4;

/// What came of one attempt.
pub(in crate::upstream) type Attempt = Result<Response, TransportError>;

/// How a request may wait.
#[derive(Clone, Copy, Debug)]
pub(in crate::upstream) struct Call<'a> {
    /// What it does.
    pub(in crate::upstream) method: Method,
    /// What it needs at the moment at which it is sent, if it is a change of an operation.
    pub(in crate::upstream) clearance: Option<&'a Clearance>,
    /// What is left of the wait for the pace. With a clearance it is of no concern.
    pub(in crate::upstream) patience: &'a Patience,
    /// Whether its first attempt has a connection of its own, also if it is a read. Every further
    /// one has.
    pub(in crate::upstream) fresh_connection: bool,
}

impl Call<'_> {
    /// Nothing is begun after this.
    fn by(&self) -> Option<Instant> {
        self.clearance.map(|clearance| clearance.by.into())
    }

    /// Whether it may be sent at this moment.
    fn is_good(&self) -> bool {
        let now = Instant::now().into_std();
        self.clearance
            .is_none_or(|clearance| clearance.is_good(now))
    }
}

/// How a request is sent when its turn has come.
pub(in crate::upstream) trait Dispatch {
    /// What an attempt takes besides its turn, and holds until it ends: a credential, a place among
    /// the connections.
    type Means;

    /// The means, if they are at hand. Waits for nobody.
    async fn at_hand(&self) -> Result<Option<Self::Means>, UpstreamError>;

    /// Waits for the means, within limits of its own.
    async fn wait(&self, by: Option<Instant>) -> Result<Self::Means, UpstreamError>;

    /// Makes one attempt.
    async fn send(&self, means: Self::Means, limits: Limits) -> Attempt;
}

/// All that an attempt takes: it is made at once.
struct Start<M> {
    means: M,
    admission: Admission,
    permit: Permit,
}

/// What an attempt tells about the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is well.
    Well,
    /// It asks to slow down.
    Throttled,
    /// It could not be reached, did not answer, or has a fault of its own.
    Faulty,
    /// It had closed a kept connection. That is its right.
    Stale,
    /// Nothing: what the request shows or rests on came to its end before it was written.
    Withdrawn,
    /// Nothing: the attempt ended in the gateway itself.
    Untried,
}

impl Flow {
    /// Sends a request at the pace of the service, unless the endpoint is left alone, and gives
    /// back whatever complete answer comes.
    ///
    /// A read that meets a fault of the endpoint is sent again, a change only if no connection was
    /// made: a few times, within the time limit of the request, and only as far as the retry budget
    /// allows. A read that was lost with a kept connection is sent once more without the budget,
    /// which is for faults: the pace limits what it costs. Every attempt but the first has a
    /// connection of its own.
    ///
    /// [`UpstreamErrorKind::CircuitOpen`] and, if its turn comes too late,
    /// [`UpstreamErrorKind::Throttled`]: nothing was sent.
    pub(in crate::upstream) async fn carry(
        &self,
        call: Call<'_>,
        exchange: &impl Dispatch,
    ) -> Result<Response, UpstreamError> {
        let mut time = self.time;
        let (mut retries, mut withdrawals, mut is_repeated) = (0, 0, false);
        let mut last = None;
        loop {
            let start = match self.start(call, exchange).await {
                Ok(start) => start,
                Err(error) => {
                    if is_repeated {
                        self.metrics.retry(&self.service, Retry::Failed);
                    }
                    return last.map_or(Err(error), |last| self.told(last));
                }
            };
            if !is_repeated {
                self.budget.earn();
            }
            let began = Instant::now();
            let limits = Limits {
                time,
                fresh_connection: is_repeated || call.fresh_connection,
            };
            let stretch = start.permit.stretch();
            let attempt =
                transport::until_sent(start.permit, exchange.send(start.means, limits)).await;
            let verdict = self.judge(&attempt, stretch, start.admission);
            if is_repeated {
                self.metrics.retry(&self.service, verdict.of_retry());
            }
            time = time.saturating_sub(began.elapsed());
            let pause = match verdict {
                // Changes have connections of their own; should one not, it may have taken effect.
                Verdict::Stale => {
                    (call.method.purpose() == Purpose::Read).then_some(Duration::ZERO)
                }
                Verdict::Withdrawn if withdrawals < WITHDRAWALS_MAX => Some(Duration::ZERO),
                Verdict::Faulty if retries < RETRIES_MAX => pause(call.method, &attempt, retries),
                Verdict::Faulty
                | Verdict::Well
                | Verdict::Throttled
                | Verdict::Withdrawn
                | Verdict::Untried => None,
            };
            let Some(pause) = pause else {
                return self.told(attempt);
            };
            // What is left must be worth an attempt: one that is cut off early tells nothing and
            // costs the vendor as much.
            time = time.saturating_sub(pause);
            if time < self.time / 2 {
                return self.told(attempt);
            }
            is_repeated = true;
            if verdict == Verdict::Stale {
                continue;
            }
            if verdict == Verdict::Withdrawn {
                withdrawals += 1;
                continue;
            }
            if !self.may_retry() {
                return self.told(attempt);
            }
            sleep(pause).await;
            retries += 1;
            last = Some(attempt);
        }
    }

    /// Takes leave for one retry, if there is any.
    fn may_retry(&self) -> bool {
        let leave = self.budget.spend();
        if leave == Leave::DeniedFirst {
            tracing::warn!(
                service = %self.service,
                "the retry budget is spent: faults of the service are passed on as they come"
            );
        }
        if leave != Leave::Given {
            self.metrics.retry(&self.service, Retry::Denied);
        }
        leave == Leave::Given
    }

    /// Waits until an attempt may be made, and can be made at once.
    ///
    /// A turn is worth something only at its moment: requests that had one and then waited for a
    /// login or a connection would go all at once after it. So whoever lacks something gives its
    /// turn to the next, waits, and takes another one. While it waits for that it holds nothing,
    /// since a slow pace must not keep connections, or keys that are tried, from others. While its
    /// connection is made it holds its permit.
    async fn start<E: Dispatch>(
        &self,
        call: Call<'_>,
        exchange: &E,
    ) -> Result<Start<E::Means>, UpstreamError> {
        for _ in 0..TURNS_MAX {
            self.breaker
                .check()
                .map_err(|refusal| self.left_alone(refusal))?;
            let permit = self.turn(call).await?;
            let (permit, means) = if let Some(means) = exchange.at_hand().await? {
                (permit, means)
            } else {
                drop(permit);
                let means = exchange.wait(call.by()).await?;
                let Some(permit) = self.pacer.permit_now() else {
                    continue;
                };
                (permit, means)
            };
            if !call.is_good() {
                break;
            }
            // The last step, so that a probe waits for nothing but the answer. It may have opened
            // meanwhile.
            let admission = self.breaker.admit();
            let admission = admission.map_err(|refusal| self.left_alone(refusal))?;
            return Ok(Start {
                means,
                admission,
                permit: permit.used(),
            });
        }
        let kind = if call.is_good() {
            TransportErrorKind::Busy
        } else {
            TransportErrorKind::Withdrawn
        };
        Err(self.failed(TransportError::new(kind, call.method)))
    }

    /// Waits for the pace.
    async fn turn(&self, call: Call<'_>) -> Result<Permit, UpstreamError> {
        let asked = Instant::now();
        let until = call.by().unwrap_or(asked + call.patience.left());
        let permit = self
            .pacer
            .permit(self.lane, call.method.purpose(), until)
            .await;
        call.patience.spend(asked.elapsed());
        permit.map_err(|refusal| self.too_busy(refusal))
    }

    /// Tells the breaker and the pacer what came of an attempt.
    fn judge(&self, attempt: &Attempt, stretch: u64, admission: Admission) -> Verdict {
        let verdict = verdict(attempt);
        match verdict {
            Verdict::Well => admission.succeeded(),
            Verdict::Throttled => {
                admission.succeeded();
                let asked = attempt.as_ref().ok();
                let asked = asked.and_then(|response| response.retry_after);
                self.pacer.throttled(stretch, asked);
            }
            Verdict::Faulty => admission.failed(),
            Verdict::Stale | Verdict::Withdrawn | Verdict::Untried => drop(admission),
        }
        verdict
    }

    fn told(&self, attempt: Attempt) -> Result<Response, UpstreamError> {
        attempt.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: TransportError) -> UpstreamError {
        let begun = format!("The exchange with the service {} failed", self.service);
        fault::of_transport(&begun, error)
    }

    fn left_alone(&self, LeftAlone { wait }: LeftAlone) -> UpstreamError {
        UpstreamError {
            kind: UpstreamErrorKind::CircuitOpen,
            sent: Sent::No,
            retry_after: Some(wait),
            answer: None,
            detail: format!(
                "The service {} failed several times in a row, so the gateway leaves it alone for a while; nothing was sent.",
                self.service
            ),
        }
    }

    fn too_busy(&self, TooBusy { wait }: TooBusy) -> UpstreamError {
        UpstreamError {
            kind: UpstreamErrorKind::Throttled,
            sent: Sent::No,
            retry_after: Some(wait),
            answer: None,
            detail: format!(
                "More requests wait for the service {} than the gateway's own pace lets through in time; nothing was sent.",
                self.service
            ),
        }
    }
}

impl Verdict {
    /// What it makes of an attempt that was a retry.
    fn of_retry(self) -> Retry {
        match self {
            Self::Well | Self::Throttled => Retry::Succeeded,
            Self::Faulty | Self::Stale | Self::Withdrawn | Self::Untried => Retry::Failed,
        }
    }
}

fn verdict(attempt: &Attempt) -> Verdict {
    use TransportErrorKind as Fault;
    match attempt {
        Ok(response) if answer::is_throttled(response) => Verdict::Throttled,
        Ok(response) if response.status >= 500 => Verdict::Faulty,
        // Too much of an answer is one all the same.
        Ok(_) => Verdict::Well,
        Err(error) => match error.kind {
            Fault::TooLarge => Verdict::Well,
            Fault::Stale => Verdict::Stale,
            Fault::Withdrawn => Verdict::Withdrawn,
            Fault::Unsendable | Fault::Busy => Verdict::Untried,
            Fault::Resolve
            | Fault::Connect
            | Fault::Tls
            | Fault::Timeout
            | Fault::Interrupted
            | Fault::Informational
            | Fault::Malformed => Verdict::Faulty,
        },
    }
}

/// How long to wait before an attempt that met a fault is repeated. `None`: it must not be, or the
/// vendor asks for more patience than a request has.
fn pause(method: Method, attempt: &Attempt, retries: u32) -> Option<Duration> {
    let (asked, was_sent) = match attempt {
        Ok(response) => (response.retry_after.unwrap_or_default(), true),
        Err(error) => (Duration::ZERO, error.sent != Sent::No),
    };
    let may = method.purpose() == Purpose::Read || !was_sent;
    let grown = PAUSE_FIRST.saturating_mul(1 << retries);
    let jittered = grown.mul_f64(0.5 + 0.5 * fastrand::f64());
    (may && asked <= PAUSE_MAX).then(|| jittered.max(asked))
}
