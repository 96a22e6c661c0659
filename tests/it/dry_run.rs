//! Dry runs: the same answers to whoever may not or cannot, a plan for all others, and nothing
//! done.

use migration_gateway::sandbox::{OmsSpec, Operation, SmsSpec};
use serde_json::{Value, json};

use crate::support::{
    gateway::{Gateway, KEY, Place},
    http::{Answer, Client},
    schema, wait_for,
};

/// Every change: method, what follows the path of the task, and the kind of the operation.
const CHANGES: [(&str, &str, &str); 4] = [
    ("POST", "/pause", "pause"),
    ("POST", "/start", "start"),
    ("DELETE", "", "delete"),
    ("DELETE", "?force=pause", "delete"),
];

fn keys() -> Value {
    let keys = json!({"access_key": "CANARY-ACCESS", "secret_key": "canary-secret"});
    json!({"source": keys, "destination": keys})
}

fn ask(client: &Client, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
    let keys = keys();
    let is_oms = path
        .split(['/', '?'])
        .nth(2)
        .is_some_and(|id| id.bytes().all(|b| b.is_ascii_digit()));
    let body = (path.contains("/start") && is_oms).then_some(&keys);
    client.send(method, path, headers, body).expect("an answer")
}

/// The same path, as a dry run.
fn dry(path: &str) -> String {
    let mark = if path.contains('?') { '&' } else { '?' };
    format!("{path}{mark}dry_run=true")
}

/// The changes of a task that the cloud was asked for.
fn mutations(place: &Place, id: &str) -> Vec<Operation> {
    let requests = place.cloud.requests();
    let of_task = requests
        .iter()
        .filter(|one| one.task.as_deref() == Some(id));
    let operations = of_task.map(|request| request.operation);
    operations
        .filter(|one| [Operation::Pause, Operation::Start, Operation::Delete].contains(one))
        .collect()
}

fn recorded(gateway: &Gateway) -> usize {
    let answer = gateway.client().get("/operations").json();
    answer["operations"].as_array().expect("operations").len()
}

