//! Who may try a secret that has not worked yet.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use super::{Refusals, Urgency};
use crate::{domain::clock::Clock, transport::Endpoint};

/// The most attempts at the same time: as many as may fail where nothing else lets the gateway in.
const PLACES: u32 = 2;

/// So many logins may follow each other closely, and then one in each [`LOGIN_EVERY`]: a service
/// that refuses good tokens now and then must not lead to a login for each.
const LOGINS_MAX: u32 = 20;
const LOGIN_EVERY: Duration = Duration::from_secs(1);

/// How one identity fares. Whoever tries it holds a turn until the result is noted, and asks under
/// it whether it may be tried, so that no more attempts are under way than may fail.
#[derive(Debug)]
pub(in crate::upstream::iam) struct Trials {
    places: Arc<Semaphore>,
    /// Each endpoint has one turn, so that one which does not answer leaves a place to the others.
    endpoints: Mutex<HashMap<Endpoint, Arc<tokio::sync::Mutex<()>>>>,
    refusals: Mutex<Refusals>,
    /// When as many logins may follow each other as ever, by the uptime of the machine.
    logins_free_at: Mutex<Duration>,
}

/// The right to try an identity at an endpoint.
#[derive(Debug)]
pub(in crate::upstream::iam) struct Turn {
    _endpoint: OwnedMutexGuard<()>,
    _places: OwnedSemaphorePermit,
}

impl Default for Trials {
    fn default() -> Self {
        Self {
            places: Arc::new(Semaphore::new(PLACES as usize)),
            endpoints: Mutex::default(),
            refusals: Mutex::default(),
            logins_free_at: Mutex::default(),
        }
    }
}

impl Trials {
    /// Waits until nobody else tries it at this endpoint, and not so many elsewhere as may fail.
    pub(in crate::upstream::iam) async fn turn(
        &self,
        endpoint: &Endpoint,
        urgency: Urgency,
        clock: &dyn Clock,
    ) -> Turn {
        let endpoint = self.endpoint(endpoint).lock_owned().await;
        loop {
            let wanted = self.wanted(urgency, clock);
            let places = Arc::clone(&self.places).acquire_many_owned(wanted);
            let places = places.await.expect("nobody closes it");
            // Another attempt may have failed in the wait.
            if self.wanted(urgency, clock) <= wanted {
                return Turn {
                    _endpoint: endpoint,
                    _places: places,
                };
            }
        }
    }

    /// As [`Trials::turn`], but `None` if that has to wait.
    pub(in crate::upstream::iam) fn turn_now(
        &self,
        endpoint: &Endpoint,
        urgency: Urgency,
        clock: &dyn Clock,
    ) -> Option<Turn> {
        let endpoint = self.endpoint(endpoint).try_lock_owned().ok()?;
        let wanted = self.wanted(urgency, clock);
        let places = Arc::clone(&self.places).try_acquire_many_owned(wanted);
        Some(Turn {
            _endpoint: endpoint,
            _places: places.ok()?,
        })
    }

    pub(in crate::upstream::iam) fn refusals(&self) -> MutexGuard<'_, Refusals> {
        // They are whole between any two statements, so a panic elsewhere does not spoil them.
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a login begins, and tells how long it has to wait.
    pub(in crate::upstream::iam) fn login_begins(&self, uptime: Duration) -> Duration {
        let mut free_at = self
            .logins_free_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let spent = free_at.saturating_sub(uptime);
        *free_at = (*free_at).max(uptime) + LOGIN_EVERY;
        spent.saturating_sub(LOGIN_EVERY * (LOGINS_MAX - 1))
    }

    /// How many places an attempt takes: all, if no other one may fail beside it.
    fn wanted(&self, urgency: Urgency, clock: &dyn Clock) -> u32 {
        if self.refusals().is_last(clock.uptime(), urgency) {
            PLACES
        } else {
            1
        }
    }

    fn endpoint(&self, endpoint: &Endpoint) -> Arc<tokio::sync::Mutex<()>> {
        // They are as many as the settings name.
        let mut endpoints = self
            .endpoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Arc::clone(endpoints.entry(endpoint.clone()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_logins_follow_each_other_closely_and_then_one_in_a_second() {
        let trials = Trials::default();
        let second = Duration::from_secs;
        for _ in 0..LOGINS_MAX {
            assert_eq!(trials.login_begins(second(100)), Duration::ZERO);
        }
        assert_eq!(trials.login_begins(second(100)), second(1));
        assert_eq!(trials.login_begins(second(101)), second(1));
        assert_eq!(trials.login_begins(second(103)), Duration::ZERO);
        assert_eq!(trials.login_begins(second(103)), second(1));
        assert_eq!(trials.login_begins(second(200)), Duration::ZERO);
    }
}
