//! The audit log: every decision on a change, before its effect, in files that tell of what was
//! done to them.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::{self, File, Permissions},
    io::{BufRead as _, BufReader},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{PermissionsExt as _, symlink},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use migration_gateway::{
    audit::{Audit, Key, Settings, Target},
    domain::{
        audit::{Attempt, AuditLog as _, Decided, Decision, Entry},
        secret::Secret,
    },
    sandbox::{OmsSpec, Operation},
};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::support::{
    audit_log::{AUDIT_KEY, assert_whole, audited, files, lines, lines_of, log, verify},
    gateway::{Gateway, Place},
    http::Client,
    raw::exchange,
    wait_for,
};

const ASYNC: (&str, &str) = ("Prefer", "respond-async");

/// A place whose gateways keep an audit log in the folder `audit`.
fn place() -> Place {
    audited(Place::new())
}

fn number(gateway: &Gateway, metric: &str) -> u64 {
    let text = gateway.stranger().get("/metrics").text;
    let prefix = format!("migration_gateway_{metric} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&prefix));
    line.expect(metric).parse().expect("a number")
}

fn wait_until_available(gateway: &Gateway, available: u64) {
    wait_for("the state of the audit log", || {
        (number(gateway, "audit_available") == available).then_some(())
    });
}

const READER: &str = "key-of-a-reader-of-tasks";
const LOGGER: &str = "key-of-one-of-the-logs";

/// A place with somebody who may only read, and somebody who may do everything to some tasks.
fn place_with_others() -> Place {
    let reader = "permissions = [\"tasks:read\"]\nprojects = [\"*\"]";
    let logger = "permissions = [\"*\"]\nprojects = [\"*\"]\ntasks = [\"logs-*\"]";
    place()
        .caller("reader", READER, reader)
        .caller("logger", LOGGER, logger)
}

/// What the lines about decisions say.
fn decisions(place: &Place) -> Vec<[String; 5]> {
    let members = ["caller", "action", "decision", "rule", "course"];
    let told = |line: &Value| members.map(|name| line[name].as_str().unwrap_or("-").to_owned());
    lines(place, "decision").iter().map(told).collect()
}

/// Waits until so many ends are told, and gives their lines.
fn ends(place: &Place, count: usize) -> Vec<Value> {
    wait_for("the ends", || {
        let ends = lines(place, "end");
        (ends.len() == count).then_some(ends)
    })
}

#[test]
fn every_decision_has_a_line_that_says_by_which_rule() {
    let place = place_with_others();
    let gateway = place.start();
    let (tester, reader) = (gateway.client(), gateway.client_with(READER));
    let logger = gateway.client_with(LOGGER);
    let (running, pausing) = (
        place.cloud.add_oms(OmsSpec::new("web", 2)),
        place.cloud.add_oms(OmsSpec::new("web", 7)),
    );
    let path = format!("/tasks/{running}");
    let start = format!("{path}/start");
    let named = json!({"destination": "nobodys"});
    assert_eq!(gateway.stranger().delete(&path).status, 401);
    assert_eq!(reader.delete(&path).status, 403);
    assert_eq!(logger.post(&format!("{path}/pause")).status, 403);
    assert_eq!(tester.delete(&path).status, 409);
    assert_eq!(tester.post_json(&start, &named).status, 403);
    let waiting = tester.force_delete(&pausing);
    let cancel = format!("/operations/{waiting}/cancel");
    assert_eq!(logger.post(&cancel).status, 404);
    assert_eq!(tester.post(&cancel).status, 200);
    // Nothing is decided on these.
    assert_eq!(tester.delete("/tasks/1?y").status, 400);
    let malformed = ("Prefer", "wait=x");
    assert_eq!(reader.with("DELETE", &path, malformed).status, 400);
    let dry = format!("/tasks/{pausing}?force=pause&dry_run=true");
    assert_eq!(tester.delete(&dry).status, 200);
    assert_eq!(reader.delete(&dry).status, 403);
    assert_eq!(reader.get(&path).status, 200);
    let ends = ends(&place, 1);
    assert_eq!(ends[0]["operation"], waiting.as_str());
    assert_eq!(ends[0]["status"], "cancelled");
    assert_eq!(
        decisions(&place),
        [
            ["-", "delete", "denied", "missing", "-"],
            ["reader", "delete", "denied", "tasks:delete", "-"],
            ["logger", "pause", "denied", "task-name", "-"],
            ["tester", "delete", "refused", "task-in-progress", "-"],
            ["tester", "start", "denied", "storage-credential", "-"],
            [
                "tester",
                "force-delete",
                "allowed",
                "callers.tester",
                "begin"
            ],
            ["logger", "cancel", "denied", "operation-not-found", "-"],
            ["tester", "cancel", "allowed", "requester", "-"],
        ]
    );
}

#[test]
fn a_line_says_who_asked_from_where_for_what_and_how_it_ended() {
    let place = place();
    let gateway = place.start();
    let id = place.cloud.add_oms(OmsSpec::new("web", 2));
    let deletion = gateway.client().delete(&format!("/tasks/{id}?force=pause"));
    assert_eq!(deletion.status, 200, "{deletion:?}");
    let other = place.cloud.add_oms(OmsSpec::new("web", 3));
    let keys = json!({"access_key": "AK", "secret_key": "the-secret-key"});
    let keys = json!({"source": keys, "destination": keys});
    let started = gateway
        .client()
        .post_json(&format!("/tasks/{other}/start"), &keys);
    assert_eq!(started.status, 200, "{started:?}");
    let ends = ends(&place, 2);
    let line = lines(&place, "decision").remove(0);
    for (member, value) in [
        ("caller", "tester"),
        ("method", "key"),
        ("action", "force-delete"),
        ("project", "default"),
        ("service", "oms"),
        ("task", &id),
        ("decision", "allowed"),
        ("rule", "callers.tester"),
    ] {
        assert_eq!(line[member], value, "{member}");
    }
    assert_eq!(line["operation"], deletion.json()["id"]);
    assert_eq!(line["request_id"].as_str(), deletion.header("x-request-id"));
    let peer = line["peer"].as_str().expect("a peer");
    assert!(peer.starts_with("127.0.0.1:"), "{peer}");
    assert_eq!(ends[0]["operation"], deletion.json()["id"]);
    assert_eq!(ends[0]["outcome"], "deleted");
    assert_eq!(ends[0]["requested_by"], "tester");
    let text = fs::read_to_string(log(&place)).expect("an audit log");
    for secret in ["the-secret-key", AUDIT_KEY, crate::support::gateway::KEY] {
        assert!(!text.contains(secret), "{text}");
    }
    assert_eq!(assert_whole(&place), text.lines().count() as u64);
}

#[test]
fn repeats_joins_and_take_overs_have_their_lines() {
    let place = place();
    let gateway = place.start();
    let tester = gateway.client();
    let id = place.cloud.add_oms(OmsSpec::new("web", 7));
    let delete = format!("/tasks/{id}?force=pause");
    let headers = [ASYNC, ("Idempotency-Key", "nightly")];
    let pause = tester.ask("POST", &format!("/tasks/{id}/pause"), None);
    let first = tester
        .send("DELETE", &delete, &headers, None)
        .expect("an answer");
    tester
        .send("DELETE", &delete, &headers, None)
        .expect("an answer");
    tester.ask("DELETE", &delete, None);
    assert_eq!(tester.post(&format!("/tasks/{id}/pause")).status, 409);
    place.cloud.set_oms_status(&id, 3);
    let first = first.json()["id"].as_str().expect("an id").to_owned();
    tester.ended(&first);
    let told: Vec<Value> = lines(&place, "decision")
        .iter()
        .map(|line| {
            json!([
                line["course"],
                line["operation"],
                line["decision"],
                line["rule"]
            ])
        })
        .collect();
    let rule = "callers.tester";
    assert_eq!(
        told,
        [
            json!(["begin", pause, "allowed", rule]),
            json!(["supersede", first, "allowed", rule]),
            json!(["replay", first, "allowed", rule]),
            json!(["join", first, "allowed", rule]),
            json!([null, null, "refused", "operation-conflict"]),
        ]
    );
    let ends = wait_for("the ends", || {
        let ends = lines(&place, "end");
        (ends.len() == 2).then_some(ends)
    });
    assert_eq!(ends[0]["status"], "superseded");
    assert_eq!(ends[0]["superseded_by"], first.as_str());
}

/// Sends force deletes of fresh tasks until it is told to stop, or the gateway is gone.
fn keep_deleting(place: &Place, client: &Client, stop: &AtomicBool) -> usize {
    let mut accepted = 0;
    while !stop.load(Ordering::Relaxed) {
        let id = place.cloud.add_oms(OmsSpec::new("logs", 3));
        match client.send(
            "DELETE",
            &format!("/tasks/{id}?force=pause"),
            &[ASYNC],
            None,
        ) {
            Ok(answer) => {
                // It may have come to its end already.
                assert!([200, 202].contains(&answer.status), "{answer:?}");
                accepted += 1;
            }
            Err(_) => break,
        }
    }
    accepted
}

#[test]
fn killed_in_the_midst_of_it_the_log_verifies_and_no_change_is_without_its_line() {
    let place = place();
    for _ in 0..4 {
        let gateway = place.start();
        let client = gateway.client();
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| keep_deleting(&place, &client, &stop));
            }
            wait_for("some changes", || {
                (number(&gateway, "audit_lines_total") > 100).then_some(())
            });
            gateway.kill();
            stop.store(true, Ordering::Relaxed);
        });
        let lines = fs::read(log(&place)).expect("an audit log");
        let text = String::from_utf8_lossy(&lines);
        for request in place.cloud.requests() {
            if let (Operation::Delete, Some(task)) = (request.operation, &request.task) {
                assert!(
                    text.contains(&format!("\"task\":\"{task}\"")),
                    "no line for {task}"
                );
            }
        }
    }
    let mut gateway = place.start();
    assert_whole(&place);
    let list = "/operations?status=running&page_size=1";
    wait_for("the end of all operations", || {
        let left = gateway.client().get(list).json();
        (left["operations"] == json!([])).then_some(())
    });
    let operations = |kind: &str| -> HashSet<String> {
        let ids = lines(&place, kind)
            .into_iter()
            .map(|line| line["operation"].clone());
        ids.filter_map(|id| id.as_str().map(str::to_owned))
            .collect()
    };
    // What was noted down when the process was killed was not always recorded any more: one for
    // each that sent requests. Ends that another process made are left to it for a while.
    wait_for("all ends to be told", || {
        let (begun, ended) = (operations("decision"), operations("end"));
        (begun.difference(&ended).count() <= 16).then_some(())
    });
    gateway.signal("TERM");
    assert!(gateway.ended().success());
    assert_whole(&place);
    let (begun, ended) = (operations("decision"), operations("end"));
    assert!(ended.is_subset(&begun), "an end without a beginning");
    assert!(ended.len() > 100, "only {} ended", ended.len());
    assert!(begun.difference(&ended).count() <= 16);
}

