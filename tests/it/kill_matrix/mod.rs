//! The process is killed at every named place between the acceptance of a request and the end of
//! its operation, the first and the second time that it comes there, and the next process on the
//! same folder brings everything to its end and tells the audit log of it.
//!
//! A place that is not reached is a failure: the process must have ended by SIGKILL, and have named
//! the place.

mod told;
mod trouble;
mod wave;

use std::{
    collections::BTreeMap,
    env,
    fmt::Write as _,
    os::unix::process::ExitStatusExt as _,
    panic,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use migration_gateway::{
    operations::KILL_POINTS,
    sandbox::{Cloud, Fault, FaultKind, OmsSpec, Operation, Service},
};
use serde_json::Value;

use self::{
    trouble::{Trouble, is_of_the_housekeeping, make_history},
    wave::{Job, Plan, Wave},
};
use crate::support::{
    PATIENCE,
    audit_log::audited,
    gateway::{Gateway, Place},
    http::{Answer, Client},
};

const SIGKILL: i32 = 9;
const CHANGES: [Operation; 3] = [Operation::Pause, Operation::Start, Operation::Delete];
/// Places at the same time: most of the time each of them waits for the end of a dead process's
/// lease.
const SIDE_BY_SIDE: usize = 16;
/// What is done once in a minute, and to keys that have waited for a minute, is done within this.
const HOUSEKEEPING_MAX: Duration = Duration::from_secs(90);
/// Requests at the same time at one gateway.
const CALLERS: usize = 8;

/// Pauses, starts and deletes of a task that were not refused.
fn all_changes(cloud: &Cloud, task: &str) -> [usize; 3] {
    CHANGES.map(|change| {
        accepted(cloud, change, task)
            .iter()
            .filter(|was| **was)
            .count()
    })
}

/// How many requests for a change came after the first that was not refused: each has its effect
/// here.
fn sent_after_acceptance(cloud: &Cloud, change: Operation, task: &str) -> usize {
    let sent = accepted(cloud, change, task);
    sent.iter().skip_while(|was| !**was).skip(1).count()
}

/// Of each request for a change, in their order, whether it was not refused.
fn accepted(cloud: &Cloud, change: Operation, task: &str) -> Vec<bool> {
    let requests = cloud
        .requests()
        .into_iter()
        .filter(|request| request.operation == change && request.task.as_deref() == Some(task));
    requests
        .map(|request| request.status.is_none_or(|status| status < 400))
        .collect()
}

/// The state of a task at the cloud; `None`: it is gone.
fn state(cloud: &Cloud, task: &str) -> Option<String> {
    let oms = cloud.oms_status(task).map(|status| status.to_string());
    oms.or_else(|| cloud.sms_state(task))
}

/// The operations on a task, newest first.
fn on_record(client: &Client, task: &str) -> Vec<Value> {
    let answer = client.get(&format!("/operations?task={task}"));
    let operations = answer.json()["operations"].as_array().cloned();
    operations.unwrap_or_else(|| panic!("{answer:?}"))
}

/// What came of a kill.
#[derive(Default)]
struct Row {
    /// Operations on record that were still to be driven.
    running: usize,
    /// Requests that were not answered, and on record all the same.
    recorded: usize,
    /// Requests that were not answered, and left nothing behind.
    lost: usize,
    resumed: usize,
    /// Ends that stand in the audit log twice.
    told_twice: usize,
    ends: BTreeMap<String, usize>,
}

/// A kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Trial {
    /// The number of the place, and its name.
    place: (usize, &'static str),
    trouble: Option<Trouble>,
    /// At which time that the process comes there.
    count: usize,
    /// Whether the record is on a server.
    on_server: bool,
}

impl Trial {
    /// Every kill with the record in a file or, if the variable `KILL_MATRIX_ON_SERVER` is set, on
    /// a server; those first that take longest.
    fn all() -> Vec<Self> {
        let on_server = env::var_os("KILL_MATRIX_ON_SERVER").is_some();
        let mut all = Vec::new();
        for place in KILL_POINTS.into_iter().enumerate() {
            let troubles = Trouble::leading_to(place.1).into_iter().map(Some);
            let none = troubles.len() == 0;
            for trouble in troubles.chain(none.then_some(None)) {
                all.extend([1, 2].map(|count| Self {
                    place,
                    trouble,
                    count,
                    on_server,
                }));
            }
        }
        all.sort_by_key(|trial| !is_of_the_housekeeping(trial.place.1));
        all
    }

    fn empty_place(self) -> Place {
        if self.on_server {
            Place::postgres()
        } else {
            Place::new()
        }
    }
}

/// Where a gateway is killed once the file `armed` is there.
fn prepare(trial: Trial) -> Place {
    let (name, count) = (trial.place.1, trial.count);
    let place = audited(trial.empty_place());
    let secret = place.secret("storage", "the-secret-key-of-a-bucket");
    let armed = place.file("armed");
    let place = place
        .add(&format!(
            "[storage_credentials.archive]\naccess_key = \"AK\"\nsecret_key = {secret}\n\
             callers = [\"*\"]\nprojects = [\"*\"]\n"
        ))
        .set("upstream.request_timeout", "\"10s\"")
        .env("MIGRATION_GATEWAY_KILL_POINT", &format!("{name}:{count}"))
        .env(
            "MIGRATION_GATEWAY_KILL_ARMED_BY",
            armed.to_str().expect("text"),
        );
    if is_of_the_housekeeping(name) {
        make_history(&place);
    }
    place
}

/// Kills a gateway at a place, starts the next one, and shows that everything comes to its right
/// end.
fn survive(trial: Trial) -> Row {
    let name = trial.place.1;
    let place = prepare(trial);
    let mut gateway = place.start();
    let client = gateway.client();
    let mut wave = Wave::begin(&place.cloud, &client);
    if name.starts_with("engine.keys") {
        wave.add_slow_start(&place.cloud);
    }
    if name.starts_with("board.page") {
        wave.add_crowd(&place.cloud, &client);
    }
    if name.starts_with("engine.renew") {
        // Only a long round needs its lease to be renewed: the look after the one before accepting
        // gets no answer.
        let task = place.cloud.add_oms(OmsSpec::new("held", 3));
        let look = Fault::on(Service::Oms, Operation::Show, FaultKind::Hang);
        place.cloud.fault(look.task(&task).skip(1));
        let plan = Plan::Delete { pauses: 0 };
        wave.jobs.push(Job::new(plan, &task));
    }
    std::fs::write(place.file("armed"), "").expect("a file");
    if let Some(trouble) = trial.trouble {
        trouble.begin(&place);
        if trouble.refuses_changes() {
            wave.let_pauses_end(&place.cloud);
        }
    }
    let mut answers = send_all(&wave.jobs, &client);
    if trial.trouble.is_some() {
        // As good as no answer: what came of the request is seen by the record alone.
        for answer in &mut answers {
            let away = ["store-unavailable", "audit-unavailable"];
            answer.take_if(|one| one.status == 503 && away.contains(&one.problem().as_str()));
        }
    }
    let wrong = answers.iter().flatten().find(|answer| answer.status >= 300);
    assert!(wrong.is_none(), "{wrong:?}: {}", gateway.log());
    let limit = if is_of_the_housekeeping(name) {
        HOUSEKEEPING_MAX
    } else {
        PATIENCE
    };
    let signal = gateway.ended_within(limit).signal();
    assert_eq!(signal, Some(SIGKILL), "{}", gateway.log());
    let last = format!("killed at {name}\n");
    assert!(gateway.log().contains(&last), "{}", gateway.log());

    wave.let_pauses_end(&place.cloud);
    if let Some(trouble) = trial.trouble {
        trouble.end(&place);
    }
    told::tear(&place);
    let place = place.env("MIGRATION_GATEWAY_KILL_POINT", "");
    let gateway = place.start();
    let mut row = Row::default();
    for (job, answer) in wave.jobs.iter().zip(&answers) {
        settle(&place.cloud, &gateway, job, answer.as_ref(), &mut row);
    }
    for (task, plan) in wave.plans() {
        check(&place.cloud, &gateway.client(), task, plan, &mut row);
    }
    let tasks = wave.plans().map(|(task, _)| task);
    let operations = tasks.flat_map(|task| on_record(&gateway.client(), task));
    row.told_twice = told::check(&place, &operations.collect::<Vec<_>>());
    row
}

fn send_all(jobs: &[Job], client: &Client) -> Vec<Option<Answer>> {
    let next = Mutex::new(jobs.iter().enumerate());
    let answers = Mutex::new((0..jobs.len()).map(|_| None).collect::<Vec<_>>());
    thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                loop {
                    let job = next.lock().expect("jobs").next();
                    let Some((number, job)) = job else { return };
                    let answer = job.send(client, job.prefer);
                    answers.lock().expect("answers")[number] = answer;
                }
            });
        }
    });
    answers.into_inner().expect("answers")
}

