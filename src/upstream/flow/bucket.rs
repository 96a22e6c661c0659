//! How many requests may go: a token bucket whose rate the vendor can push down.
//!
//! Over any second no more than the rate and the burst go, however long what took a token takes
//! until it goes: what is on its way counts as part of the burst, so that no tokens come in for it
//! a second time. A throttling answer halves the rate (never below one request a second) and
//! empties the bucket; from then on the rate grows by a constant until it is what the configuration
//! says.

use std::time::Duration;

use tokio::time::Instant;

use super::Pace;

/// The rate never falls below this: somebody has to find out when the vendor takes more again.
const RATE_MIN: f64 = 1.0;
/// What a throttling answer leaves of the rate.
const DECREASE: f64 = 0.5;
/// By how much the rate grows in a second, unless that would take longer than [`RECOVERY_MAX`].
const INCREASE: f64 = 1.0;
/// The longest way back to the full rate, in seconds.
const RECOVERY_MAX: f64 = 60.0;
/// The longest that the vendor's wish to wait is heeded.
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// By how much a pause must end later than the last one that was told of, to be told of as well.
const PAUSE_NEWS: Duration = Duration::from_secs(10);

/// A token bucket. It has no clock of its own.
#[derive(Debug)]
pub(super) struct Bucket {
    rate_max: f64,
    burst: f64,
    rate: f64,
    tokens: f64,
    /// How many took a token and have not gone yet.
    under_way: u32,
    /// Up to when tokens were filled in.
    filled_at: Instant,
    /// Nothing goes, and nothing is filled in, before this.
    paused_until: Instant,
    /// The end of the pause that was last told of.
    told_until: Option<Instant>,
    /// Which stretch of time between two decreases it is.
    stretch: u64,
}

/// What a throttling answer, or the passing of time, did to the rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// It fell below what the configuration says.
    Slowed,
    /// Nothing goes for a while, since the vendor asks for that, at whatever rate.
    Paused,
    /// It is what the configuration says again.
    Recovered,
}

impl Bucket {
    /// A full bucket.
    pub(super) fn new(pace: Pace, now: Instant) -> Self {
        let (rate, burst) = (
            f64::from(pace.requests_per_second),
            f64::from(pace.burst).max(1.0),
        );
        Self {
            rate_max: rate,
            burst,
            rate,
            tokens: burst,
            under_way: 0,
            filled_at: now,
            paused_until: now,
            told_until: None,
            stretch: 0,
        }
    }

    /// Lets time pass.
    pub(super) fn fill(&mut self, now: Instant) -> Option<Turn> {
        let from = self.filled_at.max(self.paused_until);
        self.filled_at = self.filled_at.max(now);
        let seconds = now.saturating_duration_since(from).as_secs_f64();
        let before = self.rate;
        let increase = INCREASE.max(self.rate_max / RECOVERY_MAX);
        self.rate = (before + increase * seconds).min(self.rate_max);
        // By the rate at the beginning of the time: rather too few than too many.
        self.tokens = (self.tokens + before * seconds).min(self.room());
        let is_back = before < self.rate_max && self.rate >= self.rate_max;
        is_back.then_some(Turn::Recovered)
    }

