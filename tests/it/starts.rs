//! Starts: what they bring along, by name or as it is, and who may.

use std::{
    fs,
    time::{Duration, Instant},
};

use migration_gateway::sandbox::{self, Fault, FaultKind, OmsSpec, Operation, Service, SmsSpec};
use serde_json::{Value, json};

use crate::support::{
    gateway::{KEY, Place},
    http::Client,
    raw, wait_for,
};

/// The longest that a file of a secret is waited for.
const LIMIT_OF_A_READING: Duration = Duration::from_secs(5);
const EVERYTHING: &str = "permissions = [\"*\"]\nprojects = [\"*\"]";

/// A task that stays as it is until somebody moves it, so that a start of it waits.
fn pausing(place: &Place) -> String {
    place.cloud.add_oms(OmsSpec::new("pausing", 7))
}

/// A place with two entries of storage credentials: one for `tester`, one for somebody else, and
/// one elsewhere.
fn with_credentials() -> Place {
    let place = Place::new().project("other", "8b0c6a30cfa04b2a9f4ce1fd9a8a8f11", "cn-east-3");
    let secret = place.secret("archive", "canary-named-secret\n");
    let entry = |name: &str, callers: &str, projects: &str| {
        format!(
            "\n[storage_credentials.{name}]\naccess_key = \"ACCESS-OF-{name}\"\nsecret_key = {secret}\n\
             callers = [\"{callers}\"]\nprojects = [\"{projects}\"]\n"
        )
    };
    let text = entry("archive", "tester", "default")
        + &entry("backup", "*", "*")
        + &entry("foreign", "somebody", "*")
        + &entry("elsewhere", "tester", "other");
    place
        .caller("somebody", "key-of-somebody", EVERYTHING)
        .add(&text)
}

#[test]
fn a_start_by_names_brings_the_keys_to_the_service_and_shows_them_to_nobody() {
    let place = with_credentials();
    let gateway = place.start();
    let caller = gateway.client();
    let task = place.cloud.add_oms(OmsSpec::new("named", 4));
    let body =
        json!({"source": "archive", "destination": "backup", "migrate_failed_objects": true});
    let answer = caller.post_json(&format!("/tasks/{task}/start"), &body);
    assert_eq!(
        (answer.status, &answer.json()["outcome"]),
        (200, &json!("started")),
        "{answer:?}"
    );
    let keys = place.cloud.oms_start_keys(&task).expect("keys");
    assert_eq!(keys.src_ak.as_deref(), Some("ACCESS-OF-archive"));
    assert_eq!(keys.src_sk.as_deref(), Some("canary-named-secret"));
    assert_eq!(keys.dst_ak.as_deref(), Some("ACCESS-OF-backup"));
    assert!(keys.migrate_failed_object);
    assert_eq!(place.cloud.count(Operation::Start, Some(&task)), 1);
    assert!(!gateway.log().contains("canary"), "{}", gateway.log());

    let refused = place.cloud.add_oms(OmsSpec::new("refused", 4));
    for name in ["foreign", "elsewhere", "nonexistent"] {
        let body = json!({"source": name, "destination": "backup"});
        let answer = caller.post_json(&format!("/tasks/{refused}/start"), &body);
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (403, "forbidden")
        );
        assert_eq!(
            answer.json()["detail"],
            "The caller may not use a storage credential of that name here."
        );
    }
    assert_eq!(place.cloud.count(Operation::Start, Some(&refused)), 0);
}

#[test]
fn starts_by_the_same_names_join_and_others_do_not() {
    let place = with_credentials();
    let gateway = place.start();
    let (caller, other) = (gateway.client(), gateway.client_with("key-of-somebody"));
    let path = format!("/tasks/{}/start", pausing(&place));
    let same = json!({"source": "backup", "destination": "backup"});
    let id = caller.ask("POST", &path, Some(&same));
    assert_eq!(other.ask("POST", &path, Some(&same)), id);
    for body in [
        json!({"source": "backup", "destination": "backup", "migrate_failed_objects": true}),
        json!({"destination": "backup"}),
        json!({"source": "backup", "destination": {"access_key": "A", "secret_key": "S"}}),
    ] {
        let answer = caller.post_json(&path, &body);
        assert_eq!(answer.problem(), "operation-conflict", "{body}");
        assert_eq!(answer.json()["operation"], format!("/operations/{id}"));
    }
    let path = format!("/tasks/{}/start", pausing(&place));
    let side = json!({"access_key": "A", "secret_key": "S"});
    let inline = json!({"source": side, "destination": side});
    caller.ask("POST", &path, Some(&inline));
    let again = caller.post_json(&path, &inline);
    assert_eq!(again.problem(), "operation-conflict");
}

