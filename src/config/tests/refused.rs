//! Every kind of fault, by its key.

use std::fs;

use tempfile::TempDir;

use super::{complete, faults};

/// Replaces one part of [`complete`] and expects one fault, which begins with the key and has the words.
fn refused(part: &str, by: &str, key: &str, words: &str) {
    assert!(complete().contains(part), "{part} is not in the text");
    let found = faults(&complete().replacen(part, by, 1), &[]);
    let [line] = found.as_slice() else {
        panic!("{by}: one fault expected in {found:#?}");
    };
    assert!(line.starts_with(&format!("{key} (in ")), "{by}: {line}");
    assert!(line.contains(words), "{by}: {line}");
}

/// As [`refused`], with further lines at the top.
fn refused_line(section: &str, line: &str, words: &str) {
    let key = line.split(' ').next().expect("a key");
    let key = format!("{section}.{key}");
    let lines = format!("[{section}]\n{line}\n[projects.prod]");
    refused("[projects.prod]", &lines, &key, words);
}

#[test]
fn server_settings_outside_their_limits_are_refused() {
    for (section, line, words) in [
        ("server", "listen = \"localhost\"", "address and a port"),
        (
            "server",
            "public_url = \"https://example.com/\"",
            "trailing slash",
        ),
        (
            "server",
            "public_url = \"https://example.com:+80\"",
            "absolute",
        ),
        ("server", "public_url = \"example.com\"", "absolute"),
        (
            "server",
            "public_url = \"https://u:p@example.com\"",
            "user name",
        ),
        (
            "server",
            "trusted_proxies = \"10.0.0.0/8\"",
            "must be a list of IP addresses",
        ),
        (
            "server",
            "trusted_proxies = [\"10.0.0.1/8\"]",
            "without bits behind the length",
        ),
        (
            "server",
            "trusted_proxies = [\"10.0.0.1\", \"proxy.example\"]",
            "must be a list of IP addresses",
        ),
        ("server", "workers = \"4\"", "whole number"),
        ("server", "workers = -1", "whole number"),
        ("server", "workers = 5000", "from 0 to 1024"),
        ("server", "default_wait = 30", "with a unit"),
        ("server", "default_wait = \"30\"", "with a unit"),
        ("server", "default_wait = \"0s\"", "from 1ms to 1h"),
        ("server", "default_wait = \"-5s\"", "from 1ms to 1h"),
        (
            "server",
            "default_wait = \"3m\"",
            "makes default_wait longer than max_wait",
        ),
        ("server", "max_wait = \"1month\"", "with a unit"),
        ("server", "drain_timeout = \"99999999999d\"", "with a unit"),
        ("server", "max_body = \"1MB\"", "KiB or MiB"),
        ("server", "max_body = 1024", "KiB or MiB"),
        ("server", "max_body = \"1GiB\"", "KiB or MiB"),
        (
            "server",
            "max_body = \"99999999999999999999MiB\"",
            "KiB or MiB",
        ),
        ("limits", "burst = 0", "from 1 to 1000000"),
        ("limits", "burts = 1", "not a known key"),
        ("server", "max_bodies = \"1MiB\"", "not a known key"),
    ] {
        refused_line(section, line, words);
    }
}

#[test]
fn other_settings_outside_their_limits_are_refused() {
    for (section, line, words) in [
        ("log", "level = \"inof\"", "must be a level"),
        ("log", "format = \"xml\"", "\"json\", \"text\" or \"auto\""),
        ("store", "url = \"postgres://host\"", "postgres://user@host"),
        (
            "store",
            "url = \"postgres://user:word@host/database\"",
            "store.password",
        ),
        ("store", "url = \"sqlite://\"", "path of a file"),
        ("store", "url = \"sqlite://:memory:\"", "path of a file"),
        ("store", "url = \"gateway.db\"", "path of a file"),
        ("store", "password = { file = \"x\" }", "is for PostgreSQL"),
        ("operations", "deadline = \"0s\"", "from 1s to 720h"),
        (
            "operations",
            "poll_min = \"11s\"",
            "makes poll_min longer than poll_max",
        ),
        ("operations", "concurrency = 0", "from 1 to 1024"),
        ("operations", "history = \"1s\"", "with a unit"),
        ("upstream", "connect_timeout = \"0ms\"", "from 1ms to 5m"),
        ("upstream", "request_timeout = \"1h\"", "from 1ms to 5m"),
        ("upstream", "freshness = \"2m\"", "from 0s to 1m"),
        ("upstream", "requests_per_second = 0", "from 1 to 1000000"),
        ("upstream", "burst = 1000001", "from 1 to 1000000"),
        ("upstream", "ca_file = \"/\"", "cannot be read"),
        (
            "upstream",
            "ca_file = \"/nowhere/ca.pem\"",
            "cannot be read",
        ),
        (
            "access",
            "anonymous = [\"tasks:raed\"]",
            "list of \"*\" or of tasks:read",
        ),
        ("access", "anonymous = \"tasks:read\"", "list of"),
    ] {
        refused_line(section, line, words);
    }
}

