use std::{
    io,
    sync::{Arc, Mutex},
};

use tokio::task::JoinSet;

use super::{Place, SqlOperationStore, caller, event, fresh, lease, moment, task};
use crate::domain::{
    history::Change,
    operation::{EVENTS_MAX, EventKind, Operation, OperationId, Outcome, Status},
    store::{
        Creation, Hold, Joining, NewOperation, OperationQuery, OperationStore as _, StoreError,
    },
    task::TaskState,
};

on_both_engines! {
    a_row_of_a_newer_version_stands_in_nobodys_way,
    a_second_operation_on_a_task_is_shown_the_running_one,
    a_task_is_free_again_when_its_operation_has_ended,
    operations_on_a_task_are_told_in_short_newest_first,
    an_operation_that_does_not_know_of_a_later_one_is_not_recorded,
    of_many_that_ask_at_once_in_two_processes_exactly_one_creates,
    who_joins_is_recorded_once_and_does_not_disturb_the_driver,
    nobody_joins_what_has_ended_or_never_was,
    a_late_write_changes_nothing,
    what_has_ended_stays_as_it_ended,
    events_beyond_the_limit_are_dropped_but_the_end_is_kept,
    a_list_is_newest_first_and_goes_on_where_a_page_ended,
    a_list_holds_what_was_asked_for,
    a_list_may_be_longer_than_one_statement_takes_ids,
    how_far_operations_have_come_changes_with_every_event_and_every_write,
    what_cannot_be_read_is_reported_once,
    what_cannot_be_read_takes_no_place_from_its_caller,
    what_can_be_read_again_takes_a_place_again,
    ends_that_cannot_be_read_do_not_keep_others_from_being_told,
    the_statement_of_the_runbook_rids_the_record_of_what_cannot_be_read,
}

fn ended(operation: &Operation, status: Status) -> Operation {
    Operation {
        status,
        phase: None,
        outcome: (status == Status::Succeeded).then_some(Outcome::Deleted),
        finished_at: Some(moment(9)),
        updated_at: moment(9),
        ..operation.clone()
    }
}

async fn a_second_operation_on_a_task_is_shown_the_running_one(place: Place) {
    let store = place.open().await;
    let first = store.add(fresh("7")).await;

    let second = fresh("7");
    match store
        .create(&NewOperation::new(second.clone()))
        .await
        .unwrap()
    {
        Creation::Running(running) => assert_eq!(*running, first),
        Creation::Created | Creation::Lost | Creation::TooMany => {
            panic!("two operations run on one task")
        }
    }
    assert_eq!(store.find(second.id).await.unwrap(), None);

    let mut elsewhere = fresh("7");
    elsewhere.task.service = crate::domain::service::ServiceName::parse("sms").unwrap();
    store.add(elsewhere).await;
}

async fn a_task_is_free_again_when_its_operation_has_ended(place: Place) {
    let store = place.open().await;
    let first = store.add(fresh("7")).await;
    for status in Status::ALL
        .iter()
        .copied()
        .filter(|s| *s != Status::Running)
    {
        let running = store.create(&NewOperation::new(fresh("7"))).await.unwrap();
        let running = match running {
            Creation::Running(running) => *running,
            Creation::Created | Creation::Lost | Creation::TooMany => {
                panic!("two operations run on one task")
            }
        };
        let mut end = ended(&running, status);
        store.save(&mut end, &[], Hold::Keep).await.unwrap();
        store.add(fresh("7")).await;
    }
    let first = store.read_back(first.id).await;
    assert_eq!(first.status, Status::Succeeded);
}

/// An operation of its own moment, so that it is known which is the later one.
fn begun(id: &str, seconds: i64) -> Operation {
    Operation {
        id: OperationId::at(moment(seconds)),
        ..fresh(id)
    }
}

