//! What a change needs at the moment at which it is sent.

use std::{
    cell::Cell,
    fmt,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::domain::clock::Clock;

/// The two things that a change rests on, both of which come to an end while it waits to be sent.
#[derive(Clone, Debug)]
pub struct Clearance {
    /// When the look becomes too old: nothing is begun after this.
    pub by: Instant,
    /// The lease on the operation: nothing is begun without it.
    pub lease: HeldLease,
}

impl Clearance {
    /// Whether a change may be sent, at this present moment.
    pub fn is_good(&self, now: Instant) -> bool {
        now <= self.by && self.lease.holds()
    }
}

/// How long a lease surely holds, as far as its owner knows. Clones are the same lease.
///
/// Time in which the process was stopped or the machine suspended counts.
#[derive(Clone)]
pub struct HeldLease {
    clock: Arc<dyn Clock>,
    /// On [`Clock::uptime`].
    until: Rc<Cell<Duration>>,
}

impl HeldLease {
    /// A lease that holds until a moment of [`Clock::uptime`].
    pub fn new(clock: Arc<dyn Clock>, until: Duration) -> Self {
        let until = Rc::new(Cell::new(until));
        Self { clock, until }
    }

    /// Whether it holds at this moment.
    pub fn holds(&self) -> bool {
        self.clock.uptime() < self.until.get()
    }

    /// It holds until this moment of [`Clock::uptime`], unless it was ended.
    pub fn extend(&self, until: Duration) {
        if !self.until.get().is_zero() {
            self.until.set(until);
        }
    }

    /// It holds no more, and never again.
    pub fn end(&self) {
        self.until.set(Duration::ZERO);
    }
}

impl fmt::Debug for HeldLease {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("HeldLease")
            .field("until", &self.until.get())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::SystemClock;

    #[test]
    fn a_lease_that_was_ended_is_extended_no_more() {
        let clock = Arc::new(SystemClock);
        let lease = HeldLease::new(Arc::clone(&clock) as Arc<dyn Clock>, Duration::MAX);
        let same = lease.clone();
        lease.extend(clock.uptime());
        assert!(!same.holds(), "it is over");
        same.extend(Duration::MAX);
        assert!(lease.holds());
        lease.end();
        same.extend(Duration::MAX);
        assert!(!same.holds());
    }
}
