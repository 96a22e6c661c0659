//! Tokens from a token service on a loopback socket.

mod changes;
mod keys;
mod lifecycle;
mod nonsense;
mod races;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, future::join_all};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tempfile::NamedTempFile;
use tokio::time::timeout;

use super::{
    Credentials, CredentialsError,
    attempts::Identity,
    credential::{Credential, Parts, Proof},
    keeper::Command,
    lifetime::{Begun, Lifetime},
    login::failure,
    vault::Vault,
};
use crate::{
    domain::{
        clock::Clock,
        secret::{Secret, SecretSource},
        service::{
            ProjectName, ServiceName, UpstreamError, UpstreamErrorKind, status::CredentialKind,
        },
    },
    transport::{
        self, Endpoint, Header, Method, Request,
        tests::peer::{self, Peer, Seen, Then, answer},
    },
    upstream::{
        AccessKeySource, CredentialSettings, ProjectSettings, Settings, flow::tests::PACE,
        metrics::Metrics, secrets::Secrets,
    },
};

pub(crate) const PROJECT_ID: &str = "2c0689c860ad4728a497c91ec0844383";

/// A clock that stands until it is moved.
pub(crate) struct SetClock(AtomicI64);

impl SetClock {
    pub(crate) fn forward(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.0.load(Ordering::SeqCst)).unwrap()
    }

    fn uptime(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst).try_into().unwrap())
    }
}

pub(crate) type Script = Box<dyn Fn(&Seen, &mut dyn Write) -> Then + Send + Sync>;

/// A cloud in which everything happens at one address.
pub(crate) struct Cloud {
    pub(crate) peer: Peer,
    pub(crate) clock: Arc<SetClock>,
    pub(crate) password: NamedTempFile,
    /// How logins are answered, in turn; afterwards they succeed.
    logins: Arc<Mutex<Vec<Script>>>,
}

impl Cloud {
    /// Every request but a login is answered by the script.
    pub(crate) fn start(
        service: impl Fn(&Seen, &mut dyn Write) -> Then + Send + Sync + 'static,
    ) -> Self {
        let start: Timestamp = "2026-01-03T09:00:00Z".parse().unwrap();
        let clock = Arc::new(SetClock(AtomicI64::new(start.as_second())));
        let logins = Arc::new(Mutex::new(Vec::<Script>::new()));
        let (time, scripts) = (Arc::clone(&clock), Arc::clone(&logins));
        let peer = Peer::start(move |seen, writer| {
            if !seen.path().starts_with("/v3/auth/tokens") {
                return service(seen, writer);
            }
            let mut scripts = scripts.lock().unwrap();
            let script = (!scripts.is_empty()).then(|| scripts.remove(0));
            drop(scripts);
            match script {
                Some(script) => script(seen, writer),
                None => issue(seen, writer, time.now()),
            }
        });
        let password = NamedTempFile::new().unwrap();
        fs::write(password.path(), "s3cret-word\n").unwrap();
        Self {
            peer,
            clock,
            password,
            logins,
        }
    }

    /// A cloud of which only the token service is used.
    pub(crate) fn of_tokens() -> Self {
        Self::start(|_, _| Then::Close)
    }

    /// Lets the next login that has no answer yet be answered like this.
    pub(crate) fn answer_login(
        &self,
        script: impl Fn(&Seen, &mut dyn Write) -> Then + Send + Sync + 'static,
    ) {
        self.logins.lock().unwrap().push(Box::new(script));
    }

    pub(crate) fn settings(&self, projects: &[&str]) -> Settings {
        let project = |name: &&str| {
            let settings = ProjectSettings {
                project_id: PROJECT_ID.to_owned(),
                region: "cn-north-4".to_owned(),
                services: BTreeSet::new(),
                iam_endpoint: self.peer.endpoint().to_string(),
                endpoints: BTreeMap::new(),
                credentials: CredentialSettings::Password {
                    domain: "acme".to_owned(),
                    user: "svc-migrate".to_owned(),
                    password: SecretSource::File(self.password.path().to_owned()),
                },
            };
            (ProjectName::parse(name).unwrap(), settings)
        };
        Settings {
            freshness: Duration::from_millis(500),
            projects: projects.iter().map(project).collect(),
            storage_credentials: BTreeMap::new(),
            pace: PACE,
        }
    }