async fn operations_on_a_task_are_told_in_short_newest_first(place: Place) {
    let store = place.open().await;
    let mut ids = Vec::new();
    for (number, status) in [Status::Cancelled, Status::Failed].into_iter().enumerate() {
        let mut operation = store.add(begun("7", i64::try_from(number).unwrap())).await;
        operation = ended(&operation, status);
        operation.history.intend(Change::Start, None, moment(5));
        store.save(&mut operation, &[], Hold::Keep).await.unwrap();
        ids.insert(0, operation.id);
    }
    store.add(begun("8", 3)).await;

    let former = store.former(&task("7"), 10).await.unwrap();

    let told: Vec<_> = former.iter().map(|one| one.id).collect();
    assert_eq!(told, ids);
    let (status, history) = former[0].record.as_ref().expect("it can be read");
    assert_eq!(*status, Status::Failed);
    assert_eq!(history.sent_at, Some(moment(5)));
    assert_eq!(store.former(&task("7"), 1).await.unwrap().len(), 1);
    assert_eq!(store.former(&task("9"), 10).await.unwrap().len(), 0);
    store
        .meddle("UPDATE operations SET history = '?' WHERE status = 'failed'".to_owned())
        .await;
    let former = store.former(&task("7"), 10).await.unwrap();
    assert_eq!(former[0].id, ids[0]);
    assert!(former[0].record.is_none(), "{former:?}");
}

async fn an_operation_that_does_not_know_of_a_later_one_is_not_recorded(place: Place) {
    let store = place.open().await;
    let create = async |seconds, follows| {
        let fresh = NewOperation {
            follows: Some(follows),
            ..NewOperation::new(begun("7", seconds))
        };
        let creation = store.create(&fresh).await.unwrap();
        match creation {
            Creation::Created => {
                let mut end = ended(&fresh.operation, Status::Cancelled);
                store.save(&mut end, &[], Hold::Keep).await.unwrap();
                Some(end.id)
            }
            Creation::Lost => None,
            Creation::Running(_) | Creation::TooMany => panic!("{creation:?}"),
        }
    };
    store.add(begun("8", 9)).await;
    let first = create(0, OperationId::FIRST).await.expect("it is created");
    assert_eq!(create(1, OperationId::FIRST).await, None);
    let second = create(1, first).await.expect("it is created");
    assert_eq!(create(2, first).await, None);
    assert_eq!(store.former(&task("7"), 10).await.unwrap()[0].id, second);
}

async fn of_many_that_ask_at_once_in_two_processes_exactly_one_creates(place: Place) {
    let (one, two) = (place.open().await, place.open().await);
    let stores = [Arc::new(one), Arc::new(two)];
    for round in 0..20 {
        let mut racers = JoinSet::new();
        for racer in 0..8 {
            let store = stores[racer % 2].clone();
            let operation = fresh(&round.to_string());
            racers.spawn(async move {
                (
                    operation.id,
                    store
                        .create(&NewOperation::new(operation.clone()))
                        .await
                        .unwrap(),
                )
            });
        }
        let (mut created, mut shown) = (Vec::new(), Vec::new());
        while let Some(joined) = racers.join_next().await {
            match joined.unwrap() {
                (id, Creation::Created) => created.push(id),
                (_, Creation::Running(running)) => shown.push(running.id),
                (_, Creation::Lost | Creation::TooMany) => panic!("nothing was to be lost"),
            }
        }
        assert_eq!(created.len(), 1, "round {round}");
        assert_eq!(shown, vec![created[0]; 7], "round {round}");
    }
}

async fn who_joins_is_recorded_once_and_does_not_disturb_the_driver(place: Place) {
    let store = place.open().await;
    let mut driven = store.add(fresh("7")).await;

    for name in ["team-b", "team-b", "team-a", "team-c"] {
        store
            .join(driven.id, &caller(name), None, moment(3))
            .await
            .unwrap();
    }
    let joined = store.read_back(driven.id).await;
    assert_eq!(joined.version, driven.version);
    let names = ["team-a", "team-b", "team-c"].map(caller);
    assert_eq!(joined.callers, names);
    assert_eq!(joined.requested_by, caller("team-a"));
    let kinds = [EventKind::Accepted, EventKind::Joined, EventKind::Joined];
    let found: Vec<_> = joined.events.into_iter().map(|event| event.kind).collect();
    assert_eq!(found, kinds);

    let seen = event(4, EventKind::Observed(Some(TaskState::Running)));
    store
        .save(&mut driven, std::slice::from_ref(&seen), Hold::Keep)
        .await
        .unwrap();
    let after = store.read_back(driven.id).await;
    assert_eq!(after.callers, names);
    assert_eq!(after.events.last(), Some(&seen));
}

async fn nobody_joins_what_has_ended_or_never_was(place: Place) {
    let store = place.open().await;
    let mut end = ended(&store.add(fresh("7")).await, Status::Cancelled);
    store.save(&mut end, &[], Hold::Release).await.unwrap();

    store
        .join(end.id, &caller("team-b"), None, moment(10))
        .await
        .unwrap();
    store
        .join(
            OperationId::at(moment(1)),
            &caller("team-b"),
            None,
            moment(10),
        )
        .await
        .unwrap();
    assert_eq!(store.read_back(end.id).await, end);
}

