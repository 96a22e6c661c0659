//! The record is away: nothing is accepted, nothing is sent, and the work goes on when it is back.

use std::fs;

use migration_gateway::sandbox::{OmsSpec, Operation, SmsSpec};
use serde_json::json;

use crate::support::{
    gateway::{Gateway, Place},
    wait_for,
};

/// Asks for every kind of change, and shows that each is refused and none is sent.
fn assert_refuses_everything(place: &Place, gateway: &Gateway) {
    let cloud = &place.cloud;
    let ids = [
        cloud.add_oms(OmsSpec::new("logs", 2)),
        cloud.add_oms(OmsSpec::new("logs", 3)),
        cloud.add_sms(SmsSpec::new("web", "RUNNING")),
        cloud.add_sms(SmsSpec::new("web", "ABORT")),
    ];
    let client = gateway.client();
    for id in &ids {
        let answer = client.delete(&format!("/tasks/{id}?force=pause"));
        assert_eq!(answer.status, 503, "{answer:?}");
        assert_eq!(answer.problem(), "store-unavailable");
        assert_eq!(answer.json()["sent"], "no");
        assert!(answer.header("retry-after").is_some());
        assert!(!answer.text.contains("operations.db"), "{answer:?}");
    }
    let start = format!("/tasks/{}/start", ids[3]);
    let answer = client.with("POST", &start, ("Content-Length", "0"));
    assert_eq!(answer.problem(), "store-unavailable");
    for id in &ids {
        for change in [Operation::Pause, Operation::Start, Operation::Delete] {
            assert_eq!(cloud.count(change, Some(id)), 0, "{change:?} was sent");
        }
    }
}

fn wait_until_ready(gateway: &Gateway, status: u16) {
    wait_for("the word of /readyz", || {
        let answer = gateway.stranger().get("/readyz");
        let failing = if status == 200 {
            json!([])
        } else {
            json!(["store"])
        };
        (answer.status == status && answer.json()["failing"] == failing).then_some(())
    });
}

/// Takes the file away, puts `other` in its place if there is something, and puts it back after
/// `meanwhile`.
fn without_the_file(place: &Place, other: Option<&[u8]>, meanwhile: impl FnOnce()) {
    let (file, aside) = (place.file("operations.db"), place.file("aside"));
    fs::rename(&file, &aside).expect("a file");
    if let Some(bytes) = other {
        fs::write(&file, bytes).expect("a file");
    }
    meanwhile();
    fs::rename(&aside, &file).expect("a file");
}

#[test]
fn while_the_file_is_away_or_another_nothing_is_accepted_and_nothing_is_sent() {
    let place = Place::new();
    let gateway = place.start();
    let cloud = &place.cloud;
    wait_until_ready(&gateway, 200);
    let aside = fs::read(place.file("operations.db")).expect("a file");
    for other in [None, Some(&b""[..]), Some(&aside[..])] {
        // A task that waits to be deleted, and may not be before the record is back.
        let id = cloud.add_oms(OmsSpec::new("logs", 7));
        let operation = gateway.client().force_delete(&id);
        without_the_file(&place, other, || {
            assert!(cloud.set_oms_status(&id, 3));
            assert_refuses_everything(&place, &gateway);
            wait_until_ready(&gateway, 503);
            assert_eq!(gateway.stranger().get("/livez").status, 200);
            assert_eq!(gateway.client().get(&format!("/tasks/{id}")).status, 200);
            assert_eq!(cloud.count(Operation::Delete, Some(&id)), 0);
        });
        assert_eq!(gateway.client().ended(&operation)["outcome"], "deleted");
        assert_eq!(cloud.count(Operation::Delete, Some(&id)), 1);
        wait_until_ready(&gateway, 200);
    }
}

#[test]
fn while_no_operation_can_be_taken_up_readyz_says_so() {
    let place = Place::new();
    let gateway = place.start();
    let client = gateway.client();
    wait_until_ready(&gateway, 200);
    let refuse = "CREATE TRIGGER no_lease BEFORE UPDATE OF lease_until ON operations \
                  WHEN NEW.lease_until IS NOT NULL BEGIN SELECT RAISE(ABORT, 'no lease'); END";
    place.sql(refuse);
    // The record takes it: only whoever is to drive it finds out.
    let id = client.force_delete(&place.cloud.add_oms(OmsSpec::new("logs", 3)));
    wait_until_ready(&gateway, 503);
    assert_eq!(gateway.stranger().get("/livez").status, 200);
    place.sql("DROP TRIGGER no_lease");
    assert_eq!(client.ended(&id)["outcome"], "deleted");
    wait_until_ready(&gateway, 200);
}
