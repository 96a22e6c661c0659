//! Who the gateway takes a caller for.

use serde_json::{Value, json};

use crate::support::{
    gateway::{Gateway, KEY, Place, digest},
    issuer::{Issuer, SigningKey, seconds},
};

fn whoami(gateway: &Gateway, credential: &str) -> Value {
    let answer = gateway.client_with(credential).get("/whoami");
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(!answer.text.contains(credential), "{answer:?}");
    answer.json()
}

#[test]
fn every_kind_of_caller_is_told_who_it_is_and_what_it_may_do() {
    let key = SigningKey::elliptic("k1");
    let issuer = Issuer::with(&[&key]);
    let keys = format!(
        "keys = [{{ sha256 = \"{}\", expires = \"2999-12-31T00:00:00Z\" }}]\n\
         permissions = [\"tasks:pause\", \"tasks:read\"]\nprojects = [\"default\"]\nservices = [\"sms\"]\n\
         tasks = [\"logs-*\", \"a?c\"]",
        digest("a-key-that-ends")
    );
    let place = Place::new().caller("team", "a-key-that-stays", &keys).add(&issuer.section(
        "corp",
        "[issuers.corp.groups.one]\npermissions = [\"tasks:read\"]\nprojects = [\"*\"]\n\
         [issuers.corp.groups.two]\npermissions = [\"operations:read-all\"]\nprojects = [\"default\"]",
    ));
    let gateway = place.start();
    let team = json!([{
        "permissions": ["tasks:read", "tasks:pause"], "projects": ["default"], "services": ["sms"],
        "tasks": ["a?c", "logs-*"],
    }]);
    for (key, end) in [
        ("a-key-that-stays", Value::Null),
        ("a-key-that-ends", json!("2999-12-31T00:00:00Z")),
    ] {
        let expected = json!({
            "name": "team", "authenticated_by": "key", "expires_at": end, "grants": team,
        });
        assert_eq!(whoami(&gateway, key), expected);
    }
    let shown = whoami(&gateway, KEY);
    assert_eq!(shown["name"], "tester");
    let granted = shown["grants"][0]["permissions"]
        .as_array()
        .expect("a list");
    assert_eq!(granted.len(), 6, "a star leaves one out: {shown}");

    let mut claims = issuer.claims("alice@example.com", &["two", "none", "one"]);
    let end = seconds(100);
    claims["exp"] = json!(end);
    let shown = whoami(&gateway, &key.sign(&key.header(), &claims));
    let everywhere = json!(["*"]);
    let expected = json!({
        "name": "corp:alice@example.com", "authenticated_by": "token",
        "expires_at": jiff::Timestamp::from_second(end).expect("a time").to_string(),
        "grants": [
            {"permissions": ["tasks:read"], "projects": everywhere, "services": everywhere, "tasks": everywhere},
            {"permissions": ["operations:read-all"], "projects": ["default"], "services": everywhere, "tasks": everywhere},
        ],
    });
    assert_eq!(shown, expected);
    let shown = whoami(&gateway, &issuer.token(&key, "bob", &[]));
    assert_eq!(
        (&shown["name"], &shown["grants"]),
        (&json!("corp:bob"), &json!([]))
    );

    let stranger = gateway.stranger().get("/whoami");
    assert_eq!(
        (stranger.status, stranger.problem().as_str()),
        (401, "unauthenticated")
    );
    let asked = gateway.client().get("/whoami?name=other");
    assert_eq!(asked.problem(), "invalid-request");
    assert_eq!(
        gateway.client().post("/whoami").header("allow"),
        Some("GET, HEAD")
    );
    assert!(place.cloud.requests().is_empty());
}

#[test]
fn requests_without_credentials_are_told_what_they_may_do_if_it_is_anything() {
    let place = Place::new().set("access.anonymous", "[\"status:read\"]");
    let answer = place.start().stranger().get("/whoami");
    let everywhere = json!(["*"]);
    let expected = json!({
        "name": "anonymous", "authenticated_by": "anonymous", "expires_at": null,
        "grants": [{"permissions": ["status:read"], "projects": everywhere, "services": everywhere, "tasks": everywhere}],
    });
    assert_eq!(answer.json(), expected);
}
