//! States of the vendor that this program does not know.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use crate::domain::service::ServiceName;

/// Counts looks that found a task in a state that this program does not know, by service. Clones
/// share the counts. The state itself is not a label: the vendor could make up any number of them.
#[derive(Clone, Debug, Default)]
pub(super) struct UnknownStates(Family<Labels, Counter>);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    service: String,
}

impl UnknownStates {
    /// Makes the counts part of what a registry shows.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "upstream_unknown_states",
            "Looks that found a task in a state unknown to this program",
            self.0.clone(),
        );
    }

    /// One more.
    pub(super) fn count(&self, service: &ServiceName) {
        let labels = Labels {
            service: service.to_string(),
        };
        self.0.get_or_create(&labels).inc();
    }
}

#[cfg(test)]
impl UnknownStates {
    /// How many there were.
    pub(super) fn of(&self, service: &str) -> u64 {
        let labels = Labels {
            service: service.to_owned(),
        };
        self.0.get_or_create(&labels).get()
    }
}
