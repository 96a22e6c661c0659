//! The command line, run as a process of its own.

use std::{
    fs,
    process::{Command, Output},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::gateway;

fn run(arguments: &[&str]) -> Output {
    finish(gateway().args(arguments))
}

fn finish(command: &mut Command) -> Output {
    command.output().expect("the program runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("output is UTF-8")
}

#[test]
fn help_names_every_command_and_the_exit_status() {
    let output = run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = text(&output.stdout);
    for word in [
        "serve",
        "sandbox",
        "check-config",
        "healthcheck",
        "new-key",
        "openapi",
        "Examples:",
        "Exit status",
    ] {
        assert!(help.contains(word), "{word} is missing in {help}");
    }
}

#[test]
fn a_wrong_command_line_is_status_2_and_leaves_the_output_empty() {
    for arguments in [
        &[][..],
        &["remove"],
        &["serve"],
        &["check-config", "gateway.toml"],
        &["new-key"],
        &["new-key", "Team A"],
        &["new-key", "anonymous"],
        &["sandbox", "--listen", "0.0.0.0:8080"],
        &["sandbox", "--listen", "[::]:8080"],
        &["sandbox", "--listen", "localhost"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn the_sandbox_says_why_it_stays_on_loopback() {
    let output = run(&["sandbox", "--listen", "192.0.2.1:8080"]);
    let message = text(&output.stderr);
    assert!(message.contains("must be a loopback address"), "{message}");
}

#[test]
fn a_new_key_is_fresh_and_its_digest_is_the_one_printed() {
    let keys: Vec<String> = (0..2)
        .map(|_| {
            let output = run(&["new-key", "team-a"]);
            assert_eq!(output.status.code(), Some(0));
            let lines: Vec<&str> = text(&output.stdout).lines().collect();
            let [key, "", "[callers.team-a]", digest] = lines.as_slice() else {
                panic!("other lines expected than {} lines", lines.len());
            };
            let random = key.strip_prefix("mgw_").expect("the prefix of keys");
            let random = BASE64_URL_SAFE_NO_PAD.decode(random).expect("base64url");
            assert_eq!(random.len(), 32);
            let digest = digest
                .strip_prefix("key_sha256 = \"")
                .and_then(|rest| rest.strip_suffix('"'))
                .expect("the line of the digest");
            let digest: Vec<u8> = (0..digest.len() / 2)
                .map(|at| u8::from_str_radix(&digest[2 * at..2 * at + 2], 16).expect("hex"))
                .collect();
            assert_eq!(digest, Sha256::digest(key).as_slice());
            assert!(!text(&output.stderr).contains(*key));
            (*key).to_owned()
        })
        .collect();
    assert_ne!(keys[0], keys[1]);
}

#[test]
fn the_lines_of_a_new_key_fit_into_a_configuration() {
    let output = run(&["new-key", "team-a"]);
    let (_, lines) = text(&output.stdout)
        .split_once("\n\n")
        .expect("key and lines");
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("gateway.toml");
    let project = "[projects.prod]\nproject_id = \"0215ef11e49d4743be23dd97a1561e91\"\n\
                   region = \"cn-north-4\"\n[projects.prod.credentials]\nkind = \"password\"\n\
                   domain = \"acme\"\nuser = \"gateway\"\npassword = { env = \"PASSWORD\" }\n";
    let rest = "permissions = [\"*\"]\nprojects = [\"*\"]\n";
    fs::write(&file, format!("{project}{lines}{rest}")).expect("the file is written");
    let checked = finish(
        gateway()
            .args(["check-config", "--config"])
            .arg(&file)
            .env("PASSWORD", "x"),
    );
    assert_eq!(text(&checked.stderr), "");
    assert_eq!(checked.status.code(), Some(0));
    let words = "The configuration is right: 1 project, 1 caller.\n";
    assert_eq!(text(&checked.stdout), words);
}

#[test]
fn nothing_is_served_from_a_faulty_configuration() {
    let directory = TempDir::new().expect("a directory");
    let file = directory.path().join("gateway.toml");
    fs::write(&file, "[servr]\n").expect("the file is written");
    for command in ["serve", "check-config"] {
        let output = finish(gateway().args([command, "--config"]).arg(&file));
        assert_eq!(output.status.code(), Some(2), "{command}");
        assert!(output.stdout.is_empty(), "{command}");
        assert!(text(&output.stderr).contains("servr (in "), "{command}");
    }
}

#[test]
fn the_openapi_document_is_json() {
    let output = run(&["openapi"]);
    assert_eq!(output.status.code(), Some(0));
    let document: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("the document is JSON");
    assert!(document.is_object());
}

#[test]
fn a_log_filter_that_nobody_understands_is_refused_before_anything_is_served() {
    let output = finish(
        gateway()
            .args(["sandbox", "--listen", "127.0.0.1:0"])
            .env("RUST_LOG", "inof"),
    );
    assert_eq!(output.status.code(), Some(2));
    let message = text(&output.stderr);
    assert!(message.contains("RUST_LOG"), "{message}");
}