    pub(crate) fn credentials(&self, projects: &[&str]) -> Credentials {
        start(&self.settings(projects), self.clock.clone()).unwrap()
    }

    pub(crate) fn logins(&self) -> usize {
        self.peer
            .seen()
            .iter()
            .filter(|seen| seen.path().starts_with("/v3/auth/tokens"))
            .count()
    }
}

pub(crate) fn start(
    settings: &Settings,
    clock: Arc<dyn Clock>,
) -> Result<Credentials, CredentialsError> {
    start_with(settings, &peer::settings(), clock)
}

fn start_with(
    settings: &Settings,
    limits: &transport::Settings,
    clock: Arc<dyn Clock>,
) -> Result<Credentials, CredentialsError> {
    let metrics = Metrics::default();
    let with = (metrics.clone(), Secrets::new(metrics));
    Credentials::start(settings, limits, clock, with)
}

/// Issues a token, named after its number, for 24 hours.
pub(crate) fn issue(seen: &Seen, writer: &mut dyn Write, now: Timestamp) -> Then {
    let header = format!("X-Subject-Token: token-{}\r\n", seen.number);
    answer(writer, 201, &header, &document(now, 24 * 3600))
}

fn document(now: Timestamp, seconds: i64) -> String {
    let expires_at = now + SignedDuration::from_secs(seconds);
    json!({"token": {
        "methods": ["password"],
        "issued_at": now,
        "expires_at": expires_at,
        "project": {"id": PROJECT_ID, "name": "cn-north-4"},
        "catalog": [],
    }})
    .to_string()
}

pub(crate) fn wrong_password(_: &Seen, writer: &mut dyn Write) -> Then {
    let body = json!({"error": {
        "code": 401,
        "message": "The username or password is wrong.",
        "title": "Unauthorized",
    }});
    answer(writer, 401, "X-Request-Id: a-7\r\n", &body.to_string())
}

pub(crate) fn oms() -> ServiceName {
    ServiceName::parse("oms").unwrap()
}

/// What the project has for one request.
pub(crate) async fn lease(credentials: &Credentials) -> Result<super::Lease, UpstreamError> {
    credentials.lease(&project(), (&oms(), &endpoint())).await
}

/// Where leases are used.
pub(crate) fn endpoint() -> Endpoint {
    Endpoint::parse("https://oms.example").unwrap()
}

pub(crate) fn project() -> ProjectName {
    ProjectName::parse("p").unwrap()
}

/// The text of the token at hand.
async fn text(credentials: &Credentials) -> String {
    let lease = lease(credentials).await.unwrap();
    token_of(&lease)
}

fn token_of(credential: &Credential) -> String {
    let [Header { name, value }] = &shown(credential)[..] else {
        panic!("it is no token")
    };
    assert_eq!(*name, "x-auth-token");
    value.expose().to_owned()
}

/// What a request shows with this credential.
fn shown(credential: &Credential) -> Vec<Header> {
    let endpoint = Endpoint::parse("https://oms.example.com").unwrap();
    let request = Request {
        method: Method::Get,
        path: "/".to_owned(),
        body: None,
    };
    let shown = credential.authenticate(&endpoint, &request, Timestamp::UNIX_EPOCH);
    shown.headers
}

/// Waits until something holds, for 30 seconds at most.
pub(crate) async fn until<F: Future<Output = bool>>(mut holds: impl FnMut() -> F) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < Duration::from_secs(30), "it never held");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[actix_rt::test]
async fn nobody_logs_in_before_a_token_is_needed_and_then_as_the_vendor_documents() {
    let cloud = Cloud::of_tokens();
    let credentials = cloud.credentials(&["p"]);
    assert_eq!(cloud.peer.connections(), 0);
    assert_eq!(text(&credentials).await, "token-0");
    assert_eq!(text(&credentials).await, "token-0");
    let [login] = &cloud.peer.seen()[..] else {
        panic!("one login is enough")
    };
    assert!(
        login
            .head
            .starts_with("POST /v3/auth/tokens?nocatalog=true HTTP/1.1")
    );
    assert_eq!(login.header("x-auth-token"), None);
    let body: serde_json::Value = serde_json::from_str(&login.body).unwrap();
    let expected = json!({"auth": {
        "identity": {"methods": ["password"], "password": {"user": {
            "name": "svc-migrate", "password": "s3cret-word", "domain": {"name": "acme"},
        }}},
        "scope": {"project": {"id": PROJECT_ID}},
    }});
    assert_eq!(body, expected);
}

