//! The configuration as the program reads it: a real file, a real environment.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use tempfile::TempDir;

use crate::{gateway, support::authority::Authority};

fn check(file: &Path) -> Command {
    let mut command = gateway();
    command.args(["check-config", "--config"]).arg(file);
    command
}

fn reference() -> Command {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/gateway.toml");
    let mut command = check(&file);
    command
        .env("IAM_PASSWORD", "canary-password")
        .env("AUDIT_KEY", "canary-key-of-at-least-thirty-two-bytes")
        .env("ARCHIVE_SECRET_KEY", "canary-key");
    command
}

fn finish(command: &mut Command) -> Output {
    command.output().expect("the program runs")
}

fn errors(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("messages are UTF-8")
}

#[test]
fn the_reference_is_a_valid_configuration() {
    let output = finish(&mut reference());
    assert_eq!(errors(&output), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn the_reference_is_valid_with_its_encrypted_listener_too() {
    let folder = TempDir::new().expect("a folder");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/gateway.toml");
    let text = fs::read_to_string(file).expect("the reference");
    let mut written = String::new();
    for line in text.lines() {
        let keys = [
            "[server.tls]",
            "certificate = ",
            "private_key = ",
            "client_ca = ",
        ];
        let line = match line.strip_prefix('#') {
            Some(rest) if keys.iter().any(|key| rest.starts_with(key)) => rest,
            Some(_) | None => line,
        };
        let here = format!("{}/", folder.path().display());
        written.push_str(&line.replace("\"/run/secrets/", &format!("\"{here}")));
        written.push('\n');
    }
    for key in [
        "\n[server.tls]\n",
        "\nclient_ca = ",
        "\ncertificate = \"team-a",
    ] {
        assert!(written.contains(key), "{key}");
    }
    let (trusted, callers) = (Authority::new(), Authority::new());
    let listener = trusted.listener();
    for (name, text) in [
        ("gateway.pem", &listener.pem),
        ("gateway-key.pem", &listener.key_pem()),
        ("callers-ca.pem", &callers.pem()),
        ("gateway.toml", &written),
    ] {
        fs::write(folder.path().join(name), text).expect("a file");
    }
    let mut command = check(&folder.path().join("gateway.toml"));
    let output = finish(
        command
            .env("IAM_PASSWORD", "canary-password")
            .env("AUDIT_KEY", "canary-key-of-thirty-two-bytes-or-more")
            .env("ARCHIVE_SECRET_KEY", "canary-key"),
    );
    assert_eq!(errors(&output), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn a_secret_that_is_missing_or_empty_is_found_before_anything_starts() {
    let output = finish(reference().env_remove("IAM_PASSWORD"));
    assert_eq!(output.status.code(), Some(2));
    assert!(errors(&output).contains("projects.prod.credentials.password.env"));
    let output = finish(reference().env("ARCHIVE_SECRET_KEY", ""));
    assert_eq!(output.status.code(), Some(2));
    assert!(errors(&output).contains("storage_credentials.archive.secret_key.env"));
}

#[test]
fn variables_of_the_environment_are_checked_like_the_file() {
    let good = finish(reference().env("MIGRATION_GATEWAY__SERVER__LISTEN", "127.0.0.1:0"));
    assert_eq!(good.status.code(), Some(0));
    let bad = finish(
        reference()
            .env("MIGRATION_GATEWAY__SERVER__LISTEN", "canary-listen")
            .env("MIGRATION_GATEWAY__SERVER__LISTN", "127.0.0.1:0"),
    );
    assert_eq!(bad.status.code(), Some(2));
    let errors = errors(&bad);
    for words in [
        "has 2 faults",
        "server.listen (from MIGRATION_GATEWAY__SERVER__LISTEN)",
        "server.listn (from MIGRATION_GATEWAY__SERVER__LISTN) is not a known key",
    ] {
        assert!(errors.contains(words), "{words} is missing in {errors}");
    }
}

/// Every place where a secret could stand by mistake. Each text is refused, and no message may
/// repeat the secret.
#[test]
fn no_message_repeats_a_value() {
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("gateway.toml");
    for text in [
        "[projects.prod.credentials]\nkind = \"password\"\npassword = \"canary\"",
        "[projects.prod.credentials]\nkind = \"password\"\npassword = { file = \"canary\" }",
        "[projects.prod.credentials]\nkind = \"password\"\npassword = { env = \"canary\" }",
        "[projects.prod.credentials]\nkind = \"password\"\npassword = [\"canary\"]",
        "[projects.prod.credentials]\nkind = \"canary\"",
        "[projects.prod.credentials]\nkind = \"password\"\nsecret = \"canary\"",
        "[projects.prod]\nproject_id = \"canary\"\nregion = \"can ary canary\"",
        "[projects.prod]\nendpoints.oms = \"https://user:canary@example.com\"",
        "projects = \"canary\"",
        "[callers]\nteam-a = \"canary\"",
        "[callers.team-a]\nkey_sha256 = \"canary\"",
        "[callers.team-a]\nkey = \"canary\"",
        "[callers.team-a]\npermissions = [\"canary\"]\nprojects = [\"canary\"]",
        "[storage_credentials.archive]\nsecret_key = \"canary\"",
        "[storage_credentials.archive]\naccess_key = [\"canary\"]",
        "[store]\nurl = \"postgres://user:canary@host/database\"",
        "[store]\npassword = \"canary\"",
        "[server]\npublic_url = \"https://user:canary@example.com\"",
        "[log]\nlevel = \"canary\"",
        "default_project = \"canary\"",
        "password = \"canary",
        "password = canary",
        "password = \"x\"\npassword = \"canary\"",
        "[projects.prod]\nproject_id = 99999999999999999999 # canary",
    ] {
        fs::write(&file, text).expect("the file is written");
        let output = finish(&mut check(&file));
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(output.stdout.is_empty(), "{text}");
        let errors = errors(&output);
        assert!(errors.contains("gateway.toml"), "{text}: {errors}");
        assert!(!errors.contains("canary"), "{text}: {errors}");
    }
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_text_is_refused_without_its_value() {
    use std::os::unix::ffi::OsStrExt as _;

    let value = std::ffi::OsStr::from_bytes(b"canary\xff");
    let output = finish(reference().env("MIGRATION_GATEWAY__STORE__URL", value));
    assert_eq!(output.status.code(), Some(2));
    let errors = errors(&output);
    assert!(errors.contains("store.url"), "{errors}");
    assert!(!errors.contains("canary"), "{errors}");
}

#[test]
fn what_is_wrong_with_the_address_of_a_database_is_said_by_the_check_and_by_a_start() {
    let folder = TempDir::new().expect("a folder");
    let write = |name: &str, text: &str| {
        let file = folder.path().join(name);
        fs::write(&file, text).expect("a file");
        file.display().to_string()
    };
    let password = write("password", "canary-password");
    let empty = write("empty.pem", "");
    let key = write("key.pem", &Authority::new().listener().key_pem());
    let cut = write("cut.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n");
    let strange = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    let strange = write("strange.pem", strange);
    let good = write("good%.pem", &Authority::new().pem()).replace('%', "%25");
    let roots = |path: &str| format!("?sslrootcert={path}");
    for (query, wanted) in [
        (roots("/nowhere/canary.pem"), "cannot be read"),
        (
            roots(&folder.path().display().to_string()),
            "is not a regular file",
        ),
        (roots(&empty), "no certificate"),
        (roots(&key), "no certificate"),
        (roots(&cut), "not PEM"),
        (roots(&strange), "certificate 1"),
        (roots("canary.pem"), "absolute path"),
        (
            roots(&good) + "&sslmode=require",
            "\"verify-full\" or \"verify-ca\"",
        ),
        (
            "?sslmode=verify_full".to_owned(),
            "\"verify-full\", \"verify-ca\"",
        ),
        ("?sslcert=canary".to_owned(), "not known"),
        ("?canary".to_owned(), "not known"),
    ] {
        let text = format!(
            "[store]\nurl = \"postgres://gateway@db/operations{query}\"\npassword = {{ file = \"{password}\" }}\n"
        );
        let file = folder.path().join("gateway.toml");
        fs::write(&file, &text).expect("a file");
        for command in ["check-config", "serve"] {
            let output = finish(gateway().args([command, "--config"]).arg(&file));
            assert_eq!(output.status.code(), Some(2), "{text}");
            let errors = errors(&output);
            let said = errors.lines().find(|line| line.contains("store.url"));
            let said = said.unwrap_or_else(|| panic!("{query}: {errors}"));
            assert!(said.contains(wanted), "{query}: {said}");
            assert!(!errors.contains("canary"), "{query}: {errors}");
        }
    }
    let text = format!(
        "[store]\nurl = \"postgres://gateway@db/operations{}\"\n",
        roots(&good)
    );
    let file = folder.path().join("gateway.toml");
    fs::write(&file, &text).expect("a file");
    let output = finish(&mut check(&file));
    assert!(
        !errors(&output).contains("store.url"),
        "{}",
        errors(&output)
    );
}
