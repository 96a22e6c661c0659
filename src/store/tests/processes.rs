//! Several processes on one server.

use std::time::{Duration, Instant};

use futures_util::{FutureExt as _, future::join_all};
use jiff::{SignedDuration, Timestamp};

use super::{
    Place, SqlOperationStore, caller, event, fresh, in_two_processes, lease, moment, settings,
};
use crate::domain::{
    operation::{EventKind, Status},
    store::{Creation, Hold, Lease, NewOperation, OperationStore as _},
};

#[tokio::test]
async fn processes_that_start_together_on_a_fresh_database_all_open_it() {
    for _ in 0..3 {
        let place = Place::postgres();
        let all = join_all((0..4).map(|_| place.open())).await;
        all[0].add(fresh("1")).await;
        assert_eq!(all[3].counts().await.unwrap().running, 1);
    }
}

/// A lease of an owner whose clock is wrong by so many seconds.
fn wrong(owner: &str, seconds: i64, duration: Duration) -> Lease {
    #[expect(
        clippy::disallowed_methods,
        reason = "the clock of the server is not one that tests set"
    )]
    let now = Timestamp::now() + SignedDuration::from_secs(seconds);
    Lease {
        owner: owner.to_owned(),
        duration,
        now,
        longest_rest: Duration::MAX,
    }
}

#[tokio::test]
async fn leases_go_by_the_clock_of_the_database() {
    let place = Place::postgres();
    let database = settings(place.database.as_ref().unwrap());
    let [first, second] = [
        SqlOperationStore::open(&database).await.unwrap(),
        SqlOperationStore::open(&database).await.unwrap(),
    ];
    let id = first.add(fresh("1")).await.id;
    let minute = Duration::from_mins(1);
    let claimed = first.claim(&wrong("a", -3600, minute), 10).await.unwrap();
    assert_eq!(claimed.operations.len(), 1);

    let early = second.claim(&wrong("b", 3600, minute), 10).await.unwrap();
    assert!(early.operations.is_empty(), "the lease has not ended");

    first
        .renew(&wrong("a", 3600, Duration::ZERO), &[id])
        .await
        .unwrap();
    let taken = second.claim(&wrong("b", -3600, minute), 10).await.unwrap();
    assert!(taken.operations[0].taken_over);
}

#[tokio::test]
async fn what_somebody_holds_locked_does_not_keep_other_leases_from_being_renewed() {
    let place = Place::postgres();
    let database = settings(place.database.as_ref().unwrap());
    let store = SqlOperationStore::open(&database).await.unwrap();
    let [locked, free] = [store.add(fresh("1")).await, store.add(fresh("2")).await];
    let minute = Duration::from_mins(1);
    let claimed = store.claim(&wrong("a", 0, minute), 10).await.unwrap();
    assert_eq!(claimed.operations.len(), 2);
    let mut somebody = store.database.pools.writer.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM operations WHERE id = $1 FOR UPDATE")
        .bind(locked.id.to_string())
        .execute(&mut *somebody)
        .await
        .unwrap();
    let renew = async || {
        let (terms, ids) = (wrong("a", 0, minute), [locked.id, free.id]);
        store.renew(&terms, &ids).await.unwrap()
    };
    assert_eq!(renew().await, [free.id]);
    somebody.rollback().await.unwrap();
    assert_eq!(renew().await.len(), 2);
}

#[tokio::test]
async fn an_end_is_heard_of_in_every_process() {
    let place = Place::postgres();
    let (first, second) = (place.open().await, place.open().await);
    // Until a connection stands nothing is heard.
    let heard = async |number: usize| {
        let mut operation = first.add(fresh(&number.to_string())).await;
        operation.status = Status::Succeeded;
        operation.finished_at = Some(moment(1));
        first.save(&mut operation, &[], Hold::Keep).await.unwrap();
        let told = tokio::time::timeout(Duration::from_millis(200), second.next_end()).await;
        (operation.id, told.ok())
    };
    let mut number = 0;
    while heard(number).await.1.is_none() {
        number += 1;
        assert!(number < 100, "nothing was heard");
    }
    let (id, told) = heard(1000).await;
    assert_eq!(told, Some(id));
    // In the process itself as well, and nothing that went before it is kept back.
    while first.next_end().await != id {}

    // One that takes over from another ends that.
    let old = first.add(fresh("2000")).await;
    let mut superseded = old.clone();
    superseded.status = Status::Superseded;
    let fresh = NewOperation {
        supersedes: Some((superseded, vec![event(1, EventKind::Superseded)])),
        ..NewOperation::new(fresh("2000"))
    };
    assert!(matches!(
        first.create(&fresh).await.unwrap(),
        Creation::Created
    ));
    assert_eq!(second.next_end().await, old.id);
    assert!(second.next_end().now_or_never().is_none());
}

#[tokio::test]
async fn a_process_that_stands_still_in_the_middle_keeps_nothing_from_the_others() {
    let place = Place::postgres();
    let store = place.open().await;
    let operation = store.add(fresh("1")).await;
    let mut stopped = store.database.pools.writer.begin().await.unwrap();
    sqlx::query("UPDATE operations SET version = version WHERE id = $1")
        .bind(operation.id.to_string())
        .execute(&mut *stopped)
        .await
        .unwrap();
    let other = place.open().await;
    let give_up = Instant::now() + Duration::from_secs(30);
    while other
        .claim(&lease("b", 1), 1)
        .await
        .unwrap()
        .operations
        .is_empty()
    {
        assert!(Instant::now() < give_up, "the row is still locked");
    }
    assert!(stopped.commit().await.is_err());
}

#[tokio::test]
async fn no_more_run_of_a_caller_than_may_in_two_processes() {
    let place = Place::postgres();
    let created = in_two_processes(&place, async |store, number| {
        let one = NewOperation {
            running_max: Some(3),
            ..NewOperation::new(fresh(&number.to_string()))
        };
        matches!(store.create(&one).await.unwrap(), Creation::Created)
    });
    assert_eq!(created.await.iter().filter(|created| **created).count(), 3);
}

#[tokio::test]
async fn callers_who_join_in_two_processes_are_all_recorded_with_their_events() {
    let place = Place::postgres();
    let operation = place.open().await.add(fresh("1")).await;
    in_two_processes(&place, async |store, number| {
        let who = caller(&format!("team-{number}"));
        store
            .join(operation.id, &who, None, moment(1))
            .await
            .unwrap()
    })
    .await;
    let read = place.open().await.read_back(operation.id).await;
    assert_eq!(read.callers.len(), 9);
    assert_eq!(read.events.len(), 9);
}