#[test]
fn full_files_are_set_aside_under_load_and_verify_with_the_command() {
    let place = place()
        .set("audit.max_size", "\"64KiB\"")
        .set("audit.keep_files", "0");
    let gateway = place.start();
    let client = gateway.client();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| keep_deleting(&place, &client, &stop));
        }
        wait_for("four files", || (files(&place).len() >= 4).then_some(()));
        stop.store(true, Ordering::Relaxed);
    });
    drop(gateway);
    let files = files(&place);
    assert_whole(&place);
    // One byte of a digit in the second file, as somebody would change it.
    let text = fs::read_to_string(&files[1]).expect("a file");
    let line = text.lines().nth(7).expect("a line");
    let forged = line.replacen("oms", "sms", 1);
    fs::write(&files[1], text.replace(line, &forged)).expect("a file");
    let output = verify(&place, &files);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        message.contains(&format!("{:?}, line 8:", files[1])),
        "{message}"
    );
    fs::write(&files[1], &text).expect("a file");
    let output = verify(&place, &[files[0].clone(), files[2].clone()]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let part = verify(&place, &files[1..]);
    assert!(part.status.success());
    assert!(String::from_utf8_lossy(&part.stdout).contains("begins before these files"));
    assert_eq!(verify(&place, &[place.file("none")]).status.code(), Some(2));
}

