//! How often a password or a pair of keys that was refused is tried again.
//!
//! The vendor locks an account after a few wrong passwords: five in 15 minutes by default, three in the strictest setting.
//! It locks an access key for five minutes after more than five wrong signatures on end.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use tokio::sync::OwnedMutexGuard;

use crate::domain::service::UpstreamError;

const WINDOW: Duration = Duration::from_mins(15);

/// Who asks with what, as a digest: the same user of two projects counts as one. It is as secret as what it is made of.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Identity([u8; 32]);

impl Identity {
    pub(super) fn of(parts: &[&str]) -> Self {
        let mut digest = Sha256::new();
        for part in parts {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        Self(digest.finalize().into())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

/// How much depends on a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Another credential serves, so that a secret which was refused can rest: the vendor may come to know it later than
    /// the gateway.
    CanWait,
    /// Nothing else lets the gateway in.
    Needed,
}

impl Urgency {
    /// How much depends on a try beside a credential that serves, if there is one.
    pub(super) fn beside<T>(other: Option<&T>) -> Self {
        match other {
            Some(_) => Self::CanWait,
            None => Self::Needed,
        }
    }

    /// How many refusals there may be within [`WINDOW`].
    fn most(self) -> usize {
        match self {
            Self::CanWait => 1,
            Self::Needed => 2,
        }
    }
}

/// The refusals of one identity.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    at: Vec<Timestamp>,
    last: Option<UpstreamError>,
}

impl Refusals {
    /// The last refusal, with the time until a further attempt may be made, if none may be yet.
    pub(super) fn forbid(&mut self, now: Timestamp, urgency: Urgency) -> Option<UpstreamError> {
        // A refusal from the future was noted before the clock was set back: it counts from here on.
        for at in &mut self.at {
            *at = (*at).min(now);
        }
        self.at
            .retain(|at| at.duration_until(now).unsigned_abs() < WINDOW);
        // When this one is over, there are few enough.
        let first = self.at[self.at.len().checked_sub(urgency.most())?];
        let left = WINDOW.saturating_sub(first.duration_until(now).unsigned_abs());
        self.last.clone().map(|error| error.not_before(left))
    }

    pub(super) fn refused(&mut self, error: &UpstreamError, now: Timestamp) {
        self.at.push(now);
        self.last = Some(error.clone());
    }

    pub(super) fn accepted(&mut self) {
        *self = Self::default();
    }
}

/// How one identity fares. Whoever tries it holds its turn until the result is noted, and asks under it whether it may
/// be tried, so that no more attempts are under way than may fail.
#[derive(Debug, Default)]
pub(super) struct Trials {
    turn: Arc<tokio::sync::Mutex<()>>,
    refusals: Mutex<Refusals>,
}

impl Trials {
    /// Waits until nobody else tries it.
    pub(super) async fn turn(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.turn).lock_owned().await
    }

    /// As [`Trials::turn`], but `None` if somebody else tries it.
    pub(super) fn turn_now(&self) -> Option<OwnedMutexGuard<()>> {
        Arc::clone(&self.turn).try_lock_owned().ok()
    }

    pub(super) fn refusals(&self) -> MutexGuard<'_, Refusals> {
        // They are whole between any two statements, so a panic elsewhere does not spoil them.
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The trials of everybody.
#[derive(Debug, Default)]
pub(super) struct Attempts(HashMap<Identity, Arc<Trials>>);

impl Attempts {
    pub(super) fn of(&mut self, identity: Identity) -> Arc<Trials> {
        // What nobody holds and has nothing to tell is forgotten, so that old passwords do not pile up.
        self.0
            .retain(|_, trials| Arc::strong_count(trials) > 1 || !trials.refusals().at.is_empty());
        Arc::clone(self.0.entry(identity).or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::{SignedDuration, Timestamp};

    use super::{
        Attempts, Identity, Refusals,
        Urgency::{CanWait, Needed},
    };
    use crate::domain::service::{Sent, UpstreamError, UpstreamErrorKind};

    fn error() -> UpstreamError {
        UpstreamError {
            kind: UpstreamErrorKind::CredentialsRefused,
            sent: Sent::No,
            retry_after: None,
            answer: None,
            detail: "x".to_owned(),
        }
    }

    #[test]
    fn a_third_attempt_waits_until_the_first_is_15_minutes_old() {
        let now = Timestamp::UNIX_EPOCH;
        let after = |minutes| now + SignedDuration::from_mins(minutes);
        let mut refusals = Refusals::default();
        refusals.refused(&error(), now);
        assert!(refusals.forbid(after(1), Needed).is_none());
        refusals.refused(&error(), after(1));
        assert!(refusals.forbid(after(1), Needed).is_some());
        let withheld = refusals.forbid(after(14), Needed).unwrap();
        assert_eq!(withheld.retry_after, Some(Duration::from_mins(1)));
        assert!(refusals.forbid(after(15), Needed).is_none());
        refusals.refused(&error(), after(15));
        let withheld = refusals.forbid(after(15), Needed).unwrap();
        assert_eq!(withheld.retry_after, Some(Duration::from_mins(1)));
        assert!(refusals.forbid(after(16), Needed).is_none());
    }

    #[test]
    fn a_second_attempt_waits_as_long_unless_it_is_needed() {
        let now = Timestamp::UNIX_EPOCH;
        let after = |minutes| now + SignedDuration::from_mins(minutes);
        let mut refusals = Refusals::default();
        assert!(refusals.forbid(now, CanWait).is_none());
        refusals.refused(&error(), now);
        assert!(refusals.forbid(after(14), CanWait).is_some());
        assert!(refusals.forbid(after(14), Needed).is_none());
        assert!(refusals.forbid(after(15), CanWait).is_none());
    }

    #[test]
    fn a_clock_that_was_set_back_neither_frees_nor_locks_for_ever() {
        let now = Timestamp::UNIX_EPOCH;
        let mut refusals = Refusals::default();
        refusals.refused(&error(), now + SignedDuration::from_hours(48));
        refusals.refused(&error(), now + SignedDuration::from_hours(48));
        assert!(refusals.forbid(now, Needed).is_some());
        let later = now + SignedDuration::from_mins(15);
        assert!(refusals.forbid(later, Needed).is_none());
    }

    #[test]
    fn identities_differ_in_every_part_and_clean_ones_are_forgotten() {
        let of = |user, password| Identity::of(&["acme", user, password]);
        assert_ne!(of("ab", "c"), of("a", "bc"));
        assert_ne!(of("a", "b"), of("a", "c"));
        assert_eq!(format!("{:?}", of("a", "b")), "[redacted]");
        let mut attempts = Attempts::default();
        attempts.of(of("a", "b"));
        attempts
            .of(of("a", "c"))
            .refusals()
            .refused(&error(), Timestamp::UNIX_EPOCH);
        attempts.of(of("a", "d"));
        assert_eq!(attempts.0.len(), 2);
    }
}
