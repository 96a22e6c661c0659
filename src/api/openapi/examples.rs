//! Whole examples of documents.

use serde_json::{Value, json};

/// A caller.
pub(super) fn whoami() -> Value {
    json!({
        "name": "team-a", "authenticated_by": "key", "expires_at": null,
        "grants": [{
            "permissions": ["tasks:read", "tasks:pause", "operations:read"],
            "projects": ["default"], "services": ["oms"], "tasks": ["logs-*"],
        }],
    })
}

/// A plan.
pub(super) fn plan() -> Value {
    json!({
        "dry_run": true, "kind": "delete", "force": "pause",
        "task": {
            "id": "191297407830872", "service": "oms", "project": "default",
            "href": "/tasks/191297407830872",
        },
        "state": "running", "course": "begin", "operation": null, "next": "pause", "outcome": null,
        "why": "Task 191297407830872 is running: a pause would be sent next, and a delete once the task is at rest.",
    })
}

/// A task.
pub(super) fn task() -> Value {
    json!({
        "id": "191297407830872", "service": "oms", "project": "default", "name": "logs-2026",
        "state": "running", "upstream_state": "2", "actions": ["pause", "force_delete"],
        "progress": 0.52, "bytes": {"done": 38_310_000_000_u64, "total": 73_400_320_000_u64},
        "objects": {"succeeded": 6200, "failed": 3, "skipped": 41, "total": 12000},
        "bytes_per_second": 19_871_000, "remaining_seconds": 284,
        "started_at": "2026-01-05T10:15:31Z", "error": null,
        "observed_at": "2026-01-05T10:20:41Z", "operation": null,
    })
}

/// An operation that has ended.
pub(super) fn ended_operation() -> Value {
    let mut operation = running_operation();
    operation["status"] = json!("succeeded");
    operation["phase"] = Value::Null;
    operation["outcome"] = json!("deleted");
    operation["updated_at"] = json!("2026-01-05T10:20:46Z");
    operation["finished_at"] = json!("2026-01-05T10:20:46Z");
    if let Some(events) = operation["events"].as_array_mut() {
        events.extend([
            json!({"at": "2026-01-05T10:20:45Z", "event": "observed", "state": "paused"}),
            json!({"at": "2026-01-05T10:20:45Z", "event": "delete_sent"}),
            json!({"at": "2026-01-05T10:20:46Z", "event": "observed", "state": "gone"}),
            json!({"at": "2026-01-05T10:20:46Z", "event": "ended"}),
        ]);
    }
    operation
}

/// An operation that runs.
pub(super) fn running_operation() -> Value {
    json!({
        "id": "op_01JGZ4K8W3M5N7P9R1T3V5X7Z9", "kind": "delete", "force": "pause",
        "task": {
            "id": "191297407830872", "service": "oms", "project": "default",
            "href": "/tasks/191297407830872",
        },
        "status": "running", "phase": "waiting_until_paused", "outcome": null,
        "requested_by": "team-a",
        "created_at": "2026-01-05T10:20:41Z", "updated_at": "2026-01-05T10:20:42Z",
        "deadline_at": "2026-01-05T10:50:41Z", "finished_at": null,
        "events": [
            {"at": "2026-01-05T10:20:41Z", "event": "accepted"},
            {"at": "2026-01-05T10:20:41Z", "event": "observed", "state": "running"},
            {"at": "2026-01-05T10:20:42Z", "event": "pause_sent"},
        ],
        "error": null,
    })
}

/// How the gateway stands with the cloud.
pub(super) fn cloud_status() -> Value {
    json!({"projects": [{
        "project": "default",
        "credential": {
            "kind": "password", "state": "ok", "usable_until": "2026-01-06T10:14:29Z",
            "last_login_at": "2026-01-05T10:15:29Z", "last_error": null,
        },
        "services": [{
            "service": "oms",
            "breaker": {"state": "closed", "open_until": null},
            "pacer": {
                "requests_per_second": 50.0, "requests_per_second_max": 50.0,
                "paused_until": null, "waiting": 0,
            },
        }],
    }]})
}
