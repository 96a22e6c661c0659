//! Errors: one shape everywhere, for every route, and for whatever is sent there.

use std::{collections::BTreeSet, thread};

use migration_gateway::sandbox::{Fault, FaultKind, OmsSpec, Operation, Service};
use serde_json::{Value, json};

use crate::support::{
    gateway::{KEY, Place},
    http::Answer,
    raw, schema, wait_for,
};

const READER: &str = "permissions = [\"operations:read-all\"]\nprojects = [\"default\"]";

/// The routes of the document: path, method in lower case.
fn routes(document: &Value) -> Vec<(String, String)> {
    let paths = document["paths"].as_object().expect("paths");
    let routes = paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().expect("methods").keys();
        methods.map(move |method| (path.clone(), method.clone()))
    });
    routes.collect()
}

/// A path of the document with an id in it.
fn filled(path: &str) -> String {
    let id = if path.starts_with("/operations") {
        "op_01JGZ4K8W3M5N7P9R1T3V5X7Z9"
    } else {
        "7"
    };
    path.replace("{id}", id)
}

/// The answer is a problem as the document promises it for this route.
fn assert_promised(document: &Value, path: &str, method: &str, answer: &Answer) {
    answer.problem();
    let body = answer.json();
    let schema = json!({"$ref": "#/components/schemas/Problem"});
    assert_eq!(
        schema::faults(document, &schema, &body, ""),
        [""; 0],
        "{method} {path}: {body}"
    );
    assert_eq!(body["request_id"].as_str(), answer.header("x-request-id"));
    let promised = &document["paths"][path][method]["responses"][answer.status.to_string()];
    let described = promised["description"].as_str().expect("a promise");
    let slug = format!("`{}`", answer.problem());
    assert!(
        described.contains(&slug),
        "{method} {path}: {slug} is not in {described}"
    );
}

#[test]
fn every_route_answers_with_the_problems_that_the_document_promises() {
    let place = Place::new().caller("reader", "key-of-reader", READER);
    let gateway = place.start();
    let caller = gateway.client();
    let document = caller.get("/openapi.json").json();
    let mut kinds = BTreeSet::new();
    for (path, method) in routes(&document) {
        let (verb, filled) = (method.to_uppercase(), filled(&path));
        // These ask nobody who they are.
        let open = ["/livez", "/readyz", "/metrics", "/problems/{slug}"];
        if open.contains(&path.as_str()) {
            let asked = filled.replace("{slug}", "internal") + "?unknown=1";
            let answer = gateway.stranger().request(&verb, &asked);
            assert_eq!(answer.problem(), "invalid-request", "{answer:?}");
            assert_promised(&document, &path, &method, &answer);
            continue;
        }
        // What every route answers with while the gateway stops.
        let stopping = &document["paths"][&path][&method]["responses"]["503"]["description"];
        assert!(
            stopping.to_string().contains("`overloaded`"),
            "{verb} {path}"
        );
        let unknown_key = format!("{filled}?unknown=1");
        let answers = [
            gateway.stranger().request(&verb, &filled),
            gateway.client_with("key-of-reader").request(&verb, &filled),
            caller.request(&verb, &unknown_key),
            caller.request(&verb, &filled),
        ];
        let lacking = match path.as_str() {
            // Who may cancel depends on the operation alone, and this one is nobody's.
            "/operations/{id}/cancel" => 404,
            // What is malformed is told to those who may not start anything too.
            "/tasks/{id}/start" => 400,
            // Everybody who is known may ask who they are.
            "/whoami" => 200,
            _ => 403,
        };
        let expected = [401, lacking, 400];
        for (answer, status) in answers.iter().zip(expected) {
            assert_eq!(answer.status, status, "{verb} {filled}: {answer:?}");
        }
        for answer in answers.iter().filter(|answer| answer.status != 200) {
            assert_promised(&document, &path, &method, answer);
            kinds.insert(answer.problem());
        }
    }
    for (status, path, method) in [
        (2, "/tasks/{id}", "delete"),
        (5, "/tasks/{id}/pause", "post"),
    ] {
        let task = place.cloud.add_oms(OmsSpec::new("conflict", status));
        let answer = caller.request(&method.to_uppercase(), &path.replace("{id}", &task));
        assert_promised(&document, path, method, &answer);
        kinds.insert(answer.problem());
    }
    for kind in [
        "task-not-found",
        "operation-not-found",
        "task-in-progress",
        "task-finished",
    ] {
        assert!(kinds.contains(kind), "{kind} is not among {kinds:?}");
    }
}

