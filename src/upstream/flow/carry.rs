//! The way of one request: let through, sent, judged, and perhaps sent again.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::{
    Flow,
    breaker::{Admission, LeftAlone},
    metrics::Retry,
    pacer::{Permit, TooBusy},
    queue::Purpose,
};
use crate::{
    domain::service::{Sent, UpstreamError, UpstreamErrorKind},
    transport::{Limits, Method, Response, TransportError, TransportErrorKind},
    upstream::{answer, fault},
};

/// The longest that a read waits for the pace, all its attempts together.
const READ_WAIT_MAX: Duration = Duration::from_secs(10);
/// How often a request is sent again.
const RETRIES_MAX: u32 = 2;
/// The pause before the first retry; it doubles.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// A vendor who asks for a longer pause gets no retry: whoever sent the request is told to come back.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// What came of one attempt.
type Attempt = Result<Response, TransportError>;

/// What an attempt tells about the endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// It is well.
    Well,
    /// It asks to slow down.
    Throttled,
    /// It could not be reached, did not answer, or has a fault of its own.
    Faulty,
    /// Nothing: the attempt ended in the gateway itself.
    Untried,
}

impl Flow {
    /// Sends a request at the pace of the service, unless the endpoint is left alone, and gives back whatever complete
    /// answer comes. `send` makes one attempt, within the limits that it is given; its own error ends the request.
    ///
    /// A read that meets a fault of the endpoint is sent again, a change only if no connection was made: a few times, within
    /// the time limit of the request, and only as far as the retry budget allows. Nothing is begun after `by`.
    ///
    /// [`UpstreamErrorKind::CircuitOpen`] and, if its turn comes too late, [`UpstreamErrorKind::Throttled`]: nothing was
    /// sent.
    pub(in crate::upstream) async fn carry(
        &self,
        method: Method,
        by: Option<Instant>,
        send: impl AsyncFn(Limits) -> Result<Attempt, UpstreamError>,
    ) -> Result<Response, UpstreamError> {
        let (mut patience, mut time) = (READ_WAIT_MAX, self.time);
        let mut retries = 0;
        let mut last = None;
        self.budget.earn();
        loop {
            let asked = Instant::now();
            let until = by.unwrap_or(asked + patience);
            let (permit, admission) = match self.let_through(method, until).await {
                Ok(both) => both,
                Err(error) => {
                    let Some(last) = last else { return Err(error) };
                    self.metrics.retry(&self.service, Retry::Failed);
                    return self.told(last);
                }
            };
            patience = patience.saturating_sub(asked.elapsed());
            let began = Instant::now();
            let stretch = permit.used();
            let attempt = send(Limits { begin_by: by, time }).await?;
            let verdict = self.judge(&attempt, stretch, admission);
            if retries > 0 {
                let succeeded = [Verdict::Well, Verdict::Throttled].contains(&verdict);
                let result = if succeeded {
                    Retry::Succeeded
                } else {
                    Retry::Failed
                };
                self.metrics.retry(&self.service, result);
            }
            time = time.saturating_sub(began.elapsed());
            let may = verdict == Verdict::Faulty && retries < RETRIES_MAX;
            let Some(pause) = pause(method, &attempt, retries).filter(|_| may) else {
                return self.told(attempt);
            };
            // What is left must be worth an attempt: one that is cut off early tells nothing and costs the vendor as much.
            time = time.saturating_sub(pause);
            if time < self.time / 2 {
                return self.told(attempt);
            }
            if !self.budget.spend() {
                self.metrics.retry(&self.service, Retry::Denied);
                return self.told(attempt);
            }
            sleep(pause).await;
            retries += 1;
            last = Some(attempt);
        }
    }

    /// Asks the breaker, waits for the pace, and asks the breaker again, which may have opened meanwhile.
    async fn let_through(
        &self,
        method: Method,
        until: Instant,
    ) -> Result<(Permit, Admission), UpstreamError> {
        let purpose = match method {
            Method::Get => Purpose::Read,
            Method::Post | Method::Put | Method::Delete => Purpose::Change,
        };
        self.breaker
            .check()
            .map_err(|refusal| self.left_alone(refusal))?;
        let permit = self.pacer.permit(self.lane, purpose, until).await;
        let permit = permit.map_err(|refusal| self.too_busy(refusal))?;
        let admission = self.breaker.admit();
        let admission = admission.map_err(|refusal| self.left_alone(refusal))?;
        Ok((permit, admission))
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
            Verdict::Untried => drop(admission),
        }
        verdict
    }

    fn told(&self, attempt: Attempt) -> Result<Response, UpstreamError> {
        attempt.map_err(|error| {
            let begun = format!("The exchange with the service {} failed", self.service);
            fault::of_transport(&begun, error)
        })
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

fn verdict(attempt: &Attempt) -> Verdict {
    use TransportErrorKind as Fault;
    match attempt {
        Ok(response) if answer::is_throttled(response) => Verdict::Throttled,
        Ok(response) if response.status >= 500 => Verdict::Faulty,
        // Too much of an answer is one all the same.
        Ok(_) => Verdict::Well,
        Err(error) => match error.kind {
            Fault::TooLarge => Verdict::Well,
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

/// How long to wait before an attempt that met a fault is repeated. `None`: it must not be, or the vendor asks for more
/// patience than a request has.
fn pause(method: Method, attempt: &Attempt, retries: u32) -> Option<Duration> {
    let (asked, was_sent) = match attempt {
        Ok(response) => (response.retry_after.unwrap_or_default(), true),
        Err(error) => (Duration::ZERO, error.sent != Sent::No),
    };
    let may = method == Method::Get || !was_sent;
    let grown = PAUSE_FIRST.saturating_mul(1 << retries);
    let jittered = grown.mul_f64(0.5 + 0.5 * fastrand::f64());
    (may && asked <= PAUSE_MAX).then(|| jittered.max(asked))
}
