//! Pages of other origins, whose requests a browser sends in the name of whoever looks at them.

use migration_gateway::sandbox::{OmsSpec, Operation};

use crate::support::{
    audit_log::{audited, lines},
    gateway::{Gateway, KEY, Place},
    raw::{RawAnswer, exchange},
};

/// What a browser can say of a page that is not from here. Several lines are one request's.
const FOREIGN: [&str; 15] = [
    "Sec-Fetch-Site: cross-site",
    "Sec-Fetch-Site: same-site",
    "Sec-Fetch-Site: Same-Origin",
    "Sec-Fetch-Site:",
    "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Site: cross-site",
    "Sec-Fetch-Site: cross-site\r\nOrigin: http://gateway",
    "Origin: https://evil.test",
    "Origin: http://gateway.evil.test",
    "Origin: http://gateway:81",
    "Origin: http://user@gateway",
    "Origin: http://gateway\r\nOrigin: https://evil.test",
    "Origin: null",
    "Origin: gateway",
    "Origin: file://gateway",
    "Origin:",
];

/// What a browser says of the gateway's own page, and of whoever it shows as a place that leads to
/// the gateway.
const OWN: [&str; 9] = [
    "Sec-Fetch-Site: same-origin",
    "Sec-Fetch-Site: none",
    // The browser has compared, and something in front may have changed Host.
    "Sec-Fetch-Site: same-origin\r\nOrigin: https://elsewhere.example.com",
    "Origin: http://gateway",
    "Origin: https://gateway",
    "Origin: http://GATEWAY:80",
    "Origin: https://gateway:443",
    "Origin: https://api.example.com:8443",
    "Accept: */*",
];

fn ask(gateway: &Gateway, line: &str, credential: &str, fields: &str) -> RawAnswer {
    let request = format!(
        "{line} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nPrefer: respond-async\r\n{credential}{fields}\r\n\r\n"
    );
    exchange(gateway.authority(), request.as_bytes())
}

#[test]
fn pages_of_other_origins_change_nothing() {
    let granted = r#"["tasks:read", "tasks:pause"]"#;
    let place = audited(Place::new()).set("access.anonymous", granted);
    let place = place.set("server.public_url", "\"https://api.example.com:8443/base\"");
    let gateway = place.start();
    let task = place.cloud.add_oms(OmsSpec::new("logs", 2));
    let key = format!("Authorization: Bearer {KEY}\r\n");
    let changes = [
        format!("POST /tasks/{task}/pause"),
        format!("DELETE /tasks/{task}?force=pause"),
        format!("POST /tasks/{task}/start"),
        "POST /operations/op_01JGZ4K8W3M5N7P9R1T3V5X7Z9/cancel".to_owned(),
    ];
    for fields in FOREIGN {
        for credential in [key.as_str(), ""] {
            for change in &changes {
                let answer = ask(&gateway, change, credential, fields);
                assert_eq!(answer.status, 403, "{change} {fields:?} {answer:?}");
                assert_eq!(answer.problem(), "forbidden");
            }
            let read = format!("GET /tasks/{task}");
            let answer = ask(&gateway, &read, credential, fields);
            assert_eq!(answer.status, 200, "{fields:?} {answer:?}");
        }
    }
    assert_eq!(place.cloud.count(Operation::Pause, None), 0);
    // Whoever made the page is a stranger: the first ten have a line, whoever's browser sent them.
    let denied = lines(&place, "decision");
    assert_eq!(denied.len(), 10);
    for line in &denied {
        assert_eq!(line["decision"], "denied");
        assert_eq!(line["rule"], "cross-origin");
    }
    assert_eq!(denied[0]["caller"], "tester");
    assert_eq!(denied[0]["action"], "pause");
    assert_eq!(denied[0]["method"], "key");
    assert_eq!(denied[0]["task"], task.as_str());
}

#[test]
fn the_page_of_the_gateway_itself_and_programs_are_let_through() {
    let place = Place::new().set("access.anonymous", "[\"tasks:pause\"]");
    let place = place.set("server.public_url", "\"https://api.example.com:8443/base\"");
    let gateway = place.start();
    for fields in OWN {
        let answer = ask(&gateway, "POST /tasks/7/pause", "", fields);
        assert_eq!(answer.status, 404, "{fields:?} {answer:?}");
    }
}

#[test]
fn the_port_of_an_origin_counts() {
    let place = Place::new().set("access.anonymous", "[\"tasks:pause\"]");
    let gateway = place.start();
    let ask = |host: &str, origin: &str| {
        let request = format!(
            "POST /tasks/7/pause HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nConnection: close\r\n\r\n"
        );
        exchange(gateway.authority(), request.as_bytes()).status
    };
    assert_eq!(ask("gateway:8080", "http://gateway:8080"), 404);
    assert_eq!(ask("gateway:8080", "http://gateway"), 403);
    assert_eq!(ask("gateway:80", "http://gateway"), 404);
    assert_eq!(ask("gateway:80", "https://gateway"), 403);
    assert_eq!(ask("[::1]:8080", "http://[::1]:8080"), 404);
    assert_eq!(ask("", "http://gateway"), 403);
}
