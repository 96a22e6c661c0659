//! Rows that this version cannot read.

use std::{
    io,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, Row as _};

use super::{
    Place, SqlOperationStore, begun, caller, ended, fresh, lease,
    lists::{everything, listed},
    moment,
};
use crate::{
    domain::{
        operation::{Operation, OperationId, Status},
        store::{Counts, Creation, Hold, Joining, NewOperation, OperationStore as _, StoreError},
    },
    store::unreadable::ODD_STATUS,
};

on_both_engines! {
    a_row_of_a_newer_version_stands_in_nobodys_way,
    what_cannot_be_read_is_reported_once,
    what_cannot_be_read_takes_no_place_from_its_caller,
    what_can_be_read_again_takes_a_place_again,
    ends_that_cannot_be_read_do_not_keep_others_from_being_told,
    the_statement_of_the_runbook_rids_the_record_of_what_cannot_be_read,
    an_unknown_status_is_told_unasked_and_keeps_its_task,
    any_number_of_unknown_statuses_is_counted,
    an_unknown_status_beside_a_running_operation_does_not_stop_that,
}

async fn a_row_of_a_newer_version_stands_in_nobodys_way(place: Place) {
    for damage in [
        "UPDATE operations SET phase = 'pondering' WHERE id =",
        "UPDATE operations SET failure = '{\"reason\":\"bad-luck\"}' WHERE id =",
        "UPDATE operations SET history = 'none' WHERE id =",
        "UPDATE operations SET version = 'two' WHERE id =",
        "UPDATE operations SET created_at = 9223372036854775807 WHERE id =",
        "UPDATE operations SET kind = 'rename' WHERE id =",
        "UPDATE operation_events SET kind = 'applauded' WHERE operation_id =",
        "UPDATE operation_callers SET caller = 'Team A' WHERE operation_id =",
    ] {
        if place.database.is_some() && damage.contains("'two'") {
            // A server takes no text for a number.
            continue;
        }
        let place = place.another();
        let store = place.open().await;
        let strange = store.add(fresh("1")).await;
        let later = Operation {
            next_look_at: moment(1),
            ..fresh("2")
        };
        let plain = store.add(later).await;
        store.meddle(format!("{damage} '{}'", strange.id)).await;

        let unreadable = store.find(strange.id).await;
        match unreadable {
            Err(StoreError::Unreadable(text)) => assert!(text.contains(&strange.id.to_string())),
            other => panic!("{damage}: {other:?}"),
        }
        let refused = store.create(&NewOperation::new(fresh("1"))).await;
        assert!(
            matches!(refused, Err(StoreError::Unreadable(_))),
            "{damage}: {refused:?}"
        );
        assert_eq!(listed(&store, everything()).await, [plain.id], "{damage}");

        let claim = store.claim(&lease("me", 10), 1).await.unwrap();
        let claimed: Vec<_> = claim.operations.iter().map(|l| l.operation.id).collect();
        assert_eq!(claimed, [plain.id], "{damage}");
        assert_eq!(claim.next_due_at, None, "{damage}");
    }
}

/// Log lines, kept.
#[derive(Clone, Default)]
pub(super) struct Lines(pub(super) Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn what_cannot_be_read_is_reported_once(place: Place) {
    let store = place.open().await;
    let strange = store.add(fresh("1")).await.id;
    let stranger = store.add(fresh("2")).await.id;
    store
        .meddle("UPDATE operations SET phase = 'pondering'".to_owned())
        .await;

    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::ERROR)
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    for _ in 0..3 {
        assert_eq!(listed(&store, everything()).await, []);
    }
    drop(guard);
    let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    for id in [strange, stranger] {
        assert_eq!(text.matches(&id.to_string()).count(), 1, "{text}");
    }
}

/// Claims, as every process does all the time, so that it has come across all that is due.
async fn claimed(store: &SqlOperationStore) -> Vec<OperationId> {
    let claim = store.claim(&lease("a", 1), 10).await.unwrap();
    claim
        .operations
        .iter()
        .map(|one| one.operation.id)
        .collect()
}

