//! The ways in which the gateway is let in at the cloud, and secrets that change while it runs.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use migration_gateway::sandbox::{
    CloudOptions, Ecs, Fault, FaultKind, OmsSpec, Operation, RecordedRequest, Service, SmsSpec,
};
use serde_json::json;

use crate::support::{
    credentials::{access_key, ecs_agency},
    gateway::{Gateway, Place},
    wait_for,
};

const SECOND: &str = "0f5181caba0024e72f89c0045e707b91";
const THIRD: &str = "0b2fc79a3cdb4d2ba1e8af0a7a9ef7f2";

/// A place whose first project signs with the account's access key; both keys are in files.
fn with_access_key(place: Place) -> Place {
    let account = place.cloud.account();
    let access_key = place.secret("access-key", &account.access_key);
    let secret_key = place.secret("secret-key", &account.secret_key);
    place.credentials(&format!(
        "kind = \"access-key\"\naccess_key = {access_key}\nsecret_key = {secret_key}"
    ))
}

/// The requests that reached OMS or SMS.
fn served(place: &Place) -> Vec<RecordedRequest> {
    let mut requests = place.cloud.requests();
    requests.retain(|request| request.service != Service::Iam);
    requests
}

/// The value of a metric without labels.
fn metric(gateway: &Gateway, name: &str) -> Option<f64> {
    let text = gateway.stranger().get("/metrics").text;
    let line = |line: &str| line.strip_prefix(name)?.trim().parse().ok();
    text.lines().find_map(line)
}

/// Has the gateway look at its files of secrets, and waits until so many of them are said to be
/// unusable.
fn wait_for_unusable(gateway: &Gateway, files: f64) {
    gateway.signal("HUP");
    wait_for("the metric", || {
        let unusable = metric(gateway, "migration_gateway_upstream_secret_files_unusable");
        (unusable == Some(files)).then_some(())
    });
}

/// How many lines of the log have this message.
fn logged(gateway: &Gateway, message: &str) -> usize {
    let message = format!("\"{message}\"");
    let log = gateway.log();
    log.lines().filter(|line| line.contains(&message)).count()
}

/// Asks for tasks all the while that something else is done, and shows that it never fails.
fn without_a_failed_request(gateway: &Gateway, work: impl FnOnce()) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let caller = scope.spawn(|| {
            let mut answered = 0;
            while !is_over.load(Ordering::SeqCst) {
                let answer = gateway.client().get("/tasks?service=oms");
                assert_eq!(answer.status, 200, "{answer:?}");
                answered += 1;
            }
            answered
        });
        work();
        is_over.store(true, Ordering::SeqCst);
        assert!(caller.join().expect("the caller") > 0);
    });
}

/// Waits for a request that was signed with this key.
fn wait_for_key(place: &Place, key: &str) {
    wait_for("a request signed with another key", || {
        let last = served(place).pop()?;
        (last.access_key.as_deref() == Some(key)).then_some(())
    });
}

