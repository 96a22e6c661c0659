//! Requests with tokens, against a cloud on a loopback socket.

mod doubled;

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde_json::json;

use super::Session;
use crate::{
    domain::{
        clock::Clock as _,
        secret::SecretSource,
        service::{Clearance, HeldLease, Sent, ServiceName, UpstreamErrorKind},
    },
    transport::{
        Endpoint, Method, Request, Transport, TransportErrorKind,
        tests::peer::{self, Seen, Then, answer},
    },
    upstream::{
        AccessKeySource, CredentialSettings, Pace,
        echo::Names,
        flow::{self, tests::PACE},
        iam::{
            Credentials,
            tests::{self, Cloud, PROJECT_ID, endpoint, lease, project},
        },
        metrics::Metrics,
    },
};

struct Bench {
    cloud: Cloud,
    credentials: Credentials,
    transport: Rc<Transport>,
    metrics: Metrics,
    pace: Pace,
}

impl Bench {
    fn new(script: impl Fn(&Seen, &mut dyn Write) -> Then + Send + Sync + 'static) -> Self {
        let cloud = Cloud::start(script);
        Self {
            credentials: cloud.credentials(&["p"]),
            transport: Rc::new(Transport::new(&peer::settings()).unwrap()),
            metrics: Metrics::default(),
            pace: PACE,
            cloud,
        }
    }

    fn session_at(&self, service: &str, endpoint: Endpoint) -> Session {
        let service = ServiceName::parse(service).unwrap();
        let (transport, credentials) = (Rc::clone(&self.transport), self.credentials.clone());
        let flow = flow::tests::flow(&service, endpoint.clone(), self.pace);
        Session::new(
            transport,
            credentials,
            project(),
            service,
            endpoint,
            Names::new(["acme", "svc-migrate"]),
            flow,
            self.metrics.clone(),
        )
    }

    fn session(&self) -> Session {
        self.session_at("oms", self.cloud.peer.endpoint())
    }

    fn requests(&self) -> usize {
        self.cloud.peer.seen().len() - self.cloud.logins()
    }
}

/// A bench at which requests are signed, by the keys `AK` and `SK` with these numbers.
struct SignedBench {
    bench: Bench,
    access_key: tempfile::NamedTempFile,
    secret_key: tempfile::NamedTempFile,
}

impl SignedBench {
    fn new(script: impl Fn(&Seen, &mut dyn Write) -> Then + Send + Sync + 'static) -> Self {
        let file = || tempfile::NamedTempFile::new().unwrap();
        let (access_key, secret_key) = (file(), file());
        let mut bench = Bench::new(script);
        let mut settings = bench.cloud.settings(&["p"]);
        let of = |file: &tempfile::NamedTempFile| SecretSource::File(file.path().to_owned());
        settings.projects.get_mut(&project()).unwrap().credentials =
            CredentialSettings::AccessKey {
                access_key: AccessKeySource::Kept(of(&access_key)),
                secret_key: of(&secret_key),
            };
        bench.credentials = tests::start(&settings, bench.cloud.clock.clone()).unwrap();
        let signed = Self {
            bench,
            access_key,
            secret_key,
        };
        signed.write(1);
        signed
    }

    fn write(&self, number: usize) {
        fs::write(self.access_key.path(), format!("AK-{number}")).unwrap();
        fs::write(self.secret_key.path(), format!("hidden-secret-{number}")).unwrap();
    }

    /// The numbers of the keys with which requests were signed.
    fn seen(&self) -> Vec<String> {
        let key = |seen: &Seen| {
            let (_, rest) = seen.header("authorization")?.split_once("Access=AK-")?;
            Some(rest.split(',').next()?.to_owned())
        };
        let seen = self.bench.cloud.peer.seen();
        seen.iter().map(|seen| key(seen).unwrap()).collect()
    }
}

fn signed_by(seen: &Seen, number: usize) -> bool {
    let header = seen.header("authorization").unwrap_or_default();
    header.contains(&format!("Access=AK-{number},"))
}

fn read() -> Request {
    Request {
        method: Method::Get,
        path: "/tasks/1".to_owned(),
        body: None,
    }
}