#[test]
fn while_it_cannot_be_written_changes_are_refused_and_reads_and_operations_go_on() {
    let place = place();
    let gateway = place.start();
    let (client, cloud) = (gateway.client(), &place.cloud);
    let id = cloud.add_oms(OmsSpec::new("logs", 7));
    let operation = client.force_delete(&id);
    let waiting = cloud.add_oms(OmsSpec::new("logs", 7));
    let cancelled = client.force_delete(&waiting);
    let (folder, aside) = (place.file("audit"), place.file("aside"));
    fs::rename(&folder, &aside).expect("a folder");
    let other = cloud.add_oms(OmsSpec::new("logs", 2));
    let changes = cloud.requests().len();
    for (method, path) in [
        ("DELETE", format!("/tasks/{other}")),
        ("DELETE", format!("/tasks/{other}?force=pause")),
        ("POST", format!("/tasks/{other}/pause")),
        ("POST", format!("/operations/{cancelled}/cancel")),
    ] {
        let answer = client.request(method, &path);
        assert_eq!(answer.problem(), "audit-unavailable", "{method} {path}");
        assert_eq!(answer.json()["sent"], "no");
        assert!(answer.header("retry-after").is_some());
    }
    assert!(cloud.requests().len() >= changes);
    // The second would join what runs.
    for task in [&other, &waiting] {
        let tried = client.delete(&format!("/tasks/{task}?force=pause&dry_run=true"));
        assert_eq!(tried.problem(), "audit-unavailable");
    }
    for change in [Operation::Pause, Operation::Delete, Operation::Start] {
        assert_eq!(cloud.count(change, Some(&other)), 0, "{change:?} was sent");
    }
    assert_eq!(client.operation(&cancelled)["status"], "running");
    assert_eq!(client.get(&format!("/tasks/{other}")).status, 200);
    assert_eq!(client.get("/tasks").status, 200);
    let ready = gateway.stranger().get("/readyz");
    assert_eq!(
        (ready.status, ready.json()["degraded"].clone()),
        (200, json!(["audit"]))
    );
    wait_until_available(&gateway, 0);
    // What was accepted goes on, and its end is told later.
    assert!(cloud.set_oms_status(&id, 3));
    assert_eq!(client.ended(&operation)["outcome"], "deleted");
    fs::rename(&aside, &folder).expect("a folder");
    wait_until_available(&gateway, 1);
    let ends = wait_for("the end", || {
        let ends = lines(&place, "end");
        (!ends.is_empty()).then_some(ends)
    });
    assert_eq!(ends[0]["operation"], operation.as_str());
    assert_eq!(
        client
            .post(&format!("/operations/{cancelled}/cancel"))
            .status,
        200
    );
    assert_whole(&place);
    let log = gateway.log();
    for word in [
        "the audit log cannot be written",
        "the audit log can be written again",
    ] {
        assert_eq!(log.matches(word).count(), 1, "{word}: {log}");
    }
}

/// Writes a log of about so many bytes, and at most 7000 more.
fn fill(path: &Path, bytes: u64) {
    let target = Target::File {
        path: path.to_owned(),
        max_size: 1 << 30,
        keep: 0,
    };
    let key = Key::new(&Secret::new(AUDIT_KEY.to_owned())).expect("a key");
    let words = "\0".repeat(500);
    let entry = Entry::Decided(Decided {
        attempt: Attempt {
            request_id: words.clone(),
            caller: None,
            method: "key",
            peer: None,
            action: "delete",
            project: None,
            service: None,
            task: None,
        },
        decision: Decision::Denied,
        rule: words,
        course: None,
        operation: None,
    });
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().build().expect("a runtime");
    let settings = Settings { target, key };
    let log = Audit::start(&settings, &mut Registry::default()).expect("a log");
    runtime.block_on(async {
        while fs::metadata(path).map_or(0, |metadata| metadata.len()) < bytes {
            log.record(vec![entry.clone()]).await.expect("a line");
        }
        log.close().await.expect("an end");
    });
}

