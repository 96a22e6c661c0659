//! What is counted about encrypted connections.

use jiff::Timestamp;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// The numbers of this module. Clones count together.
#[derive(Clone, Debug, Default)]
pub(super) struct Metrics {
    handshakes: Family<Labels, Counter>,
    reloads: Family<Labels, Counter>,
    is_outdated: Gauge,
    expires: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    result: &'static str,
}

impl Metrics {
    /// Shows the numbers in a registry.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "tls_handshakes",
            "Handshakes with callers, by result: ok, certificate (that of the caller is not trusted), late, shed (it made room \
             for newer ones), failed",
            self.handshakes.clone(),
        );
        registry.register(
            "tls_reloads",
            "Readings of the files of server.tls after a change or a hangup, by what became of them: ok or faulty",
            self.reloads.clone(),
        );
        registry.register(
            "tls_outdated",
            "1 while the files of server.tls have faults, so that those before are in use",
            self.is_outdated.clone(),
        );
        registry.register(
            "tls_certificate_expires_timestamp_seconds",
            "When the certificate that callers see ends, in seconds since 1970",
            self.expires.clone(),
        );
    }

    pub(super) fn handshake(&self, result: &'static str) {
        self.handshakes.get_or_create(&Labels { result }).inc();
    }

    pub(super) fn reloaded(&self, result: &'static str, is_outdated: bool) {
        self.reloads.get_or_create(&Labels { result }).inc();
        self.is_outdated.set(is_outdated.into());
    }

    pub(super) fn expires(&self, at: Timestamp) {
        self.expires.set(at.as_second());
    }
}
