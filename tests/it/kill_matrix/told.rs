//! What the audit log says of operations after a kill.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write as _,
};

use serde_json::Value;

use crate::support::{
    audit_log::{assert_whole, log, verify},
    gateway::Place,
    wait_for,
};

/// What a machine that lost its power in the midst of a line leaves behind.
const TORN: &[u8] = b"{\"seq\":";

/// Leaves the beginning of a line at the end of the log. No gateway may run.
pub(super) fn tear(place: &Place) {
    let file = OpenOptions::new().append(true).open(log(place));
    file.and_then(|mut file| file.write_all(TORN))
        .expect("an audit log");
    let torn = verify(place, &[log(place)]);
    assert_eq!(torn.status.code(), Some(1), "{torn:?}");
}

/// Shows that every one of these operations was noted before it began, and that its end is told,
/// once, or once more by the process after a kill between telling it and recording that. Gives how
/// many ends are told twice.
pub(super) fn check(place: &Place, operations: &[Value]) -> usize {
    let told = wait_for("the ends in the audit log", || {
        let told = Told::read(place);
        let all = operations.iter().all(|one| told.ends.contains_key(id(one)));
        all.then_some(told)
    });
    for operation in operations {
        let (id, ends) = (id(operation), &told.ends[id(operation)]);
        assert!(
            told.begun.get(id).is_some_and(|begun| *begun < ends[0].0),
            "{id} ended before it was noted"
        );
        assert!(ends.len() <= 2, "{id}: {ends:?}");
        for (_, status) in ends {
            assert_eq!(*status, operation["status"], "{id}");
        }
    }
    assert_whole(place);
    told.ends.values().filter(|ends| ends.len() > 1).count()
}

fn id(operation: &Value) -> &str {
    operation["id"].as_str().expect("an id")
}

/// Where in the log operations are noted, and where and how they end there.
#[derive(Default)]
struct Told {
    begun: BTreeMap<String, usize>,
    ends: BTreeMap<String, Vec<(usize, Value)>>,
}

impl Told {
    fn read(place: &Place) -> Self {
        let bytes = fs::read(log(place)).expect("an audit log");
        let text = String::from_utf8_lossy(&bytes);
        let mut told = Self::default();
        for (at, line) in text.lines().enumerate() {
            // What is torn is none, nor what is being written.
            let Ok(line) = serde_json::from_str::<Value>(line) else {
                continue;
            };
            let Some(id) = line["operation"].as_str().map(str::to_owned) else {
                continue;
            };
            if line["decision"] == "allowed" {
                told.begun.entry(id).or_insert(at);
            } else if line["kind"] == "end" {
                let end = (at, line["status"].clone());
                told.ends.entry(id).or_default().push(end);
            }
        }
        told
    }
}
