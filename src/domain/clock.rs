//! The wall clock. Whoever needs the time of day is given one, so that tests and simulations can set it.

use jiff::Timestamp;

/// A source of the time of day.
pub trait Clock: Send + Sync {
    /// The present moment, in UTC and whole milliseconds, as records and answers show it. It may jump when the machine's
    /// clock is set.
    fn now(&self) -> Timestamp;
}

/// The machine's own clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the machine's clock"
    )]
    fn now(&self) -> Timestamp {
        let now = Timestamp::now();
        // A number of milliseconds that came from a moment is one.
        Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
    }
}