async fn what_cannot_be_read_takes_no_place_from_its_caller(place: Place) {
    let store = place.open().await;
    let one_of_two = |id: &str| NewOperation {
        running_max: Some(2),
        ..NewOperation::new(fresh(id))
    };
    for id in ["1", "2"] {
        store.add(fresh(id)).await;
    }
    store
        .meddle("UPDATE operations SET phase = 'pondering'".to_owned())
        .await;
    assert_eq!(claimed(&store).await, []);
    let caller = caller("team-a");
    for (id, running) in [("3", 1), ("4", 2)] {
        let creation = store.create(&one_of_two(id)).await.unwrap();
        assert!(matches!(creation, Creation::Created), "{creation:?}");
        assert_eq!(store.count_running_of(&caller).await.unwrap(), running);
    }
    let creation = store.create(&one_of_two("5")).await.unwrap();
    assert!(matches!(creation, Creation::TooMany), "{creation:?}");
}

async fn what_can_be_read_again_takes_a_place_again(place: Place) {
    let store = place.open().await;
    store.add(fresh("1")).await;
    store
        .meddle("UPDATE operations SET kind = 'rename'".to_owned())
        .await;
    assert_eq!(claimed(&store).await, []);
    assert_eq!(store.count_running_of(&caller("team-a")).await.unwrap(), 0);
    store
        .meddle("UPDATE operations SET kind = 'delete'".to_owned())
        .await;
    assert!(!store.look_again().await.unwrap());
    assert_eq!(claimed(&store).await.len(), 1);
    assert_eq!(store.count_running_of(&caller("team-a")).await.unwrap(), 1);
}

async fn ends_that_cannot_be_read_do_not_keep_others_from_being_told(place: Place) {
    let store = place.open().await;
    let mut ids = Vec::new();
    for number in 0..9 {
        let owing = NewOperation {
            owes_end: true,
            ..NewOperation::new(begun(&number.to_string(), number))
        };
        store.create(&owing).await.unwrap();
        let mut end = ended(&owing.operation, Status::Succeeded);
        store.save(&mut end, &[], Hold::Release).await.unwrap();
        ids.push(end.id);
    }
    for id in ids.iter().take(6) {
        store
            .meddle(format!(
                "UPDATE operations SET kind = 'rename' WHERE id = '{id}'"
            ))
            .await;
    }
    for limit in [1, 2, 3, 4, 9] {
        let owed = store.owed_ends(limit).await.unwrap();
        let owed: Vec<_> = owed.into_iter().map(|one| one.id).collect();
        let most = ids.len().min(6 + limit as usize);
        assert_eq!(owed, ids[6..most], "{limit}");
    }
}

async fn the_statement_of_the_runbook_rids_the_record_of_what_cannot_be_read(place: Place) {
    let store = place.open().await;
    let (strange, other) = (store.add(fresh("1")).await.id, store.add(fresh("2")).await);
    store
        .meddle(format!(
            "UPDATE operations SET phase = 'pondering' WHERE id = '{strange}'"
        ))
        .await;
    let runbook = include_str!("../../../docs/runbook.md");
    let (_, statement) = runbook.split_once("    UPDATE operations").unwrap();
    let (statement, _) = statement.split_once(';').unwrap();
    let statement = format!(
        "UPDATE operations{}",
        statement.replace("$ID", &strange.to_string())
    );
    assert!(statement.contains(&strange.to_string()), "{statement}");
    store.meddle(statement).await;
    assert_eq!(claimed(&store).await, [other.id]);
    assert_eq!(store.owed_ends(10).await.unwrap(), []);
    assert_eq!(store.remove_ended(moment(0), 10).await.unwrap(), 1);
    assert_eq!(store.find(strange).await.unwrap(), None);
    assert_eq!(
        store.find(other.id).await.unwrap().unwrap().task,
        other.task
    );
    store.add(fresh("1")).await;
}

const STATUSES: [&str; 4] = ["held", "Running", "", "running "];

async fn an_unknown_status_is_told_unasked_and_keeps_its_task(place: Place) {
    let store = place.open().await;
    for (number, status) in STATUSES.into_iter().enumerate() {
        let task = number.to_string();
        let odd = store.add(fresh(&task)).await.id;
        let set = async |status: &str| {
            let sql = format!("UPDATE operations SET status = '{status}' WHERE id = '{odd}'");
            store.meddle(sql).await;
        };
        set(status).await;
        let refused = store.create(&NewOperation::new(fresh(&task))).await;
        match refused {
            Err(StoreError::Unreadable(text)) => assert_eq!(text, format!("{odd} (status)")),
            other => panic!("{status}: {other:?}"),
        }
        assert!(!store.look_again().await.unwrap(), "{status}");
        assert_eq!(store.reader.reports.named(), [odd.to_string()], "{status}");
        let counts = Counts {
            running: 0,
            unreadable: 1,
        };
        assert_eq!(store.counts().await.unwrap(), counts, "{status}");
        // Marked, it keeps its task all the same.
        let refused = store.create(&NewOperation::new(fresh(&task))).await;
        assert!(
            matches!(refused, Err(StoreError::Unreadable(_))),
            "{status}: {refused:?}"
        );
        // It may have ended, but nobody knows.
        store
            .meddle("UPDATE operations SET finished_at = 0".to_owned())
            .await;
        assert_eq!(store.remove_ended(moment(0), 10).await.unwrap(), 0);

        set("running").await;
        assert!(!store.look_again().await.unwrap(), "{status}");
        assert_eq!(store.counts().await.unwrap().unreadable, 0, "{status}");
        assert_eq!(claimed(&store).await, [odd], "{status}");
        set("cancelled").await;
        store.add(fresh(&task)).await;
        store.meddle("DELETE FROM operations".to_owned()).await;
    }
}

