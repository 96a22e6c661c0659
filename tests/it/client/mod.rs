//! The commands `tasks` and `operations`: what they ask a gateway for, what they print, and how
//! they end.

mod peers;
mod terminal;

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use migration_gateway::sandbox::{
    Fault, FaultKind, OmsSpec, Operation, RunEnd, Service, SmsSpec, TaskSwitches,
};
use serde_json::{Value, json};

use crate::{
    gateway,
    support::{
        authority::Authority,
        gateway::{Gateway, KEY, Place},
        stuck, wait_for,
    },
};

/// The program as a caller of this gateway starts it, with this key.
fn caller(gateway: &Gateway, key: Option<&str>) -> Command {
    let mut command = gateway_command();
    let address = format!("http://{}", gateway.authority());
    command.env("MIGRATION_GATEWAY_ADDRESS", address);
    command.envs(key.map(|key| ("MIGRATION_GATEWAY_KEY", key)));
    command
}

/// The program of somebody without a file of their own.
fn gateway_command() -> Command {
    let mut command = gateway();
    command.env("HOME", "/nonexistent").stdin(Stdio::null());
    command
}

/// What came of a command line, words apart by spaces.
#[derive(Debug)]
struct Said {
    status: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
        Self {
            status: output.status.code(),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    /// The documents that were printed, which are all that was.
    fn documents(&self) -> Vec<Value> {
        assert_eq!(self.err, "", "{self:?}");
        let lines = self.out.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}")))
            .collect()
    }
}

fn said(command: &mut Command, line: &str) -> Said {
    let output = command.args(line.split(' ')).output();
    Said::of(&output.expect("the program runs"))
}

/// As [`said`], with something on the standard input.
fn fed(command: &mut Command, line: &str, input: &str) -> Said {
    let mut child = command
        .args(line.split(' '))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut stdin = child.stdin.take().expect("an input");
    stdin.write_all(input.as_bytes()).expect("to be read");
    drop(stdin);
    Said::of(&child.wait_with_output().expect("an end"))
}

fn ask(gateway: &Gateway, line: &str) -> Said {
    said(&mut caller(gateway, Some(KEY)), line)
}

/// As [`ask`], and it goes well.
fn out(gateway: &Gateway, line: &str) -> String {
    let said = ask(gateway, line);
    assert_eq!((said.status, &*said.err), (Some(0), ""), "{line}: {said:?}");
    said.out
}

fn slow_pause(seconds: u64) -> OmsSpec {
    OmsSpec {
        switches: TaskSwitches {
            pause_delay: Some(Duration::from_secs(seconds)),
            ..TaskSwitches::default()
        },
        ..OmsSpec::new("logs", 2)
    }
}

#[test]
fn lists_are_read_to_their_end_and_documents_shown_to_people_or_programs() {
    let place = Place::new();
    let ids: Vec<_> = (0..203)
        .map(|number| {
            place
                .cloud
                .add_oms(OmsSpec::new(&format!("logs {number} & more"), 3))
        })
        .collect();
    let server = place.cloud.add_sms(SmsSpec::new("web", "RUNNING"));
    let gateway = place.start();
    let listed = out(&gateway, "tasks list");
    for id in ids.iter().chain([&server]) {
        assert!(listed.contains(id.as_str()), "{id} is missing");
    }
    assert_eq!(listed.lines().count(), 205, "a head and the tasks");
    let documents = ask(&gateway, "tasks list --json --service oms").documents();
    assert_eq!(documents.len(), 203);
    let mut named = caller(&gateway, Some(KEY));
    let named = named
        .args(["tasks", "list", "--json", "--name", "7 & m"])
        .output();
    let named = Said::of(&named.expect("the program runs")).documents();
    assert!(!named.is_empty() && named.len() < 30, "{}", named.len());
    assert_eq!(
        ask(&gateway, "tasks list --state running --json")
            .documents()
            .len(),
        1
    );

    let shown = out(&gateway, &format!("tasks show {server}"));
    assert!(
        shown.contains("running (RUNNING)") && shown.contains("web"),
        "{shown}"
    );
    let full = ask(&gateway, &format!("tasks show {} --full --json", ids[0])).documents();
    assert!(full[0]["details"].is_object(), "{full:?}");
}

