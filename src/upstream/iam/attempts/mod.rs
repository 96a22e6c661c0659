//! How often a password or a pair of keys that was refused is tried again.
//!
//! The vendor locks an account after a few wrong passwords: five in 15 minutes by default, three in the strictest setting.
//! It locks an access key for five minutes after more than five wrong signatures on end.

mod trials;

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use sha2::{Digest as _, Sha256};

pub(super) use self::trials::{Trials, Turn};
use crate::domain::service::{ServiceName, UpstreamError};

const WINDOW: Duration = Duration::from_mins(15);
/// How long a pair of keys that has signed what a service accepted is left alone after its second refusal within [`WINDOW`]; three times as
/// long after each further one, up to the time for which the vendor locks it. Such a pair may be refused for no fault of its own,
/// say because a clock was wrong for a while.
const PROVEN_PAUSE: Duration = Duration::from_secs(10);
/// Refusals no further apart than this do not make the pause longer.
const SAME_MOMENT: Duration = Duration::from_secs(5);
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
    all: Vec<Refused>,
    last: Option<UpstreamError>,
    /// The services that have accepted it, if it is a pair of keys.
    proven_by: Vec<ServiceName>,
}

#[derive(Debug)]
struct Refused {
    /// By the uptime of the machine: nobody can set that, so that no tries are free too early.
    at: Duration,
    /// `None`: by the token service.
    by: Option<ServiceName>,
}

impl Refusals {
    /// The last refusal, with the time until this service may make a further attempt, or any, if it may not yet.
    pub(super) fn forbid(
        &mut self,
        uptime: Duration,
        urgency: Urgency,
        by: Option<&ServiceName>,
    ) -> Option<UpstreamError> {
        self.forget(uptime);
        let since = |refused: &Refused| uptime.saturating_sub(refused.at);
        let further = self.all.len().checked_sub(urgency.most())?;
        let left = if !self.proven_by.is_empty() && urgency == Urgency::Needed {
            if self.may_be_the_service(by) {
                return None;
            }
            // Those that come together, from requests that were under way at the same time, are one.
            let of_pauses = self.all[urgency.most() - 1..].windows(2);
            let apart = |pair: &[Refused]| pair[1].at.saturating_sub(pair[0].at);
            let pauses = of_pauses.filter(|pair| apart(pair) > SAME_MOMENT);
            let growth = 3_u32.saturating_pow(u32::try_from(pauses.count()).unwrap_or(u32::MAX));
            let pause = PROVEN_PAUSE.saturating_mul(growth).min(PROVEN_PAUSE_MAX);
            let last = self.all.last()?;
            let left = pause.checked_sub(since(last))?;
            (!left.is_zero()).then_some(left)?
        } else {
            // When this one is over, there are few enough.
            WINDOW.saturating_sub(since(&self.all[further]))
        };
        self.last.clone().map(|error| error.remembered(left))
    }

    /// Whether one service alone refuses keys that another one has accepted: it may be that service which is at fault. So this one,
    /// or any, may try them all the same, if it is another one.
    fn may_be_the_service(&self, by: Option<&ServiceName>) -> bool {
        let Some(refuser) = self.all.first().and_then(|refused| refused.by.as_ref()) else {
            return false;
        };
        let is_alone = self
            .all
            .iter()
            .all(|other| other.by.as_ref() == Some(refuser));
        let mut others = self.proven_by.iter().filter(|proven| *proven != refuser);
        is_alone && others.any(|other| by.is_none_or(|by| by == other))
    }

    /// Whether there are any since it was last accepted.
    pub(super) fn are_there(&self) -> bool {
        !self.all.is_empty()
    }

    /// Whether no more than one further attempt may fail.
    fn is_last(&mut self, uptime: Duration, urgency: Urgency) -> bool {
        self.forget(uptime);
        self.all.len() + 1 >= urgency.most()
    }

    /// Forgets what is out of the window; tells whether nothing is left.
    fn forget(&mut self, uptime: Duration) -> bool {
        let is_recent = |refused: &Refused| uptime.saturating_sub(refused.at) < WINDOW;
        self.all.retain(is_recent);
        self.all.is_empty()
    }

    pub(super) fn refused(
        &mut self,
        error: &UpstreamError,
        uptime: Duration,
        by: Option<&ServiceName>,
    ) {
        self.all.push(Refused {
            at: uptime,
            by: by.cloned(),
        });
        self.last = Some(error.clone());
    }

    /// The vendor has accepted a password.
    pub(super) fn accepted(&mut self) {
        *self = Self::default();
    }