async fn a_late_write_changes_nothing(place: Place) {
    let store = place.open().await;
    let mut first = store.add(fresh("7")).await;
    let mut late = first.clone();
    store.save(&mut first, &[], Hold::Keep).await.unwrap();
    assert_eq!(first.version, 2);

    late.phase = None;
    let before = late.clone();
    let refused = store
        .save(&mut late, &[event(5, EventKind::Resumed)], Hold::Keep)
        .await;
    assert!(matches!(refused, Err(StoreError::Stale)), "{refused:?}");
    assert_eq!(
        late, before,
        "a refused write leaves the operation as it is"
    );
    assert_eq!(store.read_back(first.id).await, first);
}

async fn what_has_ended_stays_as_it_ended(place: Place) {
    let store = place.open().await;
    let operation = store.add(fresh("7")).await;
    let mut end = ended(&operation, Status::Succeeded);
    store
        .save(&mut end, &[event(9, EventKind::Ended)], Hold::Release)
        .await
        .unwrap();

    let mut again = Operation {
        status: Status::Failed,
        ..end.clone()
    };
    let refused = store.save(&mut again, &[], Hold::Release).await;
    assert!(matches!(refused, Err(StoreError::Stale)), "{refused:?}");
    let mut stranger = fresh("8");
    let refused = store.save(&mut stranger, &[], Hold::Release).await;
    assert!(matches!(refused, Err(StoreError::Stale)), "{refused:?}");
    assert_eq!(store.read_back(end.id).await, end);
}

async fn events_beyond_the_limit_are_dropped_but_the_end_is_kept(place: Place) {
    let store = place.open().await;
    let mut operation = store.add(fresh("7")).await;
    for seconds in 0..3 {
        let many = vec![event(seconds, EventKind::Resumed); EVENTS_MAX / 2];
        store.save(&mut operation, &many, Hold::Keep).await.unwrap();
    }
    assert_eq!(operation.events.len(), EVENTS_MAX - 1);
    store
        .join(operation.id, &caller("team-b"), None, moment(3))
        .await
        .unwrap();

    let mut end = ended(&operation, Status::Succeeded);
    let last = [
        event(9, EventKind::DeleteSent(None)),
        event(9, EventKind::Ended),
    ];
    store.save(&mut end, &last, Hold::Release).await.unwrap();
    assert_eq!(end.events.len(), EVENTS_MAX);
    assert_eq!(end.events.last().unwrap().kind, EventKind::Ended);
    assert_eq!(store.read_back(end.id).await.events, end.events);
}

/// Six operations on the tasks 0 to 5, newest first.
async fn six(store: &SqlOperationStore) -> Vec<OperationId> {
    let mut ids = Vec::new();
    for number in 0..6 {
        let mut operation = fresh(&number.to_string());
        operation.id = OperationId::at(moment(number));
        ids.push(store.add(operation).await.id);
    }
    ids.reverse();
    ids
}

async fn listed(store: &SqlOperationStore, query: OperationQuery) -> Vec<OperationId> {
    let found = store.list(&query).await.unwrap().operations;
    found.iter().map(|operation| operation.id).collect()
}

fn everything() -> OperationQuery {
    OperationQuery {
        limit: 100,
        ..OperationQuery::default()
    }
}

async fn a_list_is_newest_first_and_goes_on_where_a_page_ended(place: Place) {
    let store = place.open().await;
    let all = six(&store).await;
    assert_eq!(listed(&store, everything()).await, all);

    let page = |before| OperationQuery {
        before,
        limit: 4,
        ..everything()
    };
    assert_eq!(listed(&store, page(None)).await, all[..4]);
    assert_eq!(listed(&store, page(Some(all[3]))).await, all[4..]);
    assert_eq!(listed(&store, page(Some(all[5]))).await, []);
}

