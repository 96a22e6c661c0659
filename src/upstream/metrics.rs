//! What is counted about the vendor. No label says which project, caller or task it was.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

/// The counters of this module. Clones count together, on whatever thread.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    duration: Family<ServiceLabels, Histogram, fn() -> Histogram>,
    looks: Family<LookLabels, Counter>,
    logins: Family<LoginLabels, Counter>,
    tokens_refused: Family<ServiceLabels, Counter>,
    credential_refreshes: Family<RefreshLabels, Counter>,
    secret_files_unusable: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    service: String,
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabels {
    service: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LookLabels {
    service: String,
    by: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LoginLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefreshLabels {
    kind: &'static str,
    result: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            duration: Family::new_with_constructor(durations),
            looks: Family::default(),
            logins: Family::default(),
            tokens_refused: Family::default(),
            credential_refreshes: Family::default(),
            secret_files_unusable: Gauge::default(),
        }
    }
}

/// From 10 ms to 20 s: the vendor answers in a tenth of a second, and the default time limit is 15
/// s.
fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.01, 2.0, 12))
}

impl Metrics {
    /// Shows the counters in a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "upstream_requests",
            "Requests to a migration service of the vendor, also those that were kept back, by outcome: ok, the class of the status, or the kind of failure",
            self.requests.clone(),
        );
        registry.register(
            "upstream_request_duration_seconds",
            "Time of one exchange with a migration service of the vendor, from its beginning to the last byte of the answer, or to its failure",
            self.duration.clone(),
        );
        registry.register(
            "upstream_looks",
            "Looks at a task for callers, by what served them: call or shared-answer",
            self.looks.clone(),
        );
        registry.register(
            "upstream_logins",
            "Logins at the token service, by result: ok or the kind of failure",
            self.logins.clone(),
        );
        registry.register(
            "upstream_tokens_refused",
            "Answers that called a token dead before its time, or a signature wrong",
            self.tokens_refused.clone(),
        );
        registry.register(
            "upstream_credential_refreshes",
            "Attempts to get a credential, the first of a project or its successor, by kind and result: ok or the kind of failure; one that a service refuses before any has accepted it counts as such a failure too",
            self.credential_refreshes.clone(),
        );
        registry.register(
            "upstream_secret_files_unusable",
            "Files of secrets that are empty, cannot be read, or hold what no such secret is; what they held before serves",
            self.secret_files_unusable.clone(),
        );
    }

    pub(crate) fn request(&self, service: &str, operation: &'static str, outcome: &'static str) {
        self.requests
            .get_or_create(&RequestLabels {
                service: service.to_owned(),
                operation,
                outcome,
            })
            .inc();
    }

    pub(crate) fn look(&self, service: &str, by: &'static str) {
        let service = service.to_owned();
        self.looks.get_or_create(&LookLabels { service, by }).inc();
    }

    pub(crate) fn exchanged(&self, service: &str, took: Duration) {
        let service = service.to_owned();
        self.duration
            .get_or_create(&ServiceLabels { service })
            .observe(took.as_secs_f64());
    }

    pub(crate) fn login(&self, result: &'static str) {
        self.logins.get_or_create(&LoginLabels { result }).inc();
    }

    pub(super) fn credential_refresh(&self, kind: &'static str, result: &'static str) {
        self.credential_refreshes
            .get_or_create(&RefreshLabels { kind, result })
            .inc();
    }

    pub(super) fn secret_file_unusable(&self, is_unusable: bool) {
        if is_unusable {
            self.secret_files_unusable.inc();
        } else {
            self.secret_files_unusable.dec();
        }
    }

    pub(crate) fn token_refused(&self, service: &str) {
        let service = service.to_owned();
        self.tokens_refused
            .get_or_create(&ServiceLabels { service })
            .inc();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus_client::{encoding::text::encode, registry::Registry};

    use super::Metrics;

    #[test]
    fn what_is_counted_shows_in_the_registry() {
        let (metrics, mut registry) = (Metrics::default(), Registry::default());
        metrics.register(&mut registry);
        metrics.clone().exchanged("oms", Duration::from_millis(30));
        metrics.request("oms", "show", "ok");
        metrics.look("oms", "shared-answer");
        metrics.login("timeout");
        metrics.token_refused("sms");
        metrics.credential_refresh("access-key", "ok");
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            r#"upstream_requests_total{service="oms",operation="show",outcome="ok"} 1"#,
            r#"upstream_request_duration_seconds_bucket{le="0.04",service="oms"} 1"#,
            r#"upstream_looks_total{service="oms",by="shared-answer"} 1"#,
            r#"upstream_logins_total{result="timeout"} 1"#,
            r#"upstream_tokens_refused_total{service="sms"} 1"#,
            r#"upstream_credential_refreshes_total{kind="access-key",result="ok"} 1"#,
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
