//! How often a password or a pair of keys that was refused is tried again.
//!
//! The vendor locks an account after a few wrong passwords: five in 15 minutes by default, three in the strictest setting.
//! It locks an access key for five minutes after more than five wrong signatures on end.

mod trials;

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

pub(super) use self::trials::{Trials, Turn};
use crate::domain::service::UpstreamError;
use sha2::{Digest as _, Sha256};

const WINDOW: Duration = Duration::from_mins(15);
/// How long a pair of keys that has signed what a service accepted is left alone after its second refusal within [`WINDOW`]; three times as
/// long after each further one, up to the time for which the vendor locks it. Such a pair may be refused for no fault of its own,
/// say because a clock was wrong for a while.
const PROVEN_PAUSE: Duration = Duration::from_secs(10);
const PROVEN_PAUSE_MAX: Duration = Duration::from_mins(5);

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
    /// By the uptime of the machine: nobody can set that, so that no tries are free too early.
    at: Vec<Duration>,
    last: Option<UpstreamError>,
    /// Whether it is a pair of keys that a service has accepted.
    is_proven: bool,
}

impl Refusals {
    /// The last refusal, with the time until a further attempt may be made, if none may be yet.
    pub(super) fn forbid(&mut self, uptime: Duration, urgency: Urgency) -> Option<UpstreamError> {
        self.forget(uptime);
        let since = |at: &Duration| uptime.saturating_sub(*at);
        let further = self.at.len().checked_sub(urgency.most())?;
        let left = if self.is_proven && urgency == Urgency::Needed {
            let growth = 3_u32.saturating_pow(u32::try_from(further).unwrap_or(u32::MAX));
            let pause = PROVEN_PAUSE.saturating_mul(growth).min(PROVEN_PAUSE_MAX);
            let last = self.at.last()?;
            let left = pause.checked_sub(since(last))?;
            (!left.is_zero()).then_some(left)?
        } else {
            // When this one is over, there are few enough.
            WINDOW.saturating_sub(since(&self.at[further]))
        };
        self.last.clone().map(|error| error.remembered(left))
    }

    /// Whether no more than one further attempt may fail.
    fn is_last(&mut self, uptime: Duration, urgency: Urgency) -> bool {
        self.forget(uptime);
        self.at.len() + 1 >= urgency.most()
    }

    /// Forgets what is out of the window; tells whether nothing is left.
    fn forget(&mut self, uptime: Duration) -> bool {
        self.at.retain(|at| uptime.saturating_sub(*at) < WINDOW);
        self.at.is_empty()
    }

    pub(super) fn refused(&mut self, error: &UpstreamError, uptime: Duration) {
        self.at.push(uptime);
        self.last = Some(error.clone());
    }

    /// The vendor has accepted a password.
    pub(super) fn accepted(&mut self) {
        *self = Self::default();
    }

    /// A service has accepted a signature.
    pub(super) fn proven(&mut self) {
        *self = Self {
            is_proven: true,
            ..Self::default()
        };
    }
}

/// The trials of everybody.
#[derive(Debug, Default)]
pub(super) struct Attempts(HashMap<Identity, Arc<Trials>>);

impl Attempts {
    pub(super) fn of(&mut self, identity: Identity, uptime: Duration) -> Arc<Trials> {
        // What nobody holds and has nothing to tell is forgotten, so that old passwords do not pile up.
        self.0
            .retain(|_, trials| Arc::strong_count(trials) > 1 || !trials.refusals().forget(uptime));
        Arc::clone(self.0.entry(identity).or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
        let now = Duration::from_hours(1);
        let after = |minutes| now + Duration::from_mins(minutes);
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
        let now = Duration::from_hours(1);
        let after = |minutes| now + Duration::from_mins(minutes);
        let mut refusals = Refusals::default();
        assert!(refusals.forbid(now, CanWait).is_none());
        refusals.refused(&error(), now);
        assert!(refusals.forbid(after(14), CanWait).is_some());
        assert!(refusals.forbid(after(14), Needed).is_none());
        assert!(refusals.forbid(after(15), CanWait).is_none());
    }

    #[test]
    fn keys_that_have_worked_are_tried_again_after_growing_pauses() {
        let now = Duration::from_hours(1);
        let after = |seconds| now + Duration::from_secs(seconds);
        let mut refusals = Refusals::default();
        refusals.proven();
        refusals.refused(&error(), now);
        assert!(refusals.forbid(now, Needed).is_none());
        let mut refused = 0;
        for pause in [10, 30, 90, 270, 300] {
            refusals.refused(&error(), after(refused));
            let withheld = refusals.forbid(after(refused), Needed).unwrap();
            assert_eq!(withheld.retry_after, Some(Duration::from_secs(pause)));
            assert_eq!(withheld.kind, UpstreamErrorKind::CredentialsResting);
            let free = refused + pause;
            assert!(refusals.forbid(after(free - 1), Needed).is_some());
            assert!(refusals.forbid(after(free), CanWait).is_some());
            assert!(refusals.forbid(after(free), Needed).is_none(), "{free}");
            refused = free;
        }
        // Others that worked before show that these were not to blame.
        refusals.refused(&error(), after(refused));
        refusals.proven();
        assert!(refusals.forbid(after(refused), Needed).is_none());
        refusals.refused(&error(), after(refused));
        assert!(refusals.forbid(after(refused), Needed).is_none());
    }

    #[test]
    fn identities_differ_in_every_part_and_clean_ones_are_forgotten() {
        let of = |user, password| Identity::of(&["acme", user, password]);
        assert_ne!(of("ab", "c"), of("a", "bc"));
        assert_ne!(of("a", "b"), of("a", "c"));
        assert_eq!(format!("{:?}", of("a", "b")), "[redacted]");
        let mut attempts = Attempts::default();
        let now = Duration::from_hours(1);
        attempts.of(of("a", "b"), now);
        let refused = attempts.of(of("a", "c"), now);
        refused.refusals().refused(&error(), now);
        drop(refused);
        attempts.of(of("a", "d"), now);
        assert_eq!(attempts.0.len(), 2);
        attempts.of(of("a", "e"), now + Duration::from_mins(15));
        assert_eq!(attempts.0.len(), 1);
    }
}