fn change() -> Request {
    let body = Some(json!({"operation": "stop"}));
    Request {
        method: Method::Post,
        path: "/tasks/1/action".to_owned(),
        body,
    }
}

fn fine(_: &Seen, writer: &mut dyn Write) -> Then {
    answer(writer, 200, "", "{}")
}

fn refuse(writer: &mut dyn Write, code: &str) -> Then {
    let body = json!({"error_code": code, "error_msg": "names a user", "request_id": "x"});
    answer(writer, 401, "X-Request-Id: r-9\r\n", &body.to_string())
}

#[actix_rt::test]
async fn an_exchange_carries_the_token_and_is_counted() {
    let bench = Bench::new(fine);
    let session = bench.session();
    session.exchange("show", &read(), None).await.unwrap();
    session.exchange("pause", &change(), None).await.unwrap();
    assert_eq!((bench.cloud.logins(), bench.requests()), (1, 2));
    assert_eq!(
        bench.cloud.peer.seen()[1].header("x-auth-token"),
        Some("token-0")
    );
    let mut registry = Registry::default();
    bench.metrics.register(&mut registry);
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    assert!(
        text.contains(r#"{service="oms",operation="pause",outcome="ok"} 1"#),
        "{text}"
    );
}

#[actix_rt::test]
async fn an_answer_repeats_neither_secrets_nor_in_its_id_a_name() {
    for status in [200, 400] {
        let bench = Bench::new(move |seen, writer| {
            let token = seen.header("x-auth-token").unwrap_or_default();
            let told = json!({"name": token, "text": "s3cret-word"}).to_string();
            answer(writer, status, "X-Request-Id: svc-migrate@7\r\n", &told)
        });
        let response = bench
            .session()
            .exchange("show", &read(), None)
            .await
            .unwrap();
        let body: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
        assert_eq!(body, json!({"name": "***", "text": "***"}));
        assert_eq!(response.request_id.as_deref(), Some("***@7"));
    }
}

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
        let sending = super::Sending {
            session: &session,
            request: &request,
            clearance: None,
            tried: super::Cell::new(None),
        };
        let place = bench.transport.place_now(request.method).unwrap();
        let means = (lease, place);
        let attempt = crate::upstream::flow::Exchange::send(
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

#[actix_rt::test]
async fn keys_that_are_accepted_by_refusals_only_are_used_by_many_at_once() {
    let body = |code: &str| json!({"error_code": code, "error_msg": "x"}).to_string();
    for (status, body, is_accepted) in [
        (403, body("OMS.0206"), true),
        (401, body("OMS.2005"), true),
        (403, body("APIGW.0302"), true),
        (403, body("APIG.0802"), true),
        (403, body("APIGW.0306"), false),
        (403, body("SMS.9004"), false),
        (403, String::new(), false),
        (401, body("APIGW.0303"), false),
        (429, body("OMS.0001"), false),
    ] {
        let answered = body.clone();
        let signed = SignedBench::new(move |_, writer| answer(writer, status, "", &answered));
        let session = signed.bench.session();
        session.exchange("show", &read(), None).await.unwrap();
        let lease = async || {
            signed
                .bench
                .credentials
                .lease_now(&project(), &endpoint())
                .await
        };
        let both = (lease().await, lease().await);
        assert!(both.0.is_some(), "{status} {body}");
        assert_eq!(both.1.is_some(), is_accepted, "{status} {body}");
    }
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
    // One of many finds out that the next one is dead too.
    bench.cloud.clock.forward(1);
    assert!(all().await.iter().all(Result::is_err));
    assert_eq!((bench.cloud.logins(), bench.requests()), (4, 5));
    bench.cloud.clock.forward(1);
    assert!(all().await.iter().all(Result::is_err));
    assert_eq!((bench.cloud.logins(), bench.requests()), (4, 5));
    bench.cloud.clock.forward(1);
    let results = all().await;
    assert!(results.iter().any(Result::is_ok));
    assert!(all().await.iter().all(Result::is_ok));
    assert_eq!(bench.cloud.logins(), 5);
    let is_dead = |token: &str| revoked.0.lock().unwrap().1.contains(token);
    let seen = bench.cloud.peer.seen();
    let tokens = seen.iter().filter_map(|seen| seen.header("x-auth-token"));
    // Each is sent once after its end, and the first one was before that.
    assert_eq!(tokens.filter(|token| is_dead(token)).count(), 5);
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
    assert!((20..60).contains(&changed), "{changed}");
    assert!(kinds[..changed].iter().all(|kind| *kind == passing));
    assert!(kinds[changed..].iter().all(|kind| *kind == lasting));
    assert_eq!(bench.cloud.logins(), 8);
}

#[actix_rt::test]
async fn one_request_tries_a_service_that_was_left_alone_before_the_others() {
    let bench = Bench::new(|_, writer| refuse(writer, "APIGW.0307"));
    let session = bench.session();
    let request = read();
    for before in [2, 3, 4] {
        let results = join_all((0..30).map(|_| session.exchange("show", &request, None))).await;
        assert!(results.iter().all(Result::is_err));
        assert!(before > 2 || bench.requests() > 2);
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
    // All is forgotten: the next dead tokens are replaced at once, two of them since one was accepted.
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

#[actix_rt::test]
async fn a_failed_exchange_says_whether_the_request_may_have_arrived() {
    for (text, kind) in [
        ("", UpstreamErrorKind::Unavailable),
        (
            "HTTP/1.1 200 X\r\ncontent-length: 9\r\n\r\n{",
            UpstreamErrorKind::Malformed,
        ),
        (
            "HTTP/1.1 100 Continue\r\n\r\n",
            UpstreamErrorKind::Malformed,
        ),
    ] {
        let bench = Bench::new(move |_, writer| {
            peer::write(writer, text);
            Then::Close
        });
        let session = bench.session();
        let failed = session.exchange("show", &read(), None).await.unwrap_err();
        assert_eq!((failed.kind, failed.sent), (kind, Sent::No));
        let failed = session
            .exchange("pause", &change(), None)
            .await
            .unwrap_err();
        assert_eq!((failed.kind, failed.sent), (kind, Sent::Unknown));
        // The read was sent again, the change was not.
        assert_eq!((bench.cloud.logins(), bench.requests()), (1, 4));
    }
}

#[actix_rt::test]
async fn an_answer_repeats_neither_the_credential_before_nor_the_one_that_came_meanwhile() {
    let bench = Bench::new(|seen, writer| {
        if seen.header("x-auth-token") == Some("token-0") {
            return refuse(writer, "APIGW.0307");
        }
        let told = json!({"old": "token-0", "now": "token-2"}).to_string();
        answer(writer, 200, "", &told)
    });
    let session = bench.session();
    let response = session.exchange("show", &read(), None).await.unwrap();
    let told = String::from_utf8(response.body.to_vec()).unwrap();
    assert!(!told.contains("token-"), "{told}");

    let signed = SignedBench::new(|_, writer| {
        let told = json!({"text": "hidden-secret-1, AK-1 and hidden-secret-2"}).to_string();
        answer(writer, 200, "", &told)
    });
    let session = signed.bench.session();
    session.exchange("show", &read(), None).await.unwrap();
    signed.write(2);
    signed.bench.credentials.look_at_secrets();
    tests::until(async || {
        let response = session.exchange("show", &read(), None).await.unwrap();
        let told = String::from_utf8(response.body.to_vec()).unwrap();
        assert!(!told.contains("hidden-secret-1"), "{told}");
        signed.seen().contains(&"2".to_owned())
    })
    .await;
}

#[actix_rt::test]
async fn a_signed_exchange_needs_neither_a_login_nor_a_token() {
    let signed = SignedBench::new(fine);
    let session = signed.bench.session();
    session.exchange("show", &read(), None).await.unwrap();
    session.exchange("pause", &change(), None).await.unwrap();
    for seen in signed.bench.cloud.peer.seen() {
        assert_eq!(seen.header("x-auth-token"), None);
        assert_eq!(seen.header("x-project-id"), Some(PROJECT_ID));
        // That of the set clock.
        assert_eq!(seen.header("x-sdk-date"), Some("20260103T090000Z"));
        assert_eq!(seen.header("x-security-token"), None);
    }
    assert_eq!(signed.seen(), ["1", "1"]);
    assert_eq!(signed.bench.cloud.logins(), 0);
}

#[actix_rt::test]
async fn a_wrong_signature_is_not_repeated_however_many_ask() {
    let signed = SignedBench::new(|_, writer| refuse(writer, "APIGW.0301"));
    let session = signed.bench.session();
    let request = read();
    let clock = &signed.bench.cloud.clock;
    for _ in 0..4 {
        let results = join_all((0..30).map(|_| session.exchange("show", &request, None))).await;
        for result in results {
            let error = result.unwrap_err();
            assert_eq!(error.kind.as_str(), "credentials-refused");
            assert!(error.detail.contains("signature"), "{}", error.detail);
        }
        assert_eq!(signed.seen(), ["1", "1"]);
        clock.forward(3 * 60);
    }
    signed.write(2);
    session.exchange("show", &request, None).await.unwrap_err();
    assert_eq!(signed.seen(), ["1", "1", "2"], "other keys are tried");
}

#[actix_rt::test]
async fn the_reason_of_a_wrong_signature_leads_to_a_hint() {
    for (reason, hint) in [
        ("calc ak sk signature fail:signature expired", "clock"),
        ("AK access failed to reach the limit,forbidden", "locked"),
        (
            "Get secretKey failed,ak:AK-1,err:ak not exist",
            "no such access key",
        ),
        ("verify aksk signature fail", "belong together"),
    ] {
        let text = format!("Incorrect IAM authentication information: {reason}");
        let body = json!({"error_code": "APIG.0301", "error_msg": text}).to_string();
        let signed = SignedBench::new(move |_, writer| answer(writer, 401, "", &body));
        let session = signed.bench.session();
        let error = session.exchange("show", &read(), None).await.unwrap_err();
        assert!(error.detail.contains(hint), "{}", error.detail);
        assert!(!format!("{error:?}").contains("AK-1"), "{error:?}");
    }
}

#[actix_rt::test]
async fn a_rotation_costs_no_request_whichever_keys_the_vendor_takes() {
    let accepted = Arc::new(AtomicUsize::new(1));
    let takes = Arc::clone(&accepted);
    let signed = SignedBench::new(move |seen, writer| {
        if signed_by(seen, takes.load(Ordering::SeqCst)) {
            fine(seen, writer)
        } else {
            refuse(writer, "APIGW.0301")
        }
    });
    let session = signed.bench.session();
    session.exchange("show", &read(), None).await.unwrap();
    // The vendor does not know the next keys yet.
    signed.write(2);
    signed.bench.credentials.look_at_secrets();
    tests::until(async || {
        session.exchange("show", &read(), None).await.unwrap();
        signed.seen().contains(&"2".to_owned())
    })
    .await;
    // It does.
    accepted.store(2, Ordering::SeqCst);
    signed.bench.cloud.clock.forward(2);
    session.exchange("show", &read(), None).await.unwrap();
    let seen = signed.seen();
    assert_eq!(seen[seen.len() - 2..], ["1", "2"], "{seen:?}");
    // And the file changes while nobody looks.
    signed.write(3);
    accepted.store(3, Ordering::SeqCst);
    session.exchange("pause", &change(), None).await.unwrap();
    let seen = signed.seen();
    assert_eq!(seen[seen.len() - 2..], ["2", "3"], "{seen:?}");
}

#[actix_rt::test]
async fn without_a_token_nothing_is_sent() {
    let bench = Bench::new(fine);
    bench
        .cloud
        .answer_login(|_, writer| answer(writer, 503, "", "{}"));
    let error = bench
        .session()
        .exchange("pause", &change(), None)
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind, error.sent),
        (UpstreamErrorKind::Unavailable, Sent::No)
    );
    assert_eq!(error.answer.unwrap().service, "iam");
    assert_eq!(bench.requests(), 0);
}

/// The moments at which requests came to a service.
#[derive(Clone, Default)]
struct Arrivals(Arc<Mutex<Vec<Instant>>>);

impl Arrivals {
    fn note(&self) {
        self.0.lock().unwrap().push(Instant::now());
    }

    /// The most within any second.
    fn busiest_second(&self) -> usize {
        let at = self.0.lock().unwrap();
        let within = |from: &Instant| {
            let range = *from..*from + Duration::from_secs(1);
            at.iter().filter(|at| range.contains(*at)).count()
        };
        at.iter().map(within).max().unwrap_or(0)
    }
}

#[actix_rt::test]
async fn a_read_that_is_sent_again_after_a_lost_connection_takes_a_turn() {
    let arrivals = Arrivals::default();
    let (noted, served) = (arrivals.clone(), Mutex::new(BTreeSet::new()));
    // The second request of each connection is read and not answered.
    let peer = peer::Peer::start(move |seen, writer| {
        noted.note();
        if served.lock().unwrap().insert(seen.connection) {
            fine(seen, writer)
        } else {
            Then::Close
        }
    });
    let mut bench = Bench::new(fine);
    bench.pace = Pace {
        requests_per_second: 20,
        burst: 1,
    };
    let (session, request) = (bench.session_at("oms", peer.endpoint()), read());
    let results = join_all((0..40).map(|_| session.exchange("show", &request, None))).await;
    assert!(results.iter().all(Result::is_ok));
    let count = peer.seen().len();
    assert!(count > 55, "{count}: hardly a connection was lost");
    let busiest = arrivals.busiest_second();
    assert!(busiest <= 22, "{busiest} requests in a second");
}

#[actix_rt::test]
async fn those_who_waited_for_a_connection_keep_to_the_pace_after_it() {
    let arrivals = Arrivals::default();
    let noted = arrivals.clone();
    let (release, is_released) = mpsc::channel::<()>();
    let is_released = Mutex::new(is_released);
    let peer = peer::Peer::start(move |seen, writer| {
        noted.note();
        // Until the other end is gone.
        _ = is_released.lock().unwrap().recv();
        fine(seen, writer)
    });
    let mut bench = Bench::new(fine);
    bench.pace = Pace {
        requests_per_second: 50,
        burst: 1,
    };
    let (session, request) = (bench.session_at("oms", peer.endpoint()), read());
    let all = join_all((0..150).map(|_| session.exchange("show", &request, None)));
    let stalled = async {
        while peer.seen().len() < 64 || flow::tests::waiting(&session.flow) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(release);
    };
    let (results, ()) = tokio::join!(all, stalled);
    assert!(results.iter().all(Result::is_ok));
    let busiest = arrivals.busiest_second();
    assert!(busiest <= 53, "{busiest} requests in a second");
}

#[actix_rt::test]
async fn those_who_try_keys_one_after_the_other_keep_to_the_pace() {
    let arrivals = Arrivals::default();
    let noted = arrivals.clone();
    let (release, is_released) = mpsc::channel::<()>();
    let is_released = Mutex::new(is_released);
    let mut signed = SignedBench::new(move |seen, writer| {
        noted.note();
        // Until the other end is gone.
        _ = is_released.lock().unwrap().recv();
        fine(seen, writer)
    });
    signed.bench.pace = Pace {
        requests_per_second: 20,
        burst: 1,
    };
    let (session, request) = (signed.bench.session(), read());
    let all = join_all((0..60).map(|_| session.exchange("show", &request, None)));
    let tried = async {
        while signed.seen().is_empty() || flow::tests::waiting(&session.flow) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(release);
    };
    let (results, ()) = tokio::join!(all, tried);
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(signed.seen().len(), 60);
    let busiest = arrivals.busiest_second();
    assert!(busiest <= 22, "{busiest} requests in a second");
}

#[actix_rt::test]
async fn a_refusal_is_noted_although_who_caused_it_has_left() {
    let (answer_one, is_answered) = mpsc::channel::<()>();
    let is_answered = Mutex::new(is_answered);
    let signed = SignedBench::new(move |_, writer| {
        // Until the test has left.
        _ = is_answered.lock().unwrap().recv();
        refuse(writer, "APIGW.0301")
    });
    let session = Rc::new(signed.bench.session());
    for round in 0..6 {
        let asking = Rc::clone(&session);
        let caller = actix_rt::spawn(async move {
            let request = read();
            asking.exchange("list", &request, None).await.is_err()
        });
        tests::until(async || signed.seen().len() > round || caller.is_finished()).await;
        caller.abort();
        _ = answer_one.send(());
    }
    assert_eq!(signed.seen().len(), 2, "more would lock the keys");
}
