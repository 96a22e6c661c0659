//! How much each caller may ask for.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use migration_gateway::sandbox::Operation;
use rustix::net::sockopt;

use crate::support::{
    gateway::{Gateway, KEY, Place},
    http::Answer,
    stuck, wait_for,
};

const OTHER: &str = "key-of-another-caller";

#[test]
fn a_caller_who_sends_too_much_is_told_what_is_left_and_disturbs_nobody_else() {
    let place = Place::new()
        .set("limits.requests_per_second", "1")
        .set("limits.burst", "3")
        .caller("other", OTHER, "permissions = []\nprojects = [\"*\"]");
    let gateway = place.start();
    let caller = gateway.client();
    let header = |name: &str, of: &Answer| of.header(name).map(str::to_owned);
    for left in [2, 1, 0] {
        let answer = caller.get("/whoami");
        assert_eq!(answer.status, 200, "{answer:?}");
        let policy = header("ratelimit-policy", &answer);
        assert_eq!(policy.as_deref(), Some("\"caller\";q=3;w=3"));
        let shown = header("ratelimit", &answer).expect("what is left");
        assert!(
            shown.starts_with(&format!("\"caller\";r={left};t=")),
            "{shown}"
        );
    }
    let refused = wait_for("a refusal", || {
        let path = "/tasks/191297407830872?force=pause";
        let answer = caller.delete(path);
        (answer.status == 429).then_some(answer)
    });
    assert_eq!(refused.problem(), "rate-limited");
    assert_eq!(refused.json()["sent"], "no");
    assert_eq!(refused.header("retry-after"), Some("1"));
    let shown = header("ratelimit", &refused).expect("what is left");
    assert!(shown.starts_with("\"caller\";r=0;"), "{shown}");
    // Others are not counted with it, and neither are strangers and probes.
    assert_eq!(
        gateway.client_with(OTHER).get("/whoami").status,
        200,
        "another caller"
    );
    for _ in 0..5 {
        let stranger = gateway.stranger().get("/whoami");
        assert_eq!(
            (stranger.status, header("ratelimit", &stranger)),
            (401, None)
        );
        let probe = caller.get("/readyz");
        assert_eq!((probe.status, header("ratelimit", &probe)), (200, None));
    }
    wait_for("the bucket to fill", || {
        (caller.get("/whoami").status == 200).then_some(())
    });
    assert!(place.cloud.requests().is_empty());
}

#[test]
fn a_caller_has_so_many_operations_running_and_others_have_theirs() {
    let all = "permissions = [\"*\"]\nprojects = [\"*\"]";
    let place = Place::new()
        .set("limits.running_operations", "2")
        .caller("other", OTHER, all);
    let gateway = place.start();
    let tasks: Vec<String> = (0..4).map(|_| place.cloud.add_oms(stuck())).collect();
    let ask = |key: &str, task: &str| {
        let client = gateway.client_with(key);
        let path = format!("/tasks/{task}?force=pause");
        client.with("DELETE", &path, ("Prefer", "respond-async"))
    };
    let first = ask(KEY, &tasks[0]);
    assert_eq!((first.status, ask(KEY, &tasks[1]).status), (202, 202));
    let refused = ask(KEY, &tasks[2]);
    assert_eq!((refused.status, &*refused.problem()), (429, "rate-limited"));
    assert_eq!(refused.json()["sent"], "no");
    assert_eq!(refused.header("retry-after"), Some("5"));
    // The same again is no other operation, and another caller is another caller.
    assert_eq!(ask(KEY, &tasks[0]).json()["id"], first.json()["id"]);
    assert_eq!(ask(OTHER, &tasks[2]).status, 202);
    place.cloud.set_oms_status(&tasks[0], 3);
    let id = first.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!(gateway.client().ended(&id)["outcome"], "deleted");
    assert_eq!(ask(KEY, &tasks[3]).status, 202);
}

/// A connection on which these bytes were sent.
fn connect(gateway: &Gateway, bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.authority()).expect("a connection");
    let patience = Some(Duration::from_mins(1));
    stream.set_read_timeout(patience).expect("a time limit");
    stream.write_all(bytes.as_bytes()).expect("to send");
    stream
}

/// Everything that comes until the other side ends the connection.
fn rest(mut stream: TcpStream) -> String {
    let mut text = Vec::new();
    stream.read_to_end(&mut text).expect("the end");
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn a_head_that_never_ends_is_given_up_on_every_request_of_a_connection() {
    let place = Place::new();
    let gateway = place.start();
    let whole = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
    let part = "GET /livez HTTP/1.1\r\nHost: x\r\n";
    thread::scope(|scope| {
        for (bytes, answers) in [
            (part.to_owned(), 0),
            (format!("{whole}{part}"), 1),
            (format!("{whole}{whole}{part}"), 2),
        ] {
            let gateway = &gateway;
            scope.spawn(move || {
                let text = rest(connect(gateway, &bytes));
                assert_eq!(text.matches("HTTP/1.1 200").count(), answers, "{text}");
            });
        }
        // The head comes byte by byte, after an answer.
        scope.spawn(|| {
            let mut stream = connect(&gateway, whole);
            let began = Instant::now();
            while stream.write_all(b"G").is_ok() {
                assert!(began.elapsed() < Duration::from_secs(20), "it goes on");
                thread::park_timeout(Duration::from_millis(200));
            }
        });
    });
    assert_eq!(gateway.stranger().get("/livez").status, 200);
}

#[test]
fn a_reset_is_noticed_however_much_was_sent_behind_a_request() {
    let place = Place::new();
    let gateway = place.start();
    let whoami = format!("GET /whoami HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\r\n");
    for many in [0, 1000] {
        let task = place.cloud.add_oms(stuck());
        let pause = whoami.replace("GET /whoami", &format!("POST /tasks/{task}/pause"));
        let stream = connect(&gateway, &(pause + &whoami.repeat(many)));
        wait_for("the pause to be sent", || {
            let sent = place.cloud.count(Operation::Pause, Some(&task));
            (sent > 0).then_some(())
        });
        let began = Instant::now();
        sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("a setting");
        drop(stream);
        wait_for("the end of the request", || {
            let lines = gateway.log();
            let broken_off = lines.matches("request broken off by its caller").count();
            (broken_off == usize::from(many > 0) + 1).then_some(())
        });
        // The answer would come after 30 seconds.
        assert!(began.elapsed() < Duration::from_secs(15), "{many}");
    }
}

/// Whether the other side ended a connection on which nothing was sent.
fn is_closed(mut stream: &TcpStream) -> bool {
    let moment = Some(Duration::from_millis(200));
    stream.set_read_timeout(moment).expect("a time limit");
    match stream.read(&mut [0]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

#[test]
fn connections_are_limited_for_each_peer_and_in_all() {
    for (limit, label) in [("connections_per_peer", "peer"), ("connections", "all")] {
        let place = Place::new().set(&format!("limits.{limit}"), "3");
        let gateway = place.start();
        // Others, such as who asked whether it is ready, may have a place for a while.
        wait_for("a refusal", || {
            let connect = |_| TcpStream::connect(gateway.authority()).ok();
            let streams: Vec<TcpStream> = (0..4).filter_map(connect).collect();
            streams.iter().any(is_closed).then_some(())
        });
        let metrics = wait_for("a place", || {
            let client = gateway.stranger();
            let answer = client.send("GET", "/metrics", &[], None).ok()?;
            (answer.status == 200).then_some(answer.text)
        });
        let refused = format!("migration_gateway_connections_refused_total{{limit=\"{label}\"}}");
        assert!(metrics.contains(&refused), "{metrics}");
    }
}