/// Asks for a plan, checks that it keeps to the document, and gives it.
fn plan(
    gateway: &Gateway,
    client: &Client,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Value {
    let answer = ask(client, method, &dry(path), headers);
    assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
    assert_eq!(answer.header("location"), None);
    let document = gateway.stranger().get("/openapi.json").json();
    let plan = answer.json();
    let faults = schema::faults(
        &document,
        &document["components"]["schemas"]["Plan"],
        &plan,
        "",
    );
    assert!(faults.is_empty(), "{faults:#?}");
    plan
}

/// A dry run of a change of a fresh task, and then the change itself, which must begin as the plan
/// says.
fn compare(place: &Place, gateway: &Gateway, id: &str, change: (&str, &str, &str)) {
    let (method, suffix, kind) = change;
    let client = gateway.client();
    let path = format!("/tasks/{id}{suffix}");
    let before = recorded(gateway);
    place.cloud.clear_requests();
    let tried = ask(&client, method, &dry(&path), &[]);
    assert!(
        mutations(place, id).is_empty(),
        "{method} {path}: {tried:?}"
    );
    assert!(!place.cloud.requests().is_empty(), "the task is looked at");
    assert_eq!(recorded(gateway), before, "{method} {path}");
    let real = ask(&client, method, &path, &[("prefer", "respond-async")]);
    if tried.status != 200 {
        let but_for_the_id = |answer: &Answer| {
            let mut document = answer.json();
            document
                .as_object_mut()
                .expect("a problem")
                .remove("request_id");
            document
        };
        assert_eq!(
            but_for_the_id(&tried),
            but_for_the_id(&real),
            "{method} {path}"
        );
        return;
    }
    assert_eq!(real.status, 202, "{method} {path}: {tried:?} {real:?}");
    let plan = tried.json();
    assert_eq!(
        (&plan["kind"], &plan["course"]),
        (&json!(kind), &json!("begin"))
    );
    let operation = real.json()["id"].as_str().expect("an id").to_owned();
    let first = match plan["next"].as_str() {
        Some("pause") => Operation::Pause,
        Some("start") => Operation::Start,
        Some("delete") => Operation::Delete,
        Some(_) => return,
        None => {
            assert_eq!(client.ended(&operation)["outcome"], plan["outcome"]);
            return;
        }
    };
    let sent = wait_for("what the plan says", || {
        mutations(place, id).first().copied()
    });
    assert_eq!(sent, first, "{method} {path}: {plan}");
}

#[test]
fn a_plan_says_what_the_request_does_in_every_state() {
    let place = Place::new();
    let gateway = place.start();
    for change in CHANGES {
        for state in 0..=9 {
            let id = place.cloud.add_oms(OmsSpec::new("planned", state));
            compare(&place, &gateway, &id, change);
        }
        for state in [
            "READY",
            "RUNNING",
            "ABORTING",
            "ABORT",
            "MIGRATE_FAIL",
            "MIGRATE_SUCCESS",
            "SKIPPING",
            "SYNC_F_ROLLBACK_SUCCESS",
            "DELETING",
        ] {
            let id = place.cloud.add_sms(SmsSpec::new("planned", state));
            compare(&place, &gateway, &id, change);
        }
        compare(&place, &gateway, "7", change);
        compare(&place, &gateway, "a-7", change);
    }
}

#[test]
fn a_plan_names_a_running_operation_to_those_only_who_may_see_it() {
    let all = "permissions = [\"*\"]\nprojects = [\"*\"]";
    let place = Place::new().caller("other", "other", all);
    let gateway = place.start();
    let (owner, other) = (gateway.client(), gateway.client_with("other"));
    // Waiting for its turn, so that nothing comes to its end.
    let id = place.cloud.add_oms(OmsSpec::new("busy", 1));
    let task = format!("/tasks/{id}");
    let start = format!("{task}/start");
    let pause = format!("{task}/pause");
    let running = owner.ask("POST", &pause, None);
    let link = json!(format!("/operations/{running}"));
    let course = |client: &Client, method: &str, path: &str| {
        let plan = plan(&gateway, client, method, path, &[]);
        (plan["course"].clone(), plan["operation"].clone())
    };
    let force = format!("{task}?force=pause");
    for (method, path, expected) in [("POST", &pause, "join"), ("DELETE", &force, "supersede")] {
        assert_eq!(
            course(&owner, method, path),
            (json!(expected), link.clone())
        );
        assert_eq!(course(&other, method, path), (json!(expected), Value::Null));
    }
    for (client, shown) in [(&owner, link.clone()), (&other, Value::Null)] {
        for (method, path) in [("POST", &start), ("DELETE", &task)] {
            let tried = ask(client, method, &dry(path), &[]);
            assert_eq!(tried.status, 409, "{tried:?}");
            assert_eq!(tried.problem(), "operation-conflict");
            assert_eq!(tried.json()["operation"], shown);
        }
    }
    let seen = owner.operation(&running);
    assert_eq!(seen["status"], "running");
    assert!(!seen["events"].to_string().contains("joined"), "{seen}");
    assert_eq!(other.get(&format!("/operations/{running}")).status, 404);
    assert_eq!(recorded(&gateway), 1);
}

#[test]
fn a_key_is_not_used_up_by_a_dry_run() {
    let place = Place::new();
    let gateway = place.start();
    let client = gateway.client();
    let id = place.cloud.add_oms(OmsSpec::new("keyed", 2));
    let path = format!("/tasks/{id}/pause");
    let key = [("idempotency-key", "once"), ("prefer", "wait=20")];
    for _ in 0..2 {
        let plan = plan(&gateway, &client, "POST", &path, &key);
        assert_eq!(
            (&plan["course"], &plan["next"]),
            (&json!("begin"), &json!("pause"))
        );
    }
    let real = ask(&client, "POST", &path, &key);
    assert_eq!(
        (real.status, real.header("idempotency-replayed")),
        (200, None)
    );
    let same = ask(&client, "POST", &format!("{path}?dry_run=false"), &key);
    assert_eq!(same.header("idempotency-replayed"), Some("true"));
    place.cloud.clear_requests();
    let replay = plan(&gateway, &client, "POST", &path, &key);
    assert_eq!(replay["course"], "replay");
    let operation = real.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(replay["operation"], format!("/operations/{operation}"));
    assert!(place.cloud.requests().is_empty());
    let reused = ask(&client, "DELETE", &dry(&format!("/tasks/{id}")), &key);
    assert_eq!(reused.problem(), "idempotency-key-reused");
}

#[test]
fn a_dry_run_is_refused_like_the_request() {
    let read = "permissions = [\"tasks:read\"]\nprojects = [\"*\"]";
    let named = "permissions = [\"*\"]\nprojects = [\"*\"]\ntasks = [\"logs-*\"]";
    let place = Place::new()
        .caller("reader", "reader", read)
        .caller("named", "named", named);
    let gateway = place.start();
    let id = place.cloud.add_oms(OmsSpec::new("web", 3));
    for (method, suffix, _) in CHANGES {
        let path = dry(&format!("/tasks/{id}{suffix}"));
        for (client, status) in [
            (gateway.stranger(), 401),
            (gateway.client_with("wrong"), 401),
            (gateway.client_with("reader"), 403),
        ] {
            assert_eq!(ask(&client, method, &path, &[]).status, status);
        }
        assert!(place.cloud.requests().is_empty());
    }
    for (method, suffix, _) in CHANGES {
        let path = dry(&format!("/tasks/{id}{suffix}"));
        let answer = ask(&gateway.client_with("named"), method, &path, &[]);
        assert_eq!(answer.problem(), "forbidden", "{answer:?}");
        for value in ["", "yes", "1", "TRUE", "true&dry_run=true"] {
            let path = path.replace("dry_run=true", &format!("dry_run={value}"));
            let answer = ask(&gateway.client(), method, &path, &[]);
            assert_eq!(answer.problem(), "invalid-request", "{path}");
        }
    }
    // What a start brings is checked, and goes nowhere.
    let start = dry(&format!("/tasks/{id}/start"));
    for (body, problem) in [
        (json!({}), "invalid-request"),
        (json!({"destination": "unknown"}), "forbidden"),
        (
            json!({"destination": {"access_key": "x"}}),
            "invalid-request",
        ),
    ] {
        let answer = gateway.client().post_json(&start, &body);
        assert_eq!(answer.problem(), problem, "{body}");
    }
    let answer = gateway.client().post_json(&start, &keys());
    assert_eq!(
        (answer.status, &answer.json()["next"]),
        (200, &json!("start"))
    );
    let told = format!(
        "{:?}{}{}",
        place.cloud.requests(),
        answer.text,
        gateway.log()
    );
    assert!(!told.to_lowercase().contains("canary"));
    assert!(!told.contains(KEY));
    assert!(mutations(&place, &id).is_empty());
    let show = gateway.client().get(&dry(&format!("/tasks/{id}")));
    assert_eq!(show.problem(), "invalid-request", "reads have no dry run");
}

#[test]
fn a_dry_run_meets_the_limit_of_running_operations() {
    let place = Place::new().set("limits.running_operations", "1");
    let gateway = place.start();
    let client = gateway.client();
    // Waiting for its turn, so that nothing comes to its end.
    let busy = place.cloud.add_oms(OmsSpec::new("busy", 1));
    client.ask("POST", &format!("/tasks/{busy}/pause"), None);
    let other = place.cloud.add_oms(OmsSpec::new("other", 2));
    for (path, status) in [
        (format!("/tasks/{other}/pause"), 429),
        // It would join, and take over from, what counts already.
        (format!("/tasks/{busy}/pause"), 200),
        ("/tasks/7/pause".to_owned(), 404),
    ] {
        let tried = ask(&client, "POST", &dry(&path), &[]);
        assert_eq!(tried.status, status, "{path}: {tried:?}");
    }
    let force = format!("/tasks/{busy}?force=pause");
    assert_eq!(ask(&client, "DELETE", &dry(&force), &[]).status, 200);
    let pause = format!("/tasks/{other}/pause");
    let tried = ask(&client, "POST", &dry(&pause), &[]);
    let real = ask(&client, "POST", &pause, &[]);
    assert_eq!(
        (tried.status, tried.problem()),
        (real.status, real.problem())
    );
    assert_eq!(tried.header("retry-after"), real.header("retry-after"));
    assert_eq!(
        ask(&client, "DELETE", &force, &[("prefer", "respond-async")]).status,
        202
    );
}
