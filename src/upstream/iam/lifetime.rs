//! How long a credential may be used, and from when on it is replaced.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use jiff::Timestamp;

/// A token is valid for 24 hours, temporary keys for as long at most. What promises more than a
/// month is not believed.
const LONGEST: Duration = Duration::from_hours(31 * 24);
const SHORTEST: Duration = Duration::from_secs(1);
/// A credential is not used in its last minute, since a request is some time on its way.
const MARGIN: Duration = Duration::from_mins(1);
/// A token is replaced when less than this is left of it; temporary keys when so much is.
const AHEAD: Duration = Duration::from_mins(40);
/// How often the replacement of one credential is asked for.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// How long a credential may be used, by two clocks: one that stands still while the machine
/// sleeps, and one that can be set. Whichever says first that it is over is believed.
#[derive(Debug)]
pub(super) struct Lifetime {
    since: Instant,
    since_wall: Timestamp,
    usable: Duration,
    /// The age from which on there should be a replacement.
    late_from: Duration,
    /// The age, in milliseconds, from which on a replacement may be asked for (again).
    ask_from: AtomicU64,
}

/// When a login began: what it yields is not younger than that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    pub(super) at: Instant,
    pub(super) wall: Timestamp,
}

impl Lifetime {
    /// The lifetime of a token by the times in its document. `None` if it has ended, or if it makes
    /// no sense.
    ///
    /// It is the shorter one of what the vendor's clock and this machine's say, since either can be
    /// wrong.
    pub(super) fn of_token(
        begun: Begun,
        issued_at: Option<Timestamp>,
        expires_at: Timestamp,
    ) -> Option<Self> {
        let whole =
            until(begun.wall, expires_at)?.min(until(issued_at.unwrap_or(begun.wall), expires_at)?);
        // By chance, so that many gateways, or many projects of one, do not come back together.
        let part = whole.mul_f64(0.10 + 0.05 * fastrand::f64());
        let ahead = part.min(AHEAD.mul_f64(0.85 + 0.15 * fastrand::f64()));
        Self::new(begun, whole, ahead)
    }

    /// The lifetime of temporary keys. They may have been made long ago, and they are renewed 40
    /// minutes before their end, or in the middle of what is left. Otherwise as
    /// [`Lifetime::of_token`].
    pub(super) fn of_keys(begun: Begun, expires_at: Timestamp) -> Option<Self> {
        let whole = until(begun.wall, expires_at)?;
        let ahead = (whole / 2).min(AHEAD.mul_f64(1.0 + 0.15 * fastrand::f64()));
        Self::new(begun, whole, ahead)
    }

    fn new(begun: Begun, whole: Duration, ahead: Duration) -> Option<Self> {
        (SHORTEST..=LONGEST).contains(&whole).then(|| Self {
            since: begun.at,
            since_wall: begun.wall,
            usable: whole.saturating_sub(MARGIN.min(whole / 20)),
            late_from: whole.saturating_sub(ahead),
            ask_from: AtomicU64::new(milliseconds(whole.saturating_sub(ahead))),
        })
    }

    pub(super) fn is_usable(&self, now: Timestamp) -> bool {
        self.age(now) < self.usable
    }

    /// Until when it serves, by the clock that can be set.
    pub(super) fn usable_until(&self) -> Option<Timestamp> {
        self.since_wall.checked_add(self.usable).ok()
    }

    /// What is left of it by the clock that cannot be set.
    pub(super) fn left(&self) -> Duration {
        self.usable.saturating_sub(self.since.elapsed())
    }

    /// Whether there should be a replacement: from a point late in its life on.
    pub(super) fn is_late(&self, now: Timestamp) -> bool {
        self.age(now) >= self.late_from
    }

