//! What is sent again, and how often.

use std::time::Duration;

use jiff::Timestamp;

use super::{PACE, Script, TIME, at, fault, metrics, response};
use crate::{
    domain::service::{Sent, UpstreamErrorKind, status::BreakerStatus},
    transport::{Method, TransportErrorKind as Fault},
    upstream::flow::{Pace, budget::Leave},
};

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
    // What a tenth of 40 requests and the reserve allow, and what came back in the pauses; the test
    // itself took some.
    let retries = faulty.count() - 20;
    assert!((5..=16).contains(&retries), "{retries}");
    let text = metrics(&routes);
    assert!(text.contains(r#"result="denied"}"#), "{text}");
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
