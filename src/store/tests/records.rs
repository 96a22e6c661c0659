//! What is put on record of an operation, and what is not.

use super::{Place, begun, caller, ended, event, fresh, in_two_processes, moment, task};
use crate::domain::{
    history::Change,
    operation::{EVENTS_MAX, EventKind, Operation, OperationId, Status},
    store::{Creation, Hold, Joining, NewOperation, OperationStore as _, StoreError},
    task::TaskState,
};

on_both_engines! {
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
    how_far_operations_have_come_changes_with_every_event_and_every_write,
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
    // One with a damaged id is none that could be known.
    let third = create(3, second).await.expect("it is created");
    for damage in [
        "DELETE FROM operation_callers WHERE operation_id",
        "DELETE FROM operation_events WHERE operation_id",
        "UPDATE operations SET id = 'zz' || id WHERE id",
    ] {
        store.meddle(format!("{damage} = '{third}'")).await;
    }
    create(4, second).await.expect("it is created");
}

async fn of_many_that_ask_at_once_in_two_processes_exactly_one_creates(place: Place) {
    for round in 0..50 {
        let creations = in_two_processes(&place, async |store, _| {
            let one = fresh(&round.to_string());
            (one.id, store.create(&NewOperation::new(one)).await.unwrap())
        });
        let (mut created, mut shown) = (Vec::new(), Vec::new());
        for creation in creations.await {
            match creation {
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
