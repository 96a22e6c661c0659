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

impl Round<'_> {
    /// The wait before the next look: it doubles from look to look, and is never the same for two
    /// operations, so that they do not march together.
    pub(super) fn next_wait(&mut self, asked: Option<Duration>) -> Duration {
        let settings = &self.shared.settings;
        let doublings = self.operation.history.waits.min(16);
        self.operation.history.waits = self.operation.history.waits.saturating_add(1);
        let wait = settings
            .poll_min
            .saturating_mul(1 << doublings)
            .min(settings.poll_max);
        let jittered = wait.mul_f64(0.8 + 0.2 * fastrand::f64());
        jittered.max(asked.unwrap_or_default().min(RETRY_AFTER_MAX))
    }

    /// The wait until the service is asked again. All who wait for it come back then, and not in
    /// the same moment.
    pub(super) fn until_asked_again(&self, left: Option<Duration>) -> Duration {
        let spread = self.shared.settings.poll_min.mul_f64(fastrand::f64());
        left.unwrap_or_default().min(RETRY_AFTER_MAX) + spread
    }
}
