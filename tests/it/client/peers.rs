//! What the client makes of whatever else than a gateway answers, and of a gateway that says
//! nothing.

use std::{
    fs,
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{Said, fed, gateway_command, said};
use crate::support::vendor::{Then, Vendor, answer, write};

const OPERATION: &str = "op_01JGZ4K8W3M5N7P9R1T3V5X7Z9";

/// What a command comes to at an address.
fn at(address: &str, line: &str) -> Said {
    let mut command = gateway_command();
    command
        .env("MIGRATION_GATEWAY_ADDRESS", address)
        .env("MIGRATION_GATEWAY_KEY", "the-key");
    said(&mut command, line)
}

/// Answers everything with this document.
fn answering(document: &Value) -> Vendor {
    let text = answer(
        200,
        "content-type: application/json\r\n",
        &document.to_string(),
    );
    Vendor::start(move |_, writer| {
        write(writer, &text);
        Then::Close
    })
}

/// What a gateway says that cannot reach its record, and perhaps recorded what it was asked for.
fn record_is_away(sent: &str) -> String {
    let document = json!({
        "type": "/problems/store-unavailable", "title": "The record is unavailable", "status": 503,
        "detail": "It may have been recorded.", "sent": sent,
    });
    let kind = "content-type: application/problem+json\r\n";
    answer(503, kind, &document.to_string())
}

#[test]
fn whoever_says_nothing_is_waited_for_for_a_while_only() {
    let mute = Vendor::start(|_, _| Then::KeepOpen);
    // It begins as a stream does, and nothing follows.
    let stuck = Vendor::start(|_, writer| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nretry: 2000\n\n";
        write(writer, head)
    });
    let watch = format!("operations watch {OPERATION}");
    let lines = [
        (mute.url(), "tasks list"),
        (mute.url(), "tasks delete 7 --json"),
        (mute.url(), "tasks watch 7"),
        (stuck.url(), "tasks watch 7"),
        (stuck.url(), &watch),
    ];
    let away = record_is_away("unknown");
    let unsure = Vendor::start(move |_, writer| {
        write(writer, &away);
        Then::Close
    });
    let began = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            let told = at(&unsure.url(), "tasks delete 7");
            assert_eq!(told.status, Some(3), "{told:?}");
            assert!(told.err.contains("may go on all the same"), "{told:?}");
        });
        for (address, line) in &lines {
            scope.spawn(move || {
                let told = at(address, line);
                assert_eq!((told.status, &*told.out), (Some(3), ""), "{line}: {told:?}");
                let address = address.trim_start_matches("http://");
                assert!(
                    told.err.contains(address) && told.err.contains("said nothing for"),
                    "{line}: {told:?}"
                );
                let may_go_on = told.err.contains("may go on all the same");
                assert_eq!(may_go_on, line.contains("delete"), "{line}: {told:?}");
            });
        }
    });
    assert!(began.elapsed() < Duration::from_mins(2));
}

#[test]
fn what_no_gateway_says_is_an_error_and_no_empty_result() {
    let pages = [
        json!({}),
        json!([]),
        json!({"tasks": null, "next_page_token": null}),
        json!({"tasks": [], "operations": []}),
        json!({"tasks": [7], "operations": [{}], "next_page_token": null}),
        json!({"tasks": [{"id": "1"}, {"id": 2}], "operations": [{"id": ""}], "next_page_token": null}),
        json!({"tasks": [], "operations": [], "next_page_token": 7}),
    ];
    for page in pages {
        let peer = answering(&page);
        for line in ["tasks list", "tasks list --json", "operations list"] {
            let told = at(&peer.url(), line);
            assert_eq!((told.status, &*told.out), (Some(3), ""), "{page}: {told:?}");
            assert!(told.err.contains("is not a gateway"), "{told:?}");
        }
    }
    let peer = answering(&json!({"tasks": [], "operations": [], "next_page_token": null}));
    for line in ["tasks list", "operations list"] {
        let told = at(&peer.url(), line);
        assert_eq!(
            (told.status, told.out.lines().count()),
            (Some(0), 1),
            "{told:?}"
        );
    }
    for line in [
        "tasks show 7".to_owned(),
        "tasks pause 7".to_owned(),
        format!("operations show {OPERATION}"),
        format!("operations cancel {OPERATION}"),
        format!("operations watch {OPERATION}"),
    ] {
        let told = at(&answering(&json!({})).url(), &line);
        assert_eq!((told.status, &*told.out), (Some(3), ""), "{line}: {told:?}");
        assert!(told.err.contains("is not a gateway"), "{line}: {told:?}");
    }
}

