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

fn list() -> Request {
    Request {
        path: "/tasks?limit=1".to_owned(),
        ..read()
    }
}

impl Bench {
    fn checking_session(&self) -> Session {
        self.session().checking_by(list())
    }

    fn checks(&self) -> usize {
        let seen = self.cloud.peer.seen();
        seen.iter()
            .filter(|seen| seen.path().contains("limit"))
            .count()
    }
}

/// A service that takes no token whose number is smaller than this.
fn revoking(from: &Arc<AtomicUsize>) -> Bench {
    let from = Arc::clone(from);
    Bench::new(move |seen, writer| {
        let number = token(seen).trim_start_matches("token-").parse::<usize>();
        if number.unwrap() < from.load(Ordering::SeqCst) {
            return blame(writer);
        }
        fine(seen, writer)
    })
}

#[actix_rt::test]
async fn a_dead_one_is_replaced_once_for_all_who_meet_it_and_never_sent_again() {
    let from = Arc::default();
    let bench = revoking(&from);
    let (session, read, change) = (bench.checking_session(), read(), change());
    session.exchange("show", &read, None).await.unwrap();
    // Twice on end.
    for logins in [2, 3] {
        from.store(bench.cloud.peer.seen().len(), Ordering::SeqCst);
        let checks = bench.checks();
        let reads = join_all((0..20).map(|_| session.exchange("show", &read, None)));
        let changes = join_all((0..5).map(|_| session.exchange("pause", &change, None)));
        let (reads, changes) = tokio::join!(reads, changes);
        for result in reads.into_iter().chain(changes) {
            assert_eq!(result.unwrap().status, 200);
        }
        assert_eq!(bench.cloud.logins(), logins);
        assert!(bench.checks() <= checks + 2, "{}", bench.checks() - checks);
        let before = bench.requests();
        session.exchange("show", &read, None).await.unwrap();
        assert_eq!(bench.requests(), before + 1, "it is known to be dead");
    }
}

#[actix_rt::test]
async fn a_task_that_is_answered_so_costs_no_login_and_nobody_else_anything() {
    let bench = Bench::new(|seen, writer| {
        if seen.path() == "/tasks/1" {
            return blame(writer);
        }
        fine(seen, writer)
    });
    let (session, blamed, other) = (bench.checking_session(), read(), change());
    for _ in 0..10 {
        let response = session.exchange("show", &blamed, None).await.unwrap();
        assert_eq!(response.status, 400, "what the service says is passed on");
        let response = session.exchange("pause", &other, None).await.unwrap();
        assert_eq!(response.status, 200);
    }
    assert_eq!((bench.cloud.logins(), bench.checks()), (1, 10));
}

#[actix_rt::test]
async fn while_nobody_logs_in_a_dead_one_is_no_refusal_of_the_task() {
    let from = Arc::default();
    let bench = revoking(&from);
    let (session, read) = (bench.checking_session(), read());
    session.exchange("show", &read, None).await.unwrap();
    from.store(usize::MAX, Ordering::SeqCst);
    bench
        .cloud
        .answer_login(|_, writer| answer(writer, 503, "", "{}"));
    for _ in 0..3 {
        let error = session.exchange("show", &read, None).await.unwrap_err();
        assert_eq!(error.kind, UpstreamErrorKind::Unavailable);
    }
    // The request, and the check.
    assert_eq!((bench.cloud.logins(), bench.requests()), (2, 3));
}

#[actix_rt::test]
async fn a_service_that_does_not_say_is_not_believed() {
    let bench = Bench::new(|seen, writer| {
        if seen.path() == "/tasks/1" {
            return blame(writer);
        }
        answer(writer, 503, "", "{}")
    });
    let session = bench.checking_session();
    let blamed = Request {
        path: "/tasks/1".to_owned(),
        ..change()
    };
    for (request, sent) in [(read(), Sent::No), (blamed, Sent::Unknown)] {
        let error = session.exchange("x", &request, None).await.unwrap_err();
        assert_eq!(
            (error.kind, error.sent),
            (UpstreamErrorKind::Unavailable, sent)
        );
    }
    assert_eq!(bench.cloud.logins(), 1);
}
