//! Secrets stay where they belong: whatever goes right or wrong, none of them is in a log, an
//! answer or a file.

use std::{fmt::Write as _, fs, path::PathBuf};

use jiff::SignedDuration;
use migration_gateway::{
    domain::clock::{Clock as _, SystemClock},
    sandbox::{
        Account, Answer, CloudOptions, Fault, FaultKind, OmsSpec, Operation, Service, SmsSpec,
        TemporaryKeys,
    },
};
use serde_json::{Value, json};

use crate::support::{
    gateway::{Gateway, KEY, Place, digest},
    http::Client,
    issuer::{Issuer, SigningKey},
    wait_for,
};

const PASSWORD: &str = "Canary-Password-81";
const WRONG_PASSWORD: &str = "Canary-Wrong-Password-82";
const NAMED_ACCESS: &str = "CANARYNAMEDACCESS83";
const NAMED_SECRET: &str = "canaryNamedSecret84";
const INLINE_ACCESS: &str = "CANARYINLINEACCESS85";
const INLINE_SECRET: &str = "canaryInlineSecret86";
const INLINE_TOKEN: &str = "canaryInlineToken87";
const OTHER_KEY: &str = "canary-caller-key-88";
const UNKNOWN_KEY: &str = "canary-unknown-key-89";
const QUERY: &str = "canaryInAQuery90";
const ENVIRONMENT: &str = "canaryNamedSecret91";
const ENDED_KEY: &str = "canary-ended-key-92";

/// Everything that the gateway let out.
#[derive(Default)]
struct Seen {
    text: String,
    /// How many answers had each status.
    statuses: Vec<u16>,
}

impl Seen {
    /// Sends a request with a body of any text, and keeps the whole answer.
    fn send(&mut self, client: &Client, method: &str, path: &str, body: Option<&str>) -> u16 {
        let answer = client.raw(method, path, body);
        writeln!(self.text, "{method} {}", answer.status).expect("text");
        for (name, value) in &answer.headers {
            writeln!(self.text, "{name}: {value:?}").expect("text");
        }
        self.text.push_str(&answer.text);
        self.statuses.push(answer.status);
        answer.status
    }

    fn assert_without(&self, secrets: &[&str], place: &Place, gateway: &Gateway) {
        let mut whole = gateway.log();
        assert!(whole.contains("request answered"), "nothing was logged");
        // The log of a database is away for moments, while connections to it come and go.
        let databases = wait_for("the database and its write-ahead log", || {
            let entries = fs::read_dir(place.file("")).expect("the folder");
            let paths = entries.map(|entry| entry.expect("a file").path());
            let of_database = |path: &PathBuf| path.to_string_lossy().contains("operations.db");
            let bytes: Vec<_> = paths
                .filter(of_database)
                .filter_map(|path| fs::read(path).ok())
                .collect();
            (bytes.len() >= 2).then_some(bytes)
        });
        for bytes in databases {
            whole.push_str(&String::from_utf8_lossy(&bytes));
        }
        for secret in secrets {
            // Also if only its beginning is shown.
            let begin = &secret[..secret.len().min(16)];
            for (place, text) in [("an answer", &self.text), ("a log or a file", &whole)] {
                if let Some(at) = text.find(begin) {
                    let from = text.floor_char_boundary(at.saturating_sub(600));
                    let to = text.ceil_char_boundary(at + 100);
                    panic!("{secret} is in {place}: {}", &text[from..to]);
                }
            }
        }
    }
}

fn place(format: &str) -> Place {
    let options = CloudOptions {
        account: Account {
            password: PASSWORD.to_owned(),
            ..Account::default()
        },
        ..CloudOptions::default()
    };
    let place = Place::with(options)
        .set("log.format", &format!("\"{format}\""))
        .set("upstream.freshness", "\"0s\"")
        .env("STORAGE_SECRET", ENVIRONMENT);
    let secret = place.secret("storage", NAMED_SECRET);
    place
        .add(&format!(
            "[storage_credentials.archive]\naccess_key = \"{NAMED_ACCESS}\"\nsecret_key = {secret}\n\
             callers = [\"*\"]\nprojects = [\"*\"]\n\
             [storage_credentials.other]\naccess_key = \"{NAMED_ACCESS}\"\n\
             secret_key = {{ env = \"STORAGE_SECRET\" }}\ncallers = [\"*\"]\nprojects = [\"*\"]\n"
        ))
        .caller(
            "other",
            OTHER_KEY,
            "permissions = [\"tasks:read\"]\nprojects = [\"default\"]",
        )
}

