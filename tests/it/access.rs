//! Who may do what: credentials, permissions, projects and services, for every route.

use std::{fs, thread};

use migration_gateway::sandbox::{OmsSpec, SmsSpec};

use crate::support::{
    gateway::{Gateway, KEY, Place},
    http::{Answer, Client},
    raw::{self, RawAnswer},
};

/// Every guarded route of a task that is not there, and of an operation that is not: method, path,
/// what is needed.
#[rustfmt::skip]
const ROUTES: [(&str, &str, &[&str]); 15] = [
    ("GET", "/tasks", &["tasks:read"]),
    ("GET", "/tasks?service=oms", &["tasks:read"]),
    ("GET", "/tasks/7", &["tasks:read"]),
    ("GET", "/tasks/a-7?view=full", &["tasks:read"]),
    ("POST", "/tasks/7/pause", &["tasks:pause"]),
    ("POST", "/tasks/a-7/pause", &["tasks:pause"]),
    ("POST", "/tasks/7/start", &["tasks:start"]),
    ("POST", "/tasks/a-7/start", &["tasks:start"]),
    ("DELETE", "/tasks/7", &["tasks:delete"]),
    ("DELETE", "/tasks/a-7", &["tasks:delete"]),
    ("DELETE", "/tasks/7?force=pause", &["tasks:delete", "tasks:pause"]),
    ("DELETE", "/tasks/a-7?force=pause", &["tasks:delete", "tasks:pause"]),
    ("GET", "/operations", &["operations:read"]),
    ("GET", "/operations/op_01JGZ4K8W3M5N7P9R1T3V5X7Z9", &["operations:read"]),
    ("GET", "/status", &["status:read"]),
];

#[rustfmt::skip]
const PERMISSIONS: [&str; 7] = [
    "tasks:read", "tasks:pause", "tasks:start", "tasks:delete", "operations:read", "operations:read-all", "status:read",
];

const OPEN: [&str; 5] = ["/livez", "/readyz", "/metrics", "/openapi.json", "/docs/"];

/// TOML of a caller with these permissions, projects and services.
fn grant(permissions: &[&str], projects: &[&str], services: &[&str]) -> String {
    format!("permissions = {permissions:?}\nprojects = {projects:?}\nservices = {services:?}")
}

fn assert_unauthenticated(answer: &Answer, what: &str) {
    assert_eq!(answer.status, 401, "{what}: {answer:?}");
    assert_eq!(answer.problem(), "unauthenticated", "{what}");
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{what}");
    assert_eq!(answer.json()["sent"], "no", "{what}");
}

/// Asks for the list of tasks with this value of `Authorization`.
fn authorized(gateway: &Gateway, value: &str) -> RawAnswer {
    let request = format!("GET /tasks HTTP/1.1\r\nHost: gateway\r\nAuthorization: {value}\r\n\r\n");
    raw::exchange(gateway.authority(), request.as_bytes())
}

/// Asks for something with the body that it needs.
fn ask(client: &Client, method: &str, path: &str) -> Answer {
    if path.contains("/7/start") {
        client.post_json(
            path,
            &serde_json::json!({"destination": {"access_key": "a", "secret_key": "b"}}),
        )
    } else {
        client.request(method, path)
    }
}

/// Whether the request got past the question whether its caller may ask. What is not there is told
/// to those only.
fn is_let_in(answer: &Answer) -> bool {
    match answer.status {
        200 | 404 => true,
        403 => {
            assert_eq!(answer.problem(), "forbidden", "{answer:?}");
            assert_eq!(answer.json()["sent"], "no", "{answer:?}");
            false
        }
        _ => panic!("neither in nor out: {answer:?}"),
    }
}

