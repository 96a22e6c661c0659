//! Callers who may change tasks of some names only.

use migration_gateway::sandbox::{Answer, Fault, FaultKind, OmsSpec, Operation, Service, SmsSpec};
use serde_json::json;

use crate::support::{
    gateway::{Gateway, Place},
    http::Client,
};

const LIMITED: &str = "permissions = [\"*\"]\nprojects = [\"*\"]\ntasks = [\"logs-*\"]";

/// Every change of a task that is at rest or runs: method and what follows its path.
const CHANGES: [(&str, &str); 4] = [
    ("POST", "/pause"),
    ("POST", "/start"),
    ("DELETE", ""),
    ("DELETE", "?force=pause"),
];

fn ask(client: &Client, method: &str, path: &str) -> (u16, String) {
    let keys = json!({"access_key": "a", "secret_key": "b"});
    let body = json!({"source": keys, "destination": keys});
    let body = path.ends_with("/start").then_some(&body);
    let answer = client
        .send(method, path, &[("prefer", "respond-async")], body)
        .expect("an answer");
    if answer.status < 300 {
        return (answer.status, answer.json()["id"].to_string());
    }
    assert_eq!(answer.json()["sent"], "no", "{answer:?}");
    (answer.status, answer.problem())
}

/// The operations that are on record.
fn recorded(gateway: &Gateway) -> usize {
    let answer = gateway.client_with("all").get("/operations").json();
    answer["operations"].as_array().expect("operations").len()
}

fn place() -> Place {
    let all = "permissions = [\"*\", \"operations:read-all\"]\nprojects = [\"*\"]";
    Place::new()
        .caller("limited", "limited", LIMITED)
        .caller("all", "all", all)
}

#[test]
fn a_task_of_another_name_is_not_changed() {
    let place = place();
    let gateway = place.start();
    let limited = gateway.client_with("limited");
    for (method, suffix) in CHANGES {
        let state = if suffix == "/pause" { 2 } else { 3 };
        for name in ["web", "Logs-1", "old-logs-1", "logs"] {
            let id = place.cloud.add_oms(OmsSpec::new(name, state));
            let path = format!("/tasks/{id}{suffix}");
            let answer = ask(&limited, method, &path);
            assert_eq!(
                answer,
                (403, "forbidden".to_owned()),
                "{method} {path} {name}"
            );
        }
        let sms = place.cloud.add_sms(SmsSpec::new("web", "RUNNING"));
        if suffix != "/start" {
            let answer = ask(&limited, method, &format!("/tasks/{sms}{suffix}"));
            assert_eq!(answer.0, 403, "{method} {suffix}");
        }
    }
    assert_eq!(recorded(&gateway), 0);
    for operation in [Operation::Pause, Operation::Start, Operation::Delete] {
        assert_eq!(place.cloud.count(operation, None), 0);
    }
    for (method, suffix) in CHANGES {
        let state = if suffix == "/pause" { 2 } else { 3 };
        let id = place.cloud.add_oms(OmsSpec::new("logs-2026", state));
        let answer = ask(&limited, method, &format!("/tasks/{id}{suffix}"));
        assert_eq!(answer.0, 202, "{method} {suffix}: {answer:?}");
    }
    // What is not there is not there.
    let gone = ask(&limited, "DELETE", "/tasks/7");
    assert_eq!(gone, (404, "task-not-found".to_owned()));
}

