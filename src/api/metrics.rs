//! What requests count.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// Labels of a request. The route is the template, never the path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

/// The numbers of the requests of this process.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Family<Request, Counter>,
    duration: Family<Route, Histogram>,
    /// Streams of events that are open.
    pub(super) streams: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        // From a millisecond to two minutes, which is as long as a request may wait.
        let buckets = || Histogram::new(exponential_buckets(0.001, 3.2, 11));
        Self {
            requests: Family::default(),
            duration: Family::new_with_constructor(buckets),
            streams: Gauge::default(),
        }
    }
}

impl Metrics {
    /// Makes the numbers readable under their names.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "http_requests",
            "Requests answered, by method, route and status",
            self.requests.clone(),
        );
        registry.register_with_unit(
            "http_request_duration",
            "Time from a request to its answer, waiting included, by route",
            Unit::Seconds,
            self.duration.clone(),
        );
        registry.register(
            "event_streams",
            "Streams of events that are open",
            self.streams.clone(),
        );
    }

    /// Counts a request. Methods that are not of HTTP's own share one label, so that nobody can
    /// make labels up.
    pub(super) fn count(&self, method: &str, route: &str, status: u16, took: Duration) {
        let known = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
        let method = known
            .into_iter()
            .find(|one| *one == method)
            .unwrap_or("OTHER");
        let route = route.to_owned();
        self.duration
            .get_or_create(&Route {
                route: route.clone(),
            })
            .observe(took.as_secs_f64());
        self.requests
            .get_or_create(&Request {
                method,
                route,
                status,
            })
            .inc();
    }
}
