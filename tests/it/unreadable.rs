//! Operations on record that the program cannot read.

use std::{thread, time::Duration};

use crate::support::{
    gateway::{Gateway, Place},
    stuck, wait_for, wait_within,
};

/// The number that a gateway tells of operations that cannot be read.
fn unreadable(gateway: &Gateway) -> u32 {
    let text = gateway.stranger().get("/metrics").text;
    let name = "migration_gateway_operations_unreadable ";
    let number = text.lines().find_map(|line| line.strip_prefix(name));
    number.expect("a metric").parse().expect("a number")
}

fn an_unknown_status_is_told_unasked_and_keeps_its_task(place: &Place) {
    let task = place.cloud.add_oms(stuck());
    let gateway = place.start();
    let id = gateway.client().force_delete(&task);
    gateway.kill();
    let held = format!("UPDATE operations SET status = 'held' WHERE id = '{id}'");
    assert_eq!(place.sql(&held), 1);

    let gateway = place.start();
    wait_for("a word of it", || (unreadable(&gateway) == 1).then_some(()));
    let log = gateway.log();
    let lines = log.lines();
    let named: Vec<_> = lines
        .filter(|line| line.contains("cannot be read") && line.contains(&id))
        .collect();
    assert_eq!(named.len(), 1, "{log}");
    let client = gateway.client();
    let path = format!("/tasks/{task}?force=pause");
    for answer in [
        client.delete(&path),
        client.get(&format!("/operations/{id}")),
    ] {
        assert_eq!(answer.status, 500, "{answer:?}");
        assert_eq!(answer.problem(), "internal");
    }
    let mine = format!("SELECT id FROM operations WHERE task = '{task}'");
    assert_eq!(place.sql(&mine), 1);

    let ended = format!(
        "UPDATE operations SET status = 'cancelled', finished_at = 0, owes_end = 0 WHERE id = '{id}'"
    );
    assert_eq!(place.sql(&ended), 1);
    assert!(place.cloud.set_oms_status(&task, 3));
    let answer = client.delete(&path);
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn an_unknown_status_is_told_unasked_and_keeps_its_task_in_a_file() {
    an_unknown_status_is_told_unasked_and_keeps_its_task(&Place::new());
}

#[test]
fn an_unknown_status_is_told_unasked_and_keeps_its_task_on_a_server() {
    an_unknown_status_is_told_unasked_and_keeps_its_task(&Place::postgres());
}

#[test]
fn who_waits_for_what_becomes_unreadable_is_told_soon() {
    for place in [Place::new(), Place::postgres()] {
        for damage in ["status = 'held'", "kind = 'rename'"] {
            let task = place.cloud.add_oms(stuck());
            let gateway = place.start();
            let client = gateway.client();
            let id = client.force_delete(&task);
            thread::scope(|scope| {
                let waiting = scope.spawn(|| {
                    let path = format!("/tasks/{task}?force=pause");
                    client.with("DELETE", &path, ("Prefer", "wait=50"))
                });
                wait_for("a pause", || {
                    (place.cloud.oms_status(&task) == Some(7)).then_some(())
                });
                let damage = format!("UPDATE operations SET {damage} WHERE id = '{id}'");
                assert_eq!(place.sql(&damage), 1);
                // Long before its wait is over.
                wait_within(Duration::from_secs(15), "an answer", || {
                    waiting.is_finished().then_some(())
                });
                // What it waits for was accepted, whatever has become of it.
                let answer = waiting.join().expect("an answer");
                assert_eq!(answer.status, 202, "{answer:?}");
                let shown = client.get(&format!("/operations/{id}"));
                assert_eq!(shown.problem(), "internal");
            });
        }
    }
}
