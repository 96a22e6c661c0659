//! When an endpoint is left alone.

use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::time::{Instant, advance};

use super::{PACE, Script, TIME, at, endpoint, metrics, oms, response};
use crate::{
    domain::service::{ProjectName, Sent, UpstreamErrorKind, status::BreakerStatus},
    transport::{Endpoint, Method},
    upstream::flow::{Lane, Pace, Routes},
};

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
