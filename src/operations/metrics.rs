//! What operations count.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

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
    /// Running operations.
    pub running: Gauge,
    /// Ended operations.
    pub ended: Family<Ended, Counter>,
    /// Rounds, by how they learned of their task.
    pub looks: Family<Look, Counter>,
    /// Operations whose round was dropped because the store could not be written to.
    pub store_faults: Counter,
}

impl Metrics {
    /// Makes the numbers readable under their names.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "operations_running",
            "Operations that have not ended",
            self.running.clone(),
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
            "Attempts to read or write the record that failed while operations were driven",
            self.store_faults.clone(),
        );
    }
}