#[test]
fn a_method_that_a_path_does_not_know_is_told_those_that_it_knows() {
    let place = Place::new();
    let gateway = place.start();
    let caller = gateway.client();
    let document = caller.get("/openapi.json").json();
    let mut paths: Vec<String> = routes(&document)
        .into_iter()
        .map(|(path, _)| path)
        .collect();
    paths.dedup();
    let known = |path: &str, method: &str| {
        let method = method.to_lowercase();
        let method = if method == "head" { "get" } else { &method };
        let is_page = !path.contains('{') && document["paths"].get(path).is_none();
        is_page && method == "get" || document["paths"][path].get(method).is_some()
    };
    paths.extend(["/openapi.json", "/docs", "/docs/"].map(str::to_owned));
    let methods = [
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "MOVE",
    ];
    for path in paths {
        let allow: Vec<&str> = methods
            .into_iter()
            .filter(|method| known(&path, method))
            .collect();
        for method in methods.into_iter().filter(|method| !known(&path, method)) {
            let answer = raw::send(gateway.authority(), method, &filled(&path));
            assert_eq!(answer.status, 405, "{method} {path}: {answer:?}");
            let line = format!("allow: {}\r\n", allow.join(", ").to_lowercase());
            assert!(answer.head.contains(&line), "{method} {path}: {answer:?}");
            if method != "HEAD" {
                assert_eq!(answer.problem(), "method-not-allowed", "{method} {path}");
            }
        }
    }
    assert!(place.cloud.requests().is_empty());
}

#[test]
fn paths_that_are_not_there_are_not_found_in_the_one_shape_of_errors() {
    let place = Place::new();
    let gateway = place.start();
    let caller = gateway.client();
    for path in [
        "/",
        "/nothing",
        "/tasks/",
        "//tasks",
        "/tasks//pause",
        "/tasks/7/",
        "/tasks/7/nothing",
        "/tasks/7/pause/x",
        "/operations/",
        "/operations/op_01JGZ4K8W3M5N7P9R1T3V5X7Z9/nothing",
        "/Tasks",
        "/livez/",
        "/docs/nothing.js",
        "/docs/../tasks",
        "/openapi.json/",
        "/favicon.ico",
        "/.well-known/openid-configuration",
    ] {
        for method in ["GET", "DELETE", "POST"] {
            let answer = raw::send(gateway.authority(), method, path);
            assert_eq!(answer.status, 404, "{method} {path}: {answer:?}");
            assert_eq!(answer.problem(), "not-found", "{method} {path}");
            assert!(answer.head.contains("application/problem+json"), "{path}");
            assert!(answer.head.contains("x-request-id: "), "{path}");
        }
    }
    assert_eq!(caller.get("/nothing").problem(), "not-found");
    assert!(place.cloud.requests().is_empty());
}

#[test]
fn an_error_of_the_framework_is_a_problem_too() {
    let place = Place::new();
    let gateway = place.start();
    let task = place.cloud.add_oms(OmsSpec::new("framework", 3));
    let post = |path: &str, rest: &str| {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {KEY}\r\nConnection: close\r\n{rest}"
        );
        raw::exchange(gateway.authority(), request.as_bytes())
    };
    let start = format!("/tasks/{task}/start");
    let json = "Content-Type: application/json\r\n";
    for (path, rest) in [
        (
            start.as_str(),
            format!("{json}Content-Length: 2\r\n\r\n{{x"),
        ),
        (&start, format!("{json}Content-Length: 4\r\n\r\nnull")),
        (&start, format!("{json}Content-Length: 2\r\n\r\n\u{fc}")),
        (
            &start,
            format!("{json}Transfer-Encoding: chunked\r\n\r\nzz\r\nx\r\n0\r\n\r\n"),
        ),
        (
            &start,
            format!("{json}Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{{}}"),
        ),
        (&start, format!("{json}Content-Length: 3\r\n\r\n{}", "[[[")),
        ("/tasks/%ff/pause", "Content-Length: 0\r\n\r\n".to_owned()),
        (
            "/tasks/7/pause?%ff=%ff",
            "Content-Length: 0\r\n\r\n".to_owned(),
        ),
        ("/tasks/7/pause", "Content-Length: 1\r\n\r\nx".to_owned()),
        (
            "/tasks/7/pause",
            "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n".to_owned(),
        ),
        (
            "/tasks/7/pause",
            "Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n".to_owned(),
        ),
        (
            "/tasks/7/pause",
            "Prefer: wait=\u{fc}\r\nContent-Length: 0\r\n\r\n".to_owned(),
        ),
    ] {
        let answer = post(path, &rest);
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (400, "invalid-request"),
            "{rest}"
        );
        assert!(
            answer.head.contains("application/problem+json"),
            "{answer:?}"
        );
    }
    assert!(place.cloud.requests().is_empty());
    // A body of no bytes is none, however it is sent.
    for rest in [
        "\r\n",
        "Content-Length: 0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let answer = post(&format!("/tasks/{task}/pause"), rest);
        assert_eq!(answer.status, 200, "{rest}: {answer:?}");
    }
}

