//! How often a password or a pair of keys that was refused is tried again.
//!
//! The vendor locks an account after a few wrong passwords: five in 15 minutes by default, three in
//! the strictest setting. It locks an access key for five minutes after more than five wrong
//! signatures on end.

mod trials;

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use sha2::{Digest as _, Sha256};

pub(super) use self::trials::{Trials, Turn};
use crate::{domain::service::UpstreamError, transport::Endpoint};

const WINDOW: Duration = Duration::from_mins(15);
/// How many wrong passwords of one user within [`WINDOW`] lead to no further try, but for one that
/// was never tried.
const WRONG_IN_ALL: usize = 3;
/// How long after a refusal a password is tried again, at the soonest.
const HOLD: Duration = Duration::from_secs(3);
/// How long a pair of keys is left alone after its second refusal within [`WINDOW`], since the
/// vendor may come to know it later than the gateway; three times as long after each further one,
/// up to the time for which the vendor locks it.
const PAUSE: Duration = Duration::from_mins(1);
const PAUSE_MAX: Duration = Duration::from_mins(5);
/// The first pause of a pair that has signed what a service accepted: it may be refused for no
/// fault of its own, say because a clock was wrong for a while.
const PROVEN_PAUSE: Duration = Duration::from_secs(10);
/// Refusals no further apart than this do not make the pause longer.
const SAME_MOMENT: Duration = Duration::from_secs(5);

/// Who asks with what, as a digest: the same user of two projects counts as one. It is as secret as
/// what it is made of.
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
    /// Another credential serves, so that a secret which was refused can rest: the vendor may come
    /// to know it later than the gateway.
    CanWait,
    /// Nothing else lets the gateway in.
    Needed,
    /// It worked before the present secret, and is tried beside that.
    Former,
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
    pub(super) fn most(self) -> usize {
        match self {
            Self::CanWait | Self::Former => 1,
            Self::Needed => 2,
        }
    }
}

/// The refusals of one identity.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    all: Vec<Refused>,
    last: Option<UpstreamError>,
    /// Whether the vendor has accepted it.
    is_proven: bool,
}

#[derive(Debug)]
struct Refused {
    /// By the uptime of the machine: nobody can set that, so that no tries are free too early.
    at: Duration,
    /// Where; `None` for a password.
    by: Option<Endpoint>,
}

impl Refusals {
    /// The last refusal, with the time until a further attempt may be made at this address, or at
    /// any, if it may not yet.
    ///
    /// What one address alone refuses may be right, and that address wrong, so that the others may
    /// try it all the same.
    pub(super) fn forbid(
        &mut self,
        uptime: Duration,
        urgency: Urgency,
        at: Option<&Endpoint>,
    ) -> Option<UpstreamError> {
        self.forget(uptime);
        let since = |refused: &Refused| uptime.saturating_sub(refused.at);
        let most = urgency.most();
        let further = self.all.len().checked_sub(most)?;
        let last = self.all.last()?;
        let left = match (urgency, self.only_refuser()) {
            // It is a password. When this refusal is over, there are few enough.
            _ if last.by.is_none() => WINDOW.saturating_sub(since(&self.all[further])),
            (Urgency::CanWait | Urgency::Former, _) => PAUSE_MAX.saturating_sub(since(last)),
            (Urgency::Needed, Some(refuser)) if at != Some(refuser) => return None,
            (Urgency::Needed, _) => self.pause().saturating_sub(since(last)),
        };
        let error = self.last.clone().filter(|_| !left.is_zero())?;
        Some(error.remembered(left))
    }

    /// How long a pair of keys is left alone after the last refusal.
    fn pause(&self) -> Duration {
        // Those that come together, from requests that were under way at the same time, are one.
        let of_pauses = self.all[Urgency::Needed.most() - 1..].windows(2);
        let apart = |pair: &[Refused]| pair[1].at.saturating_sub(pair[0].at);
        let pauses = of_pauses.filter(|pair| apart(pair) > SAME_MOMENT).count();
        let growth = 3_u32.saturating_pow(u32::try_from(pauses).unwrap_or(u32::MAX));
        let first = if self.is_proven { PROVEN_PAUSE } else { PAUSE };
        first.saturating_mul(growth).min(PAUSE_MAX)
    }

    /// The address that has refused a pair of keys, if no other one has.
    fn only_refuser(&self) -> Option<&Endpoint> {
        let (first, others) = self.all.split_first()?;
        let is_alone = others.iter().all(|other| other.by == first.by);
        first.by.as_ref().filter(|_| is_alone)
    }

    /// How many there are, as far as that matters where nothing else lets the gateway in.
    pub(super) fn count(&mut self, uptime: Duration) -> usize {
        self.forget(uptime);
        self.all.len().min(Urgency::Needed.most())
    }

