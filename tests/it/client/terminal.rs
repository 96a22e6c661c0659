//! What whoever sits before a terminal sees of the client: bars, words at Ctrl-C, completions.

use std::{
    io::Write as _,
    process::{Child, Command, Stdio},
};

use migration_gateway::sandbox::{Fault, FaultKind, OmsSpec, Operation, RunEnd, Service};

use super::{Said, ask, caller, gateway_command, said, short, stuck};
use crate::support::{
    gateway::{Gateway, KEY, Place},
    wait_for,
};

/// What a terminal with this environment is sent.
fn on_a_terminal(gateway: &Gateway, environment: &[(&str, &str)], line: &str) -> Said {
    let program = caller(gateway, None).get_program().to_owned();
    let line = format!("{} {line}", program.to_str().expect("a path"));
    let output = Command::new("script")
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", "/nonexistent")
        .env(
            "MIGRATION_GATEWAY_ADDRESS",
            format!("http://{}", gateway.authority()),
        )
        .env("MIGRATION_GATEWAY_KEY", KEY)
        .envs(environment.iter().copied())
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .stdin(Stdio::null())
        .output();
    Said::of(&output.expect("script of util-linux"))
}

#[test]
fn a_terminal_shows_a_bar_and_leaves_the_result() {
    let place = Place::new();
    let gateway = place.start();
    let task = place.cloud.add_oms(short(RunEnd::Success));
    let told = on_a_terminal(
        &gateway,
        &[("TERM", "xterm")],
        &format!("tasks watch {task}"),
    );
    assert_eq!(told.status, Some(0), "{told:?}");
    assert!(told.out.contains("running [\u{2588}"), "a bar: {told:?}");
    assert!(
        told.out.contains(" objects"),
        "what a bar does not show: {told:?}"
    );
    // After the bar was taken away.
    let last = told.out.trim_end().rsplit("\u{1b}[2K").next();
    let last = last.expect("a line").trim_start_matches("\u{1b}[1A");
    assert!(last.starts_with("succeeded"), "{last:?}");
}

#[test]
fn a_terminal_that_draws_nothing_gets_every_line_and_no_orders() {
    let place = Place::new();
    let gateway = place.start();
    for environment in [
        &[("TERM", "dumb")][..],
        &[],
        &[("TERM", "xterm"), ("NO_COLOR", "1")],
    ] {
        let task = place.cloud.add_oms(OmsSpec::new("logs", 3));
        let told = on_a_terminal(&gateway, environment, &format!("tasks delete {task}"));
        assert_eq!(told.status, Some(0), "{environment:?}: {told:?}");
        for part in [
            "accepted",
            "delete_sent",
            "observed  gone",
            "succeeded (deleted)",
        ] {
            assert!(told.out.contains(part), "{part}, {environment:?}: {told:?}");
        }
        let task = place.cloud.add_oms(short(RunEnd::Success));
        let watched = on_a_terminal(&gateway, environment, &format!("tasks watch {task}"));
        assert!(
            watched.out.lines().count() >= 2,
            "{environment:?}: {watched:?}"
        );
        let help = on_a_terminal(&gateway, environment, "tasks --help");
        for said in [told, watched, help] {
            assert!(!said.out.contains('\u{1b}'), "{environment:?}: {said:?}");
        }
    }
}

#[test]
fn whoever_has_read_enough_is_told_nothing_more() {
    let place = Place::new();
    for number in 0..100 {
        place.cloud.add_oms(OmsSpec::new(&number.to_string(), 3));
    }
    let gateway = place.start();
    // The other end is closed before anything is written.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = caller(&gateway, Some(KEY))
        .args(["tasks", "list"])
        .stdout(writer)
        .output();
    let told = Said::of(&output.expect("the program runs"));
    assert_eq!((told.status, &*told.err), (Some(1), ""), "{told:?}");
}

fn begun(gateway: &Gateway, line: &str) -> Child {
    caller(gateway, Some(KEY))
        .args(line.split(' '))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs")
}

/// Presses Ctrl-C, and gives what was said until then.
fn interrupt(child: Child) -> Said {
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-INT", &pid]).status();
    assert!(sent.expect("kill").success());
    let told = Said::of(&child.wait_with_output().expect("an end"));
    assert_eq!(told.status, Some(130), "{told:?}");
    told
}