#[test]
fn keys_of_a_request_reach_the_service_and_nothing_else() {
    let place = Place::new();
    let gateway = place.start_logging("trace");
    let caller = gateway.client();
    let task = place.cloud.add_oms(OmsSpec::new("inline", 3));
    let path = format!("/tasks/{task}/start");
    let side = json!({
        "access_key": "canary-access", "secret_key": "canary-secret", "security_token": "canary-token",
    });
    let body = json!({"source": side, "destination": side});
    let mut texts = Vec::new();
    // Faults beside the keys, and in them.
    for broken in [
        json!({"source": side, "destination": side, "canary-secret": 1, "x": 1}),
        json!({"source": side}),
        json!({"source": side, "destination": {"access_key": "canary-secret", "secret_key": "canary secret\n"}}),
        json!({"source": "canary-secret NOT A NAME", "destination": side}),
        json!({"source": side, "destination": ["canary-secret"]}),
        json!(["canary-secret"]),
        json!("canary-secret"),
        json!({"source": side, "destination": side, "migrate_failed_objects": "canary-secret"}),
    ] {
        let answer = caller.post_json(&path, &broken);
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (400, "invalid-request"),
            "{broken}"
        );
        let errors = answer.json()["errors"].as_array().expect("errors").clone();
        assert!(
            errors.iter().all(|error| error["in"] == "body"),
            "{errors:?}"
        );
        // The name of a member is what the caller looks for in the answer.
        texts.push(answer.text.replace("/canary-secret", ""));
    }
    let answer = caller.post_json(&path, &body);
    assert_eq!(
        (answer.status, &answer.json()["outcome"]),
        (200, &json!("started")),
        "{answer:?}"
    );
    let keys = place.cloud.oms_start_keys(&task).expect("keys");
    assert_eq!(keys.dst_sk.as_deref(), Some("canary-secret"));
    assert_eq!(keys.dst_security_token.as_deref(), Some("canary-token"));
    texts.push(answer.text.clone());
    texts.push(caller.get("/operations").text);
    texts.push(caller.get(&format!("/tasks/{task}?view=full")).text);
    texts.push(caller.get("/metrics").text);
    texts.push(gateway.log());
    for name in ["operations.db", "operations.db-wal"] {
        let bytes = fs::read(place.file(name)).unwrap_or_default();
        texts.push(String::from_utf8_lossy(&bytes).into_owned());
    }
    for text in texts {
        assert!(!text.contains("canary"), "{text}");
    }
}

/// What somebody is told of a failed task, with its row in the list, who has not asked for its
/// start: keys in no place.
fn told_to_others(place: &Place, caller: &Client, row: &Value, masked: &str) -> Vec<String> {
    let path = format!("/tasks/{}", row["id"]);
    let list = sandbox::Answer::json(200, &json!({"count": 1, "tasks": [row]}));
    let list = Fault::on(Service::Oms, Operation::List, FaultKind::Answer(list));
    let list = place.cloud.fault(list.always());
    let rows = caller.get("/tasks?service=oms");
    list.cancel();
    let events = caller.watch(&format!("{path}/events"), None);
    let events = events
        .expect("a stream")
        .map(|event| event.data.to_string());
    let document = caller.get(&format!("{path}?view=full"));
    let details = &document.json()["details"];
    assert_eq!(details["error_reason"]["error_msg"], masked);
    let note = json!({"note": masked, "keys": [masked]}).to_string();
    assert_eq!(details["note"], note);
    let texts = vec![
        caller.get(&path).text,
        document.text,
        rows.text,
        events.collect(),
    ];
    for text in &texts {
        assert!(text.contains(masked), "{text}");
    }
    texts
}

