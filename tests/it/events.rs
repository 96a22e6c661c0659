//! Streams of events: what is told, to whom, from where on, and when a stream ends.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use migration_gateway::{
    domain::clock::{Clock as _, SystemClock},
    sandbox::{Fault, FaultKind, OmsSpec, Operation, RunEnd, Service},
};
use serde_json::{Value, json};

use crate::support::{
    gateway::{Gateway, KEY, Place, digest},
    http::{Client, Event, Events},
    raw, schema, stuck, wait_for, wait_within,
};

const OTHER: &str = "key-of-another-caller";

/// A task that runs for so long.
fn running(seconds: u64) -> OmsSpec {
    OmsSpec {
        run_duration: Some(Duration::from_secs(seconds)),
        run_end: RunEnd::Success,
        ..OmsSpec::new("logs", 2)
    }
}

fn open(client: &Client, path: &str, last: Option<&str>) -> Events {
    client
        .watch(path, last)
        .unwrap_or_else(|answer| panic!("{path}: {answer:?}"))
}

fn of_operation(client: &Client, id: &str, last: Option<&str>) -> Events {
    open(client, &format!("/operations/{id}/events"), last)
}

fn of_task(client: &Client, id: &str, last: Option<&str>) -> Events {
    open(client, &format!("/tasks/{id}/events"), last)
}

/// What is wrong with the data of an event, by the document's schema of this name.
fn assert_fits(client: &Client, name: &str, data: &Value) {
    let document = client.get("/openapi.json").json();
    let reference = json!({"$ref": format!("#/components/schemas/{name}")});
    let faults = schema::faults(&document, &reference, data, name);
    assert!(faults.is_empty(), "{faults:?}");
}

fn names(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.name.as_str()).collect()
}

#[test]
fn an_operation_is_told_event_by_event_and_ends_with_its_document() {
    let place = Place::new();
    let task = place.cloud.add_oms(stuck());
    let gateway = place.start();
    let client = gateway.client();
    let id = client.force_delete(&task);
    let mut stream = of_operation(&client, &id, None);
    let mut seen = Vec::new();
    // The pause has no effect yet, so that the stream is open while the operation goes on.
    for event in stream.by_ref() {
        let is_pausing = event.data["state"] == "pausing";
        seen.push(event);
        if is_pausing {
            break;
        }
    }
    place.cloud.set_oms_status(&task, 3);
    seen.extend(stream);
    let document = client.operation(&id);
    let recorded = document["events"].as_array().expect("events");
    assert_eq!(seen.len(), recorded.len(), "{seen:?}");
    for (number, (event, recorded)) in seen.iter().zip(recorded).enumerate() {
        assert_eq!(event.id, Some((number + 1).to_string()));
        for (member, value) in recorded.as_object().expect("an event") {
            assert_eq!(&event.data[member], value, "{event:?}");
        }
        assert_fits_update(&client, &event.data);
    }
    let (last, before) = seen.split_last().expect("events");
    for event in before {
        assert_eq!(
            (&*event.name, event.data.get("operation")),
            ("progress", None)
        );
    }
    assert_eq!(before[0].data["status"], "running");
    assert!(before[0].data["phase"].is_string());
    assert_eq!(
        (&*last.name, &last.data["status"]),
        ("end", &json!("succeeded"))
    );
    assert_eq!(last.data["operation"], document);

    // Every number goes on where it was.
    for number in 0..=recorded.len() {
        let path = format!("/operations/{id}/events");
        match client.watch(&path, Some(&number.to_string())) {
            Ok(rest) => {
                let ids: Vec<_> = rest.filter_map(|event| event.id).collect();
                let expected: Vec<_> = (number + 1..=recorded.len())
                    .map(|number| number.to_string())
                    .collect();
                assert!(!expected.is_empty());
                assert_eq!(ids, expected);
            }
            Err(answer) => assert_eq!((answer.status, number), (204, recorded.len())),
        }
    }
}

/// The parts of an update are described apart from each other.
fn assert_fits_update(client: &Client, data: &Value) {
    let mut event = data.clone();
    let members = event.as_object_mut().expect("an update");
    let own: serde_json::Map<String, Value> = ["status", "phase", "operation"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), members.remove(name)?)))
        .collect();
    assert_fits(client, "OperationUpdate/allOf/1", &Value::Object(own));
    assert_fits(client, "OperationEvent", &event);
}

