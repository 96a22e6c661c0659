use std::borrow::Borrow;

use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::domain::service::{ProjectName, ServiceName};

const AT: Timestamp = Timestamp::UNIX_EPOCH;

fn read(document: impl Borrow<Value>) -> Option<Task> {
    let project = ProjectName::parse("prod").unwrap();
    let service = ServiceName::parse("oms").unwrap();
    let look = Sighting {
        project: &project,
        service: &service,
        at: AT,
    };
    task(document.borrow(), &look)
}

fn running() -> Value {
    json!({
        "id": 204_871_530_992_144_u64, "name": "media-src-media-dst-417", "status": 2,
        "task_type": "prefix", "group_type": "NORMAL_TASK", "group_id": "",
        "description": "quarter 1", "progress": 0.522, "start_time": 1_767_608_131_000_u64,
        "total_time": 310_000, "left_time": 284_000, "total_num": 12_000,
        "successful_num": 6_200, "failed_num": 3, "skipped_num": 41,
        "total_size": 73_400_320_000_u64, "complete_size": 38_310_000_000_u64,
        "real_size": 73_100_000_000_u64, "migrate_speed": 19_871_000, "migrate_since": 0,
        "is_query_over": true,
        "bandwidth_policy": [{"start": "08:00", "end": "19:59", "max_bandwidth": 20_971_520}],
        "src_node": {"bucket": "media-src", "cloud_type": "Aliyun", "app_id": "",
            "object_key": ["2025/"], "list_file": null},
        "dst_node": {"bucket": "media-dst", "region": "cn-north-4", "save_prefix": "import/"},
        "error_reason": null,
        "failed_object_record": {"result": null, "list_file_key": null, "error_code": null},
        "smn_info": null, "source_cdn": null, "obs_system": "BUCKET",
    })
}

#[test]
fn a_running_task_is_read_whole() {
    let task = read(running()).unwrap();
    assert_eq!(task.reference.id.as_str(), "204871530992144");
    assert_eq!(task.reference.service.as_str(), "oms");
    assert_eq!(task.reference.project.as_str(), "prod");
    assert_eq!(task.name.as_deref(), Some("media-src-media-dst-417"));
    assert_eq!(task.stage, Stage::Running);
    assert_eq!(task.gate, DeleteGate::Open);
    assert_eq!(task.upstream_state, "2");
    assert_eq!(task.progress, Some(0.522));
    assert_eq!(
        task.bytes,
        Some(Amount {
            done: 38_310_000_000,
            total: 73_400_320_000
        })
    );
    assert_eq!(
        task.objects,
        Some(ObjectCounts {
            succeeded: 6_200,
            failed: 3,
            skipped: 41,
            total: 12_000
        })
    );
    assert_eq!(task.bytes_per_second, Some(19_871_000));
    assert_eq!(task.remaining_seconds, Some(284));
    assert_eq!(task.started_at, "2026-01-05T10:15:31Z".parse().ok());
    assert_eq!(task.error, None);
    assert_eq!(task.observed_at, AT);
}

#[test]
fn every_status_has_its_stage() {
    let rows = [
        ("0", Stage::Initialising),
        ("1", Stage::Queued),
        ("2", Stage::Running),
        ("3", Stage::Paused),
        ("4", Stage::Failed),
        ("5", Stage::Succeeded),
        ("6", Stage::Running),
        ("7", Stage::Pausing),
        ("8", Stage::Unknown),
        ("-1", Stage::Unknown),
        ("2.5", Stage::Unknown),
        ("RUNNING", Stage::Unknown),
    ];
    for (status, stage) in rows {
        let written = serde_json::from_str(status).unwrap_or_else(|_| json!(status));
        for written in [written, json!(status)] {
            let task = read(json!({"id": 1, "status": written})).unwrap();
            assert_eq!(task.stage, stage, "{status}");
            assert_eq!(task.upstream_state, status);
        }
    }
}

#[test]
fn what_the_service_does_not_tell_is_not_invented() {
    let mut nulls = running();
    for (name, member) in nulls.as_object_mut().unwrap() {
        if name != "id" && name != "status" {
            *member = Value::Null;
        }
    }
    let odd = json!({
        "id": "7", "status": 3, "name": "", "progress": 52, "start_time": 0, "left_time": -1,
        "total_num": 5, "total_size": 10, "migrate_speed": {}, "error_reason": "",
    });
    for document in [nulls, odd, json!({"id": 7, "status": 3})] {
        let task = read(document).unwrap();
        assert_eq!(task.name, None);
        assert_eq!(task.progress, None);
        assert_eq!(task.bytes, None);
        assert_eq!(task.objects, None);
        assert_eq!(task.bytes_per_second, None);
        assert_eq!(task.remaining_seconds, None);
        assert_eq!(task.started_at, None);
        assert_eq!(task.error, None);
    }
}

#[test]
fn a_document_without_id_or_state_is_no_task() {
    for document in [
        json!({"status": 2}),
        json!({"id": 1}),
        json!({"id": null, "status": null}),
        json!({"id": "7a9a9540-ff28", "status": 2}),
        json!({"id": 1_000_000_000_000_000_u64, "status": 2}),
        json!({"id": "../1", "status": 2}),
        json!({"id": 1, "status": {"a": 1}}),
        json!([]),
        json!([1, "name", 2]),
        json!("id"),
        json!(null),
    ] {
        assert_eq!(read(document.clone()), None, "{document}");
    }
}

#[test]
fn a_failed_task_says_why() {
    let task = read(json!({
        "id": 1, "status": 4,
        "error_reason": {"error_code": "TRF.0155", "error_msg": "The source bucket\n is missing."},
    }))
    .unwrap();
    let error = task.error.unwrap();
    assert_eq!(error.code, "TRF.0155");
    assert_eq!(error.message, "The source bucket is missing.");
}