/// Lets the next login give a token that is known here, which the cloud accepts.
fn known_token(place: &Place) -> String {
    let token = place.cloud.issue_token();
    let now = SystemClock.now();
    let issued = json!({"token": {
        "issued_at": now.to_string(),
        "expires_at": (now + SignedDuration::from_hours(24)).to_string(),
        "project": {"id": place.cloud.account().project_id},
    }});
    let answer = Answer::json(201, &issued).header("X-Subject-Token", &token);
    let login = Fault::on(Service::Iam, Operation::Login, FaultKind::Answer(answer));
    place.cloud.fault(login);
    token
}

fn inline() -> Value {
    let keys = json!({
        "access_key": INLINE_ACCESS, "secret_key": INLINE_SECRET, "security_token": INLINE_TOKEN,
    });
    json!({"source": keys, "destination": keys})
}

fn do_what_works(seen: &mut Seen, place: &Place, gateway: &Gateway) {
    let client = &gateway.client();
    let sms = place.cloud.add_sms(SmsSpec::new("web", "RUNNING"));
    let oms = place.cloud.add_oms(OmsSpec::new("logs", 2));
    for path in ["/tasks", "/metrics", "/openapi.json", "/docs/", "/readyz"] {
        assert_eq!(seen.send(client, "GET", path, None), 200, "{path}");
    }
    let other = &gateway.client_with(OTHER_KEY);
    assert_eq!(
        seen.send(other, "GET", &format!("/tasks/{oms}?view=full"), None),
        200
    );
    for keys in [
        json!({"source": "archive", "destination": "other"}),
        inline(),
    ] {
        let pause = format!("/tasks/{oms}/pause");
        assert_eq!(seen.send(client, "POST", &pause, None), 200);
        let start = format!("/tasks/{oms}/start");
        assert_eq!(
            seen.send(client, "POST", &start, Some(&keys.to_string())),
            200
        );
    }
    let keys = place.cloud.oms_start_keys(&oms).expect("a start");
    assert_eq!(keys.src_sk.as_deref(), Some(INLINE_SECRET));
    assert_eq!(keys.dst_security_token.as_deref(), Some(INLINE_TOKEN));
    for id in [oms, sms] {
        let path = format!("/tasks/{id}?force=pause");
        assert_eq!(seen.send(client, "DELETE", &path, None), 200);
    }
    assert_eq!(seen.send(client, "GET", "/operations", None), 200);
}