#[test]
fn a_change_that_something_before_the_gateway_did_not_answer_is_asked_for_again() {
    let page = answer(502, "content-type: text/html\r\n", "<h1>Bad Gateway</h1>");
    let done = operation(200);
    for (page, repeats) in [(&page, true), (&page.replace("502", "404"), false)] {
        let (page, done) = (page.clone(), done.clone());
        let peer = Vendor::start(move |asked, writer| {
            let is_first = asked.number == 0;
            write(writer, if is_first { &page } else { &done });
            Then::Close
        });
        let told = at(&peer.url(), "tasks delete 7");
        let status = if repeats { 0 } else { 3 };
        assert_eq!(told.status, Some(status), "{told:?}");
        assert_eq!(peer.asked().len(), 1 + usize::from(repeats));
    }
}

#[test]
fn a_change_that_may_have_been_recorded_is_asked_for_again() {
    let done = operation(200);
    for (sent, asked, status) in [("no", 1, 1), ("unknown", 2, 0)] {
        let (away, done) = (record_is_away(sent), done.clone());
        let peer = Vendor::start(move |asked, writer| {
            write(writer, if asked.number == 0 { &away } else { &done });
            Then::Close
        });
        let told = at(&peer.url(), "tasks delete 7");
        assert_eq!(told.status, Some(status), "{told:?}");
        assert_eq!(peer.asked().len(), asked);
    }
}

/// What a gateway says of an operation, with the status of that answer.
fn operation(status: u16) -> String {
    let (stands, outcome) = match status {
        202 => ("running", Value::Null),
        _ => ("succeeded", json!("deleted")),
    };
    let document = json!({
        "id": OPERATION, "kind": "delete", "status": stands, "outcome": outcome,
        "task": {"id": "7"}, "events": [],
    });
    let kind = "content-type: application/json\r\n";
    answer(status, kind, &document.to_string())
}

/// An answer with a problem, perhaps about the end of an operation.
fn problem(status: u16, slug: &str, operation: &Value) -> String {
    let document = json!({
        "type": format!("/problems/{slug}"), "title": "No", "status": status, "detail": "No.",
        "sent": "no", "operation": operation,
    });
    let kind = "content-type: application/problem+json\r\n";
    answer(status, kind, &document.to_string())
}

#[test]
fn a_wait_asks_less_and_less_often_and_outlasts_what_passes() {
    let away = ["audit-unavailable", "store-unavailable", "overloaded"];
    let script = move |number: usize| match number {
        3 | 5 | 7 => problem(503, away[(number - 3) / 2], &Value::Null),
        ..10 => operation(202),
        _ => operation(200),
    };
    let peer = Vendor::start(move |asked, writer| {
        write(writer, &script(asked.number));
        Then::Close
    });
    let told = at(&peer.url(), "tasks delete 7");
    assert_eq!((told.status, &*told.err), (Some(0), ""), "{told:?}");
    let asked = peer.asked();
    let waits: Vec<_> = asked.iter().map(|asked| asked.header("prefer")).collect();
    let waits: Vec<_> = waits.into_iter().flatten().collect();
    assert_eq!(waits[0], "respond-async");
    let waits: Vec<_> = waits[1..]
        .iter()
        .map(|wait| wait.strip_prefix("wait="))
        .collect();
    let waits: Vec<_> = waits.into_iter().flatten().collect();
    assert_eq!(
        waits,
        ["2", "4", "8", "8", "16", "16", "30", "30", "30", "30"]
    );
    let keys = asked.iter().map(|asked| asked.header("idempotency-key"));
    assert!(
        keys.clone()
            .all(|key| key.is_some() && key == asked[0].header("idempotency-key"))
    );
}

#[test]
fn whoever_ends_a_wait_without_the_end_of_the_operation_says_that_it_may_go_on() {
    let own = json!({"id": OPERATION, "task": {"id": "7"}, "events": []});
    let none = Value::Null;
    for (accepted, status, slug, document, ended, may_go_on) in [
        (1, 403, "forbidden", &none, 4, true),
        (1, 500, "internal", &none, 1, true),
        (1, 409, "operation-cancelled", &own, 1, false),
        (0, 403, "forbidden", &none, 4, false),
        (0, 503, "audit-unavailable", &none, 1, false),
    ] {
        let text = problem(status, slug, document);
        let peer = Vendor::start(move |asked, writer| {
            let is_taken = asked.number < accepted;
            let operation = is_taken.then(|| operation(202));
            write(writer, operation.as_ref().unwrap_or(&text));
            Then::Close
        });
        let told = at(&peer.url(), "tasks delete 7");
        assert_eq!(told.status, Some(ended), "{slug}: {told:?}");
        let says = told.err.contains("may go on all the same");
        assert_eq!(says, may_go_on, "{slug}: {told:?}");
        assert_eq!(peer.asked().len(), accepted + 1, "{slug}");
    }
}

