use std::borrow::Borrow;

use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::domain::service::{ProjectName, ServiceName};

const AT: Timestamp = Timestamp::UNIX_EPOCH;
const ID: &str = "7a9a9540-ff28-4869-b9e4-855fbe120001";

fn read(document: impl Borrow<Value>) -> Option<Task> {
    let project = ProjectName::parse("prod").unwrap();
    let service = ServiceName::parse("sms").unwrap();
    let look = Sighting {
        project: &project,
        service: &service,
        at: AT,
    };
    task(document.borrow(), &look)
}

fn paused() -> Value {
    json!({
        "id": ID, "name": "erpweb01", "type": "MIGRATE_FILE", "os_type": "LINUX",
        "state": "ABORT", "connected": true, "estimate_complete_time": 1_767_700_000_000_u64,
        "create_date": 1_767_600_000_000_u64, "start_date": 1_767_600_100_000_u64,
        "finish_date": null, "priority": 1, "speed_limit": 0, "migrate_speed": 88.4,
        "compress_rate": 0.0, "start_target_server": true, "error_json": "",
        "total_time": 935_000, "vm_template_id": null, "enterprise_project_id": "0",
        "remain_seconds": 60_000, "clone_server": null,
        "sub_tasks": [{"id": 3517, "name": "MIGRATE_LINUX_FILE", "progress": 41,
            "start_date": 1_767_600_380_000_u64, "end_date": null, "user_op": "REPLICATE"}],
        "source_server": {"id": "621f2cb5", "ip": "192.0.2.176", "name": "ecs-4bb4",
            "oem_system": false, "state": "stopped", "migration_cycle": "replicating"},
        "target_server": {"id": "de35f45d", "name": "erpweb01-new", "disks": []},
    })
}

#[test]
fn a_paused_task_is_read_whole() {
    let task = read(paused()).unwrap();
    assert_eq!(task.reference.id.as_str(), ID);
    assert_eq!(task.reference.service.as_str(), "sms");
    assert_eq!(task.name.as_deref(), Some("erpweb01"));
    assert_eq!(task.stage, Stage::Paused);
    assert_eq!(task.gate, DeleteGate::Open);
    assert_eq!(task.upstream_state, "ABORT");
    assert_eq!(task.progress, None);
    assert_eq!(task.bytes, None);
    assert_eq!(task.objects, None);
    assert_eq!(task.bytes_per_second, None);
    assert_eq!(task.remaining_seconds, Some(60_000));
    assert_eq!(task.started_at, "2026-01-05T08:01:40Z".parse().ok());
    assert_eq!(task.error, None);
    assert_eq!(task.observed_at, AT);
}

#[test]
fn every_state_has_its_stage() {
    let rows = [
        ("READY", Stage::Ready),
        ("RUNNING", Stage::Running),
        ("SYNCING", Stage::Running),
        ("ABORTING", Stage::Pausing),
        ("ABORT", Stage::Paused),
        ("SYNC_F_ROLLBACK_SUCCESS", Stage::Paused),
        ("MIGRATE_FAIL", Stage::Failed),
        ("SYNC_FAIL", Stage::Failed),
        ("MIGRATE_SUCCESS", Stage::Succeeded),
        ("SYNC_SUCCESS", Stage::Succeeded),
        ("SKIPPING", Stage::Busy),
        ("RESETING", Stage::Busy),
        ("SYNC_F_ROLLBACKING", Stage::Busy),
        ("DELETING", Stage::Deleting),
        ("CUTOVER_FAIL", Stage::Unknown),
        ("REPLICATE_FAIL", Stage::Unknown),
        ("FAIL", Stage::Unknown),
        ("abort", Stage::Unknown),
        ("3", Stage::Unknown),
    ];
    for (state, stage) in rows {
        let task = read(json!({"id": ID, "state": state})).unwrap();
        assert_eq!(task.stage, stage, "{state}");
        assert_eq!(task.upstream_state, state);
    }
}

#[test]
fn the_gate_is_the_source_server() {
    let states = [
        "unavailable",
        "waiting",
        "initialize",
        "replicate",
        "syncing",
        "stopping",
        "stopped",
        "skipping",
        "deleting",
        "clearing",
        "cleared",
        "clearfailed",
        "premigready",
        "premiging",
        "premiged",
        "premigfailed",
        "cloning",
        "cutovering",
        "finished",
        "error",
    ];
    let closed = [
        "initialize",
        "stopping",
        "deleting",
        "cloning",
        "replicate",
        "syncing",
        "cutovering",
        "skipping",
        "clearing",
        "premiging",
    ];
    let gate = |connected: Value, source: Value| {
        let document = json!({"id": ID, "state": "ABORT", "connected": connected,
            "source_server": source});
        read(document).unwrap().gate
    };
    for state in states {
        let source = json!({"state": state});
        let connected = if closed.contains(&state) {
            DeleteGate::Closed
        } else {
            DeleteGate::Open
        };
        assert_eq!(gate(json!(true), source.clone()), connected, "{state}");
        assert_eq!(
            gate(json!(false), source.clone()),
            DeleteGate::Offline,
            "{state}"
        );
        assert_eq!(gate(json!(null), source), DeleteGate::Untold, "{state}");
    }
    for source in [
        json!(null),
        json!({}),
        json!({"state": null}),
        json!("syncing"),
    ] {
        assert_eq!(gate(json!(true), source), DeleteGate::Open);
    }
}

#[test]
fn a_row_of_the_list_lacks_members_and_is_a_task() {
    let task = read(json!({
        "id": ID, "name": "erpweb01", "state": "RUNNING", "migrate_speed": 88.4,
        "log_collect_status": "INIT", "syncing": true, "error_json": null,
        "source_server": {"id": "621f2cb5", "state": "replicate"},
    }))
    .unwrap();
    assert_eq!(task.gate, DeleteGate::Untold);
    assert_eq!(task.bytes_per_second, Some(11_050_000));
    assert_eq!(task.remaining_seconds, None);
    assert_eq!(task.started_at, None);
}

#[test]
fn the_error_is_json_in_a_text() {
    let error = |written: Value| {
        let document = json!({"id": ID, "state": "MIGRATE_FAIL", "error_json": written});
        read(document).unwrap().error
    };
    let told = |message: &str| {
        Some(TaskError {
            code: "SMS.0515".to_owned(),
            message: message.to_owned(),
        })
    };
    assert_eq!(
        error(json!(r#"{"error_code":"SMS.0515","error_param":"[]"}"#)),
        told("")
    );
    assert_eq!(
        error(json!(
            r#"{"error_code":"SMS.0515","error_msg":"Disks\tchanged"}"#
        )),
        told("Diskschanged")
    );
    assert_eq!(error(json!({"error_code": "SMS.0515"})), told(""));
    for garbage in [
        json!(""),
        json!(null),
        json!("{"),
        json!("[]"),
        json!("oops"),
        json!(7),
        json!("{}"),
        json!([1]),
        json!("\"SMS.0515\""),
        json!({"error_code": null}),
    ] {
        assert_eq!(error(garbage.clone()), None, "{garbage}");
    }
}

#[test]
fn a_document_without_id_or_state_is_no_task() {
    for document in [
        json!({"state": "ABORT"}),
        json!({"id": ID}),
        json!({"id": ID, "state": ""}),
        json!({"id": "a/b", "state": "ABORT"}),
        json!({"id": "", "state": "ABORT"}),
        json!([ID]),
        json!([ID, "name", "ABORT"]),
        json!(null),
    ] {
        assert_eq!(read(document.clone()), None, "{document}");
    }
}
