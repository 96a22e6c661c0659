//! The house is kept, whatever is on record.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{task::LocalSet, time::sleep};

use super::{Scene, exchange::EXCHANGE_MAX, process::Process};
use crate::{
    domain::{operation::OperationId, start::StartRequest},
    operations::Settings,
};

#[test]
fn the_house_is_kept_where_an_operation_cannot_be_read_whose_keys_are_here() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        let scene = Arc::new(Mutex::new(Scene::new(1, false)));
        let id = OperationId::FIRST;
        {
            let mut scene = scene.lock().unwrap();
            scene.is_calm = true;
            scene.records.unreadable = Some(id);
        }
        let settings = Settings {
            deadline: Duration::from_mins(5),
            poll_min: Duration::from_secs(1),
            poll_max: Duration::from_secs(10),
            exchange_max: EXCHANGE_MAX,
            concurrency: 4,
            history: Duration::from_mins(3),
        };
        let process = Process::boot(&scene, &settings, 1);
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
