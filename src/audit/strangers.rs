//! How much of what is denied to strangers stands in the log: the first ten in a minute, and a
//! count of all others.
//!
//! That is at most eleven lines a minute, about 6 MiB a day, whatever anybody sends.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::content::Content;
use crate::domain::clock::{Clock as _, SystemClock};

/// Denials that get a line of their own within [`PERIOD`].
pub(super) const LINES_MAX: u32 = 10;
/// From the first denial on.
pub(super) const PERIOD: Duration = Duration::from_mins(1);

/// The present minute.
#[derive(Debug, Default)]
pub(super) struct Strangers(Mutex<Option<Minute>>);

#[derive(Debug)]
struct Minute {
    began: Instant,
    since: Timestamp,
    lines: u32,
    counted: u64,
}

impl Strangers {
    /// Whether one more denial may have a line of its own; otherwise it is counted.
    pub(super) fn admit(&self, now: Instant) -> bool {
        let mut minute = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let minute = minute.get_or_insert_with(|| Minute::begin(now));
        let may = minute.lines < LINES_MAX;
        if may {
            minute.lines += 1;
        } else {
            minute.counted += 1;
        }
        may
    }

    /// Counts denials whose lines could not be written.
    pub(super) fn count(&self, denials: u64, now: Instant) {
        let mut minute = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        minute.get_or_insert_with(|| Minute::begin(now)).counted += denials;
    }

    /// The line that a minute which is over ends with, if there is anything to say; `is_last`:
    /// whether it ends in any case.
    pub(super) fn summary(&self, now: Instant, is_last: bool) -> Option<Content> {
        let mut minute = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |minute: &mut Minute| is_last || now.duration_since(minute.began) >= PERIOD;
        let ended = minute.take_if(is_over)?;
        (ended.counted > 0).then_some(Content::Strangers {
            count: ended.counted,
            since: ended.since,
        })
    }
}

impl Minute {
    fn begin(now: Instant) -> Self {
        Self {
            began: now,
            since: SystemClock.now(),
            lines: 0,
            counted: 0,
        }
    }
}
