//! Requests with tokens, against a cloud on a loopback socket.

mod doubled;
mod keys;
mod pace;
mod refusals;
mod rotation;
mod withdrawn;
mod words;

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
        service::{
            Clearance, HeldLease, Sent, ServiceName, UpstreamErrorKind,
            status::{CredentialKind, CredentialState},
        },
    },
    transport::{
        Endpoint, Method, Request, Transport, TransportErrorKind,
        tests::peer::{self, Seen, Then, answer},
    },
    upstream::{
        AccessKeySource, CredentialSettings, Pace,
        answer::Codes,
        echo::Names,
        flow::{self, tests::PACE},
        iam::{
            Credentials, Site,
            tests::{self, Cloud, PROJECT_ID, lease, oms, project},
        },
        metrics::Metrics,
    },
};

/// As OMS has them.
const CODES: Codes = Codes {
    prefix: "OMS.",
    gone: "OMS.1009",
    still_in_progress: &[],
    forbidden: &[],
    credentials: &["OMS.0068", "OMS.1005"],
    transient: &[],
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
        let site = Site {
            service: ServiceName::parse(service).unwrap(),
            endpoint,
        };
        let (transport, credentials) = (Rc::clone(&self.transport), self.credentials.clone());
        let flow = flow::tests::flow(&site.service, site.endpoint.clone(), self.pace);
        Session::new(
            transport,
            credentials,
            project(),
            site,
            &CODES,
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