#[test]
fn whoever_breaks_off_a_wait_is_told_what_goes_on() {
    let place = Place::new();
    let task = place.cloud.add_oms(stuck());
    let gateway = place.start();
    let child = begun(&gateway, &format!("tasks pause {task}"));
    // It has its first answer when it waits for the second time.
    wait_for("the wait", || {
        let waited = "\"http.route\":\"/tasks/{id}/pause\",\"http.status_code\":202";
        gateway.log().contains(waited).then_some(())
    });
    let id = gateway.client().get("/operations").json()["operations"][0]["id"].clone();
    let id = id.as_str().expect("an id");
    let told = interrupt(child);
    let again = format!("operations watch {id}");
    assert!(
        told.err.contains("goes on") && told.err.contains(&again),
        "{told:?}"
    );
    assert_eq!(gateway.client().operation(id)["status"], "running");

    let watching = |count: usize| {
        let metrics = gateway.stranger().get("/metrics").text;
        metrics
            .contains(&format!("migration_gateway_event_streams {count}\n"))
            .then_some(())
    };
    let child = begun(&gateway, &again);
    wait_for("the watcher", || watching(1));
    assert!(interrupt(child).err.contains(&again));
    wait_for("the place to be free", || watching(0));
    let child = begun(&gateway, &format!("tasks watch {task} --service oms"));
    wait_for("the watcher", || watching(1));
    let told = interrupt(child);
    let again = format!("tasks watch {task} --service oms");
    assert!(told.err.contains(&again), "{told:?}");
}

#[test]
fn whoever_breaks_off_before_an_answer_is_told_that_it_may_go_on() {
    let place = Place::new();
    let task = place.cloud.add_oms(OmsSpec::new("logs", 2));
    let hang = Fault::on(Service::Oms, Operation::Show, FaultKind::Hang);
    let hang = place.cloud.fault(hang.task(&task));
    let gateway = place.start();
    let child = begun(&gateway, &format!("tasks pause {task}"));
    wait_for("the request", || (hang.fired() == 1).then_some(()));
    let told = interrupt(child);
    assert!(
        told.err.contains("may go on") && told.err.contains("operations list"),
        "{told:?}"
    );
}

#[test]
fn words_to_whoever_waits_are_no_part_of_the_documents() {
    let place = Place::new();
    let task = place.cloud.add_oms(OmsSpec::new("logs", 2));
    let gateway = place.start();
    let denied = FaultKind::denied(Service::Oms);
    let child = begun(&gateway, &format!("tasks watch {task} --json"));
    wait_for("the watcher", || {
        let metrics = gateway.stranger().get("/metrics").text;
        metrics
            .contains("migration_gateway_event_streams 1\n")
            .then_some(())
    });
    let fault = Fault::on(Service::Oms, Operation::Show, denied).task(&task);
    let fault = place.cloud.fault(fault.always());
    // One look that is denied asks twice at most.
    wait_for("several denied looks", || {
        (fault.fired() >= 4).then_some(())
    });
    fault.cancel();
    place.cloud.set_oms_status(&task, 5);
    let told = Said::of(&child.wait_with_output().expect("an end"));
    assert_eq!(told.status, Some(0), "{told:?}");
    assert!(told.err.contains("permission"), "{told:?}");
    for line in told.out.lines() {
        let document: serde_json::Value = serde_json::from_str(line).expect("a document");
        assert_eq!(document["id"], *task, "{line}");
    }
    // One who is denied gets the document where documents are asked for, and nothing beside it.
    let refused = said(&mut caller(&gateway, Some("wrong")), "tasks list --json");
    assert_eq!(refused.status, Some(4), "{refused:?}");
    assert_eq!(refused.documents()[0]["type"], "/problems/unauthenticated");
    let again = ask(&gateway, &format!("tasks pause {task} --json"));
    assert_eq!(again.documents()[0]["type"], "/problems/task-finished");
}

#[test]
fn completions_know_the_commands_of_every_shell_and_are_scripts_of_it() {
    for shell in ["bash", "zsh", "fish"] {
        let script = said(&mut gateway_command(), &format!("completions {shell}"));
        assert_eq!(script.status, Some(0), "{script:?}");
        for word in ["tasks", "operations", "no-wait", "key-file"] {
            assert!(script.out.contains(word), "{shell}: {word}");
        }
        check(shell, &script.out);
    }
    let unknown = said(&mut gateway_command(), "completions cmd");
    assert_eq!(unknown.status, Some(2));
}

#[test]
fn bash_completes_the_commands_and_their_options() {
    let script = said(&mut gateway_command(), "completions bash").out;
    for (words, offered) in [
        ("operations ''", "cancel"),
        ("tasks ''", "watch"),
        ("tasks delete --no", "--no-wait"),
        ("''", "verify-audit"),
    ] {
        let count = words.split(' ').count();
        let ask = format!(
            "{script}\nCOMP_WORDS=(migration-gateway {words}) COMP_CWORD={count}\n\
             _migration__gateway migration-gateway\nprintf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let output = Command::new("bash").args(["-c", &ask]).output();
        let told = Said::of(&output.expect("bash"));
        assert!(
            told.out.lines().any(|line| line == offered),
            "{words}: {told:?}"
        );
    }
}

/// Has a shell read a script without running it, if there is this shell.
fn check(shell: &str, script: &str) {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(script.as_bytes()).expect("to be written");
    match Command::new(shell).arg("-n").arg(file.path()).output() {
        Ok(output) => {
            let told = Said::of(&output);
            assert_eq!(
                (told.status, &*told.err),
                (Some(0), ""),
                "{shell}: {told:?}"
            );
        }
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{shell}");
            assert_ne!(shell, "bash", "everybody has it");
        }
    }
}
