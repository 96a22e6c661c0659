//! Reading tasks: the list over both services, one task, and what a request may say.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD};
use migration_gateway::sandbox::{
    Answer as CloudAnswer, Fault, FaultKind, OmsSpec, Operation, Service, SmsSpec,
};
use serde_json::{Value, json};

use crate::support::{gateway::Place, http::Client, schema};

const OTHER_ID: &str = "8b0c6a30cfa04b2a9f4ce1fd9a8a8f11";

fn rows(page: &Value) -> Vec<String> {
    let rows = page["tasks"].as_array().expect("rows").iter();
    rows.map(|row| row["id"].as_str().expect("an id").to_owned())
        .collect()
}

/// Every page of a list, by its tokens.
fn pages(caller: &Client, query: &str) -> Vec<Vec<String>> {
    let (mut pages, mut token) = (Vec::new(), String::new());
    loop {
        let answer = caller.get(&format!("/tasks?{query}{token}"));
        assert_eq!(answer.status, 200, "{query}: {answer:?}");
        pages.push(rows(&answer.json()));
        match answer.json()["next_page_token"].as_str() {
            Some(next) => token = format!("&page_token={next}"),
            None => return pages,
        }
        assert!(pages.len() < 500, "{query} does not end");
    }
}

/// Seven tasks of OMS and five of SMS, in the order of the list: OMS first, and in each the newest
/// first.
fn mixed(place: &Place) -> Vec<String> {
    let mut oms: Vec<String> = (0..7)
        .map(|n| {
            place
                .cloud
                .add_oms(OmsSpec::new(&format!("bucket-{n}"), [2, 3][n % 2]))
        })
        .collect();
    let mut sms: Vec<String> = (0..5)
        .map(|n| {
            place.cloud.add_sms(SmsSpec::new(
                &format!("server-{n}"),
                ["RUNNING", "ABORT"][n % 2],
            ))
        })
        .collect();
    oms.reverse();
    sms.reverse();
    oms.append(&mut sms);
    oms
}

