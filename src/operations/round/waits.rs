//! How long an operation rests until its next look.

use std::time::Duration;

use super::Round;
use crate::{domain::store::CLOCKS_APART, operations::Settings};

/// The longest that a wish of the vendor's to wait is heeded.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(1);

/// The longest that an operation rests until its next look.
pub(in crate::operations) fn longest_rest(settings: &Settings) -> Duration {
    settings
        .poll_max
        .max(RETRY_AFTER_MAX)
        .saturating_add(settings.poll_min)
        .saturating_add(CLOCKS_APART)
}

/// The longest that an operation waits after so many waits.
pub(in crate::operations) fn full_wait(settings: &Settings, waits: u32) -> Duration {
    let wait = settings.poll_min.saturating_mul(1 << waits.min(16));
    wait.min(settings.poll_max)
}

impl Round<'_> {
    /// The wait before the next look: it doubles from look to look, and is never the same for two
    /// operations, so that they do not march together.
    pub(super) fn next_wait(&mut self, asked: Option<Duration>) -> Duration {
        let jittered = self.count_wait().mul_f64(0.8 + 0.2 * fastrand::f64());
        jittered.max(asked.unwrap_or_default().min(RETRY_AFTER_MAX))
    }

    /// The whole of the wait before the next look, which is counted.
    pub(super) fn count_wait(&mut self) -> Duration {
        let waits = &mut self.operation.history.waits;
        let wait = full_wait(&self.shared.settings, *waits);
        *waits = waits.saturating_add(1);
        wait
    }

    /// The wait until the service is asked again. All who wait for it come back then, and not in
    /// the same moment.
    pub(super) fn until_asked_again(&self, left: Option<Duration>) -> Duration {
        let spread = self.shared.settings.poll_min.mul_f64(fastrand::f64());
        left.unwrap_or_default().min(RETRY_AFTER_MAX) + spread
    }
}
