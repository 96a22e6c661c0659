//! Lists of operations, by pages and by what is asked for.

use super::{Place, SqlOperationStore, begun, caller, ended, event, fresh, moment, task};
use crate::domain::{
    history::Change,
    operation::{EventKind, Operation, OperationId, Status},
    store::{Hold, OperationQuery, OperationStore as _, StoreError},
};

on_both_engines! {
    a_list_is_newest_first_and_goes_on_where_a_page_ended,
    a_list_holds_what_was_asked_for,
    a_list_may_be_longer_than_one_statement_takes_ids,
    a_list_goes_on_past_rows_without_an_id,
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

pub(super) async fn listed(store: &SqlOperationStore, query: OperationQuery) -> Vec<OperationId> {
    let found = store.list(&query).await.unwrap().operations;
    found.iter().map(|operation| operation.id).collect()
}

pub(super) fn everything() -> OperationQuery {
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

/// All that a list shows, by pages of this size. Fails if it does not come to an end.
async fn paged(store: &SqlOperationStore, limit: u32) -> Result<Vec<OperationId>, StoreError> {
    let (mut all, mut before) = (Vec::new(), None);
    for _ in 0..100 {
        let query = OperationQuery {
            before,
            limit,
            ..everything()
        };
        let page = store.list(&query).await?;
        assert!(page.operations.len() <= limit as usize, "{limit}");
        all.extend(page.operations.iter().map(|operation| operation.id));
        before = page.next;
        if before.is_none() {
            return Ok(all);
        }
    }
    panic!("the list goes on and on: {all:?}");
}

async fn a_list_goes_on_past_rows_without_an_id(place: Place) {
    let store = place.open().await;
    let oldest = Operation {
        id: OperationId::FIRST,
        ..fresh("oldest")
    };
    let oldest = store.add(oldest).await;
    let newest = store.add(begun("newest", 1)).await;
    let expected = [newest.id, oldest.id];
    let damage = async |copies| {
        store
            .meddle("DELETE FROM operations WHERE phase = 'pondering'".to_owned())
            .await;
        store.copy_as_unreadable(&newest, copies).await;
        store
            .meddle("UPDATE operations SET id = id || '!' WHERE phase = 'pondering'".to_owned())
            .await;
    };
    for (copies, limits) in [(30, &[1, 2, 7, 29, 30, 31, 32, 33][..]), (1234, &[1, 600])] {
        damage(copies).await;
        for limit in limits {
            let found = paged(&store, *limit).await.unwrap();
            assert_eq!(found, expected, "{copies}, {limit}");
        }
    }
    assert!(!store.reader.reports.named().is_empty());
    // Not for ever.
    damage(6000).await;
    let found = paged(&store, 1).await;
    assert!(matches!(found, Err(StoreError::Unreadable(_))), "{found:?}");
}