#[test]
fn why_a_started_task_failed_is_told_without_keys_and_names() {
    let place = with_credentials();
    let gateway = place.start();
    let caller = gateway.client();
    let user = place.cloud.account().user;
    let inline = json!({"access_key": "canary-access", "secret_key": "canary-secret", "security_token": "canary-token"});
    let cases = [
        (
            json!({"source": inline, "destination": inline}),
            "canary-access canary-secret canary-token",
        ),
        (
            json!({"source": "archive", "destination": "archive"}),
            "ACCESS-OF-archive canary-named-secret",
        ),
    ];
    let mut seen = Vec::new();
    for (body, keys) in cases {
        let task = place.cloud.add_oms(OmsSpec::new("failing", 3));
        let reason = format!("No bucket for {user} with {keys}.");
        let failed = json!({
            "id": task.parse::<u64>().expect("a number"), "status": 4, "start_time": 32_503_680_000_000_u64,
            "error_reason": {"error_code": "TRF.0155", "error_msg": reason},
            "note": json!({"note": reason, "keys": [reason]}).to_string(),
        });
        let row = failed.clone();
        let failed = FaultKind::Answer(sandbox::Answer::json(200, &failed));
        let failed = Fault::on(Service::Oms, Operation::Show, failed).task(&task);
        place.cloud.fault(failed.skip(2).always());

        let answer = caller.post_json(&format!("/tasks/{task}/start"), &body);

        assert_eq!(answer.problem(), "task-failed", "{answer:?}");
        let masked = reason.replace(&user, "***");
        let masked = keys
            .split(' ')
            .fold(masked, |text, key| text.replace(key, "***"));
        let detail = answer.json()["detail"].as_str().expect("a text").to_owned();
        assert!(detail.contains(&masked), "{detail}");
        assert!(detail.contains("TRF.0155"), "{detail}");
        assert_eq!(place.cloud.count(Operation::Start, Some(&task)), 1);
        seen.extend(told_to_others(&place, &caller, &row, &masked));
    }
    let mut texts = vec![caller.get("/operations").text, gateway.log()];
    texts.append(&mut seen);
    for name in ["operations.db", "operations.db-wal"] {
        let bytes = fs::read(place.file(name)).unwrap_or_default();
        texts.push(String::from_utf8_lossy(&bytes).into_owned());
    }
    for text in texts {
        assert!(!text.contains("canary") && !text.contains(&user), "{text}");
    }
}

#[test]
fn a_failed_task_is_shown_without_keys_although_their_file_hangs() {
    let place = with_credentials();
    let gateway = place.start();
    let caller = gateway.client();
    let task = place.cloud.add_oms(OmsSpec::new("failed", 4));
    let failed = json!({
        "id": task, "status": 4,
        "error_reason": {"error_code": "TRF.0155", "error_msg": "Wrong: canary-named-secret."},
    });
    let failed = FaultKind::Answer(sandbox::Answer::json(200, &failed));
    let failed = Fault::on(Service::Oms, Operation::Show, failed);
    place.cloud.fault(failed.always());
    let path = format!("/tasks/{task}");
    wait_for("the first look at the file", || {
        let message = caller.get(&path).json()["error"]["message"].clone();
        (message == "Wrong: ***.").then_some(())
    });
    place.make_hang("archive");
    let asked = Instant::now();
    // Beyond `upstream.freshness`, so that it is another look.
    let path = format!("{path}?view=full");
    let before = place.cloud.count(Operation::Show, Some(&task));
    let document = wait_for("another look", || {
        let document = caller.get(&path).json();
        (place.cloud.count(Operation::Show, Some(&task)) > before).then_some(document)
    });
    assert_eq!(document["error"]["message"], "Wrong: ***.");
    assert_eq!(
        document["details"]["error_reason"]["error_msg"],
        "Wrong: ***."
    );
    assert!(asked.elapsed() < LIMIT_OF_A_READING);
}