/// Shows that an answered request is on record, and asks again, with its key, for what was not
/// answered.
fn settle(cloud: &Cloud, gateway: &Gateway, job: &Job, answer: Option<&Answer>, row: &mut Row) {
    let client = gateway.client();
    let operations = on_record(&client, &job.task);
    row.running += operations
        .iter()
        .filter(|operation| operation["status"] == "running")
        .count();
    if let Some(answer) = answer {
        let told = answer.json();
        let kept = operations.iter().find(|kept| kept["id"] == told["id"]);
        let kept = kept.unwrap_or_else(|| panic!("lost: {answer:?}"));
        // An end that was told stays the end.
        if told["status"] != "running" {
            assert_eq!(kept["status"], told["status"]);
            assert_eq!(kept["outcome"], told["outcome"]);
        }
        return;
    }
    let (before, sent) = (operations.len(), all_changes(cloud, &job.task));
    let is_known = match job.plan {
        // The operation was there before; whether the request reached it is seen by its end alone.
        Plan::JoinDelete | Plan::PauseThenCancel => false,
        Plan::PauseThenDelete => {
            assert!(before == 2 || sent == [1, 0, 0], "{}: {sent:?}", job.path);
            before == 2
        }
        Plan::Nothing | Plan::Delete { .. } | Plan::Pause | Plan::Start | Plan::StartInline => {
            assert!(before == 1 || sent == [0, 0, 0], "{}: {sent:?}", job.path);
            before == 1
        }
    };
    if is_known {
        row.recorded += 1;
    } else {
        row.lost += 1;
    }
    let again = job.send(&client, "respond-async").expect("an answer");
    let replayed = again.header("idempotency-replayed") == Some("true");
    assert!(replayed || !is_known, "{again:?}");
}

