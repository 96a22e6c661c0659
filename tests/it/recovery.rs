//! The process is killed, and the next one goes on.

use std::{
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use migration_gateway::sandbox::{Cloud, Fault, FaultKind, OmsSpec, Operation, Service, SmsSpec};
use serde_json::{Value, json};

use crate::support::{
    gateway::{Gateway, Place},
    http::Client,
    wait_for,
};

const ASYNC: (&str, &str) = ("Prefer", "respond-async");

/// The place, whose gateways know keys to buckets.
fn with_keys(place: Place) -> Place {
    let secret = place.secret("storage", "the-secret-key-of-a-bucket");
    place.add(&format!(
        "[storage_credentials.archive]\naccess_key = \"AK\"\nsecret_key = {secret}\n\
         callers = [\"*\"]\nprojects = [\"*\"]\n"
    ))
}

/// A request for an operation, and the outcome that it must have.
struct Job {
    task: String,
    method: &'static str,
    path: String,
    body: Option<Value>,
    outcome: &'static str,
}

impl Job {
    fn force_delete(task: String) -> Self {
        Self {
            method: "DELETE",
            path: format!("/tasks/{task}?force=pause"),
            body: None,
            outcome: "deleted",
            task,
        }
    }

    fn pause(task: String) -> Self {
        Self {
            method: "POST",
            path: format!("/tasks/{task}/pause"),
            body: None,
            outcome: "paused",
            task,
        }
    }

    fn start(task: String, body: Option<Value>) -> Self {
        Self {
            method: "POST",
            path: format!("/tasks/{task}/start"),
            body,
            outcome: "started",
            task,
        }
    }

    /// The id of the operation, if the gateway lived to tell it.
    fn send(&self, client: &Client) -> Option<String> {
        let headers: &[_] = if self.method == "POST" && self.body.is_none() {
            &[ASYNC, ("Content-Length", "0")]
        } else {
            &[ASYNC]
        };
        wait_for("an operation", || {
            let sent = client.send(self.method, &self.path, headers, self.body.as_ref());
            let Ok(answer) = sent else { return Some(None) };
            // A disk that many share can be too slow, and then nothing is on record.
            if answer.status == 503 {
                assert_eq!(answer.problem(), "store-unavailable");
                return None;
            }
            assert_eq!(answer.status, 202, "{answer:?}");
            Some(answer.json()["id"].as_str().map(str::to_owned))
        })
    }
}

fn named() -> Value {
    json!({"source": "archive", "destination": "archive"})
}

fn inline() -> Value {
    let keys = json!({"access_key": "AK", "secret_key": "SK"});
    json!({"source": keys, "destination": keys})
}

/// 25 jobs of every kind.
fn wave(cloud: &Cloud) -> Vec<Job> {
    let mut jobs = Vec::new();
    let oms = |status| cloud.add_oms(OmsSpec::new("logs", status));
    let sms = |state| cloud.add_sms(SmsSpec::new("web", state));
    for _ in 0..8 {
        jobs.push(Job::force_delete(oms(2)));
        jobs.push(Job::force_delete(sms("RUNNING")));
    }
    for _ in 0..3 {
        jobs.push(Job::pause(oms(2)));
        jobs.push(Job::pause(sms("RUNNING")));
    }
    jobs.push(Job::start(oms(3), Some(named())));
    jobs.push(Job::start(oms(3), Some(named())));
    jobs.push(Job::start(sms("ABORT"), None));
    jobs
}

/// The operation on a task whose request was not answered, if it came to be recorded.
fn on_record(client: &Client, task: &str) -> Option<String> {
    let answer = client.get(&format!("/operations?task={task}"));
    let operations = answer.json()["operations"].clone();
    assert!(operations.is_array(), "{answer:?}");
    operations[0]["id"].as_str().map(str::to_owned)
}

/// How many requests that change something were sent about a task.
fn changes(cloud: &Cloud, task: &str) -> usize {
    [Operation::Pause, Operation::Start, Operation::Delete]
        .map(|change| cloud.count(change, Some(task)))
        .iter()
        .sum()
}

fn has_event(operation: &Value, event: &str) -> bool {
    let events = operation["events"].as_array().expect("events");
    events.iter().any(|entry| entry["event"] == event)
}

/// When the process is killed.
#[derive(Clone, Copy)]
enum Moment {
    /// So many requests of this kind have arrived since the wave began.
    After(Operation, usize),
    /// At any moment.
    Whenever,
}

/// Starts a gateway, gives it a wave of jobs, and kills it in the middle. Gives the jobs and what
/// came of the requests.
fn kill_in_the_middle(place: &Place, moment: Moment) -> Vec<(Job, Option<String>)> {
    let jobs = wave(&place.cloud);
    let gateway = place.start();
    let client = gateway.client();
    let before = match moment {
        Moment::After(operation, _) => place.cloud.count(operation, None),
        Moment::Whenever => 0,
    };
    let jobs = Mutex::new(jobs.into_iter());
    let sent = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let job = jobs.lock().expect("jobs").next();
                    let Some(job) = job else { return };
                    let id = job.send(&client);
                    sent.lock().expect("jobs").push((job, id));
                }
            });
        }
        match moment {
            Moment::After(operation, count) => wait_for("the moment", || {
                (place.cloud.count(operation, None) >= before + count).then_some(())
            }),
            // Chance is the point here, nothing is waited for.
            Moment::Whenever => thread::sleep(Duration::from_millis(fastrand::u64(..400))),
        }
        gateway.kill();
    });
    sent.into_inner().expect("jobs")
}

