//! The documents of OMS tasks, with every documented field. They never hold a key.

use serde_json::{Value, json};

use super::task::{FAILED, OmsTask, RUNNING, SUCCEEDED, WAITING};

impl OmsTask {
    /// The document for one read, which counts.
    pub(super) fn poll(&mut self, now: i64) -> Value {
        let document = self.document(now);
        self.count_poll();
        document
    }

    fn document(&self, now: i64) -> Value {
        let status = self.shown_status();
        let done = self.run.share(self.objects, now);
        // One object in 300 was there before, one in 4000 fails.
        let (skipped, failed) = (done / 300, done / 4000);
        let speed = if status == RUNNING {
            self.run.speed(self.bytes)
        } else {
            0
        };
        json!({
            "id": self.id,
            "name": self.name,
            "status": status,
            "task_type": self.task_type,
            "group_type": if self.group_id.is_empty() { "NORMAL_TASK" } else { "GROUP_TASK" },
            "group_id": self.group_id,
            "description": "",
            "progress": self.progress(now),
            "start_time": self.start_time,
            "total_time": self.run.elapsed(now),
            "left_time": self.run.left(now),
            "total_num": self.objects,
            "successful_num": done - skipped - failed,
            "failed_num": failed,
            "skipped_num": skipped,
            "total_size": self.bytes,
            "complete_size": self.run.share(self.bytes, now),
            "real_size": self.bytes - self.bytes / 300,
            "migrate_speed": speed,
            "migrate_since": 0,
            "is_query_over": status > WAITING,
            "bandwidth_policy": [],
            "src_node": {
                "bucket": format!("{}-src", self.bucket()),
                "cloud_type": self.cloud_type,
                "region": if self.task_type == "url_list" { "" } else { "eu-central-1" },
                "app_id": "",
                "object_key": ["2025/"],
                "list_file": null,
            },
            "dst_node": {
                "bucket": format!("{}-dst", self.bucket()),
                "region": self.region,
                "save_prefix": "import/",
            },
            "error_reason": error_reason(status),
            "failed_object_record": {"result": null, "list_file_key": null, "error_code": null},
            "enable_failed_object_recording": true,
            "enable_metadata_migration": false,
            "enable_restore": false,
            "enable_kms": false,
            "enable_requester_pays": false,
            "smn_info": null,
            "source_cdn": null,
            "success_record_error_reason": null,
            "skip_record_error_reason": null,
            "object_overwrite_mode": "SIZE_LAST_MODIFIED_COMPARISON_OVERWRITE",
            "dst_storage_policy": "STANDARD",
            "consistency_check": "size_last_modified",
            "obs_system": "BUCKET",
            "task_priority": "MEDIUM",
        })
    }

    /// The share that is done, 0 to 1, in thousandths.
    fn progress(&self, now: i64) -> f64 {
        if self.status == SUCCEEDED {
            return 1.0;
        }
        let thousandths = self.run.share(1000, now);
        f64::from(u16::try_from(thousandths).unwrap_or(1000)) / 1000.0
    }

    fn bucket(&self) -> &str {
        self.name.split('-').next().unwrap_or_default()
    }
}

/// What went wrong with a failed task.
fn error_reason(status: i64) -> Value {
    if status == FAILED {
        json!({"error_code": "TRF.0155", "error_msg": "The source bucket does not exist."})
    } else {
        Value::Null
    }
}