    /// A service has accepted a signature, so that all refusals before it are over.
    pub(super) fn proven(&mut self, by: &ServiceName) {
        self.all.clear();
        self.last = None;
        if !self.proven_by.contains(by) {
            self.proven_by.push(by.clone());
        }
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
    use crate::domain::service::{Sent, ServiceName, UpstreamError, UpstreamErrorKind};

    fn oms() -> ServiceName {
        ServiceName::parse("oms").unwrap()
    }

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
        refusals.refused(&error(), now, Some(&oms()));
        assert!(refusals.forbid(after(1), Needed, None).is_none());
        refusals.refused(&error(), after(1), Some(&oms()));
        assert!(refusals.forbid(after(1), Needed, None).is_some());
        let withheld = refusals.forbid(after(14), Needed, None).unwrap();
        assert_eq!(withheld.retry_after, Some(Duration::from_mins(1)));
        assert!(refusals.forbid(after(15), Needed, None).is_none());
        refusals.refused(&error(), after(15), Some(&oms()));
        let withheld = refusals.forbid(after(15), Needed, None).unwrap();
        assert_eq!(withheld.retry_after, Some(Duration::from_mins(1)));
        assert!(refusals.forbid(after(16), Needed, None).is_none());
    }

    #[test]
    fn a_second_attempt_waits_as_long_unless_it_is_needed() {
        let now = Duration::from_hours(1);
        let after = |minutes| now + Duration::from_mins(minutes);
        let mut refusals = Refusals::default();
        assert!(refusals.forbid(now, CanWait, None).is_none());
        refusals.refused(&error(), now, Some(&oms()));
        assert!(refusals.forbid(after(14), CanWait, None).is_some());
        assert!(refusals.forbid(after(14), Needed, None).is_none());
        assert!(refusals.forbid(after(15), CanWait, None).is_none());
    }

    #[test]
    fn keys_that_have_worked_are_tried_again_after_growing_pauses() {
        let now = Duration::from_hours(1);
        let after = |seconds| now + Duration::from_secs(seconds);
        let mut refusals = Refusals::default();
        refusals.proven(&oms());
        refusals.refused(&error(), now, Some(&oms()));
        assert!(refusals.forbid(now, Needed, None).is_none());
        let mut refused = 0;
        for pause in [10, 30, 90, 270, 300] {
            refusals.refused(&error(), after(refused), Some(&oms()));
            let withheld = refusals.forbid(after(refused), Needed, None).unwrap();
            assert_eq!(withheld.retry_after, Some(Duration::from_secs(pause)));
            assert_eq!(withheld.kind, UpstreamErrorKind::CredentialsResting);
            let free = refused + pause;
            assert!(refusals.forbid(after(free - 1), Needed, None).is_some());
            assert!(refusals.forbid(after(free), CanWait, None).is_some());
            assert!(
                refusals.forbid(after(free), Needed, None).is_none(),
                "{free}"
            );
            refused = free;
        }
        // Others that worked before show that these were not to blame.
        refusals.refused(&error(), after(refused), Some(&oms()));
        refusals.proven(&oms());
        assert!(refusals.forbid(after(refused), Needed, None).is_none());
        refusals.refused(&error(), after(refused), Some(&oms()));
        assert!(refusals.forbid(after(refused), Needed, None).is_none());
    }

    #[test]
    fn refusals_that_come_together_make_one_pause() {
        let now = Duration::from_hours(1);
        let mut refusals = Refusals::default();
        refusals.proven(&oms());
        for tenth in 0..20 {
            let at = now + Duration::from_millis(100 * tenth);
            refusals.refused(&error(), at, Some(&oms()));
        }
        let last = now + Duration::from_millis(1900);
        let withheld = refusals.forbid(last, Needed, None).unwrap();
        assert_eq!(withheld.retry_after, Some(Duration::from_secs(10)));
    }

    #[test]
    fn keys_that_one_service_refuses_may_be_tried_by_another_one_that_has_accepted_them() {
        let now = Duration::from_hours(1);
        let sms = ServiceName::parse("sms").unwrap();
        let refused_twice = |proven_by: &[&ServiceName]| {
            let mut refusals = Refusals::default();
            for by in proven_by {
                refusals.proven(by);
            }
            for _ in 0..2 {
                refusals.refused(&error(), now, Some(&oms()));
            }
            refusals
        };
        let mut refusals = refused_twice(&[&oms()]);
        for by in [None, Some(&oms()), Some(&sms)] {
            assert!(refusals.forbid(now, Needed, by).is_some(), "{by:?}");
        }
        let mut refusals = refused_twice(&[&oms(), &sms]);
        assert!(refusals.forbid(now, Needed, Some(&oms())).is_some());
        for by in [None, Some(&sms)] {
            assert!(refusals.forbid(now, Needed, by).is_none(), "{by:?}");
            assert!(refusals.forbid(now, CanWait, by).is_some(), "{by:?}");
        }
        // If that refuses them too, it is the keys.
        refusals.refused(&error(), now, Some(&sms));
        for by in [None, Some(&oms()), Some(&sms)] {
            assert!(refusals.forbid(now, Needed, by).is_some(), "{by:?}");
        }
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
        refused.refusals().refused(&error(), now, Some(&oms()));
        drop(refused);
        attempts.of(of("a", "d"), now);
        assert_eq!(attempts.0.len(), 2);
        attempts.of(of("a", "e"), now + Duration::from_mins(15));
        assert_eq!(attempts.0.len(), 1);
    }
}