#[actix_rt::test]
async fn eighty_first_calls_are_one_login() {
    let cloud = Cloud::of_tokens();
    let credentials = cloud.credentials(&["p"]);
    let texts = join_all((0..80).map(|_| text(&credentials))).await;
    assert_eq!(texts, vec!["token-0"; 80]);
    assert_eq!(cloud.logins(), 1);
}

#[actix_rt::test]
async fn a_caller_that_leaves_neither_ends_nor_repeats_the_login() {
    let cloud = Cloud::of_tokens();
    let (release, released) = mpsc::channel::<()>();
    let (released, clock) = (Mutex::new(released), Arc::clone(&cloud.clock));
    cloud.answer_login(move |seen, writer| {
        released.lock().unwrap().recv().unwrap();
        issue(seen, writer, clock.now())
    });
    let credentials = cloud.credentials(&["p"]);
    tokio::select! {
        biased;
        _ = text(&credentials) => panic!("the login is held back"),
        () = until(async || cloud.logins() == 1) => {}
    }
    let second = text(&credentials);
    release.send(()).unwrap();
    assert_eq!(second.await, "token-0");
    assert_eq!(cloud.logins(), 1);
}

#[actix_rt::test]
async fn a_token_near_its_end_serves_while_it_is_replaced() {
    let cloud = Cloud::of_tokens();
    let credentials = cloud.credentials(&["p"]);
    assert_eq!(text(&credentials).await, "token-0");
    let (release, released) = mpsc::channel::<()>();
    let (released, clock) = (Mutex::new(released), Arc::clone(&cloud.clock));
    cloud.answer_login(move |seen, writer| {
        released.lock().unwrap().recv().unwrap();
        issue(seen, writer, clock.now())
    });
    cloud.clock.forward(24 * 3600 - 41 * 60);
    assert_eq!(text(&credentials).await, "token-0");
    assert_eq!(cloud.logins(), 1);

    cloud.clock.forward(20 * 60);
    assert_eq!(text(&credentials).await, "token-0");
    until(async || cloud.logins() == 2).await;
    cloud.clock.forward(5);
    assert_eq!(text(&credentials).await, "token-0");
    release.send(()).unwrap();
    until(async || text(&credentials).await == "token-1").await;
    assert_eq!(cloud.logins(), 2);
}

#[actix_rt::test]
async fn a_token_serves_to_its_end_when_it_cannot_be_replaced() {
    let cloud = Cloud::of_tokens();
    let credentials = cloud.credentials(&["p"]);
    text(&credentials).await;
    cloud.answer_login(|_, writer| answer(writer, 503, "", "{}"));
    cloud.clock.forward(24 * 3600 - 20 * 60);
    assert_eq!(text(&credentials).await, "token-0");
    until(async || cloud.logins() == 2).await;
    assert_eq!(text(&credentials).await, "token-0");
    // The next attempt is made after a while, and succeeds. When the failure was noted, nobody can tell.
    until(async || {
        cloud.clock.forward(1);
        text(&credentials).await != "token-0"
    })
    .await;
}

#[actix_rt::test]
async fn after_a_sleep_of_the_machine_the_old_token_is_not_used() {
    let cloud = Cloud::of_tokens();
    let credentials = cloud.credentials(&["p"]);
    assert_eq!(text(&credentials).await, "token-0");
    cloud.clock.forward(25 * 3600);
    assert_eq!(text(&credentials).await, "token-1");
}

fn lasting(serial: u64, milliseconds: u64) -> Option<Credential> {
    let whole = SignedDuration::from_secs(100);
    let age = Duration::from_millis(95_000 - milliseconds);
    let wall = Timestamp::UNIX_EPOCH;
    let at = Instant::now().checked_sub(age)?;
    Some(Credential::new(Parts {
        serial,
        project: ProjectName::parse(&format!("p{}", serial % 10)).unwrap(),
        kind: CredentialKind::Password,
        identity: Identity::of(&[]),
        trials: Arc::default(),
        proof: Proof::Token {
            text: Secret::new("t"),
            password: Secret::new("p"),
        },
        lifetime: Lifetime::of_token(Begun { at, wall }, None, wall + whole),
    }))
}

