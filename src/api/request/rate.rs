//! How many requests a caller may send: each has a bucket that fills up again at an even pace.

use std::{
    cell::Cell,
    num::NonZeroU32,
    rc::Rc,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use actix_web::{
    dev::Extensions,
    http::header::{HeaderMap, HeaderName, HeaderValue},
};
use governor::{
    Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
    middleware::StateInformationMiddleware,
    state::keyed::DashMapStateStore,
};

use crate::{
    api::problem::{Problem, kinds::ProblemType},
    domain::service::{CallerName, Sent},
};

/// The fields of draft-ietf-httpapi-ratelimit-headers: what is granted, and what is left of it.
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LEFT: HeaderName = HeaderName::from_static("ratelimit");
/// After so many requests, callers whose buckets are full are forgotten, so that names made up by
/// token issuers do not pile up.
const FORGET_EVERY: u32 = 4096;

/// What every caller is granted. Nothing counts as one.
#[derive(Clone, Copy, Debug)]
pub struct RateLimit {
    /// How fast the bucket of a caller fills up again.
    pub requests_per_second: u32,
    /// How much it holds.
    pub burst: u32,
}

/// The buckets of all callers, shared by all threads of this process.
pub(in crate::api) struct Rates {
    limit: RateLimit,
    buckets: RateLimiter<
        CallerName,
        DashMapStateStore<CallerName>,
        DefaultClock,
        StateInformationMiddleware,
    >,
    counted: AtomicU32,
}

/// What a caller has left.
#[derive(Clone, Copy)]
pub(in crate::api) struct Left {
    limit: RateLimit,
    requests: u32,
}

/// What the caller of a request has left, once that is known. Clones share it: one stays with the
/// request, and another is there for the answer if the request is given up.
#[derive(Clone, Default)]
pub(in crate::api) struct Noted(Rc<Cell<Option<Left>>>);

impl Noted {
    /// Notes it with a request, for its answer.
    pub(in crate::api) fn note(extensions: &Extensions, left: Left) {
        if let Some(noted) = extensions.get::<Self>() {
            noted.0.set(Some(left));
        }
    }

    /// Says it in an answer.
    pub(in crate::api) fn show(&self, headers: &mut HeaderMap) {
        if let Some(left) = self.0.get() {
            left.show(headers);
        }
    }
}

impl Rates {
    pub(in crate::api) fn new(limit: RateLimit) -> Self {
        let some = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let quota =
            Quota::per_second(some(limit.requests_per_second)).allow_burst(some(limit.burst));
        Self {
            limit,
            buckets: RateLimiter::dashmap(quota).with_middleware(),
            counted: AtomicU32::new(0),
        }
    }

    /// Counts a request. The error is the answer to one too many.
    pub(in crate::api) fn count(&self, caller: &CallerName) -> (Left, Result<(), Problem>) {
        if self.counted.fetch_add(1, Ordering::Relaxed) % FORGET_EVERY == FORGET_EVERY - 1 {
            self.buckets.retain_recent();
        }
        let (requests, result) = match self.buckets.check_key(caller) {
            Ok(snapshot) => (snapshot.remaining_burst_capacity(), Ok(())),
            Err(until) => {
                let wait = until.wait_time_from(DefaultClock::default().now());
                (0, Err(too_many(self.limit, wait)))
            }
        };
        let left = Left {
            limit: self.limit,
            requests,
        };
        (left, result)
    }
}

impl Left {
    fn show(self, headers: &mut HeaderMap) {
        let (burst, pace) = (self.limit.burst, self.limit.requests_per_second.max(1));
        let policy = format!("\"caller\";q={burst};w={}", burst.div_ceil(pace));
        let missing = burst.saturating_sub(self.requests);
        let left = format!(
            "\"caller\";r={};t={}",
            self.requests,
            missing.div_ceil(pace)
        );
        for (name, value) in [(POLICY, policy), (LEFT, left)] {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
    }
}

fn too_many(limit: RateLimit, wait: Duration) -> Problem {
    let detail = format!(
        "The caller may send {} requests at once and {} a second.",
        limit.burst, limit.requests_per_second
    );
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    Problem::new(ProblemType::RateLimited, detail)
        .sent(Sent::No)
        .retry_after(seconds)
}

#[cfg(test)]
mod tests {
    use super::{FORGET_EVERY, RateLimit, Rates};
    use crate::domain::service::CallerName;

    #[test]
    fn callers_who_have_not_come_for_a_while_are_forgotten() {
        let rates = Rates::new(RateLimit {
            requests_per_second: 1_000_000,
            burst: 1,
        });
        for number in 0..3 * FORGET_EVERY {
            let name = CallerName::configured(&format!("caller-{number}"));
            assert!(rates.count(&name.expect("a name")).1.is_ok());
        }
        assert!(rates.buckets.len() <= 8, "{}", rates.buckets.len());
    }
}
