//! The last word on whether the record can be written. Finding it out costs a write, and anybody
//! may ask: so it is asked for at most once a second.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::operations::Operations;

const FRESH: Duration = Duration::from_secs(1);

/// The last answer, and when it was had.
#[derive(Debug, Default)]
pub(in crate::api) struct StoreHealth(Mutex<Option<(Instant, bool)>>);

impl StoreHealth {
    /// Whether the record can be written.
    pub(in crate::api) async fn is_well(&self, operations: &Operations) -> bool {
        // Held while the store is asked, so that many who ask at once cause one write.
        let mut last = self.0.lock().await;
        if let Some((at, is_well)) = *last
            && at.elapsed() < FRESH
        {
            return is_well;
        }
        let checked = operations.check_store().await;
        if let Err(error) = &checked {
            tracing::error!(error = error.with_causes(), "the store is not well");
        }
        *last = Some((Instant::now(), checked.is_ok()));
        checked.is_ok()
    }
}