#[actix_rt::test]
async fn a_new_token_does_not_inherit_the_end_of_the_old_one() {
    let clock = Arc::new(SetClock(AtomicI64::new(0)));
    let vault = Vault::new(clock, Metrics::default());
    let (Some(old), Some(new), Some(other)) =
        (lasting(1, 200), lasting(11, 90_000), lasting(2, 300))
    else {
        return; // The machine has only just started.
    };
    vault.put(old).await;
    vault.put(new.clone()).await;
    vault.put(other.clone()).await;
    until(async || vault.cache.get(other.project()).await.is_none()).await;
    assert_eq!(
        vault.get(new.project()).await.map(|token| token.serial()),
        Some(11)
    );
}

#[actix_rt::test]
async fn a_refused_token_is_removed_only_while_it_is_the_one_at_hand() {
    let cloud = Cloud::of_tokens();
    let credentials = cloud.credentials(&["p"]);
    let service = ServiceName::parse("oms").unwrap();
    let error = failure(UpstreamErrorKind::CredentialsRefused, "x");
    let old = lease(&credentials).await.unwrap();
    credentials.refused(&old, &service, &error);
    assert_eq!(text(&credentials).await, "token-1");
    credentials.refused(&old, &service, &error);
    assert_eq!(text(&credentials).await, "token-1");
    assert_eq!(cloud.logins(), 2);
}

#[actix_rt::test]
async fn an_id_of_a_request_that_repeats_the_password_is_not_passed_on() {
    let cloud = Cloud::of_tokens();
    cloud.answer_login(|_, writer| {
        let body = "{\"error\":{\"code\":401,\"message\":\"x\"}}";
        answer(writer, 401, "X-Request-Id: s3cret\r\n", body)
    });
    let credentials = cloud.credentials(&["p"]);
    let error = lease(&credentials).await.unwrap_err();
    assert_eq!(error.kind, UpstreamErrorKind::CredentialsRefused);
    assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
}

