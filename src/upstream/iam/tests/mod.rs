//! Tokens from a token service on a loopback socket.

mod agency;
mod changes;
mod keys;
mod lifecycle;
mod logins;
mod nonsense;
mod passwords;
mod races;
mod tokens;

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
    Credentials, CredentialsError, Site,
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

/// Where leases are used.
pub(crate) fn oms() -> Site {
    at("https://oms.example")
}

/// OMS at another address.
pub(crate) fn at(address: &str) -> Site {
    Site {
        service: ServiceName::parse("oms").unwrap(),
        endpoint: Endpoint::parse(address).unwrap(),
    }
}

/// What the project has for one request.
pub(crate) async fn lease(credentials: &Credentials) -> Result<super::Lease, UpstreamError> {
    credentials.lease(&project(), &oms()).await
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

/// What the vendor says of a credential that it does not take.
fn refusal() -> UpstreamError {
    failure(UpstreamErrorKind::CredentialsRefused, "refused by the test")
}
