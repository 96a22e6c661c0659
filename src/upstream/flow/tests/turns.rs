//! The waiting for a turn.

use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::time::{Instant, advance};

use super::{Script, at, metrics, response};
use crate::{
    domain::service::{Patience, Sent, UpstreamErrorKind},
    transport::Method,
    upstream::flow::{Call, Pace},
};

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