/// What can go wrong at the cloud, the problem that it comes to, and the code that is told.
fn cloud_faults() -> Vec<(FaultKind, &'static str, &'static str)> {
    let told = FaultKind::error(400, "OMS.0064", "told-text");
    let untold = FaultKind::error(500, "APIGW.0999", "untold-text of user svc-migrate");
    vec![
        (
            FaultKind::error(500, "OMS.9999", "told-text"),
            "upstream-unavailable",
            "OMS.9999",
        ),
        (untold, "upstream-unavailable", "APIGW.0999"),
        (told, "upstream-rejected", "OMS.0064"),
        (FaultKind::throttled(), "upstream-throttled", "APIGW.0308"),
        (
            FaultKind::denied(Service::Oms),
            "upstream-forbidden",
            "OMS.0206",
        ),
        (
            FaultKind::HtmlPage { status: 502 },
            "upstream-unavailable",
            "",
        ),
        (
            FaultKind::HtmlPage { status: 200 },
            "upstream-malformed",
            "",
        ),
        (FaultKind::GarbledBody, "upstream-malformed", ""),
        (FaultKind::CutBody, "upstream-malformed", ""),
        (FaultKind::DropBeforeEffect, "upstream-unavailable", ""),
        (FaultKind::Hang, "upstream-timeout", ""),
        // The last one, since a service that refuses two tokens is left alone for a moment. It has
        // accepted others, so that they are dead, and the next login brings a better one.
        (
            FaultKind::token_refused(),
            "upstream-unavailable",
            "APIGW.0307",
        ),
    ]
}

#[test]
fn what_goes_wrong_at_the_cloud_is_told_without_its_texts_about_users_and_keys() {
    let place = Place::new();
    let gateway = place.start();
    let caller = gateway.client();
    let document = caller.get("/openapi.json").json();
    let task = place.cloud.add_oms(OmsSpec::new("faulty", 2));
    let path = format!("/tasks/{task}");
    for (kind, problem, code) in cloud_faults() {
        let what = format!("{kind:?}");
        let fault = Fault::on(Service::Oms, Operation::Show, kind).always();
        let fault = place.cloud.fault(fault);
        let answer = caller.get(&path);
        fault.cancel();
        assert!(fault.fired() > 0, "{what}: {answer:?}");
        assert_eq!(answer.problem(), problem, "{what}: {answer:?}");
        assert_promised(&document, "/tasks/{id}", "get", &answer);
        let waits = answer.header("retry-after").is_some();
        assert_eq!(waits, answer.status == 503, "{what}: {answer:?}");
        let body = answer.json();
        assert_eq!(body["sent"], "no", "{what}");
        for hidden in [
            "untold",
            "svc-migrate",
            "ratelimit",
            "127.0.0.1",
            "token must",
        ] {
            assert!(!answer.text.contains(hidden), "{what}: {answer:?}");
        }
        assert_eq!(
            body["upstream"]["error_code"].as_str().unwrap_or_default(),
            code,
            "{what}"
        );
        let is_told = body["upstream"]["error_msg"].is_string();
        assert_eq!(is_told, code.starts_with("OMS."), "{what}: {answer:?}");
    }
    wait_for("a token that is accepted", || {
        (caller.get(&path).status == 200).then_some(())
    });
}

#[test]
fn a_service_that_has_accepted_no_token_refuses_the_gateway() {
    let place = Place::new();
    let refused = Fault::on(Service::Oms, Operation::Show, FaultKind::token_refused());
    let refused = place.cloud.fault(refused.always());
    let gateway = place.start();
    let caller = gateway.client();
    let document = caller.get("/openapi.json").json();
    let answer = caller.get("/tasks/7");
    assert_eq!(answer.problem(), "credentials-refused", "{answer:?}");
    assert_promised(&document, "/tasks/{id}", "get", &answer);
    assert_eq!(answer.json()["upstream"]["error_code"], "APIGW.0307");
    assert!(answer.text.contains("region"), "{answer:?}");
    assert_eq!(refused.fired(), 2, "one more token, and no more");
}

#[test]
fn a_body_that_never_arrives_does_not_keep_a_request_for_ever() {
    let place = Place::new();
    let gateway = place.start();
    let task = place.cloud.add_oms(OmsSpec::new("stalled", 3));
    let stalled = &|rest: &str| {
        let request = format!(
            "POST /tasks/{task}/{rest}\r\nHost: gateway\r\nAuthorization: Bearer {KEY}\r\n\
             Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        raw::exchange(gateway.authority(), request.as_bytes())
    };
    thread::scope(|scope| {
        let stalling =
            ["start HTTP/1.1", "pause HTTP/1.1"].map(|rest| scope.spawn(move || stalled(rest)));
        for one in stalling {
            let answer = one.join().expect("an answer");
            assert_eq!(
                (answer.status, answer.problem().as_str()),
                (400, "invalid-request")
            );
            assert!(answer.body.contains("in time"), "{answer:?}");
        }
    });
}