#[actix_rt::test]
async fn a_wrong_password_counts_also_if_no_more_than_the_head_of_its_refusal_comes() {
    let cloud = Cloud::of_tokens();
    for _ in 0..5 {
        cloud.answer_login(|_, writer| {
            let cut = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 100\r\n\r\n{";
            writer.write_all(cut.as_bytes()).unwrap();
            Then::Close
        });
    }
    let credentials = cloud.credentials(&["p"]);
    for _ in 0..10 {
        lease(&credentials).await.unwrap_err();
        cloud.clock.forward(60);
    }
    assert_eq!(cloud.logins(), 2);
}

#[actix_rt::test]
async fn a_wrong_password_is_tried_twice_in_15_minutes_unless_it_changes() {
    let cloud = Cloud::of_tokens();
    for _ in 0..5 {
        cloud.answer_login(wrong_password);
    }
    let credentials = cloud.credentials(&["p"]);
    let refused = async || lease(&credentials).await.unwrap_err();
    let error = refused().await;
    assert_eq!(error.kind, UpstreamErrorKind::CredentialsRefused);
    let answer = error.answer.as_ref().unwrap();
    assert_eq!((answer.service.as_str(), answer.status), ("iam", 401));
    assert_eq!(answer.error_code.as_deref(), Some("401"));
    assert_eq!(
        (answer.error_msg.as_ref(), answer.request_id.as_deref()),
        (None, Some("a-7"))
    );
    assert!(!format!("{error:?}").contains("s3cret"));

    refused().await;
    assert_eq!(cloud.logins(), 1, "the error is remembered");
    cloud.clock.forward(2);
    refused().await;
    assert_eq!(cloud.logins(), 2);
    for _ in 0..12 {
        cloud.clock.forward(60);
        assert_eq!(refused().await.kind.as_str(), "credentials-refused");
    }
    assert_eq!(cloud.logins(), 2, "two are enough");
    cloud.clock.forward(4 * 60);
    refused().await;
    assert_eq!(cloud.logins(), 3, "15 minutes are over");
    for _ in 0..5 {
        cloud.clock.forward(60);
        refused().await;
    }
    assert_eq!(cloud.logins(), 4);

    fs::write(cloud.password.path(), "another-word").unwrap();
    cloud.clock.forward(60);
    refused().await;
    assert_eq!(cloud.logins(), 5, "a changed password is tried");
    assert!(cloud.peer.seen()[4].body.contains("another-word"));
    cloud.clock.forward(60);
    assert_eq!(text(&credentials).await, "token-5");
}

#[actix_rt::test]
async fn projects_of_one_user_share_the_attempts() {
    let cloud = Cloud::of_tokens();
    for _ in 0..9 {
        cloud.answer_login(wrong_password);
    }
    let names = ["a", "b", "c", "d"];
    let credentials = cloud.credentials(&names);
    let results = join_all(names.map(async |name| {
        credentials
            .lease(&ProjectName::parse(name).unwrap(), (&oms(), &endpoint()))
            .await
            .unwrap_err()
            .kind
    }))
    .await;
    // Those who come after the second refusal are told of it.
    let [refused, resting] = [
        UpstreamErrorKind::CredentialsRefused,
        UpstreamErrorKind::CredentialsResting,
    ];
    assert_eq!(results, [refused, refused, resting, resting]);
    assert_eq!(cloud.logins(), 2);
}

#[actix_rt::test]
async fn an_answer_that_is_no_token_is_an_error_of_its_kind() {
    use UpstreamErrorKind as Kind;
    let cloud = Cloud::of_tokens();
    let credentials = cloud.credentials(&["p"]);
    let token = "X-Subject-Token: token\r\n";
    let good = |clock: &SetClock| document(clock.now(), 3600);
    let cases: [(Kind, u16, &str, Option<&str>); 23] = [
        (Kind::Malformed, 201, "", None),
        (Kind::Malformed, 200, token, None),
        (Kind::Malformed, 302, token, None),
        (
            Kind::Malformed,
            201,
            "X-Subject-Token: a\r\nX-Subject-Token: b\r\n",
            None,
        ),
        (Kind::Malformed, 201, "X-Subject-Token: a b\r\n", None),
        (Kind::Malformed, 201, token, Some("")),
        (Kind::Malformed, 201, token, Some("<html>")),
        (Kind::Malformed, 201, token, Some("{\"token\":{}}")),
        (
            Kind::Malformed,
            201,
            token,
            Some("{\"token\":{\"expires_at\":\"soon\"}}"),
        ),
        (
            Kind::Malformed,
            201,
            token,
            Some("{\"token\":{\"expires_at\":\"2001-01-01T00:00:00Z\"}}"),
        ),
        (
            Kind::Malformed,
            201,
            token,
            Some("{\"token\":{\"expires_at\":\"9001-01-01T00:00:00Z\"}}"),
        ),
        (
            Kind::Malformed,
            201,
            token,
            Some(
                "{\"token\":{\"expires_at\":\"2026-01-04T09:00:00Z\",\"project\":{\"id\":\"x\"}}}",
            ),
        ),
        (
            Kind::CredentialsRefused,
            400,
            "",
            Some("{\"error\":{\"code\":400,\"message\":\"x\"}}"),
        ),
        (
            Kind::CredentialsRefused,
            403,
            "",
            Some("{\"error_code\":\"IAM.0081\",\"error_msg\":\"x\"}"),
        ),
        (Kind::Malformed, 400, "", Some("<html>")),
        (
            Kind::CredentialsRefused,
            400,
            "",
            Some("{\"error_code\":\"a\\nb\",\"error_msg\":\"x\"}"),
        ),
        (Kind::Malformed, 418, "", Some("{}")),
        (
            Kind::Rejected,
            404,
            "",
            Some("{\"error_code\":\"IAM.0004\",\"error_msg\":\"x\"}"),
        ),
        (Kind::Throttled, 429, "", Some("")),
        (
            Kind::Throttled,
            400,
            "",
            Some("{\"error_code\":\"IAM.0012\",\"error_msg\":\"x\"}"),
        ),
        (Kind::Unavailable, 500, token, Some("{}")),
        (Kind::Unavailable, 503, "", Some("")),
        (Kind::Malformed, 103, "", Some("")),
    ];
    for (number, (kind, status, headers, body)) in cases.into_iter().enumerate() {
        let body = body.map_or_else(|| good(&cloud.clock), str::to_owned);
        cloud.answer_login(move |_, writer| answer(writer, status, headers, &body));
        let error = lease(&credentials).await.unwrap_err();
        assert_eq!(error.kind, kind, "{status} {headers} {number}");
        assert_eq!(error.answer.is_some(), status >= 200);
        assert_eq!(cloud.logins(), number + 1);
        cloud.clock.forward(60);
    }
    cloud.answer_login(|_, _| Then::Close);
    let error = lease(&credentials).await.unwrap_err();
    assert_eq!(error.kind, UpstreamErrorKind::Unavailable);
    cloud.clock.forward(60);
    text(&credentials).await;
}

#[actix_rt::test]
async fn a_password_that_cannot_be_read_is_no_login() {
    let cloud = Cloud::of_tokens();
    fs::write(cloud.password.path(), "\n").unwrap();
    let credentials = cloud.credentials(&["p"]);
    let error = lease(&credentials).await.unwrap_err();
    assert_eq!(error.kind, UpstreamErrorKind::Unavailable);
    assert!(!error.detail.contains('/'), "{}", error.detail);
    assert_eq!(cloud.logins(), 0);
    fs::write(cloud.password.path(), "s3cret-word").unwrap();
    cloud.clock.forward(60);
    assert_eq!(text(&credentials).await, "token-0");
}

#[actix_rt::test]
async fn a_vendor_that_asks_for_a_wait_gets_it() {
    let cloud = Cloud::of_tokens();
    cloud.answer_login(|_, writer| answer(writer, 429, "Retry-After: 20\r\n", "{}"));
    let credentials = cloud.credentials(&["p"]);
    let error = lease(&credentials).await.unwrap_err();
    assert_eq!(error.retry_after, Some(Duration::from_secs(20)));
    cloud.clock.forward(19);
    assert!(lease(&credentials).await.is_err());
    assert_eq!(cloud.logins(), 1);
    cloud.clock.forward(1);
    text(&credentials).await;
}

/// A clock that breaks once, at the given reading.
struct BrokenClock(Arc<SetClock>, AtomicI64);

impl Clock for BrokenClock {
    fn now(&self) -> Timestamp {
        assert_ne!(
            self.1.fetch_sub(1, Ordering::SeqCst),
            0,
            "this reading breaks, as the test wants"
        );
        self.0.now()
    }

    fn uptime(&self) -> Duration {
        self.0.uptime()
    }
}

#[actix_rt::test]
async fn a_login_that_breaks_leaves_its_project_usable() {
    let cloud = Cloud::of_tokens();
    // The first reading is that of the thread which accepts the call, the second that of the login.
    let clock = Arc::new(BrokenClock(Arc::clone(&cloud.clock), AtomicI64::new(1)));
    let settings = cloud.settings(&["p"]);
    let credentials = start(&settings, clock).unwrap();
    let error = lease(&credentials).await.unwrap_err();
    assert_eq!(error.kind, UpstreamErrorKind::Unavailable);
    assert_eq!(error.detail, "The login ended abnormally.");
    cloud.clock.forward(60);
    assert_eq!(text(&credentials).await, "token-0");
}

#[actix_rt::test]
async fn a_thread_that_breaks_is_told_of() {
    let cloud = Cloud::of_tokens();
    let clock = Arc::new(BrokenClock(
        Arc::clone(&cloud.clock),
        AtomicI64::new(i64::MAX),
    ));
    let credentials = start(&cloud.settings(&["p"]), clock.clone()).unwrap();
    text(&credentials).await;
    assert!(credentials.lost().now_or_never().is_none());
    clock.1.store(0, Ordering::SeqCst);
    let command = Command::Refresh { project: project() };
    credentials.commands.try_send(command).unwrap();
    let lost = timeout(Duration::from_secs(10), credentials.lost()).await;
    assert!(lost.is_ok(), "nobody was told");
}

#[test]
fn an_address_that_cannot_be_used_is_found_at_start() {
    let cloud = Cloud::of_tokens();
    let mut settings = cloud.settings(&["p"]);
    settings.projects.get_mut(&project()).unwrap().iam_endpoint = "http://iam.example.com".into();
    let result = start(&settings, cloud.clock.clone());
    assert!(matches!(result.err(), Some(CredentialsError::Endpoint(..))));
}
