//! The table of states: what every state of both services is shown as, what it allows, and how
//! waiting ends.

use migration_gateway::sandbox::{CloudOptions, OmsSpec, Operation, SmsSpec};
use serde_json::{Value, json};

use crate::support::{
    gateway::{Gateway, Place},
    http::Client,
    wait_for,
};

/// What asking for a change comes to.
#[derive(Clone, Copy, Debug)]
enum Comes {
    /// Refused at once with this problem; nothing is sent.
    Refused(&'static str),
    /// Driven to this outcome.
    To(&'static str),
    /// Nothing is sent until the task moves to the first, or is removed if that is empty; then
    /// comes the second.
    After(&'static str, &'static str),
}

use Comes::{After, Refused, To};

/// A row: the vendor's word, ours, and what plain DELETE, pause, start and forced DELETE come to.
struct Row(
    &'static str,
    &'static str,
    &'static [&'static str],
    [Comes; 4],
);

const BUSY: Comes = Refused("task-in-progress");
const DONE: Comes = Refused("task-finished");
const UNSTARTED: Comes = Refused("task-not-started");

const ALL: &[&str] = &["pause", "start", "delete", "force_delete"];
const MOVING: &[&str] = &["pause", "force_delete"];
const UNSETTLED: &[&str] = &["pause", "start", "force_delete"];
const STARTABLE: &[&str] = &["start", "delete", "force_delete"];
const OVER: &[&str] = &["delete", "force_delete"];

#[rustfmt::skip]
const OMS: [Row; 9] = [
    Row("0", "waiting", UNSETTLED, [BUSY, After("2", "paused"), After("2", "already_running"), After("2", "deleted")]),
    Row("1", "waiting", ALL, [To("deleted"), After("2", "paused"), After("2", "already_running"), To("deleted")]),
    Row("2", "running", MOVING, [BUSY, To("paused"), To("already_running"), To("deleted")]),
    Row("3", "paused", STARTABLE, [To("deleted"), To("already_paused"), To("started"), To("deleted")]),
    Row("4", "failed", STARTABLE, [To("deleted"), DONE, To("started"), To("deleted")]),
    Row("5", "succeeded", OVER, [To("deleted"), DONE, DONE, To("deleted")]),
    Row("6", "running", MOVING, [BUSY, To("paused"), To("already_running"), To("deleted")]),
    Row("7", "pausing", UNSETTLED, [BUSY, After("3", "already_paused"), After("3", "started"), After("3", "deleted")]),
    Row("42", "unknown", UNSETTLED, [BUSY, After("2", "paused"), After("3", "started"), After("3", "deleted")]),
];

#[rustfmt::skip]
const SMS: [Row; 15] = [
    Row("READY", "waiting", STARTABLE, [To("deleted"), UNSTARTED, To("started"), To("deleted")]),
    Row("RUNNING", "running", MOVING, [BUSY, To("paused"), To("already_running"), To("deleted")]),
    Row("SYNCING", "running", MOVING, [BUSY, To("paused"), To("already_running"), To("deleted")]),
    Row("ABORTING", "pausing", UNSETTLED, [BUSY, After("ABORT", "already_paused"), After("ABORT", "started"), After("ABORT", "deleted")]),
    Row("ABORT", "paused", STARTABLE, [To("deleted"), To("already_paused"), To("started"), To("deleted")]),
    Row("SYNC_F_ROLLBACK_SUCCESS", "paused", STARTABLE, [To("deleted"), To("already_paused"), To("started"), To("deleted")]),
    Row("MIGRATE_FAIL", "failed", STARTABLE, [To("deleted"), DONE, To("started"), To("deleted")]),
    Row("SYNC_FAIL", "failed", STARTABLE, [To("deleted"), DONE, To("started"), To("deleted")]),
    Row("MIGRATE_SUCCESS", "succeeded", OVER, [To("deleted"), DONE, DONE, To("deleted")]),
    Row("SYNC_SUCCESS", "succeeded", OVER, [To("deleted"), DONE, DONE, To("deleted")]),
    Row("SKIPPING", "running", UNSETTLED, [BUSY, After("RUNNING", "paused"), After("RUNNING", "already_running"), After("ABORT", "deleted")]),
    Row("RESETING", "running", UNSETTLED, [BUSY, After("RUNNING", "paused"), After("ABORT", "started"), After("RUNNING", "deleted")]),
    Row("SYNC_F_ROLLBACKING", "running", UNSETTLED, [BUSY, After("SYNC_F_ROLLBACK_SUCCESS", "already_paused"), After("SYNC_F_ROLLBACK_SUCCESS", "started"), After("SYNC_F_ROLLBACK_SUCCESS", "deleted")]),
    Row("DELETING", "deleting", OVER, [After("", "already_gone"), BUSY, BUSY, After("", "already_gone")]),
    Row("CUTOVER_READY", "unknown", UNSETTLED, [BUSY, After("RUNNING", "paused"), After("ABORT", "started"), After("ABORT", "deleted")]),
];

/// How the four changes are asked for, and the kind of their operation.
const VERBS: [(&str, &str, &str); 4] = [
    ("DELETE", "", "delete"),
    ("POST", "/pause", "pause"),
    ("POST", "/start", "start"),
    ("DELETE", "?force=pause", "delete"),
];

/// Looks that show that an operation waits: the first is the one before it is accepted, and two of
/// the others have led to a decision.
const LOOKS: usize = 4;

fn place() -> Place {
    Place::with(CloudOptions {
        oms_stops_retrying: true,
        ..CloudOptions::default()
    })
}

/// A task in this state; OMS has numbers, SMS has words.
fn add(place: &Place, word: &str) -> String {
    match word.parse() {
        Ok(status) => place.cloud.add_oms(OmsSpec::new("table", status)),
        Err(_) => place.cloud.add_sms(SmsSpec::new("table", word)),
    }
}

/// Moves a task as another person would.
fn shift(place: &Place, id: &str, word: &str) {
    let found = match (word, word.parse()) {
        ("", _) => place.cloud.remove(id),
        (_, Ok(status)) => place.cloud.set_oms_status(id, status),
        (word, Err(_)) => place.cloud.set_sms_state(id, word),
    };
    assert!(found, "{id} is not there");
}

/// How many requests about a task asked for a change.
fn sent(place: &Place, id: &str) -> usize {
    [Operation::Pause, Operation::Start, Operation::Delete]
        .iter()
        .map(|operation| place.cloud.count(*operation, Some(id)))
        .sum()
}

fn wait_for_looks(place: &Place, id: &str) {
    wait_for("the operation to look again", || {
        (place.cloud.count(Operation::Show, Some(id)) >= LOOKS).then_some(())
    });
}

fn keys() -> Value {
    let side = json!({"access_key": "AK", "secret_key": "SK"});
    json!({"source": side, "destination": side})
}

/// An operation that was accepted and is not known to have ended.
struct Asked {
    place_in_table: String,
    task: String,
    id: String,
    comes: Comes,
}

fn ask(place: &Place, caller: &Client, row: &Row, verb: usize) -> Option<Asked> {
    let Row(word, _, actions, comes) = row;
    let (method, suffix, kind) = VERBS[verb];
    let task = add(place, word);
    let place_in_table = format!("{method} {suffix} of {word}");
    let body = (suffix == "/start" && word.parse::<i64>().is_ok()).then(keys);
    let path = format!("/tasks/{task}{suffix}");
    if let Refused(problem) = comes[verb] {
        let answer = caller.send(method, &path, &[], body.as_ref());
        let answer = answer.expect("an answer");
        assert_eq!(answer.status, 409, "{place_in_table}: {answer:?}");
        assert_eq!(answer.problem(), problem, "{place_in_table}");
        let document = answer.json();
        assert_eq!(document["sent"], "no", "{place_in_table}");
        let allowed: Vec<&str> = actions
            .iter()
            .map(|one| {
                if *one == "force_delete" {
                    "force=pause"
                } else {
                    one
                }
            })
            .collect();
        assert_eq!(document["allowed"], json!(allowed), "{place_in_table}");
        assert_eq!(sent(place, &task), 0, "{place_in_table}");
        return None;
    }
    let id = caller.ask(method, &path, body.as_ref());
    let operation = caller.operation(&id);
    assert_eq!(operation["kind"], kind, "{place_in_table}");
    let force = if suffix == "?force=pause" {
        json!("pause")
    } else {
        Value::Null
    };
    assert_eq!(operation["force"], force, "{place_in_table}");
    Some(Asked {
        place_in_table,
        task,
        id,
        comes: comes[verb],
    })
}

fn keeps_the_table(rows: &[Row]) {
    let place = place();
    let gateway = place.start();
    let caller = gateway.client();
    let asked: Vec<Asked> = rows
        .iter()
        .flat_map(|row| (0..VERBS.len()).map(move |verb| (row, verb)))
        .filter_map(|(row, verb)| ask(&place, &caller, row, verb))
        .collect();
    for one in &asked {
        if let After(word, _) = one.comes {
            wait_for_looks(&place, &one.task);
            let operation = caller.operation(&one.id);
            assert_eq!(operation["status"], "running", "{}", one.place_in_table);
            assert_eq!(sent(&place, &one.task), 0, "{}", one.place_in_table);
            shift(&place, &one.task, word);
        }
    }
    for one in &asked {
        let operation = caller.ended(&one.id);
        let (To(outcome) | After(_, outcome) | Refused(outcome)) = one.comes;
        assert_eq!(
            operation["outcome"], outcome,
            "{}: {operation}",
            one.place_in_table
        );
        assert_eq!(operation["status"], "succeeded", "{}", one.place_in_table);
        assert_eq!(operation["phase"], Value::Null, "{}", one.place_in_table);
        let exists = place.cloud.oms_status(&one.task).is_some()
            || place.cloud.sms_state(&one.task).is_some();
        let is_gone = ["deleted", "already_gone"].contains(&outcome);
        assert_eq!(exists, !is_gone, "{}", one.place_in_table);
        let needed = match outcome {
            "already_gone" | "already_paused" | "already_running" => 0,
            _ => 1,
        };
        assert!(sent(&place, &one.task) >= needed, "{}", one.place_in_table);
        if needed == 0 {
            assert_eq!(sent(&place, &one.task), 0, "{}", one.place_in_table);
        }
    }
}

#[test]
fn every_state_of_oms_allows_what_the_table_says() {
    keeps_the_table(&OMS);
}

#[test]
fn every_state_of_sms_allows_what_the_table_says() {
    keeps_the_table(&SMS);
}

#[test]
fn every_state_is_shown_with_the_vendors_word_and_with_what_it_offers() {
    let place = place();
    let gateway = place.start();
    for Row(word, state, actions, _) in OMS.iter().chain(&SMS) {
        let id = add(&place, word);
        let task = gateway.client().get(&format!("/tasks/{id}")).json();
        assert_eq!(task["state"], *state, "{word}");
        assert_eq!(task["upstream_state"], *word);
        assert_eq!(task["actions"], json!(actions), "{word}");
        assert_eq!(task["operation"], Value::Null, "{word}");
    }
}

/// The count of looks that found a state of this service unknown.
fn unknown_looks(gateway: &Gateway, service: &str) -> u64 {
    let start =
        format!("migration_gateway_upstream_unknown_states_total{{service=\"{service}\"}} ");
    let text = gateway.stranger().get("/metrics").text;
    let line = text.lines().find_map(|line| line.strip_prefix(&start));
    line.map_or(0, |count| count.parse().expect("a count"))
}

#[test]
fn a_state_that_is_not_known_is_counted_and_never_acted_on() {
    let place = place();
    let gateway = place.start();
    let caller = gateway.client();
    for (service, word, later) in [("oms", "42", "2"), ("sms", "CUTOVER_READY", "RUNNING")] {
        let task = add(&place, word);
        let path = format!("/tasks/{task}?force=pause");
        let answer = caller.with("DELETE", &path, ("prefer", "wait=0"));
        assert_eq!(answer.status, 202, "{answer:?}");
        let id = answer.json()["id"].as_str().expect("an id").to_owned();
        wait_for_looks(&place, &task);
        assert_eq!(caller.operation(&id)["status"], "running");
        assert!(unknown_looks(&gateway, service) > 0);
        assert_eq!(sent(&place, &task), 0);
        shift(&place, &task, later);
        let operation = caller.ended(&id);
        assert_eq!(operation["outcome"], "deleted", "{operation}");
        let seen: Vec<&Value> = operation["events"]
            .as_array()
            .expect("events")
            .iter()
            .filter_map(|event| event.get("state"))
            .collect();
        assert_eq!(seen[..2], [&json!("unknown"), &json!("running")]);
    }
}

#[test]
fn a_task_at_rest_whose_source_server_is_at_work_is_deleted_when_that_comes_to_rest() {
    let place = place();
    let gateway = place.start();
    let caller = gateway.client();
    let busy = [
        "initialize",
        "stopping",
        "deleting",
        "cloning",
        "replicate",
        "syncing",
        "cutovering",
        "skipping",
        "clearing",
        "premiging",
    ];
    let asked: Vec<(String, String)> = busy
        .iter()
        .enumerate()
        .map(|(index, source)| {
            let task = place.cloud.add_sms(SmsSpec {
                source_state: Some((*source).to_owned()),
                ..SmsSpec::new("gate", "ABORT")
            });
            let force = if index % 2 == 0 { "" } else { "?force=pause" };
            let id = caller.ask("DELETE", &format!("/tasks/{task}{force}"), None);
            (task, id)
        })
        .collect();
    for (index, (task, id)) in asked.iter().enumerate() {
        wait_for_looks(&place, task);
        assert_eq!(caller.operation(id)["status"], "running");
        assert_eq!(sent(&place, task), 0);
        // The gate opens when the server comes to rest, and when it goes away.
        let (state, connected) = if index % 3 == 0 {
            ("syncing", false)
        } else {
            ("stopped", true)
        };
        assert!(place.cloud.set_sms_source(task, state, connected));
    }
    for (task, id) in &asked {
        assert_eq!(caller.ended(id)["outcome"], "deleted");
        assert_eq!(place.cloud.count(Operation::Delete, Some(task)), 1);
        assert_eq!(place.cloud.count(Operation::Pause, Some(task)), 0);
    }
}

#[test]
fn a_pause_that_hangs_with_an_agent_that_is_offline_does_not_keep_a_forced_delete() {
    let place = place();
    let gateway = place.start();
    let task = place.cloud.add_sms(SmsSpec {
        connected: false,
        ..SmsSpec::new("offline", "RUNNING")
    });
    let answer = gateway
        .client()
        .delete(&format!("/tasks/{task}?force=pause"));
    assert_eq!(answer.json()["outcome"], "deleted", "{answer:?}");
    assert_eq!(place.cloud.count(Operation::Pause, Some(&task)), 1);
}

#[test]
fn a_stop_that_a_retrying_task_refuses_is_sent_again_when_it_runs() {
    let place = Place::new();
    let gateway = place.start();
    let caller = gateway.client();
    let task = place.cloud.add_oms(OmsSpec::new("retrying", 6));
    let id = caller.ask("POST", &format!("/tasks/{task}/pause"), None);
    wait_for("a refusal", || {
        let events = caller.operation(&id)["events"].to_string();
        events.contains("OMS.0066").then_some(())
    });
    shift(&place, &task, "2");
    assert_eq!(caller.ended(&id)["outcome"], "paused");
    assert_eq!(place.cloud.oms_status(&task), Some(3));
}
