//! What tests of the whole program stand on: the real program in a process of its own, the
//! simulated cloud behind it, and plain HTTP in front.

pub(crate) mod audit_log;
pub(crate) mod authority;
pub(crate) mod credentials;
pub(crate) mod gateway;
pub(crate) mod http;
pub(crate) mod issuer;
pub(crate) mod postgres;
pub(crate) mod raw;
pub(crate) mod schema;
pub(crate) mod vendor;

use std::time::{Duration, Instant};

use migration_gateway::sandbox::{AfterStop, OmsSpec, TaskSwitches};

/// The longest that a test waits for something that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` gives something. A test that waits in vain says for what.
pub(crate) fn wait_for<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    wait_within(PATIENCE, what, condition)
}

/// As [`wait_for`], for so long at most.
pub(crate) fn wait_within<T>(
    limit: Duration,
    what: &str,
    mut condition: impl FnMut() -> Option<T>,
) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(began.elapsed() < limit, "waited in vain for {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A running task of OMS that stays half way when it is paused.
pub(crate) fn stuck() -> OmsSpec {
    OmsSpec {
        switches: TaskSwitches {
            after_stop: AfterStop::Stuck,
            ..TaskSwitches::default()
        },
        ..OmsSpec::new("logs", 2)
    }
}
