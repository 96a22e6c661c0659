//! Requests that are let through, judged and repeated, on a clock that stands still unless somebody waits.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use jiff::Timestamp;
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::time::{Instant, advance, sleep, sleep_until};

use super::{Attempt, Call, Dispatch, Flow, Lane, Pace, Routes, budget::Leave};
use crate::{
    domain::{
        clock::SystemClock,
        service::{
            Clearance, HeldLease, Patience, ProjectName, Sent, ServiceName, UpstreamError,
            UpstreamErrorKind, status::BreakerStatus,
        },
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

#[tokio::test(start_paused = true)]
async fn a_read_that_meets_faults_is_sent_again_and_no_more_than_twice() {
    for first in [
        response(500, None),
        response(503, Some(1)),
        fault(Fault::Connect, Sent::No),
        fault(Fault::Interrupted, Sent::No),
        fault(Fault::Malformed, Sent::No),
    ] {
        let (routes, flow) = at(PACE);
        let script = Script::new([first.clone(), first.clone(), response(200, None)]);
        let response = script.carry(&flow, Method::Get).await.unwrap();
        assert_eq!((response.status, script.count()), (200, 3), "{first:?}");
        let text = metrics(&routes);
        for line in [
            r#"upstream_retries_total{service="oms",result="failed"} 1"#,
            r#"upstream_retries_total{service="oms",result="succeeded"} 1"#,
            r#"upstream_retry_budget_left{service="oms"} "#,
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        let script = Script::new([first.clone()]);
        let given_up = script.carry(&flow, Method::Get).await;
        assert_eq!(script.count(), 3, "{first:?}");
        match (first, given_up) {
            (Ok(first), Ok(last)) => assert_eq!(first.status, last.status),
            (Err(_), Err(error)) => assert_eq!(error.sent, Sent::No),
            (first, last) => panic!("{first:?} became {last:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn pauses_grow_and_heed_a_short_wish_of_the_vendor() {
    let (_, flow) = at(PACE);
    let script = Script::new([
        response(502, None),
        response(503, Some(2)),
        response(200, None),
    ]);
    script.carry(&flow, Method::Get).await.unwrap();
    let seen = script.seen();
    let first = seen[1].0.as_millis();
    assert!((50..=101).contains(&first), "{first}");
    let second = seen[2].0.saturating_sub(seen[1].0).as_millis();
    assert!((2_000..=2_001).contains(&second), "{second}");
    let script = Script::new([response(503, Some(3))]);
    let given_up = script.carry(&flow, Method::Get).await.unwrap();
    assert_eq!(
        (script.count(), given_up.status),
        (1, 503),
        "too long a wish"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_no_fault_of_the_endpoint_is_not_repeated() {
    for attempt in [
        response(200, None),
        response(302, None),
        response(400, None),
        response(429, None),
        fault(Fault::TooLarge, Sent::No),
        fault(Fault::Busy, Sent::No),
        fault(Fault::Unsendable, Sent::No),
    ] {
        let (_, flow) = at(PACE);
        let script = Script::new([attempt.clone()]);
        _ = script.carry(&flow, Method::Get).await;
        assert_eq!(script.count(), 1, "{attempt:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_is_sent_again_only_if_no_connection_was_made() {
    let again = [Fault::Resolve, Fault::Connect, Fault::Tls];
    for kind in again {
        let (_, flow) = at(PACE);
        let script = Script::new([fault(kind, Sent::No), response(200, None)]);
        let response = script.carry(&flow, Method::Delete).await.unwrap();
        assert_eq!((response.status, script.count()), (200, 2), "{kind:?}");
    }
    for attempt in [
        fault(Fault::Interrupted, Sent::Unknown),
        fault(Fault::Timeout, Sent::Unknown),
        fault(Fault::Malformed, Sent::Unknown),
        fault(Fault::Busy, Sent::No),
        response(500, None),
        response(503, Some(1)),
    ] {
        for method in [Method::Post, Method::Delete] {
            let (_, flow) = at(PACE);
            let script = Script::new([attempt.clone(), response(200, None)]);
            _ = script.carry(&flow, method).await;
            assert_eq!(script.count(), 1, "{attempt:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn all_attempts_together_stay_within_the_time_of_one() {
    let (_, flow) = at(PACE);
    let script = Script::new([response(500, None)]).taking(Duration::from_secs(4));
    script.carry(&flow, Method::Get).await.unwrap();
    let seen = script.seen();
    assert_eq!(
        seen.len(),
        2,
        "a third would have less than half of the time"
    );
    assert_eq!(seen[0].1.time, TIME);
    let left = TIME.saturating_sub(seen[1].0);
    assert!(seen[1].1.time.abs_diff(left).as_millis() <= 2, "{seen:?}");
    let (_, flow) = at(PACE);
    let script = Script::new([fault(Fault::Timeout, Sent::No)]).taking(TIME);
    script.carry(&flow, Method::Get).await.unwrap_err();
    assert_eq!(script.count(), 1, "no time is left after a timeout");
}

#[tokio::test(start_paused = true)]
async fn retries_end_with_the_budget() {
    let (routes, flow) = at(PACE);
    let well = Script::new([response(200, None)]);
    let faulty = Script::new([response(500, None)]);
    for _ in 0..20 {
        faulty.carry(&flow, Method::Get).await.unwrap();
        // Keeps the breaker closed.
        well.carry(&flow, Method::Get).await.unwrap();
        flow.budget.spend();
    }
    // What a tenth of 40 requests and the reserve allow, and what came back in the pauses; the test itself took some.
    let retries = faulty.count() - 20;
    assert!((5..=16).contains(&retries), "{retries}");
    let text = metrics(&routes);
    assert!(text.contains(r#"result="denied"}"#), "{text}");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_is_left_alone_and_probed() {
    let (routes, flow) = at(PACE);
    let faulty = Script::new([response(500, None)]);
    for _ in 0..4 {
        faulty.carry(&flow, Method::Get).await.unwrap();
    }
    assert_eq!(faulty.count(), 10, "the last retries were not let through");
    let error = faulty.carry(&flow, Method::Delete).await.unwrap_err();
    assert_eq!(
        (error.kind, error.sent),
        (UpstreamErrorKind::CircuitOpen, Sent::No)
    );
    let wait = error.retry_after.unwrap();
    assert!(wait <= Duration::from_secs(1), "{wait:?}");
    assert_eq!(faulty.count(), 10);
    let now = Timestamp::UNIX_EPOCH;
    let status = routes.status(now);
    let BreakerStatus::Open { until } = status[0].breaker else {
        panic!("{status:?}");
    };
    assert_eq!(until, now + jiff::SignedDuration::try_from(wait).unwrap());
    assert!(metrics(&routes).contains(r#"upstream_breaker_state{service="oms"} 2"#));

    advance(wait).await;
    let slow = Script::new([response(404, None)]).taking(Duration::from_millis(100));
    let (probe, others) = tokio::join!(
        slow.carry(&flow, Method::Get),
        join_all((0..20).map(|_| slow.carry(&flow, Method::Get)))
    );
    assert_eq!(probe.unwrap().status, 404);
    assert!(others.iter().all(Result::is_err));
    assert_eq!(slow.count(), 1);
    assert_eq!(routes.status(now)[0].breaker, BreakerStatus::Closed);
    let text = metrics(&routes);
    for line in [
        r#"upstream_breaker_state{service="oms"} 0"#,
        r#"upstream_breaker_transitions_total{service="oms",to="open"} 1"#,
        r#"upstream_breaker_transitions_total{service="oms",to="probing"} 1"#,
        r#"upstream_breaker_transitions_total{service="oms",to="closed"} 1"#,
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_leaves_in_the_middle_of_the_probe_does_not_block_the_next() {
    let (routes, flow) = at(PACE);
    let faulty = Script::new([response(500, None)]);
    for _ in 0..4 {
        faulty.carry(&flow, Method::Get).await.unwrap();
    }
    advance(Duration::from_secs(1)).await;
    let slow = Script::new([response(200, None)]).taking(Duration::from_secs(5));
    let left = tokio::time::timeout(Duration::from_secs(1), slow.carry(&flow, Method::Get)).await;
    assert!(left.is_err() && slow.count() == 1);
    slow.carry(&flow, Method::Get).await.unwrap();
    let status = routes.status(Timestamp::UNIX_EPOCH);
    assert_eq!(status[0].breaker, BreakerStatus::Closed);
}

#[tokio::test(start_paused = true)]
async fn projects_share_the_breaker_of_an_endpoint_and_nothing_else_does() {
    let name = |text| ProjectName::parse(text).unwrap();
    let elsewhere = Endpoint::parse("http://127.0.0.1:10").unwrap();
    let pace = Pace {
        requests_per_second: 20,
        burst: 1,
    };
    let ways = [
        (name("a"), oms(), endpoint()),
        (name("b"), oms(), endpoint()),
        (name("c"), oms(), elsewhere),
    ];
    let routes = Routes::new(ways, pace, TIME);
    let flow = |project| routes.flow(&name(project), &oms(), Lane::Rounds).unwrap();
    let faulty = Script::new([response(500, None)]);
    for _ in 0..4 {
        faulty.carry(&flow("a"), Method::Get).await.unwrap();
    }
    let error = faulty.carry(&flow("b"), Method::Get).await.unwrap_err();
    assert_eq!(error.kind, UpstreamErrorKind::CircuitOpen);
    let began = Instant::now();
    let well = Script::new([response(200, None)]);
    well.carry(&flow("c"), Method::Get).await.unwrap();
    assert_eq!(
        began.elapsed(),
        Duration::ZERO,
        "the pace of another project"
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_turn_would_come_too_late_is_told_so() {
    let pace = Pace {
        requests_per_second: 1,
        burst: 1,
    };
    let (routes, flow) = at(pace);
    let script = Script::new([response(200, None)]);
    let reads = join_all((0..30).map(|_| script.carry(&flow, Method::Get))).await;
    assert_eq!(reads.iter().filter(|read| read.is_ok()).count(), 11);
    let error = reads.into_iter().find_map(Result::err).unwrap();
    assert_eq!(
        (error.kind, error.sent, error.answer),
        (UpstreamErrorKind::Throttled, Sent::No, None)
    );
    assert_eq!(error.retry_after, Some(Duration::from_secs(11)));
    let by = Instant::now() + Duration::from_millis(800);
    let late = script.carry_by(&flow, Method::Post, Some(by)).await;
    assert_eq!(late.unwrap_err().kind, UpstreamErrorKind::Throttled);
    let by = Instant::now() + Duration::from_millis(1_200);
    let sent = script.carry_by(&flow, Method::Post, Some(by)).await;
    sent.unwrap();
    let text = metrics(&routes);
    let line = r#"upstream_pacer_wait_seconds_count{service="oms",lane="callers"} 32"#;
    assert!(text.contains(line), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_throttling_slows_down_once_and_recovers() {
    let pace = Pace {
        requests_per_second: 8,
        burst: 8,
    };
    let (routes, flow) = at(pace);
    let storm = Script::new([response(429, Some(2))]).taking(Duration::from_millis(10));
    let began = Instant::now();
    let answers = join_all((0..8).map(|_| storm.carry(&flow, Method::Get))).await;
    assert!(answers.iter().all(Result::is_ok), "answers like any other");
    let now = Timestamp::UNIX_EPOCH;
    let pacer = routes.status(now)[0].pacer;
    assert!((pacer.requests_per_second - 4.0).abs() < 1e-9, "{pacer:?}");
    assert!((pacer.requests_per_second_max - 8.0).abs() < 1e-9);
    assert!(pacer.paused_until > Some(now), "{pacer:?}");
    assert!(metrics(&routes).contains(r#"upstream_throttles_total{service="oms"} 8"#));
    let well = Script::new([response(200, None)]);
    well.carry(&flow, Method::Get).await.unwrap();
    assert!(
        began.elapsed() > Duration::from_secs(2),
        "the wish was heeded"
    );
    assert_eq!(routes.status(now)[0].pacer.paused_until, None);
    advance(Duration::from_secs(5)).await;
    let pacer = routes.status(now)[0].pacer;
    assert!((pacer.requests_per_second - 8.0).abs() < 1e-9, "{pacer:?}");
    assert!(metrics(&routes).contains(r#"upstream_pacer_requests_per_second{service="oms"} 8"#));
}

#[tokio::test(start_paused = true)]
async fn those_who_waited_for_something_else_keep_to_the_pace_and_hold_nothing_meanwhile() {
    let pace = Pace {
        requests_per_second: 20,
        burst: 1,
    };
    let (routes, flow) = at(pace);
    let script = Script::new([response(200, None)]).lacking(Duration::from_secs(4));
    let reads = join_all((0..100).map(|_| script.carry(&flow, Method::Get))).await;
    assert!(
        reads.iter().all(Result::is_ok),
        "the wait is not the pace's"
    );
    let seen = script.seen();
    for (number, (at, _)) in (0..).zip(&seen) {
        let due = Duration::from_millis(4_000 + 50 * number);
        assert!(at.abs_diff(due) <= Duration::from_millis(2), "{seen:?}");
    }
    assert_eq!(script.holders_most.get(), 1);
    assert!(metrics(&routes).contains(r#"upstream_pacer_waiting{service="oms"} 0"#));
}

#[tokio::test(start_paused = true)]
async fn a_change_that_waited_too_long_for_something_else_is_not_begun() {
    let pace = Pace {
        requests_per_second: 1,
        burst: 1,
    };
    let (_, flow) = at(pace);
    let script = Script::new([response(200, None)]).lacking(Duration::from_secs(3));
    let by = Instant::now() + Duration::from_secs(2);
    let late = script.carry_by(&flow, Method::Post, Some(by)).await;
    let error = late.unwrap_err();
    assert_eq!(
        (error.kind, error.sent),
        (UpstreamErrorKind::Unavailable, Sent::No)
    );
    assert_eq!(script.count(), 0);
    let at_once = Instant::now();
    script
        .carry_by(&flow, Method::Post, Some(at_once))
        .await
        .unwrap();
    assert_eq!(at_once.elapsed(), Duration::ZERO, "its turn was not lost");
}

#[tokio::test(start_paused = true)]
async fn a_read_that_was_lost_with_a_kept_connection_takes_another_turn_and_no_budget() {
    let pace = Pace {
        requests_per_second: 1,
        burst: 1,
    };
    let (routes, flow) = at(pace);
    while flow.budget.spend() == Leave::Given {}
    let stale = || fault(Fault::Stale, Sent::No);
    let script = Script::new([stale(), response(200, None)]);
    script.carry(&flow, Method::Get).await.unwrap();
    let seen = script.seen();
    assert_eq!(seen[1].0.as_secs(), 1, "{seen:?}");
    assert!(!seen[0].1.fresh_connection && seen[1].1.fresh_connection);
    let retried = r#"upstream_retries_total{service="oms",result="succeeded"} 1"#;
    assert!(metrics(&routes).contains(retried));
    // It says nothing about the endpoint.
    for _ in 0..20 {
        let script = Script::new([stale(), response(200, None)]);
        script.carry(&flow, Method::Get).await.unwrap();
    }
    let status = routes.status(Timestamp::UNIX_EPOCH);
    assert_eq!(status[0].breaker, BreakerStatus::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_was_lost_with_a_kept_connection_is_not_sent_again() {
    let (_, flow) = at(PACE);
    let script = Script::new([fault(Fault::Stale, Sent::Unknown), response(200, None)]);
    let error = script.carry(&flow, Method::Delete).await.unwrap_err();
    assert_eq!((error.sent, script.seen().len()), (Sent::Unknown, 1));
}

#[tokio::test(start_paused = true)]
async fn what_was_withdrawn_takes_another_turn_and_no_budget_a_few_times() {
    let withdrawn = || fault(Fault::Withdrawn, Sent::No);
    for method in [Method::Get, Method::Delete] {
        let (routes, flow) = at(PACE);
        while flow.budget.spend() == Leave::Given {}
        let script = Script::new([withdrawn(), withdrawn(), response(200, None)]);
        script.carry(&flow, method).await.unwrap();
        let script = Script::new([withdrawn()]);
        let error = script.carry(&flow, method).await.unwrap_err();
        assert_eq!(
            (error.kind, error.sent),
            (UpstreamErrorKind::Unavailable, Sent::No)
        );
        assert_eq!(script.seen().len(), 3);
        let status = routes.status(Timestamp::UNIX_EPOCH);
        assert_eq!(status[0].breaker, BreakerStatus::Closed);
    }
}

#[tokio::test(start_paused = true)]
async fn all_reads_of_one_request_wait_for_the_pace_ten_seconds_together() {
    let pace = Pace {
        requests_per_second: 1,
        burst: 1,
    };
    let (_, flow) = at(pace);
    let script = Script::new([response(200, None)]);
    let patience = &Patience::default();
    let call = Call {
        method: Method::Get,
        clearance: None,
        patience,
        fresh_connection: false,
    };
    script.carry(&flow, Method::Get).await.unwrap();
    for number in 1..=10 {
        flow.carry(call, &script).await.unwrap();
        let left = Duration::from_secs(10 - number);
        assert!(
            patience.left().abs_diff(left).as_millis() <= 20,
            "{patience:?}"
        );
    }
    let error = flow.carry(call, &script).await.unwrap_err();
    assert_eq!(
        (error.kind, error.answer),
        (UpstreamErrorKind::Throttled, None)
    );
    assert_eq!(script.count(), 11);
}
