//! Who may ask: keys that follow each other, issuers of tokens, and what their groups may do.

use std::time::Duration;

use super::{complete, faults, valid};
use crate::{
    domain::access::{NamePattern, Permission, Scope},
    identity::{Algorithm, IssuerSettings, KeySource},
};

const ISSUER: &str = r#"
[issuers.corp]
issuer = "https://login.example.com/realms/corp"
audience = "migration-gateway"
jwks = "https://login.example.com/realms/corp/certs?kind=all"
"#;

const GROUP: &str = r#"
[issuers.corp.groups."/Teams/Migration 1.0"]
permissions = ["tasks:read", "tasks:pause"]
projects = ["prod"]
services = ["oms"]
tasks = ["logs-*", "web"]
"#;

fn with(toml: &str) -> String {
    format!("{}{toml}", complete())
}

fn issuer(toml: &str) -> IssuerSettings {
    let mut config = valid(&with(toml), &[]);
    config.identity.issuers.pop().expect("an issuer")
}

/// Expects one fault, which begins with the key and has the words.
fn refused(toml: &str, key: &str, words: &str) {
    let found = faults(&with(toml), &[]);
    let [line] = found.as_slice() else {
        panic!("{toml}: one fault expected in {found:#?}");
    };
    assert!(line.starts_with(&format!("{key} (in ")), "{toml}: {line}");
    assert!(line.contains(words), "{toml}: {line}");
}

#[test]
fn a_caller_can_have_several_keys_that_end() {
    let digest = |digit: &str| digit.repeat(64);
    let text = complete().replace(
        "permissions",
        &format!(
            "keys = [{{ sha256 = \"{}\", expires = \"2026-12-31T00:00:00Z\" }}, \
             {{ sha256 = \"{}\", expires = 2027-01-31T12:00:00+08:00 }}, {{ sha256 = \"{}\" }}]\npermissions",
            digest("b"),
            digest("c"),
            digest("d")
        ),
    );
    for text in [
        text.clone(),
        text.replacen(&format!("key_sha256 = \"{}\"", digest("a")), "", 1),
    ] {
        let config = valid(&text, &[]);
        let keys = &config.identity.callers[0].keys;
        let ends: Vec<Option<String>> = keys
            .iter()
            .map(|key| key.expires.map(|end| end.to_string()))
            .collect();
        let expected = [
            Some("2026-12-31T00:00:00Z"),
            Some("2027-01-31T04:00:00Z"),
            None,
        ];
        let expected = expected.map(|end| end.map(str::to_owned));
        assert_eq!(ends[ends.len() - 3..], expected);
    }
}

#[test]
fn faulty_keys_are_refused() {
    let key = |line: &str| {
        format!(
            "[callers.team-b]\n{line}\npermissions = []\nprojects = [\"*\"]\nservices = [\"*\"]"
        )
    };
    let (a, b) = ("a".repeat(64), "b".repeat(64));
    for (line, name, words) in [
        ("keys = \"canary\"".to_owned(), "keys", "list of tables"),
        (
            "keys = [\"canary\"]".to_owned(),
            "keys[0]",
            "must be a table",
        ),
        (
            format!("keys = [{{ sha256 = \"{b}\" }}, {{ }}]"),
            "keys[1].sha256",
            "is required",
        ),
        (
            format!("keys = [{{ sha256 = \"{a}\" }}]"),
            "keys[0].sha256",
            "same as that of callers.team-a",
        ),
        (
            format!("key_sha256 = \"{b}\"\nkeys = [{{ sha256 = \"{b}\" }}]"),
            "keys[0].sha256",
            "same as that of callers.team-b",
        ),
        (
            format!("keys = [{{ sha256 = \"{b}\", expires = \"2026-12-31\" }}]"),
            "keys[0].expires",
            "time with a zone",
        ),
        (
            format!("keys = [{{ sha256 = \"{b}\", ends = \"2026-12-31T00:00:00Z\" }}]"),
            "keys[0].ends",
            "not a known key",
        ),
        (
            format!("key_sha256 = \"{b}\"\ntasks = []"),
            "tasks",
            "at least one pattern",
        ),
        ("certificate = \"\"".to_owned(), "certificate", "DNS name"),
        (
            "certificate = \"canary with blanks\"".to_owned(),
            "certificate",
            "DNS name",
        ),
        (
            "certificate = \"team-b.example.com\"".to_owned(),
            "certificate",
            "only with server.tls.client_ca",
        ),
        (String::new(), "key_sha256", "is required"),
    ] {
        refused(&key(&line), &format!("callers.team-b.{name}"), words);
    }
}