#[test]
fn the_main_job_is_done_with_signed_requests_and_without_a_login() {
    let place = with_access_key(Place::new());
    let gateway = place.start();
    for id in [
        place.cloud.add_oms(OmsSpec::new("logs", 2)),
        place.cloud.add_sms(SmsSpec::new("web", "RUNNING")),
    ] {
        let answer = gateway.client().delete(&format!("/tasks/{id}?force=pause"));
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let account = place.cloud.account();
    for request in place.cloud.requests() {
        assert_eq!(request.access_key.as_deref(), Some(&*account.access_key));
        assert_eq!(request.project.as_deref(), Some(&*account.project_id));
        assert_eq!(request.header("x-auth-token"), None);
    }
}

#[test]
fn the_main_job_is_done_with_the_keys_of_an_ecs() {
    for ecs in [Ecs::WithTokens, Ecs::WithoutTokens(404)] {
        let options = CloudOptions {
            ecs,
            ..CloudOptions::default()
        };
        let place = Place::with(options);
        let credentials = ecs_agency(&place);
        let place = place.credentials(&credentials);
        let gateway = place.start();
        let id = place.cloud.add_oms(OmsSpec::new("logs", 2));
        let answer = gateway.client().delete(&format!("/tasks/{id}?force=pause"));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(place.cloud.temporary_keys_issued(), 1);
        assert_eq!(place.cloud.count(Operation::Login, None), 0);
        for request in served(&place) {
            let key = request.access_key.expect("a signature");
            assert!(key.starts_with("HSTA"), "{key}");
        }
    }
}

#[test]
fn temporary_keys_that_end_early_are_replaced_without_a_failed_request() {
    let place = Place::new();
    let credentials = ecs_agency(&place);
    let place = place.credentials(&credentials);
    let gateway = place.start();
    let get = || assert_eq!(gateway.client().get("/tasks?service=oms").status, 200);
    get();
    place.cloud.revoke_temporary_keys();
    get();
    assert_eq!(place.cloud.temporary_keys_issued(), 2);
    // Keys that end soon are renewed while they serve.
    place.cloud.revoke_temporary_keys();
    place
        .cloud
        .configure(|options| options.temporary_key_lifetime = Duration::from_secs(4));
    get();
    without_a_failed_request(&gateway, || {
        wait_for("keys that were renewed twice", || {
            (place.cloud.temporary_keys_issued() >= 5).then_some(())
        });
    });
}

#[test]
fn an_ecs_without_an_agency_is_told_in_the_problem() {
    let place = Place::with(CloudOptions {
        ecs: Ecs::WithoutAgency,
        ..CloudOptions::default()
    });
    let credentials = ecs_agency(&place);
    let place = place.credentials(&credentials);
    let gateway = place.start();
    let answer = gateway.client().get("/tasks?service=oms");
    assert_eq!(
        (answer.status, &*answer.problem()),
        (502, "credentials-refused")
    );
    let document = answer.json();
    assert_eq!(document["upstream"]["service"], "ecs-metadata");
    let detail = document["detail"].as_str().expect("a text");
    assert!(detail.contains("agency"), "{detail}");
}

#[test]
fn a_wrong_secret_key_is_not_hammered_and_a_right_one_is_used_at_once() {
    let place = with_access_key(Place::new());
    let account = place.cloud.account();
    place.secret("secret-key", "not-the-secret-key-of-this-access-key");
    let gateway = place.start();
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let answer = gateway.client().get("/tasks?service=oms");
                assert_eq!(answer.problem(), "credentials-refused");
                assert!(!answer.text.contains(&account.access_key), "{answer:?}");
            });
        }
    });
    let wrong = served(&place).len();
    assert!(
        (1..=2).contains(&wrong),
        "{wrong} wrong signatures were sent"
    );
    place.secret("secret-key", &account.secret_key);
    wait_for("the right key", || {
        (gateway.client().get("/tasks?service=oms").status == 200).then_some(())
    });
    let requests = served(&place);
    assert!(requests.len() <= wrong + 2, "{}", requests.len());
}

#[test]
fn a_clock_that_is_wrong_is_hinted_at() {
    let place = with_access_key(Place::new());
    let gateway = place.start();
    place.cloud.advance(Duration::from_mins(20));
    let answer = gateway.client().get("/tasks?service=oms");
    assert_eq!(
        (answer.status, &*answer.problem()),
        (502, "credentials-refused")
    );
    let detail = answer.json()["detail"].as_str().expect("a text").to_owned();
    assert!(detail.contains("clock"), "{detail}");
}

/// Files behind a link that is turned to another folder in one step, as mounted secrets are.
struct Mounted(PathBuf);

impl Mounted {
    fn new(place: &Place) -> Self {
        let folder = place.file("mounted");
        fs::create_dir(&folder).expect("a folder");
        let mounted = Self(folder);
        let account = place.cloud.account();
        mounted.turn("first", &account.access_key, &account.secret_key);
        for name in ["access-key", "secret-key"] {
            symlink(Path::new("..data").join(name), mounted.0.join(name)).expect("a link");
        }
        mounted
    }

    fn credentials(&self) -> String {
        let file = |name| format!("{{ file = \"{}\" }}", self.0.join(name).display());
        let (access_key, secret_key) = (file("access-key"), file("secret-key"));
        format!("kind = \"access-key\"\naccess_key = {access_key}\nsecret_key = {secret_key}")
    }

    fn turn(&self, version: &str, access_key: &str, secret_key: &str) {
        let folder = self.0.join(version);
        fs::create_dir(&folder).expect("a folder");
        fs::write(folder.join("access-key"), access_key).expect("a file");
        fs::write(folder.join("secret-key"), format!("{secret_key}\n")).expect("a file");
        let next = self.0.join("..next");
        symlink(version, &next).expect("a link");
        fs::rename(next, self.0.join("..data")).expect("the link turns");
    }
}