#[test]
fn a_stream_is_refused_like_the_document_that_it_is_about() {
    let place = Place::new()
        .caller("other", OTHER, "permissions = [\"*\"]\nprojects = [\"*\"]")
        .caller(
            "poor",
            "poor",
            "permissions = [\"tasks:pause\"]\nprojects = [\"*\"]",
        );
    let task = place.cloud.add_oms(stuck());
    let gateway = place.start();
    let client = gateway.client();
    let id = client.force_delete(&task);
    let path = format!("/operations/{id}/events");
    let refused = |client: &Client, path: &str, last: Option<&str>| {
        let answer = client.watch(path, last).err().expect("a refusal");
        (answer.status, answer.problem())
    };
    let expect = |status: u16, kind: &str| (status, kind.to_owned());
    let other = gateway.client_with(OTHER);
    let poor = gateway.client_with("poor");
    let stranger = gateway.stranger();
    let tasks = format!("/tasks/{task}/events");
    assert_eq!(
        refused(&other, &path, None),
        expect(404, "operation-not-found")
    );
    assert_eq!(refused(&poor, &path, None), expect(403, "forbidden"));
    assert_eq!(refused(&poor, &tasks, None), expect(403, "forbidden"));
    for path in [&path, &tasks] {
        assert_eq!(
            refused(&stranger, path, None),
            expect(401, "unauthenticated")
        );
        let unknown = format!("{path}?wait=1");
        assert_eq!(
            refused(&client, &unknown, None),
            expect(400, "invalid-request")
        );
    }
    let gone = refused(&client, "/tasks/7/events", None);
    assert_eq!(gone, expect(404, "task-not-found"));
    let post = client.post(&path);
    assert_eq!(
        (post.status, post.header("allow")),
        (405, Some("GET, HEAD"))
    );
    // What else a caller would take does not matter, as everywhere.
    let other = client.with(
        "GET",
        "/operations/op_01JGZ4K8W3M5N7P9R1T3V5X7Z9/events",
        ("accept", "text/html"),
    );
    assert_eq!(other.problem(), "operation-not-found");
    // A stream has nothing to show to a HEAD, and the connection is free for the next request.
    for path in [&path, &tasks] {
        let head = client.request("HEAD", path);
        assert_eq!(head.status, 200, "{head:?}");
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        assert_eq!(client.get("/livez").status, 200);
    }
}

#[test]
fn to_a_caller_of_http_1_0_a_stream_ends_with_the_connection() {
    let place = Place::new();
    let task = place.cloud.add_oms(stuck());
    let gateway = place.start();
    let client = gateway.client();
    let id = client.force_delete(&task);
    let cancelled = client.post(&format!("/operations/{id}/cancel"));
    assert_eq!(cancelled.status, 200, "{cancelled:?}");
    for keep in ["", "Connection: keep-alive\r\n"] {
        let request = format!(
            "GET /operations/{id}/events HTTP/1.0\r\nAuthorization: Bearer {KEY}\r\n{keep}\r\n"
        );
        let answer = raw::exchange(gateway.authority(), request.as_bytes());
        assert_eq!(answer.status, 200, "{answer:?}");
        for not in ["transfer-encoding", "content-length", "keep-alive"] {
            assert!(!answer.head.contains(not), "{answer:?}");
        }
        assert!(answer.body.starts_with("retry: 2000\n\nid: "), "{answer:?}");
        assert!(answer.body.ends_with("\n\n"), "{answer:?}");
    }
}

#[test]
fn a_stream_ends_when_the_body_of_its_request_breaks_a_rule() {
    let place = Place::new();
    let gateway = place.start();
    let task = place.cloud.add_oms(running(600));
    let mut stream = raw::connect(gateway.authority());
    let head = format!(
        "GET /tasks/{task}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n\
         Transfer-Encoding: chunked\r\n\r\n1\r\n"
    );
    stream.write_all(head.as_bytes()).expect("to send");
    stream.peek(&mut [0]).expect("an answer");
    let began = Instant::now();
    stream.write_all(b"xy\r\n").expect("to send");
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut buffer).expect("the end of the stream");
        assert!(began.elapsed() < Duration::from_secs(5));
        if read == 0 {
            break;
        }
        answer.extend_from_slice(&buffer[..read]);
    }
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n0\r\n\r\n"), "{answer}");
}

