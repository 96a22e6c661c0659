//! The program as it is shipped has no places at which it can be killed.

use std::fs;

use migration_gateway::sandbox::OmsSpec;

use crate::support::gateway::Place;

#[test]
fn the_program_without_the_feature_knows_nothing_of_places_to_be_killed_at() {
    let program = fs::read(env!("CARGO_BIN_EXE_migration-gateway")).expect("the program");
    let has = |text: &str| {
        program
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    };
    assert!(has("MIGRATION_GATEWAY"), "the search finds what is there");
    for text in ["_KILL_POINT", "_KILL_ARMED_BY", "accept.create.before"] {
        assert!(!has(text), "{text} is in the program");
    }

    let place = Place::new().env("MIGRATION_GATEWAY_KILL_POINT", "accept.create.before:1");
    let gateway = place.start();
    let task = place.cloud.add_oms(OmsSpec::new("logs", 3));
    let answer = gateway.client().delete(&format!("/tasks/{task}"));
    assert_eq!(answer.json()["outcome"], "deleted", "{answer:?}");
}
