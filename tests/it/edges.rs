//! What happens between the steps: callers without any permission, a record that is away for a
//! while, and one that two processes share.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use migration_gateway::sandbox::{Fault, FaultKind, OmsSpec, Operation, Service};

use crate::support::{gateway::Place, wait_for};

#[test]
fn a_known_caller_who_may_do_nothing_is_forbidden_and_not_unknown() {
    let key = "test-key-of-the-caller-who-may-do-nothing";
    let lines = "permissions = []\nprojects = [\"*\"]";
    let place = Place::new().caller("nobody", key, lines);
    let gateway = place.start();
    let answer = gateway.client_with(key).get("/tasks");
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (403, "forbidden")
    );
    let answer = gateway.stranger().get("/tasks");
    assert_eq!(answer.status, 401);
}

#[test]
fn what_was_seen_before_the_record_was_away_is_no_ground_to_act() {
    let place = Place::new();
    let gateway = place.start();
    let id = place.cloud.add_oms(OmsSpec::new("logs", 3));
    // The look that accepts the deletion passes; the one that the deletion would rest on takes its
    // time.
    let look = Fault::on(
        Service::Oms,
        Operation::Show,
        FaultKind::Delay(Duration::from_secs(1)),
    );
    let look = place.cloud.fault(look.task(&id).skip(1));
    let path = format!("/tasks/{id}");
    let answer = gateway
        .client()
        .with("DELETE", &path, ("Prefer", "respond-async"));
    assert_eq!(answer.status, 202, "{answer:?}");
    wait_for("the look", || (look.fired() == 1).then_some(()));

    let (record, aside) = (place.file("operations.db"), place.file("aside.db"));
    fs::rename(&record, &aside).unwrap();
    wait_for("a write that fails", || {
        gateway
            .log()
            .contains("the operation cannot be recorded")
            .then_some(())
    });
    let away_since = Instant::now();
    assert!(place.cloud.set_oms_status(&id, 2));
    thread::park_timeout(Duration::from_secs(6).saturating_sub(away_since.elapsed()));
    fs::rename(&aside, &record).unwrap();

    let link = answer.json()["id"].as_str().unwrap().to_owned();
    let ended = wait_for("the end of the operation", || {
        let shown = gateway.client().get(&format!("/operations/{link}")).json();
        (shown["status"] != "running").then_some(shown)
    });
    assert_eq!(ended["status"], "failed", "{ended}");
    assert_eq!(
        (&ended["error"]["type"], &ended["error"]["sent"]),
        (&"/problems/task-in-progress".into(), &"no".into())
    );
    assert_eq!(place.cloud.count(Operation::Delete, None), 0);
}

#[test]
fn a_request_hears_of_an_end_that_another_process_brought_about() {
    let place = Place::new();
    let (gateway, _other) = (place.start(), place.start());
    let ids: Vec<String> = (0..12)
        .map(|number| place.cloud.add_oms(OmsSpec::new(&number.to_string(), 7)))
        .collect();
    let (began, gateway) = (Instant::now(), &gateway);
    thread::scope(|scope| {
        for id in &ids {
            scope.spawn(move || {
                let path = format!("/tasks/{id}?force=pause");
                let answer = gateway
                    .client()
                    .with("DELETE", &path, ("Prefer", "wait=60"));
                assert_eq!(answer.status, 200, "{answer:?}");
            });
        }
        // Long enough for both to have taken up some of them.
        wait_for("many looks", || {
            (place.cloud.count(Operation::Show, None) > 20 * ids.len()).then_some(())
        });
        for id in &ids {
            assert!(place.cloud.set_oms_status(id, 3));
        }
    });
    assert!(began.elapsed() < Duration::from_secs(20));
    assert_eq!(place.cloud.count(Operation::Delete, None), ids.len());
}
