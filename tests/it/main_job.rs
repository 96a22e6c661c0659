//! `DELETE /tasks/{id}?force=pause`: the main job, from a caller's request to a task that is gone.

use migration_gateway::sandbox::{OmsSpec, Operation, SmsSpec};

use crate::support::gateway::Place;

#[test]
fn a_running_oms_task_is_paused_waited_for_deleted_and_verified_by_one_call() {
    let place = Place::new();
    let gateway = place.start();
    let id = place.cloud.add_oms(OmsSpec::new("logs", 2));

    let answer = gateway.client().delete(&format!("/tasks/{id}?force=pause"));

    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["outcome"], "deleted");
    assert_eq!(answer.json()["status"], "succeeded");
    assert_eq!(place.cloud.oms_status(&id), None);
    assert_eq!(place.cloud.count(Operation::Pause, Some(&id)), 1);
    assert_eq!(place.cloud.count(Operation::Delete, Some(&id)), 1);
    assert_eq!(place.cloud.tokens_issued(), 1);
}

#[test]
fn a_running_sms_task_is_paused_waited_for_deleted_and_verified_by_one_call() {
    let place = Place::new();
    let gateway = place.start();
    let id = place.cloud.add_sms(SmsSpec::new("web", "RUNNING"));

    let answer = gateway.client().delete(&format!("/tasks/{id}?force=pause"));

    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["outcome"], "deleted");
    assert_eq!(place.cloud.sms_state(&id), None);
    assert_eq!(place.cloud.count(Operation::Pause, Some(&id)), 1);
    assert_eq!(place.cloud.count(Operation::Delete, Some(&id)), 1);
}

#[test]
fn a_plain_delete_of_a_running_task_is_refused_and_nothing_is_sent() {
    let place = Place::new();
    let gateway = place.start();
    let oms = place.cloud.add_oms(OmsSpec::new("logs", 2));
    let sms = place.cloud.add_sms(SmsSpec::new("web", "RUNNING"));
    for id in [oms, sms] {
        let answer = gateway.client().delete(&format!("/tasks/{id}"));
        assert_eq!(answer.status, 409);
        assert_eq!(answer.problem(), "task-in-progress");
        assert_eq!(answer.json()["sent"], "no");
        assert_eq!(
            answer.json()["allowed"],
            serde_json::json!(["pause", "force=pause"])
        );
    }
    assert_eq!(place.cloud.count(Operation::Pause, None), 0);
    assert_eq!(place.cloud.count(Operation::Delete, None), 0);
}