#[test]
fn an_id_that_is_none_of_the_stream_is_refused_with_what_to_do() {
    let place = Place::new();
    let task = place.cloud.add_oms(stuck());
    let gateway = place.start();
    let client = gateway.client();
    let id = client.force_delete(&task);
    let operation = format!("/operations/{id}/events");
    let task = format!("/tasks/{task}/events");
    // So many events were not told yet.
    let later = [(&operation, "200")];
    let wrong = ["x", "-1", "01", "1.0", "", "%31"];
    let wrong = [&operation, &task].map(|path| wrong.map(|last| (path, last)));
    for (path, last) in later.into_iter().chain(wrong.into_iter().flatten()) {
        let answer = client.watch(path, Some(last)).err().expect("a refusal");
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (400, "invalid-request"),
            "{last}"
        );
        let fault = &answer.json()["errors"][0];
        assert_eq!(fault["pointer"], "/Last-Event-ID");
        let advice = fault["detail"].as_str().expect("a sentence");
        assert!(
            advice.contains("must be the id of an event of this stream")
                && advice.contains("leave it out"),
            "{advice}"
        );
    }
}

#[test]
fn what_another_process_does_is_told_and_its_readers_are_taken_over() {
    watch_at_two(&Place::new());
}

#[test]
fn what_another_process_does_is_told_and_its_readers_are_taken_over_on_a_server() {
    watch_at_two(&Place::postgres());
}

fn watch_at_two(place: &Place) {
    let task = place.cloud.add_oms(stuck());
    let resting = place.cloud.add_oms(OmsSpec::new("logs", 3));
    let (first, second) = (place.start(), place.start());
    let clients = [&first, &second].map(Gateway::client);
    let id = clients[0].force_delete(&task);
    let mut streams = clients
        .each_ref()
        .map(|client| of_operation(client, &id, None));
    let mut told = [Vec::new(), Vec::new()];
    for (stream, told) in streams.iter_mut().zip(&mut told) {
        for event in stream.by_ref() {
            let is_pausing = event.data["state"] == "pausing";
            told.push(event);
            if is_pausing {
                break;
            }
        }
    }
    let seen = of_task(&clients[0], &resting, None).next().expect("a task");
    let mut task_goes_on = of_task(&clients[1], &resting, seen.id.as_deref());
    // Whichever of them has done what happened so far, the other has told it too; and it alone goes
    // on.
    let [at_first, at_second] = streams;
    drop(at_first);
    first.kill();
    place.cloud.set_oms_status(&task, 3);
    told[1].extend(at_second);
    let last = told[0].last().expect("an event").id.clone();
    told[0].extend(of_operation(&clients[1], &id, last.as_deref()));
    let recorded = clients[1].operation(&id);
    let recorded = recorded["events"].as_array().expect("events");
    for told in told {
        assert_eq!(told.len(), recorded.len(), "{told:?}");
        for (number, (event, recorded)) in told.iter().zip(recorded).enumerate() {
            assert_eq!(event.id, Some((number + 1).to_string()));
            assert_eq!(event.data["event"], recorded["event"]);
        }
        let last = told.last().expect("an end");
        assert_eq!(
            (&*last.name, &last.data["status"]),
            ("end", &json!("succeeded"))
        );
    }
    place.cloud.set_oms_status(&resting, 2);
    let next = task_goes_on.next().expect("a change");
    assert_eq!(next.data["state"], "running", "the paused one was known");
}

#[test]
fn an_end_at_another_process_is_heard_of_before_it_is_looked_for() {
    const ENDS: u32 = 8;
    let place = Place::postgres();
    let gateways = [place.start(), place.start()];
    let [one, other] = gateways.each_ref().map(Gateway::client);
    let mut waited = Duration::ZERO;
    for _ in 0..ENDS {
        let id = one.force_delete(&place.cloud.add_oms(stuck()));
        let mut stream = of_operation(&other, &id, None);
        for event in stream.by_ref() {
            if event.data["state"] == "pausing" {
                break;
            }
        }
        let began = Instant::now();
        let cancelled = one.post(&format!("/operations/{id}/cancel"));
        assert_eq!(cancelled.status, 200, "{cancelled:?}");
        let last = stream.last().expect("an end");
        assert_eq!(
            (&*last.name, &last.data["status"]),
            ("end", &json!("cancelled"))
        );
        waited += began.elapsed();
    }
    // By itself the record is read every two seconds.
    let limit = ENDS * Duration::from_millis(500);
    assert!(waited < limit, "{waited:?}");
}