#[test]
fn a_forced_delete_waits_until_the_task_is_gone_and_says_what_happens() {
    let place = Place::new();
    let task = place.cloud.add_oms(slow_pause(5));
    let gateway = place.start();
    let told = out(&gateway, &format!("tasks delete {task} --force pause"));
    let words = [
        "accepted",
        "observed  running",
        "pause_sent",
        "observed  paused",
        "delete_sent",
        "observed  gone",
        "ended",
    ];
    let mut rest = told.as_str();
    for word in words {
        let (_, after) = rest
            .split_once(word)
            .unwrap_or_else(|| panic!("{word}: {told}"));
        rest = after;
    }
    assert!(rest.trim_end().ends_with("succeeded (deleted)"), "{told}");
    assert_eq!(told.matches("accepted").count(), 1, "nothing is told twice");
    for change in [Operation::Pause, Operation::Delete] {
        assert_eq!(place.cloud.count(change, Some(&task)), 1, "{change:?}");
    }

    let task = place.cloud.add_oms(slow_pause(0));
    let line = format!("tasks delete {task} --force pause --json");
    let documents = ask(&gateway, &line).documents();
    assert_eq!(documents.len(), 1, "{documents:?}");
    assert_eq!(documents[0]["outcome"], "deleted");

    let task = place.cloud.add_oms(stuck());
    let told = out(&gateway, &format!("tasks pause {task} --no-wait"));
    assert!(
        told.contains(": running") && told.contains("operations watch op_"),
        "{told}"
    );
}

#[test]
fn a_start_sends_keys_by_name_or_from_the_standard_input() {
    let place = Place::new().add(
        "\n[storage_credentials.archive]\naccess_key = \"AK\"\nsecret_key = { env = \"ARCHIVE_SECRET\" }\n\
         callers = [\"*\"]\nprojects = [\"*\"]\n",
    ).env("ARCHIVE_SECRET", "named-secret");
    let [named, inline] = [(); 2].map(|()| place.cloud.add_oms(OmsSpec::new("logs", 3)));
    let server = place.cloud.add_sms(SmsSpec::new("web", "ABORT"));
    let gateway = place.start();
    let told = out(
        &gateway,
        &format!("tasks start {named} --source archive --destination archive"),
    );
    assert!(told.contains("succeeded (started)"), "{told}");
    let told = out(&gateway, &format!("tasks start {server}"));
    assert!(told.contains("succeeded (started)"), "{told}");

    let keys = json!({"access_key": "AK-1", "secret_key": "inline-secret"});
    let told = fed(
        &mut caller(&gateway, Some(KEY)),
        &format!("tasks start {inline} --credentials-file -"),
        &json!({"source": keys, "destination": keys}).to_string(),
    );
    assert_eq!(told.status, Some(0), "{told:?}");
    assert!(!told.out.contains("inline-secret"), "{told:?}");
    let sent = place.cloud.oms_start_keys(&inline).expect("keys");
    assert_eq!(sent.src_ak.as_deref(), Some("AK-1"));
    assert_eq!(sent.dst_sk.as_deref(), Some("inline-secret"));

    let without = ask(&gateway, &format!("tasks start {inline}"));
    assert_eq!(without.status, Some(1), "{without:?}");
    assert_eq!(
        without.err.matches("destination is the name of").count(),
        1,
        "{without:?}"
    );

    let file = place.file("keys.json");
    fs::write(&file, "{\"secret_key\": inline-secret").expect("a file");
    let line = format!("tasks start {inline} --credentials-file {}", file.display());
    let refused = ask(&gateway, &line);
    assert_eq!(refused.status, Some(2), "{refused:?}");
    assert!(!refused.err.contains("inline-secret"), "{refused:?}");
}