#[test]
fn without_a_key_that_is_known_nothing_is_answered_and_the_cloud_hears_nothing() {
    let place = Place::new();
    let gateway = place.start();
    let stranger = gateway.stranger();
    for (method, path, _) in ROUTES {
        assert_unauthenticated(&stranger.request(method, path), path);
        let wrong = gateway.client_with("test-key-of-nobody");
        assert_unauthenticated(&wrong.request(method, path), path);
    }
    let padded = format!("Bearer {KEY}x");
    let cut = format!("Bearer {}", &KEY[1..]);
    let basic = format!("Basic {KEY}");
    for value in [
        "",
        "Bearer",
        "Bearer ",
        KEY,
        &padded,
        &cut,
        &basic,
        "Bearer\t",
        "Bearer \u{fc}",
        "Bearer a b",
    ] {
        let answer = authorized(&gateway, value);
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (401, "unauthenticated"),
            "{value}"
        );
        assert!(answer.head.contains("www-authenticate: bearer"), "{value}");
    }
    // Not even which paths there are.
    for path in [
        "/",
        "/nothing",
        "/tasks/7/nothing",
        "//tasks",
        "/Tasks",
        "/tasks/",
    ] {
        assert_unauthenticated(&stranger.get(path), path);
    }
    assert!(
        place.cloud.requests().is_empty(),
        "{:?}",
        place.cloud.requests()
    );
    for path in OPEN {
        assert_eq!(stranger.get(path).status, 200, "{path}");
        let answer = stranger.with("GET", path, ("authorization", "Bearer wrong"));
        assert_eq!(answer.status, 200, "{path}");
    }
    let answer = authorized(&gateway, &format!("bEARER {KEY}"));
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn the_key_of_a_caller_is_neither_logged_nor_shown() {
    let place = Place::new();
    let gateway = place.start_logging("trace");
    let wrong = gateway.client_with("canary-key-of-nobody").get("/tasks");
    let right = gateway.client().get("/tasks");
    for text in [
        wrong.text,
        right.text,
        gateway.log(),
        gateway.client().get("/metrics").text,
    ] {
        assert!(!text.contains("canary"), "{text}");
        assert!(!text.contains(KEY), "{text}");
    }
    assert!(
        !fs::read_to_string(gateway.log_path())
            .expect("a log")
            .is_empty()
    );
}

#[test]
fn a_caller_needs_every_permission_of_a_route_and_no_other() {
    let mut place = Place::new();
    for (index, (_, _, needed)) in ROUTES.iter().enumerate() {
        let just = grant(needed, &["*"], &["*"]);
        place = place.caller(&format!("just-{index}"), &format!("just-{index}"), &just);
    }
    for missing in PERMISSIONS {
        let rest: Vec<&str> = PERMISSIONS
            .into_iter()
            .filter(|one| *one != missing)
            .collect();
        let name = missing.replace(':', "-");
        place = place.caller(
            &format!("without-{name}"),
            missing,
            &grant(&rest, &["*"], &["*"]),
        );
    }
    let gateway = place.start();
    for (index, (method, path, needed)) in ROUTES.iter().enumerate() {
        let answer = ask(&gateway.client_with(&format!("just-{index}")), method, path);
        assert!(is_let_in(&answer), "{method} {path}: {answer:?}");
        for missing in PERMISSIONS {
            let answer = ask(&gateway.client_with(missing), method, path);
            let what = format!("{method} {path} without {missing}: {answer:?}");
            assert_eq!(is_let_in(&answer), !needed.contains(&missing), "{what}");
        }
    }
}

#[test]
fn a_caller_stays_within_its_projects_and_services() {
    let place = Place::new()
        .project("other", "8b0c6a30cfa04b2a9f4ce1fd9a8a8f11", "cn-east-3")
        .caller("here", "here", &grant(&["*"], &["default"], &["*"]))
        .caller("there", "there", &grant(&["*"], &["other"], &["*"]))
        .caller("oms", "oms", &grant(&["*"], &["*"], &["oms"]));
    let gateway = place.start();
    let with = |path: &str, project: &str| {
        let mark = if path.contains('?') { '&' } else { '?' };
        format!("{path}{mark}project={project}")
    };
    for (method, path, _) in ROUTES
        .into_iter()
        .filter(|(_, path, _)| path.starts_with("/tasks"))
    {
        for (key, project, expected) in [
            ("here", "default", true),
            ("here", "other", false),
            ("there", "default", false),
            ("there", "other", true),
            // Whether there is such a project is nobody's business who may not use it.
            ("here", "nonexistent", false),
        ] {
            let answer = ask(&gateway.client_with(key), method, &with(path, project));
            let what = format!("{key}: {method} {path} in {project}: {answer:?}");
            assert_eq!(is_let_in(&answer), expected, "{what}");
        }
        assert!(
            !is_let_in(&ask(&gateway.client_with("there"), method, path)),
            "{path}"
        );
        let answer = ask(&gateway.client_with("oms"), method, path);
        assert_eq!(
            is_let_in(&answer),
            !path.contains("a-7"),
            "oms: {method} {path}: {answer:?}"
        );
        let answer = gateway.client().request(method, &with(path, "nonexistent"));
        assert_eq!(answer.problem(), "invalid-request", "{answer:?}");
    }
    let answer = gateway.client_with("oms").get("/tasks?service=sms");
    assert!(!is_let_in(&answer), "{answer:?}");
}

