//! What a request may say: keys, values, ids, projects and methods.

use migration_gateway::sandbox::{OmsSpec, Service};
use serde_json::json;

use crate::support::{gateway::Place, http::Answer};

const OTHER_ID: &str = "8b0c6a30cfa04b2a9f4ce1fd9a8a8f11";

/// Shows that a request was refused, and for which part of it.
fn assert_refused(answer: &Answer, part: &str, pointer: &str) {
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (400, "invalid-request"),
        "{answer:?}"
    );
    let error = &answer.json()["errors"][0];
    assert_eq!(
        (&error["in"], &error["pointer"]),
        (&json!(part), &json!(pointer)),
        "{answer:?}"
    );
}

#[test]
fn what_a_request_says_and_nobody_knows_is_a_fault_and_never_ignored() {
    let place = Place::new();
    let gateway = place.start();
    let caller = gateway.client();
    for (method, path, pointer) in [
        ("GET", "/tasks?sate=running", "/sate"),
        ("GET", "/tasks?State=running", "/"),
        ("GET", "/tasks?state=sleeping", "/state"),
        ("GET", "/tasks?state=", "/state"),
        ("GET", "/tasks?state=paused&state=paused", "/state"),
        ("GET", "/tasks?name=a&name=b", "/name"),
        ("GET", "/tasks?service=ecs", "/service"),
        ("GET", "/tasks?service=OMS", "/service"),
        ("GET", "/tasks?page_size=0", "/page_size"),
        ("GET", "/tasks?page_size=201", "/page_size"),
        ("GET", "/tasks?page_size=-1", "/page_size"),
        ("GET", "/tasks?page_size=1e1", "/page_size"),
        ("GET", "/tasks?project=", "/project"),
        ("GET", "/tasks?project=a_b", "/project"),
        ("GET", "/tasks?project=nonexistent", "/project"),
        ("GET", "/tasks?view=full", "/view"),
        ("GET", "/tasks/7?view=half", "/view"),
        ("GET", "/tasks/7?force=pause", "/force"),
        ("DELETE", "/tasks/7?force=true", "/force"),
        ("DELETE", "/tasks/7?force", "/force"),
        ("DELETE", "/tasks/7?force=pause&force=pause", "/force"),
        ("DELETE", "/tasks/7?Force=pause", "/"),
        ("DELETE", "/tasks/7?view=full", "/view"),
        ("POST", "/tasks/7/pause?force=pause", "/force"),
        ("POST", "/tasks/7/start?wait=1", "/wait"),
        (
            "GET",
            "/operations/op_01JGZ4K8W3M5N7P9R1T3V5X7Z9?wait=1",
            "/wait",
        ),
    ] {
        assert_refused(&caller.request(method, path), "query", pointer);
    }
    let several = caller
        .get("/tasks/00?view=half&x=1&project=nonexistent")
        .json();
    assert_eq!(
        several["errors"].as_array().map(Vec::len),
        Some(4),
        "{several}"
    );
    assert!(place.cloud.requests().is_empty());
}

#[test]
fn an_id_belongs_to_the_service_that_knows_its_form_or_to_the_one_that_is_named() {
    let place = Place::new().set("upstream.freshness", "\"0s\"");
    let gateway = place.start();
    let caller = gateway.client();
    let (digits, long) = ("1234567890123456", "a".repeat(36));
    for (path, service) in [
        ("0", "oms"),
        ("7", "oms"),
        ("999999999999999", "oms"),
        ("7?service=oms", "oms"),
        ("7?service=sms", "sms"),
        ("007?service=sms", "sms"),
        (&format!("{digits}?service=sms"), "sms"),
        ("7a", "sms"),
        ("-", "sms"),
        (long.as_str(), "sms"),
    ] {
        place.cloud.clear_requests();
        let answer = caller.get(&format!("/tasks/{path}"));
        assert_eq!(answer.problem(), "task-not-found", "{path}");
        let asked = place.cloud.requests();
        let asked: Vec<_> = asked
            .iter()
            .filter(|one| one.service != Service::Iam)
            .collect();
        let expected = if service == "oms" {
            Service::Oms
        } else {
            Service::Sms
        };
        // "No such task" over a connection that was used before is asked again over a fresh one.
        assert!((1..=2).contains(&asked.len()), "{path}: {asked:?}");
        assert!(asked.iter().all(|one| one.service == expected), "{path}");
    }
    place.cloud.clear_requests();
    for path in [
        "007",
        "00",
        digits,
        &format!("{digits}?service=oms"),
        "7a?service=oms",
        &"a".repeat(37),
        "a_b",
        "a.b",
        "a+b",
        "007?service=oms",
        "a%20b",
    ] {
        assert_refused(&caller.get(&format!("/tasks/{path}")), "path", "/id");
    }
    assert!(place.cloud.requests().is_empty());
}

#[test]
fn a_task_is_looked_for_in_the_project_that_is_named() {
    let place = Place::new().project("other", OTHER_ID, "cn-east-3");
    let gateway = place.start();
    let caller = gateway.client();
    let task = place.cloud.add_oms(OmsSpec {
        project_id: Some(OTHER_ID.to_owned()),
        ..OmsSpec::new("elsewhere", 2)
    });
    let path = format!("/tasks/{task}");
    for project in ["", "?project=default"] {
        assert_eq!(
            caller.get(&format!("{path}{project}")).problem(),
            "task-not-found"
        );
        assert_eq!(
            caller.delete(&format!("{path}{project}")).problem(),
            "task-not-found"
        );
    }
    let shown = caller.get(&format!("{path}?project=other")).json();
    assert_eq!(
        (&shown["id"], &shown["project"]),
        (&json!(task), &json!("other"))
    );
    assert_eq!(
        caller.get("/tasks?service=oms&project=other").json()["tasks"][0]["id"],
        task
    );
    let deleted = caller
        .delete(&format!("{path}?force=pause&project=other"))
        .json();
    assert_eq!(deleted["outcome"], "deleted");
    assert_eq!(deleted["task"]["href"], format!("{path}?project=other"));
    assert_eq!(place.cloud.oms_status(&task), None);
}

#[test]
fn head_is_answered_like_get_without_the_body() {
    let place = Place::new();
    let gateway = place.start();
    let caller = gateway.client();
    let task = place.cloud.add_oms(OmsSpec::new("head", 3));
    let id = caller.ask("POST", &format!("/tasks/{task}/pause"), None);
    caller.ended(&id);
    for path in [
        "/tasks",
        &format!("/tasks/{task}"),
        "/tasks/1",
        "/tasks?x=1",
        "/operations",
        &format!("/operations/{id}"),
        "/livez",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/docs",
        "/docs/",
        "/nothing",
    ] {
        let (head, get) = (caller.request("HEAD", path), caller.get(path));
        assert_eq!(head.status, get.status, "{path}");
        assert_eq!(head.text, "", "{path}");
        for header in ["content-type", "cache-control"] {
            assert_eq!(head.header(header), get.header(header), "{path}");
        }
    }
    let answer = caller.request("HEAD", &format!("/tasks/{task}/pause"));
    assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
}