#[test]
fn the_status_and_the_text_say_what_went_wrong() {
    let place = Place::new().caller(
        "reader",
        "reader",
        "permissions = [\"tasks:read\"]\nprojects = [\"*\"]",
    );
    let task = place.cloud.add_oms(OmsSpec::new("logs", 2));
    let gateway = place.start();
    let refused = ask(&gateway, &format!("tasks delete {task}"));
    assert_eq!(
        (refused.status, &*refused.out),
        (Some(1), ""),
        "{refused:?}"
    );
    let page = format!("http://{}/problems/task-in-progress", gateway.authority());
    for part in [
        "The task is in progress",
        "is running. Pause it first",
        "force=pause",
        "request",
        &page,
    ] {
        assert!(refused.err.contains(part), "{part}: {refused:?}");
    }
    let document = ask(&gateway, &format!("tasks delete {task} --json"));
    assert_eq!(document.status, Some(1));
    assert_eq!(
        document.documents()[0]["type"],
        "/problems/task-in-progress"
    );

    for (key, line) in [
        (None, "tasks list".to_owned()),
        (Some("wrong"), "tasks list".to_owned()),
        (Some("reader"), format!("tasks pause {task}")),
        (Some("reader"), "operations list".to_owned()),
    ] {
        let denied = said(&mut caller(&gateway, key), &line);
        assert_eq!(denied.status, Some(4), "{line}: {denied:?}");
    }
    for line in [
        "tasks",
        "tasks list --state gone",
        "tasks show 0/../1",
        "tasks delete 7 --force yes",
        "tasks list --key secret",
        "operations show 7",
        "operations",
        "tasks list --address gateway",
        "tasks list --key-file /nonexistent",
    ] {
        let wrong = ask(&gateway, line);
        assert_eq!(
            (wrong.status, &*wrong.out),
            (Some(2), ""),
            "{line}: {wrong:?}"
        );
    }
    // A port on which nobody listens.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let away = ask(&gateway, &format!("tasks list --address http://{address}"));
    assert_eq!((away.status, &*away.out), (Some(3), ""), "{away:?}");
    assert!(away.err.contains(&address.to_string()), "{away:?}");
    // Something else than a gateway.
    let cloud = place.cloud.oms_url();
    let foreign = ask(&gateway, &format!("tasks list --address {cloud}"));
    assert_eq!(foreign.status, Some(3), "{foreign:?}");
}

#[test]
fn every_end_has_its_status() {
    let place = Place::new();
    let gateway = place.start();
    let client = gateway.client();
    let rest = place.cloud.add_oms(OmsSpec::new("logs", 3));
    let denied = place.cloud.add_oms(OmsSpec::new("logs", 3));
    let fault = FaultKind::denied(Service::Oms);
    let fault = Fault::on(Service::Oms, Operation::Show, fault);
    let _fault = place.cloud.fault(fault.task(&denied).always());
    for (line, status, word) in [
        (format!("tasks pause {rest}"), 0, "already_paused"),
        (format!("tasks delete {rest}"), 0, "deleted"),
        (format!("tasks show {rest}"), 1, "knows no task"),
        (format!("tasks watch {rest}"), 1, "knows no task"),
        (format!("tasks show {denied}"), 1, "permission"),
    ] {
        let told = ask(&gateway, &line);
        assert_eq!(told.status, Some(status), "{line}: {told:?}");
        let text = if status == 0 { &told.out } else { &told.err };
        assert!(text.contains(word), "{line}: {told:?}");
    }
    // What ends otherwise than was asked for while somebody waits.
    let end = |change: &dyn Fn(&str, &str)| {
        let task = place.cloud.add_oms(stuck());
        let waiting = caller(&gateway, Some(KEY))
            .args(["tasks", "pause", &task])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let id = wait_for("the operation", || {
            let listed = client.get(&format!("/operations?task={task}")).json();
            listed["operations"][0]["id"].as_str().map(str::to_owned)
        });
        wait_for("the pause", || {
            (place.cloud.count(Operation::Pause, Some(&task)) == 1).then_some(())
        });
        change(&task, &id);
        let told = Said::of(&waiting.wait_with_output().expect("an end"));
        assert_eq!(told.status, Some(1), "{told:?}");
        told.err
    };
    let failed = end(&|task, _| assert!(place.cloud.set_oms_status(task, 5)));
    assert!(failed.contains("/problems/task-finished"), "{failed}");
    let cancelled = end(&|_, id| {
        client.post(&format!("/operations/{id}/cancel"));
    });
    assert!(
        cancelled.contains("/problems/operation-cancelled"),
        "{cancelled}"
    );
    let superseded = end(&|task, _| {
        client.force_delete(task);
    });
    assert!(
        superseded.contains("/problems/operation-superseded"),
        "{superseded}"
    );
}