async fn a_list_holds_what_was_asked_for(place: Place) {
    let store = place.open().await;
    let all = six(&store).await;
    let mut end = ended(&store.read_back(all[3]).await, Status::Failed);
    store.save(&mut end, &[], Hold::Release).await.unwrap();
    for id in &all[4..] {
        store
            .join(*id, &caller("team-b"), None, moment(9))
            .await
            .unwrap();
    }

    let failed = OperationQuery {
        status: Some(Status::Failed),
        ..everything()
    };
    assert_eq!(listed(&store, failed.clone()).await, [all[3]]);
    let mut sends = store.read_back(all[2]).await;
    sends.history.intend(Change::Delete, None, moment(9));
    store.save(&mut sends, &[], Hold::Keep).await.unwrap();
    let sent_delete = OperationQuery {
        sent_delete: true,
        ..everything()
    };
    assert_eq!(listed(&store, sent_delete.clone()).await, [all[2]]);
    let mut end = ended(&sends, Status::Failed);
    end.history.settle_unknown();
    store.save(&mut end, &[], Hold::Release).await.unwrap();
    assert_eq!(listed(&store, sent_delete).await, [all[2]]);
    assert_eq!(listed(&store, failed.clone()).await, [all[2], all[3]]);
    let joined = OperationQuery {
        caller: Some(caller("team-b")),
        ..everything()
    };
    assert_eq!(listed(&store, joined.clone()).await, all[4..]);
    let on_task = OperationQuery {
        task: Some(task("1")),
        ..everything()
    };
    assert_eq!(listed(&store, on_task.clone()).await, [all[4]]);

    let all_at_once = OperationQuery {
        status: Some(Status::Running),
        before: Some(all[3]),
        limit: 1,
        ..OperationQuery {
            caller: joined.caller,
            ..on_task
        }
    };
    assert_eq!(listed(&store, all_at_once).await, [all[4]]);
    let nothing = OperationQuery {
        caller: Some(caller("team-b")),
        ..failed
    };
    assert_eq!(listed(&store, nothing).await, []);

    let found = store.list(&everything()).await.unwrap().operations;
    for operation in &found {
        assert_eq!(operation, &store.read_back(operation.id).await);
    }
}

async fn a_list_may_be_longer_than_one_statement_takes_ids(place: Place) {
    let store = place.open().await;
    for number in 0..501 {
        store.add(fresh(&number.to_string())).await;
    }
    let query = OperationQuery {
        limit: 501,
        ..OperationQuery::default()
    };
    let found = store.list(&query).await.unwrap().operations;
    assert_eq!(found.len(), 501);
    for operation in found {
        assert_eq!(operation.callers, [caller("team-a")]);
        assert_eq!(operation.events, [event(0, EventKind::Accepted)]);
    }
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
        let query = OperationQuery {
            limit: 10,
            ..OperationQuery::default()
        };
        let listed = store.list(&query).await.unwrap().operations;
        assert_eq!(listed, std::slice::from_ref(&plain), "{damage}");

        let claim = store.claim(&lease("me", 10), 1).await.unwrap();
        let claimed: Vec<_> = claim.operations.iter().map(|l| l.operation.id).collect();
        assert_eq!(claimed, [plain.id], "{damage}");
        assert_eq!(claim.next_due_at, None, "{damage}");
    }
}

/// Log lines, kept.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

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

async fn how_far_operations_have_come_changes_with_every_event_and_every_write(place: Place) {
    let store = place.open().await;
    let (mut one, other) = (store.add(fresh("1")).await, store.add(fresh("2")).await);
    // More than one statement takes, most of them not on record.
    let mut ids: Vec<OperationId> = (0..600).map(|_| fresh("3").id).collect();
    ids.extend([one.id, other.id]);
    let mut told = Vec::new();
    told.push(store.progress(&ids).await.unwrap());
    // It leaves the version as it is.
    let joined = store.join(one.id, &caller("b"), None, moment(1)).await;
    assert_eq!(joined.unwrap(), Joining::Joined);
    told.push(store.progress(&ids).await.unwrap());
    store.save(&mut one, &[], Hold::Keep).await.unwrap();
    told.push(store.progress(&ids).await.unwrap());
    let mut end = ended(&one, Status::Cancelled);
    store.save(&mut end, &[], Hold::Keep).await.unwrap();
    told.push(store.progress(&ids).await.unwrap());
    for (before, after) in told.iter().zip(&told[1..]) {
        assert_eq!(before.len(), 2);
        assert_ne!(before[&one.id], after[&one.id]);
        assert_eq!(before[&other.id], after[&other.id]);
        assert!(!before[&one.id].has_ended);
    }
    let last = told.last().unwrap();
    assert!(last[&one.id].has_ended && !last[&other.id].has_ended);
    assert_eq!(store.progress(&[]).await.unwrap().len(), 0);
}
