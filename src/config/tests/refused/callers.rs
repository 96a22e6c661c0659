//! Callers, their keys, and the storage keys that they may use.

use super::{complete, faults, refused};

#[test]
fn faulty_callers_are_refused() {
    let caller = "callers.team-a";
    let digest =
        "key_sha256 = \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"";
    let permissions = "permissions = [\"*\"]";
    let projects = "\nprojects = [\"*\"]";
    for (part, by, key, words) in [
        (digest, "", "key_sha256", "is required"),
        (
            digest,
            &digest.to_uppercase().replace("KEY_SHA256", "key_sha256"),
            "key_sha256",
            "lower-case",
        ),
        (digest, "key_sha256 = \"aa\"", "key_sha256", "64 digits"),
        (permissions, "", "permissions", "is required"),
        (
            permissions,
            "permissions = [\"tasks:own\"]",
            "permissions",
            "list of",
        ),
        (projects, "", "projects", "is required"),
        (
            projects,
            "\nprojects = []",
            "projects",
            "at least one of the projects",
        ),
        (
            projects,
            "\nprojects = [\"prd\"]",
            "projects",
            "at least one of the projects",
        ),
        (
            projects,
            "\nprojects = [\"*\"]\nservices = [\"obs\"]",
            "services",
            "one of the services",
        ),
        (
            projects,
            "\nprojects = [\"*\"]\nkey = \"canary\"",
            "key",
            "not a known key",
        ),
    ] {
        refused(part, by, &format!("{caller}.{key}"), words);
    }
}

#[test]
fn two_callers_cannot_share_a_key() {
    let again = "[storage_credentials.archive]";
    let second = format!(
        "[callers.team-b]\nkey_sha256 = \"{}\"\npermissions = []\nprojects = [\"prod\"]\n{again}",
        "a".repeat(64)
    );
    refused(
        again,
        &second,
        "callers.team-b.key_sha256",
        "the same as that of callers.team-a",
    );
}

#[test]
fn storage_keys_name_those_who_may_use_them() {
    let key = "storage_credentials.archive";
    for (part, by, last, words) in [
        ("callers = [\"team-a\"]\n", "", "callers", "is required"),
        (
            "callers = [\"team-a\"]",
            "callers = [\"team-z\"]",
            "callers",
            "one of the callers",
        ),
        ("projects = [\"prod\"]\n", "", "projects", "is required"),
        (
            "projects = [\"prod\"]",
            "projects = [\"test\"]",
            "projects",
            "one of the projects",
        ),
        ("access_key = \"AK\"", "", "access_key", "is required"),
    ] {
        refused(part, by, &format!("{key}.{last}"), words);
    }
}

#[test]
fn names_have_a_narrow_alphabet() {
    let head = "[storage_credentials.archive]";
    let caller = |name: &str| {
        let digest = "b".repeat(64);
        format!(
            "[callers.{name}]\nkey_sha256 = \"{digest}\"\npermissions = []\nprojects = [\"*\"]\n{head}"
        )
    };
    refused(head, &caller("Team"), "callers.Team", "a-z, 0-9 and -");
    refused(
        head,
        &caller("\"a b\""),
        "callers.\"a b\"",
        "a-z, 0-9 and -",
    );
    refused(
        head,
        &caller("anonymous"),
        "callers.anonymous",
        "without credentials",
    );
    let variable = "MIGRATION_GATEWAY__CALLERS__TEAM_B__PROJECTS";
    let found = faults(&complete(), &[(variable, "*")]);
    let start = "callers.team_b (from MIGRATION_GATEWAY__CALLERS__TEAM_B) ";
    assert!(found[0].starts_with(start), "{found:#?}");
}
