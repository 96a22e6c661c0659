//! Tasks to look at: every state of both services, under names as people give them.

use std::time::Duration;

use super::{Cloud, OmsSpec, RunEnd, SmsSpec, TaskSwitches};

const MINUTE: Duration = Duration::from_mins(1);

/// Adds the tasks. Their order fixes their ids, so further ones belong at the end.
pub(super) fn plant(cloud: &Cloud) {
    for spec in oms() {
        cloud.add_oms(spec);
    }
    for spec in sms() {
        cloud.add_sms(spec);
    }
}

fn oms() -> Vec<OmsSpec> {
    let task = |name: &str, status, done| OmsSpec {
        done,
        run_duration: Some(20 * MINUTE),
        ..OmsSpec::new(name, status)
    };
    vec![
        task("media-library-2025", 2, 310),
        task("invoices-archive", 2, 820),
        task("web-logs-eu", 3, 550),
        task("product-images", 4, 120),
        task("old-backups", 5, 1000),
        OmsSpec {
            then: Some((2 * MINUTE, 2)),
            ..task("sensor-data-raw", 1, 0)
        },
        OmsSpec {
            then: Some((MINUTE, 2)),
            ..task("training-videos", 6, 470)
        },
        OmsSpec {
            then: Some((MINUTE, 3)),
            ..task("map-tiles", 7, 680)
        },
        OmsSpec {
            then: Some((5 * MINUTE, 1)),
            ..task("scanned-contracts", 0, 0)
        },
        OmsSpec {
            task_type: "url_list".to_owned(),
            cloud_type: "URLSource".to_owned(),
            ..task("press-downloads", 3, 200)
        },
        OmsSpec {
            run_duration: Some(3 * MINUTE),
            run_end: RunEnd::Failure,
            ..task("flaky-source", 2, 0)
        },
        OmsSpec {
            switches: TaskSwitches {
                refuse_deletes: 2,
                ..TaskSwitches::default()
            },
            ..task("slow-to-settle", 2, 400)
        },
        task("strange-state", 42, 500),
    ]
}

fn sms() -> Vec<SmsSpec> {
    let task = |name: &str, state: &str, done| SmsSpec {
        done,
        run_duration: Some(30 * MINUTE),
        ..SmsSpec::new(name, state)
    };
    let windows = |spec| SmsSpec {
        os_type: "WINDOWS".to_owned(),
        ..spec
    };
    vec![
        task("webserver01", "RUNNING", 410),
        windows(task("fileserver02", "RUNNING", 150)),
        SmsSpec {
            syncing: true,
            ..task("database03", "SYNCING", 1000)
        },
        task("mailgate04", "ABORT", 330),
        task("buildhost05", "READY", 0),
        task("intranet06", "MIGRATE_SUCCESS", 1000),
        task("reporting07", "MIGRATE_FAIL", 640),
        SmsSpec {
            syncing: true,
            ..task("ledger08", "SYNC_FAIL", 1000)
        },
        SmsSpec {
            syncing: true,
            ..task("wiki09", "SYNC_SUCCESS", 1000)
        },
        SmsSpec {
            connected: false,
            ..task("branch10", "ABORTING", 220)
        },
        SmsSpec {
            source_state: Some("syncing".to_owned()),
            ..task("cache11", "ABORT", 900)
        },
        windows(task("terminal12", "SKIPPING", 700)),
        task("queue13", "RESETING", 500),
        task("search14", "SYNC_F_ROLLBACKING", 500),
        task("proxy15", "SYNC_F_ROLLBACK_SUCCESS", 500),
        SmsSpec {
            switches: TaskSwitches {
                delete_delay: Some(5 * MINUTE),
                ..TaskSwitches::default()
            },
            ..task("oldnas16", "DELETING", 100)
        },
        task("future17", "CUTOVER_READY", 1000),
    ]
}