/// Waits for the end of what was asked of a task, and shows that it is the right one.
fn check(cloud: &Cloud, client: &Client, task: &str, plan: Plan, row: &mut Row) {
    for operation in on_record(client, task) {
        let path = format!("/operations/{}", operation["id"].as_str().expect("an id"));
        let ended = client.with("GET", &path, ("Prefer", "wait=30"));
        assert_ne!(ended.json()["status"], "running", "{ended:?}");
    }
    let mut operations = on_record(client, task);
    let mut ends = Vec::new();
    for operation in &operations {
        let error = operation["error"]["type"].as_str();
        let end = operation["outcome"].as_str().or(error);
        let end = end.or(operation["status"].as_str()).expect("an end");
        ends.push(end.trim_start_matches("/problems/").to_owned());
        let events = operation["events"].as_array().expect("events");
        row.resumed += usize::from(events.iter().any(|event| event["event"] == "resumed"));
    }
    for end in &ends {
        *row.ends.entry(end.clone()).or_default() += 1;
    }
    let ends: Vec<&str> = ends.iter().map(String::as_str).collect();
    let state = state(cloud, task);
    let seen = (state.as_deref(), all_changes(cloud, task));
    let is_right = match (plan, ends.as_slice()) {
        (Plan::Nothing, []) => seen.0.is_some() && seen.1 == [0, 0, 0],
        (Plan::Delete { pauses }, ["deleted"]) => seen == (None, [pauses, 0, 1]),
        (Plan::JoinDelete, ["deleted"]) | (Plan::PauseThenDelete, ["deleted", "paused"]) => {
            seen == (None, [1, 0, 1])
        }
        (Plan::Pause, ["paused"]) => matches!(seen, (Some("3" | "ABORT"), [1, 0, 0])),
        (Plan::Start | Plan::StartInline, ["started"]) => {
            matches!(seen, (Some("2" | "RUNNING"), [0, 1, 0]))
        }
        (Plan::StartInline, ["credentials-lost"]) => matches!(seen, (Some("3" | "4"), [0, 0, 0])),
        (Plan::PauseThenDelete, ["deleted", "superseded"]) => {
            let link = operations.remove(1)["superseded_by"].clone();
            let id = operations[0]["id"].as_str().expect("an id");
            link == format!("/operations/{id}") && seen == (None, [1, 0, 1])
        }
        (Plan::PauseThenCancel, ["cancelled" | "paused"]) => seen.1 == [1, 0, 0],
        _ => false,
    };
    assert!(is_right, "{plan:?}: {seen:?}, {operations:#?}");
    for change in CHANGES {
        let again = sent_after_acceptance(cloud, change, task);
        assert_eq!(
            again, 0,
            "{plan:?}: {change:?} was sent again, {operations:#?}"
        );
    }
}

