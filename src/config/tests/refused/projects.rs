//! Projects, their credentials, endpoints and secrets.

use std::fs;

use tempfile::TempDir;

use super::refused;

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