#[test]
fn a_list_without_a_service_covers_those_that_its_caller_may_use() {
    let place = Place::new()
        .caller("oms", "oms", &grant(&["*"], &["*"], &["oms"]))
        .caller("sms", "sms", &grant(&["*"], &["*"], &["sms"]));
    let gateway = place.start();
    place.cloud.add_oms(OmsSpec::new("one", 3));
    place.cloud.add_sms(SmsSpec::new("two", "ABORT"));
    for (key, expected) in [
        ("oms", vec!["oms"]),
        ("sms", vec!["sms"]),
        (KEY, vec!["oms", "sms"]),
    ] {
        let list = gateway.client_with(key).get("/tasks").json();
        let rows = list["tasks"].as_array().expect("rows").iter();
        let services: Vec<&str> = rows.filter_map(|row| row["service"].as_str()).collect();
        assert_eq!(services, expected);
    }
}

#[test]
fn what_a_task_offers_depends_on_who_asks() {
    let place = Place::new()
        .caller("reader", "reader", &grant(&["tasks:read"], &["*"], &["*"]))
        .caller(
            "remover",
            "remover",
            &grant(&["tasks:read", "tasks:delete"], &["*"], &["*"]),
        );
    let gateway = place.start();
    let task = place.cloud.add_oms(OmsSpec::new("offers", 3));
    for (key, actions) in [
        ("reader", serde_json::json!([])),
        ("remover", serde_json::json!(["delete"])),
        (KEY, serde_json::json!(["start", "delete", "force_delete"])),
    ] {
        let shown = gateway.client_with(key).get(&format!("/tasks/{task}"));
        assert_eq!(shown.json()["actions"], actions, "{key}");
    }
}

#[test]
fn a_request_without_credentials_has_what_the_configuration_gives_to_all() {
    let place = Place::new().set("access.anonymous", "[\"tasks:read\", \"operations:read\"]");
    let gateway = place.start();
    let stranger = gateway.stranger();
    for (method, path, needed) in ROUTES {
        let answer = ask(&stranger, method, path);
        if ["tasks:read", "operations:read"].contains(&needed[0]) {
            assert!(is_let_in(&answer), "{method} {path}: {answer:?}");
        } else {
            assert_unauthenticated(&answer, path);
        }
        let wrong = gateway.client_with("wrong").request(method, path);
        assert_unauthenticated(&wrong, path);
    }
    // For requests without credentials no project is a secret.
    let answer = stranger.get("/tasks?project=nonexistent");
    assert_eq!(answer.problem(), "invalid-request");
    assert_eq!(stranger.get("/nothing").problem(), "not-found");
}

#[test]
fn the_body_of_a_stranger_is_not_waited_for() {
    let place = Place::new();
    let gateway = place.start();
    for body in [
        "Content-Length: 99999999999\r\n\r\n{\"destination\":",
        "Content-Length: 100\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nzz\r\nbroken",
        "Content-Length: 1\r\n\r\n{",
        "Expect: 100-continue\r\nContent-Length: 100\r\n\r\n",
    ] {
        let request = format!(
            "POST /tasks/7/start HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\n{body}"
        );
        let answer = raw::exchange(gateway.authority(), request.as_bytes());
        assert_eq!(answer.status, 401, "{body}: {answer:?}");
        assert_eq!(answer.problem(), "unauthenticated");
    }
    assert!(place.cloud.requests().is_empty());
}

#[test]
fn eighty_first_requests_at_once_need_one_login() {
    let place = Place::new();
    let gateway = place.start();
    let task = place.cloud.add_oms(OmsSpec::new("busy", 3));
    thread::scope(|scope| {
        let asking: Vec<_> = (0..80)
            .map(|_| scope.spawn(|| gateway.client().get(&format!("/tasks/{task}")).status))
            .collect();
        for one in asking {
            assert_eq!(one.join().expect("an answer"), 200);
        }
    });
    assert_eq!(place.cloud.tokens_issued(), 1);
}
