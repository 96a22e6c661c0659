//! What the pages for operators name is there: lines of the log, metrics and keys of the
//! configuration.

use std::{
    fs,
    fs::File,
    path::Path,
    process::{Child, Stdio},
};

use migration_gateway::{
    domain::{
        access::{Denied, Permission},
        audit::Rule,
        operation::Reason,
    },
    identity::Refusal,
};

use crate::{
    gateway, program_text,
    support::{http::Client, wait_for},
};

/// A sandbox, ended with the test.
struct Sandbox(Child);

impl Drop for Sandbox {
    fn drop(&mut self) {
        // It may have ended already.
        let _killed = self.0.kill();
        let _status = self.0.wait();
    }
}

impl Sandbox {
    /// Starts it, and gives the address of the gateway in it.
    fn start(log: &Path) -> (Self, String) {
        let child = gateway()
            .args(["sandbox", "--listen", "127.0.0.1:0"])
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(log).expect("a log"))
            .spawn();
        let sandbox = Self(child.expect("the program"));
        let address = wait_for("the sandbox", || {
            let log = fs::read_to_string(log).expect("a log");
            let line = log
                .lines()
                .find(|line| line.contains("the sandbox answers"))?;
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            line["gateway"].as_str().map(str::to_owned)
        });
        (sandbox, address)
    }
}

#[test]
fn the_start_in_the_readme_starts_a_task_of_the_sandbox() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = fs::read_to_string(readme).expect("the README");
    let begin = "$ curl -X POST http://127.0.0.1:8080";
    let line = readme.lines().find_map(|line| line.strip_prefix(begin));
    let parts: Vec<&str> = line.expect("a start").split('\'').collect();
    let [head, "Content-Type: application/json", " -d ", body, ""] = parts.as_slice() else {
        panic!("another form: {parts:?}");
    };
    let path = head.strip_suffix(" -H ").expect("a header");

    let folder = tempfile::tempdir().expect("a folder");
    let (_sandbox, address) = Sandbox::start(&folder.path().join("log"));
    let client = Client::new(address, None);
    let answer = client.raw("POST", path, Some(body));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["outcome"], "started", "{answer:?}");
}

/// The runbook and the pages about problems, with their paths.
fn pages() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut pages = Vec::new();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = fs::read_to_string(&path).expect("a page");
                pages.push((path.display().to_string(), text));
            }
        }
    }
    assert!(pages.len() > 20, "only {} pages", pages.len());
    pages
}

/// The text of the program.
fn program() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    program_text::read(&root)
        .into_iter()
        .map(|file| file.code)
        .collect()
}

/// What stands in backticks.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_line_of_the_log_that_is_quoted_is_written_by_the_program() {
    let program = program();
    let mut count = 0;
    for (page, text) in pages() {
        let quoted = code(&text).filter_map(|code| code.strip_prefix('"')?.strip_suffix('"'));
        for line in quoted.filter(|line| !line.contains('$') && line.contains(char::is_alphabetic))
        {
            // The lines of an operation's events are made of two parts.
            let part = line.strip_prefix("operation ").unwrap_or(line);
            let is_written = program.contains(&format!("{line}\""))
                || part != line && program.contains(&format!("\"{part}\""));
            assert!(is_written, "{page}: nobody writes {line:?}");
            count += 1;
        }
    }
    assert!(count > 20, "only {count} lines are quoted");
}

#[test]
fn every_metric_that_is_named_is_counted_by_the_program() {
    let program = program();
    let mut count = 0;
    for (page, text) in pages() {
        for rest in text.split("migration_gateway_").skip(1) {
            let end = rest.find(|c: char| !(c.is_ascii_lowercase() || c == '_'));
            let name = &rest[..end.unwrap_or(rest.len())];
            let known = [
                name,
                name.trim_end_matches("_total"),
                name.trim_end_matches("_seconds"),
            ]
            .into_iter()
            .any(|name| program.contains(&format!("\"{name}\",")));
            assert!(known, "{page}: nobody counts migration_gateway_{name}");
            count += 1;
        }
    }
    assert!(count > 20, "only {count} metrics are named");
}

#[test]
fn every_key_of_the_configuration_that_is_named_is_in_the_reference() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/gateway.toml");
    let reference = fs::read_to_string(path).expect("config/gateway.toml");
    let reference: config::Map<String, config::Value> = config::Config::builder()
        .add_source(config::File::from_str(&reference, config::FileFormat::Toml))
        .build()
        .and_then(config::Config::try_deserialize)
        .expect("TOML");
    let mut count = 0;
    for (page, text) in pages() {
        for name in code(&text) {
            let Some((section, key)) = name.split_once('.') else {
                continue;
            };
            let is_plain =
                ["server", "log", "audit", "store", "operations", "access"].contains(&section);
            if !is_plain
                || !key
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            {
                continue;
            }
            let table = reference[section].clone().into_table().expect("a table");
            assert!(table.contains_key(key), "{page}: there is no key {name}");
            count += 1;
        }
    }
    assert!(count > 5, "only {count} keys are named");
}

#[test]
fn the_rules_of_the_audit_log_are_those_of_the_program() {
    let security = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/security.md");
    let text = fs::read_to_string(security).expect("the page");
    let (_, text) = text.split_once("`rule` is then one of").expect("the table");
    let (table, _) = text.split_once("`course` says").expect("its end");
    let mut told: Vec<&str> = table.split('`').skip(1).step_by(2).collect();
    told.retain(|word| !["decision", "rule", "denied", "refused"].contains(word));
    told.sort_unstable();
    let lacking = [
        Permission::TasksDelete.as_str(),
        Permission::TasksPause.as_str(),
        Permission::TasksStart.as_str(),
        Denied::Project.rule(),
        "service",
        Denied::TaskName.rule(),
    ];
    let failing = [
        Reason::TaskNotFound,
        Reason::TaskInProgress,
        Reason::TaskNotStarted,
        Reason::TaskFinished,
        Reason::TaskFailed,
        Reason::UpstreamRejected,
    ];
    let mut rules: Vec<&str> = lacking.to_vec();
    rules.extend(failing.iter().map(|reason| reason.as_str()));
    rules.extend(Rule::ALL.iter().map(|rule| rule.as_str()));
    rules.extend(Refusal::ALL.iter().map(|refusal| refusal.as_str()));
    rules.sort_unstable();
    assert_eq!(told, rules);
}
