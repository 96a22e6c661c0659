//! What is counted about credentials. No label comes from a request.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::Refusal;
use crate::domain::service::IssuerName;

/// The counters of this module. Clones count together.
#[derive(Clone, Debug, Default)]
pub(super) struct Metrics {
    refused: Family<RefusedLabels, Counter>,
    fetches: Family<FetchLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FetchLabels {
    issuer: String,
    result: &'static str,
}

impl Metrics {
    /// Shows the counters in a registry.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "credentials_refused",
            "Requests without good credentials, by reason",
            self.refused.clone(),
        );
        registry.register(
            "issuer_keys_fetched",
            "Fetches of the keys of an issuer of tokens, by result",
            self.fetches.clone(),
        );
    }

    pub(super) fn refused(&self, refusal: Refusal) {
        let reason = refusal.as_str();
        self.refused.get_or_create(&RefusedLabels { reason }).inc();
    }

    pub(super) fn fetched(&self, issuer: &IssuerName, result: &'static str) {
        let issuer = issuer.to_string();
        self.fetches
            .get_or_create(&FetchLabels { issuer, result })
            .inc();
    }
}