/// Requests with secrets in all the wrong places.
fn ask_wrongly(seen: &mut Seen, place: &Place, gateway: &Gateway) {
    let client = &gateway.client();
    let id = place.cloud.add_oms(OmsSpec::new("logs", 3));
    let start = &format!("/tasks/{id}/start");
    let wrong = [
        format!("{{\"source\": \"{INLINE_SECRET}\", \"destination\": {{\"secret_key\": "),
        format!("\"{INLINE_SECRET}\""),
        format!("{{\"destination\": \"archive\", \"{INLINE_SECRET}\": 1}}"),
        format!("{{\"destination\": \"{INLINE_SECRET}\"}}"),
        format!("{{\"destination\": [\"{INLINE_SECRET}\"]}}"),
        format!(
            "{{\"destination\": {{\"access_key\": \"{INLINE_SECRET}\", \"{INLINE_SECRET}\": 1}}}}"
        ),
        format!("{{\"destination\": {{\"access_key\": \"{INLINE_SECRET} \", \"secret_key\": 5}}}}"),
        format!(
            "{{\"destination\": \"archive\", \"migrate_failed_objects\": \"{INLINE_SECRET}\"}}"
        ),
    ];
    for body in wrong {
        assert_eq!(seen.send(client, "POST", start, Some(&body)), 400, "{body}");
    }
    let unknown = format!("{{\"destination\": \"{UNKNOWN_KEY}\"}}");
    assert_eq!(seen.send(client, "POST", start, Some(&unknown)), 403);
    let strange = &gateway.client_with(UNKNOWN_KEY);
    assert_eq!(seen.send(strange, "GET", "/tasks", None), 401);
    assert_eq!(
        seen.send(
            &gateway.client_with(OTHER_KEY),
            "POST",
            start,
            Some(&unknown)
        ),
        403
    );
    for path in [
        format!("/tasks?key={QUERY}"),
        format!("/tasks?{QUERY}"),
        format!("/tasks?{QUERY}=1"),
        format!("/tasks?state={QUERY}"),
        format!("/tasks?page_token={QUERY}"),
        format!("/tasks/{id}?force={QUERY}"),
        format!("/tasks/{id}?project={QUERY}"),
        format!("/operations?task={QUERY}%20"),
    ] {
        assert_eq!(seen.send(client, "GET", &path, None), 400, "{path}");
    }
    assert_eq!(
        seen.send(client, "GET", &format!("/nothing?{QUERY}"), None),
        404
    );
    assert_eq!(
        seen.send(client, "GET", &format!("/tasks?name={QUERY}"), None),
        200
    );
}

/// Tokens that are taken and tokens that are not. Gives all that is secret of them: each of their
/// parts.
fn bring_tokens(
    seen: &mut Seen,
    gateway: &Gateway,
    issuer: &Issuer,
    key: &SigningKey,
) -> Vec<String> {
    let good = issuer.token(key, "alice", &["readers"]);
    let mut claims = issuer.claims("alice", &["readers"]);
    claims["exp"] = json!(1);
    let ended = key.sign(&key.header(), &claims);
    let thief = SigningKey::elliptic("thief").sign(&key.header(), &issuer.claims("a", &[]));
    let unknown = issuer.token(&SigningKey::elliptic("unknown"), "alice", &["readers"]);
    claims["iss"] = json!("https://elsewhere.example.com");
    let foreign = key.sign(&key.header(), &claims);
    for (token, status) in [
        (&good, 200),
        (&ended, 401),
        (&thief, 401),
        (&unknown, 401),
        (&foreign, 401),
    ] {
        let client = &gateway.client_with(token);
        for path in ["/tasks", "/whoami"] {
            assert_eq!(seen.send(client, "GET", path, None), status, "{path}");
        }
    }
    let parts = [good, ended, thief, unknown, foreign];
    let parts = parts.iter().flat_map(|token| token.split('.'));
    parts.map(str::to_owned).collect()
}

/// Answers of a cloud that repeats what it was told.
fn echoes(told: &str) -> [Answer; 6] {
    [
        Answer::error(400, "OMS.0066", told),
        Answer::error(403, "OMS.0206", told),
        Answer::error(403, "APIGW.0302", told),
        Answer::text(502, "text/html", format!("<html>{told}</html>")),
        Answer::json(400, &json!({"error": {"code": 400, "message": told}})),
        Answer::text(200, "text/html", format!("<html>{told}</html>")),
    ]
}