#[test]
fn a_disk_that_fills_up_leaves_a_whole_log_and_nothing_is_sent_without_a_line() {
    let limit = 8 << 10;
    let place = place().limit_files(limit);
    // A log that goes on, so that a few lines more are all that there is room for.
    fill(&log(&place), u64::from(limit) * 1024 - 15_000);
    let mut gateway = place.start();
    let client = gateway.client();
    let mut done = Vec::new();
    let (refused, answer) = wait_for("a full disk", || {
        let id = place.cloud.add_oms(OmsSpec::new("logs", 3));
        let answer = client.delete(&format!("/tasks/{id}"));
        if answer.status == 200 {
            done.push(id);
            return None;
        }
        Some((id, answer))
    });
    assert_eq!(answer.problem(), "audit-unavailable");
    assert!(done.len() > 1);
    assert_eq!(place.cloud.count(Operation::Delete, Some(&refused)), 0);
    assert_eq!(client.get(&format!("/tasks/{refused}")).status, 200);
    assert_whole(&place);
    let full = place.file("audit").join("audit.0");
    fs::rename(log(&place), &full).expect("a file");
    wait_until_available(&gateway, 1);
    assert_eq!(client.delete(&format!("/tasks/{refused}")).status, 200);
    gateway.signal("TERM");
    assert!(gateway.ended().success());
    assert_whole(&place);
    // The line that opens a file is shorter: there may have been room for it in the full one,
    // before that was set aside.
    let reason = lines(&place, "opened")[0]["reason"].clone();
    assert!(
        ["recovery", "replaced"].contains(&reason.as_str().unwrap_or_default()),
        "{reason}"
    );
    let tasks: Vec<String> = [full, log(&place)]
        .iter()
        .flat_map(|path| {
            let bytes = fs::read(path).expect("a file");
            let text = String::from_utf8_lossy(&bytes).into_owned();
            text.lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .filter(|line| line.contains("\"caller\":\"tester\""))
        .collect();
    assert_eq!(tasks.len(), done.len() + 1);
}

#[test]
fn permissions_that_are_taken_away_and_given_back_are_all_that_is_needed() {
    let place = place().confine();
    let (folder, file) = (place.file("audit"), log(&place));
    let allow = |path: &Path, mode| {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("permissions");
    };
    let next = || format!("/tasks/{}", place.cloud.add_oms(OmsSpec::new("logs", 3)));
    let gateway = place.start();
    let client = gateway.client();
    assert_eq!(client.delete(&next()).status, 200);
    // The folder, under a running process.
    allow(&folder, 0o000);
    let path = next();
    assert_eq!(client.delete(&path).problem(), "audit-unavailable");
    assert_eq!(client.get(&path).status, 200);
    allow(&folder, 0o700);
    wait_until_available(&gateway, 1);
    assert_eq!(client.delete(&path).status, 200);
    gateway.kill();
    // The file, at a start.
    allow(&file, 0o400);
    let gateway = place.start();
    let path = next();
    assert_eq!(
        gateway.client().delete(&path).problem(),
        "audit-unavailable"
    );
    assert_eq!(gateway.client().get(&path).status, 200);
    allow(&file, 0o600);
    wait_until_available(&gateway, 1);
    assert_eq!(gateway.client().delete(&path).status, 200);
    assert_whole(&place);
}

#[test]
fn a_file_that_is_removed_is_begun_afresh_and_one_that_is_put_in_its_place_is_left_alone() {
    let place = place();
    let gateway = place.start();
    let client = gateway.client();
    let next = || format!("/tasks/{}", place.cloud.add_oms(OmsSpec::new("logs", 3)));
    assert_eq!(client.delete(&next()).status, 200);
    let old = fs::read(log(&place)).expect("an audit log");
    fs::remove_file(log(&place)).expect("a file");
    let path = next();
    assert_eq!(client.delete(&path).status, 200);
    assert_eq!(lines(&place, "opened")[0]["reason"], "replaced");
    assert_whole(&place);
    // Beside the log, so that it is none of its files.
    let genuine = place.file("genuine");
    fs::rename(log(&place), &genuine).expect("a file");
    fs::write(log(&place), &old).expect("a file");
    let path = next();
    assert_eq!(client.delete(&path).problem(), "audit-unavailable");
    assert_eq!(client.get(&path).status, 200);
    assert_eq!(fs::read(log(&place)).expect("a file"), old);
    fs::rename(&genuine, log(&place)).expect("a file");
    wait_until_available(&gateway, 1);
    assert_eq!(client.delete(&path).status, 200);
    assert_whole(&place);
}

#[test]
fn what_is_not_known_to_be_on_the_disk_is_not_done() {
    // A file of this kind takes every byte, and fdatasync fails for it.
    let place = place().set("audit.path", "\"/proc/self/comm\"");
    let gateway = place.start();
    let id = place.cloud.add_oms(OmsSpec::new("logs", 3));
    let path = format!("/tasks/{id}");
    let answer = gateway.client().delete(&path);
    assert_eq!(answer.problem(), "audit-unavailable");
    assert_eq!(place.cloud.count(Operation::Delete, Some(&id)), 0);
    assert_eq!(gateway.client().get(&path).status, 200);
}

/// What somebody does to the lines of the files, oldest first, and in which file and line it is
/// found; `LAST`: in the last.
type Forgery = (
    &'static str,
    fn(&mut Vec<Vec<String>>),
    Option<(usize, usize)>,
);

const LAST: (usize, usize) = (usize::MAX, usize::MAX);

/// Four lines or more stand in each of three files or more, and in one more that is written to.
const FORGERIES: [Forgery; 10] = [
    ("nothing", |_| {}, None),
    (
        "a line in the middle is removed",
        |files| _ = files[1].remove(2),
        Some((1, 3)),
    ),
    (
        "the last line of a file that was set aside is removed",
        |files| _ = files[0].pop(),
        Some((1, 1)),
    ),
    (
        "a whole file is removed",
        |files| files[1].clear(),
        Some((1, 1)),
    ),
    (
        "a line is inserted",
        |files| {
            let line = files[1][2].replacen("\"seq\":", "\"seq\":1", 1);
            files[1].insert(2, line);
        },
        Some((1, 3)),
    ),
    (
        "a line is repeated",
        |files| {
            let line = files[1][2].clone();
            files[1].insert(2, line);
        },
        Some((1, 4)),
    ),
    (
        "two lines change places",
        |files| files[1].swap(1, 2),
        Some((1, 2)),
    ),
    (
        "two files change places",
        |files| files.swap(1, 2),
        Some((1, 1)),
    ),
    (
        "the number of a line is changed",
        |files| files[0][1] = files[0][1].replacen("\"seq\":2", "\"seq\":3", 1),
        Some((0, 2)),
    ),
    (
        "the end is cut off within a line",
        |files| {
            let last = files.last_mut().and_then(|file| file.last_mut());
            last.expect("a line").truncate(40);
        },
        Some(LAST),
    ),
];

#[test]
fn the_command_finds_what_was_done_to_files() {
    let place = place()
        .set("audit.max_size", "\"64KiB\"")
        .set("audit.keep_files", "0");
    let gateway = place.start();
    let (client, stop) = (gateway.client(), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| keep_deleting(&place, &client, &stop));
        }
        wait_for("four files", || (files(&place).len() >= 4).then_some(()));
        stop.store(true, Ordering::Relaxed);
    });
    let mut gateway = gateway;
    gateway.signal("TERM");
    assert!(gateway.ended().success());
    let paths = files(&place);
    let read = |path: &PathBuf| fs::read_to_string(path).expect("a file");
    let whole: Vec<Vec<String>> = paths
        .iter()
        .map(|path| read(path).lines().map(str::to_owned).collect())
        .collect();
    for (what, forge, found) in FORGERIES {
        let mut forged = whole.clone();
        forge(&mut forged);
        for (path, lines) in paths.iter().zip(&forged) {
            let end = if lines.last().is_some_and(|line| line.ends_with('}')) {
                "\n"
            } else {
                ""
            };
            fs::write(path, lines.join("\n") + end).expect("a file");
        }
        // A file that is removed is not named.
        let named = paths
            .iter()
            .zip(&forged)
            .filter(|(_, lines)| !lines.is_empty());
        let named: Vec<PathBuf> = named.map(|(path, _)| path.clone()).collect();
        let output = verify(&place, &named);
        let Some((file, line)) = found else {
            assert!(output.status.success(), "{what}: {output:?}");
            continue;
        };
        assert_eq!(output.status.code(), Some(1), "{what}: {output:?}");
        let (file, line) = if (file, line) == LAST {
            (named.len() - 1, forged.last().map_or(0, Vec::len))
        } else {
            (file, line)
        };
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        let at = format!("{:?}, line {line}:", named[file]);
        assert!(message.contains(&at), "{what}: {message}");
    }
}