    /// Whether the caller is to ask for a replacement: once in a while from a point late in its
    /// life on.
    pub(super) fn asks_for_replacement(&self, now: Timestamp) -> bool {
        let age = self.age(now);
        let from = self.ask_from.load(Ordering::Relaxed);
        let next = milliseconds(age.saturating_add(ASK_EVERY));
        milliseconds(age) >= from
            && self
                .ask_from
                .compare_exchange(from, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    /// How long ago what yielded it began.
    pub(super) fn age(&self, now: Timestamp) -> Duration {
        let by_wall = Duration::try_from(self.since_wall.duration_until(now)).unwrap_or_default();
        self.since.elapsed().max(by_wall)
    }
}

/// The time between two moments, if the second is not the earlier one.
fn until(from: Timestamp, end: Timestamp) -> Option<Duration> {
    Duration::try_from(from.duration_until(end)).ok()
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use jiff::{SignedDuration, Timestamp};

    use super::{Begun, Lifetime};

    const DAY: i64 = 24 * 60;

    fn noon() -> Timestamp {
        "2026-01-03T12:00:00Z".parse().unwrap()
    }

    fn minutes(minutes: i64) -> Timestamp {
        noon() + SignedDuration::from_mins(minutes)
    }

    fn begun() -> Begun {
        Begun {
            at: Instant::now(),
            wall: noon(),
        }
    }

    fn token(begun: Begun, expires_at: Timestamp) -> Lifetime {
        Lifetime::of_token(begun, Some(begun.wall), expires_at).unwrap()
    }

    #[test]
    fn a_token_is_used_until_a_minute_before_its_end() {
        let token = token(begun(), minutes(DAY));
        assert!(token.is_usable(noon()));
        assert!(token.is_usable(minutes(DAY - 2)));
        assert!(!token.is_usable(minutes(DAY - 1)));
    }

    #[test]
    fn a_sleep_of_the_machine_ages_a_token() {
        // The clock that stands still meanwhile says that no time has passed.
        let token = token(begun(), minutes(DAY));
        assert!(token.left() > Duration::from_hours(23));
        assert!(!token.is_usable(minutes(2 * DAY)));
    }

    #[test]
    fn setting_the_clock_back_does_not_make_a_token_younger() {
        let Some(at) = Instant::now().checked_sub(Duration::from_hours(1)) else {
            return; // The machine has only just started.
        };
        let token = token(Begun { at, wall: noon() }, minutes(60));
        assert!(!token.is_usable(minutes(-600)));
        assert_eq!(token.left(), Duration::ZERO);
    }

    #[test]
    fn the_shorter_of_two_lifetimes_counts() {
        let short = |issued, expires| {
            let lifetime = Lifetime::of_token(begun(), Some(minutes(issued)), minutes(expires));
            lifetime.unwrap().usable
        };
        // This clock is an hour behind the vendor's, and an hour ahead of it.
        assert_eq!(short(60, 60 + DAY), Duration::from_mins(1439));
        assert_eq!(short(-60, DAY - 60), Duration::from_mins(1379));
    }

    #[test]
    fn a_lifetime_that_is_over_or_absurd_is_none() {
        for (issued, expires) in [
            (Some(0), -1),
            (None, -1),
            (None, 0),
            (Some(0), 0),
            (Some(10), 5),
            (Some(-2 * DAY), -DAY),
            (None, 40 * DAY),
        ] {
            let lifetime = Lifetime::of_token(begun(), issued.map(minutes), minutes(expires));
            assert!(lifetime.is_none(), "{issued:?} {expires}");
        }
    }

    #[test]
    fn a_replacement_is_asked_for_late_and_once_a_second() {
        for _ in 0..50 {
            let token = token(begun(), minutes(DAY));
            assert!(!token.asks_for_replacement(minutes(DAY - 41)));
            assert!(token.asks_for_replacement(minutes(DAY - 33)));
            assert!(!token.asks_for_replacement(minutes(DAY - 33)));
            assert!(token.asks_for_replacement(minutes(DAY - 32)));
        }
        let short = token(begun(), minutes(100));
        assert!(!short.asks_for_replacement(minutes(84)));
        assert!(short.asks_for_replacement(minutes(90)));
        assert!(short.is_usable(minutes(90)));
    }

    #[test]
    fn temporary_keys_are_renewed_40_minutes_before_their_end() {
        let keys = |left| Lifetime::of_keys(begun(), minutes(left)).unwrap();
        for _ in 0..50 {
            let long = keys(6 * 60);
            assert!(!long.asks_for_replacement(minutes(6 * 60 - 47)));
            assert!(long.asks_for_replacement(minutes(6 * 60 - 40)));
        }
        let short = keys(30);
        assert!(!short.asks_for_replacement(minutes(14)));
        assert!(short.asks_for_replacement(minutes(15)));
        assert!(short.is_usable(minutes(28)) && !short.is_usable(minutes(29)));
        for absurd in [-1, 0, 32 * DAY] {
            assert!(Lifetime::of_keys(begun(), minutes(absurd)).is_none());
        }
    }
}
