//! What operations count.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::time::{Instant, timeout};

use super::Operations;
use crate::domain::store::StoreError;

/// For how long a count serves.
const FRESH: Duration = Duration::from_secs(1);
/// How long the record is waited for: less than those wait who read metrics.
const COUNT_MAX: Duration = Duration::from_secs(3);

/// Labels of an ended operation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Ended {
    /// The kind of the operation.
    pub kind: &'static str,
    /// Its outcome, or the reason of its failure.
    pub outcome: &'static str,
}

/// Labels of how a round learned of its task.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Look {
    /// The service.
    pub service: String,
    /// `call`: the task was looked at. `board`: a row of the list said to wait on.
    pub by: &'static str,
}

/// The numbers of the operations of this process.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Running operations on record, of all processes, as of the last [`Operations::count`].
    pub running: Gauge,
    /// Operations on record that could not be read, as of the same moment.
    pub unreadable: Gauge,
    /// Ended operations.
    pub ended: Family<Ended, Counter>,
    /// Rounds, by how they learned of their task.
    pub looks: Family<Look, Counter>,
    /// Attempts to read or write the record that failed while operations were recorded, driven and
    /// told to the audit log.
    pub store_faults: Counter,
}

impl Metrics {
    /// Makes the numbers readable under their names.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "operations_running",
            "Operations on record that have not ended, whichever process has them",
            self.running.clone(),
        );
        registry.register(
            "operations_unreadable",
            "Operations on record that were come across and could not be read",
            self.unreadable.clone(),
        );
        registry.register(
            "operations_ended",
            "Operations that ended, by kind and by outcome or reason",
            self.ended.clone(),
        );
        registry.register(
            "operations_looks",
            "Rounds of operations, by what they learned of their task from: call, or board, a row of the list for many",
            self.looks.clone(),
        );
        registry.register(
            "store_faults",
            "Attempts to read or write the record that failed while operations were recorded, driven and told to the audit log",
            self.store_faults.clone(),
        );
    }
}

impl Operations {
    /// Counts what is on record, unless that was done within the last second: anybody may ask for
    /// the metrics. While the record is away the numbers stay as they were.
    pub async fn count(&self) {
        // Held while the record is asked, so that many who ask at once cause one statement.
        let mut counted_at = self.0.counted_at.lock().await;
        if counted_at.is_some_and(|at| at.elapsed() < FRESH) {
            return;
        }
        let counted = timeout(COUNT_MAX, self.0.store.counts()).await;
        let counted = counted.unwrap_or_else(|late| Err(StoreError::Unavailable(late.into())));
        match counted {
            Ok(counts) => {
                self.0.metrics.running.set(counts.running);
                self.0.metrics.unreadable.set(counts.unreadable);
            }
            Err(error) => tracing::error!(
                error = error.with_causes(),
                "the operations cannot be counted; their numbers are old"
            ),
        }
        *counted_at = Some(Instant::now());
    }
}