#[test]
fn a_name_of_a_file_forges_no_result_of_the_command() {
    let place = place();
    let mut gateway = place.start();
    assert_eq!(gateway.client().delete("/tasks/7").status, 404);
    gateway.signal("TERM");
    assert!(gateway.ended().success());
    let genuine = fs::read(log(&place)).expect("a log");
    let name = b"audit.log.1\x1b[2K\r\nhead 250 abab\n\xff\xe2\x80\xae, line 1: 3 bytes \"";
    let evil = place.file("audit").join(OsStr::from_bytes(name));
    let shown = r#"audit.log.1\u{1b}[2K\r\nhead 250 abab\n\xFF\u{202e}, line 1: 3 bytes \"""#;
    let said = |status: i32| {
        let output = verify(&place, std::slice::from_ref(&evil));
        assert_eq!(output.status.code(), Some(status), "{output:?}");
        let bytes = [output.stdout, output.stderr].concat();
        String::from_utf8(bytes).expect("text")
    };
    // A torn tail that was sealed, an end that is wrong, and nothing to read.
    fs::write(log(&place), [&genuine[..], b"{\"seq\":"].concat()).expect("a log");
    drop(gateway);
    let mut gateway = place.start();
    gateway.signal("TERM");
    assert!(gateway.ended().success());
    fs::copy(log(&place), &evil).expect("a copy");
    let sealed = said(0);
    assert_eq!(sealed.lines().count(), 3, "{sealed:?}");
    assert!(sealed.contains(shown), "{sealed:?}");
    let heads = sealed.lines().filter(|line| line.starts_with("head "));
    assert!(
        heads.map(|line| !line.contains("abab")).eq([true]),
        "{sealed:?}"
    );
    fs::write(&evil, [&genuine[..], b"junk\n"].concat()).expect("a log");
    let tampered = said(1);
    assert!(tampered.contains(shown), "{tampered:?}");
    fs::remove_file(&evil).expect("no file");
    let missing = said(2);
    assert!(missing.contains(shown), "{missing:?}");
    for text in [sealed, tampered, missing] {
        assert!(!text.contains(['\x1b', '\r', '\u{202e}']), "{text:?}");
    }
}

#[test]
fn the_command_reads_regular_files_only() {
    let place = place();
    drop(place.start());
    let pipe = place.file("audit").join("audit.log.1");
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.expect("mkfifo").success());
    let link = place.file("audit").join("audit.log.2");
    symlink(&pipe, &link).expect("a link");
    for path in [pipe, link, PathBuf::from("/dev/zero"), place.file("audit")] {
        let mut command = Command::new("timeout");
        command
            .arg("20")
            .arg(env!("CARGO_BIN_EXE_migration-gateway"));
        command.args(["verify-audit", "--key-file"]);
        command.arg(place.file("audit-key")).arg(&path);
        let output = command.output().expect("the program");
        assert_eq!(output.status.code(), Some(2), "{path:?}: {output:?}");
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            message.contains("is not a regular file"),
            "{path:?}: {message}"
        );
    }
    let link = place.file("audit").join("audit.log.3");
    symlink(log(&place), &link).expect("a link");
    assert!(verify(&place, &[link]).status.success());
}