#[test]
fn a_mounted_access_key_is_rotated_without_a_restart_a_signal_or_a_failed_request() {
    let place = Place::new();
    let mounted = Mounted::new(&place);
    let place = place.credentials(&mounted.credentials());
    let gateway = place.start();
    let first = place.cloud.account().access_key;
    without_a_failed_request(&gateway, || {
        wait_for_key(&place, &first);
        place
            .cloud
            .add_access_key("SECONDACCESSKEY00002", "the-second-secret-key");
        mounted.turn("second", "SECONDACCESSKEY00002", "the-second-secret-key");
        wait_for_key(&place, "SECONDACCESSKEY00002");
        assert!(place.cloud.remove_access_key(&first));
    });
    assert_eq!(gateway.client().get("/tasks?service=oms").status, 200);
    assert_eq!(logged(&gateway, "an access key was read"), 2);
    assert_eq!(logged(&gateway, "a token or a signature was refused"), 0);
}

#[test]
fn a_hangup_has_secrets_looked_at_and_ends_nothing() {
    let place = with_access_key(Place::new());
    let gateway = place.start();
    let first = place.cloud.account().access_key;
    without_a_failed_request(&gateway, || {
        wait_for_key(&place, &first);
        // One after the other, and in between somebody looks.
        place
            .cloud
            .add_access_key("SECONDACCESSKEY00002", "the-second-secret-key");
        place.secret("access-key", "SECONDACCESSKEY00002");
        gateway.signal("HUP");
        wait_for("a try with half of the pair", || {
            (logged(&gateway, "a token or a signature was refused") == 1).then_some(())
        });
        place.secret("secret-key", "the-second-secret-key");
        wait_for("the other half", || {
            gateway.signal("HUP");
            let last = served(&place).pop()?;
            (last.access_key.as_deref() == Some("SECONDACCESSKEY00002")).then_some(())
        });
    });
}

#[test]
fn a_changed_password_is_used_without_a_failed_request_although_it_ends_all_tokens() {
    let place = Place::new();
    let gateway = place.start();
    without_a_failed_request(&gateway, || {
        wait_for("the first login", || {
            (!served(&place).is_empty()).then_some(())
        });
        for password in ["another-password", "a-third-password"] {
            let issued = place.cloud.tokens_issued();
            // The file first, so that it is right by the time that the tokens end.
            place.secret("password", password);
            place.cloud.set_password(password);
            wait_for("a request with a token by the other password", || {
                let last = served(&place).pop()?;
                (last.token >= Some(issued) && last.token_valid).then_some(())
            });
        }
    });
}

#[test]
fn keys_that_no_header_can_hold_are_told_once_and_those_before_them_serve() {
    let place = with_access_key(Place::new());
    let gateway = place.start();
    let is_told = |files| wait_for_unusable(&gateway, files);
    assert_eq!(gateway.client().get("/tasks?service=oms").status, 200);
    let status = || gateway.client().get("/status").json()["projects"][0]["credential"].clone();
    assert!(status()["last_error"].is_null(), "{}", status());
    let account = place.cloud.account();
    for middle in ["\n", "\r\n", "\0", "\t", " ", "\u{e9}"] {
        place.secret("access-key", &format!("AK{middle}CANARY"));
        place.secret("secret-key", &format!("SK{middle}CANARY"));
        is_told(2.0);
        assert_eq!(gateway.client().get("/tasks?service=oms").status, 200);
        let error = wait_for("the status", || {
            let error = status()["last_error"]["detail"].as_str()?.to_owned();
            Some(error)
        });
        assert!(error.contains("cannot be used"), "{error}");
        assert_eq!(status()["state"], "ok");
    }
    assert_eq!(logged(&gateway, "a secret file cannot be used"), 2);
    place.secret("access-key", &account.access_key);
    place.secret("secret-key", &account.secret_key);
    is_told(0.0);
    assert_eq!(logged(&gateway, "a secret file can be used again"), 2);
    assert!(!gateway.log().contains("CANARY"));
    let keys = served(&place)
        .into_iter()
        .filter_map(|request| request.access_key);
    assert!(keys.into_iter().all(|key| key == account.access_key));
}

