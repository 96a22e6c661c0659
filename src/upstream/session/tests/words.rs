//! Tokens that a service calls dead in words of its own, which can be about the task just as well.

use super::*;

/// What OMS answers then, by its list of error codes.
fn blame(writer: &mut dyn Write) -> Then {
    let body = json!({"error_code": "OMS.0068", "error_msg": "Token authentication failed."});
    answer(writer, 400, "", &body.to_string())
}

fn token(seen: &Seen) -> &str {
    seen.header("x-auth-token").unwrap_or_default()
}

#[actix_rt::test]
async fn it_is_replaced_once_for_all_who_meet_it_and_never_sent_again() {
    let revoked = Arc::new(AtomicBool::new(false));
    let is_revoked = Arc::clone(&revoked);
    let bench = Bench::new(move |seen, writer| {
        if is_revoked.load(Ordering::SeqCst) && token(seen) == "token-0" {
            return blame(writer);
        }
        fine(seen, writer)
    });
    let (session, read, change) = (bench.session(), read(), change());
    session.exchange("show", &read, None).await.unwrap();
    revoked.store(true, Ordering::SeqCst);
    let reads = join_all((0..20).map(|_| session.exchange("show", &read, None)));
    let changes = join_all((0..5).map(|_| session.exchange("pause", &change, None)));
    let (reads, changes) = tokio::join!(reads, changes);
    for result in reads.into_iter().chain(changes) {
        assert_eq!(result.unwrap().status, 200);
    }
    assert_eq!(bench.cloud.logins(), 2);
    let before = bench.requests();
    session.exchange("show", &read, None).await.unwrap();
    assert_eq!(bench.requests(), before + 1);
    assert_ne!(token(bench.cloud.peer.seen().last().unwrap()), "token-0");
}

#[actix_rt::test]
async fn a_task_that_is_answered_so_costs_few_logins_and_nobody_else_anything() {
    let bench = Bench::new(|seen, writer| {
        if seen.path() == "/tasks/50" {
            return blame(writer);
        }
        fine(seen, writer)
    });
    let (session, read) = (bench.session(), read());
    let blamed = Request {
        path: "/tasks/50".to_owned(),
        ..read.clone()
    };
    let mut logins = Vec::new();
    for _ in 0..60 {
        for _ in 0..3 {
            let response = session.exchange("show", &blamed, None).await.unwrap();
            assert_eq!(response.status, 400, "what the service says is passed on");
            let response = session.exchange("show", &read, None).await.unwrap();
            assert_eq!(response.status, 200);
        }
        logins.push(bench.cloud.logins());
        bench.cloud.clock.forward(60);
    }
    // One for the first request, one at once, and then after 1, 2, 4, 8, 16 and 30 minutes.
    assert_eq!((logins[0], logins[1], logins[2]), (2, 3, 3), "{logins:?}");
    assert_eq!(logins[59], 7, "{logins:?}");
}

#[actix_rt::test]
async fn it_serves_on_while_there_is_no_other_one() {
    let bench = Bench::new(|seen, writer| {
        if seen.path() == "/tasks/1" {
            return blame(writer);
        }
        fine(seen, writer)
    });
    let (session, blamed, other) = (bench.session(), read(), change());
    session.exchange("pause", &other, None).await.unwrap();
    bench
        .cloud
        .answer_login(|_, writer| answer(writer, 503, "", "{}"));
    let response = session.exchange("show", &blamed, None).await.unwrap();
    assert_eq!(response.status, 400);
    for _ in 0..5 {
        session.exchange("pause", &other, None).await.unwrap();
        session.exchange("show", &blamed, None).await.unwrap();
    }
    assert_eq!(bench.cloud.logins(), 2, "a failure is remembered");
}
