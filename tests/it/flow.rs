//! Requests to the cloud under stress: random faults, a slow pace, throttling, an outage.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use migration_gateway::sandbox::{
    Answer, Cloud, CloudOptions, Fault, FaultHandle, FaultKind, OmsSpec, Operation,
    RecordedRequest, Service, SmsSpec,
};
use serde_json::{Value, json};

use crate::support::{
    gateway::{Gateway, Place},
    http::Client,
    wait_for,
};

/// The value of a metric with these labels, as it is written; 0 if it is not shown.
fn metric(gateway: &Gateway, name: &str, labels: &str) -> String {
    let text = gateway.stranger().get("/metrics").text;
    let line = format!("migration_gateway_{name}{{{labels}}} ");
    let value = text.lines().find_map(|found| found.strip_prefix(&line));
    value.unwrap_or("0").to_owned()
}

/// The value of a gauge of OMS.
fn gauge(gateway: &Gateway, name: &str) -> f64 {
    let value = metric(gateway, name, "service=\"oms\"");
    value.parse().expect("a number")
}

/// How many lines of the log have this message.
fn logged(gateway: &Gateway, message: &str) -> usize {
    let message = format!("\"message\":\"{message}");
    let log = gateway.log();
    log.lines().filter(|line| line.contains(&message)).count()
}

/// Requests to OMS and SMS.
fn to_services(cloud: &Cloud) -> Vec<RecordedRequest> {
    let mut requests = cloud.requests();
    requests.retain(|request| request.service != Service::Iam);
    requests
}

/// The most requests within any second.
fn busiest_second(requests: &[RecordedRequest]) -> usize {
    let at: Vec<i64> = requests
        .iter()
        .map(|request| request.at.as_millisecond())
        .collect();
    let within = |from: &i64| {
        at.iter()
            .filter(|at| (*from..from + 1_000).contains(at))
            .count()
    };
    at.iter().map(within).max().unwrap_or(0)
}