#[test]
fn faulty_projects_are_refused() {
    let id = "project_id = \"0215ef11e49d4743be23dd97a1561e91\"\n";
    let region = "region = \"cn-north-4\"\n";
    let kind = "kind = \"password\"";
    for (part, by, key, words) in [
        (id, "", "project_id", "is required"),
        (id, "project_id = \"0215\"\n", "project_id", "32 digits"),
        (region, "", "region", "is required"),
        (
            region,
            "region = \"CN/North\"\n",
            "region",
            "must be a region",
        ),
        (
            region,
            "region = \"cn-north-\"\n",
            "region",
            "must be a region",
        ),
        (
            region,
            "region = \"eu-west-101\"\n",
            "endpoints.sms",
            "no default",
        ),
        (
            id,
            &format!("{id}services = []\n"),
            "services",
            "at least one of the services",
        ),
        (
            id,
            &format!("{id}services = [\"obs\"]\n"),
            "services",
            "one of the services",
        ),
        (kind, "", "credentials.kind", "is required"),
        (
            kind,
            "kind = \"magic\"",
            "credentials.kind",
            "must be \"password\", \"access-key\" or \"ecs-agency\"",
        ),
        ("domain = \"acme\"", "", "credentials.domain", "is required"),
        (
            "user = \"gateway\"",
            "user = \"\"",
            "credentials.user",
            "not empty",
        ),
    ] {
        refused(part, by, &format!("projects.prod.{key}"), words);
    }
}