/// Kills gateways of one place at these moments, and shows that all that was asked for is done in
/// the end, and nothing else. Gives how many operations were taken over.
fn survive(place: Place, moments: &[Moment]) -> usize {
    let place = with_keys(place);
    let bystanders = [
        place.cloud.add_oms(OmsSpec::new("other", 3)),
        place.cloud.add_sms(SmsSpec::new("other", "ABORT")),
    ];
    let mut all = Vec::new();
    for moment in moments {
        all.extend(kill_in_the_middle(&place, *moment));
    }
    let gateway = place.start();
    let client = gateway.client();
    let mut resumed = 0;
    for (job, id) in &all {
        let deletes = place.cloud.count(Operation::Delete, Some(&job.task));
        assert!(job.outcome == "deleted" || deletes == 0, "{}", job.path);
        let Some(id) = id.clone().or_else(|| on_record(&client, &job.task)) else {
            assert_eq!(changes(&place.cloud, &job.task), 0, "{}", job.path);
            continue;
        };
        let operation = client.ended(&id);
        assert_eq!(
            operation["outcome"], job.outcome,
            "{}: {operation}",
            job.path
        );
        resumed += usize::from(has_event(&operation, "resumed"));
        let oms = place
            .cloud
            .oms_status(&job.task)
            .map(|status| status.to_string());
        let state = oms.or_else(|| place.cloud.sms_state(&job.task));
        let good: &[Option<&str>] = match job.outcome {
            "deleted" => &[None],
            "paused" => &[Some("3"), Some("ABORT")],
            _ => &[Some("2"), Some("RUNNING")],
        };
        assert!(good.contains(&state.as_deref()), "{}: {state:?}", job.path);
    }
    for id in bystanders {
        assert_eq!(changes(&place.cloud, &id), 0);
    }
    resumed
}

#[test]
fn whatever_was_accepted_before_a_kill_is_done_after_it() {
    do_all_that_was_accepted_before_a_kill(Place::new);
}

#[test]
fn whatever_was_accepted_before_a_kill_is_done_after_it_on_a_server() {
    do_all_that_was_accepted_before_a_kill(Place::postgres);
}

fn do_all_that_was_accepted_before_a_kill(place: impl Fn() -> Place + Sync) {
    use Moment::{After, Whenever};
    use Operation::{Delete, Pause, Show, Start};
    let moments = [
        [After(Show, 1), After(Pause, 1), After(Delete, 1), Whenever],
        [After(Start, 1), After(Pause, 4), After(Delete, 3), Whenever],
        [After(Show, 26), After(Pause, 9), After(Delete, 6), Whenever],
        [
            After(Pause, 14),
            After(Delete, 9),
            After(Start, 3),
            Whenever,
        ],
        [
            After(Show, 60),
            After(Pause, 18),
            After(Delete, 13),
            Whenever,
        ],
    ];
    let resumed: usize = thread::scope(|scope| {
        let places = moments
            .each_ref()
            .map(|moments| scope.spawn(|| survive(place(), moments)));
        places
            .map(|place| place.join().expect("a place"))
            .iter()
            .sum()
    });
    assert!(resumed > 0, "no kill met a round");
}

#[test]
fn a_change_that_was_on_its_way_at_a_kill_is_settled_by_looking() {
    settle_changes_that_were_on_their_way_at_a_kill(Place::new);
}

#[test]
fn a_change_that_was_on_its_way_at_a_kill_is_settled_by_looking_on_a_server() {
    settle_changes_that_were_on_their_way_at_a_kill(Place::postgres);
}