async fn any_number_of_unknown_statuses_is_counted(place: Place) {
    let store = place.open().await;
    let first = store.add(fresh("first")).await;
    store.copy_as_unreadable(&first, 1234).await;
    store
        .meddle(
            "UPDATE operations SET status = 'held', phase = 'observing' WHERE phase = 'pondering'"
                .to_owned(),
        )
        .await;
    let mut looks = 1;
    while store.look_again().await.unwrap() {
        looks += 1;
    }
    assert!(looks < 8, "{looks}");
    let counts = Counts {
        running: 1,
        unreadable: 1234,
    };
    assert_eq!(store.counts().await.unwrap(), counts);
}

async fn an_unknown_status_beside_a_running_operation_does_not_stop_that(place: Place) {
    let store = place.open().await;
    let odd = store.add(begun("1", 0)).await.id;
    let hide = async |task: &str| {
        let sql =
            format!("UPDATE operations SET task = '{task}', status = 'held' WHERE id = '{odd}'");
        store.meddle(sql).await;
    };
    hide("2").await;
    let running = store.add(begun("1", 1)).await;
    hide("1").await;
    assert_eq!(claimed(&store).await, [running.id]);
    let joined = store
        .join(running.id, &caller("team-b"), None, moment(2))
        .await;
    assert_eq!(joined.unwrap(), Joining::Joined);
    let mut end = ended(&store.read_back(running.id).await, Status::Succeeded);
    store.save(&mut end, &[], Hold::Release).await.unwrap();
    let refused = store.create(&NewOperation::new(begun("1", 3))).await;
    assert!(
        matches!(refused, Err(StoreError::Unreadable(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_status_that_becomes_unknown_meanwhile_keeps_its_task() {
    let place = Place::postgres();
    let store = place.open().await;
    store.add(fresh("1")).await;
    let mut newer = store.database.pools.writer.begin().await.unwrap();
    sqlx::raw_sql("UPDATE operations SET status = 'held'")
        .execute(&mut *newer)
        .await
        .unwrap();
    let again = NewOperation::new(fresh("1"));
    let commit = async {
        let waits = "SELECT COUNT(*) FROM pg_stat_activity \
                     WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let limit = Instant::now() + Duration::from_secs(2);
        while store.numbers(waits).await == 0 {
            assert!(Instant::now() < limit, "nobody waits");
        }
        newer.commit().await.unwrap();
    };
    let (refused, ()) = tokio::join!(store.create(&again), commit);
    assert!(
        matches!(refused, Err(StoreError::Unreadable(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn unknown_statuses_are_found_by_their_index() {
    let place = Place::new();
    let store = place.open().await;
    let on_task = format!("WHERE project = 'a' AND service = 'b' AND task = 'c' AND {ODD_STATUS}");
    let unmarked = format!("WHERE {ODD_STATUS} AND unreadable_by IS NULL LIMIT 1");
    for conditions in [on_task, unmarked] {
        let sql = format!("EXPLAIN QUERY PLAN SELECT * FROM operations {conditions}");
        let plan = sqlx::query(AssertSqlSafe(sql))
            .fetch_one(&store.database.pools.reader)
            .await
            .unwrap();
        let plan: String = plan.get("detail");
        assert!(plan.contains("USING INDEX operations_odd"), "{plan}");
    }
}

#[test]
fn every_status_is_a_known_word() {
    let words: Vec<_> = Status::ALL
        .iter()
        .map(|status| format!("'{}'", status.as_str()))
        .collect();
    assert_eq!(ODD_STATUS, format!("status NOT IN ({})", words.join(", ")));
}