    /// Takes a token, if there is one and no pause. [`Bucket::fill`] comes first.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let has_one = self.tokens >= 1.0 && now >= self.paused_until;
        if has_one {
            self.tokens -= 1.0;
        }
        has_one
    }

    /// Puts a token back that was taken and not used.
    pub(super) fn give_back(&mut self) {
        self.tokens = (self.tokens + 1.0).min(self.room());
    }

    /// Notes that somebody is on its way with a token.
    pub(super) fn set_out(&mut self) {
        self.under_way += 1;
    }

    /// Notes that it has gone, or never will. [`Bucket::fill`] comes first.
    pub(super) fn arrive(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// When there is a token for whoever comes after `ahead` others, if the rate stays as it is.
    pub(super) fn due(&self, ahead: usize) -> Instant {
        let wanted = u32::try_from(ahead).unwrap_or(u32::MAX);
        let missing = (f64::from(wanted) + 1.0 - self.tokens).max(0.0);
        let wait = Duration::try_from_secs_f64(missing / self.rate).unwrap_or(Duration::MAX);
        let from = self.filled_at.max(self.paused_until);
        // A moment that cannot be written is as good as any that is far away.
        from.checked_add(wait).unwrap_or(from + PAUSE_MAX)
    }

    /// Notes that the vendor throttled a request that went in this stretch. Of all that went before
    /// a decrease, only one causes it: the others tell nothing about the rate after it.
    pub(super) fn throttled(
        &mut self,
        stretch: u64,
        asked: Option<Duration>,
        now: Instant,
    ) -> Option<Turn> {
        let pause = asked.unwrap_or_default().min(PAUSE_MAX);
        self.paused_until = self.paused_until.max(now + pause);
        let was_full = self.rate >= self.rate_max;
        if stretch == self.stretch {
            self.stretch += 1;
            self.tokens = 0.0;
            self.rate = (self.rate * DECREASE).max(RATE_MIN).min(self.rate_max);
        }
        let turn = if was_full && self.rate < self.rate_max {
            Turn::Slowed
        } else if self.is_paused_anew(now) {
            Turn::Paused
        } else {
            return None;
        };
        self.told_until = Some(self.paused_until);
        Some(turn)
    }

    /// Whether there is a pause that is worth telling: many short ones in a row are as one.
    fn is_paused_anew(&self, now: Instant) -> bool {
        let is_news = |told| self.paused_until >= told + PAUSE_NEWS;
        self.paused_until > now && self.told_until.is_none_or(is_news)
    }

    pub(super) fn stretch(&self) -> u64 {
        self.stretch
    }

    pub(super) fn rate(&self) -> f64 {
        self.rate
    }

    pub(super) fn rate_max(&self) -> f64 {
        self.rate_max
    }

    pub(super) fn paused_until(&self) -> Instant {
        self.paused_until
    }

    /// How many tokens there may be.
    fn room(&self) -> f64 {
        (self.capacity() - f64::from(self.under_way)).max(0.0)
    }

    /// A slow rate has a small burst.
    fn capacity(&self) -> f64 {
        (self.burst * self.rate / self.rate_max).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{Bucket, PAUSE_MAX, Turn};
    use crate::upstream::flow::Pace;

    fn bucket(requests_per_second: u32, burst: u32) -> (Bucket, Instant) {
        let now = Instant::now();
        let pace = Pace {
            requests_per_second,
            burst,
        };
        (Bucket::new(pace, now), now)
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn drain(bucket: &mut Bucket, now: Instant) -> usize {
        bucket.fill(now);
        (0..1_000).take_while(|_| bucket.take(now)).count()
    }

    #[test]
    fn no_second_has_more_than_the_rate_and_the_burst() {
        let (mut bucket, start) = bucket(20, 10);
        let mut went = Vec::new();
        // Greedy, but for a rest in the middle that lets the bucket fill up.
        for at in (0..5_000).filter(|at| !(2_000..3_000).contains(at)) {
            let now = drain(&mut bucket, start + ms(at));
            went.extend(std::iter::repeat_n(at, now));
        }
        let most = went
            .iter()
            .map(|from| {
                went.iter()
                    .filter(|at| (*from..from + 1_000).contains(at))
                    .count()
            })
            .max();
        assert_eq!(
            most,
            Some(29),
            "the burst and what comes in within a second"
        );
        assert!(went.len() >= 95, "{}", went.len());
    }

    #[test]
    fn what_is_under_way_is_part_of_the_burst() {
        let (mut bucket, start) = bucket(20, 10);
        for _ in 0..drain(&mut bucket, start) {
            bucket.set_out();
        }
        assert_eq!(drain(&mut bucket, start + ms(3_000)), 0);
        // One gives up, four go.
        bucket.arrive();
        bucket.give_back();
        assert_eq!(drain(&mut bucket, start + ms(3_000)), 1);
        for _ in 0..4 {
            bucket.arrive();
        }
        assert_eq!(drain(&mut bucket, start + ms(3_000)), 0);
        assert_eq!(drain(&mut bucket, start + ms(3_101)), 2);
        assert_eq!(drain(&mut bucket, start + ms(9_000)), 5);
    }

    #[test]
    fn the_moment_of_the_next_tokens_is_foretold() {
        let (mut bucket, now) = bucket(10, 2);
        assert_eq!(bucket.due(1), now);
        assert_eq!(bucket.due(2), now + ms(100));
        assert_eq!(drain(&mut bucket, now), 2);
        assert_eq!(bucket.due(4), now + ms(500));
        assert_eq!(drain(&mut bucket, now + ms(99)), 0);
        assert_eq!(drain(&mut bucket, now + ms(101)), 1);
        bucket.give_back();
        assert_eq!(drain(&mut bucket, now + ms(101)), 1);
    }

    #[test]
    fn a_throttling_answer_halves_the_rate_once_for_all_that_went_before() {
        let (mut bucket, now) = bucket(16, 16);
        let stretch = bucket.stretch();
        assert_eq!(bucket.throttled(stretch, None, now), Some(Turn::Slowed));
        for _ in 0..50 {
            assert_eq!(bucket.throttled(stretch, None, now), None);
        }
        assert!((bucket.rate() - 8.0).abs() < 1e-9);
        assert_eq!(drain(&mut bucket, now), 0, "the burst is gone");
        for rate in [4.0, 2.0, 1.0, 1.0, 1.0] {
            let stretch = bucket.stretch();
            assert_eq!(bucket.throttled(stretch, None, now), None);
            assert!((bucket.rate() - rate).abs() < 1e-9, "{}", bucket.rate());
        }
    }

    #[test]
    fn the_rate_comes_back_by_one_a_second() {
        let (mut bucket, now) = bucket(16, 16);
        bucket.throttled(bucket.stretch(), None, now);
        for second in 1..8 {
            assert_eq!(bucket.fill(now + ms(second * 1000)), None, "{second}");
        }
        assert!((bucket.rate() - 15.0).abs() < 1e-9, "{}", bucket.rate());
        assert_eq!(bucket.fill(now + ms(8_001)), Some(Turn::Recovered));
        assert_eq!(bucket.fill(now + ms(9_000)), None);
        assert!((bucket.rate() - 16.0).abs() < 1e-9);
    }

    #[test]
    fn a_wish_to_wait_is_heeded_up_to_a_minute() {
        let (mut bucket, now) = bucket(10, 10);
        bucket.throttled(bucket.stretch(), Some(ms(5_000)), now);
        assert_eq!(drain(&mut bucket, now + ms(4_999)), 0);
        assert_eq!(bucket.due(0), now + ms(5_200));
        assert_eq!(drain(&mut bucket, now + ms(5_210)), 1);
        // An answer that comes late counts for the wait all the same.
        bucket.throttled(0, Some(Duration::from_hours(5)), now + ms(6_000));
        assert_eq!(bucket.paused_until(), now + ms(6_000) + PAUSE_MAX);
        assert_eq!(drain(&mut bucket, now + ms(65_999)), 0);
        assert!(drain(&mut bucket, now + ms(67_000)) > 0);
    }

    #[test]
    fn a_pause_is_told_of_once_whatever_the_rate_and_a_longer_one_again() {
        for pace in [1, 16] {
            let (mut bucket, now) = bucket(pace, 1);
            let mut throttled =
                |asked, at| bucket.throttled(bucket.stretch(), Some(ms(asked)), now + ms(at));
            let first = if pace == 1 {
                Turn::Paused
            } else {
                Turn::Slowed
            };
            assert_eq!(throttled(1_000, 0), Some(first));
            for at in 1..9 {
                assert_eq!(throttled(1_000, at * 1_000), None, "{at}");
            }
            assert_eq!(throttled(60_000, 9_000), Some(Turn::Paused));
            assert_eq!(throttled(60_000, 9_100), None);
            assert_eq!(throttled(0, 69_000), None);
            assert_eq!(throttled(30_000, 70_000), Some(Turn::Paused));
        }
    }

    #[test]
    fn a_rate_of_one_cannot_fall_and_is_not_called_slow() {
        let (mut bucket, now) = bucket(1, 1);
        assert_eq!(bucket.throttled(bucket.stretch(), None, now), None);
        assert_eq!(drain(&mut bucket, now + ms(999)), 0);
        assert_eq!(drain(&mut bucket, now + ms(1_001)), 1);
    }
}
