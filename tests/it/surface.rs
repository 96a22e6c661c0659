//! The outermost layer: common headers, the document and its page, and what is sent to trick the
//! rest.

use std::collections::BTreeSet;

use migration_gateway::sandbox::{OmsSpec, Operation};
use serde_json::{Value, json};

use crate::support::{
    gateway::{KEY, Place},
    raw,
};

/// Where an id belongs, and none is.
#[rustfmt::skip]
const IDS: [&str; 44] = [
    "%2e%2e", "..", ".", "%2e", "..%2f..%2fv2", "%2e%2e%2f7", "7%2Fstop", "7%2fstop", "7%00", "%00",
    "7%0d%0aX:%20y", "7%0D%0A", "7%3Fforce=pause", "7%23", "7;a=b", "7;stop", "7%3B", "7%20", "%207", "7+",
    "7%2B", "%C3%BC", "%ff", "%EF%BC%97", "%252e%252e", "%2537", "%25", "%", "%7", "%zz", "7%5c", "7\\stop",
    "7|", "*", "~", "7.", "7:1", "@7", "$7", "{id}", "7%7F", "'7'", "\"7\"", "(7)",
];

/// Queries that say nothing that is known.
#[rustfmt::skip]
const QUERIES: [&str; 18] = [
    "service=oms%00", "service=oms%0d%0aX:y", "service=../oms", "project=..%2f", "project=default%3Fx",
    "x=%ff", "service=oms;project=default", "service[]=oms", "project=%E9%BB%98", "=", "&=&", "%",
    "service=%6fms&x", "?", "service=oms?", "project=DEFAULT", "project=%2564efault", "page_token=../..",
];

#[test]
fn tricks_in_a_path_or_a_query_reach_nobody_upstream() {
    let place = Place::new();
    let gateway = place.start();
    let long = "1".repeat(10_000);
    for id in IDS.into_iter().chain([long.as_str()]) {
        for (method, suffix) in [
            ("GET", ""),
            ("DELETE", "?force=pause"),
            ("POST", "/pause"),
            ("POST", "/start"),
        ] {
            let answer = raw::send(gateway.authority(), method, &format!("/tasks/{id}{suffix}"));
            assert!(
                [400, 404].contains(&answer.status),
                "{method} {id}{suffix}: {answer:?}"
            );
        }
        let answer = raw::send(gateway.authority(), "GET", &format!("/operations/{id}"));
        assert!([400, 404].contains(&answer.status), "{id}: {answer:?}");
    }
    for query in QUERIES {
        for path in ["/tasks", "/tasks/7"] {
            let answer = raw::send(gateway.authority(), "GET", &format!("{path}?{query}"));
            assert_eq!(
                (answer.status, answer.problem().as_str()),
                (400, "invalid-request"),
                "{query}"
            );
        }
    }
    assert!(
        place.cloud.requests().is_empty(),
        "{:?}",
        place.cloud.requests()
    );
    // What means a task by another spelling is the same task: one path is decided on and sent on.
    let task = place.cloud.add_oms(OmsSpec::new("spelled", 3));
    let spelled = format!("%3{}{}", &task[..1], &task[1..]);
    for target in [
        format!("/tasks/{spelled}"),
        format!("/%74asks/{task}"),
        format!("http://evil/tasks/{task}"),
    ] {
        place.cloud.clear_requests();
        let answer = raw::send(gateway.authority(), "GET", &target);
        let expected = format!("/{task}");
        for request in place
            .cloud
            .requests()
            .iter()
            .filter(|one| one.operation != Operation::Login)
        {
            assert!(request.path.ends_with(&expected), "{target}: {request:?}");
            assert_eq!(answer.status, 200, "{target}");
        }
    }
}

