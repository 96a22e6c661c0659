//! Tokens that a service refuses.

use super::*;

#[actix_rt::test]
async fn a_revoked_token_is_replaced_and_the_request_sent_once_more() {
    for code in ["APIG.0301", "APIGW.0305", "APIGW.0307"] {
        let bench = Bench::new(move |seen, writer| {
            let revoked = seen.header("x-auth-token") == Some("token-0") && seen.number > 1;
            if revoked {
                refuse(writer, code)
            } else {
                fine(seen, writer)
            }
        });
        let session = bench.session();
        session.exchange("show", &read(), None).await.unwrap();
        let response = session.exchange("pause", &change(), None).await.unwrap();
        assert_eq!(response.status, 200);
        assert_eq!((bench.cloud.logins(), bench.requests()), (2, 3), "{code}");
        assert_eq!(bench.cloud.peer.seen()[4].body, r#"{"operation":"stop"}"#);
    }
}

#[actix_rt::test]
async fn many_who_hold_a_revoked_token_cause_one_login() {
    let revoked = Arc::new(AtomicBool::new(false));
    let is_revoked = Arc::clone(&revoked);
    let bench = Bench::new(move |seen, writer| {
        let old = seen.header("x-auth-token") == Some("token-0");
        if old && is_revoked.load(Ordering::SeqCst) {
            refuse(writer, "APIGW.0307")
        } else {
            fine(seen, writer)
        }
    });
    let session = bench.session();
    session.exchange("show", &read(), None).await.unwrap();
    revoked.store(true, Ordering::SeqCst);
    let request = read();
    let results = join_all((0..40).map(|_| session.exchange("show", &request, None))).await;
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(bench.cloud.logins(), 2);
}

#[actix_rt::test]
async fn a_token_that_is_revoked_before_its_first_use_is_replaced_too() {
    let bench = Bench::new(|seen, writer| match seen.header("x-auth-token") {
        Some("token-0") => refuse(writer, "APIGW.0307"),
        _ => fine(seen, writer),
    });
    let response = bench
        .session()
        .exchange("pause", &change(), None)
        .await
        .unwrap();
    assert_eq!(response.status, 200);
    assert_eq!((bench.cloud.logins(), bench.requests()), (2, 2));
}

/// Tokens that the vendor revokes as they come: how many more, and those that are.
#[derive(Clone, Default)]
struct Revoked(Arc<Mutex<(usize, BTreeSet<String>)>>);

impl Revoked {
    fn answer(&self, seen: &Seen, writer: &mut dyn Write) -> Then {
        let token = seen.header("x-auth-token").unwrap_or_default();
        let (more, revoked) = &mut *self.0.lock().unwrap();
        if *more > 0 && revoked.insert(token.to_owned()) {
            *more -= 1;
        }
        if revoked.contains(token) {
            refuse(writer, "APIGW.0307")
        } else {
            fine(seen, writer)
        }
    }

    fn revoke(&self, more: usize) {
        self.0.lock().unwrap().0 = more;
    }

    /// A bench of which the service takes all other tokens.
    fn bench(&self) -> Bench {
        let revoked = self.clone();
        Bench::new(move |seen, writer| revoked.answer(seen, writer))
    }
}

#[actix_rt::test]
async fn tokens_that_are_revoked_one_after_the_other_are_replaced_after_growing_waits() {
    let revoked = Revoked::default();
    let bench = revoked.bench();
    let session = bench.session();
    session.exchange("show", &read(), None).await.unwrap();
    revoked.revoke(4);
    let request = change();
    let failed = session.exchange("pause", &request, None).await.unwrap_err();
    let kind = (failed.kind, failed.sent);
    assert_eq!(kind, (UpstreamErrorKind::Unavailable, Sent::No));
    assert!(failed.retry_after.unwrap() <= Duration::from_secs(1));
    let all = async || join_all((0..30).map(|_| session.exchange("show", &request, None))).await;
    assert!(all().await.iter().all(Result::is_err));
    assert_eq!((bench.cloud.logins(), bench.requests()), (3, 4));
    // One of many finds out that the token was not merely unknown yet, and then that the next one
    // is dead too.
    let mut asked = Vec::new();
    for _ in 0..15 {
        bench.cloud.clock.forward(1);
        let are_well = all().await.iter().all(Result::is_ok);
        asked.push((bench.cloud.logins(), bench.requests()));
        if are_well {
            break;
        }
    }
    asked.dedup();
    assert_eq!(asked[..3], [(3, 5), (4, 6), (4, 7)]);
    // How many of the others come after the one that was let in, nobody can tell.
    assert_eq!(asked[3].0, 5);
    let is_dead = |token: &str| revoked.0.lock().unwrap().1.contains(token);
    let seen = bench.cloud.peer.seen();
    let tokens = seen.iter().filter_map(|seen| seen.header("x-auth-token"));
    // The first one was sent once before its end, and the last two were asked for again.
    assert_eq!(tokens.filter(|token| is_dead(token)).count(), 7);
}

#[actix_rt::test]
async fn a_service_that_accepts_no_token_any_more_causes_some_logins_and_then_hardly_any() {
    let revoked = Revoked::default();
    let bench = revoked.bench();
    let session = bench.session();
    session.exchange("show", &read(), None).await.unwrap();
    revoked.revoke(100);
    let mut kinds = Vec::new();
    for _ in 0..14 * 60 {
        let error = session.exchange("show", &read(), None).await.unwrap_err();
        kinds.push(error.kind.as_str());
        bench.cloud.clock.forward(1);
    }
    let [passing, lasting] = ["unavailable", "credentials-refused"];
    let changed = kinds.iter().position(|kind| *kind == lasting).unwrap();
    assert!((20..=62).contains(&changed), "{changed}");
    assert!(kinds[..changed].iter().all(|kind| *kind == passing));
    assert!(kinds[changed..].iter().all(|kind| *kind == lasting));
    assert_eq!(bench.cloud.logins(), 6);
}

#[actix_rt::test]
async fn a_token_that_a_service_does_not_know_yet_is_shown_to_it_again_before_another_login() {
    let knows = Arc::new(AtomicBool::new(true));
    let known = Arc::clone(&knows);
    let bench = Bench::new(move |seen, writer| {
        if known.load(Ordering::SeqCst) {
            return fine(seen, writer);
        }
        refuse(writer, "APIGW.0307")
    });
    let session = bench.session();
    session.exchange("show", &read(), None).await.unwrap();
    knows.store(false, Ordering::SeqCst);
    session.exchange("show", &read(), None).await.unwrap_err();
    knows.store(true, Ordering::SeqCst);
    assert_eq!(bench.cloud.logins(), 3);
    bench.cloud.clock.forward(1);
    session.exchange("show", &read(), None).await.unwrap();
    assert_eq!(bench.cloud.logins(), 3);
}

#[actix_rt::test]
async fn one_request_tries_a_service_that_was_left_alone_before_the_others() {
    let bench = Bench::new(|_, writer| refuse(writer, "APIGW.0307"));
    let session = bench.session();
    let request = read();
    for before in [2, 3, 4] {
        let results = join_all((0..30).map(|_| session.exchange("show", &request, None))).await;
        assert!(results.iter().all(Result::is_err));
        assert!(before > 2 || bench.requests() >= 2);
        let now = bench.requests();
        bench.cloud.clock.forward(60);
        _ = join_all((0..30).map(|_| session.exchange("show", &request, None))).await;
        assert_eq!(bench.requests(), now + 1);
        bench.cloud.clock.forward(60);
    }
    assert_eq!(bench.cloud.logins(), 2);
}

#[actix_rt::test]
async fn another_secret_is_used_at_once_by_a_service_that_was_left_alone() {
    let revoked = Revoked::default();
    let bench = revoked.bench();
    let session = bench.session();
    session.exchange("show", &read(), None).await.unwrap();
    revoked.revoke(4);
    for _ in 0..20 {
        session.exchange("show", &read(), None).await.unwrap_err();
        if bench.cloud.logins() == 4 {
            break;
        }
        bench.cloud.clock.forward(1);
    }
    assert_eq!(bench.cloud.logins(), 4);
    session.exchange("show", &read(), None).await.unwrap_err();
    fs::write(bench.cloud.password.path(), "another-word").unwrap();
    bench.credentials.look_at_secrets();
    tests::until(async || session.exchange("show", &read(), None).await.is_ok()).await;
    assert_eq!(bench.cloud.logins(), 5);
}

#[actix_rt::test]
async fn a_service_that_refuses_every_token_causes_one_login_and_is_left_alone_for_a_while() {
    let bench = Bench::new(|_, writer| refuse(writer, "APIGW.0307"));
    let session = bench.session();
    for _ in 0..5 {
        let error = session
            .exchange("pause", &change(), None)
            .await
            .unwrap_err();
        assert_eq!(error.kind.as_str(), "credentials-refused");
        assert_eq!(error.sent, Sent::No);
        assert!(error.detail.contains("another region"), "{}", error.detail);
        let answer = error.answer.as_ref().unwrap();
        assert_eq!((answer.service.as_str(), answer.status), ("oms", 401));
        assert_eq!(answer.error_code.as_deref(), Some("APIGW.0307"));
        assert_eq!(
            (answer.error_msg.as_ref(), answer.request_id.as_deref()),
            (None, Some("r-9"))
        );
    }
    assert_eq!((bench.cloud.logins(), bench.requests()), (2, 2));
    bench.cloud.clock.forward(2);
    let error = session.exchange("show", &read(), None).await.unwrap_err();
    assert_eq!(error.sent, Sent::No);
    assert_eq!((bench.cloud.logins(), bench.requests()), (2, 3));
    // The wait has grown.
    bench.cloud.clock.forward(1);
    session.exchange("show", &read(), None).await.unwrap_err();
    assert_eq!((bench.cloud.logins(), bench.requests()), (2, 3));
}

#[actix_rt::test]
async fn a_wrong_region_causes_one_login_in_a_quarter_of_an_hour_at_most() {
    let bench = Bench::new(fine);
    let elsewhere = peer::Peer::start(|_, writer| refuse(writer, "APIGW.0307"));
    let right = bench.session();
    let wrong = bench.session_at("sms", elsewhere.endpoint());
    let minutes = async |minutes: usize| {
        for _ in 0..minutes * 2 {
            right.exchange("show", &read(), None).await.unwrap();
            let error = wrong.exchange("show", &read(), None).await.unwrap_err();
            assert_eq!(error.kind.as_str(), "credentials-refused");
            bench.cloud.clock.forward(30);
        }
    };
    minutes(14).await;
    assert_eq!(bench.cloud.logins(), 2);
    assert!(elsewhere.seen().len() > 20, "it is tried again");
    minutes(30).await;
    assert!(
        (3..=4).contains(&bench.cloud.logins()),
        "{}",
        bench.cloud.logins()
    );
}

#[actix_rt::test]
async fn two_services_of_a_wrong_region_cause_one_login_together() {
    let bench = Bench::new(|_, writer| refuse(writer, "APIGW.0307"));
    let endpoint = bench.cloud.peer.endpoint();
    let (oms, sms) = (bench.session(), bench.session_at("sms", endpoint));
    for _ in 0..10 {
        for session in [&oms, &sms] {
            let error = session.exchange("show", &read(), None).await.unwrap_err();
            assert_eq!(error.kind.as_str(), "credentials-refused");
        }
        bench.cloud.clock.forward(30);
    }
    assert_eq!(bench.cloud.logins(), 2);
    assert!(bench.requests() > 10, "{}", bench.requests());
}

#[actix_rt::test]
async fn a_service_that_accepts_tokens_again_is_used_again_without_a_login() {
    let refuses = Arc::new(AtomicBool::new(true));
    let is_refused = Arc::clone(&refuses);
    let bench = Bench::new(move |seen, writer| {
        if is_refused.load(Ordering::SeqCst) {
            return refuse(writer, "APIG.0301");
        }
        fine(seen, writer)
    });
    let session = bench.session();
    session.exchange("show", &read(), None).await.unwrap_err();
    refuses.store(false, Ordering::SeqCst);
    session.exchange("show", &read(), None).await.unwrap_err();
    bench.cloud.clock.forward(1);
    session.exchange("show", &read(), None).await.unwrap();
    assert_eq!(bench.cloud.logins(), 2);
    // All is forgotten: the next dead tokens are replaced at once, two of them since one was
    // accepted.
    refuses.store(true, Ordering::SeqCst);
    session.exchange("show", &read(), None).await.unwrap_err();
    assert_eq!(bench.cloud.logins(), 4);
}

#[actix_rt::test]
async fn many_uses_of_dead_tokens_are_remembered_as_one_failure() {
    let bench = Bench::new(|_, writer| refuse(writer, "APIG.0301"));
    let session = bench.session();
    let request = read();
    let results = join_all((0..30).map(|_| session.exchange("show", &request, None))).await;
    assert!(results.iter().all(Result::is_err));
    assert_eq!(bench.cloud.logins(), 2);
    let before = bench.requests();
    bench.cloud.clock.forward(1);
    session.exchange("show", &request, None).await.unwrap_err();
    assert_eq!(
        bench.requests(),
        before + 1,
        "one failure is remembered for a second"
    );
    assert_eq!(bench.cloud.logins(), 2);
}

#[actix_rt::test]
async fn a_replacement_that_is_refused_too_ends_the_exchange() {
    let answers = AtomicUsize::new(0);
    let bench = Bench::new(move |seen, writer| {
        if answers.fetch_add(1, Ordering::SeqCst) == 0 {
            return fine(seen, writer);
        }
        refuse(writer, "APIGW.0307")
    });
    let session = bench.session();
    session.exchange("show", &read(), None).await.unwrap();
    let error = session.exchange("show", &read(), None).await.unwrap_err();
    assert_eq!(error.kind, UpstreamErrorKind::Unavailable);
    assert_eq!((bench.cloud.logins(), bench.requests()), (3, 4));
}

#[actix_rt::test]
async fn a_replacement_that_is_refused_by_chance_is_replaced_once_more() {
    let revoked = Revoked::default();
    let bench = revoked.bench();
    let session = bench.session();
    session.exchange("show", &read(), None).await.unwrap();
    revoked.revoke(2);
    session.exchange("show", &read(), None).await.unwrap();
    assert_eq!((bench.cloud.logins(), bench.requests()), (3, 4));
}

#[actix_rt::test]
async fn a_service_of_another_region_does_not_stop_the_others() {
    let bench = Bench::new(fine);
    let elsewhere = peer::Peer::start(|_, writer| refuse(writer, "APIGW.0307"));
    let (oms, sms) = (
        bench.session(),
        bench.session_at("sms", elsewhere.endpoint()),
    );
    for _ in 0..10 {
        oms.exchange("show", &read(), None).await.unwrap();
        let error = sms.exchange("show", &read(), None).await.unwrap_err();
        assert_eq!(error.kind.as_str(), "credentials-refused");
    }
    assert_eq!(elsewhere.seen().len(), 2);
    assert!(bench.cloud.logins() <= 3, "{}", bench.cloud.logins());
}

#[actix_rt::test]
async fn other_refusals_are_answers_and_cause_no_login() {
    let body = |code: &str| json!({"error_code": code, "error_msg": "x"}).to_string();
    for (status, body) in [
        (401, body("SMS.2005")),
        (401, body("APIG.0303")),
        (401, body("XAPIG.0301")),
        (401, "<html>APIG.0301</html>".to_owned()),
        (401, String::new()),
        (403, body("APIGW.0301")),
        (400, body("OMS.1009")),
        (500, body("APIG.0601")),
    ] {
        let answered = body.clone();
        let bench = Bench::new(move |_, writer| answer(writer, status, "", &answered));
        for _ in 0..2 {
            let response = bench
                .session()
                .exchange("pause", &change(), None)
                .await
                .unwrap();
            assert_eq!(
                (response.status, &response.body[..]),
                (status, body.as_bytes())
            );
        }
        assert_eq!((bench.cloud.logins(), bench.requests()), (1, 2));
    }
}