    /// How long it is until every address may try it.
    pub(super) fn rest(&mut self, uptime: Duration) -> Duration {
        self.forget(uptime);
        let refuser = self.only_refuser().cloned();
        self.forbid(uptime, Urgency::Needed, refuser.as_ref())
            .and_then(|error| error.retry_after)
            .unwrap_or_default()
    }

    /// As [`Refusals::forbid`], of all passwords of a user together: whether one that was refused
    /// may be tried again, or the one before it.
    pub(super) fn forbid_repeat(&mut self, uptime: Duration) -> Option<UpstreamError> {
        self.forget(uptime);
        let further = self.all.len().checked_sub(WRONG_IN_ALL)?;
        let left = WINDOW.saturating_sub(uptime.saturating_sub(self.all[further].at));
        Some(self.last.clone()?.remembered(left))
    }

    /// As long as this a password of this user that was refused is not tried again: the vendor may
    /// have ended another one a moment before it knows this one.
    pub(super) fn hold(&self, uptime: Duration) -> Duration {
        let since = |last: &Refused| uptime.saturating_sub(last.at);
        let held = |last| HOLD.saturating_sub(since(last));
        self.all.last().map_or(Duration::ZERO, held)
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
        by: Option<&Endpoint>,
    ) {
        self.all.push(Refused {
            at: uptime,
            by: by.cloned(),
        });
        self.last = Some(error.clone());
    }

    /// The vendor has accepted a password, or a signature, so that all refusals before it are over.
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
        // What nobody holds and has nothing to tell is forgotten, so that old passwords do not pile
        // up.
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
    use crate::{
        domain::service::{Sent, UpstreamError, UpstreamErrorKind},
        transport::Endpoint,
    };

    fn oms() -> Endpoint {
        Endpoint::parse("https://oms.example").unwrap()
    }