#[test]
fn no_key_of_a_query_is_ignored_where_anybody_may_ask() {
    let place = Place::new();
    let gateway = place.start();
    let stranger = gateway.stranger();
    for path in [
        "/livez",
        "/readyz",
        "/metrics",
        "/problems/internal",
        "/openapi.json",
        "/docs/",
        "/docs/index.css",
    ] {
        for query in ["x=1", "x", "x=1&x=1", "=", "%ff"] {
            let path = format!("{path}?{query}");
            let answer = stranger.get(&path);
            assert_eq!(
                (answer.status, answer.problem()),
                (400, "invalid-request".to_owned()),
                "{path}"
            );
            assert_eq!(stranger.request("HEAD", &path).status, 400, "{path}");
        }
        assert_eq!(stranger.get(&format!("{path}?")).status, 200, "{path}");
    }
    assert_eq!(stranger.get("/docs?x=1").status, 400);
}

#[test]
fn what_is_refused_before_it_is_a_request_has_a_bare_status() {
    let place = Place::new();
    let gateway = place.start();
    let send = |text: &str| raw::exchange(gateway.authority(), text.as_bytes());
    let line = "GET /livez HTTP/1.1\r\n";
    let head = &format!("{line}Host: x\r\nConnection: close\r\n");
    let post = "POST /tasks/7/pause HTTP/1.1\r\nHost: x\r\n";
    let lines = |count| "X: y\r\n".repeat(count);
    let target = |length| format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(length));
    let filled = |length: usize| format!("{head}X: {}", "y".repeat(length - head.len() - 3));
    for (status, text) in [
        (400, "nonsense\r\n\r\n".to_owned()),
        (400, "GET /livez HTTP/9.9\r\nHost: x\r\n\r\n".to_owned()),
        (400, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
        (400, format!("{line}Connection: close\r\n\r\n")),
        (431, target(16 << 10)),
        (
            400,
            format!("{post}Content-Length: 0\r\nContent-Length: 0\r\n\r\n"),
        ),
        (
            400,
            format!("{post}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ),
        (400, format!("{post}Transfer-Encoding: gzip\r\n\r\n")),
        (431, format!("{head}{}\r\n", lines(95))),
        (431, filled(16 << 10)),
        (431, filled((16 << 10) - 3) + "\r\n\r\n"),
        (408, head.clone()),
    ] {
        let answer = send(&text);
        let shown = &text[..text.len().min(100)];
        assert_eq!(answer.status, status, "{shown}: {answer:?}");
        assert_eq!(answer.body, "", "{shown}");
        assert!(!answer.head.contains("x-request-id"), "{shown}: {answer:?}");
    }
    // What is just below the limits is a request.
    for (status, text) in [
        (401, target((16 << 10) - 33)),
        (200, format!("{head}{}\r\n", lines(94))),
        (200, filled((16 << 10) - 4) + "\r\n\r\n"),
    ] {
        let answer = send(&text);
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.head.contains("x-request-id"), "{answer:?}");
    }
}

#[test]
fn every_answer_has_an_id_of_its_own_and_is_not_to_be_stored() {
    let place = Place::new();
    let gateway = place.start();
    let caller = gateway.client();
    let mut ids = BTreeSet::new();
    for path in [
        "/tasks", "/tasks/1", "/tasks?x", "/nothing", "/livez", "/readyz", "/metrics", "/docs/",
        "/docs",
    ] {
        for asking in [&caller, &gateway.stranger()] {
            let answer = asking.get(path);
            let id = answer.header("x-request-id").expect("an id").to_owned();
            assert!(ids.insert(id), "{answer:?}");
            assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
            assert_eq!(answer.header("x-client-request-id"), None);
        }
    }
    for (sent, echoed) in [
        ("abc-DEF_1.2", true),
        ("7", true),
        (&"x".repeat(128), true),
        (&"x".repeat(129), false),
        ("", false),
        ("a b", false),
        ("a\tb", false),
        ("<script>", false),
        ("a,b", false),
        ("\u{fc}", false),
    ] {
        for path in ["/tasks", "/nothing", "/livez"] {
            let answer = caller.with("GET", path, ("x-request-id", sent));
            assert_eq!(
                answer.header("x-client-request-id"),
                echoed.then_some(sent),
                "{sent}"
            );
            assert_ne!(answer.header("x-request-id"), Some(sent));
        }
    }
    let lines = gateway.log();
    assert!(
        ids.iter().all(|id| lines.contains(id)),
        "an id is not in the log"
    );
}

#[test]
fn the_document_and_its_page_come_from_here_alone() {
    let place = Place::new();
    let gateway = place.start();
    let stranger = gateway.stranger();
    let document = stranger.get("/openapi.json");
    assert_eq!(document.header("content-type"), Some("application/json"));
    assert!(
        document.json()["openapi"]
            .as_str()
            .is_some_and(|version| version.starts_with("3.1"))
    );
    let moved = stranger.get("/docs");
    assert!([301, 302, 307, 308].contains(&moved.status), "{moved:?}");
    assert_eq!(moved.header("location"), Some("/docs/"));
    let page = stranger.get("/docs/");
    assert_eq!(page.status, 200);
    let mut texts = vec![page.text.clone()];
    let mut files = 0;
    for part in page.text.split(['"', '\'']) {
        let is_file = [".js", ".css", ".png"]
            .iter()
            .any(|end| part.ends_with(end));
        if let (true, Some(name)) = (is_file, part.strip_prefix("./")) {
            let answer = raw::exchange(
                gateway.authority(),
                format!("GET /docs/{name} HTTP/1.1\r\nHost: gateway\r\n\r\n").as_bytes(),
            );
            assert_eq!(answer.status, 200, "{name}");
            files += 1;
            if name == "swagger-initializer.js" {
                texts.push(answer.body);
            }
        }
    }
    assert!(files >= 4, "only {files} files: {}", page.text);
    for text in texts {
        for part in ["http://", "https://", "src=\"//", "href=\"//", "url(//"] {
            assert!(!text.contains(part), "{part} in {text}");
        }
    }
    assert!(place.cloud.requests().is_empty());
}

#[test]
fn a_request_for_a_websocket_does_not_swallow_the_next_request() {
    let place = Place::new();
    let gateway = place.start();
    let task = place.cloud.add_oms(OmsSpec::new("upgrade", 3));
    let ask = |method: &str, suffix: &str, upgrade: &str| {
        let head = format!(
            "Host: gateway\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
        );
        let request = format!(
            "{method} /tasks/{task}{suffix} HTTP/1.1\r\n{head}Connection: Upgrade\r\nUpgrade: {upgrade}\r\n\r\n\
             DELETE /tasks/{task} HTTP/1.1\r\n{head}\r\n"
        );
        raw::exchange(gateway.authority(), request.as_bytes())
    };
    for (method, suffix) in [
        ("GET", ""),
        ("POST", "/start"),
        ("POST", "/pause"),
        ("DELETE", ""),
    ] {
        for upgrade in ["websocket", "WebSocket"] {
            let answer = ask(method, suffix, upgrade);
            assert_eq!(
                (answer.status, answer.problem().as_str()),
                (400, "invalid-request")
            );
            assert!(answer.head.contains("connection: close"), "{answer:?}");
        }
    }
    assert!(place.cloud.requests().is_empty());
    assert_eq!(ask("GET", "", "h2c").status, 200);
}

#[test]
fn a_request_with_thousands_of_faults_has_an_answer_of_bounded_length() {
    let place = Place::new();
    let gateway = place.start();
    let keys: Vec<String> = (0..2000).map(|n| format!("k{n}=")).collect();
    let query = gateway.client().get(&format!("/tasks?{}", keys.join("&")));
    let members = (0..5000).map(|n| (format!("k{n}"), json!(n))).collect();
    let body = gateway
        .client()
        .post_json("/tasks/7/start", &Value::Object(members));
    for answer in [query, body] {
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (400, "invalid-request")
        );
        assert!(answer.text.len() < 10_000, "{} bytes", answer.text.len());
        assert_eq!(answer.json()["errors"].as_array().map(Vec::len), Some(50));
    }
}