#[test]
fn no_text_of_others_orders_the_terminal_about() {
    let task = json!({
        "id": "7", "state": "failed",
        "error": {"code": "\u{1b}[2J", "message": "\u{9b}31m\nfaked"},
    });
    let end = json!({"ending": "failed", "task": task});
    let stream = format!("event: end\nid: 1\ndata: {end}\n\n");
    let stream = answer(200, "content-type: text/event-stream\r\n", &stream);
    let peer = Vendor::start(move |_, writer| {
        write(writer, &stream);
        Then::Close
    });
    let told = at(&peer.url(), "tasks watch 7");
    assert_eq!(told.status, Some(1), "{told:?}");
    assert!(
        told.err.contains("[2J") && told.err.contains("faked"),
        "{told:?}"
    );
    assert_eq!(told.err.lines().count(), 1, "{told:?}");
    let orders = |character: char| character.is_control() && character != '\n';
    assert!(!told.err.contains(orders), "{told:?}");
}

#[test]
fn a_list_that_never_ends_is_given_up() {
    let peer = answering(&json!({"tasks": [], "next_page_token": "again"}));
    let told = at(&peer.url(), "tasks list");
    assert_eq!((told.status, &*told.out), (Some(3), ""), "{told:?}");
    assert!(peer.asked().len() <= 10_000, "{}", peer.asked().len());
}

#[test]
fn the_key_follows_no_redirect() {
    let other = Vendor::start(|_, _| Then::Close);
    for status in [301, 302, 303, 307, 308] {
        let location = format!("location: {}/tasks\r\n", other.url());
        let peer = Vendor::start(move |_, writer| write(writer, &answer(status, &location, "")));
        for line in ["tasks list", "tasks delete 7", "tasks watch 7"] {
            let told = at(&peer.url(), line);
            assert_eq!((told.status, &*told.out), (Some(3), ""), "{line}: {told:?}");
            assert!(told.err.contains("redirects"), "{line}: {told:?}");
        }
        assert_eq!(peer.asked().len(), 3, "each was asked once");
    }
    assert_eq!(other.connections(), 0);
}

#[test]
fn a_file_with_a_fault_is_refused_without_a_word_of_it() {
    let home = tempfile::tempdir().expect("a folder");
    let folder = home.path().join("migration-gateway");
    fs::create_dir(&folder).expect("a folder");
    for (text, told) in [
        ("key = \"s3cret", "is not valid TOML: look at line 1"),
        ("s3cret", "is not valid TOML: look at line 1"),
        (
            "address = \"http://127.0.0.1:1\"\ns3cret=",
            "look at line 2",
        ),
        ("s3cret = 1", "address, key_file, ca_file"),
        ("key_file = [\"s3cret\"]", "key_file that is not text"),
        ("address = { s3cret = 1 }", "address that is not text"),
    ] {
        fs::write(folder.join("client.toml"), text).expect("a file");
        let mut command = gateway_command();
        command.env("XDG_CONFIG_HOME", home.path());
        let refused = said(&mut command, "tasks list");
        assert_eq!(
            (refused.status, &*refused.out),
            (Some(2), ""),
            "{text}: {refused:?}"
        );
        assert!(
            refused.err.contains("client.toml") && refused.err.contains(told),
            "{text}: {refused:?}"
        );
        assert!(!refused.err.contains("s3cret"), "{text}: {refused:?}");
    }
}

#[test]
fn a_file_of_keys_is_read_strictly_and_not_shown() {
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("http://{}", nobody.local_addr().expect("an address"));
    drop(nobody);
    let keys = r#"{"access_key": "AK", "secret_key": "s3cret"}"#;
    let start = |text: &str| {
        let told = fed(
            gateway_command().env("MIGRATION_GATEWAY_ADDRESS", &address),
            "tasks start 7 --credentials-file -",
            text,
        );
        assert!(
            !told.err.contains("s3cret") && told.out.is_empty(),
            "{text}: {told:?}"
        );
        told
    };
    for text in [
        String::new(),
        "[]".to_owned(),
        format!(r#"{{"source": {keys}, "destination": {keys}, "destination": {keys}}}"#),
        r#"{"destination": {"access_key": "AK", "secret_key": "s3cret", "secret_key": "s3cret"}}"#
            .to_owned(),
        r#"{"destination": {"access_key": "AK", "secret_key": "s3cret", "region": "x"}}"#
            .to_owned(),
        r#"{"destination": {"access_key": "AK", "secret_key": s3cret}}"#.to_owned(),
        format!(r#"{{"destinations": {keys}}}"#),
        format!(r#"{{"destination": {keys}}} s3cret"#),
    ] {
        let refused = start(&text);
        assert_eq!(refused.status, Some(2), "{text}: {refused:?}");
        assert!(
            refused.err.contains("look at line 1"),
            "{text}: {refused:?}"
        );
    }
    for text in [
        format!(r#"{{"source": "archive", "destination": {keys}}}"#),
        format!(r#"{{"destination": {keys}, "migrate_failed_objects": true}}"#),
    ] {
        // It is taken, and there is nobody to send it to.
        let taken = start(&text);
        assert_eq!(taken.status, Some(3), "{text}: {taken:?}");
    }
}