#[test]
fn an_issuer_has_defaults_that_are_safe() {
    let settings = issuer(ISSUER);
    assert_eq!(settings.name.as_str(), "corp");
    assert_eq!(settings.audience, "migration-gateway");
    assert_eq!(settings.algorithms, [Algorithm::Rs256, Algorithm::Es256]);
    assert_eq!(settings.caller_claim, "sub");
    assert_eq!(settings.groups_claim, "groups");
    assert_eq!(settings.keys_max_age, Duration::from_hours(24));
    assert!(settings.groups.is_empty());
    let address = format!("{:?}", settings.keys);
    assert_eq!(
        address,
        "https://login.example.com/realms/corp/certs?kind=all"
    );
}

#[test]
fn groups_are_named_as_the_issuer_names_them() {
    let settings = issuer(&format!("{ISSUER}{GROUP}"));
    let grant = &settings.groups["/Teams/Migration 1.0"];
    assert_eq!(
        grant.permissions,
        [Permission::TasksRead, Permission::TasksPause].into()
    );
    let patterns = ["logs-*", "web"].map(|text| NamePattern::parse(text).expect("a pattern"));
    assert_eq!(grant.tasks, Scope::Only(patterns.into()));
}

#[test]
fn the_keys_of_an_issuer_can_be_in_a_file_or_on_this_machine() {
    let address = "\"https://login.example.com/realms/corp/certs?kind=all\"";
    let settings = issuer(&ISSUER.replace(address, "{ file = \"keys.json\" }"));
    assert_eq!(settings.keys, KeySource::File("keys.json".into()));
    issuer(&ISSUER.replace(address, "\"http://127.0.0.1:8080/certs\""));
}

#[test]
fn faulty_issuers_are_refused() {
    for (part, by, name, words) in [
        ("issuer = ", "isuer = ", "issuer", "is required"),
        ("audience = ", "audience = \"\" #", "audience", "not empty"),
        ("jwks = ", "#", "jwks", "is required"),
        (
            "https://login.example.com/realms/corp/certs",
            "http://login.example.com/certs",
            "jwks",
            "loopback",
        ),
        (
            "https://login.example.com/realms/corp/certs",
            "https://user:canary@login.example.com/certs",
            "jwks",
            "more than a scheme, a host and a port",
        ),
        (
            "/realms/corp/certs?kind=all",
            "/certs#canary",
            "jwks",
            "path of the address",
        ),
        ("/realms/corp/certs?kind=all", "", "jwks", "path"),
        (
            "audience",
            "algorithms = [\"RS256\", \"HS256\"]\naudience",
            "algorithms",
            "shared secret",
        ),
        (
            "audience",
            "algorithms = [\"none\"]\naudience",
            "algorithms",
            "RS256",
        ),
        (
            "audience",
            "algorithms = []\naudience",
            "algorithms",
            "at least one",
        ),
        (
            "audience",
            "jwks_max_age = \"0s\"\naudience",
            "jwks_max_age",
            "from 1s to 720h",
        ),
    ] {
        let toml = ISSUER.replacen(part, by, 1);
        let found = faults(&with(&toml), &[]);
        let start = format!("issuers.corp.{name} (in ");
        let line = found.iter().find(|line| line.starts_with(&start));
        let line = line.unwrap_or_else(|| panic!("{by}: {found:#?}"));
        assert!(line.contains(words), "{by}: {line}");
        assert!(!found.concat().contains("canary"), "{found:#?}");
    }
}

#[test]
fn issuers_and_their_groups_are_told_apart() {
    refused(
        &format!(
            "{ISSUER}{}",
            ISSUER.replace("issuers.corp", "issuers.other")
        ),
        "issuers.other.issuer",
        "the same as that of issuers.corp",
    );
    refused(
        &ISSUER.replace("issuers.corp", "issuers.Corp"),
        "issuers.Corp",
        "a-z, 0-9 and -",
    );
    let group = format!("{ISSUER}{}", GROUP.replace("[\"prod\"]", "[\"prd\"]"));
    refused(
        &group,
        "issuers.corp.groups.\"/Teams/Migration 1.0\".projects",
        "one of the projects",
    );
}

#[test]
fn storage_keys_can_be_for_the_bearer_of_a_token_of_a_configured_issuer() {
    let with_bearer = |name: &str| {
        let text = format!("{}{ISSUER}", complete());
        text.replace(
            "callers = [\"team-a\"]",
            &format!("callers = [\"team-a\", \"{name}\"]"),
        )
    };
    let config = valid(&with_bearer("corp:alice@example.com"), &[]);
    let stored = config.upstream.storage_credentials.values().next();
    let names = format!("{:?}", stored.expect("keys").grant.callers);
    assert_eq!(names, "Only({corp:alice@example.com, team-a})");
    for name in ["crop:alice", "corp:", "corp", "corp:a b"] {
        let found = faults(&with_bearer(name), &[]);
        assert_eq!(found.len(), 1, "{found:#?}");
    }
}
