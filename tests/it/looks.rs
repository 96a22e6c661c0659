//! Looks at a task that callers share: what they cost the cloud, and that nobody is shown what is
//! out of date by what the gateway itself did or said.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use migration_gateway::sandbox::{Fault, FaultKind, OmsSpec, Operation, Service, SmsSpec};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use crate::support::{
    gateway::{Gateway, KEY, Place},
    http::Client,
    wait_for,
};

/// A place where an answer serves again for as long as a test takes.
fn lasting() -> Place {
    Place::new().set("upstream.freshness", "\"1m\"")
}

fn show(client: &Client, id: &str) -> Value {
    let answer = client.get(&format!("/tasks/{id}"));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn state(client: &Client, id: &str) -> String {
    let task = show(client, id);
    task["state"].as_str().expect("a state").to_owned()
}

fn shows(place: &Place, id: &str) -> usize {
    place.cloud.count(Operation::Show, Some(id))
}

/// Lets the next look at a task be answered so late, with what was true at its beginning.
fn slow_look(place: &Place, id: &str, seconds: u64) {
    let kind = FaultKind::Delay(Duration::from_secs(seconds));
    let fault = Fault::on(Service::Oms, Operation::Show, kind).task(id);
    place.cloud.fault(fault);
}

fn head(gateway: &Gateway, id: &str) -> Vec<u8> {
    let host = gateway.authority();
    format!("GET /tasks/{id} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {KEY}\r\n\r\n")
        .into_bytes()
}

#[test]
fn a_thousand_pollers_of_a_task_cost_no_more_than_one_does() {
    const POLLERS: usize = 1000;
    const TIME: Duration = Duration::from_secs(10);
    let place = Place::new();
    let gateway = place.start();
    let id = place.cloud.add_oms(OmsSpec::new("logs", 2));
    let (request, authority) = (head(&gateway, &id), gateway.authority().to_owned());
    let answers = Arc::new(AtomicUsize::new(0));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let took = runtime.block_on(async {
        let begun = Instant::now();
        let mut pollers = JoinSet::new();
        for _ in 0..POLLERS {
            let (request, authority) = (request.clone(), authority.clone());
            let answers = Arc::clone(&answers);
            pollers.spawn(async move {
                let stream = TcpStream::connect(authority).await;
                let mut stream = stream.expect("a connection");
                while begun.elapsed() < TIME {
                    stream.write_all(&request).await.expect("to ask");
                    let body = read_answer(&mut stream).await;
                    let task: Value = serde_json::from_slice(&body).expect("a task");
                    assert_eq!(task["state"], "running");
                    answers.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        pollers.join_all().await;
        begun.elapsed()
    });
    let (answers, calls) = (answers.load(Ordering::Relaxed), shows(&place, &id));
    println!("{POLLERS} pollers, {answers} answers in {took:?}, {calls} looks");
    assert!(answers >= POLLERS, "{answers} answers");
    // One look in each half of a second, and one more at the beginning and for what the machine is
    // late with.
    let limit = 25.max(took.as_millis() / 500 + 5);
    assert!(calls as u128 <= limit, "{calls} looks in {took:?}");
}

/// The body of an answer of status 200 with a length.
async fn read_answer(stream: &mut TcpStream) -> Vec<u8> {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut buffer).await.expect("an answer");
        assert_ne!(read, 0, "the connection ended");
        bytes.extend_from_slice(&buffer[..read]);
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 200"), "{head}");
        let length = head.split("content-length: ").nth(1).expect("a length");
        let length: usize = length.lines().next().expect("a line").parse().expect("one");
        if bytes.len() >= end + 4 + length {
            return bytes.split_off(end + 4);
        }
    }
}

#[test]
fn callers_at_the_same_moment_share_a_look_although_the_first_of_them_leaves() {
    let place = Place::new().set("upstream.freshness", "\"0s\"");
    let gateway = place.start();
    let id = place.cloud.add_oms(OmsSpec::new("logs", 2));
    slow_look(&place, &id, 1);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let request = head(&gateway, &id);
    let first = runtime.block_on(async {
        let mut first = TcpStream::connect(gateway.authority())
            .await
            .expect("a connection");
        first.write_all(&request).await.expect("to ask");
        first
    });
    wait_for("the look", || (shows(&place, &id) == 1).then_some(()));
    let seen: BTreeSet<String> = thread::scope(|scope| {
        let others: Vec<_> = (0..40)
            .map(|_| scope.spawn(|| show(&gateway.client(), &id)["observed_at"].to_string()))
            .collect();
        // A reset, which ends the request that it is about.
        first.set_zero_linger().expect("a setting");
        drop(first);
        let shown = others
            .into_iter()
            .map(|other| other.join().expect("an answer"));
        shown.collect()
    });
    // Those who came after the answer have one of their own.
    assert!(seen.len() <= shows(&place, &id), "{seen:?}");
    assert!(shows(&place, &id) <= 5, "{} looks", shows(&place, &id));
}

#[test]
fn an_answer_serves_again_while_it_is_fresh_and_says_how_old_it_is() {
    let place = lasting();
    let gateway = place.start();
    let client = gateway.client();
    let id = place.cloud.add_oms(OmsSpec::new("logs", 2));
    let first = show(&client, &id);
    place.cloud.set_oms_status(&id, 3);
    let full = show(&client, &format!("{id}?view=full"));
    assert_eq!(full["observed_at"], first["observed_at"]);
    assert_eq!(full["state"], "running");
    assert_eq!(full["details"]["status"], 2);
    assert_eq!(shows(&place, &id), 1);
    let metrics = client.get("/metrics").text;
    for line in [
        r#"upstream_looks_total{service="oms",by="call"} 1"#,
        r#"upstream_looks_total{service="oms",by="shared-answer"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    // Another task is another matter, and the same id in another service too.
    let other = place.cloud.add_oms(OmsSpec::new("more", 3));
    assert_eq!(state(&client, &other), "paused");
    let in_sms = client.get(&format!("/tasks/{id}?service=sms"));
    assert_eq!(in_sms.status, 404, "{in_sms:?}");
}

#[test]
fn the_age_of_an_answer_counts_from_when_the_look_began() {
    for freshness in ["0s", "900ms"] {
        let place = Place::new().set("upstream.freshness", &format!("\"{freshness}\""));
        let gateway = place.start();
        let client = gateway.client();
        let id = place.cloud.add_oms(OmsSpec::new("logs", 2));
        slow_look(&place, &id, 1);
        assert_eq!(state(&client, &id), "running");
        place.cloud.set_oms_status(&id, 3);
        assert_eq!(state(&client, &id), "paused", "{freshness}");
        assert_eq!(shows(&place, &id), 2);
    }
}

#[test]
fn that_there_is_no_such_task_serves_again_and_a_failure_does_not() {
    let place = lasting();
    let gateway = place.start();
    let client = gateway.client();
    for _ in 0..3 {
        let missing = client.get("/tasks/4711");
        assert_eq!(missing.problem(), "task-not-found");
    }
    assert_eq!(shows(&place, "4711"), 1);
    let id = place.cloud.add_oms(OmsSpec::new("logs", 2));
    let kind = FaultKind::error(500, "OMS.1001", "Something broke.");
    let fault = place.cloud.fault(
        Fault::on(Service::Oms, Operation::Show, kind)
            .task(&id)
            .always(),
    );
    assert_eq!(
        client.get(&format!("/tasks/{id}")).problem(),
        "upstream-unavailable"
    );
    assert!(fault.fired() > 0);
    fault.cancel();
    assert_eq!(state(&client, &id), "running");
}

#[test]
fn what_the_gateway_did_to_a_task_is_seen_at_once() {
    let place = lasting();
    let gateway = place.start();
    let client = gateway.client();
    let cloud = &place.cloud;
    let oms = cloud.add_oms(OmsSpec::new("logs", 2));
    let sms = cloud.add_sms(SmsSpec::new("web", "RUNNING"));
    for id in [&oms, &sms] {
        assert_eq!(state(&client, id), "running");
        let paused = client.post(&format!("/tasks/{id}/pause"));
        assert_eq!(paused.status, 200, "{paused:?}");
        assert_eq!(state(&client, id), "paused");
    }
    let started = client.post(&format!("/tasks/{sms}/start"));
    assert_eq!(started.status, 200, "{started:?}");
    assert_eq!(state(&client, &sms), "running");
    for id in [&oms, &sms] {
        show(&client, id);
        let deleted = client.delete(&format!("/tasks/{id}?force=pause"));
        assert_eq!(deleted.status, 200, "{deleted:?}");
        let missing = client.get(&format!("/tasks/{id}"));
        assert_eq!(missing.problem(), "task-not-found");
    }
}

#[test]
fn a_look_that_began_before_a_change_serves_nobody_who_comes_after_it() {
    let place = lasting().set("upstream.request_timeout", "\"20s\"");
    let gateway = place.start();
    let id = place.cloud.add_oms(OmsSpec::new("logs", 2));
    slow_look(&place, &id, 3);
    thread::scope(|scope| {
        let early = scope.spawn(|| state(&gateway.client(), &id));
        wait_for("the early look", || (shows(&place, &id) == 1).then_some(()));
        let client = gateway.client();
        let paused = client.post(&format!("/tasks/{id}/pause"));
        assert_eq!(paused.status, 200, "{paused:?}");
        assert!(!early.is_finished(), "it took too long");
        // While the early look is under way, and after it has come back.
        assert_eq!(state(&client, &id), "paused");
        assert_eq!(early.join().expect("an answer"), "running");
        assert_eq!(state(&client, &id), "paused");
    });
}

#[test]
fn an_old_answer_is_no_ground_to_accept_or_to_refuse() {
    let place = lasting();
    let gateway = place.start();
    let client = gateway.client();
    let cloud = &place.cloud;
    // It was at rest when callers looked, and runs.
    let id = cloud.add_oms(OmsSpec::new("logs", 3));
    assert_eq!(state(&client, &id), "paused");
    cloud.set_oms_status(&id, 2);
    let refused = client.delete(&format!("/tasks/{id}"));
    assert_eq!(refused.problem(), "task-in-progress");
    // What the refusal said is what is seen from then on.
    assert_eq!(state(&client, &id), "running");
    // It ran, and is at rest.
    cloud.set_oms_status(&id, 3);
    assert_eq!(state(&client, &id), "running");
    let deleted = client.delete(&format!("/tasks/{id}"));
    assert_eq!(deleted.status, 200, "{deleted:?}");
    // It was there, and another person removed it.
    let id = cloud.add_oms(OmsSpec::new("logs", 2));
    assert_eq!(state(&client, &id), "running");
    assert!(cloud.remove(&id));
    let refused = client.post(&format!("/tasks/{id}/pause"));
    assert_eq!(refused.problem(), "task-not-found");
}

#[test]
fn however_many_tasks_are_known_looks_are_shared_and_the_oldest_answers_give_way() {
    let place = lasting();
    let gateway = place.start();
    let tasks: Vec<String> = (0..1_001)
        .map(|_| place.cloud.add_oms(OmsSpec::new("logs", 2)))
        .collect();
    let [oldest, others @ .., last] = &tasks[..] else {
        panic!("too few");
    };
    show(&gateway.client(), oldest);
    thread::scope(|scope| {
        for some in others.chunks(250) {
            let client = gateway.client();
            scope.spawn(move || some.iter().for_each(|id| _ = show(&client, id)));
        }
    });
    slow_look(&place, last, 1);
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| show(&gateway.client(), last));
        }
    });
    assert_eq!(shows(&place, last), 1);
    let client = gateway.client();
    for id in [last, &others[0], &others[998]] {
        show(&client, id);
        assert_eq!(shows(&place, id), 1, "it is fresh");
    }
    assert_eq!(shows(&place, oldest), 1);
    show(&client, oldest);
    assert_eq!(shows(&place, oldest), 2, "it gave way");
}
