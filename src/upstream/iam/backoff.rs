//! Failures that are remembered for a while, so that they are not repeated at once.

use std::time::Duration;

use jiff::Timestamp;

use crate::domain::service::UpstreamError;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// When this has passed since the wait was over, the next failure is the first one again.
const FORGOTTEN_AFTER: Duration = Duration::from_mins(15);
/// The longest wait that is granted to a vendor who asks for one.
const LONGEST_ASKED: Duration = Duration::from_mins(1);

/// The memory of one kind of failure: 1 s after the first, twice as long after each further one, at
/// most 30 s, or the wait that the vendor asked for; a part of it by chance, so that many gateways
/// do not come back together.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    last: Option<(UpstreamError, Timestamp)>,
}

impl Backoff {
    /// The error that stands in for a further attempt, as long as it does, with the time that is
    /// left of that: whoever drives an operation would otherwise come back sooner, and take the
    /// memory for a further failure.
    pub(super) fn remembered(&self, now: Timestamp) -> Option<UpstreamError> {
        let (error, until) = self.last.as_ref()?;
        let left = Duration::try_from(until.duration_since(now)).ok()?;
        // More is left than ever was when the machine's clock was set back.
        (!left.is_zero() && left <= LONGEST_ASKED).then(|| error.clone().remembered(left))
    }

    /// As [`Backoff::remembered`], while somebody tries again: the shortest wait stands in when
    /// none is left.
    pub(super) fn next(&self, now: Timestamp) -> Option<UpstreamError> {
        let (error, _) = self.last.as_ref()?;
        let fallback = || error.clone().remembered(FIRST);
        Some(self.remembered(now).unwrap_or_else(fallback))
    }

    /// Notes a failure, and gives it back with the time for which it is remembered.
    pub(super) fn failed(&mut self, error: UpstreamError, now: Timestamp) -> UpstreamError {
        if let Some((_, until)) = &self.last
            && Duration::try_from(until.duration_until(now))
                .is_ok_and(|since| since > FORGOTTEN_AFTER)
        {
            self.forget();
        }
        let asked = error.retry_after.unwrap_or_default().min(LONGEST_ASKED);
        let grown = FIRST.saturating_mul(1 << self.failures.min(5)).min(LONGEST);
        let wait = grown.mul_f64(0.75 + 0.25 * fastrand::f64()).max(asked);
        self.failures = self.failures.saturating_add(1);
        let until = now.saturating_add(wait).unwrap_or(now);
        self.last = Some((error.clone(), until));
        error.not_before(wait)
    }

    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::{SignedDuration, Timestamp};

    use super::Backoff;
    use crate::domain::service::{Sent, UpstreamError, UpstreamErrorKind};

    fn error(retry_after: Option<u64>) -> UpstreamError {
        UpstreamError {
            kind: UpstreamErrorKind::Throttled,
            sent: Sent::No,
            retry_after: retry_after.map(Duration::from_secs),
            answer: None,
            detail: "x".to_owned(),
        }
    }

    fn is_remembered(backoff: &Backoff, now: Timestamp, after_ms: i64) -> bool {
        backoff
            .remembered(now + SignedDuration::from_millis(after_ms))
            .is_some()
    }

    #[test]
    fn a_failure_is_remembered_for_one_second_at_first_and_thirty_at_last() {
        let now = Timestamp::UNIX_EPOCH;
        let mut backoff = Backoff::default();
        assert!(!is_remembered(&backoff, now, 0));
        for seconds in [1, 2, 4, 8, 16, 30, 30, 30] {
            backoff.failed(error(None), now);
            assert!(is_remembered(&backoff, now, seconds * 740), "{seconds}");
            assert!(!is_remembered(&backoff, now, seconds * 1000), "{seconds}");
        }
        let later = now + SignedDuration::from_mins(16);
        backoff.failed(error(None), later);
        assert!(!is_remembered(&backoff, later, 1000), "it was long ago");
        backoff.forget();
        backoff.failed(error(None), now);
        assert!(!is_remembered(&backoff, now, 1000));
    }

    #[test]
    fn the_vendor_may_ask_for_a_longer_wait_but_not_for_any() {
        let now = Timestamp::UNIX_EPOCH;
        let mut backoff = Backoff::default();
        backoff.failed(error(Some(20)), now);
        assert!(is_remembered(&backoff, now, 19_999));
        assert!(!is_remembered(&backoff, now, 20_000));
        backoff.failed(error(Some(100_000)), now);
        assert!(!is_remembered(&backoff, now, 60_000));
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_make_it_last() {
        let now = Timestamp::UNIX_EPOCH;
        let mut backoff = Backoff::default();
        backoff.failed(error(None), now);
        assert!(!is_remembered(&backoff, now, -3_600_000));
    }
}
