use std::sync::Arc;

use tokio::task::JoinSet;

use super::{Place, caller, fresh, moment, task};
use crate::domain::{
    operation::Status,
    service::{ProjectName, ServiceName},
    store::{Hold, Joining, OperationStore as _, Running, StoreError},
};

on_both_engines! {
    what_runs_on_a_task_is_told_with_its_callers_until_it_ends,
    of_many_who_ask_at_once_everybody_is_told_of_their_own_task,
    one_that_cannot_be_read_hides_no_other_and_a_closed_record_answers_nobody,
}

async fn what_runs_on_a_task_is_told_with_its_callers_until_it_ends(place: Place) {
    let (store, other) = (place.open().await, place.open().await);
    assert_eq!(store.running(&task("7")).await.unwrap(), None);
    let mut operation = store.add(fresh("7")).await;
    let joined = store
        .join(operation.id, &caller("b"), None, moment(1))
        .await;
    assert_eq!(joined.unwrap(), Joining::Joined);
    // Other tasks of the same name, which nothing runs on.
    let mut elsewhere = [task("7"), task("7"), task("70")];
    elsewhere[0].service = ServiceName::parse("sms").unwrap();
    elsewhere[1].project = ProjectName::parse("other").unwrap();
    for store in [&store, &other] {
        let running = store.running(&task("7")).await.unwrap();
        let expected = Running {
            id: operation.id,
            callers: vec![caller("team-a"), caller("b")],
        };
        assert_eq!(running, Some(expected));
        for task in &elsewhere {
            assert_eq!(store.running(task).await.unwrap(), None);
        }
    }
    operation.status = Status::Succeeded;
    operation.finished_at = Some(moment(9));
    store.save(&mut operation, &[], Hold::Keep).await.unwrap();
    for store in [&store, &other] {
        assert_eq!(store.running(&task("7")).await.unwrap(), None);
    }
}

async fn of_many_who_ask_at_once_everybody_is_told_of_their_own_task(place: Place) {
    let store = Arc::new(place.open().await);
    let mut asking = JoinSet::new();
    for number in 0..60 {
        let id = number.to_string();
        let expected = (number % 3 > 0).then_some(fresh(&id));
        if let Some(operation) = &expected {
            store.add(operation.clone()).await;
        }
        for _ in 0..10 {
            let (store, id, expected) = (Arc::clone(&store), id.clone(), expected.clone());
            asking.spawn(async move {
                let running = store.running(&task(&id)).await.unwrap();
                assert_eq!(
                    running.map(|running| running.id),
                    expected.map(|operation| operation.id),
                    "{id}"
                );
            });
        }
    }
    assert_eq!(asking.join_all().await.len(), 600);
}

async fn one_that_cannot_be_read_hides_no_other_and_a_closed_record_answers_nobody(place: Place) {
    let store = place.open().await;
    let (broken, whole) = (store.add(fresh("7")).await, store.add(fresh("8")).await);
    let id = broken.id;
    store
        .meddle(format!(
            "UPDATE operations SET status = 'cancelled' WHERE id = '{id}'; \
             INSERT INTO operations (id, project, service, task, project_id, region, endpoint, kind, \
             inline_credentials, migrate_failed_objects, status, requested_by, created_at, updated_at, \
             deadline_at, next_look_at, history, version) \
             SELECT 'x', project, service, task, project_id, region, endpoint, kind, 0, 0, 'running', \
             requested_by, 0, 0, 0, 0, history, 1 FROM operations WHERE id = '{id}'; \
             INSERT INTO operation_callers (operation_id, caller, number) VALUES ('x', 'team-a', 1)"
        ))
        .await;
    let (seven, eight) = (task("7"), task("8"));
    let (unread, read) = tokio::join!(store.running(&seven), store.running(&eight));
    assert_eq!(unread.unwrap(), None);
    assert_eq!(read.unwrap().map(|running| running.id), Some(whole.id));
    store.close().await.unwrap();
    let refused = store.running(&eight).await;
    assert!(
        matches!(refused, Err(StoreError::Unavailable(_))),
        "{refused:?}"
    );
}