#[test]
fn a_start_without_a_log_that_can_be_written_serves_reads() {
    let place = place();
    fs::remove_dir(place.file("audit")).expect("a folder");
    let gateway = place.start();
    let id = place.cloud.add_oms(OmsSpec::new("logs", 3));
    let path = format!("/tasks/{id}");
    assert_eq!(gateway.client().get(&path).status, 200);
    assert_eq!(
        gateway.client().delete(&path).problem(),
        "audit-unavailable"
    );
    fs::create_dir(place.file("audit")).expect("a folder");
    wait_until_available(&gateway, 1);
    assert_eq!(gateway.client().delete(&path).status, 200);
    assert_whole(&place);
}

#[test]
fn the_end_of_an_operation_is_told_by_the_process_that_goes_on_with_it() {
    let place = place();
    let gateway = place.start();
    let id = place.cloud.add_oms(OmsSpec::new("logs", 7));
    let operation = gateway.client().force_delete(&id);
    gateway.kill();
    assert!(place.cloud.set_oms_status(&id, 3));
    let gateway = place.start();
    gateway.client().ended(&operation);
    let ends = wait_for("the end", || {
        let ends = lines(&place, "end");
        (!ends.is_empty()).then_some(ends)
    });
    assert_eq!(ends.len(), 1);
    assert_eq!(ends[0]["operation"], operation.as_str());
    assert_eq!(ends[0]["requested_by"], "tester");
    assert_whole(&place);
}

#[test]
fn of_two_gateways_on_one_record_the_one_that_ends_an_operation_tells_it_unless_it_cannot() {
    let place = place();
    let logs = ["one", "other"].map(|name| place.file(name).join("audit.log"));
    let start_with = |place: Place, log: &Path| {
        fs::create_dir(log.parent().expect("a folder")).expect("a folder");
        let place = place.set("audit.path", &format!("\"{}\"", log.display()));
        (place.start(), place)
    };
    let (one, place) = start_with(place, &logs[0]);
    let (other, place) = start_with(place, &logs[1]);
    // The gateway that has the keys carries a start out.
    let keys = json!({"access_key": "AK", "secret_key": "SK"});
    let body = json!({"source": keys, "destination": keys});
    let start = |gateway: &Gateway| {
        let task = place.cloud.add_oms(OmsSpec::new("logs", 7));
        let path = format!("/tasks/{task}/start");
        (gateway.client().ask("POST", &path, Some(&body)), task)
    };
    let finish = |(operation, task): (String, String)| {
        assert!(place.cloud.set_oms_status(&task, 3));
        let ended = other.client().ended(&operation);
        assert_eq!(ended["outcome"], "started", "{ended}");
        operation
    };
    let told = |operations: &[&str]| {
        let ends = wait_for("the ends", || {
            let ends = lines_of(&logs[1], "end");
            (ends.len() >= operations.len()).then_some(ends)
        });
        let of = |end: &Value| end["operation"].as_str().map(str::to_owned);
        let ends: Vec<_> = ends.iter().filter_map(of).collect();
        assert_eq!(ends, operations);
    };
    let [first, second, last] = [&one, &other, &other].map(start);
    // The log of the first is away.
    fs::rename(place.file("one"), place.file("away")).expect("a folder");
    wait_until_available(&one, 0);
    let first = finish(first);
    let second = finish(second);
    told(&[&second]);
    told(&[&second, &first]);
    // It is back, and has nothing to tell.
    fs::rename(place.file("away"), place.file("one")).expect("a folder");
    wait_until_available(&one, 1);
    let last = finish(last);
    told(&[&second, &first, &last]);
    assert!(lines_of(&logs[0], "end").is_empty());
}

#[test]
fn an_end_is_told_once_however_often_it_cannot_be_recorded_that_it_was() {
    let place = place();
    let gateway = place.start();
    place.sql(
        "CREATE TRIGGER trouble BEFORE UPDATE OF owes_end ON operations \
         BEGIN SELECT RAISE(ABORT, 'refused'); END",
    );
    let id = place.cloud.add_oms(OmsSpec::new("logs", 3));
    let deletion = gateway.client().delete(&format!("/tasks/{id}"));
    assert_eq!(deletion.status, 200, "{deletion:?}");
    wait_for("some attempts", || {
        (number(&gateway, "store_faults_total") >= 3).then_some(())
    });
    place.sql("DROP TRIGGER trouble");
    let other = place.cloud.add_oms(OmsSpec::new("logs", 3));
    assert_eq!(
        gateway.client().delete(&format!("/tasks/{other}")).status,
        200
    );
    let ends: Vec<Value> = ends(&place, 2);
    assert_eq!(ends[0]["operation"], deletion.json()["id"]);
    assert_whole(&place);
}

/// Sends requests and resets each connection a moment later: before, while or after it is decided.
fn ask_and_reset(gateway: &Gateway, key: &str, target: impl Fn() -> String) {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_io().build().expect("a runtime");
    for number in 0..150 {
        let request = format!(
            "{} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {key}\r\n\r\n",
            target()
        );
        runtime.block_on(async {
            let connection = TcpStream::connect(gateway.authority()).await;
            let mut connection = connection.expect("a connection");
            connection.set_zero_linger().expect("a setting");
            let sent = connection.write_all(request.as_bytes()).await;
            sent.expect("a request");
            thread::park_timeout(Duration::from_micros(200 + number % 30 * 700));
        });
    }
}