#[test]
fn a_secret_that_cannot_be_read_is_told_once_and_what_it_was_serves() {
    let place = Place::new();
    let storage = place.secret("storage", "storage-secret");
    let place = place.add(&format!(
        "[storage_credentials.archive]\naccess_key = \"ARCHIVEAK\"\nsecret_key = {storage}\n\
         callers = [\"*\"]\nprojects = [\"*\"]\n"
    ));
    let gateway = place.start();
    let is_told = |files| wait_for_unusable(&gateway, files);
    assert_eq!(gateway.client().get("/tasks?service=oms").status, 200);
    is_told(0.0);
    fs::write(place.file("password"), "").expect("a file");
    fs::remove_file(place.file("storage")).expect("a file");
    is_told(2.0);
    place.cloud.revoke_tokens();
    for _ in 0..3 {
        assert_eq!(gateway.client().get("/tasks?service=oms").status, 200);
        let id = place.cloud.add_oms(OmsSpec::new("logs", 3));
        let keys = json!({"source": "archive", "destination": "archive"});
        let answer = gateway
            .client()
            .post_json(&format!("/tasks/{id}/start"), &keys);
        assert_eq!(answer.status, 200, "{answer:?}");
        let keys = place.cloud.oms_start_keys(&id).expect("keys");
        assert_eq!(keys.src_sk.as_deref(), Some("storage-secret"));
        is_told(2.0);
    }
    assert_eq!(logged(&gateway, "a secret file cannot be used"), 2);
    place.secret("password", &place.cloud.account().password);
    place.secret("storage", "another-storage-secret");
    is_told(0.0);
    assert_eq!(logged(&gateway, "a secret file cannot be used"), 2);
    assert_eq!(logged(&gateway, "a secret file can be used again"), 2);
    assert_eq!(place.cloud.count(Operation::Login, None), 2);
}

#[test]
fn the_age_of_credentials_and_their_refreshes_are_counted_by_kind() {
    let place = with_access_key(Place::new());
    let ecs = ecs_agency(&place);
    let place = place.project_with("ecs", SECOND, "cn-north-1", &ecs);
    let gateway = place.start();
    for project in ["default", "ecs"] {
        let path = format!("/tasks?service=oms&project={project}");
        assert_eq!(gateway.client().get(&path).status, 200);
    }
    let name = "migration_gateway_upstream_credential";
    for kind in ["access-key", "ecs-agency"] {
        let age = metric(&gateway, &format!("{name}_age_seconds{{kind=\"{kind}\"}}"));
        assert!(age.is_some_and(|age| (0.0..60.0).contains(&age)), "{age:?}");
        let refreshes = format!("{name}_refreshes_total{{kind=\"{kind}\",result=\"ok\"}}");
        assert_eq!(metric(&gateway, &refreshes), Some(1.0));
    }
    let text = gateway.stranger().get("/metrics").text;
    assert!(!text.contains(&place.cloud.account().access_key), "{text}");
}

#[test]
fn the_status_says_how_keys_stand() {
    let place = with_access_key(Place::new());
    let ecs = ecs_agency(&place);
    let place = place.project_with("ecs", SECOND, "cn-north-1", &ecs);
    let gateway = place.start();
    let credential = |index: usize| {
        let status = gateway.client().get("/status").json();
        status["projects"][index]["credential"].clone()
    };
    for (index, project, kind) in [(0, "default", "access-key"), (1, "ecs", "ecs-agency")] {
        let status = credential(index);
        assert_eq!(
            (&status["kind"], &status["state"]),
            (&json!(kind), &json!("idle"))
        );
        let path = format!("/tasks?service=oms&project={project}");
        assert_eq!(gateway.client().get(&path).status, 200);
        let status = credential(index);
        assert_eq!(status["state"], "ok");
        assert!(status["last_login_at"].is_string(), "{status}");
        assert_eq!(
            status["usable_until"].is_string(),
            kind == "ecs-agency",
            "{status}"
        );
    }
    let account = place.cloud.account();
    place.cloud.remove_access_key(&account.access_key);
    let refused = gateway.client().get("/tasks?service=oms");
    assert_eq!(refused.problem(), "credentials-refused");
    let status = credential(0);
    assert_eq!(status["state"], "refused");
    assert_eq!(status["last_error"]["upstream"]["error_code"], "APIGW.0301");
    assert!(
        !status.to_string().contains(&account.access_key),
        "{status}"
    );
}