fn settle_changes_that_were_on_their_way_at_a_kill(place: impl Fn() -> Place + Sync) {
    use Operation::{Delete, Pause, Start};
    use Service::{Oms, Sms};
    // None of the changes that hang is given up before the kill.
    let place = with_keys(place()).set("upstream.request_timeout", "\"5s\"");
    let cloud = &place.cloud;
    let gateway = place.start();
    let client = gateway.client();
    let oms = |status| cloud.add_oms(OmsSpec::new("logs", status));
    let sms = |state| cloud.add_sms(SmsSpec::new("web", state));
    let lost = Job {
        outcome: "credentials-lost",
        ..Job::start(oms(3), Some(inline()))
    };
    // The change, whether it has its effect, and how often it is sent in all.
    let trials = [
        (Oms, Pause, true, 1, Job::force_delete(oms(2))),
        (Oms, Pause, false, 2, Job::force_delete(oms(2))),
        (Sms, Pause, true, 1, Job::pause(sms("RUNNING"))),
        (Sms, Pause, false, 2, Job::pause(sms("RUNNING"))),
        (Oms, Delete, true, 1, Job::force_delete(oms(2))),
        (Oms, Delete, false, 2, Job::force_delete(oms(2))),
        (Sms, Delete, true, 1, Job::force_delete(sms("RUNNING"))),
        (Sms, Delete, false, 2, Job::force_delete(sms("RUNNING"))),
        (Oms, Start, true, 1, Job::start(oms(3), Some(named()))),
        (Oms, Start, false, 2, Job::start(oms(3), Some(named()))),
        (Oms, Start, true, 1, Job::start(oms(3), Some(inline()))),
        (Oms, Start, false, 1, lost),
    ];
    let running = trials.map(|(service, at, has_effect, count, job)| {
        let kind = if has_effect {
            FaultKind::HangAfterEffect
        } else {
            FaultKind::Hang
        };
        let fault = cloud.fault(Fault::on(service, at, kind).task(&job.task));
        let id = job.send(&client).expect("an operation");
        (fault, at, count, job, id)
    });
    for (fault, ..) in &running {
        wait_for("the fault", || (fault.fired() == 1).then_some(()));
    }
    gateway.kill();
    let gateway = place.start();
    let client = gateway.client();
    for (_, at, count, job, id) in running {
        let operation = client.ended(&id);
        assert!(has_event(&operation, "resumed"), "{operation}");
        assert_eq!(cloud.count(at, Some(&job.task)), count, "{operation}");
        if job.outcome == "credentials-lost" {
            assert_eq!(operation["error"]["type"], "/problems/credentials-lost");
            assert_eq!(operation["error"]["status"], 409);
            assert_eq!(operation["error"]["sent"], "unknown");
        } else {
            assert_eq!(operation["outcome"], job.outcome, "{operation}");
        }
    }
}

#[test]
fn two_gateways_on_one_record_share_the_work_and_do_nothing_twice() {
    share_the_work(Place::new);
}

#[test]
fn two_gateways_on_one_record_share_the_work_and_do_nothing_twice_on_a_server() {
    share_the_work(Place::postgres);
}

fn share_the_work(place: impl Fn() -> Place + Sync) {
    let place = with_keys(place());
    let gateways = [place.start(), place.start()];
    let clients = gateways.each_ref().map(Gateway::client);
    let jobs = wave(&place.cloud);
    let began = Instant::now();
    thread::scope(|scope| {
        for (number, job) in jobs.iter().enumerate() {
            let (one, other) = (&clients[number % 2], &clients[(number + 1) % 2]);
            let cloud = &place.cloud;
            scope.spawn(move || {
                let id = job.send(one).expect("an operation");
                let wait = ("Prefer", "wait=30");
                let answer = other.with("GET", &format!("/operations/{id}"), wait);
                assert_eq!(answer.json()["outcome"], job.outcome, "{answer:?}");
                let expected = if job.outcome == "deleted" { 2 } else { 1 };
                assert_eq!(changes(cloud, &job.task), expected, "{answer:?}");
                assert!(!has_event(&answer.json(), "resumed"), "{answer:?}");
            });
        }
    });
    // Whoever waits at the one hears soon of what the other does.
    assert!(began.elapsed() < Duration::from_secs(15));
}

#[test]
fn of_two_gateways_the_one_with_the_keys_of_a_start_carries_it_out() {
    leave_starts_to_whoever_has_the_keys(Place::new());
}

#[test]
fn of_two_gateways_the_one_with_the_keys_of_a_start_carries_it_out_on_a_server() {
    leave_starts_to_whoever_has_the_keys(Place::postgres());
}

fn leave_starts_to_whoever_has_the_keys(place: Place) {
    // So long that both know when the next look is due.
    let place = with_keys(place)
        .set("operations.poll_min", "\"1500ms\"")
        .set("operations.poll_max", "\"1500ms\"");
    let [one, _other] = [place.start(), place.start()];
    let client = one.client();
    let starts: Vec<_> = (0..12)
        .map(|_| {
            let task = place.cloud.add_oms(OmsSpec::new("logs", 3));
            let busy = FaultKind::error(503, "OMS.0014", "busy");
            let fault = Fault::on(Service::Oms, Operation::Start, busy);
            place.cloud.fault(fault.task(&task).times(2));
            let job = Job::start(task, Some(inline()));
            job.send(&client).expect("an operation")
        })
        .collect();
    for id in starts {
        let operation = client.ended(&id);
        assert_eq!(operation["outcome"], "started", "{operation}");
    }
}

#[test]
fn a_start_whose_keys_are_lost_does_not_wait_for_its_moment() {
    let place = with_keys(Place::new());
    let gateway = place.start();
    let client = gateway.client();
    // A state in which it would wait for another.
    let task = place.cloud.add_oms(OmsSpec::new("logs", 99));
    let id = Job::start(task, Some(inline())).send(&client);
    gateway.kill();
    let gateway = place.start();
    let operation = gateway.client().ended(&id.expect("an operation"));
    let error = &operation["error"];
    assert_eq!(error["type"], "/problems/credentials-lost", "{operation}");
    assert_eq!(error["sent"], "no", "{operation}");
}