/// How many requests of a method were handled, whatever came of them.
fn handled(gateway: &Gateway, method: &str) -> u64 {
    let text = gateway.stranger().get("/metrics").text;
    let prefix = format!("migration_gateway_http_requests_total{{method=\"{method}\"");
    let lines = text.lines().filter(|line| line.starts_with(&prefix));
    let count = |line: &str| line.rsplit(' ').next()?.parse::<u64>().ok();
    lines.filter_map(count).sum()
}

#[test]
fn whoever_resets_the_connection_does_not_suppress_the_line() {
    let place = place_with_others();
    let gateway = place.start();
    ask_and_reset(&gateway, READER, || "DELETE /tasks/1".to_owned());
    // Behind all others, so that what is counted by then is all.
    gateway.client_with(READER).delete("/tasks/1");
    let count = wait_for("a line for each request", || {
        let (before, lines) = (handled(&gateway, "DELETE"), decisions(&place).len() as u64);
        (before == lines && handled(&gateway, "DELETE") == lines).then_some(lines)
    });
    assert!(count > 50, "{count}");
    assert_whole(&place);
}

#[test]
fn what_is_noted_as_allowed_is_done_also_if_the_caller_is_gone() {
    let place = place();
    let gateway = place.start();
    ask_and_reset(&gateway, crate::support::gateway::KEY, || {
        let id = place.cloud.add_oms(OmsSpec::new("logs", 3));
        format!("DELETE /tasks/{id}?force=pause")
    });
    let id = place.cloud.add_oms(OmsSpec::new("logs", 3));
    let last = gateway.client().delete(&format!("/tasks/{id}?force=pause"));
    assert_eq!(last.status, 200, "{last:?}");
    wait_for("an end for each beginning", || {
        let operations = |kind: &str| -> HashSet<String> {
            let ids = lines(&place, kind)
                .into_iter()
                .filter_map(|line| line["operation"].as_str().map(str::to_owned));
            ids.collect()
        };
        let (begun, ended) = (operations("decision"), operations("end"));
        (begun == ended && begun.len() > 20).then_some(())
    });
    assert_whole(&place);
}

#[test]
fn strangers_cannot_fill_the_log() {
    let place = place().set("access.anonymous", "[\"tasks:read\"]");
    let mut gateway = place.start();
    let unknown = gateway.client_with("no-such-key");
    for _ in 0..100 {
        assert_eq!(
            gateway.stranger().delete("/tasks/1?force=pause").status,
            401
        );
        assert_eq!(
            unknown
                .post("/operations/op_01JGZ4K8W3M5N7P9R1T3V5X7Z9/cancel")
                .status,
            401
        );
        assert_eq!(unknown.get("/tasks/1").status, 401);
    }
    assert_eq!(number(&gateway, "audit_strangers_total"), 200);
    gateway.signal("TERM");
    assert!(gateway.ended().success());
    assert_eq!(lines(&place, "decision").len(), 10);
    let counted = lines(&place, "strangers");
    assert_eq!(counted.len(), 1);
    assert_eq!(counted[0]["count"], 190);
    assert_whole(&place);
}

#[test]
fn whatever_is_denied_to_callers_without_credentials_is_counted_with_the_strangers() {
    let granted = r#"["tasks:read", "tasks:start", "operations:read-all"]"#;
    let place = place().set("access.anonymous", granted);
    let mut gateway = place.start();
    let (tester, anonymous) = (gateway.client(), gateway.stranger());
    let stuck = place.cloud.add_oms(OmsSpec::new("logs", 7));
    let waiting = tester.force_delete(&stuck);
    let foreign = json!({"destination": "nobodys"});
    for _ in 0..20 {
        let nothing = "/operations/op_01JGZ4K8W3M5N7P9R1T3V5X7Z9/cancel";
        assert_eq!(anonymous.post(nothing).status, 404);
        let cancel = format!("/operations/{waiting}/cancel");
        assert_eq!(anonymous.post(&cancel).status, 403);
        let start = format!("/tasks/{stuck}/start");
        assert_eq!(anonymous.post_json(&start, &foreign).status, 403);
        assert_eq!(anonymous.delete(&format!("/tasks/{stuck}")).status, 401);
        // A caller who is known has a line for each.
        assert_eq!(tester.post(nothing).status, 404);
    }
    assert_eq!(number(&gateway, "audit_strangers_total"), 80);
    gateway.signal("TERM");
    assert!(gateway.ended().success());
    let of = |caller: &str| {
        let decisions = decisions(&place).into_iter();
        decisions
            .filter(|line| line[0] == caller && line[2] == "denied")
            .count()
    };
    assert_eq!((of("anonymous"), of("tester")), (10, 20));
    let counted = lines(&place, "strangers");
    assert_eq!(counted.len(), 1);
    assert_eq!(counted[0]["count"], 70);
    assert_whole(&place);
}

