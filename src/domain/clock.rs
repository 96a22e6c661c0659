//! The clocks. Whoever needs the time of day, or a time that no suspension hides, is given one, so
//! that tests and simulations can set it.

use std::time::Duration;

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// A source of time.
pub trait Clock: Send + Sync {
    /// The present moment, in UTC and whole milliseconds, as records and answers show it. It may
    /// jump when the machine's clock is set.
    fn now(&self) -> Timestamp;

    /// How long the machine has been up, the time in which it was suspended included. Never goes
    /// back.
    fn uptime(&self) -> Duration;
}

/// The machine's own clocks.
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

    fn uptime(&self) -> Duration {
        // It is after the start of the machine.
        Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
    }
}
