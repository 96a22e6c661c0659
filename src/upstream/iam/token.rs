//! A token and how long it may be used.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;

use crate::domain::{secret::Secret, service::ProjectName};

/// A token of the vendor is valid for 24 hours. One that promises more than a month is not believed.
const LONGEST: Duration = Duration::from_hours(31 * 24);
const SHORTEST: Duration = Duration::from_secs(1);
/// A token is not used in its last minute, since a request is some time on its way.
const MARGIN: Duration = Duration::from_mins(1);
/// A token is replaced when less than this is left of it.
const REFRESH_AHEAD: Duration = Duration::from_mins(40);
/// How often the replacement of one token is asked for.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// A token of one project. Clones are the same token.
#[derive(Clone, Debug)]
pub struct Token(Arc<Issued>);

#[derive(Debug)]
struct Issued {
    serial: u64,
    project: ProjectName,
    text: Secret,
    /// What it was issued for.
    password: Secret,
    lifetime: Lifetime,
    worked: AtomicBool,
    /// The age, in milliseconds, from which on a replacement may be asked for (again).
    ask_from: AtomicU64,
}

impl Token {
    pub(super) fn new(
        serial: u64,
        project: ProjectName,
        (text, password): (Secret, Secret),
        lifetime: Lifetime,
    ) -> Self {
        Self(Arc::new(Issued {
            serial,
            project,
            text,
            password,
            ask_from: AtomicU64::new(milliseconds(lifetime.refresh)),
            lifetime,
            worked: AtomicBool::new(false),
        }))
    }

    /// The text that goes into `X-Auth-Token`.
    pub(crate) fn text(&self) -> &Secret {
        &self.0.text
    }

    /// What no answer may show.
    pub(crate) fn secrets(&self) -> [&Secret; 2] {
        [&self.0.text, &self.0.password]
    }

    pub(super) fn serial(&self) -> u64 {
        self.0.serial
    }

    pub(super) fn project(&self) -> &ProjectName {
        &self.0.project
    }

    /// Whether a service of the vendor has accepted it.
    pub(crate) fn has_worked(&self) -> bool {
        self.0.worked.load(Ordering::Relaxed)
    }

    pub(super) fn set_worked(&self) {
        self.0.worked.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_usable(&self, now: Timestamp) -> bool {
        self.age(now) < self.0.lifetime.usable
    }

    /// How long ago its login began.
    pub(super) fn age(&self, now: Timestamp) -> Duration {
        self.0.lifetime.age(now)
    }

    /// Until when it is used, by the clock that can be set.
    pub(super) fn usable_until(&self) -> Option<Timestamp> {
        let Lifetime {
            since_wall, usable, ..
        } = self.0.lifetime;
        since_wall.checked_add(usable).ok()
    }

    /// What is left of it by the clock that cannot be set.
    pub(super) fn left(&self) -> Duration {
        self.0
            .lifetime
            .usable
            .saturating_sub(self.0.lifetime.since.elapsed())
    }

    /// Whether the caller is to ask for a replacement: once in a while from a point late in its life on.
    pub(super) fn asks_for_replacement(&self, now: Timestamp) -> bool {
        let age = self.age(now);
        let from = self.0.ask_from.load(Ordering::Relaxed);
        let next = milliseconds(age.saturating_add(ASK_EVERY));
        milliseconds(age) >= from
            && self
                .0
                .ask_from
                .compare_exchange(from, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// How long a token may be used, by two clocks: one that stands still while the machine sleeps, and one that can be set.
/// Whichever says first that it is over is believed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifetime {
    since: Instant,
    since_wall: Timestamp,
    usable: Duration,
    refresh: Duration,
}

/// When a login began: what it yields is not younger than that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Begun {
    pub(super) at: Instant,
    pub(super) wall: Timestamp,
}

impl Lifetime {
    /// The lifetime of a token by the times in its document. `None` if it has ended, or if it makes no sense.
    ///
    /// It is the shorter one of what the vendor's clock and this machine's say, since either can be wrong.
    pub(super) fn new(
        begun: Begun,
        issued_at: Option<Timestamp>,
        expires_at: Timestamp,
    ) -> Option<Self> {
        let until = |from: Timestamp| Duration::try_from(from.duration_until(expires_at)).ok();
        let whole = until(begun.wall)?.min(until(issued_at.unwrap_or(begun.wall))?);
        if !(SHORTEST..=LONGEST).contains(&whole) {
            return None;
        }
        // By chance, so that many gateways, or many projects of one, do not come back together.
        let part = whole.mul_f64(0.10 + 0.05 * fastrand::f64());
        let ahead = part.min(REFRESH_AHEAD.mul_f64(0.85 + 0.15 * fastrand::f64()));
        Some(Self {
            since: begun.at,
            since_wall: begun.wall,
            usable: whole.saturating_sub(MARGIN.min(whole / 20)),
            refresh: whole.saturating_sub(ahead),
        })
    }

    fn age(&self, now: Timestamp) -> Duration {
        let by_wall = Duration::try_from(self.since_wall.duration_until(now)).unwrap_or_default();
        self.since.elapsed().max(by_wall)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use jiff::{SignedDuration, Timestamp};

    use super::{Begun, Lifetime, Token};
    use crate::domain::{secret::Secret, service::ProjectName};

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

    fn token(begun: Begun, expires_at: Timestamp) -> Token {
        let lifetime = Lifetime::new(begun, Some(begun.wall), expires_at).unwrap();
        Token::new(
            1,
            ProjectName::parse("p").unwrap(),
            (Secret::new("hidden"), Secret::new("secret")),
            lifetime,
        )
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
            let lifetime = Lifetime::new(begun(), Some(minutes(issued)), minutes(expires));
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
            let lifetime = Lifetime::new(begun(), issued.map(minutes), minutes(expires));
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
    fn the_text_does_not_show() {
        assert!(!format!("{:?}", token(begun(), minutes(DAY))).contains("hidden"));
    }
}