#[test]
fn the_command_line_is_before_the_environment_and_that_before_the_file() {
    let place = Place::new();
    let task = place.cloud.add_oms(OmsSpec::new("logs", 3));
    let gateway = place.start();
    let home = tempfile::tempdir().expect("a folder");
    let folder = home.path().join("migration-gateway");
    fs::create_dir(&folder).expect("a folder");
    let (right, wrong) = (home.path().join("right"), home.path().join("wrong"));
    fs::write(&right, format!("{KEY}\n")).expect("a file");
    fs::write(&wrong, "wrong").expect("a file");
    let address = format!("http://{}", gateway.authority());
    let write = |address: &str, key: &std::path::Path| {
        let text = format!(
            "address = \"{address}\"\nkey_file = \"{}\"\n",
            key.display()
        );
        fs::write(folder.join("client.toml"), text).expect("a file");
    };
    let status = |variables: &[(&str, &str)]| {
        let mut command = gateway_command();
        command
            .env("XDG_CONFIG_HOME", home.path())
            .envs(variables.iter().copied());
        let said = said(&mut command, &format!("tasks show {task}"));
        said.status.expect("an end")
    };
    let right_path = right.to_str().expect("a path");
    write(&address, &right);
    assert_eq!(status(&[]), 0);
    assert_eq!(status(&[("MIGRATION_GATEWAY_KEY", "wrong")]), 4);
    assert_eq!(
        status(&[("MIGRATION_GATEWAY_ADDRESS", "http://127.0.0.1:1")]),
        3
    );
    write("http://127.0.0.1:1", &wrong);
    assert_eq!(status(&[]), 3);
    let variables = [
        ("MIGRATION_GATEWAY_ADDRESS", &*address),
        ("MIGRATION_GATEWAY_KEY", KEY),
    ];
    assert_eq!(status(&variables), 0);
    let mut command = gateway_command();
    command
        .env("XDG_CONFIG_HOME", home.path())
        .env("MIGRATION_GATEWAY_KEY", "wrong");
    let line = format!("tasks --key-file {right_path} show {task} --address {address}");
    let flags = said(&mut command, &line);
    assert_eq!(flags.status, Some(0), "{flags:?}");
    fs::write(folder.join("client.toml"), "adress = \"x\"").expect("a file");
    assert_eq!(status(&variables), 2, "an unknown key");
}