    fn sms() -> Endpoint {
        Endpoint::parse("https://sms.example").unwrap()
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
    fn a_third_attempt_with_a_password_waits_until_the_first_is_15_minutes_old() {
        let now = Duration::from_hours(1);
        let after = |minutes| now + Duration::from_mins(minutes);
        let mut refusals = Refusals::default();
        refusals.refused(&error(), now, None);
        assert!(refusals.forbid(after(1), Needed, None).is_none());
        refusals.refused(&error(), after(1), None);
        assert!(refusals.forbid(after(1), Needed, None).is_some());
        let withheld = refusals.forbid(after(14), Needed, None).unwrap();
        assert_eq!(withheld.retry_after, Some(Duration::from_mins(1)));
        assert!(refusals.forbid(after(15), Needed, None).is_none());
        refusals.refused(&error(), after(15), None);
        let withheld = refusals.forbid(after(15), Needed, None).unwrap();
        assert_eq!(withheld.retry_after, Some(Duration::from_mins(1)));
        assert!(refusals.forbid(after(16), Needed, None).is_none());
    }

    #[test]
    fn of_a_user_three_wrong_passwords_are_enough_and_a_second_try_is_held_for_three_seconds() {
        let now = Duration::from_hours(1);
        let after = |seconds| now + Duration::from_secs(seconds);
        let mut of_user = Refusals::default();
        assert_eq!(of_user.hold(now), Duration::ZERO);
        for number in 0..3 {
            assert!(of_user.forbid_repeat(after(number)).is_none(), "{number}");
            of_user.refused(&error(), after(number), None);
        }
        assert_eq!(of_user.hold(after(3)), Duration::from_secs(2));
        assert_eq!(of_user.hold(after(5)), Duration::ZERO);
        let withheld = of_user.forbid_repeat(after(60)).unwrap();
        assert_eq!(withheld.retry_after, Some(Duration::from_mins(14)));
        assert!(of_user.forbid_repeat(after(900)).is_none());
        of_user.proven();
        assert!(of_user.forbid_repeat(after(2)).is_none());
    }

    #[test]
    fn an_address_tries_new_keys_twice_and_then_after_growing_pauses() {
        let now = Duration::from_hours(1);
        let after = |seconds| now + Duration::from_secs(seconds);
        let mut refusals = Refusals::default();
        refusals.refused(&error(), now, Some(&oms()));
        assert!(refusals.forbid(now, Needed, Some(&oms())).is_none());
        let mut refused = 10;
        for pause in [60, 180, 300, 300] {
            refusals.refused(&error(), after(refused), Some(&oms()));
            let half = refused + pause / 2;
            let withheld = refusals.forbid(after(half), Needed, Some(&oms())).unwrap();
            assert_eq!(withheld.retry_after, Some(Duration::from_secs(pause / 2)));
            refused += pause;
            assert!(
                refusals
                    .forbid(after(refused), Needed, Some(&oms()))
                    .is_none()
            );
        }
    }

    #[test]
    fn new_keys_that_one_address_refuses_have_an_attempt_at_another_one() {
        let now = Duration::from_hours(1);
        let iam = Endpoint::parse("https://third.example").unwrap();
        for refused_before in [1, 2] {
            let mut refusals = Refusals::default();
            for _ in 0..refused_before {
                refusals.refused(&error(), now, Some(&oms()));
            }
            for at in [None, Some(&sms()), Some(&iam)] {
                assert!(refusals.forbid(now, Needed, at).is_none(), "{at:?}");
                assert!(refusals.forbid(now, CanWait, at).is_some(), "{at:?}");
            }
            // If that refuses them too, it is the keys.
            refusals.refused(&error(), now, Some(&sms()));
            for at in [None, Some(&oms()), Some(&sms()), Some(&iam)] {
                assert!(refusals.forbid(now, Needed, at).is_some(), "{at:?}");
            }
        }
    }

    #[test]
    fn a_second_attempt_waits_unless_it_is_needed() {
        let now = Duration::from_hours(1);
        for (by, pause) in [(None, 15), (Some(oms()), 5)] {
            let after = |minutes| now + Duration::from_mins(minutes);
            let mut refusals = Refusals::default();
            assert!(refusals.forbid(now, CanWait, None).is_none());
            refusals.refused(&error(), now, by.as_ref());
            assert!(refusals.forbid(after(pause - 1), CanWait, None).is_some());
            assert!(refusals.forbid(after(pause - 1), Needed, None).is_none());
            assert!(refusals.forbid(after(pause), CanWait, None).is_none());
        }
    }

    #[test]
    fn keys_that_have_worked_are_tried_again_after_growing_pauses() {
        let now = Duration::from_hours(1);
        let after = |seconds| now + Duration::from_secs(seconds);
        let mut refusals = Refusals::default();
        refusals.proven();
        refusals.refused(&error(), now, Some(&oms()));
        assert!(refusals.forbid(now, Needed, Some(&oms())).is_none());
        let mut refused = 0;
        for pause in [10, 30, 90, 270, 300] {
            refusals.refused(&error(), after(refused), Some(&oms()));
            let withheld = refusals
                .forbid(after(refused), Needed, Some(&oms()))
                .unwrap();
            assert_eq!(withheld.retry_after, Some(Duration::from_secs(pause)));
            assert_eq!(withheld.kind, UpstreamErrorKind::CredentialsResting);
            let free = refused + pause;
            assert!(
                refusals
                    .forbid(after(free - 1), Needed, Some(&oms()))
                    .is_some()
            );
            let can_wait = refusals.forbid(after(free), CanWait, Some(&oms()));
            assert_eq!(can_wait.is_some(), pause < 300);
            assert!(
                refusals.forbid(after(free), Needed, Some(&oms())).is_none(),
                "{free}"
            );
            refused = free;
        }
        // Others that worked before show that these were not to blame.
        refusals.refused(&error(), after(refused), Some(&oms()));
        refusals.proven();
        assert!(
            refusals
                .forbid(after(refused), Needed, Some(&oms()))
                .is_none()
        );
        refusals.refused(&error(), after(refused), Some(&oms()));
        assert!(
            refusals
                .forbid(after(refused), Needed, Some(&oms()))
                .is_none()
        );
    }

    #[test]
    fn refusals_that_come_together_make_one_pause() {
        let now = Duration::from_hours(1);
        let mut refusals = Refusals::default();
        refusals.proven();
        for tenth in 0..20 {
            let at = now + Duration::from_millis(100 * tenth);
            refusals.refused(&error(), at, Some(&oms()));
        }
        let last = now + Duration::from_millis(1900);
        let withheld = refusals.forbid(last, Needed, Some(&oms())).unwrap();
        assert_eq!(withheld.retry_after, Some(Duration::from_secs(10)));
    }

    #[test]
    fn keys_that_have_worked_and_that_one_address_refuses_rest_there_alone() {
        let now = Duration::from_hours(1);
        let mut refusals = Refusals::default();
        refusals.proven();
        for _ in 0..2 {
            refusals.refused(&error(), now, Some(&oms()));
        }
        assert!(refusals.forbid(now, Needed, Some(&oms())).is_some());
        for at in [None, Some(&sms())] {
            assert!(refusals.forbid(now, Needed, at).is_none(), "{at:?}");
        }
        refusals.refused(&error(), now, Some(&sms()));
        for at in [None, Some(&oms()), Some(&sms())] {
            assert!(refusals.forbid(now, Needed, at).is_some(), "{at:?}");
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
