//! One thing goes wrong: every kind of fault, at every step of the main job and around it.

use std::{thread, time::Duration};

use migration_gateway::sandbox::{
    Answer, Cloud, Fault, FaultHandle, FaultKind, OmsSpec, Operation, Service, SmsSpec,
};
use serde_json::json;

use crate::support::{gateway::Place, http::Client, wait_for};

/// A fault, whether the request that it meets has its effect, and how often that request is sent in
/// all.
struct Case {
    name: &'static str,
    kind: FaultKind,
    has_effect: bool,
}

fn case(name: &'static str, kind: FaultKind) -> Case {
    Case {
        name,
        kind,
        has_effect: false,
    }
}

fn with_effect(name: &'static str, kind: FaultKind) -> Case {
    Case {
        has_effect: true,
        ..case(name, kind)
    }
}

/// Everything that can go wrong once and must not matter.
fn cases(cloud: &Cloud, service: Service) -> Vec<Case> {
    let error = |status, code| FaultKind::error(status, code, "It did not work.");
    let answer = |status| FaultKind::Answer(Answer::json(status, &json!({})));
    let bare = |status, body: serde_json::Value| FaultKind::Answer(Answer::json(status, &body));
    let page = |status| FaultKind::HtmlPage { status };
    let raw = |text: &str| FaultKind::Raw(text.as_bytes().to_vec());
    let (unavailable, gone) = match service {
        Service::Sms => ("SMS.2007", "SMS.7703"),
        Service::Oms | Service::Iam => ("OMS.2004", "OMS.1009"),
    };
    let throttled = Answer::error(429, "APIGW.0308", "Slow down.").header("Retry-After", "1");
    let failed_after = FaultKind::AnswerAfterEffect(Answer::error(500, "APIGW.0201", "No."));
    let mut cases = vec![
        case("500", answer(500)),
        case("502", answer(502)),
        case("503", error(503, unavailable)),
        case("429 with a wait", FaultKind::Answer(throttled)),
        case("429", FaultKind::throttled()),
        case("403", error(403, "APIGW.0302")),
        case("denied", FaultKind::denied(service)),
        case("400 of the gateway", error(400, "APIGW.0106")),
        case("404 of the gateway", error(404, "APIGW.0101")),
        case(
            "404 with a bare code",
            bare(404, json!({"error_code": "APIGW.0101"})),
        ),
        case(
            "404 with a list",
            bare(404, json!([{"error_code": "apig.0101"}])),
        ),
        case("gone by mistake", error(400, gone)),
        case("a page, 200", page(200)),
        case("a page, 502", page(502)),
        case("a page, 404", page(404)),
        case(
            "redirect",
            FaultKind::Redirect {
                status: 302,
                location: format!("{}/elsewhere", cloud.iam_url()),
            },
        ),
        case("hang", FaultKind::Hang),
        case("drop", FaultKind::DropBeforeEffect),
        case("nonsense", raw("\u{16}\u{3}\u{1}nonsense\r\n\r\n")),
        case("half a head", raw("HTTP/1.1 200 OK\r\nContent-Le")),
        case("no length", raw("HTTP/1.1 200 OK\r\n\r\n{}")),
        case("101", raw("HTTP/1.1 101 Switching Protocols\r\n\r\n")),
        with_effect("drop after", FaultKind::DropAfterEffect),
        with_effect("cut", FaultKind::CutBody),
        with_effect("garbled", FaultKind::GarbledBody),
        with_effect("500 after", failed_after),
        with_effect("hang after", FaultKind::HangAfterEffect),
        with_effect("delay", FaultKind::Delay(Duration::from_millis(100))),
        with_effect(
            "100",
            FaultKind::Prefix(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()),
        ),
        with_effect(
            "103",
            FaultKind::Prefix(b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n".to_vec()),
        ),
    ];
    if service == Service::Oms {
        cases.push(case("OMS.1001", error(400, "OMS.1001")));
        cases.push(case("OMS.0063", error(400, "OMS.0063")));
    } else {
        cases.push(case("an old 401", error(401, "SMS.2005")));
    }
    cases
}

fn add_running(cloud: &Cloud, service: Service) -> String {
    match service {
        Service::Sms => cloud.add_sms(SmsSpec::new("web", "RUNNING")),
        Service::Oms | Service::Iam => cloud.add_oms(OmsSpec::new("logs", 2)),
    }
}

fn state_of(cloud: &Cloud, id: &str) -> Option<String> {
    let status = cloud.oms_status(id).map(|status| status.to_string());
    status.or_else(|| cloud.sms_state(id))
}

fn force_delete(client: &Client, id: &str) -> crate::support::http::Answer {
    client.delete(&format!("/tasks/{id}?force=pause"))
}

/// A task, the fault that waits for it, and how often each change should be sent in all.
struct Trial {
    name: String,
    id: String,
    fault: FaultHandle,
    pauses: usize,
    deletes: usize,
}

fn trials(cloud: &Cloud, service: Service, at: Operation) -> Vec<Trial> {
    let set_up = |case: Case| {
        let id = add_running(cloud, service);
        // The first look belongs to the request; polls come after it.
        let skip = u32::from(at == Operation::Show);
        let fault = Fault::on(service, at, case.kind).task(&id).skip(skip);
        let repeated = |step| usize::from(at == step && !case.has_effect);
        Trial {
            name: format!("{service:?} {at:?} {}", case.name),
            fault: cloud.fault(fault),
            pauses: 1 + repeated(Operation::Pause),
            deletes: 1 + repeated(Operation::Delete),
            id,
        }
    };
    cases(cloud, service).into_iter().map(set_up).collect()
}

#[test]
fn no_single_fault_keeps_the_main_job_from_its_end() {
    let place = Place::new().set("upstream.request_timeout", "\"500ms\"");
    let gateway = place.start();
    let cloud = &place.cloud;
    // A token that works, so that the faults meet an ordinary day.
    assert_eq!(gateway.client().get("/tasks").status, 200);
    let mut all = Vec::new();
    for service in [Service::Oms, Service::Sms] {
        for at in [Operation::Show, Operation::Pause, Operation::Delete] {
            all.extend(trials(cloud, service, at));
        }
    }
    thread::scope(|scope| {
        for trial in &all {
            let client = gateway.client();
            scope.spawn(move || {
                let answer = force_delete(&client, &trial.id);
                let name = &trial.name;
                assert_eq!(answer.status, 200, "{name}: {answer:?}");
                assert_eq!(answer.json()["outcome"], "deleted", "{name}: {answer:?}");
                assert_eq!(trial.fault.fired(), 1, "{name}: {answer:?}");
                let count = |operation| cloud.count(operation, Some(&trial.id));
                assert_eq!(count(Operation::Pause), trial.pauses, "{name}: {answer:?}");
                assert_eq!(
                    count(Operation::Delete),
                    trial.deletes,
                    "{name}: {answer:?}"
                );
                assert_eq!(state_of(cloud, &trial.id), None, "{name}");
            });
        }
    });
    assert_eq!(
        cloud.count(Operation::Other, None),
        0,
        "a redirect was followed"
    );
    assert_eq!(
        cloud.tokens_issued(),
        1,
        "a fault was taken for a dead token"
    );
}

#[test]
fn a_token_that_is_called_dead_is_replaced_at_once_at_every_step() {
    let place = Place::new();
    let gateway = place.start();
    let cloud = &place.cloud;
    assert_eq!(gateway.client().get("/tasks").status, 200);
    let mut tokens = 1;
    for service in [Service::Oms, Service::Sms] {
        for at in [Operation::Show, Operation::Pause, Operation::Delete] {
            for code in ["APIGW.0307", "APIGW.0301", "APIG.0305"] {
                let id = add_running(cloud, service);
                let dead = FaultKind::error(401, code, "No.");
                let fault = cloud.fault(
                    Fault::on(service, at, dead)
                        .task(&id)
                        .skip(u32::from(at == Operation::Show)),
                );
                let answer = force_delete(&gateway.client(), &id);
                assert_eq!(answer.status, 200, "{at:?} {code}: {answer:?}");
                assert_eq!(fault.fired(), 1, "{at:?} {code}");
                assert!(!answer.text.contains("\"fault\""), "{answer:?}");
                tokens += 1;
                assert_eq!(cloud.tokens_issued(), tokens, "{at:?} {code}");
            }
        }
    }
}

#[test]
fn tokens_that_are_revoked_in_the_middle_are_replaced_without_a_trace() {
    let place = Place::new();
    let gateway = place.start();
    let cloud = &place.cloud;
    let ids: Vec<String> = [Service::Oms, Service::Sms]
        .repeat(15)
        .into_iter()
        .map(|service| add_running(cloud, service))
        .collect();
    thread::scope(|scope| {
        for id in &ids {
            let client = gateway.client();
            scope.spawn(move || {
                let answer = force_delete(&client, id);
                assert_eq!(answer.status, 200, "{answer:?}");
                assert!(!answer.text.contains("\"fault\""), "{answer:?}");
            });
        }
        wait_for("half of the pauses", || {
            (cloud.count(Operation::Pause, None) >= 15).then_some(())
        });
        cloud.revoke_tokens();
    });
    assert_eq!(cloud.tokens_issued(), 2);
}

#[test]
fn a_fault_at_the_first_look_refuses_nothing() {
    let place = Place::new().set("upstream.request_timeout", "\"500ms\"");
    let gateway = place.start();
    let cloud = &place.cloud;
    assert_eq!(gateway.client().get("/tasks").status, 200);
    thread::scope(|scope| {
        for service in [Service::Oms, Service::Sms] {
            for case in cases(cloud, service) {
                // A definite "no such task" does refuse.
                if case.name == "gone by mistake" {
                    continue;
                }
                let client = gateway.client();
                scope.spawn(move || {
                    let id = add_running(cloud, service);
                    let fault = Fault::on(service, Operation::Show, case.kind).task(&id);
                    let fault = cloud.fault(fault);
                    let answer = force_delete(&client, &id);
                    assert_eq!(answer.status, 200, "{service:?} {}: {answer:?}", case.name);
                    assert_eq!(fault.fired(), 1, "{service:?} {}", case.name);
                });
            }
        }
    });
}

#[test]
fn a_fault_at_a_list_is_the_problem_of_that_page() {
    let place = Place::new().set("upstream.request_timeout", "\"500ms\"");
    let gateway = place.start();
    let cloud = &place.cloud;
    cloud.seed();
    let client = gateway.client();
    assert_eq!(client.get("/tasks").status, 200);
    let throttled = Answer::error(429, "APIGW.0308", "Slow down.").header("Retry-After", "7");
    let faults = [
        (FaultKind::Hang, 504, "upstream-timeout"),
        (FaultKind::DropBeforeEffect, 502, "upstream-unavailable"),
        (
            FaultKind::Answer(Answer::empty(503)),
            502,
            "upstream-unavailable",
        ),
        (FaultKind::CutBody, 502, "upstream-malformed"),
        (FaultKind::GarbledBody, 502, "upstream-malformed"),
        (
            FaultKind::HtmlPage { status: 200 },
            502,
            "upstream-malformed",
        ),
        (FaultKind::Answer(throttled), 503, "upstream-throttled"),
        (
            FaultKind::error(403, "APIGW.0302", "Secret."),
            502,
            "upstream-forbidden",
        ),
    ];
    for service in [Service::Oms, Service::Sms] {
        for (kind, status, slug) in faults.clone() {
            // For ever, since a read may be sent again when a kept connection turns out to be lost.
            let fault = cloud.fault(Fault::on(service, Operation::List, kind).always());
            let answer = client.get("/tasks");
            assert!(fault.fired() > 0, "{service:?} {slug}");
            fault.cancel();
            assert_eq!(answer.status, status, "{service:?} {slug}: {answer:?}");
            assert_eq!(answer.problem(), slug, "{answer:?}");
            assert_eq!(answer.json()["sent"], "no", "{answer:?}");
            if slug == "upstream-throttled" {
                assert_eq!(answer.header("retry-after"), Some("7"));
            }
            let name = format!("{service:?}").to_lowercase();
            assert!(
                answer.json()["detail"]
                    .as_str()
                    .is_some_and(|text| text.contains(&name)),
                "{answer:?}"
            );
            assert_eq!(client.get("/tasks").status, 200);
        }
    }
}

#[test]
fn a_fault_at_the_login_delays_the_main_job_and_does_not_end_it() {
    let token = "x".repeat(40);
    let nonsense = |header: &str| {
        FaultKind::Answer(Answer::json(201, &json!({"token": 1})).header(header, &token))
    };
    let faults = [
        FaultKind::Hang,
        FaultKind::Answer(Answer::empty(500)),
        nonsense("X-Subject-Token"),
        nonsense("X-Other"),
        FaultKind::CutBody,
        FaultKind::DropBeforeEffect,
        FaultKind::Prefix(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()),
        FaultKind::HtmlPage { status: 403 },
    ];
    thread::scope(|scope| {
        for kind in faults {
            scope.spawn(move || {
                let place = Place::new()
                    .set("upstream.request_timeout", "\"500ms\"")
                    .set("server.workers", "1");
                let gateway = place.start();
                let name = format!("{kind:?}");
                let fault = Fault::on(Service::Iam, Operation::Login, kind);
                let fault = place.cloud.fault(fault);
                let id = add_running(&place.cloud, Service::Oms);
                let answer = force_delete(&gateway.client(), &id);
                assert_eq!(answer.status, 200, "{name}: {answer:?}");
                assert_eq!(fault.fired(), 1, "{name}");
                assert_eq!(place.cloud.count(Operation::Login, None), 2, "{name}");
                assert_eq!(place.cloud.count(Operation::Delete, None), 1, "{name}");
            });
        }
    });
}
