//! The documents of SMS tasks: the long one of a single task, and the shorter item of a list.

use serde_json::{Value, json};

use super::task::SmsTask;

/// Fields of a single task's document that a list's items do not have.
const NOT_IN_LIST: [&str; 10] = [
    "start_date",
    "finish_date",
    "region_id",
    "region_name",
    "project_id",
    "project_name",
    "connected",
    "vm_template_id",
    "remain_seconds",
    "subtask_info",
];

impl SmsTask {
    /// The document of this task for one read, which counts.
    pub(super) fn poll(&mut self, now: i64) -> Value {
        let document = self.document(now);
        self.count_poll();
        document
    }

    /// The item of this task in a list. It is a read too.
    pub(super) fn poll_in_list(&mut self, now: i64) -> Value {
        let mut item = self.poll(now);
        if let Some(fields) = item.as_object_mut() {
            fields.retain(|name, _| !NOT_IN_LIST.contains(&name.as_str()));
        }
        if let Some(source) = item["source_server"].as_object_mut() {
            source.remove("migration_cycle");
        }
        item["target_server"] = json!({"id": self.target_id(), "vm_id": null, "name": self.name});
        item["log_collect_status"] = json!("INIT");
        item["syncing"] = json!(self.syncing);
        item["special_config"] = json!([]);
        item
    }

    fn document(&self, now: i64) -> Value {
        let state = self.shown_state();
        let is_moving = state == "RUNNING" && self.state == "RUNNING";
        // SMS tells megabits per second, of 125 000 bytes each.
        let megabits = if is_moving {
            self.run.speed(self.bytes) / 125_000
        } else {
            0
        };
        let speed = f64::from(u32::try_from(megabits).unwrap_or(u32::MAX));
        json!({
            "id": self.id,
            "name": self.name,
            "type": if self.os_type == "WINDOWS" { "MIGRATE_BLOCK" } else { "MIGRATE_FILE" },
            "os_type": self.os_type,
            "state": state,
            "priority": 1,
            "speed_limit": 0,
            "region_id": self.region,
            "region_name": self.region,
            "project_id": self.project_id,
            "project_name": self.region,
            "enterprise_project_id": "0",
            "start_target_server": true,
            "migration_ip": self.target_ip(),
            "float_ip": self.target_ip(),
            "vm_template_id": null,
            "estimate_complete_time": is_moving.then(|| now + self.run.left(now)),
            "create_date": self.created,
            "start_date": self.started,
            "finish_date": self.finished,
            "connected": self.connected,
            "migrate_speed": speed,
            "compress_rate": 0.0,
            "error_json": error_json(state),
            "total_time": self.run.elapsed(now),
            "remain_seconds": self.run.left(now) / 1000,
            "target_snapshot_id": null,
            "clone_server": null,
            "sub_tasks": self.sub_tasks(speed, now),
            "source_server": self.source(),
            "target_server": self.target(),
            "network_check_info": null,
            "total_cpu_usage": 12.5,
            "agent_cpu_usage": 3.1,
            "total_mem_usage": 2048.0,
            "agent_mem_usage": 180.0,
            "total_disk_io": 40.0,
            "agent_disk_io": 12.0,
            "need_migration_test": false,
            "subtask_info": null,
        })
    }

    fn sub_tasks(&self, speed: f64, now: i64) -> Value {
        let Some(started) = self.started else {
            return json!([]);
        };
        let copy = if self.os_type == "WINDOWS" {
            "MIGRATE_WINDOWS_BLOCK"
        } else {
            "MIGRATE_LINUX_FILE"
        };
        let sub = |place: u32, name: &str, progress: u64, end: Option<i64>, speed: f64| {
            json!({
                "id": 3500 + self.serial * 10 + place, "name": name, "progress": progress,
                "start_date": started + i64::from(place) * 1000, "end_date": end,
                "migrate_speed": speed, "user_op": "REPLICATE", "process_trace": "",
            })
        };
        let end = self.run.is_done(now).then_some(self.finished).flatten();
        json!([
            sub(0, "SSL_CONFIG", 100, Some(started + 1000), 0.0),
            sub(1, "ATTACH_AGENT_IMAGE", 100, Some(started + 2000), 0.0),
            sub(2, copy, self.run.share(100, now), end, speed),
        ])
    }

    fn source(&self) -> Value {
        let cycle = match self.state.as_str() {
            "READY" => "setting",
            "SYNCING" | "SYNC_FAIL" => "syncing",
            "MIGRATE_SUCCESS" | "SYNC_SUCCESS" => "cutovered",
            _ => "replicating",
        };
        json!({
            "id": self.source_id,
            "ip": format!("192.0.2.{}", self.serial % 250 + 1),
            "name": format!("{}-source", self.name),
            "os_type": self.os_type,
            "os_version": self.os_version(),
            "oem_system": false,
            "state": self.source_state,
            "migration_cycle": cycle,
        })
    }

    fn target(&self) -> Value {
        json!({
            "id": self.target_id(), "vm_id": null, "name": self.name, "ip": null,
            "os_type": self.os_type, "os_version": null, "system_dir": null,
            "disks": [], "volume_groups": [], "btrfs_list": [],
            "image_disk_id": null, "cutovered_snapshot_ids": null,
        })
    }

    fn target_id(&self) -> String {
        format!("de35f45d-b6d5-4769-9148-{:012x}", self.serial)
    }

    fn target_ip(&self) -> String {
        format!("198.51.100.{}", self.serial % 250 + 1)
    }

    fn os_version(&self) -> &'static str {
        if self.os_type == "WINDOWS" {
            "WINDOWS2019_64BIT"
        } else {
            "CENTOS_7_6_64BIT"
        }
    }
}

/// A text that holds JSON when something is wrong, and nothing when all is well.
fn error_json(state: &str) -> &'static str {
    match state {
        "MIGRATE_FAIL" | "SYNC_FAIL" => r#"{"error_code":"SMS.0515","error_param":"[]"}"#,
        _ => "",
    }
}
