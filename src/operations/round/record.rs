//! Recording what a round came to, also where the word of the store gets lost.

use std::time::Duration;

use super::Round;
use crate::{
    domain::store::{Hold, StoreError},
    operations::{kill_point::kill_point, log_event},
};

/// How long to wait before a write to a store that is unavailable is tried again.
const STORE_PAUSE: Duration = Duration::from_secs(1);

impl Round<'_> {
    /// Writes the operation and its news. `false`: it is no longer ours, or the process is to stop
    /// and the store is away; whatever is not on record will be found out by the next driver's
    /// look.
    pub(super) async fn save(&mut self, hold: Hold) -> bool {
        let mut is_unsure = false;
        loop {
            // What may be on record is written again as it was, so that it can be told from what
            // others wrote.
            if !is_unsure {
                self.operation.updated_at = self.shared.clock.now();
            }
            let store = &self.shared.store;
            match store.save(&mut self.operation, &self.events, hold).await {
                Ok(()) => {
                    self.saved();
                    return true;
                }
                Err(StoreError::Stale) => {
                    kill_point!("round.save.stale");
                    if is_unsure && self.is_on_record().await {
                        self.saved();
                        return true;
                    }
                    tracing::info!(
                        operation.id = %self.operation.id,
                        "somebody else wrote to the operation; this round is dropped"
                    );
                    // It may have been this very round, and somebody else after it.
                    self.shared.endings.announce(self.operation.id);
                    return false;
                }
                Err(error) => {
                    is_unsure |= matches!(error, StoreError::Unsure(_));
                    self.shared.metrics.store_faults.inc();
                    tracing::error!(
                        operation.id = %self.operation.id,
                        error = error.with_causes(),
                        "the operation cannot be recorded; trying again"
                    );
                }
            }
            if *self.shared.draining.borrow() {
                return false;
            }
            kill_point!("round.retry.before");
            tokio::time::sleep(STORE_PAUSE).await;
            kill_point!("round.retry.after");
        }
    }

    fn saved(&mut self) {
        if !self.events.is_empty() {
            self.shared.endings.announce_change(self.operation.id);
        }
        for event in self.events.drain(..) {
            log_event(&self.operation, &event.kind);
        }
    }

    /// Whether the last that was recorded is what was to be, as it then is here too. If that cannot
    /// be found out, somebody else's look finds out what was done.
    async fn is_on_record(&mut self) -> bool {
        let operation = &mut self.operation;
        let Ok(Some(found)) = self.shared.store.find(operation.id).await else {
            return false;
        };
        // The record keeps times to the microsecond.
        let is_same = found.version == operation.version + 1
            && found.status == operation.status
            && found.updated_at.as_microsecond() == operation.updated_at.as_microsecond();
        if is_same {
            operation.version = found.version;
            operation.events = found.events;
        }
        is_same
    }
}
