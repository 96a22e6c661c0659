//! What the audit log counts.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};

#[derive(Clone, Debug, Default)]
pub(super) struct Metrics {
    pub(super) available: Gauge,
    pub(super) lines: Counter,
    pub(super) failures: Counter,
    pub(super) strangers: Counter,
}

impl Metrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "audit_available",
            "1 while the audit log can be written, else 0, and then writes are refused",
            self.available.clone(),
        );
        registry.register(
            "audit_lines",
            "Lines written to the audit log",
            self.lines.clone(),
        );
        registry.register(
            "audit_failures",
            "Attempts to write the audit log that failed, or that were not over in time",
            self.failures.clone(),
        );
        registry.register(
            "audit_strangers",
            "Writes denied to strangers, with or without a line of their own in the audit log",
            self.strangers.clone(),
        );
    }
}
