//! `GET /status`: what operators see of credentials and services, and what they do not.

use migration_gateway::sandbox::{Answer, Fault, FaultKind, OmsSpec, Operation, Service};
use serde_json::{Value, json};

use crate::support::{
    gateway::{Gateway, Place},
    schema, wait_for,
};

const OTHER: (&str, &str) = ("8b0c6a30cfa04b2a9f4ce1fd9a8a8f11", "cn-east-3");

/// The one credential that the caller who may do everything sees.
fn credential(gateway: &Gateway) -> Value {
    let answer = gateway.client().get("/status");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["projects"][0]["credential"].clone()
}

#[test]
fn a_credential_is_idle_until_somebody_needs_it_and_then_ok() {
    let place = Place::new();
    let gateway = place.start();
    assert_eq!(
        credential(&gateway),
        json!({
            "kind": "password", "state": "idle", "usable_until": null,
            "last_login_at": null, "last_error": null,
        })
    );
    assert!(place.cloud.requests().is_empty(), "the cloud was asked");
    let task = place.cloud.add_oms(OmsSpec::new("seen", 3));
    assert_eq!(gateway.client().get(&format!("/tasks/{task}")).status, 200);
    let shown = credential(&gateway);
    assert_eq!(shown["state"], "ok", "{shown}");
    assert_eq!(shown["last_error"], Value::Null);
    let moment = |name: &str| -> jiff::Timestamp {
        let text = shown[name].as_str().expect("a moment");
        text.parse().expect("a moment")
    };
    let serves = moment("usable_until").duration_since(moment("last_login_at"));
    assert!((23..24).contains(&serves.as_hours()), "{shown}");
    assert_eq!(place.cloud.count(Operation::Login, None), 1);
}

#[test]
fn a_refused_login_shows_with_its_code_and_the_next_good_one_mends_it() {
    let place = Place::new();
    let gateway = place.start();
    let written = place.cloud.account().password;
    place.cloud.set_password("canary-password-of-the-cloud");
    assert_eq!(gateway.client().get("/tasks/7").status, 502);
    let shown = credential(&gateway);
    assert_eq!(shown["state"], "refused", "{shown}");
    assert_eq!(shown["usable_until"], Value::Null);
    assert_eq!(shown["last_login_at"], Value::Null);
    let error = &shown["last_error"];
    assert_eq!(error["type"], "/problems/credentials-refused", "{shown}");
    assert_eq!(error["upstream"]["service"], "iam");
    assert_eq!(error["upstream"]["status"], 401);
    assert!(error["upstream"]["error_code"].is_string(), "{shown}");
    assert!(error["at"].is_string(), "{shown}");

    place.cloud.set_password(&written);
    wait_for("a login", || {
        (gateway.client().get("/tasks/7").status == 404).then_some(())
    });
    let mended = credential(&gateway);
    assert_eq!(mended["state"], "ok", "{mended}");
    assert_eq!(mended["last_error"]["type"], error["type"], "{mended}");
}

#[test]
fn a_refused_password_shows_as_refused_for_as_long_as_it_rests() {
    let place = Place::new();
    let gateway = place.start();
    place.cloud.set_password("canary-password-of-the-cloud");
    let mut remembered = 0;
    wait_for("two refusals, and the memory of them", || {
        assert_eq!(gateway.client().get("/tasks/7").status, 502);
        let shown = credential(&gateway);
        assert_eq!(shown["state"], "refused", "{shown}");
        remembered += u32::from(place.cloud.count(Operation::Login, None) == 2);
        (remembered > 3).then_some(())
    });
    assert_eq!(place.cloud.count(Operation::Login, None), 2);
}

#[test]
fn a_token_service_that_does_not_answer_is_no_refusal() {
    let place = Place::new();
    let gateway = place.start();
    let busy = FaultKind::Answer(Answer::json(503, &json!({})));
    let busy = Fault::on(Service::Iam, Operation::Login, busy);
    let busy = place.cloud.fault(busy.always());
    assert_eq!(gateway.client().get("/tasks/7").status, 502);
    assert!(busy.fired() > 0, "the fault was not met");
    let shown = credential(&gateway);
    assert_eq!(shown["state"], "unavailable", "{shown}");
    assert_eq!(
        shown["last_error"]["type"],
        "/problems/upstream-unavailable"
    );
}

#[test]
fn a_service_that_refuses_a_fresh_token_shows_as_a_refusal_of_the_credential() {
    let place = Place::new();
    let gateway = place.start();
    let dead = FaultKind::error(401, "APIGW.0307", "The token must be updated.");
    let dead = Fault::on(Service::Oms, Operation::Show, dead);
    let fault = place.cloud.fault(dead.always());
    assert_eq!(
        gateway.client().get("/tasks/7").problem(),
        "credentials-refused"
    );
    assert!(fault.fired() > 0, "the fault was not met");
    let shown = credential(&gateway);
    assert_eq!(shown["state"], "refused", "{shown}");
    assert!(shown["last_login_at"].is_string(), "{shown}");
    let upstream = &shown["last_error"]["upstream"];
    assert_eq!(upstream["service"], "oms", "{shown}");
    assert_eq!(upstream["error_code"], "APIGW.0307", "{shown}");
}

