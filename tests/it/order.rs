//! The order of a request, for every route of the OpenAPI document: who asks, is it well formed, is
//! it allowed.

use serde_json::{Value, json};

use crate::support::{
    gateway::{Gateway, KEY, Place},
    raw::{self, RawAnswer},
};

/// The key of a caller who may do nothing.
const NOBODY: &str = "key-of-one-who-may-do-nothing";
const OPERATION: &str = "op_01JGZ4K8W3M5N7P9R1T3V5X7Z9";
const BODY_MAX: usize = 2000;

/// A request as it is written, the credentials aside.
#[derive(Clone, Debug)]
struct Request {
    method: String,
    target: String,
    /// Lines of the head, and an empty one, and the body.
    rest: String,
}

impl Request {
    fn new(method: &str, target: String, body: Option<&str>) -> Self {
        let rest = match body {
            Some(body) => format!(
                "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ),
            None => "\r\n".to_owned(),
        };
        let method = method.to_uppercase();
        Self {
            method,
            target,
            rest,
        }
    }

    fn query(&self, pair: &str) -> Self {
        let mark = if self.target.contains('?') { '&' } else { '?' };
        Self {
            target: format!("{}{mark}{pair}", self.target),
            ..self.clone()
        }
    }

    fn header(&self, line: &str) -> Self {
        Self {
            rest: format!("{line}\r\n{}", self.rest),
            ..self.clone()
        }
    }

    /// Sends it with these credentials.
    fn by(&self, gateway: &Gateway, key: Option<&str>) -> RawAnswer {
        let Self {
            method,
            target,
            rest,
        } = self;
        let credentials = key.map_or_else(String::new, |key| {
            format!("Authorization: Bearer {key}\r\n")
        });
        let request = format!("{method} {target} HTTP/1.1\r\nHost: gateway\r\n{credentials}{rest}");
        raw::exchange(gateway.authority(), request.as_bytes())
    }
}

/// A route of the document: a request to it with nothing wrong, what is declared of it, and its
/// place there.
struct Route {
    path: String,
    sound: Request,
    declared: Value,
}

/// Every route that asks who its caller is.
fn routes(document: &Value) -> Vec<Route> {
    let mut routes = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, declared) in methods.as_object().expect("methods") {
            if declared["security"] == json!([{}]) {
                continue;
            }
            let id = if path.starts_with("/tasks") {
                "7"
            } else {
                OPERATION
            };
            let body = declared["requestBody"].is_object();
            let body = body.then_some(r#"{"destination": {"access_key": "a", "secret_key": "b"}}"#);
            routes.push(Route {
                path: path.clone(),
                sound: Request::new(method, path.replace("{id}", id), body),
                declared: declared.clone(),
            });
        }
    }
    assert!(routes.len() >= 10, "only {} routes", routes.len());
    routes
}

/// The request with one thing wrong, for every thing that can be, and the status of the answer.
fn malformed(route: &Route) -> Vec<(Request, u16)> {
    let sound = &route.sound;
    let mut all = vec![
        sound.query("bogus=1"),
        sound.query("bogus=%FF"),
        sound.query("Bogus"),
    ];
    if route.path.contains("{id}") {
        for id in ["x_y", "%00", "op_7"] {
            let target = route.path.replace("{id}", id);
            all.push(Request {
                target,
                ..sound.clone()
            });
        }
    }
    let parameters = route.declared["parameters"].as_array();
    for parameter in parameters.into_iter().flatten() {
        let name = parameter["name"].as_str().expect("a name");
        match (parameter["in"].as_str(), name) {
            (Some("query"), _) => {
                // A token of a list of a service that there is not.
                if name == "page_token" {
                    all.push(sound.query("page_token=eyJzIjoiZWNzIiwibyI6MCwiZiI6IiJ9"));
                }
                all.push(sound.query(&format!("{name}=1&{name}=1")));
                // Any text can be part of a task's name.
                if name != "name" {
                    all.extend(
                        ["", "~", "%0A"].map(|value| sound.query(&format!("{name}={value}"))),
                    );
                }
            }
            (Some("header"), "Prefer") => {
                all.extend(
                    ["wait", "wait=x", "wait=1 2", "="]
                        .map(|value| sound.header(&format!("Prefer: {value}"))),
                );
            }
            (Some("header"), "Idempotency-Key") => {
                let long = "k".repeat(65);
                all.extend(
                    ["", "a b", &long, "a\r\nIdempotency-Key: a"]
                        .map(|value| sound.header(&format!("Idempotency-Key: {value}"))),
                );
            }
            (Some("header"), "Last-Event-ID") => {
                all.extend(
                    ["", "x", "-1", "1\r\nLast-Event-ID: 1"]
                        .map(|value| sound.header(&format!("Last-Event-ID: {value}"))),
                );
            }
            (Some("path"), "id") => {}
            other => panic!("nothing is known that is wrong with {other:?}"),
        }
    }
    let all = all.into_iter().map(|one| (one, 400));
    all.chain(malformed_bodies(route)).collect()
}