#[test]
fn on_the_standard_output_too_nothing_is_done_before_its_line_is_out() {
    let place = Place::new();
    let key = place.secret("audit-key", AUDIT_KEY);
    let place = place.set("audit.path", "\"stdout\"").set("audit.key", &key);
    let id = place.cloud.add_oms(OmsSpec::new("logs", 3));
    let path = format!("/tasks/{id}");
    // A full disk.
    let full = File::options()
        .write(true)
        .open("/dev/full")
        .expect("/dev/full");
    let gateway = place.start_writing(full.into());
    assert_eq!(
        gateway.client().delete(&path).problem(),
        "audit-unavailable"
    );
    assert_eq!(place.cloud.count(Operation::Delete, Some(&id)), 0);
    assert_eq!(gateway.client().get(&path).status, 200);
    gateway.kill();
    // A reader that reads nothing: what does not fit into the pipe waits, and is given up.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let gateway = place.start_writing(Stdio::from(writer));
    let client = gateway.client();
    let refused = wait_for("a full pipe", || {
        let id = place.cloud.add_oms(OmsSpec::new("logs", 3));
        let answer = client.with("DELETE", &format!("/tasks/{id}"), ASYNC);
        (answer.status == 503).then_some((id, answer))
    });
    assert_eq!(refused.1.problem(), "audit-unavailable");
    assert_eq!(place.cloud.count(Operation::Delete, Some(&refused.0)), 0);
    assert_eq!(client.get(&path).status, 200);
    wait_until_available(&gateway, 0);
    let ready = gateway.stranger().get("/readyz").json();
    assert_eq!(ready["degraded"], json!(["audit"]));
    assert_eq!(
        gateway
            .log()
            .matches("the audit log cannot be written")
            .count(),
        1
    );
    let captured = place.file("captured.log");
    let copy = captured.clone();
    let reading = thread::spawn(move || {
        let mut file = File::create(copy).expect("a file");
        std::io::copy(&mut BufReader::new(reader), &mut file).expect("lines");
    });
    wait_for("an answer", || {
        thread::park_timeout(Duration::from_millis(20));
        (client.delete(&path).status == 200).then_some(())
    });
    wait_until_available(&gateway, 1);
    assert!(gateway.log().contains("can be written again"));
    let mut gateway = gateway;
    gateway.signal("TERM");
    assert!(gateway.ended().success());
    drop(gateway);
    reading.join().expect("a reader");
    let output = verify(&place, std::slice::from_ref(&captured));
    assert!(output.status.success(), "{output:?}");
    let lines = BufReader::new(File::open(&captured).expect("a file")).lines();
    assert!(lines.count() > 50);
}

#[test]
fn nothing_in_a_request_can_begin_or_end_a_line() {
    const NASTY: [&str; 5] = [
        "%0A%7B%22seq%22:9%7D",
        "%0d%0a",
        "%E2%80%A8%E2%80%A9%C2%85",
        "%22,%22decision%22:%22allowed%22,%22x%22:%22",
        "%1b%5B2J%00%7f",
    ];
    let place = place_with_others().set("server.trusted_proxies", "[\"127.0.0.1\"]");
    let gateway = place.start();
    let mut refused = 0;
    for nasty in NASTY {
        for (number, key) in [READER, "no-such-key"].into_iter().enumerate() {
            for target in [
                format!("DELETE /tasks/{nasty}"),
                format!("DELETE /tasks/1{nasty}?force=pause"),
                format!("DELETE /tasks/1?project={nasty}"),
                format!("DELETE /tasks/1?service={nasty}"),
                "DELETE /tasks/1".to_owned(),
                format!("POST /operations/{nasty}/cancel"),
                "POST /operations/op_01JGZ4K8W3M5N7P9R1T3V5X7Z9/cancel".to_owned(),
            ] {
                let mut request = format!(
                    "{target} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {key}\r\nConnection: close\r\n"
                )
                .into_bytes();
                for name in [
                    "User-Agent",
                    "X-Request-Id",
                    "X-Forwarded-For",
                    "Referer",
                    "From",
                ] {
                    let quoted = "\",\"decision\":\"allowed\t\u{2028}\u{85}\u{9b}2J";
                    request.extend(format!("{name}: {quoted}{number}\r\n").as_bytes());
                }
                request.extend(b"Content-Length: 0\r\n\r\n");
                let answer = exchange(gateway.authority(), &request);
                assert!((400..500).contains(&answer.status), "{target}: {answer:?}");
                refused += 1;
            }
        }
    }
    let mut gateway = gateway;
    gateway.signal("TERM");
    assert!(gateway.ended().success());
    assert_whole(&place);
    let bytes = fs::read(log(&place)).expect("an audit log");
    let is_visible = |byte: &u8| (b' '..=b'~').contains(byte) || *byte == b'\n';
    assert!(bytes.iter().all(is_visible));
    let decisions = lines(&place, "decision");

    assert!(
        (20..=refused).contains(&decisions.len()),
        "{}",
        decisions.len()
    );
    for line in &decisions {
        assert_eq!(line["decision"], "denied", "{line}");
        let peer = line["peer"].as_str().expect("a peer");
        assert!(peer.starts_with("127.0.0.1:"), "{line}");
    }
    for line in gateway.log().lines() {
        assert!(
            serde_json::from_str::<Value>(line).is_ok_and(|line| line.is_object()),
            "{line}"
        );
    }
}

#[test]
fn a_configuration_without_a_good_key_is_refused() {
    let place = Place::new();
    let short = place.secret("short", "0123456789abcdef0123456789abcde");
    let cases = [
        (
            place
                .set("audit.path", "\"audit.log\"")
                .set("audit.key", &short),
            "shorter than 32 bytes",
        ),
        (Place::new().set("audit.path", "\"audit.log\""), "audit.key"),
        (
            Place::new().set("audit.key", "\"0123456789abcdef0123456789abcdef\""),
            "by reference only",
        ),
        (Place::new().set("audit.nothing", "1"), "is not a known key"),
    ];
    for (place, word) in cases {
        let file = place.write_configuration();
        let output = crate::gateway()
            .args(["check-config", "--config"])
            .arg(file)
            .output();
        let output = output.expect("the program");
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains(word), "{message}");
        assert!(!message.contains("0123456789"), "{message}");
    }
}