#[test]
fn a_service_that_fails_again_and_again_shows_as_left_alone_and_one_that_throttles_as_slowed_down()
{
    let place = Place::new();
    let gateway = place.start();
    let client = gateway.client();
    let service =
        |index: usize| client.get("/status").json()["projects"][0]["services"][index].clone();
    assert_eq!(
        service(0),
        json!({
            "service": "oms",
            "breaker": {"state": "closed", "open_until": null},
            "pacer": {
                "requests_per_second": 1000.0, "requests_per_second_max": 1000.0,
                "paused_until": null, "waiting": 0,
            },
        })
    );
    let broken = FaultKind::Answer(Answer::json(503, &json!({})));
    place
        .cloud
        .fault(Fault::on_any(Service::Oms, broken).always());
    wait_for("the breaker to open", || {
        client.get("/tasks/7");
        let breaker = service(0)["breaker"].clone();
        (breaker["state"] == "open" && breaker["open_until"].is_string()).then_some(())
    });
    let throttled = Answer::error(429, "APIGW.0308", "Slow down.").header("Retry-After", "20");
    let throttled = FaultKind::Answer(throttled);
    place.cloud.fault(Fault::on_any(Service::Sms, throttled));
    client.get("/tasks/a-7");
    let pacer = service(1)["pacer"].clone();
    assert!(pacer["paused_until"].is_string(), "{pacer}");
    assert!(
        pacer["requests_per_second"].as_f64() < pacer["requests_per_second_max"].as_f64(),
        "{pacer}"
    );
    assert_eq!(service(1)["breaker"]["state"], "closed");
}

#[test]
fn only_projects_and_services_of_the_caller_are_shown() {
    let grant = |projects: &str, services: &str| {
        format!("permissions = [\"status:read\"]\nprojects = [{projects}]\nservices = [{services}]")
    };
    let place = Place::new()
        .project("other", OTHER.0, OTHER.1)
        .caller("there", "there", &grant("\"other\"", "\"*\""))
        .caller("oms", "oms", &grant("\"*\"", "\"oms\""))
        .set("access.anonymous", "[\"status:read\"]");
    let gateway = place.start();
    let all = json!(["oms", "sms"]);
    for (client, expected) in [
        (gateway.client(), vec![("default", &all), ("other", &all)]),
        (gateway.stranger(), vec![("default", &all), ("other", &all)]),
        (gateway.client_with("there"), vec![("other", &all)]),
        (
            gateway.client_with("oms"),
            vec![("default", &json!(["oms"])), ("other", &json!(["oms"]))],
        ),
    ] {
        let shown = client.get("/status").json();
        let projects = shown["projects"].as_array().expect("projects");
        assert_eq!(projects.len(), expected.len(), "{shown}");
        for (project, (name, services)) in projects.iter().zip(expected) {
            assert_eq!(project["project"], name, "{shown}");
            let shown = project["services"].as_array().expect("services");
            let names: Value = shown.iter().map(|one| one["service"].clone()).collect();
            assert_eq!(&names, services);
        }
    }
}

#[test]
fn the_answer_is_as_the_document_says_and_names_neither_users_nor_places() {
    let place = Place::new();
    let gateway = place.start();
    let client = gateway.client();
    let document = client.get("/openapi.json").json();
    let schema = json!({"$ref": "#/components/schemas/Status"});
    place.cloud.set_password("canary-password-of-the-cloud");
    let account = place.cloud.account();
    for _ in 0..2 {
        let answer = client.get("/status");
        assert_eq!(
            schema::faults(&document, &schema, &answer.json(), ""),
            [""; 0],
            "{answer:?}"
        );
        for hidden in [
            account.domain.as_str(),
            &account.user,
            &account.project_id,
            &account.password,
            "127.0.0.1",
        ] {
            assert!(!answer.text.contains(hidden), "{hidden}: {answer:?}");
        }
        // Once more, with an error to show.
        assert_eq!(client.get("/tasks/7").status, 502);
    }
}

#[test]
fn a_head_is_answered_and_other_methods_and_parameters_are_not() {
    let gateway = Place::new().start();
    let client = gateway.client();
    let head = client.request("HEAD", "/status");
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    let other = client.post("/status");
    assert_eq!(
        (other.status, other.problem().as_str()),
        (405, "method-not-allowed")
    );
    assert_eq!(other.header("allow"), Some("GET, HEAD"));
    assert_eq!(
        client.get("/status?project=default").problem(),
        "invalid-request"
    );
}
