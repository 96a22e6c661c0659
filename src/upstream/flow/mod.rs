//! How requests flow to the cloud: at which pace, when again, and when not at all.
//!
//! A [`Route`] is the way to one service of one project. Its pacer is its own, its circuit breaker
//! and its retry budget belong to the endpoint, and all three are shared by all threads. A [`Flow`]
//! is a route as one lane of one thread uses it: every exchange of a session goes through
//! [`Flow::carry`].
//!
//! Every wait here has a limit: for the pace, the patience of a read or the moment until which a
//! change is good; before a retry, a part of the time limit of the request. The queue for the pace
//! holds no more than the pace lets through within those limits.

mod breaker;
mod bucket;
mod budget;
mod carry;
mod metrics;
mod pacer;
mod queue;

use std::{collections::HashMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use prometheus_client::registry::Registry;

pub(in crate::upstream) use self::carry::{Attempt, Call, Dispatch};
pub use self::queue::Lane;
use self::{
    breaker::{Breaker, BreakerView},
    budget::RetryBudget,
    metrics::{Gauges, Metrics},
    pacer::Pacer,
};
use crate::{
    domain::service::{
        ProjectName, ServiceName,
        status::{BreakerStatus, PacerStatus, ServiceStatus},
    },
    transport::Endpoint,
};

/// The pace of each service of each project: part of section `upstream` of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Requests a second, as long as the vendor does not ask to slow down. At least 1.
    pub requests_per_second: u32,
    /// Requests that may go at once after a rest. At least 1.
    pub burst: u32,
}

/// The way to one service of one project.
#[derive(Debug)]
struct Route {
    project: ProjectName,
    service: ServiceName,
    pacer: Arc<Pacer>,
    breaker: Arc<Breaker>,
    budget: Arc<RetryBudget>,
}

/// All routes. Clones share them.
#[derive(Clone)]
pub(super) struct Routes {
    all: Arc<[Route]>,
    metrics: Metrics,
    /// The time limit of a request, all its attempts together.
    time: Duration,
}

/// A route, used by one lane. Clones are the same.
#[derive(Clone)]
pub(super) struct Flow {
    service: ServiceName,
    lane: Lane,
    pacer: Arc<Pacer>,
    breaker: Arc<Breaker>,
    budget: Arc<RetryBudget>,
    metrics: Metrics,
    time: Duration,
}

impl Routes {
    /// Routes for each of these. `time` is the time limit of a request.
    pub(super) fn new(
        ways: impl IntoIterator<Item = (ProjectName, ServiceName, Endpoint)>,
        pace: Pace,
        time: Duration,
    ) -> Self {
        let metrics = Metrics::default();
        let mut endpoints = HashMap::new();
        let routes = ways.into_iter().map(|(project, service, endpoint)| {
            let (breaker, budget) = endpoints
                .entry((service.clone(), endpoint.clone()))
                .or_insert_with(|| {
                    let breaker = Breaker::new(service.clone(), endpoint, metrics.clone());
                    (Arc::new(breaker), Arc::new(RetryBudget::new()))
                });
            let pacer = Pacer::new(project.clone(), service.clone(), pace, metrics.clone());
            Route {
                project,
                service,
                pacer: Arc::new(pacer),
                breaker: Arc::clone(breaker),
                budget: Arc::clone(budget),
            }
        });
        Self {
            all: routes.collect(),
            metrics,
            time,
        }
    }

    /// Shows what is counted in a registry.
    pub(super) fn register(&self, registry: &mut Registry) {
        self.metrics.register(registry);
        registry.register_collector(Box::new(Gauges(Arc::clone(&self.all))));
    }

    /// The route to a service for one lane. `None` if there is none.
    pub(super) fn flow(
        &self,
        project: &ProjectName,
        service: &ServiceName,
        lane: Lane,
    ) -> Option<Flow> {
        let route = self
            .all
            .iter()
            .find(|route| route.project == *project && route.service == *service)?;
        Some(Flow {
            service: service.clone(),
            lane,
            pacer: Arc::clone(&route.pacer),
            breaker: Arc::clone(&route.breaker),
            budget: Arc::clone(&route.budget),
            metrics: self.metrics.clone(),
            time: self.time,
        })
    }

    /// How each route stands at this moment.
    pub(super) fn status(&self, now: Timestamp) -> Vec<ServiceStatus> {
        self.all.iter().map(|route| route.status(now)).collect()
    }
}

impl Route {
    fn status(&self, now: Timestamp) -> ServiceStatus {
        let later = |wait: Duration| now.saturating_add(wait).unwrap_or(now);
        let pacer = self.pacer.view();
        ServiceStatus {
            project: self.project.clone(),
            service: self.service.clone(),
            breaker: match self.breaker.view() {
                BreakerView::Closed => BreakerStatus::Closed,
                BreakerView::Probing => BreakerStatus::Probing,
                BreakerView::Open(wait) => BreakerStatus::Open { until: later(wait) },
            },
            pacer: PacerStatus {
                requests_per_second: pacer.rate,
                requests_per_second_max: pacer.rate_max,
                paused_until: (!pacer.pause.is_zero()).then(|| later(pacer.pause)),
                waiting: pacer.waiting,
            },
        }
    }
}

#[cfg(test)]
pub(in crate::upstream) mod tests;
