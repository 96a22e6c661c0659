//! Requests that are not sent, since what they rest on ended in the wait.

use std::cell::Cell;

use super::{super::sending::Sending, *};

#[actix_rt::test]
async fn a_token_that_dies_while_a_request_waits_for_its_turn_is_not_sent() {
    let revoked = Arc::new(AtomicBool::new(false));
    let is_revoked = Arc::clone(&revoked);
    let mut bench = Bench::new(move |seen, writer| {
        let old = seen.header("x-auth-token") == Some("token-0");
        if old && is_revoked.load(Ordering::SeqCst) {
            refuse(writer, "APIGW.0307")
        } else {
            fine(seen, writer)
        }
    });
    // A turn comes long after the answer before.
    bench.pace = Pace {
        requests_per_second: 4,
        burst: 1,
    };
    let session = bench.session();
    session.exchange("show", &read(), None).await.unwrap();
    revoked.store(true, Ordering::SeqCst);
    let request = read();
    let results = join_all((0..5).map(|_| session.exchange("show", &request, None))).await;
    assert!(results.iter().all(Result::is_ok));
    let seen = bench.cloud.peer.seen();
    let is_old = |seen: &&Seen| seen.header("x-auth-token") == Some("token-0");
    assert_eq!(seen.iter().filter(is_old).count(), 2);
    assert_eq!((bench.cloud.logins(), bench.requests()), (2, 7));
}

#[actix_rt::test]
async fn a_token_that_dies_while_requests_wait_for_a_connection_is_not_sent() {
    let (release, is_released) = mpsc::channel::<()>();
    let is_released = Mutex::new(is_released);
    let bench = Bench::new(move |seen, writer| {
        if seen.header("x-auth-token") != Some("token-0") {
            return fine(seen, writer);
        }
        // Until the other end is gone.
        _ = is_released.lock().unwrap().recv();
        refuse(writer, "APIGW.0307")
    });
    let (session, request) = (bench.session(), read());
    let all = join_all((0..150).map(|_| session.exchange("show", &request, None)));
    let stalled = async {
        while bench.requests() < 64 || flow::tests::waiting(&session.flow) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(release);
    };
    let (results, ()) = tokio::join!(all, stalled);
    assert!(results.iter().all(Result::is_ok));
    let seen = bench.cloud.peer.seen();
    let is_old = |seen: &&Seen| seen.header("x-auth-token") == Some("token-0");
    assert_eq!(seen.iter().filter(is_old).count(), 64);
    assert_eq!(bench.cloud.logins(), 2);
}

#[actix_rt::test]
async fn a_change_whose_lease_ends_while_a_connection_is_made_is_not_sent() {
    let bench = Bench::new(fine);
    let session = bench.session();
    session.exchange("show", &read(), None).await.unwrap();
    let sent = bench.requests();
    let now = bench.cloud.clock.uptime();
    let lease = HeldLease::new(bench.cloud.clock.clone(), now + Duration::from_secs(5));
    let clearance = Clearance {
        by: Instant::now() + Duration::from_mins(1),
        lease: lease.clone(),
    };
    let request = change();
    let attempt = session.exchange("pause", &request, Some(&clearance));
    let mut attempt = std::pin::pin!(attempt);
    // It has its turn and waits for the connection.
    for _ in 0..3 {
        assert!(futures_util::poll!(&mut attempt).is_pending());
    }
    bench.cloud.clock.forward(6);
    let error = attempt.await.unwrap_err();
    assert_eq!(error.sent, Sent::No);
    assert_eq!(bench.requests(), sent);

    lease.extend(bench.cloud.clock.uptime() + Duration::from_secs(5));
    session
        .exchange("pause", &request, Some(&clearance))
        .await
        .unwrap();
    assert_eq!(bench.requests(), sent + 1);
}

#[actix_rt::test]
async fn a_token_that_ends_while_a_connection_is_made_is_not_sent() {
    for request in [read(), change()] {
        let bench = Bench::new(fine);
        let session = bench.session();
        let lease = lease(&bench.credentials).await.unwrap();
        let sending = Sending {
            session: &session,
            request: &request,
            clearance: None,
            tried: Cell::new(None),
        };
        let place = bench.transport.place_now(request.method).unwrap();
        let means = (lease, place);
        let attempt = crate::upstream::flow::Dispatch::send(
            &sending,
            means,
            crate::transport::Limits::default(),
        );
        // The time that a connection takes.
        bench.cloud.clock.forward(24 * 3600);
        let error = attempt.await.unwrap_err();
        assert_eq!(error.kind, TransportErrorKind::Withdrawn);
        assert_eq!(error.sent, Sent::No);
        assert_eq!(bench.requests(), 0);
    }
}
