//! Requests that are let through, judged and repeated, on a clock that stands still unless somebody
//! waits.

mod breaker;
mod retries;
mod turns;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Attempt, Call, Dispatch, Flow, Lane, Pace, Routes};
use crate::{
    domain::{
        clock::SystemClock,
        service::{Clearance, HeldLease, Patience, ProjectName, Sent, ServiceName, UpstreamError},
    },
    transport::{Endpoint, Limits, Method, Response, TransportError, TransportErrorKind as Fault},
};

/// A pace that is in nobody's way.
pub(in crate::upstream) const PACE: Pace = Pace {
    requests_per_second: 10_000,
    burst: 10_000,
};

const TIME: Duration = Duration::from_secs(15);

fn project() -> ProjectName {
    ProjectName::parse("p").unwrap()
}

fn routes(service: ServiceName, endpoint: Endpoint, pace: Pace) -> Routes {
    Routes::new([(project(), service, endpoint)], pace, TIME)
}

/// The flow of callers to an endpoint, at this pace.
pub(in crate::upstream) fn flow(service: &ServiceName, endpoint: Endpoint, pace: Pace) -> Flow {
    routes(service.clone(), endpoint, pace)
        .flow(&project(), service, Lane::Callers)
        .unwrap()
}

/// How many wait for the pace of a flow.
pub(in crate::upstream) fn waiting(flow: &Flow) -> usize {
    flow.pacer.view().waiting
}

fn oms() -> ServiceName {
    ServiceName::parse("oms").unwrap()
}

fn endpoint() -> Endpoint {
    Endpoint::parse("http://127.0.0.1:9").unwrap()
}

fn at(pace: Pace) -> (Routes, Flow) {
    let routes = routes(oms(), endpoint(), pace);
    let flow = routes.flow(&project(), &oms(), Lane::Callers).unwrap();
    (routes, flow)
}

#[expect(clippy::unnecessary_wraps, reason = "it stands beside `fault`")]
fn response(status: u16, retry_after: Option<u64>) -> Attempt {
    Ok(Response {
        status,
        body: bytes::Bytes::from_static(b"{}"),
        request_id: None,
        retry_after: retry_after.map(Duration::from_secs),
        is_doubtful: false,
    })
}

fn fault(kind: Fault, sent: Sent) -> Attempt {
    Err(TransportError {
        sent,
        ..TransportError::new(kind, Method::Get)
    })
}

/// Attempts that end as the script says, one after the other; the last one for ever.
struct Script {
    attempts: RefCell<Vec<Attempt>>,
    began: Instant,
    seen: RefCell<Vec<(Duration, Limits)>>,
    takes: Duration,
    /// What it takes to make one is not at hand before this.
    lacking_until: Instant,
    /// How many hold what it takes.
    holders: Rc<()>,
    holders_most: Cell<usize>,
}

impl Script {
    fn new(attempts: impl IntoIterator<Item = Attempt>) -> Self {
        Self {
            attempts: RefCell::new(attempts.into_iter().collect()),
            began: Instant::now(),
            seen: RefCell::default(),
            takes: Duration::ZERO,
            lacking_until: Instant::now(),
            holders: Rc::default(),
            holders_most: Cell::default(),
        }
    }

    fn lacking(self, time: Duration) -> Self {
        let lacking_until = self.began + time;
        Self {
            lacking_until,
            ..self
        }
    }

    fn taking(self, takes: Duration) -> Self {
        Self { takes, ..self }
    }

    async fn carry(&self, flow: &Flow, method: Method) -> Result<Response, UpstreamError> {
        self.carry_by(flow, method, None).await
    }

    async fn carry_by(
        &self,
        flow: &Flow,
        method: Method,
        by: Option<Instant>,
    ) -> Result<Response, UpstreamError> {
        let patience = &Patience::default();
        let clearance = by.map(|by| Clearance {
            by: by.into_std(),
            lease: HeldLease::new(Arc::new(SystemClock), Duration::MAX),
        });
        let call = Call {
            method,
            clearance: clearance.as_ref(),
            patience,
            fresh_connection: false,
        };
        flow.carry(call, self).await
    }

    /// When each attempt was made, and within which limits.
    fn seen(&self) -> Vec<(Duration, Limits)> {
        self.seen.borrow().clone()
    }

    fn count(&self) -> usize {
        self.seen.borrow().len()
    }
}

impl Dispatch for Script {
    type Means = Rc<()>;

    async fn at_hand(&self) -> Result<Option<Rc<()>>, UpstreamError> {
        let is_there = Instant::now() >= self.lacking_until;
        Ok(is_there.then(|| Rc::clone(&self.holders)))
    }

    async fn wait(&self, _: Option<Instant>) -> Result<Rc<()>, UpstreamError> {
        sleep_until(self.lacking_until).await;
        Ok(Rc::clone(&self.holders))
    }

    async fn send(&self, _means: Rc<()>, limits: Limits) -> Attempt {
        let holders = Rc::strong_count(&self.holders) - 1;
        self.holders_most.set(self.holders_most.get().max(holders));
        self.seen.borrow_mut().push((self.began.elapsed(), limits));
        sleep(self.takes).await;
        let mut attempts = self.attempts.borrow_mut();
        if attempts.len() > 1 {
            attempts.remove(0)
        } else {
            attempts[0].clone()
        }
    }
}

fn metrics(routes: &Routes) -> String {
    let mut registry = Registry::default();
    routes.register(&mut registry);
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    text
}