#[test]
fn open_streams_end_at_once_when_the_gateway_stops() {
    let place = Place::new().set("server.drain_timeout", "\"30s\"");
    let (task, busy) = (
        place.cloud.add_oms(stuck()),
        place.cloud.add_oms(running(3600)),
    );
    let mut gateway = place.start();
    let client = gateway.client();
    let id = client.force_delete(&task);
    let mut streams: Vec<_> = (0..10)
        .flat_map(|_| {
            [
                of_operation(&client, &id, None),
                of_task(&client, &busy, None),
            ]
        })
        .collect();
    for stream in &mut streams {
        assert!(stream.next().is_some(), "an event");
    }
    let began = Instant::now();
    gateway.signal("TERM");
    for mut stream in streams {
        let left: Vec<_> = stream.by_ref().collect();
        assert!(!names(&left).contains(&"end"), "{left:?}");
        let told = stream.comments.last().map(String::as_str);
        assert_eq!(told, Some("the gateway is stopping"));
    }
    assert!(gateway.ended().success(), "{}", gateway.log());
    let took = began.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn streams_have_places_of_their_own() {
    let place = Place::new()
        .set("limits.concurrent_requests", "2")
        .set("limits.event_streams", "5")
        .set("limits.event_streams_per_caller", "3")
        .caller("other", OTHER, "permissions = [\"*\"]\nprojects = [\"*\"]");
    let task = place.cloud.add_oms(running(3600));
    let gateway = place.start();
    let (client, other) = (gateway.client(), gateway.client_with(OTHER));
    let path = format!("/tasks/{task}/events");
    let mut held: Vec<_> = (0..3).map(|_| of_task(&client, &task, None)).collect();
    let refusal = |client: &Client| {
        let answer = client.watch(&path, None).err().expect("a refusal");
        assert_eq!(answer.header("retry-after"), Some("5"));
        (answer.status, answer.problem())
    };
    assert_eq!(refusal(&client), (429, "rate-limited".to_owned()));
    held.extend((0..2).map(|_| of_task(&other, &task, None)));
    assert_eq!(refusal(&other), (503, "overloaded".to_owned()));
    assert_eq!(client.get(&format!("/tasks/{task}")).status, 200);
    let open = || {
        let metrics = gateway.stranger().get("/metrics").text;
        let line = metrics
            .lines()
            .find(|line| line.starts_with("migration_gateway_event_streams "));
        line.expect("the gauge")
            .split(' ')
            .nth(1)
            .map(str::to_owned)
    };
    assert_eq!(open().as_deref(), Some("5"));
    drop(held);
    wait_for("the places to be free", || {
        (open().as_deref() == Some("0")).then_some(())
    });
    assert!(client.watch(&path, None).is_ok());
}

/// A task with events so large that what the system holds on the way is full after some seconds.
fn large() -> OmsSpec {
    OmsSpec {
        name: "x".repeat(512 << 10),
        ..running(3600)
    }
}

/// Readers of the stream of a task who do not read it.
fn deaf(gateway: &Gateway, task: &str, count: usize) -> Vec<TcpStream> {
    let request = format!(
        "GET /tasks/{task}/events HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {KEY}\r\n\r\n"
    );
    let readers = (0..count).map(|_| {
        let mut reader = raw::connect(gateway.authority());
        reader.write_all(request.as_bytes()).expect("to be read");
        reader
    });
    readers.collect()
}

#[test]
fn readers_who_do_not_read_hold_no_stop() {
    let place = Place::new().set("server.drain_timeout", "\"30s\"");
    let task = place.cloud.add_oms(large());
    let mut gateway = place.start();
    let _readers = deaf(&gateway, &task, 5);
    // Nobody asks for the next event once the connections take no more.
    let (mut looks, mut since) = (0, Instant::now());
    wait_for("the connections to be full", || {
        let count = place.cloud.count(Operation::Show, Some(&task));
        if count != looks {
            (looks, since) = (count, Instant::now());
        }
        (looks > 0 && since.elapsed() > Duration::from_secs(3)).then_some(())
    });
    let began = Instant::now();
    gateway.signal("TERM");
    assert!(gateway.ended().success(), "{}", gateway.log());
    let took = began.elapsed();
    println!("5 readers who do not read, a stop in {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

/// The memory that a gateway has in use, in MiB.
fn memory(gateway: &Gateway) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", gateway.pid()));
    let status = status.expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    kib.expect("a size").parse::<u64>().expect("a number") / 1024
}

#[test]
fn readers_who_do_not_read_are_cut_off_and_cost_little_until_then() {
    const READERS: usize = 20;
    let place = Place::new();
    let task = place.cloud.add_oms(large());
    let gateway = place.start();
    let open = |count: usize| {
        let metrics = gateway.stranger().get("/metrics").text;
        metrics
            .contains(&format!("migration_gateway_event_streams {count}\n"))
            .then_some(())
    };
    let readers = deaf(&gateway, &task, READERS);
    wait_for("the streams", || open(READERS));
    let before = memory(&gateway);
    wait_within(Duration::from_mins(2), "the readers to be cut off", || {
        open(0)
    });
    let after = memory(&gateway);
    println!("{READERS} readers who do not read: {before} MiB, and {after} MiB at the end");
    // All that was told meanwhile is several times as much.
    assert!(after < before + 100, "{before} MiB, {after} MiB");
    for mut reader in readers {
        let mut left = Vec::new();
        // What was on its way is there, and no end of the answer behind it.
        _ = reader.read_to_end(&mut left);
        assert!(left.starts_with(b"HTTP/1.1 200 "), "{}", left.len());
        assert!(!left.ends_with(b"\r\n0\r\n\r\n"), "{}", left.len());
    }
    assert_eq!(
        of_task(&gateway.client(), &task, None)
            .next()
            .expect("the task")
            .name,
        "task"
    );
}

/// Changes the file of the configuration and has it read.
fn reload(place: &Place, gateway: &Gateway, from: &str, to: &str) {
    let path = place.file("gateway.toml");
    let text = fs::read_to_string(&path).expect("a configuration");
    assert!(text.contains(from), "{from} is not in {text}");
    fs::write(&path, text.replace(from, to)).expect("a configuration");
    gateway.signal("HUP");
}

#[test]
fn a_caller_who_may_not_watch_any_more_is_told_nothing_more() {
    let rights =
        "permissions = [\"operations:read\", \"tasks:read\", \"tasks:delete\", \"tasks:pause\"]";
    let place = Place::new().caller("other", OTHER, &format!("{rights}\nprojects = [\"*\"]"));
    let task = place.cloud.add_oms(stuck());
    let gateway = place.start();
    let (client, other) = (gateway.client(), gateway.client_with(OTHER));
    let id = client.force_delete(&task);
    assert_eq!(other.force_delete(&task), id, "it joined");
    let mut kept = of_operation(&client, &id, None);
    let mut lost = [
        of_operation(&other, &id, None),
        of_task(&other, &task, None),
    ];
    reload(
        &place,
        &gateway,
        "\"operations:read\", \"tasks:read\"",
        "\"tasks:read\"",
    );
    let mut end = |stream: usize| {
        let left: Vec<_> = lost[stream].by_ref().collect();
        assert!(!names(&left).contains(&"end"), "{left:?}");
        lost[stream].comments.pop()
    };
    let told = Some("the caller may not watch this any more".to_owned());
    assert_eq!(end(0), told);
    reload(&place, &gateway, "[callers.other]", "[callers.another]");
    assert_eq!(end(1), told);
    place.cloud.set_oms_status(&task, 3);
    assert_eq!(kept.by_ref().last().expect("an end").name, "end");
    assert_eq!(kept.comments, Vec::<String>::new());
}

#[test]
fn a_key_that_has_ended_ends_the_streams_of_its_caller() {
    let end = SystemClock.now() + Duration::from_secs(4);
    let digest = digest(OTHER);
    let place = Place::new().add(&format!(
        "\n[callers.other]\nkeys = [{{ sha256 = \"{digest}\", expires = \"{end}\" }}]\n\
         permissions = [\"*\"]\nprojects = [\"*\"]\n"
    ));
    let task = place.cloud.add_oms(stuck());
    let gateway = place.start();
    let other = gateway.client_with(OTHER);
    let id = other.force_delete(&task);
    let streams = [
        of_operation(&other, &id, None),
        of_task(&other, &task, None),
    ];
    for mut stream in streams {
        let told: Vec<_> = stream.by_ref().collect();
        assert!(
            !told.is_empty() && !names(&told).contains(&"end"),
            "{told:?}"
        );
        let why = stream.comments.last().map(String::as_str);
        assert_eq!(why, Some("the caller may not watch this any more"));
    }
    let path = format!("/operations/{id}/events");
    let refused = other.watch(&path, Some("1")).err().expect("a refusal");
    assert_eq!(refused.status, 401, "which ends an EventSource");
}

#[test]
fn any_number_of_watchers_cost_one_look_a_second() {
    const WATCHERS: usize = 60;
    for freshness in ["500ms", "0s"] {
        let place = Place::new().set("upstream.freshness", &format!("\"{freshness}\""));
        let task = place.cloud.add_oms(running(3600));
        let gateway = place.start();
        let client = gateway.client();
        let began = Instant::now();
        let told = thread::scope(|scope| {
            let watching: Vec<_> = (0..WATCHERS)
                .map(|_| scope.spawn(|| of_task(&client, &task, None).take(5).collect::<Vec<_>>()))
                .collect();
            let told = watching.into_iter().map(|one| one.join().expect("events"));
            told.collect::<Vec<_>>()
        });
        let took = began.elapsed();
        for events in &told {
            assert_eq!(names(events), ["task"; 5]);
            let ids: BTreeSet<_> = events.iter().map(|event| event.id.clone()).collect();
            assert_eq!(ids.len(), 5, "each differs from the one before");
            for event in events {
                assert_fits(&client, "Task", &event.data);
            }
        }
        // Whoever comes first looks for themselves, and shares that with those who come at the same
        // time.
        let looks = place.cloud.count(Operation::Show, Some(&task));
        let beginnings = if freshness == "0s" { WATCHERS } else { 4 };
        println!("{WATCHERS} watchers, freshness {freshness}, {looks} looks in {took:?}");
        let limit = beginnings + 2 * usize::try_from(took.as_secs()).expect("seconds") + 4;
        assert!(looks <= limit, "{looks} looks in {took:?}");
    }
}

#[test]
fn a_task_is_told_again_when_it_has_changed_and_a_reader_who_was_cut_off_goes_on() {
    let place = Place::new();
    let task = place.cloud.add_oms(OmsSpec::new("logs", 3));
    let gateway = place.start();
    let client = gateway.client();
    let mut stream = of_task(&client, &task, None);
    let first = stream.next().expect("the task");
    assert_eq!(
        (&*first.name, &first.data["state"]),
        ("task", &json!("paused"))
    );
    let mut again = of_task(&client, &task, first.id.as_deref());
    // It is looked at many times until then, and nothing changes.
    stream.heartbeat();
    place.cloud.set_oms_status(&task, 2);
    let next = stream.next().expect("a change");
    assert_eq!(next.data["state"], "running");
    let resumed = again.next().expect("a change");
    assert_eq!(resumed.data["state"], "running", "the paused one was known");

    place.cloud.set_oms_status(&task, 5);
    let last = stream.last().expect("an end");
    assert_eq!(
        (&*last.name, &last.data["ending"]),
        ("end", &json!("succeeded"))
    );
    assert_fits(&client, "TaskEnd", &last.data);
    let path = format!("/tasks/{task}/events");
    let seen = client.watch(&path, last.id.as_deref()).err();
    assert_eq!(seen.map(|answer| answer.status), Some(204));

    let mut gone = of_task(&client, &place.cloud.add_oms(OmsSpec::new("logs", 3)), None);
    let first = gone.next().expect("the task");
    assert!(
        place
            .cloud
            .remove(first.data["id"].as_str().expect("an id"))
    );
    let last = gone.next().expect("an end");
    assert_eq!(
        (&*last.name, &last.data),
        ("end", &json!({"ending": "gone", "task": null}))
    );
    assert!(gone.next().is_none());
    let path = format!(
        "/tasks/{}/events",
        first.data["id"].as_str().expect("an id")
    );
    let again = client
        .watch(&path, first.id.as_deref())
        .err()
        .expect("a refusal");
    assert_eq!(
        (again.status, again.problem().as_str()),
        (404, "task-not-found")
    );
}

#[test]
fn faults_of_the_cloud_are_told_and_the_stream_goes_on() {
    let place = Place::new();
    let task = place.cloud.add_oms(OmsSpec::new("logs", 2));
    let gateway = place.start();
    let client = gateway.client();
    let mut stream = of_task(&client, &task, None);
    assert_eq!(stream.next().expect("the task").name, "task");
    let denied = Fault::on(
        Service::Oms,
        Operation::Show,
        FaultKind::denied(Service::Oms),
    );
    let fault = place.cloud.fault(denied.task(&task).always());
    let mut problems = Vec::new();
    for event in stream.by_ref() {
        if event.name == "problem" {
            problems.push(event);
            if problems.len() == 2 {
                break;
            }
        }
    }
    fault.cancel();
    for problem in &problems {
        assert_eq!(problem.id, None);
        assert_eq!(problem.data["type"], "/problems/upstream-forbidden");
        assert!(problem.data["request_id"].is_string());
        assert_fits(&client, "Problem", &problem.data);
    }
    assert_eq!(stream.next().expect("the task").name, "task");
}
