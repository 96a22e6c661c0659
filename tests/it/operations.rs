//! Operations: how a request waits, who shares an operation, who sees it, and what a start brings
//! along.

use std::{
    thread,
    time::{Duration, Instant},
};

use migration_gateway::sandbox::{AfterStop, OmsSpec, Operation, TaskSwitches};
use serde_json::{Value, json};

use crate::support::{
    gateway::{KEY, Place},
    http::{Answer, Client},
    raw, schema,
};

const EVERYTHING: &str = "permissions = [\"*\"]\nprojects = [\"*\"]";

/// A task that stays as it is until somebody moves it, so that operations on it wait.
fn pausing(place: &Place) -> String {
    place.cloud.add_oms(OmsSpec::new("pausing", 7))
}

fn forced(task: &str) -> String {
    format!("/tasks/{task}?force=pause")
}

fn id_of(answer: &Answer) -> String {
    answer.json()["id"].as_str().expect("an id").to_owned()
}

#[test]
fn thirty_that_ask_for_the_same_at_once_share_one_operation_one_stop_and_one_delete() {
    let place = Place::new();
    let gateway = place.start();
    // Long enough for all of them to arrive.
    let task = place.cloud.add_oms(OmsSpec {
        switches: TaskSwitches {
            pause_delay: Some(Duration::from_secs(3)),
            ..TaskSwitches::default()
        },
        ..OmsSpec::new("shared", 2)
    });
    let path = forced(&task);
    let ids: Vec<String> = thread::scope(|scope| {
        let asking: Vec<_> = (0..30)
            .map(|_| scope.spawn(|| gateway.client().delete(&path)))
            .collect();
        let answers = asking.into_iter().map(|one| one.join().expect("an answer"));
        answers
            .map(|answer| {
                assert_eq!(answer.status, 200, "{answer:?}");
                assert_eq!(answer.json()["outcome"], "deleted");
                id_of(&answer)
            })
            .collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(place.cloud.count(Operation::Pause, Some(&task)), 1);
    assert_eq!(place.cloud.count(Operation::Delete, Some(&task)), 1);
    let all = gateway.client().get("/operations").json();
    assert_eq!(all["operations"].as_array().map(Vec::len), Some(1));
}

#[test]
fn an_answer_says_what_was_preferred_and_where_to_look() {
    let place = Place::new()
        .set("server.default_wait", "\"300ms\"")
        .set("server.max_wait", "\"1s\"");
    let gateway = place.start();
    let caller = gateway.client();
    let task = pausing(&place);
    for (prefer, applied, at_least) in [
        (None, None, 300),
        (Some("respond-async"), Some("respond-async"), 0),
        (Some("wait=0"), Some("wait=0"), 0),
        (Some("wait=1"), Some("wait=1"), 1000),
        (Some("wait=100"), Some("wait=1"), 1000),
        (Some("wait=99999999999999999999999"), Some("wait=1"), 1000),
        (Some("respond-async, wait=1"), Some("wait=1"), 1000),
        (Some("handling=strict"), None, 300),
        (Some("respond-async=\"\""), Some("respond-async"), 0),
        (Some("Wait = \"0\"; x=y"), Some("wait=0"), 0),
        (Some("x=\"a, wait=zz\", wait=0"), Some("wait=0"), 0),
        (Some("x=\"respond-async,wait=0\""), None, 300),
    ] {
        let began = Instant::now();
        let header: Vec<(&str, &str)> = prefer.map(|value| ("prefer", value)).into_iter().collect();
        let answer = caller.send("DELETE", &forced(&task), &header, None);
        let answer = answer.expect("an answer");
        assert_eq!(answer.status, 202, "{prefer:?}: {answer:?}");
        assert!(
            began.elapsed() >= Duration::from_millis(at_least),
            "{prefer:?}"
        );
        assert_eq!(
            answer.header("preference-applied"),
            applied,
            "{prefer:?}: {answer:?}"
        );
        let id = id_of(&answer);
        let location = format!("/operations/{id}");
        assert_eq!(answer.header("location"), Some(location.as_str()));
        assert!(answer.header("retry-after").is_some());
        assert_eq!(answer.json()["status"], "running");
    }
    // A text of others, in whatever encoding.
    let latin = format!(
        "DELETE {} HTTP/1.1\r\nHost: x\r\nPrefer: x=\"\u{fc}\", wait=0\r\nAuthorization: Bearer {KEY}\r\n\r\n",
        forced(&task)
    );
    let answer = raw::exchange(gateway.authority(), latin.as_bytes());
    assert!(
        answer.head.contains("preference-applied: wait=0"),
        "{answer:?}"
    );
    for broken in [
        "wait",
        "wait=",
        "wait=\"\"",
        "wait=x",
        "wait=-1",
        "wait=1.5",
        "wait=\"1",
    ] {
        let answer = caller.with("DELETE", &forced(&task), ("prefer", broken));
        assert_eq!(answer.problem(), "invalid-request", "{broken}");
    }
}

#[test]
fn links_are_made_of_the_configuration_and_never_of_a_request() {
    for (public_url, base) in [
        ("", ""),
        ("https://gateway.example.com", "https://gateway.example.com"),
    ] {
        let place = Place::new().set("server.public_url", &format!("\"{public_url}\""));
        let gateway = place.start();
        let task = pausing(&place);
        let request = format!(
            "DELETE /tasks/{task}?force=pause HTTP/1.1\r\nHost: evil.example\r\n\
             X-Forwarded-Host: evil.example\r\nForwarded: host=evil.example\r\n\
             Prefer: wait=0\r\nAuthorization: Bearer {KEY}\r\n\r\n"
        );
        let answer = raw::exchange(gateway.authority(), request.as_bytes());
        assert_eq!(answer.status, 202, "{answer:?}");
        assert!(!format!("{answer:?}").contains("evil"), "{answer:?}");
        let location = format!("location: {base}/operations/op_");
        assert!(answer.head.contains(&location), "{answer:?}");
        let document: Value = serde_json::from_str(&answer.body).expect("JSON");
        assert_eq!(document["task"]["href"], format!("{base}/tasks/{task}"));
        let shown = gateway.client().get(&format!("/tasks/{task}")).json();
        let link = shown["operation"].as_str().expect("a link");
        assert!(link.starts_with(&format!("{base}/operations/op_")));
    }
}

#[test]
fn a_long_poll_ends_with_the_operation_or_with_its_time() {
    let place = Place::new();
    let gateway = place.start();
    let caller = gateway.client();
    let task = pausing(&place);
    let id = caller.ask("DELETE", &forced(&task), None);
    let path = format!("/operations/{id}");
    let began = Instant::now();
    let answer = caller.with("GET", &path, ("prefer", "wait=1"));
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(answer.header("preference-applied"), Some("wait=1"));
    assert_eq!(
        (answer.status, &answer.json()["status"]),
        (200, &json!("running"))
    );
    assert_eq!(answer.json()["phase"], "waiting_until_paused");
    assert_eq!(answer.json()["finished_at"], Value::Null);

    thread::scope(|scope| {
        let polling = scope.spawn(|| caller.with("GET", &path, ("prefer", "wait=60")));
        assert!(place.cloud.set_oms_status(&task, 3));
        let answer = polling.join().expect("an answer");
        assert_eq!(answer.json()["outcome"], "deleted");
        assert_eq!(answer.json()["phase"], Value::Null);
        assert!(answer.json()["finished_at"].is_string());
    });
    assert!(began.elapsed() < Duration::from_secs(30));
}

#[test]
fn an_operation_that_fails_is_answered_with_its_problem_and_shown_with_200() {
    let place = Place::new();
    let gateway = place.start();
    let caller = gateway.client();
    let task = place.cloud.add_oms(OmsSpec {
        switches: TaskSwitches {
            after_stop: AfterStop::Succeeded,
            ..TaskSwitches::default()
        },
        ..OmsSpec::new("fast", 2)
    });
    let answer = caller.post(&format!("/tasks/{task}/pause"));
    assert_eq!(answer.status, 409, "{answer:?}");
    assert_eq!(answer.problem(), "task-finished");
    let problem = answer.json();
    assert_eq!(problem["sent"], "yes");
    assert_eq!(problem["operation"]["status"], "failed");
    assert_eq!(problem["operation"]["error"]["type"], problem["type"]);
    let id = problem["operation"]["id"].as_str().expect("an id");
    let shown = caller.operation(id);
    let document = caller.get("/openapi.json").json();
    let list = caller.get("/operations").json();
    for (name, value) in [
        ("Problem", &problem),
        ("Operation", &shown),
        ("OperationList", &list),
    ] {
        let schema = json!({"$ref": format!("#/components/schemas/{name}")});
        assert_eq!(schema::faults(&document, &schema, value, ""), [""; 0]);
    }
    assert_eq!(shown["status"], "failed");
    assert_eq!(shown["error"]["detail"], problem["detail"]);
    assert_eq!(shown["outcome"], Value::Null);
}

#[test]
fn an_operation_is_seen_by_who_asked_who_joined_and_who_may_see_all() {
    let place = Place::new()
        .caller("alice", "key-of-alice", EVERYTHING)
        .caller("bob", "key-of-bob", EVERYTHING)
        .caller("carol", "key-of-carol", EVERYTHING)
        .caller(
            "overseer",
            "key-of-overseer",
            "permissions = [\"*\", \"operations:read-all\"]\nprojects = [\"*\"]",
        );
    let gateway = place.start();
    let [alice, bob, carol, overseer] = ["alice", "bob", "carol", "overseer"]
        .map(|name| gateway.client_with(&format!("key-of-{name}")));
    let task = pausing(&place);
    let id = alice.ask("DELETE", &forced(&task), None);
    let link = format!("/operations/{id}");
    let listed = |answer: Answer| answer.json()["operations"].as_array().map(Vec::len);

    for seeing in [&alice, &overseer] {
        assert_eq!(seeing.operation(&id)["requested_by"], "alice");
        assert_eq!(listed(seeing.get("/operations")), Some(1));
        let shown = seeing.get(&format!("/tasks/{task}")).json();
        assert_eq!(shown["operation"], link);
        let conflict = seeing.post(&format!("/tasks/{task}/pause"));
        assert_eq!(conflict.problem(), "operation-conflict");
        assert_eq!(conflict.json()["operation"], link);
        assert_eq!(conflict.json()["sent"], "no");
    }
    for blind in [&bob, &carol] {
        assert_eq!(blind.get(&link).problem(), "operation-not-found");
        let polled = blind.with("GET", &link, ("prefer", "wait=20"));
        assert_eq!(polled.problem(), "operation-not-found");
        assert_eq!(listed(blind.get("/operations")), Some(0));
        let shown = blind.get(&format!("/tasks/{task}")).json();
        assert_eq!(shown["operation"], Value::Null);
        let rows = blind.get("/tasks?service=oms").json();
        assert_eq!(rows["tasks"][0]["operation"], Value::Null);
        let conflict = blind.post(&format!("/tasks/{task}/pause"));
        assert_eq!(conflict.problem(), "operation-conflict");
        assert_eq!(conflict.json().get("operation"), None);
        assert!(!conflict.text.contains(&id), "{conflict:?}");
    }
    // Whoever may do the same joins, and sees it from then on; a plain delete is served by a forced
    // one.
    assert_eq!(bob.ask("DELETE", &format!("/tasks/{task}"), None), id);
    assert_eq!(bob.operation(&id)["requested_by"], "alice");
    assert_eq!(listed(bob.get("/operations")), Some(1));
    let events = bob.operation(&id)["events"].to_string();
    assert_eq!(events.matches("\"joined\"").count(), 1, "{events}");
    assert_eq!(bob.ask("DELETE", &forced(&task), None), id);
    let events = bob.operation(&id)["events"].to_string();
    assert_eq!(events.matches("\"joined\"").count(), 1, "{events}");
    assert_eq!(carol.get(&link).problem(), "operation-not-found");
}

/// The ids of all operations that a list shows on pages of this size.
fn by_pages(caller: &Client, size: usize) -> Vec<String> {
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let page = caller
            .get(&format!("/operations?page_size={size}{token}"))
            .json();
        let rows = page["operations"].as_array().expect("rows");
        let ids = rows.iter().map(|row| row["id"].as_str().expect("an id"));
        seen.extend(ids.map(str::to_owned));
        let Some(next) = page["next_page_token"].as_str() else {
            return seen;
        };
        token = format!("&page_token={next}");
    }
}

#[test]
fn operations_that_cannot_be_read_do_not_cut_off_the_list_behind_them() {
    let place = Place::new();
    let gateway = place.start();
    let caller = gateway.client();
    let mut ids: Vec<String> = (0..7)
        .map(|_| caller.ask("DELETE", &forced(&pausing(&place)), None))
        .collect();
    ids.reverse();
    let strange = [ids.remove(6), ids.remove(4), ids.remove(3), ids.remove(0)];
    for id in strange {
        let damage = format!("UPDATE operations SET kind = 'rename' WHERE id = '{id}'");
        assert_eq!(place.sql(&damage), 1);
    }
    for size in 1..9 {
        assert_eq!(by_pages(&caller, size), ids, "{size} on a page");
    }
}

#[test]
fn operations_are_listed_newest_first_by_pages_and_filters() {
    let place = Place::new();
    let gateway = place.start();
    let caller = gateway.client();
    let tasks: Vec<String> = (0..4).map(|_| pausing(&place)).collect();
    let mut ids: Vec<String> = tasks
        .iter()
        .map(|task| caller.ask("DELETE", &forced(task), None))
        .collect();
    assert!(place.cloud.set_oms_status(&tasks[1], 3));
    caller.ended(&ids[1]);
    ids.reverse();
    assert_eq!(by_pages(&caller, 3), ids);
    for (query, count) in [
        ("status=running".to_owned(), 3),
        ("status=succeeded".to_owned(), 1),
        ("status=cancelled".to_owned(), 0),
        (format!("task={}", tasks[0]), 1),
        (format!("task={}&status=succeeded", tasks[0]), 0),
        ("page_size=4".to_owned(), 4),
    ] {
        let page = caller.get(&format!("/operations?{query}")).json();
        assert_eq!(
            page["operations"].as_array().map(Vec::len),
            Some(count),
            "{query}"
        );
        assert_eq!(page["next_page_token"], Value::Null, "{query}");
    }
    for query in [
        "status=done",
        "page_size=0",
        "page_size=201",
        "page_size=x",
        "page_token=x",
        "task=a_b",
        "stauts=running",
        "status=running&status=running",
    ] {
        let answer = caller.get(&format!("/operations?{query}"));
        assert_eq!(answer.problem(), "invalid-request", "{query}");
    }
    for id in [
        "x",
        "op_",
        "op_01jgz4k8w3m5n7p9r1t3v5x7z9",
        "01JGZ4K8W3M5N7P9R1T3V5X7Z9",
    ] {
        let answer = caller.get(&format!("/operations/{id}"));
        assert_eq!(answer.problem(), "invalid-request", "{id}");
    }
    let answer = caller.get("/operations/op_01JGZ4K8W3M5N7P9R1T3V5X7Z9");
    assert_eq!(answer.problem(), "operation-not-found");
}
