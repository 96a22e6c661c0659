//! How faults are reported.

use tempfile::{NamedTempFile, TempDir};

use super::{MINIMAL, complete, faults, load};
use crate::config::{load_with, source::Variables};

#[test]
fn a_fault_of_the_environment_is_laid_to_its_variable() {
    let found = faults(
        MINIMAL,
        &[
            ("MIGRATION_GATEWAY__SERVER__LISTEN", "nowhere"),
            ("MIGRATION_GATEWAY__SERVR__LISTEN", "127.0.0.1:80"),
            ("MIGRATION_GATEWAY__SERVER__MAX_WAIT", "1s"),
        ],
    );
    assert_eq!(found.len(), 3, "{found:#?}");
    for (key, variable) in [
        ("server.listen", "MIGRATION_GATEWAY__SERVER__LISTEN"),
        ("servr.listen", "MIGRATION_GATEWAY__SERVR__LISTEN"),
        ("server.max_wait", "MIGRATION_GATEWAY__SERVER__MAX_WAIT"),
    ] {
        let start = format!("{key} (from {variable}) ");
        assert!(
            found.iter().any(|line| line.starts_with(&start)),
            "{found:#?}"
        );
    }
}

#[test]
fn a_variable_that_is_no_text_is_a_fault() {
    let file = NamedTempFile::new().expect("a file");
    let name = "MIGRATION_GATEWAY__LOG__LEVEL".to_owned();
    let found = load_with(file.path(), [(name, None)].into()).expect_err("a fault");
    let wanted = "log.level (from MIGRATION_GATEWAY__LOG__LEVEL) is not valid UTF-8.";
    assert!(found.to_string().contains(wanted), "{found}");
}

#[test]
fn all_faults_are_reported_at_once() {
    let text = r#"
surprise = 1
[server]
listen = "here"
max_body = "lots"
[store]
url = "postgres://host/database"
[operations]
poll_min = "20s"
[projects.prod]
region = "cn-north-4"
[projects.prod.credentials]
kind = "password"
domain = "acme"
password = { env = "A_VARIABLE_THAT_NOBODY_SETS" }
[callers.team-a]
key_sha256 = "short"
"#;
    let found = faults(text, &[]);
    let keys: Vec<&str> = found
        .iter()
        .map(|line| line.split(' ').next().expect("a key"))
        .collect();
    for key in [
        "surprise",
        "server.listen",
        "server.max_body",
        "store.url",
        "operations.poll_min",
        "projects.prod.project_id",
        "projects.prod.credentials.user",
        "projects.prod.credentials.password.env",
        "callers.team-a.key_sha256",
        "callers.team-a.permissions",
        "callers.team-a.projects",
    ] {
        assert!(keys.contains(&key), "{key} is missing in {found:#?}");
    }
    assert_eq!(keys.len(), 11, "{found:#?}");
}

#[test]
fn the_default_project_is_written_where_it_is_not_plain() {
    let second = complete().replace("[callers.team-a]", "[projects.test]\n[callers.team-a]");
    let found = faults(&second, &[]);
    assert!(
        found
            .iter()
            .any(|line| line.starts_with("default_project ")),
        "{found:#?}"
    );
    let found = faults(&format!("default_project = \"test\"\n{}", complete()), &[]);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(
        found[0].contains("must name one of the projects"),
        "{found:#?}"
    );
    let found = faults("", &[]);
    assert!(
        found[0].contains("must have at least one project"),
        "{found:#?}"
    );
}

#[test]
fn broken_syntax_is_located_and_not_quoted() {
    let text = "[callers.team-a]\nkey_sha256 = \"canary";
    let found = load(text, &[]).expect_err("a fault").to_string();
    assert!(
        found.contains("is not valid TOML: look at line 2, column"),
        "{found}"
    );
    assert!(!found.contains("canary"), "{found}");
}

#[test]
fn a_file_that_is_not_there_is_a_fault() {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("gateway.toml");
    let found = load_with(&path, Variables::new()).expect_err("a fault");
    assert!(found.to_string().contains("cannot be read"), "{found}");
}
