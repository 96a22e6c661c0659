//! The progress of a run over time, computed from the clock whenever somebody looks.

use std::time::Duration;

/// Milliseconds of a duration, as the services count them.
pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// Work that takes a known time, with pauses. All moments are milliseconds since 1970.
#[derive(Clone, Debug)]
pub(super) struct Run {
    /// The length of the whole work.
    total: i64,
    /// What was done before the present stretch.
    done: i64,
    /// When the present stretch began.
    since: Option<i64>,
}

impl Run {
    pub(super) fn new(total: Duration) -> Self {
        Self {
            total: millis(total).max(1),
            done: 0,
            since: None,
        }
    }

    /// Sets how much is done, in thousandths.
    pub(super) fn set_done(&mut self, thousandths: i64) {
        self.done = self.total * thousandths / 1000;
    }

    pub(super) fn begin(&mut self, now: i64) {
        self.since.get_or_insert(now);
    }

    pub(super) fn pause(&mut self, now: i64) {
        self.done = self.elapsed(now);
        self.since = None;
    }

    pub(super) fn restart(&mut self) {
        self.done = 0;
        self.since = None;
    }

    pub(super) fn finish(&mut self) {
        self.done = self.total;
        self.since = None;
    }

    /// Milliseconds of work done.
    pub(super) fn elapsed(&self, now: i64) -> i64 {
        let present = self.since.map_or(0, |since| (now - since).max(0));
        self.done.saturating_add(present).min(self.total)
    }

    /// Milliseconds of work left.
    pub(super) fn left(&self, now: i64) -> i64 {
        self.total - self.elapsed(now)
    }

    /// When the work will be done, if it goes on.
    pub(super) fn ends_at(&self) -> Option<i64> {
        self.since
            .map(|since| since.saturating_add(self.total - self.done))
    }

    pub(super) fn is_done(&self, now: i64) -> bool {
        self.left(now) == 0
    }

    /// The share of `amount` that is done.
    pub(super) fn share(&self, amount: u64, now: i64) -> u64 {
        let part = u128::from(amount) * u128::from(self.elapsed(now).unsigned_abs())
            / u128::from(self.total.unsigned_abs());
        u64::try_from(part).unwrap_or(amount)
    }

    /// The work done per second, of `amount` in all.
    pub(super) fn speed(&self, amount: u64) -> u64 {
        let part = u128::from(amount) * 1000 / u128::from(self.total.unsigned_abs());
        u64::try_from(part).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Run;

    #[test]
    fn a_pause_takes_nothing_away_and_adds_nothing() {
        let mut run = Run::new(Duration::from_secs(10));
        run.begin(1_000);
        assert_eq!(run.ends_at(), Some(11_000));
        run.pause(5_000);
        assert_eq!(run.elapsed(60_000), 4_000);
        run.begin(60_000);
        assert_eq!(run.left(62_000), 4_000);
        assert_eq!(run.share(1_000, 62_000), 600);
        assert!(run.is_done(66_000));
        assert_eq!(run.share(1_000, 90_000), 1_000);
    }
}