/// Everything that can happen to an answer and is not a lie about the task.
fn random_faults(service: Service) -> Vec<FaultKind> {
    let error = |status, code| FaultKind::error(status, code, "It did not work.");
    let raw = |text: &str| FaultKind::Raw(text.as_bytes().to_vec());
    let transient = match service {
        Service::Sms => error(503, "SMS.2007"),
        Service::Oms | Service::Iam => error(400, "OMS.1001"),
    };
    vec![
        FaultKind::Answer(Answer::json(500, &json!({}))),
        FaultKind::AnswerAfterEffect(Answer::error(502, "APIGW.0201", "No.")),
        transient,
        FaultKind::throttled(),
        FaultKind::token_refused(),
        FaultKind::HtmlPage { status: 200 },
        FaultKind::HtmlPage { status: 503 },
        FaultKind::Hang,
        FaultKind::HangAfterEffect,
        FaultKind::DropBeforeEffect,
        FaultKind::DropAfterEffect,
        FaultKind::CutBody,
        FaultKind::GarbledBody,
        FaultKind::Delay(Duration::from_millis(100)),
        raw("\u{16}\u{3}\u{1}nonsense\r\n\r\n"),
        FaultKind::Prefix(b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n".to_vec()),
    ]
}

/// Lets this share of the requests to a service meet one of its faults, all of them with the same
/// chance.
fn arm(cloud: &Cloud, service: Service, share: f64) -> Vec<FaultHandle> {
    let kinds = random_faults(service);
    let kinds_left = (1..=kinds.len()).rev();
    let each = share / f64::from(u32::try_from(kinds.len()).expect("few"));
    // The first that chance picks is the one, so that the later ones need a larger share of what is
    // left.
    let faults = kinds.into_iter().zip(kinds_left).map(|(kind, left)| {
        let passed = share - each * f64::from(u32::try_from(left).expect("few"));
        let fault = Fault::on_any(service, kind).always();
        cloud.fault(fault.share(each / (1.0 - passed)))
    });
    faults.collect()
}

#[test]
fn with_a_third_of_the_answers_lost_or_spoilt_every_force_delete_ends_right() {
    let place = Place::new().set("upstream.request_timeout", "\"500ms\"");
    let gateway = place.start();
    let cloud = &place.cloud;
    let tasks: Vec<String> = (0..300)
        .map(|number| match number % 2 {
            0 => cloud.add_oms(OmsSpec::new("logs", 2)),
            _ => cloud.add_sms(SmsSpec::new("web", "RUNNING")),
        })
        .collect();
    assert_eq!(gateway.client().get("/tasks").status, 200);
    let mut faults = arm(cloud, Service::Oms, 0.3);
    faults.extend(arm(cloud, Service::Sms, 0.3));
    thread::scope(|scope| {
        for tasks in tasks.chunks(30) {
            let client = gateway.client();
            scope.spawn(move || {
                let operations: Vec<String> =
                    tasks.iter().map(|id| client.force_delete(id)).collect();
                for operation in operations {
                    // Refused tokens cost waits of up to half a minute.
                    let ended = client.ended_within(Duration::from_mins(2), &operation);
                    assert_eq!(ended["status"], "succeeded", "{ended}");
                    assert_eq!(ended["outcome"], "deleted", "{ended}");
                }
            });
        }
    });
    assert_eq!(cloud.tasks(), []);
    for fault in &faults {
        assert!(fault.fired() > 0, "{fault:?}");
    }
    let fired: u32 = faults.iter().map(FaultHandle::fired).sum();
    let asked = u32::try_from(to_services(cloud).len()).expect("not so many");
    let share = f64::from(fired) / f64::from(asked);
    assert!((0.25..0.35).contains(&share), "{fired} of {asked}");
    for service in ["oms", "sms"] {
        let labels = format!("service=\"{service}\",result=\"succeeded\"");
        assert_ne!(metric(&gateway, "upstream_retries_total", &labels), "0");
    }
}

#[test]
fn reads_go_on_with_few_logins_while_a_service_refuses_one_in_ten_good_tokens() {
    let place = Place::new().set("upstream.freshness", "\"0s\"");
    let gateway = place.start();
    let cloud = &place.cloud;
    assert_eq!(gateway.client().get("/tasks?service=oms").status, 200);
    let fault = Fault::on_any(Service::Oms, FaultKind::token_refused()).always();
    let fault = cloud.fault(fault.share(0.1));
    let began = Instant::now();
    let good = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..20 {
            let (client, good) = (gateway.client(), &good);
            let id = cloud.add_oms(OmsSpec::new("logs", 2));
            scope.spawn(move || {
                for _ in 0..20 {
                    let status = client.get(&format!("/tasks/{id}")).status;
                    if status == 200 {
                        good.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert!(fault.fired() > 0, "{fault:?}");
    // Three refusals in a row happen to one request in a thousand.
    let good = good.into_inner();
    assert!(good > 350, "{good} of 400");
    let logins = u64::try_from(cloud.tokens_issued()).expect("few");
    let most = 21 + began.elapsed().as_secs();
    assert!(logins <= most, "{logins} logins, {most} at most");
}

/// A place where this many operations wait for tasks that do not come to rest, at a pace of 20
/// requests a second and a burst of 10, and the gateway there, just started.
fn slow_place(waiting: usize) -> (Place, Gateway, Vec<String>) {
    let place = Place::with(CloudOptions {
        pause_delay: Duration::from_hours(1),
        ..CloudOptions::default()
    });
    let place = place.set("operations.poll_max", "\"5s\"");
    let gateway = place.start();
    let client = gateway.client();
    let operations = (0..waiting)
        .map(|_| client.force_delete(&place.cloud.add_oms(OmsSpec::new("logs", 2))))
        .collect();
    wait_for("the pauses", || {
        (place.cloud.count(Operation::Pause, None) == waiting).then_some(())
    });
    gateway.kill();
    let place = place
        .set("operations.poll_max", "\"200ms\"")
        .set("upstream.requests_per_second", "20")
        .set("upstream.burst", "10");
    place.cloud.clear_requests();
    let gateway = place.start();
    (place, gateway, operations)
}

#[test]
fn two_hundred_operations_that_wait_keep_to_the_pace_and_let_callers_read() {
    let (place, gateway, _) = slow_place(200);
    let tasks: Vec<String> = (0..80)
        .map(|_| place.cloud.add_oms(OmsSpec::new("read", 3)))
        .collect();
    thread::scope(|scope| {
        for tasks in tasks.chunks(10) {
            let client = gateway.client();
            scope.spawn(move || {
                for id in tasks {
                    let answer = client.get(&format!("/tasks/{id}"));
                    assert_eq!(answer.status, 200, "{answer:?}");
                }
            });
        }
    });
    let requests = to_services(&place.cloud);
    let (reads, rounds): (Vec<_>, Vec<_>) = requests
        .iter()
        .partition(|request| request.task.as_ref().is_some_and(|id| tasks.contains(id)));
    assert_eq!(reads.len(), 80);
    // They take turns, as far as rounds have something to ask: the list tells most of them what
    // they want to know.
    let count = rounds.len();
    assert!((5..=160).contains(&count), "{count} requests of rounds");
    let busiest = busiest_second(&requests);
    assert!(
        (15..=30).contains(&busiest),
        "{busiest} requests in a second"
    );
}

#[test]
fn reads_that_waited_for_a_login_keep_to_the_pace_after_it() {
    let place = Place::new()
        .set("upstream.requests_per_second", "20")
        .set("upstream.burst", "1")
        .set("upstream.request_timeout", "\"20s\"");
    let gateway = place.start();
    let cloud = &place.cloud;
    let tasks: Vec<String> = (0..100)
        .map(|_| cloud.add_oms(OmsSpec::new("read", 3)))
        .collect();
    assert_eq!(gateway.client().get("/tasks?page_size=1").status, 200);
    let slow = FaultKind::Delay(Duration::from_secs(3));
    cloud.fault(Fault::on_any(Service::Iam, slow));
    thread::scope(|scope| {
        for id in &tasks {
            let client = gateway.client();
            scope.spawn(move || {
                let answer = client.get(&format!("/tasks/{id}"));
                assert_eq!(answer.status, 200, "{answer:?}");
            });
        }
        wait_for("callers that wait", || {
            (gauge(&gateway, "upstream_pacer_waiting") >= 60.0).then_some(())
        });
        cloud.revoke_tokens();
    });
    assert_eq!(cloud.tokens_issued(), 2);
    let busiest = busiest_second(&to_services(cloud));
    assert!(
        (15..=23).contains(&busiest),
        "{busiest} requests in a second"
    );
}

/// Says at its end that it is over, also when a test fails.
struct Until<'a>(&'a AtomicBool);

impl Drop for Until<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn an_operation_goes_on_while_callers_read_more_than_the_pace_lets_through() {
    let place = Place::new()
        .set("upstream.requests_per_second", "20")
        .set("upstream.burst", "10");
    let gateway = place.start();
    let tasks: Vec<String> = (0..40)
        .map(|_| place.cloud.add_oms(OmsSpec::new("read", 3)))
        .collect();
    let (is_over, read) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let until = Until(&is_over);
        for id in &tasks {
            let client = gateway.client();
            let (is_over, read) = (&is_over, &read);
            scope.spawn(move || {
                while !is_over.load(Ordering::SeqCst) {
                    let answer = client.get(&format!("/tasks/{id}"));
                    assert_eq!(answer.status, 200, "{answer:?}");
                    read.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        wait_for("callers that wait", || {
            (gauge(&gateway, "upstream_pacer_waiting") >= 30.0).then_some(())
        });
        let before = read.load(Ordering::SeqCst);
        let id = place.cloud.add_oms(OmsSpec::new("logs", 2));
        let answer = gateway.client().delete(&format!("/tasks/{id}?force=pause"));
        drop(until);
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(
            read.load(Ordering::SeqCst) > before,
            "nobody read meanwhile"
        );
    });
    let busiest = busiest_second(&to_services(&place.cloud));
    assert!(
        (15..=30).contains(&busiest),
        "{busiest} requests in a second"
    );
}

#[test]
fn a_list_of_many_pages_waits_for_the_pace_no_longer_than_one_read_may() {
    let place = Place::new()
        .set("upstream.requests_per_second", "2")
        .set("upstream.burst", "1")
        .set("upstream.freshness", "\"0s\"");
    let gateway = place.start();
    let cloud = &place.cloud;
    let tasks: Vec<String> = (0..1_000)
        .map(|_| cloud.add_oms(OmsSpec::new("read", 3)))
        .collect();
    let list = "/tasks?service=oms&name=nothing-of-this-name";
    let is_over = AtomicBool::new(false);
    let page = thread::scope(|scope| {
        let _until = Until(&is_over);
        for id in &tasks[..5] {
            let client = gateway.client();
            let is_over = &is_over;
            scope.spawn(move || {
                while !is_over.load(Ordering::SeqCst) {
                    client.get(&format!("/tasks/{id}"));
                }
            });
        }
        wait_for("callers that wait", || {
            (gauge(&gateway, "upstream_pacer_waiting") >= 4.0).then_some(())
        });
        gateway.client().get(list)
    });
    assert_eq!(page.status, 200, "{page:?}");
    let read = cloud.count(Operation::List, None);
    assert!((2..=6).contains(&read), "{read} of ten pages");
    // The next one goes on from there.
    let mut page = page.json();
    while let Some(token) = page["next_page_token"].as_str() {
        let next = gateway.client().get(&format!("{list}&page_token={token}"));
        assert_eq!(next.status, 200, "{next:?}");
        page = next.json();
    }
    assert_eq!(cloud.count(Operation::List, None), 10);
}

/// Asks until the answer is that the service is left alone, for more than two seconds still.
fn until_left_alone(client: &Client) -> crate::support::http::Answer {
    wait_for("an open circuit breaker", || {
        let answer = client.get("/tasks/1");
        let wait = answer.header("retry-after").map(str::parse::<u64>);
        let is_long = wait.is_some_and(|wait| wait.expect("seconds") >= 3);
        (answer.problem() == "circuit-open" && is_long).then_some(answer)
    })
}

fn events<'a>(operation: &'a Value, kind: &str) -> Vec<&'a Value> {
    let events = operation["events"].as_array().expect("events");
    events
        .iter()
        .filter(|event| event["event"] == kind)
        .collect()
}

#[test]
fn a_service_that_keeps_failing_is_left_alone_and_operations_keep_their_place() {
    let place = Place::with(CloudOptions {
        pause_delay: Duration::from_millis(500),
        ..CloudOptions::default()
    });
    let gateway = place.start();
    let (cloud, client) = (&place.cloud, gateway.client());
    let ask = || client.force_delete(&cloud.add_oms(OmsSpec::new("logs", 2)));
    let mut operations: Vec<String> = (0..20).map(|_| ask()).collect();
    let down = FaultKind::Answer(Answer::empty(503));
    let down = cloud.fault(Fault::on_any(Service::Oms, down).always());

    until_left_alone(&client);
    let asked = to_services(cloud).len();
    let answer = client.get("/tasks/2");
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (503, "circuit-open")
    );
    assert_eq!(answer.json()["sent"], "no");
    assert!(answer.header("retry-after").is_some());
    // What changes something is taken on all the same.
    operations.push(ask());
    assert_eq!(to_services(cloud).len(), asked, "nothing was sent");
    assert!(gauge(&gateway, "upstream_breaker_state") > 0.0);
    let web = cloud.add_sms(SmsSpec::new("web", "RUNNING"));
    let other = client.get(&format!("/tasks/{web}"));
    assert_eq!(
        other.status, 200,
        "another service is not concerned: {other:?}"
    );

    down.cancel();
    for operation in &operations {
        let ended = client.ended(operation);
        assert_eq!(ended["outcome"], "deleted", "{ended}");
        assert!(events(&ended, "fault").len() <= 1, "{ended}");
    }
    let last = client.ended(operations.last().expect("some"));
    assert!(events(&last, "fault").is_empty(), "{last}");
    assert!(gauge(&gateway, "upstream_breaker_state") < 1.0);
    let opened = logged(&gateway, "the circuit breaker opened");
    let turns = metric(
        &gateway,
        "upstream_breaker_transitions_total",
        "service=\"oms\",to=\"open\"",
    );
    assert!(opened >= 2, "{opened} lines");
    assert_eq!(turns, opened.to_string());
    assert_eq!(
        logged(&gateway, "the circuit breaker lets one request"),
        opened
    );
    assert_eq!(logged(&gateway, "the circuit breaker closed"), 1);
}

#[test]
fn an_operation_whose_deadline_passes_while_its_service_is_left_alone_ends() {
    let place = Place::new().set("operations.deadline", "\"3s\"");
    let gateway = place.start();
    let (cloud, client) = (&place.cloud, gateway.client());
    let down = FaultKind::Answer(Answer::empty(503));
    cloud.fault(Fault::on_any(Service::Oms, down).always());
    let operation = client.force_delete(&cloud.add_oms(OmsSpec::new("logs", 2)));
    let ended = client.ended(&operation);
    assert_eq!(
        ended["error"]["type"], "/problems/deadline-exceeded",
        "{ended}"
    );
}

#[test]
fn a_storm_of_throttling_slows_the_pace_down_and_it_recovers() {
    let place = Place::new()
        .set("upstream.requests_per_second", "6")
        .set("upstream.burst", "6");
    let gateway = place.start();
    let (cloud, client) = (&place.cloud, gateway.client());
    let operation = client.force_delete(&cloud.add_oms(OmsSpec::new("logs", 2)));
    let storm = Fault::on_any(Service::Oms, FaultKind::throttled());
    let storm = cloud.fault(storm.always());
    let rate = || gauge(&gateway, "upstream_pacer_requests_per_second");
    let id = cloud.add_oms(OmsSpec::new("read", 3));
    let read = || client.get(&format!("/tasks/{id}"));
    wait_for("a slow pace", || {
        let answer = read();
        assert_eq!(answer.problem(), "upstream-throttled", "{answer:?}");
        assert!(answer.header("retry-after").is_some());
        (rate() < 2.0).then_some(())
    });
    wait_for("all throttling answers to be counted", || {
        let counted = metric(&gateway, "upstream_throttles_total", "service=\"oms\"");
        (counted == storm.fired().to_string()).then_some(())
    });
    assert_eq!(logged(&gateway, "the pace was slowed down"), 1);
    storm.cancel();
    assert_eq!(read().status, 200);
    assert_eq!(client.ended(&operation)["outcome"], "deleted");
    wait_for("the pace to recover", || (rate() >= 6.0).then_some(()));
    assert_eq!(logged(&gateway, "the pace has recovered"), 1);
}
