//! Operations: accepted once, driven to their end.

use std::time::Duration;

/// How operations are driven: section `operations` of the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// An operation that has not ended by then fails.
    pub deadline: Duration,
    /// The first wait between two looks at a task; it doubles from look to look.
    pub poll_min: Duration,
    /// The longest wait between two looks.
    pub poll_max: Duration,
    /// Rounds at the same time.
    pub concurrency: usize,
    /// How long ended operations are kept.
    pub history: Duration,
}
