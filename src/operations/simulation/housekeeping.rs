//! The house is kept, and leases and waits go on, where the record is slow, away, or holds what
//! cannot be read.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::{Scene, SharedScene, exchange::EXCHANGE_MAX, in_simulated_time, process::Process};
use crate::{
    domain::{
        operation::{EventKind, Goal, OperationId, Outcome},
        start::StartRequest,
    },
    operations::{Settings, metrics::Ended},
};

/// Runs this with a process that nothing happens to but what is said here.
fn with_a_process(work: impl AsyncFnOnce(SharedScene, Process)) {
    in_simulated_time(async {
        let scene = Arc::new(Mutex::new(Scene::new(1, false)));
        scene.lock().unwrap().is_calm = true;
        let settings = Settings {
            deadline: Duration::from_mins(5),
            poll_min: Duration::from_secs(1),
            poll_max: Duration::from_secs(10),
            exchange_max: EXCHANGE_MAX,
            concurrency: 4,
            history: Duration::from_mins(3),
        };
        let process = Process::boot(&scene, &settings, 1);
        work(scene, process).await;
    });
}

#[test]
fn the_house_is_kept_where_an_operation_cannot_be_read_whose_keys_are_here() {
    with_a_process(async |scene, process| {
        let id = OperationId::FIRST;
        scene.lock().unwrap().records.unreadable = Some(id);
        let keys = StartRequest {
            source: None,
            destination: None,
            migrate_failed_objects: false,
        };
        process.operations.0.inline_keys.keep(id, keys);
        let removals = || scene.lock().unwrap().counts.get("removal").copied();
        sleep(Duration::from_secs(150)).await;
        assert_eq!(removals(), Some(3));
        sleep(Duration::from_mins(10)).await;
        assert_eq!(removals(), Some(13));
        let keys = &process.operations.0.inline_keys;
        assert!(!keys.is_empty(), "its keys may be needed");
        scene.lock().unwrap().records.unreadable = None;
        sleep(Duration::from_mins(1)).await;
        assert!(keys.is_empty());
    });
}

#[test]
fn leases_are_renewed_however_long_the_record_takes_to_give_more() {
    renew_beside("claim", Duration::from_secs(20));
}

#[test]
fn leases_are_renewed_however_long_it_takes_to_keep_the_house() {
    renew_beside("remove", Duration::from_secs(80));
}

/// Has rounds in flight while this call to the record is slow.
fn renew_beside(slow: &'static str, length: Duration) {
    with_a_process(async |scene, process| {
        // The house is kept for the second time in the middle of a request.
        sleep(Duration::from_secs(10)).await;
        let ask = {
            let mut scene = scene.lock().unwrap();
            let index = scene.a_task_at_rest();
            scene.wish_of(index, Goal::Absent { force: true })
        };
        let accepted = process.operations.start(&process.services, &ask).await;
        assert!(accepted.is_ok(), "{accepted:?}");
        scene.lock().unwrap().world.hangs = true;
        sleep(Duration::from_millis(500)).await;
        scene.lock().unwrap().records.slow = Some(slow);
        let until = Instant::now() + length;
        let mut driven = 0;
        while Instant::now() < until {
            sleep(Duration::from_millis(100)).await;
            let (is_driven, has_lapsed) = {
                let scene = scene.lock().unwrap();
                let records = &scene.records;
                (records.is_driven(), records.has_lapsed(scene.now()))
            };
            driven += u32::from(is_driven);
            assert!(!has_lapsed, "{:?} before the end", until - Instant::now());
            assert!(process.operations.is_driven());
        }
        assert!(driven > 150, "{driven}");
    });
}

#[test]
fn whoever_waits_asks_the_record_if_it_fails_twice_in_a_row() {
    with_a_process(async |scene, process| {
        let ask = {
            let mut scene = scene.lock().unwrap();
            let index = scene.a_task_at_rest();
            scene.wish_of(index, Goal::Absent { force: true })
        };
        let accepted = process.operations.start(&process.services, &ask).await;
        let id = accepted.expect("it is accepted").operation.id;
        scene.lock().unwrap().world.hangs = true;
        let operations = process.operations.clone();
        process.run(async move {
            operations.wait(id, Duration::from_mins(1)).await.unwrap();
        });
        // It is followed from the next look on.
        sleep(Duration::from_secs(5)).await;
        let finds = || scene.lock().unwrap().counts.get("find").copied();
        let fail = async |seconds| {
            scene.lock().unwrap().records.failing = Some("progress");
            sleep(Duration::from_secs(seconds)).await;
            scene.lock().unwrap().records.failing = None;
            sleep(Duration::from_secs(5)).await;
        };
        let before = finds();
        fail(2).await;
        assert_eq!(finds(), before);
        fail(4).await;
        assert_eq!(finds(), before.map(|finds| finds + 1));
    });
}

#[test]
fn what_was_recorded_without_an_answer_goes_on_and_ends_as_if_there_had_been_one() {
    with_a_process(async |scene, process| {
        let ask = {
            let mut scene = scene.lock().unwrap();
            let index = scene.a_task_at_rest();
            scene.wish_of(index, Goal::Absent { force: true })
        };
        scene.lock().unwrap().records.losing = Some("save");
        let accepted = process.operations.start(&process.services, &ask).await;
        let id = accepted.expect("it is accepted").operation.id;
        sleep(Duration::from_mins(1)).await;
        let found = process.operations.show(id).await.unwrap().unwrap();
        assert_eq!(found.outcome, Some(Outcome::Deleted), "{found:?}");
        let sent = found.events.iter();
        let sent = sent.filter(|event| matches!(event.kind, EventKind::DeleteSent(_)));
        assert_eq!(sent.count(), 1);
        let ended = Ended {
            kind: found.goal.kind(),
            outcome: "deleted",
        };
        let ended = process
            .operations
            .0
            .metrics
            .ended
            .get_or_create(&ended)
            .get();
        assert_eq!(ended, 1);
    });
}
