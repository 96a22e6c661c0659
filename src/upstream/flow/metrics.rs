//! What is counted about retries, paces and breakers. No label says which project, caller or task
//! it was: where one service has several endpoints or projects, the gauges show the one that is
//! worst off, and the log tells which it is.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{
        MetricType,
        counter::Counter,
        family::Family,
        gauge::ConstGauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};

use super::{Route, breaker::BreakerView};
use crate::domain::service::ServiceName;

/// The counters of this module. Clones count together, on whatever thread.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    retries: Family<RetryLabels, Counter>,
    throttles: Family<ServiceLabels, Counter>,
    transitions: Family<TransitionLabels, Counter>,
    waits: Family<WaitLabels, Histogram, fn() -> Histogram>,
}

/// What became of a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    /// It was answered without a fault.
    Succeeded,
    /// It failed as well, or could not be sent any more.
    Failed,
    /// The budget did not allow it.
    Denied,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabels {
    service: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RetryLabels {
    service: String,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TransitionLabels {
    service: String,
    to: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WaitLabels {
    service: String,
    lane: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            retries: Family::default(),
            throttles: Family::default(),
            transitions: Family::default(),
            waits: Family::new_with_constructor(waits),
        }
    }
}

/// From 1 ms to 16 s: nobody waits longer than 10 s.
fn waits() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 4.0, 8))
}

impl Metrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "upstream_retries",
            "Further attempts of requests to the vendor, by result: succeeded, failed, or denied by the retry budget",
            self.retries.clone(),
        );
        registry.register(
            "upstream_throttles",
            "Answers by which the vendor asked to slow down",
            self.throttles.clone(),
        );
        registry.register(
            "upstream_breaker_transitions",
            "Changes of a circuit breaker, by the state that it came to",
            self.transitions.clone(),
        );
        registry.register(
            "upstream_pacer_wait_seconds",
            "Waits for the pace of a service, also those in vain, by who waited: callers or rounds of operations",
            self.waits.clone(),
        );
    }

    pub(super) fn retry(&self, service: &ServiceName, result: Retry) {
        let labels = RetryLabels {
            service: service.to_string(),
            result: match result {
                Retry::Succeeded => "succeeded",
                Retry::Failed => "failed",
                Retry::Denied => "denied",
            },
        };
        self.retries.get_or_create(&labels).inc();
    }

    pub(super) fn throttled(&self, service: &ServiceName) {
        let service = service.to_string();
        self.throttles
            .get_or_create(&ServiceLabels { service })
            .inc();
    }

    pub(super) fn breaker_turned(&self, service: &ServiceName, to: &'static str) {
        let service = service.to_string();
        self.transitions
            .get_or_create(&TransitionLabels { service, to })
            .inc();
    }

    pub(super) fn waited(&self, service: &ServiceName, lane: &'static str, time: Duration) {
        let service = service.to_string();
        self.waits
            .get_or_create(&WaitLabels { service, lane })
            .observe(time.as_secs_f64());
    }
}

/// Reads the gauges when they are asked for.
#[derive(Debug)]
pub(super) struct Gauges(pub(super) Arc<[Route]>);

/// A number that is read when it is asked for, one for each service.
struct Reading {
    name: &'static str,
    help: &'static str,
    read: fn(&Route) -> f64,
    /// Makes one of what two routes of the service say.
    join: fn(f64, f64) -> f64,
}

const READINGS: [Reading; 4] = [
    Reading {
        name: "upstream_breaker_state",
        help: "The circuit breaker of the endpoint that is worst off: 0 closed, 1 probing, 2 open",
        read: |route| match route.breaker.view() {
            BreakerView::Closed => 0.0,
            BreakerView::Probing => 1.0,
            BreakerView::Open(_) => 2.0,
        },
        join: f64::max,
    },
    Reading {
        name: "upstream_retry_budget_left",
        help: "Retries that the endpoint with the smallest budget may still be burdened with",
        read: |route| route.budget.left(),
        join: f64::min,
    },
    Reading {
        name: "upstream_pacer_requests_per_second",
        help: "The pace of the project with the slowest one",
        read: |route| route.pacer.view().rate,
        join: f64::min,
    },
    Reading {
        name: "upstream_pacer_waiting",
        help: "Requests that wait for the pace of a service, of all projects",
        read: |route| f64::from(u32::try_from(route.pacer.view().waiting).unwrap_or(u32::MAX)),
        join: |one, other| one + other,
    },
];

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for Reading {
            name,
            help,
            read,
            join,
        } in READINGS
        {
            let mut values = BTreeMap::new();
            for route in self.0.iter() {
                let value = read(route);
                values
                    .entry(route.service.as_str())
                    .and_modify(|known| *known = join(*known, value))
                    .or_insert(value);
            }
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (service, value) in values {
                let labels = ServiceLabels {
                    service: service.to_owned(),
                };
                ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