fn be_echoed(seen: &mut Seen, place: &Place, gateway: &Gateway, token: &str) {
    let client = &gateway.client();
    let named = json!({"source": "archive", "destination": "other"});
    let told = [
        (
            named,
            format!("{NAMED_ACCESS} {NAMED_SECRET} {token} {PASSWORD}"),
        ),
        (inline(), format!("{INLINE_TOKEN} {token} {INLINE_SECRET}")),
    ];
    for (keys, told) in told {
        for answer in echoes(&told) {
            let id = place.cloud.add_oms(OmsSpec::new("logs", 3));
            // As often as it takes to end the operation.
            let times = if answer.status == 400 { 10 } else { 5 };
            let fault = Fault::on(Service::Oms, Operation::Start, FaultKind::Answer(answer));
            let fault = place.cloud.fault(fault.task(&id).times(times));
            let start = format!("/tasks/{id}/start");
            seen.send(client, "POST", &start, Some(&keys.to_string()));
            assert!(fault.fired() > 0);
            fault.cancel();
        }
    }
    let url = format!("?t={token}&p={PASSWORD}");
    let told = json!({"id": 2, "status": 2, "name": token, "x": [{"url": url}]});
    let list = json!({"tasks": [told], "count": 1});
    for (operation, told, path) in [
        (Operation::Show, told, "/tasks/2?view=full"),
        (Operation::List, list, "/tasks"),
    ] {
        let kind = FaultKind::Answer(Answer::json(200, &told));
        let fault = place.cloud.fault(Fault::on(Service::Oms, operation, kind));
        assert_eq!(seen.send(client, "GET", path, None), 200);
        assert_eq!(fault.fired(), 1);
    }
    for answer in echoes(&format!("The token is {token}, its word is {PASSWORD}.")) {
        for (operation, path) in [(Operation::List, "/tasks"), (Operation::Show, "/tasks/1")] {
            let fault = Fault::on(Service::Oms, operation, FaultKind::Answer(answer.clone()));
            let fault = place.cloud.fault(fault.always());
            assert!(seen.send(client, "GET", path, None) >= 400);
            assert!(fault.fired() > 0);
            fault.cancel();
        }
    }
}

/// Logins that fail in several ways.
fn fail_to_log_in(seen: &mut Seen, format: &str) {
    let place = place(format);
    let token = "x".repeat(8) + WRONG_PASSWORD;
    for answer in [
        Answer::keystone(401, PASSWORD, &format!("{PASSWORD} is wrong")),
        Answer::error(500, PASSWORD, PASSWORD),
        Answer::json(201, &json!({"token": PASSWORD})).header("X-Subject-Token", &token),
        Answer::text(403, "text/html", PASSWORD),
    ] {
        // Each gateway anew, since a failure is remembered.
        let gateway = place.start_logging("trace");
        let fault = Fault::on(Service::Iam, Operation::Login, FaultKind::Answer(answer));
        let fault = place.cloud.fault(fault);
        let status = seen.send(&gateway.client(), "GET", "/tasks", None);
        assert!(status >= 500, "{status}");
        assert_eq!(fault.fired(), 1);
        seen.assert_without(&[PASSWORD, WRONG_PASSWORD, KEY], &place, &gateway);
    }
    let gateway = place.start_logging("trace");
    place.secret("password", WRONG_PASSWORD);
    assert_eq!(seen.send(&gateway.client(), "GET", "/tasks", None), 502);
    seen.assert_without(&[PASSWORD, WRONG_PASSWORD, KEY], &place, &gateway);
}

const SECRET_KEY: &str = "canarySigningSecret92";
const METADATA_TOKEN: &str = "canary-metadata-token-93";
const ROTATED_SECRET: &str = "canaryRotatedSecret94";
const ECS_PROJECT: &str = "0f5181caba0024e72f89c0045e707b91";

/// A place with a project that signs by an access key, and one that signs by keys of an ECS.
fn signing_place(format: &str) -> Place {
    let options = CloudOptions {
        account: Account {
            secret_key: SECRET_KEY.to_owned(),
            ..Account::default()
        },
        ..CloudOptions::default()
    };
    let place = Place::with(options).set("log.format", &format!("\"{format}\""));
    let account = place.cloud.account();
    let access_key = place.secret("access-key", &account.access_key);
    let secret_key = place.secret("secret-key", SECRET_KEY);
    let ecs = format!(
        "kind = \"ecs-agency\"\nmetadata_address = \"{}\"",
        place.cloud.metadata_url()
    );
    place
        .credentials(&format!(
            "kind = \"access-key\"\naccess_key = {access_key}\nsecret_key = {secret_key}"
        ))
        .project_with("ecs", ECS_PROJECT, "cn-north-1", &ecs)
}