#[test]
fn faulty_credentials_of_each_kind_are_refused() {
    let password = "kind = \"password\"
domain = \"acme\"
user = \"gateway\"
password = { file = \"SECRET\" }";
    let secret_key = "secret_key = { file = \"SECRET\" }";
    let keys = |access_key: &str| format!("kind = \"access-key\"\n{access_key}\n{secret_key}");
    let ecs = |address: &str| format!("kind = \"ecs-agency\"\nmetadata_address = {address}");
    for (by, key, words) in [
        (keys(""), "access_key", "is required"),
        (
            keys("access_key = \"\""),
            "access_key",
            "must be an access key",
        ),
        (
            keys("access_key = \"a b\""),
            "access_key",
            "must be an access key",
        ),
        (
            keys("access_key = 7"),
            "access_key",
            "must be an access key",
        ),
        (
            keys("access_key = { file = \"/none\" }"),
            "access_key.file",
            "cannot be read",
        ),
        (
            keys("access_key = \"AK\"\nuser = \"gateway\""),
            "user",
            "not a known key",
        ),
        (
            "kind = \"access-key\"\naccess_key = \"AK\"\nsecret_key = \"canary\"".to_owned(),
            "secret_key",
            "by reference only",
        ),
        (ecs("\"\""), "metadata_address", "not empty"),
        (
            ecs("\"http://10.0.0.1\""),
            "metadata_address",
            "link-local or loopback",
        ),
        (
            ecs("\"https://169.254.169.254\""),
            "metadata_address",
            "link-local or loopback",
        ),
        (
            ecs("\"http://metadata.example.com\""),
            "metadata_address",
            "link-local or loopback",
        ),
        (
            format!("kind = \"ecs-agency\"\n{secret_key}"),
            "secret_key",
            "not a known key",
        ),
    ] {
        refused(
            password,
            &by,
            &format!("projects.prod.credentials.{key}"),
            words,
        );
    }
}

#[test]
fn faulty_endpoints_are_refused() {
    let id = "project_id = \"0215ef11e49d4743be23dd97a1561e91\"\n";
    for (part, by, key, words) in [
        (
            id,
            &format!("{id}endpoints = \"x\"\n"),
            "endpoints",
            "must be a table",
        ),
        (
            id,
            &format!("{id}endpoints.oms = \"http://oms.example.com\"\n"),
            "endpoints.oms",
            "loopback",
        ),
        (
            id,
            &format!("{id}endpoints.oms = \"http://127.0.0.1.example.com\"\n"),
            "endpoints.oms",
            "loopback",
        ),
        (
            id,
            &format!("{id}endpoints.iam = \"https://iam.example.com/v3\"\n"),
            "endpoints.iam",
            "without a slash",
        ),
        (
            id,
            &format!("{id}endpoints.oms = \"https://oms.example.com:+8443\"\n"),
            "endpoints.oms",
            "must be an https address",
        ),
        (
            id,
            &format!("{id}endpoints.oms = \"https://oms.example.com:08443\"\n"),
            "endpoints.oms",
            "must be an https address",
        ),
        (
            id,
            &format!("{id}endpoints.oms = \"https://oms.example.com:\"\n"),
            "endpoints.oms",
            "must be an https address",
        ),
        (
            id,
            &format!("{id}endpoints.obs = \"https://obs.example.com\"\n"),
            "endpoints.obs",
            "not a known key",
        ),
    ] {
        refused(part, by, &format!("projects.prod.{key}"), words);
    }
}

#[test]
fn faulty_secrets_are_refused() {
    let directory = TempDir::new().expect("a directory");
    let empty = directory.path().join("empty");
    fs::write(&empty, "\n").expect("an empty secret");
    let empty = format!("{{ file = \"{}\" }}", empty.display());
    let broken = directory.path().join("broken");
    fs::write(&broken, "canary\nof-two-lines").expect("a broken secret");
    let broken = format!("{{ file = \"{}\" }}", broken.display());
    let blank = directory.path().join("blank");
    fs::write(&blank, "canary with blanks\n").expect("a secret with blanks");
    let blank = format!("{{ file = \"{}\" }}", blank.display());
    let large = directory.path().join("large");
    fs::write(&large, vec![b'x'; 64 * 1024 + 1]).expect("a large file");
    let large = format!("{{ file = \"{}\" }}", large.display());
    for (by, key, words) in [
        ("\"canary\"", "", "given by reference only: write { file = "),
        ("{ file = \"/nowhere/canary\" }", ".file", "cannot be read"),
        ("{ env = \"CANARY\" }", ".env", "not set"),
        ("{ file = \"\" }", ".file", "not empty"),
        ("{ env = 5 }", ".env", "must be a text"),
        ("{}", "", "either `file` or `env`"),
        (
            "{ file = \"SECRET\", env = \"CANARY\" }",
            "",
            "either `file` or `env`",
        ),
        (
            "{ file = \"SECRET\", canary = \"x\" }",
            ".canary",
            "not a known key",
        ),
        (&empty, ".file", "is empty"),
        (&large, ".file", "cannot be read"),
    ] {
        for name in [
            "projects.prod.credentials.password",
            "storage_credentials.archive.secret_key",
        ] {
            let (_, last) = name.rsplit_once('.').expect("a key");
            refused(
                &format!("{last} = {{ file = \"SECRET\" }}"),
                &format!("{last} = {by}"),
                &format!("{name}{key}"),
                words,
            );
        }
    }
    let key = "storage_credentials.archive.secret_key";
    for (name, by, words) in [
        (
            "projects.prod.credentials.password",
            &broken,
            "control character",
        ),
        (key, &broken, "visible ASCII without blanks"),
        (key, &blank, "visible ASCII without blanks"),
    ] {
        let (_, last) = name.rsplit_once('.').expect("a key");
        refused(
            &format!("{last} = {{ file = \"SECRET\" }}"),
            &format!("{last} = {by}"),
            &format!("{name}.file"),
            words,
        );
    }
}

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