#[test]
fn whatever_was_accepted_is_done_once_wherever_the_process_is_killed() {
    let trials = Mutex::new(Trial::all().into_iter());
    let rows = Mutex::new(BTreeMap::new());
    let began = Instant::now();
    thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                loop {
                    let trial = trials.lock().expect("trials").next();
                    let Some(trial) = trial else { return };
                    let row = panic::catch_unwind(|| survive(trial));
                    rows.lock().expect("rows").insert(trial, row);
                }
            });
        }
    });
    let rows = rows.into_inner().expect("rows");
    print_matrix(&rows, began.elapsed());
    let failed = rows.iter().filter(|(_, row)| row.is_err());
    let failed: Vec<_> = failed.map(|(trial, _)| trial).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

#[expect(
    clippy::print_stdout,
    reason = "the matrix is what this test is read for"
)]
fn print_matrix(rows: &BTreeMap<Trial, thread::Result<Row>>, took: Duration) {
    let mut text = String::new();
    for (trial, row) in rows {
        let (name, count) = (trial.place.1, trial.count);
        let trouble = trial.trouble.map_or("", |trouble| trouble.name);
        let engine = if trial.on_server {
            "PostgreSQL"
        } else {
            "SQLite"
        };
        match row {
            Ok(row) => {
                let Row {
                    running,
                    recorded,
                    lost,
                    resumed,
                    told_twice,
                    ends,
                } = row;
                writeln!(
                    text,
                    "{name:<28} {trouble:<11} {engine:<10} {count}  running {running:>2}  resumed {resumed:>2}  unanswered: \
                     {recorded:>2} on record, {lost:>2} not  told twice {told_twice:>2}  {ends:?}"
                )
            }
            Err(_) => writeln!(text, "{name:<28} {trouble:<11} {engine:<10} {count}  FAILED"),
        }
        .expect("text");
    }
    println!("{text}{} kills in {} s", rows.len(), took.as_secs());
}
