use std::{collections::HashSet, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use tokio::task::JoinSet;

use super::{LeaseClock, Place, SqlOperationStore, event, fresh, lease, moment, task};
use crate::domain::{
    clock::{Clock as _, SystemClock},
    operation::{EventKind, Operation, OperationId, Status},
    service::{ProjectName, ServiceName},
    store::{Claim, Hold, Lease, Leased, NewOperation, OperationStore as _, StoreError},
};

on_both_engines! {
    what_rests_longer_than_anything_can_is_due_since_the_clock_was_set_back,
    a_lease_that_lasts_longer_than_any_can_lasts_from_this_moment_since_the_clock_was_set_back,
    what_is_kept_for_an_owner_is_left_to_it_unless_it_is_late,
    eight_claimers_in_two_processes_share_the_work_without_overlap,
    a_claim_takes_the_oldest_looks_and_says_when_the_next_is_due,
    nothing_is_due_when_nothing_runs,
    running_operations_are_counted_by_project_and_service,
    what_is_held_is_claimed_by_nobody,
    what_was_given_back_is_not_taken_over,
    what_a_process_left_behind_is_taken_over_and_its_late_write_refused,
    a_lease_that_its_owner_let_end_is_claimed_again_but_not_taken_over,
    renewing_keeps_the_leases_that_are_named_and_still_held_and_no_other,
    an_end_clears_the_lease,
}

impl SqlOperationStore {
    async fn claim_as(&self, owner: &str, seconds: i64, limit: u32) -> Claim {
        self.claim(&lease(owner, seconds), limit).await.unwrap()
    }

    /// Claims the one operation that is due.
    async fn claim_one(&self, owner: &str, seconds: i64) -> Leased {
        let mut claim = self.claim_as(owner, seconds, 10).await;
        assert_eq!(claim.operations.len(), 1, "at {seconds} by {owner}");
        claim.operations.remove(0)
    }

    async fn assert_nothing_for(&self, owner: &str, seconds: i64) {
        let claim = self.claim_as(owner, seconds, 10).await;
        assert!(claim.operations.is_empty(), "at {seconds} by {owner}");
    }
}

fn due_at(task: &str, seconds: i64) -> Operation {
    Operation {
        next_look_at: moment(seconds),
        ..fresh(task)
    }
}

async fn eight_claimers_in_two_processes_share_the_work_without_overlap(place: Place) {
    let stores = [Arc::new(place.open().await), Arc::new(place.open().await)];
    for number in 0..200 {
        stores[0].add(fresh(&number.to_string())).await;
    }
    let mut claimers = JoinSet::new();
    for number in 0..8 {
        let store = stores[number % 2].clone();
        claimers.spawn(async move {
            let mut mine = Vec::new();
            loop {
                let claim = store.claim_as(&format!("owner-{number}"), 0, 7).await;
                if claim.operations.is_empty() {
                    return mine;
                }
                mine.extend(claim.operations.iter().map(|l| l.operation.id));
            }
        });
    }
    let mut claimed = Vec::new();
    while let Some(mine) = claimers.join_next().await {
        claimed.extend(mine.unwrap());
    }
    assert_eq!(claimed.len(), 200);
    assert_eq!(claimed.iter().collect::<HashSet<_>>().len(), 200);
}

async fn what_rests_longer_than_anything_can_is_due_since_the_clock_was_set_back(place: Place) {
    let store = place.open().await;
    let possible = store.add(due_at("1", 3600)).await;
    // As a gateway with longer rests leaves it.
    store.add(due_at("3", 3601)).await;
    let mut impossible = due_at("2", 3601);
    impossible.updated_at = moment(11);
    let impossible = store.add(impossible).await;
    let claim = store.claim_as("a", 0, 10).await;
    assert_eq!(claim.operations.len(), 1);
    let operation = &claim.operations[0].operation;
    assert_eq!(
        (operation.id, operation.next_look_at),
        (impossible.id, moment(0))
    );
    assert_eq!(claim.next_due_at, Some(possible.next_look_at));
}

async fn a_lease_that_lasts_longer_than_any_can_lasts_from_this_moment_since_the_clock_was_set_back(
    place: Place,
) {
    let store = place.open().await;
    let now = SystemClock.now();
    let at = |owner, seconds| Lease {
        now: now + SignedDuration::from_secs(seconds),
        ..lease(owner, 0)
    };
    let claim = async |owner, seconds| store.claim(&at(owner, seconds), 10).await.unwrap();
    let possible = store.add(fresh("1")).await.id;
    let impossible = store.add(fresh("2")).await.id;
    assert_eq!(claim("a", 0).await.operations.len(), 2);
    // The one by no more than clocks differ by.
    for (id, seconds) in [(possible, 5), (impossible, 7200)] {
        let renewed = store.renew(&at("a", seconds), &[id]).await;
        assert_eq!(renewed.unwrap(), [id]);
    }

    let begun = SystemClock.now();
    let other = claim("b", 0).await;
    assert!(other.operations.is_empty());
    assert!(other.next_due_at < Some(now + SignedDuration::from_mins(10)));
    let ends = sqlx::query_scalar::<_, i64>("SELECT lease_until FROM operations ORDER BY task")
        .fetch_all(&store.database.pools.reader)
        .await
        .unwrap();
    let ends: Vec<_> = ends
        .into_iter()
        .map(|end| Timestamp::from_microsecond(end).unwrap())
        .collect();
    assert_eq!(
        ends[0].as_microsecond(),
        (now + SignedDuration::from_secs(35)).as_microsecond(),
        "as it was"
    );
    // A file's clock has no microseconds.
    let earliest = begun + SignedDuration::from_millis(30_000 - 1);
    assert!(earliest <= ends[1], "{ends:?}");
    assert!(
        ends[1] <= SystemClock.now() + SignedDuration::from_secs(30),
        "{ends:?}"
    );

    // Another one takes over what they were on.
    let later = claim("b", 60).await;
    let taken: Vec<bool> = later.operations.iter().map(|one| one.taken_over).collect();
    assert_eq!(taken, [true, true]);
}

#[tokio::test]
async fn the_end_of_a_lease_by_the_clock_of_the_database_is_told_by_that_of_the_claimer() {
    let place = Place::postgres();
    let mut store = place.open().await;
    store.lease_clock = LeaseClock::Database;
    store.add(fresh("1")).await;
    let ahead = |owner| Lease {
        now: SystemClock.now() + SignedDuration::from_hours(1),
        ..lease(owner, 0)
    };
    assert_eq!(
        store.claim(&ahead("a"), 1).await.unwrap().operations.len(),
        1
    );
    let other = ahead("b");
    let claim = store.claim(&other, 1).await.unwrap();
    assert!(claim.operations.is_empty());
    let due = claim.next_due_at.expect("the end of the lease");
    assert!(
        due > other.now,
        "{due} is no reason to ask at {}",
        other.now
    );
    assert!(due <= other.now + SignedDuration::from_secs(30), "{due}");
}

async fn a_claim_takes_the_oldest_looks_and_says_when_the_next_is_due(place: Place) {
    let store = place.open().await;
    let late = store.add(due_at("1", 5)).await;
    let early = store.add(due_at("2", 3)).await;
    store.add(due_at("3", 60)).await;

    let none = store.claim_as("a", 2, 10).await;
    assert!(none.operations.is_empty());
    assert_eq!(none.next_due_at, Some(moment(3)));

    let full = store.claim_as("a", 5, 1).await;
    assert_eq!(full.operations[0].operation.id, early.id);
    assert_eq!(
        full.next_due_at,
        Some(moment(5)),
        "one that is due had no room"
    );

    let no_room = store.claim_as("a", 5, 0).await;
    assert!(no_room.operations.is_empty());
    assert_eq!(no_room.next_due_at, Some(moment(5)));

    let rest = store.claim_as("a", 5, 10).await;
    assert_eq!(rest.operations.len(), 1);
    let leased = &rest.operations[0];
    assert!(!leased.taken_over);
    assert_eq!(leased.operation.version, late.version + 1);
    assert_eq!(leased.operation, store.read_back(late.id).await);
    assert_eq!(
        rest.next_due_at,
        Some(moment(60)),
        "its own leases do not count"
    );

    let other = store.claim_as("b", 6, 10).await;
    assert!(other.operations.is_empty());
    assert_eq!(
        other.next_due_at,
        Some(moment(35)),
        "the leases of another end"
    );
}

async fn nothing_is_due_when_nothing_runs(place: Place) {
    let store = place.open().await;
    assert_eq!(store.claim_as("a", 0, 10).await.next_due_at, None);

    let mut operation = store.add(fresh("1")).await;
    operation.status = Status::Cancelled;
    store.save(&mut operation, &[], Hold::Keep).await.unwrap();
    let claim = store.claim_as("a", 100, 10).await;
    assert!(claim.operations.is_empty());
    assert_eq!(claim.next_due_at, None);
}

async fn running_operations_are_counted_by_project_and_service(place: Place) {
    let store = place.open().await;
    let mut ended = store.add(fresh("1")).await;
    ended.status = Status::Cancelled;
    store.save(&mut ended, &[], Hold::Keep).await.unwrap();
    store.add(fresh("1")).await;
    store.add(fresh("2")).await;
    let (prod, oms) = (task("1").project, task("1").service);
    let (test, sms) = (
        ProjectName::parse("test").unwrap(),
        ServiceName::parse("sms").unwrap(),
    );
    let mut other = fresh("3");
    other.task.service = sms.clone();
    store.add(other).await;
    for (project, service, running) in [
        (&prod, &oms, 2),
        (&prod, &sms, 1),
        (&test, &oms, 0),
        (&test, &sms, 0),
    ] {
        let counted = store.count_running(project, service).await.unwrap();
        assert_eq!(counted, running, "{project} {service}");
    }
}

async fn what_is_held_is_claimed_by_nobody(place: Place) {
    let store = place.open().await;
    store.add(fresh("1")).await;
    let mut held = store.claim_one("a", 0).await.operation;

    store.assert_nothing_for("a", 10).await;
    store.assert_nothing_for("b", 10).await;
    store.save(&mut held, &[], Hold::Keep).await.unwrap();
    store.assert_nothing_for("b", 10).await;
}

async fn what_was_given_back_is_not_taken_over(place: Place) {
    let store = place.open().await;
    store.add(fresh("1")).await;
    let mut held = store.claim_one("a", 0).await.operation;
    held.next_look_at = moment(5);
    store.save(&mut held, &[], Hold::Release).await.unwrap();

    store.assert_nothing_for("b", 4).await;
    let again = store.claim_one("b", 5).await;
    assert!(!again.taken_over);
}

async fn what_a_process_left_behind_is_taken_over_and_its_late_write_refused(place: Place) {
    let (first, second) = (place.open().await, place.open().await);
    first.add(fresh("1")).await;
    let mut lost = first.claim_one("a", 0).await.operation;
    first
        .save(&mut lost, &[event(1, EventKind::Resumed)], Hold::Keep)
        .await
        .unwrap();

    second.assert_nothing_for("b", 29).await;
    let taken = second.claim_one("b", 30).await;
    assert!(taken.taken_over);
    assert_eq!(taken.operation.version, lost.version + 1);
    assert_eq!(taken.operation.events, lost.events);

    let late = first.save(&mut lost, &[], Hold::Release).await;
    assert!(matches!(late, Err(StoreError::Stale)), "{late:?}");
    first.assert_nothing_for("a", 31).await;
}

async fn a_lease_that_its_owner_let_end_is_claimed_again_but_not_taken_over(place: Place) {
    let store = place.open().await;
    store.add(fresh("1")).await;
    store.claim_one("a", 0).await;
    assert!(!store.claim_one("a", 30).await.taken_over);
}

async fn renewing_keeps_the_leases_that_are_named_and_still_held_and_no_other(place: Place) {
    let store = place.open().await;
    let first = store.add(fresh("1")).await.id;
    store.claim_one("a", 0).await;
    let second = store.add(fresh("2")).await.id;
    store.claim_one("b", 0).await;

    let dropped = store.add(fresh("3")).await.id;
    store.claim_one("a", 0).await;

    let renewed = store.renew(&lease("a", 20), &[first, second]).await;
    assert_eq!(renewed.unwrap(), [first]);
    let claim = store.claim_as("c", 40, 10).await;
    let ids: HashSet<OperationId> = claim.operations.iter().map(|l| l.operation.id).collect();
    assert_eq!(ids, HashSet::from([second, dropped]));
    assert_eq!(claim.next_due_at, Some(moment(50)));
    assert_eq!(store.read_back(first).await.version, 2, "versions stay");
}

async fn an_end_clears_the_lease(place: Place) {
    let store = place.open().await;
    store.add(fresh("1")).await;
    let mut held = store.claim_one("a", 0).await.operation;
    held.status = Status::Superseded;
    store.save(&mut held, &[], Hold::Keep).await.unwrap();

    let leases = sqlx::query_scalar::<_, i64>(
        "SELECT COUNT(*) FROM operations WHERE lease_owner IS NOT NULL OR lease_until IS NOT NULL",
    );
    let held = leases
        .fetch_one(&store.database.pools.writer)
        .await
        .unwrap();
    assert_eq!(held, 0);
}

async fn what_is_kept_for_an_owner_is_left_to_it_unless_it_is_late(place: Place) {
    let store = place.open().await;
    let operation = due_at("1", 5);
    let kept = NewOperation {
        kept_for: Some("a".to_owned()),
        ..NewOperation::new(operation)
    };
    store.create(&kept).await.unwrap();
    // It is late after a lease, by clocks that are ten seconds apart.
    let other = store.claim_as("b", 44, 10).await;
    assert!(other.operations.is_empty());
    assert_eq!(other.next_due_at, None, "somebody else's");

    let mut leased = store.claim_one("a", 6).await;
    leased.operation.next_look_at = moment(10);
    let saved = store.save(&mut leased.operation, &[], Hold::Release).await;
    saved.unwrap();
    store.assert_nothing_for("b", 49).await;
    let leased = store.claim_one("b", 50).await;
    assert!(!leased.taken_over, "nobody held it");
}