/// Lets the metadata service give a token and keys that are known here, and that the cloud accepts.
fn known_keys(place: &Place) -> TemporaryKeys {
    let keys = place.cloud.issue_temporary_keys();
    let ends = SystemClock.now() + SignedDuration::from_hours(6);
    let document = Answer::json(
        200,
        &json!({"credential": {
            "access": keys.access_key, "secret": keys.secret_key,
            "securitytoken": keys.security_token, "expires_at": ends.to_string(),
        }}),
    );
    let token = Answer::text(200, "text/plain", METADATA_TOKEN);
    for (operation, answer) in [
        (Operation::MetadataToken, token),
        (Operation::TemporaryKeys, document),
    ] {
        let fault = Fault::on(Service::Iam, operation, FaultKind::Answer(answer));
        place.cloud.fault(fault);
    }
    keys
}

/// Metadata services that repeat what they are told, and what they should give, in answers that are
/// of no use.
fn fail_to_get_keys(seen: &mut Seen, format: &str) {
    let place = signing_place(format);
    let keys = place.cloud.issue_temporary_keys();
    let told = format!(
        "{METADATA_TOKEN} {} {}",
        keys.secret_key, keys.security_token
    );
    let secrets = [METADATA_TOKEN, &keys.secret_key, &keys.security_token, KEY];
    for answer in [
        Answer::text(401, "text/plain", told.as_str()),
        Answer::text(500, "text/plain", told.as_str()).header("X-Request-Id", &keys.secret_key),
        Answer::text(200, "text/plain", told.as_str()),
        Answer::json(
            200,
            &json!({"credential": {"access": "AK", "secret": told}}),
        ),
    ] {
        let gateway = place.start_logging("trace");
        let token = FaultKind::Answer(Answer::text(200, "text/plain", METADATA_TOKEN));
        let token = Fault::on(Service::Iam, Operation::MetadataToken, token);
        let token = place.cloud.fault(token.always());
        let fault = Fault::on(
            Service::Iam,
            Operation::TemporaryKeys,
            FaultKind::Answer(answer),
        );
        let fault = place.cloud.fault(fault.times(2));
        let status = seen.send(&gateway.client(), "GET", "/tasks?project=ecs", None);
        assert_eq!(status, 502);
        assert!(fault.fired() > 0);
        seen.assert_without(&secrets, &place, &gateway);
        token.cancel();
        fault.cancel();
    }
}

fn keep_silent_signing(format: &str) {
    let place = signing_place(format);
    let keys = known_keys(&place);
    let gateway = place.start_logging("trace");
    let access_key = place.cloud.account().access_key;
    let mut seen = Seen::default();
    for (project, told) in [
        ("default", format!("{access_key} {SECRET_KEY}")),
        (
            "ecs",
            format!(
                "{} {} {}",
                keys.access_key, keys.secret_key, keys.security_token
            ),
        ),
    ] {
        let client = &gateway.client();
        let id = place.cloud.add_sms(SmsSpec::new("web", "RUNNING"));
        let path = format!("/tasks/{id}?force=pause&project={project}");
        assert_eq!(seen.send(client, "DELETE", &path, None), 200);
        let path = format!("/tasks?project={project}&service=oms");
        for answer in echoes(&told) {
            let fault = Fault::on(Service::Oms, Operation::List, FaultKind::Answer(answer));
            let fault = place.cloud.fault(fault.always());
            assert!(seen.send(client, "GET", &path, None) >= 400);
            assert!(fault.fired() > 0);
            fault.cancel();
        }
    }
    // A signature that is refused with a word about the key, and another key in the files.
    place.cloud.remove_access_key(&access_key);
    place.secret("secret-key", ROTATED_SECRET);
    let path = "/tasks?service=oms";
    assert_eq!(seen.send(&gateway.client(), "GET", path, None), 502);
    assert_eq!(seen.send(&gateway.client(), "GET", "/metrics", None), 200);
    assert_eq!(
        place.cloud.temporary_keys_issued(),
        1,
        "the known keys were used"
    );
    let secrets = [
        SECRET_KEY,
        ROTATED_SECRET,
        METADATA_TOKEN,
        &access_key,
        &keys.access_key,
        &keys.secret_key,
        &keys.security_token,
        "SDK-HMAC-SHA256 Access",
        "Signature=",
        KEY,
    ];
    seen.assert_without(&secrets, &place, &gateway);
    fail_to_get_keys(&mut Seen::default(), format);
}