/// The request with each body that it must not have, and the status of the answer.
fn malformed_bodies(route: &Route) -> Vec<(Request, u16)> {
    let sound = &route.sound;
    if sound.method == "GET" {
        return Vec::new();
    }
    let mut all = Vec::new();
    let with = |body: &str| Request::new(&sound.method, sound.target.clone(), Some(body));
    let mut bodies = vec![
        "null".to_owned(),
        "{".to_owned(),
        "{\"unknown\": 1}".to_owned(),
    ];
    let mut too_large = None;
    if route.declared["requestBody"].is_object() {
        let nested = r#"{"destination": {"access_key": "a", "secret_key": "b", "c": 1}}"#;
        bodies.extend(["[]", "{}", "{\"destination\": 1}", nested].map(str::to_owned));
        all.push(Request::new(&sound.method, sound.target.clone(), None));
        // Tasks of the other service take none.
        let target = sound.target.replace('7', "a-7");
        all.push(Request {
            target,
            ..sound.clone()
        });
        too_large = Some((with(&"x".repeat(BODY_MAX + 1)), 413));
    }
    all.extend(bodies.iter().map(|body| with(body)));
    let chunked = "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n\r\n".to_owned();
    all.push(Request {
        rest: chunked,
        ..sound.clone()
    });
    let all = all.into_iter().map(|one| (one, 400));
    all.chain(too_large).collect()
}

/// Places of the gateways here, which take small bodies only.
fn place() -> Place {
    let may_nothing = "permissions = []\nprojects = [\"*\"]";
    Place::new()
        .set("server.max_body", &format!("\"{BODY_MAX}B\""))
        .caller("nobody", NOBODY, may_nothing)
}

fn document(gateway: &Gateway) -> Value {
    gateway.stranger().get("/openapi.json").json()
}

#[test]
fn what_is_malformed_is_told_to_every_known_caller_and_what_is_not_allowed_only_then() {
    let place = place();
    let gateway = place.start();
    for route in routes(&document(&gateway)) {
        for (request, status) in malformed(&route) {
            let slug = match status {
                413 => "payload-too-large",
                _ => "invalid-request",
            };
            for key in [NOBODY, KEY] {
                let answer = request.by(&gateway, Some(key));
                assert_eq!(answer.status, status, "{key}: {request:?}: {answer:?}");
                assert_eq!(answer.problem(), slug, "{request:?}");
            }
            for key in [None, Some("key-that-nobody-has")] {
                let answer = request.by(&gateway, key);
                assert_eq!(answer.status, 401, "{key:?}: {request:?}: {answer:?}");
            }
        }
        let answer = route.sound.by(&gateway, Some(NOBODY));
        let expected = match route.path.as_str() {
            // Whoever is known may ask who they are, and cancel what they asked for, which nobody
            // did.
            "/whoami" => 200,
            "/operations/{id}/cancel" => 404,
            _ => 403,
        };
        assert_eq!(answer.status, expected, "{}: {answer:?}", route.path);
    }
    assert!(place.cloud.requests().is_empty());
}

#[test]
fn whoever_may_do_other_things_without_credentials_is_turned_away_before_a_body_is_read() {
    let place = place().set("access.anonymous", "[\"status:read\"]");
    let gateway = place.start();
    for route in routes(&document(&gateway)) {
        if ["/status", "/whoami", "/operations/{id}/cancel"].contains(&route.path.as_str()) {
            continue;
        }
        // What is announced never comes.
        let request = Request {
            rest: "Content-Type: application/json\r\nContent-Length: 10\r\n\r\n{".to_owned(),
            ..route.sound.clone()
        };
        let answer = request.by(&gateway, None);
        assert_eq!(answer.status, 401, "{request:?}: {answer:?}");
        assert_eq!(answer.problem(), "unauthenticated");
    }
}
