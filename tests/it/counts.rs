//! The numbers of the record: every gateway that shares it tells the same.

use migration_gateway::sandbox::OmsSpec;

use crate::support::{
    gateway::{Gateway, Place},
    wait_for,
};

fn number(gateway: &Gateway, name: &str) -> i64 {
    let text = gateway.stranger().get("/metrics").text;
    let line = format!("migration_gateway_{name} ");
    let value = text.lines().find_map(|found| found.strip_prefix(&line));
    let value = value.unwrap_or_else(|| panic!("no {name}: {text}"));
    value.parse().expect("a number")
}

/// Waits until every gateway tells this number; none may ever tell one below 0.
fn wait_for_number(gateways: &[Gateway], name: &str, expected: i64) {
    for gateway in gateways {
        wait_for("the number of operations", || {
            let told = number(gateway, name);
            assert!(told >= 0, "{name} is {told}");
            (told == expected).then_some(())
        });
    }
}

#[test]
fn every_gateway_tells_how_many_operations_run_wherever_they_were_accepted_and_ended() {
    let place = Place::postgres();
    let gateways = [place.start(), place.start()];
    let clients = [gateways[0].client(), gateways[1].client()];
    wait_for_number(&gateways, "operations_running", 0);
    let ids: Vec<String> = (0..3)
        .map(|number| {
            // It pauses for ever.
            let task = place.cloud.add_oms(OmsSpec::new(&number.to_string(), 7));
            clients[0].ask("DELETE", &format!("/tasks/{task}?force=pause"), None)
        })
        .collect();
    wait_for_number(&gateways, "operations_running", 3);
    for (ended, id) in (1..).zip(&ids) {
        let answer = clients[1].post(&format!("/operations/{id}/cancel"));
        assert_eq!(answer.status, 200, "{answer:?}");
        wait_for_number(&gateways, "operations_running", 3 - ended);
    }
}

#[test]
fn what_cannot_be_read_is_counted() {
    let place = Place::new();
    let gateways = [place.start()];
    let client = gateways[0].client();
    let tasks = [0, 1].map(|number: u8| place.cloud.add_oms(OmsSpec::new(&number.to_string(), 7)));
    let [odd, _] = tasks.each_ref().map(|task| {
        let path = format!("/tasks/{task}?force=pause");
        client.ask("DELETE", &path, None)
    });
    wait_for_number(&gateways, "operations_unreadable", 0);
    // What a round that is under way does not write.
    let damage = "UPDATE operations SET region = CAST(X'ff' AS TEXT) WHERE id =";
    assert_eq!(place.sql(&format!("{damage} '{odd}'")), 1);
    wait_for_number(&gateways, "operations_unreadable", 1);
    wait_for_number(&gateways, "operations_running", 2);
    // The other one goes on.
    assert!(place.cloud.set_oms_status(&tasks[1], 3));
    wait_for_number(&gateways, "operations_running", 1);
}
