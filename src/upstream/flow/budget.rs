//! How many retries an endpoint may be burdened with: a share of the requests, so that retries
//! never multiply an outage.

use std::{
    mem,
    sync::{Mutex, PoisonError},
};

use tokio::time::Instant;

/// What each request allows for.
const SHARE: f64 = 0.1;
/// What is there without any request: it comes back by one a second.
const RESERVE: f64 = 10.0;
/// The most that is saved up: the reserve, and the share of the last 200 requests.
const SAVED_MAX: f64 = RESERVE + 200.0 * SHARE;

/// The retry budget of one endpoint, shared by all threads.
#[derive(Debug)]
pub(super) struct RetryBudget(Mutex<Balance>);

#[derive(Debug)]
struct Balance {
    retries: f64,
    /// Up to when the reserve was filled.
    filled_at: Instant,
    /// Whether there was none, and has not been much since.
    is_spent: bool,
}

/// Whether a request may be retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    Given,
    /// The first time since there was much.
    DeniedFirst,
    Denied,
}

impl RetryBudget {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Balance {
            retries: RESERVE,
            filled_at: Instant::now(),
            is_spent: false,
        }))
    }

    /// Notes a request that is no retry.
    pub(super) fn earn(&self) {
        self.with(|balance| balance.retries = (balance.retries + SHARE).min(SAVED_MAX));
    }

    /// Takes leave for one retry, if there is any.
    pub(super) fn spend(&self) -> Leave {
        self.with(|balance| {
            if balance.retries >= 1.0 {
                balance.retries -= 1.0;
                return Leave::Given;
            }
            if mem::replace(&mut balance.is_spent, true) {
                Leave::Denied
            } else {
                Leave::DeniedFirst
            }
        })
    }

    /// How many retries are left.
    pub(super) fn left(&self) -> f64 {
        self.with(|balance| balance.retries)
    }

    fn with<T>(&self, work: impl FnOnce(&mut Balance) -> T) -> T {
        let mut balance = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let seconds = now.saturating_duration_since(balance.filled_at);
        balance.filled_at = now;
        if balance.retries < RESERVE {
            balance.retries = (balance.retries + seconds.as_secs_f64()).min(RESERVE);
        }
        balance.is_spent &= balance.retries < RESERVE;
        work(&mut balance)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::{Leave, RetryBudget};

    fn spend_all(budget: &RetryBudget) -> usize {
        (0..1_000)
            .take_while(|_| budget.spend() == Leave::Given)
            .count()
    }

    #[tokio::test(start_paused = true)]
    async fn retries_are_a_tenth_of_the_requests_and_a_small_reserve() {
        let budget = RetryBudget::new();
        assert_eq!(spend_all(&budget), 10);
        for _ in 0..105 {
            budget.earn();
        }
        assert_eq!(spend_all(&budget), 10);
        assert!(budget.left() < 1.0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_reserve_comes_back_with_time_and_no_more_than_it() {
        let budget = RetryBudget::new();
        spend_all(&budget);
        advance(Duration::from_millis(3_500)).await;
        assert_eq!(spend_all(&budget), 3);
        advance(Duration::from_hours(1)).await;
        assert_eq!(spend_all(&budget), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn that_it_is_spent_is_news_once_until_it_is_full_again() {
        let budget = RetryBudget::new();
        let denied = |budget: &RetryBudget| {
            let mut all = (0..20).map(|_| budget.spend());
            all.find(|leave| *leave != Leave::Given).unwrap()
        };
        assert_eq!(denied(&budget), Leave::DeniedFirst);
        assert_eq!(denied(&budget), Leave::Denied);
        advance(Duration::from_secs(5)).await;
        assert_eq!(denied(&budget), Leave::Denied);
        advance(Duration::from_secs(10)).await;
        assert_eq!(denied(&budget), Leave::DeniedFirst);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_of_long_ago_do_not_pay_for_an_outage() {
        let budget = RetryBudget::new();
        for _ in 0..100_000 {
            budget.earn();
        }
        assert_eq!(spend_all(&budget), 30);
    }
}