#[test]
fn a_start_is_refused_with_a_body_that_is_wrong_too_large_or_not_wanted() {
    let place = Place::new().set("server.max_body", "\"1KiB\"").caller(
        "reader",
        "key-of-reader",
        "permissions = [\"tasks:read\"]\nprojects = [\"*\"]",
    );
    let gateway = place.start();
    let oms = place.cloud.add_oms(OmsSpec::new("body", 3));
    let sms = place.cloud.add_sms(SmsSpec::new("body", "ABORT"));
    let right = r#"{"destination":{"access_key":"A","secret_key":"S"}}"#;
    let large = format!(r#"{{"destination":"{}"}}"#, "x".repeat(2000));
    let json = "application/json";
    for (task, suffix, kind, body, status, problem) in [
        (&oms, "start", "", right, 400, "invalid-request"),
        (&oms, "start", "text/plain", right, 400, "invalid-request"),
        (&oms, "start", json, "", 400, "invalid-request"),
        (
            &oms,
            "start",
            json,
            "{\"destination\":",
            400,
            "invalid-request",
        ),
        (
            &oms,
            "start",
            json,
            large.as_str(),
            413,
            "payload-too-large",
        ),
        (&sms, "start", json, right, 400, "invalid-request"),
        (&sms, "start", json, "{}", 400, "invalid-request"),
        (&oms, "pause", json, "{}", 400, "invalid-request"),
    ] {
        let kind = if kind.is_empty() {
            String::new()
        } else {
            format!("Content-Type: {kind}\r\n")
        };
        let request = format!(
            "POST /tasks/{task}/{suffix} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {KEY}\r\n{kind}\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let answer = raw::exchange(gateway.authority(), request.as_bytes());
        assert_eq!(answer.status, status, "{task} {suffix} {body}: {answer:?}");
        assert_eq!(answer.problem(), problem);
    }
    // Chunks have no length that could be looked at first.
    let chunk = format!("{:x}\r\n{large}\r\n0\r\n\r\n", large.len());
    let request = format!(
        "POST /tasks/{oms}/start HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {KEY}\r\n\
         Content-Type: {json}\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"
    );
    let answer = raw::exchange(gateway.authority(), request.as_bytes());
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (413, "payload-too-large")
    );

    let reader = gateway.client_with("key-of-reader");
    for (body, problem) in [("{}", "invalid-request"), (right, "forbidden")] {
        let answer = reader.raw("POST", &format!("/tasks/{oms}/start"), Some(body));
        assert_eq!(answer.problem(), problem, "{answer:?}");
    }
    assert_eq!(place.cloud.count(Operation::Start, None), 0);
}

#[test]
fn a_member_that_is_repeated_is_named_and_neither_value_counts() {
    let place = Place::new();
    let gateway = place.start();
    let oms = place.cloud.add_oms(OmsSpec::new("start", 3));
    let keys = r#"{"access_key":"A","secret_key":"S"}"#;
    for (body, pointers) in [
        (
            format!(r#"{{"destination":{keys},"destination":{keys}}}"#),
            vec!["/destination"],
        ),
        (
            format!(r#"{{"source":null,"destination":{keys},"source":null,"source":null}}"#),
            vec!["/source"],
        ),
        // An escape is another spelling of the same name.
        (
            format!(r#"{{"destination":{keys},"destin\u0061tion":{keys}}}"#),
            vec!["/destination"],
        ),
        (
            r#"{"destination":{"access_key":"A","secret_key":"canary","access_key":"B","secret_key":"S"}}"#.to_owned(),
            vec!["/destination/access_key", "/destination/secret_key"],
        ),
        (
            format!(r#"{{"destination":{keys},"x":[{{"y":1,"y":1}}]}}"#),
            vec!["/x/y", "/x"],
        ),
        (
            format!(r#"{{"destination":{keys},"Canary":{{"canarY":1,"canarY":1}}}}"#),
            vec!["", ""],
        ),
    ] {
        let answer = gateway.client().raw("POST", &format!("/tasks/{oms}/start"), Some(&body));
        assert_eq!(answer.problem(), "invalid-request", "{body}: {answer:?}");
        let errors = &answer.json()["errors"];
        let errors = errors.as_array().expect("faults").iter();
        let told: Vec<_> = errors.map(|error| (&error["in"], &error["pointer"])).map(|(place, pointer)| {
            assert_eq!(place, "body", "{answer:?}");
            pointer.as_str().expect("a pointer").to_owned()
        }).collect();
        assert_eq!(told, pointers, "{body}");
        assert!(!answer.text.to_lowercase().contains("canary"), "{answer:?}");
    }
    assert_eq!(place.cloud.count(Operation::Start, None), 0);
}

#[test]
fn a_task_of_sms_is_started_without_a_body() {
    let place = Place::new();
    let gateway = place.start();
    let sms = place.cloud.add_sms(SmsSpec::new("web", "ABORT"));
    let answer = gateway.client().post(&format!("/tasks/{sms}/start"));
    assert_eq!(
        (answer.status, &answer.json()["outcome"]),
        (200, &json!("started")),
        "{answer:?}"
    );
    wait_for("the task to run", || {
        (place.cloud.sms_state(&sms).as_deref() == Some("RUNNING")).then_some(())
    });
}

#[test]
fn the_body_of_a_start_has_a_limit_that_its_longest_keys_fit_into() {
    let place = Place::new();
    let gateway = place.start();
    let oms = place.cloud.add_oms(OmsSpec::new("body", 3));
    let token = "t".repeat(16_384);
    let keys = json!({"access_key": "a".repeat(100), "secret_key": "s".repeat(100), "security_token": token});
    let body = json!({"source": keys, "destination": keys}).to_string();
    let start = format!("/tasks/{oms}/start?dry_run=true");
    // As some encoders write every slash and quotation mark.
    let path = format!("POST {start} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {KEY}\r\n");
    let send = |length: String, body: &str| {
        let request = format!("{path}Content-Type: application/json\r\n{length}\r\n\r\n{body}");
        raw::exchange(gateway.authority(), request.as_bytes())
    };
    let length = |length: usize| format!("Content-Length: {length}");
    assert_eq!(send(length(body.len()), &body).status, 200);
    let wide = format!("{body}{}", " ".repeat(65_536 - body.len()));
    assert_eq!(send(length(wide.len()), &wide).status, 200);
    // Refused by its length alone, and once more of it has come than may.
    let refused = [
        send(length(65_537), ""),
        send(
            "Transfer-Encoding: chunked".to_owned(),
            &format!("10001\r\n{wide} \r\n"),
        ),
    ];
    for answer in refused {
        assert_eq!(
            (answer.status, &*answer.problem()),
            (413, "payload-too-large")
        );
    }
}