#[test]
fn tasks_of_other_names_are_shown_and_offer_nothing() {
    let place = place();
    let gateway = place.start();
    let limited = gateway.client_with("limited");
    for (name, actions) in [
        ("web", json!([])),
        ("logs-1", json!(["pause", "force_delete"])),
    ] {
        let id = place.cloud.add_oms(OmsSpec::new(name, 2));
        let shown = limited.get(&format!("/tasks/{id}")).json();
        assert_eq!(
            (&shown["name"], &shown["actions"]),
            (&json!(name), &actions)
        );
    }
    let list = limited.get("/tasks?service=oms").json();
    assert_eq!(list["tasks"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_name_that_cannot_be_seen_is_not_admitted() {
    let place = place();
    let gateway = place.start();
    let limited = gateway.client_with("limited");
    let id = place.cloud.add_oms(OmsSpec::new("logs-1", 3));
    let path = format!("/tasks/{id}");
    let broken = Fault::on(
        Service::Oms,
        Operation::Show,
        FaultKind::Answer(Answer::text(200, "text/plain", "no")),
    );
    let fault = place.cloud.fault(broken.clone().task(&id).always());
    let answer = ask(&limited, "DELETE", &path);
    assert_eq!(answer, (502, "upstream-malformed".to_owned()));
    assert_eq!(recorded(&gateway), 0);
    // Whoever may change tasks of every name need not wait until it can be seen.
    assert_eq!(ask(&gateway.client_with("all"), "DELETE", &path).0, 202);
    fault.cancel();
    // A task without a name.
    let id = place.cloud.add_oms(OmsSpec::new("logs-2", 3));
    let path = format!("/tasks/{id}");
    let nameless = json!({"id": id.parse::<u64>().expect("a number"), "status": 3});
    let nameless = FaultKind::Answer(Answer::json(200, &nameless));
    let fault = place.cloud.fault(
        Fault::on(Service::Oms, Operation::Show, nameless)
            .task(&id)
            .always(),
    );
    assert_eq!(limited.get(&path).json()["name"], json!(null));
    assert_eq!(
        ask(&limited, "DELETE", &path),
        (403, "forbidden".to_owned())
    );
    fault.cancel();
    assert_eq!(ask(&limited, "DELETE", &path).0, 202);
}

#[test]
fn joining_needs_the_name_too_and_asking_again_does_not() {
    let place = place();
    let gateway = place.start();
    let (limited, all) = (gateway.client_with("limited"), gateway.client_with("all"));
    // Pauses that do not end by themselves.
    let stuck = |name: &str| {
        let id = place.cloud.add_oms(OmsSpec::new(name, 1));
        (format!("/tasks/{id}/pause"), id)
    };
    let (web, _) = stuck("web");
    let (status, first) = ask(&all, "POST", &web);
    assert_eq!(status, 202, "{first}");
    assert_eq!(ask(&limited, "POST", &web).0, 403);
    let seen = all.operation(first.trim_matches('"'));
    let events = seen["events"].to_string();
    assert!(!events.contains("joined"), "{events}");

    let (logs, id) = stuck("logs-1");
    let (_, first) = ask(&all, "POST", &logs);
    assert_eq!(ask(&limited, "POST", &logs), (202, first.clone()));
    // It is among the callers of this one, so that a fault of the look does not keep it from its
    // own.
    let broken = FaultKind::Answer(Answer::text(200, "text/plain", "no"));
    let _fault = place.cloud.fault(
        Fault::on(Service::Oms, Operation::Show, broken)
            .task(&id)
            .always(),
    );
    assert_eq!(ask(&limited, "POST", &logs), (202, first));
    // What takes over is something else, and is looked at.
    let (status, problem) = ask(&limited, "DELETE", &format!("/tasks/{id}?force=pause"));
    assert_eq!((status, problem.as_str()), (502, "upstream-malformed"));
}

#[test]
fn what_runs_on_a_task_is_told_to_those_only_who_may_change_tasks_of_its_name() {
    let place = place();
    let gateway = place.start();
    let (all, limited) = (gateway.client_with("all"), gateway.client_with("limited"));
    for (name, refused) in [("web", 403), ("logs-1", 409)] {
        // Half way to its pause, so that nothing comes to its end.
        let id = place.cloud.add_oms(OmsSpec::new(name, 7));
        assert_eq!(
            ask(&all, "DELETE", &format!("/tasks/{id}?force=pause")).0,
            202
        );
        for mark in ["", "?dry_run=true"] {
            for suffix in ["/pause", "/start"] {
                let answer = limited
                    .send(
                        "POST",
                        &format!("/tasks/{id}{suffix}{mark}"),
                        &[],
                        suffix
                            .contains("start")
                            .then(|| json!({"destination": {"access_key": "a", "secret_key": "b"}}))
                            .as_ref(),
                    )
                    .expect("an answer");
                assert_eq!(answer.status, refused, "{name} {suffix} {mark}: {answer:?}");
            }
        }
    }
}