#[test]
fn a_wait_lasts_over_a_restart_of_the_gateway() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let place = Place::new().set("server.listen", &format!("\"{address}\""));
    let task = place.cloud.add_oms(stuck());
    let gateway = place.start();
    let waiting = caller(&gateway, Some(KEY))
        .args(["tasks", "delete", &task, "--force", "pause"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let watching = {
        let id = wait_for("the operation", || {
            let listed = gateway.client().get("/operations").json();
            listed["operations"][0]["id"].as_str().map(str::to_owned)
        });
        caller(&gateway, Some(KEY))
            .args(["operations", "watch", &id])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program runs")
    };
    wait_for("the pause", || {
        (place.cloud.count(Operation::Pause, Some(&task)) == 1).then_some(())
    });
    wait_for("the watcher", || {
        let metrics = gateway.stranger().get("/metrics").text;
        metrics
            .contains("migration_gateway_event_streams 1")
            .then_some(())
    });
    gateway.kill();
    place.cloud.set_oms_status(&task, 3);
    let _gateway = place.start();
    for child in [waiting, watching] {
        let told = Said::of(&child.wait_with_output().expect("an end"));
        assert_eq!((told.status, &*told.err), (Some(0), ""), "{told:?}");
        assert!(
            told.out.trim_end().ends_with("succeeded (deleted)"),
            "{told:?}"
        );
        assert_eq!(told.out.matches("accepted").count(), 1, "{told:?}");
    }
}

#[test]
fn operations_are_listed_shown_watched_and_cancelled() {
    let place = Place::new();
    let (first, second) = (
        place.cloud.add_oms(stuck()),
        place.cloud.add_oms(OmsSpec::new("logs", 3)),
    );
    let gateway = place.start();
    let deleted = ask(&gateway, &format!("tasks delete {second} --json")).documents();
    let deleted = deleted[0]["id"].as_str().expect("an id").to_owned();
    let paused = ask(&gateway, &format!("tasks pause {first} --no-wait --json")).documents();
    let paused = paused[0]["id"].as_str().expect("an id").to_owned();
    let listed = out(&gateway, "operations list");
    assert!(
        listed.contains(&deleted) && listed.contains(&paused),
        "{listed}"
    );
    let line = format!("operations list --json --status running --task {first}");
    let running = ask(&gateway, &line).documents();
    assert_eq!(
        (running.len(), running[0]["id"].as_str()),
        (1, Some(&*paused))
    );
    let shown = out(&gateway, &format!("operations show {deleted}"));
    assert!(
        shown.contains("deleted") && shown.contains("delete_sent"),
        "{shown}"
    );
    let watched = out(&gateway, &format!("operations watch {deleted}"));
    assert!(
        watched.contains("observed  gone") && watched.contains("succeeded"),
        "{watched}"
    );
    let cancelled = out(&gateway, &format!("operations cancel {paused}"));
    assert!(cancelled.contains("cancelled"), "{cancelled}");
    // Whoever repeats it is told the same.
    let again = out(&gateway, &format!("operations cancel {paused}"));
    assert_eq!(again, cancelled);
    let late = ask(&gateway, &format!("operations cancel {deleted}"));
    assert_eq!(late.status, Some(1), "{late:?}");
    assert!(
        late.out.contains("succeeded (deleted)") && late.err.contains("had ended"),
        "{late:?}"
    );
    let watched = ask(&gateway, &format!("operations watch {paused} --json"));
    assert_eq!(watched.status, Some(1));
    assert_eq!(watched.documents()[0]["status"], "cancelled");
    let watched = ask(&gateway, &format!("operations watch {paused}"));
    assert_eq!(watched.status, Some(1));
    assert!(watched.err.contains("cancelled"), "{watched:?}");
}

/// A task that runs for two seconds.
fn short(run_end: RunEnd) -> OmsSpec {
    OmsSpec {
        run_duration: Some(Duration::from_secs(2)),
        run_end,
        done: 0,
        ..OmsSpec::new("logs", 2)
    }
}

#[test]
fn a_migration_is_watched_to_its_end() {
    let place = Place::new();
    let gateway = place.start();
    let good = place.cloud.add_oms(short(RunEnd::Success));
    let told = out(&gateway, &format!("tasks watch {good}"));
    assert!(told.lines().count() >= 2, "{told}");
    let first = told.lines().next().expect("a line");
    for part in ["running", "%", " of ", "objects", "/s", "left"] {
        assert!(first.contains(part), "{part}: {told}");
    }
    assert!(
        told.lines()
            .last()
            .expect("a line")
            .starts_with("succeeded"),
        "{told}"
    );
    let documents = ask(&gateway, &format!("tasks watch {good} --json")).documents();
    assert_eq!(
        (documents.len(), &documents[0]["state"]),
        (1, &json!("succeeded"))
    );

    let bad = place.cloud.add_oms(OmsSpec::new("logs", 4));
    let failed = ask(&gateway, &format!("tasks watch {bad}"));
    assert_eq!(failed.status, Some(1), "{failed:?}");
    assert!(failed.err.contains("has failed"), "{failed:?}");
}

#[test]
fn an_encrypted_gateway_is_verified() {
    let listener = Authority::new();
    let callers = Authority::new();
    let certified = listener.listener();
    let place = Place::new().encrypted(&certified, &callers);
    let task = place.cloud.add_oms(OmsSpec::new("logs", 3));
    let gateway = place.start();
    let roots = place.file("roots.pem");
    fs::write(&roots, listener.pem()).expect("a file");
    let address = format!("https://{}", gateway.authority());
    let line = format!("tasks show {task} --address {address}");
    let unknown = ask(&gateway, &line);
    assert_eq!(unknown.status, Some(3), "{unknown:?}");
    let loud = line.replace("https", "HTTPS");
    for line in [&line, &loud] {
        let shown = out(&gateway, &format!("{line} --ca-file {}", roots.display()));
        assert!(shown.contains("paused"), "{shown}");
    }
    // Nothing was sent to whoever is not trusted, so that there is nothing to wait for.
    let delete = format!("tasks delete {task} --address {address}");
    let began = Instant::now();
    let unsent = ask(&gateway, &delete);
    assert_eq!(unsent.status, Some(3), "{unsent:?}");
    assert!(unsent.err.contains("UnknownIssuer"), "{unsent:?}");
    assert!(!unsent.err.contains("may go on"), "{unsent:?}");
    assert!(began.elapsed() < Duration::from_secs(30));
}