#[test]
fn the_list_goes_over_both_services_page_by_page_and_misses_nothing() {
    let place = Place::new();
    let gateway = place.start();
    let caller = gateway.client();
    let all = mixed(&place);
    for size in [1, 2, 3, 5, 6, 7, 8, 11, 12, 13, 200] {
        let pages = pages(&caller, &format!("page_size={size}"));
        assert_eq!(pages.concat(), all, "page_size={size}");
        assert!(pages.iter().all(|page| page.len() <= size), "{pages:?}");
    }
    assert_eq!(rows(&caller.get("/tasks").json()), all);
    assert_eq!(pages(&caller, "service=oms&page_size=3").concat(), all[..7]);
    assert_eq!(pages(&caller, "service=sms&page_size=3").concat(), all[7..]);
    let states = |query: &str| {
        let list = caller.get(query).json();
        let rows = list["tasks"].as_array().expect("rows").clone();
        rows.into_iter()
            .map(|row| row["state"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(states("/tasks?state=paused"), vec![json!("paused"); 5]);
    assert_eq!(
        states("/tasks?state=running&service=sms"),
        vec![json!("running"); 3]
    );
    for (filter, expected) in [
        ("name=server", all[7..].to_vec()),
        ("name=bucket-3", vec![all[3].clone()]),
        ("name=-3", vec![all[3].clone(), all[8].clone()]),
        (
            "name=bucket&state=paused",
            vec![all[1].clone(), all[3].clone(), all[5].clone()],
        ),
        ("name=SERVER", vec![]),
        ("state=deleting", vec![]),
    ] {
        for size in [1, 2, 50] {
            let found = pages(&caller, &format!("{filter}&page_size={size}")).concat();
            assert_eq!(found, expected, "{filter} by {size}");
        }
    }
}

#[test]
fn a_token_belongs_to_the_filters_that_it_came_with() {
    let place = Place::new().project("other", OTHER_ID, "cn-east-3");
    let gateway = place.start();
    let caller = gateway.client();
    mixed(&place);
    let first = caller.get("/tasks?page_size=2&name=bucket").json();
    let token = first["next_page_token"].as_str().expect("a token");
    // The size of a page is no filter.
    let next = caller.get(&format!(
        "/tasks?page_size=3&name=bucket&page_token={token}"
    ));
    assert_eq!((next.status, rows(&next.json()).len()), (200, 3));
    for other in [
        "",
        "name=bucke",
        "name=bucket&state=paused",
        "name=bucket&service=oms",
        "name=bucket&project=other",
    ] {
        let answer = caller.get(&format!("/tasks?{other}&page_token={token}"));
        assert_eq!(answer.problem(), "invalid-request", "{other}");
        assert_eq!(
            answer.json()["errors"][0]["pointer"],
            "/page_token",
            "{other}"
        );
    }
    for broken in ["", "x", "e30", &token[1..], &format!("{token}A"), "%00"] {
        let answer = caller.get(&format!("/tasks?name=bucket&page_token={broken}"));
        assert_eq!(answer.problem(), "invalid-request", "{broken}");
    }
}

#[test]
fn a_token_that_no_page_can_have_given_is_a_fault_of_the_request() {
    let place = Place::new();
    let gateway = place.start();
    let caller = gateway.client();
    mixed(&place);
    let first = caller.get("/tasks?page_size=2").json();
    let token = first["next_page_token"].as_str().expect("a token");
    let token = URL_SAFE_NO_PAD.decode(token).expect("base64");
    let token: Value = serde_json::from_slice(&token).expect("JSON");
    let ask = |change: Value| {
        let mut forged = token.clone();
        for (name, value) in change.as_object().expect("an object") {
            forged[name] = value.clone();
        }
        let forged = URL_SAFE_NO_PAD.encode(forged.to_string());
        caller.get(&format!("/tasks?page_size=2&page_token={forged}"))
    };
    place.cloud.clear_requests();
    for absurd in [
        json!({"o": u64::MAX}),
        json!({"o": 2_147_483_648_u64}),
        json!({"s": "sms", "o": 65_536}),
        json!({"o": -1}),
        json!({"o": 1.5}),
        json!({"z": 1}),
    ] {
        let answer = ask(absurd.clone());
        assert_eq!(answer.status, 400, "{absurd}: {answer:?}");
        assert_eq!(answer.json()["errors"][0]["pointer"], "/page_token");
    }
    assert!(place.cloud.requests().is_empty());
    // The last places that can be asked for are behind the end.
    for last in [
        json!({"o": 2_147_483_647}),
        json!({"s": "sms", "o": 65_535}),
    ] {
        assert_eq!(ask(last).status, 200);
    }
}

#[test]
fn a_filter_that_hardly_anything_passes_gives_short_pages_and_bounded_work() {
    let place = Place::new();
    let gateway = place.start();
    let needle = place.cloud.add_oms(OmsSpec::new("needle", 3));
    for n in 0..1100 {
        place.cloud.add_oms(OmsSpec::new(&format!("hay-{n}"), 3));
    }
    let caller = gateway.client();
    let first = caller.get("/tasks?name=needle").json();
    assert_eq!(rows(&first).len(), 0);
    assert_eq!(place.cloud.count(Operation::List, None), 10);
    assert!(first["next_page_token"].is_string());
    assert_eq!(pages(&caller, "name=needle").concat(), [needle]);
}

#[test]
fn a_service_that_is_down_fails_the_page_with_its_problem() {
    let place = Place::new();
    let gateway = place.start();
    mixed(&place);
    let fault = Fault::on(
        Service::Sms,
        Operation::List,
        FaultKind::error(500, "SMS.9999", "broken"),
    );
    let fault = place.cloud.fault(fault.always());
    let answer = gateway.client().get("/tasks");
    assert_eq!(answer.problem(), "upstream-unavailable");
    assert_eq!(answer.json()["upstream"]["service"], "sms");
    assert!(fault.fired() > 0);
    assert_eq!(gateway.client().get("/tasks?service=oms").status, 200);
}

#[test]
fn a_task_is_shown_with_what_its_service_tells_and_null_for_the_rest() {
    let place = Place::new();
    let gateway = place.start();
    let caller = gateway.client();
    let document = caller.get("/openapi.json").json();
    let schema = json!({"$ref": "#/components/schemas/Task"});
    let oms = place.cloud.add_oms(OmsSpec {
        done: 500,
        ..OmsSpec::new("logs-2026", 2)
    });
    let sms = place.cloud.add_sms(SmsSpec::new("web", "READY"));
    let failed = place.cloud.add_oms(OmsSpec::new("failed", 4));
    for id in [&oms, &sms, &failed] {
        for view in ["", "?view=full"] {
            let shown = caller.get(&format!("/tasks/{id}{view}")).json();
            assert_eq!(schema::faults(&document, &schema, &shown, ""), [""; 0]);
            assert_eq!(shown.get("details").is_some(), view == "?view=full");
        }
    }
    let shown = caller.get(&format!("/tasks/{oms}")).json();
    assert_eq!(
        (&shown["service"], &shown["project"]),
        (&json!("oms"), &json!("default"))
    );
    assert_eq!(
        (&shown["name"], &shown["error"]),
        (&json!("logs-2026"), &Value::Null)
    );
    assert_eq!(shown["bytes"]["total"], 73_400_320_000_u64);
    assert_eq!(shown["objects"]["total"], 12_000);
    let progress = shown["progress"].as_f64().expect("a number");
    assert!((0.5..0.6).contains(&progress), "{progress}");
    let shown = caller.get(&format!("/tasks/{failed}")).json();
    assert_eq!(shown["error"]["code"], "TRF.0155");
    let shown = caller.get(&format!("/tasks/{sms}")).json();
    for unknown in [
        "bytes",
        "objects",
        "progress",
        "started_at",
        "error",
        "operation",
    ] {
        assert_eq!(shown[unknown], Value::Null, "{unknown}");
    }
    let list = caller.get("/tasks").json();
    let schema = json!({"$ref": "#/components/schemas/TaskList"});
    assert_eq!(schema::faults(&document, &schema, &list, ""), [""; 0]);
    for missing in ["1", "a-1"] {
        let answer = caller.get(&format!("/tasks/{missing}"));
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (404, "task-not-found")
        );
    }
}

#[test]
fn the_vendors_document_comes_without_members_that_are_named_like_secrets() {
    let place = Place::new();
    let gateway = place.start();
    let task = place.cloud.add_oms(OmsSpec::new("details", 3));
    let body = json!({
        "id": task.parse::<u64>().expect("a number"), "status": 3, "name": "details", "task_type": "prefix",
        "src_node": {"bucket": "b", "ak": "canary", "sk": "canary", "securityToken": "canary"},
        "list": [{"adminPassword": "canary", "plain": 1}],
        "text": "{\"secret_key\": \"canary\", \"kept\": true}",
    });
    let answer = FaultKind::Answer(CloudAnswer::json(200, &body));
    let fault = place
        .cloud
        .fault(Fault::on(Service::Oms, Operation::Show, answer));
    let shown = gateway.client().get(&format!("/tasks/{task}?view=full"));
    assert_eq!(fault.fired(), 1);
    assert!(!shown.text.contains("canary"), "{shown:?}");
    let details = &shown.json()["details"];
    assert_eq!(details["src_node"], json!({"bucket": "b"}));
    assert_eq!(details["list"], json!([{"plain": 1}]));
    assert!(
        details["text"]
            .as_str()
            .is_some_and(|text| text.contains("kept"))
    );
}