#[test]
fn changed_keys_that_are_refused_show_in_the_status_while_the_old_ones_serve() {
    let place = with_access_key(Place::new());
    let gateway = place.start();
    let credential = || {
        let status = gateway.client().get("/status").json();
        status["projects"][0]["credential"].clone()
    };
    let get = || gateway.client().get("/tasks?service=oms").status;
    assert_eq!(get(), 200);
    let before = credential();
    assert_eq!(before["last_error"], json!(null), "{before}");
    place.secret("secret-key", "not-the-secret-key-of-this-access-key");
    gateway.signal("HUP");
    let after = wait_for("the refusal", || {
        assert_eq!(get(), 200);
        let now = credential();
        now["last_error"].is_object().then_some(now)
    });
    assert_eq!(after["state"], "ok", "{after}");
    assert_eq!(after["last_login_at"], before["last_login_at"], "{after}");
    let error = &after["last_error"];
    assert_eq!(error["type"], "/problems/credentials-refused", "{after}");
    assert_eq!(error["upstream"]["service"], "oms", "{after}");
    let refreshes = |result: &str| {
        let name = "migration_gateway_upstream_credential_refreshes_total";
        let labels = format!("{{kind=\"access-key\",result=\"{result}\"}}");
        metric(&gateway, &format!("{name}{labels}"))
    };
    assert_eq!(refreshes("credentials-refused"), Some(1.0));
    assert_eq!(refreshes("ok"), Some(2.0));
}

/// Who let each project's requests in, by the cloud's record.
#[derive(Debug, Default)]
struct Visits {
    token: usize,
    access_key: usize,
    temporary_key: usize,
}

/// Counts the lists of OMS by the project in their paths, and shows that nobody was let in for
/// another one.
fn visits(place: &Place) -> BTreeMap<String, Visits> {
    let access_key = place.cloud.account().access_key;
    let mut visits = BTreeMap::<String, Visits>::new();
    for request in served(place) {
        let project = request
            .path
            .split('/')
            .nth(2)
            .expect("a project")
            .to_owned();
        if let Some(admitted) = &request.project {
            assert_eq!(*admitted, project, "{request:?}");
        }
        if request.status != Some(200) {
            continue;
        }
        let visits = visits.entry(project).or_default();
        match request.access_key {
            None if request.token_valid => visits.token += 1,
            Some(key) if key == access_key => visits.access_key += 1,
            Some(key) if key.starts_with("HSTA") => visits.temporary_key += 1,
            _ => panic!("nobody was let in: {:?}", request.path),
        }
    }
    visits
}

#[test]
fn three_projects_with_three_kinds_of_credentials_are_never_mixed_in_ten_thousand_calls() {
    const CALLERS: usize = 8;
    const CALLS: usize = 10_000 / CALLERS;
    let place = Place::new();
    let (keys, ecs) = (access_key(&place), ecs_agency(&place));
    let place = place
        .project_with("keys", SECOND, "cn-north-1", &keys)
        .project_with("ecs", THIRD, "cn-east-3", &ecs)
        // Eight callers keep a small machine busy.
        .set("upstream.request_timeout", "\"30s\"");
    let gateway = place.start();
    thread::scope(|scope| {
        for caller in 0..CALLERS {
            let client = gateway.client();
            scope.spawn(move || {
                for call in 0..CALLS {
                    let project = ["default", "keys", "ecs"][(caller + call) % 3];
                    let path = format!("/tasks?service=oms&project={project}&page_size=1");
                    let answer = client.get(&path);
                    assert_eq!(answer.status, 200, "{answer:?}");
                }
            });
        }
        // Meanwhile tokens and temporary keys die again and again.
        for _ in 0..5 {
            let calls = || place.cloud.count(Operation::List, None);
            let before = calls();
            wait_for("some more calls", || {
                (calls() > before + 1000).then_some(())
            });
            place.cloud.revoke_tokens();
            place.cloud.revoke_temporary_keys();
        }
    });
    let visits = visits(&place);
    let first = place.cloud.account().project_id;
    let [default, keys, ecs] = [&first, SECOND, THIRD].map(|id| &visits[id]);
    assert_eq!((default.access_key, default.temporary_key), (0, 0));
    assert_eq!((keys.token, keys.temporary_key), (0, 0));
    assert_eq!((ecs.token, ecs.access_key), (0, 0));
    let all = default.token + keys.access_key + ecs.temporary_key;
    assert_eq!(all, CALLERS * CALLS);
    assert!(place.cloud.tokens_issued() > 1 && place.cloud.temporary_keys_issued() > 1);
}

#[test]
fn a_service_that_refuses_a_good_signature_once_costs_no_request() {
    let place = with_access_key(Place::new());
    let gateway = place.start();
    assert_eq!(gateway.client().get("/tasks?service=oms").status, 200);
    let refusal = FaultKind::error(
        401,
        "APIGW.0301",
        "Incorrect IAM authentication information",
    );
    for _ in 0..5 {
        let fault = Fault::on(Service::Oms, Operation::List, refusal.clone());
        let fault = place.cloud.fault(fault);
        assert_eq!(gateway.client().get("/tasks?service=oms").status, 200);
        assert_eq!(fault.fired(), 1);
    }
}