fn keep_silent(format: &str) {
    let key = SigningKey::elliptic("k1");
    let issuer = Issuer::with(&[&key]);
    let group = "[issuers.corp.groups.readers]\npermissions = [\"tasks:read\"]\nprojects = [\"*\"]";
    let place = place(format)
        .add(&issuer.section("corp", group))
        .add(&format!(
            "[callers.ended]\nkeys = [{{ sha256 = \"{}\", expires = \"2020-01-01T00:00:00Z\" }}]\n\
             permissions = [\"*\"]\nprojects = [\"*\"]\n",
            digest(ENDED_KEY)
        ));
    let token = known_token(&place);
    let gateway = place.start_logging("trace");
    let mut seen = Seen::default();
    do_what_works(&mut seen, &place, &gateway);
    ask_wrongly(&mut seen, &place, &gateway);
    be_echoed(&mut seen, &place, &gateway, &token);
    let parts = bring_tokens(&mut seen, &gateway, &issuer, &key);
    let ended = &gateway.client_with(ENDED_KEY);
    assert_eq!(seen.send(ended, "GET", "/whoami", None), 401);
    assert_eq!(seen.send(&gateway.client(), "GET", "/whoami", None), 200);
    assert_eq!(
        place.cloud.tokens_issued(),
        1,
        "the known token was used all the time"
    );
    let secrets = [
        PASSWORD,
        NAMED_ACCESS,
        NAMED_SECRET,
        ENVIRONMENT,
        INLINE_ACCESS,
        INLINE_SECRET,
        INLINE_TOKEN,
        KEY,
        OTHER_KEY,
        UNKNOWN_KEY,
        ENDED_KEY,
        QUERY,
        &token,
    ];
    seen.assert_without(&secrets, &place, &gateway);
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    seen.assert_without(&parts, &place, &gateway);
    fail_to_log_in(&mut Seen::default(), format);
}

#[test]
fn no_answer_tells_the_account_or_the_user() {
    let options = CloudOptions {
        account: Account {
            domain: "canary-domain".to_owned(),
            user: "canary-user".to_owned(),
            ..Account::default()
        },
        ..CloudOptions::default()
    };
    let place = Place::with(options);
    let gateway = place.start();
    let client = &gateway.client();
    let id = place.cloud.add_sms(SmsSpec::new("web", "RUNNING"));
    let told = "The user canary-user of CANARY-DOMAIN has no right.";
    let answers = || {
        [
            Answer::error(400, "SMS.0001", told),
            Answer::error(403, "SMS.9004", told),
            Answer::error(400, "canary-user", told),
            Answer::json(404, &json!([told])),
        ]
        .map(|answer| answer.header("X-Request-Id", "canary-user"))
    };
    let mut seen = Seen::default();
    for answer in answers() {
        let show = Fault::on(Service::Sms, Operation::Show, FaultKind::Answer(answer));
        place.cloud.fault(show.task(&id));
        seen.send(client, "GET", &format!("/tasks/{id}"), None);
    }
    for answer in answers() {
        let pause = Fault::on(Service::Sms, Operation::Pause, FaultKind::Answer(answer));
        let pause = place.cloud.fault(pause.task(&id).times(10));
        seen.send(client, "POST", &format!("/tasks/{id}/pause"), None);
        pause.cancel();
    }
    seen.send(client, "GET", "/operations", None);
    let text = seen.text.to_lowercase();
    assert!(text.contains("the user *** of *** has no right"), "{text}");
    assert!(!text.contains("canary"), "{text}");
}

#[test]
fn no_secret_leaves_a_gateway_that_logs_everything_as_json() {
    keep_silent("json");
}

#[test]
fn no_secret_leaves_a_gateway_that_logs_everything_as_text() {
    keep_silent("text");
}

#[test]
fn no_key_leaves_a_gateway_that_signs_and_logs_everything_as_json() {
    keep_silent_signing("json");
}

#[test]
fn no_key_leaves_a_gateway_that_signs_and_logs_everything_as_text() {
    keep_silent_signing("text");
}
