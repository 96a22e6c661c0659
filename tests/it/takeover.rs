//! Requests that meet: keys that make a repeat harmless, operations that take over, operations that
//! are cancelled.

use std::time::Duration;

use migration_gateway::sandbox::{
    self, Fault, FaultHandle, FaultKind, OmsSpec, Operation, Service, SmsSpec, TaskSwitches,
};
use serde_json::{Value, json};

use crate::support::{
    gateway::{Gateway, Place},
    http::{Answer, Client},
    wait_for,
};

/// A place with a second caller, who sees only what is their own.
fn place() -> Place {
    Place::new().caller(
        "other",
        "key-of-the-other-caller",
        "permissions = [\"*\"]\nprojects = [\"*\"]",
    )
}

/// A task whose pause never comes to its end by itself.
fn hanging(place: &Place) -> String {
    let id = place.cloud.add_oms(OmsSpec::new("logs", 2));
    let hour = std::time::Duration::from_hours(1);
    assert!(place.cloud.switch(
        &id,
        TaskSwitches {
            pause_delay: Some(hour),
            ..Default::default()
        }
    ));
    id
}

/// Lets the next change of this kind have its effect, and be answered, late: after longer than
/// three looks take, and sooner than an exchange must end.
fn late(place: &Place, service: Service, change: Operation, id: &str) -> FaultHandle {
    let late = FaultKind::DelayEffect(Duration::from_millis(1500));
    place.cloud.fault(Fault::on(service, change, late).task(id))
}

/// The operation by which a task is paused.
fn paused(client: &Client, id: &str) -> Value {
    let pause = format!("/tasks/{id}/pause");
    let answer = client.with("POST", &pause, ("prefer", "wait=20"));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn keyed(gateway: &Gateway, method: &str, path: &str, key: &str) -> Answer {
    gateway
        .client()
        .with(method, path, ("idempotency-key", key))
}

#[test]
fn a_repeat_with_the_same_key_answers_as_the_first_and_does_nothing() {
    let place = place();
    let gateway = place.start();
    let id = place.cloud.add_oms(OmsSpec::new("logs", 2));
    let path = format!("/tasks/{id}?force=pause");

    let first = keyed(&gateway, "DELETE", &path, "nightly-1");
    let again = keyed(&gateway, "DELETE", &path, "nightly-1");

    assert_eq!((first.status, again.status), (200, 200), "{again:?}");
    assert_eq!(first.json(), again.json());
    assert_eq!(first.header("idempotency-replayed"), None);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(place.cloud.count(Operation::Delete, Some(&id)), 1);

    let other = gateway.client_with("key-of-the-other-caller");
    let theirs = other.with("DELETE", &path, ("idempotency-key", "nightly-1"));
    assert_eq!(theirs.status, 404, "keys are each caller's own: {theirs:?}");
}

#[test]
fn the_same_key_with_another_request_is_refused() {
    let place = place().set("server.default_wait", "\"100ms\"");
    let gateway = place.start();
    let (one, two) = (hanging(&place), hanging(&place));
    let first = keyed(
        &gateway,
        "POST",
        &format!("/tasks/{one}/pause?project=default"),
        "k",
    );
    assert_eq!(first.status, 202, "{first:?}");
    for (method, path) in [
        ("POST", format!("/tasks/{two}/pause?project=default")),
        ("POST", format!("/tasks/{one}/pause")),
        ("DELETE", format!("/tasks/{one}?force=pause")),
    ] {
        let answer = keyed(&gateway, method, &path, "k");
        assert_eq!(answer.status, 422, "{method} {path}");
        assert_eq!(answer.problem(), "idempotency-key-reused");
    }
}

#[test]
fn a_refused_request_keeps_no_key_and_a_malformed_key_is_refused() {
    let place = place();
    let gateway = place.start();
    let id = place.cloud.add_oms(OmsSpec::new("logs", 2));
    let path = format!("/tasks/{id}");
    assert_eq!(keyed(&gateway, "DELETE", &path, "k").status, 409);
    assert!(place.cloud.set_oms_status(&id, 3));
    assert_eq!(keyed(&gateway, "DELETE", &path, "k").status, 200);
    let long = "x".repeat(65);
    for key in ["", "with space", &long] {
        let answer = keyed(&gateway, "DELETE", &path, key);
        assert_eq!(answer.status, 400, "{key:?}");
    }
}

#[test]
fn many_repeats_at_once_are_one_operation() {
    let place = place();
    let gateway = place.start();
    let id = place.cloud.add_oms(OmsSpec::new("logs", 2));
    let path = format!("/tasks/{id}?force=pause");
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..20)
            .map(|_| scope.spawn(|| keyed(&gateway, "DELETE", &path, "same")))
            .collect();
        racers
            .into_iter()
            .map(|racer| racer.join().expect("an answer"))
            .collect()
    });
    for answer in &answers {
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["id"], answers[0].json()["id"]);
    }
    let fresh = answers
        .iter()
        .filter(|one| one.header("idempotency-replayed").is_none());
    assert_eq!(fresh.count(), 1);
    assert_eq!(place.sql("SELECT 1 FROM operations"), 1);
    assert_eq!(place.cloud.count(Operation::Pause, Some(&id)), 1);
}

#[test]
fn a_force_delete_takes_over_from_a_pause_and_a_pause_from_a_start() {
    let place = place();
    let gateway = place.start();
    let id = hanging(&place);
    let client = gateway.client();
    let pause = client.ask("POST", &format!("/tasks/{id}/pause"), None);
    let waiting = {
        let (client, path) = (client.clone(), format!("/tasks/{id}/pause"));
        std::thread::spawn(move || client.with("POST", &path, ("prefer", "wait=20")))
    };
    wait_for("the pause at the cloud", || {
        (place.cloud.oms_status(&id) == Some(7)).then_some(())
    });

    let delete = client.force_delete(&id);

    let ended = waiting.join().expect("an answer");
    assert_eq!(ended.problem(), "operation-superseded", "{ended:?}");
    let link = format!("/operations/{delete}");
    assert_eq!(ended.json()["superseded_by"], link);
    let old = client.operation(&pause);
    assert_eq!(old["status"], "superseded");
    assert_eq!(old["superseded_by"], link);
    assert!(place.cloud.set_oms_status(&id, 3));
    let done = client.with("GET", &link, ("prefer", "wait=20"));
    assert_eq!(done.json()["outcome"], "deleted", "{done:?}");

    let sms = place.cloud.add_sms(SmsSpec::new("web", "SKIPPING"));
    let start = client.ask("POST", &format!("/tasks/{sms}/start"), None);
    let pause = client.ask("POST", &format!("/tasks/{sms}/pause"), None);
    assert_ne!(pause, start);
    let start = client.with(
        "POST",
        &format!("/tasks/{sms}/start"),
        ("prefer", "respond-async"),
    );
    assert_eq!(
        start.problem(),
        "operation-conflict",
        "a start does not take over"
    );
}

#[test]
fn a_link_to_the_operation_that_took_over_is_hidden_from_those_who_may_not_see_it() {
    let place = place();
    let gateway = place.start();
    let id = hanging(&place);
    let other = gateway.client_with("key-of-the-other-caller");
    let pause = gateway
        .client()
        .ask("POST", &format!("/tasks/{id}/pause"), None);
    other.force_delete(&id);
    let old = gateway.client().operation(&pause);
    assert_eq!(
        (&old["status"], &old["superseded_by"]),
        (&json!("superseded"), &json!(null))
    );
}

#[test]
fn an_operation_is_cancelled_by_its_requester_until_a_delete_was_sent() {
    let place = place();
    let gateway = place.start();
    let id = hanging(&place);
    let client = gateway.client();
    let operation = format!("/operations/{}", client.force_delete(&id));
    wait_for("the pause at the cloud", || {
        (place.cloud.oms_status(&id) == Some(7)).then_some(())
    });

    let other = gateway.client_with("key-of-the-other-caller");
    assert_eq!(other.post(&format!("{operation}/cancel")).status, 404);
    other.force_delete(&id);
    assert_eq!(other.post(&format!("{operation}/cancel")).status, 403);

    let cancelled = client.post(&format!("{operation}/cancel"));
    assert_eq!(cancelled.status, 200, "{cancelled:?}");
    assert_eq!(cancelled.json()["status"], "cancelled");
    let again = client.post(&format!("{operation}/cancel"));
    assert_eq!(
        (again.status, again.json()["status"].clone()),
        (200, json!("cancelled"))
    );
    assert_eq!(place.cloud.oms_status(&id), Some(7), "nothing is undone");

    let stubborn = place.cloud.add_oms(OmsSpec::new("logs", 3));
    let switches = TaskSwitches {
        ignore_deletes: 1000,
        ..Default::default()
    };
    assert!(place.cloud.switch(&stubborn, switches));
    let delete = client.ask("DELETE", &format!("/tasks/{stubborn}"), None);
    wait_for("a delete", || {
        (place.cloud.count(Operation::Delete, Some(&stubborn)) > 0).then_some(())
    });
    let late = client.post(&format!("/operations/{delete}/cancel"));
    assert_eq!(late.problem(), "past-point-of-no-return", "{late:?}");
}

#[test]
fn an_operation_that_is_cancelled_while_its_request_is_under_way_does_not_say_that_nothing_was_sent()
 {
    let place = place();
    let gateway = place.start();
    let id = hanging(&place);
    let late = FaultKind::Delay(Duration::from_secs(1));
    let fault = place
        .cloud
        .fault(Fault::on(Service::Oms, Operation::Pause, late).task(&id));
    let client = gateway.client();
    let operation = client.ask("POST", &format!("/tasks/{id}/pause"), None);
    let waiting = {
        let other = gateway.client_with("key-of-the-other-caller");
        let path = format!("/tasks/{id}/pause");
        std::thread::spawn(move || other.with("POST", &path, ("prefer", "wait=20")))
    };
    wait_for("the caller who waits", || {
        let events = client.operation(&operation)["events"].to_string();
        (place.cloud.oms_status(&id) == Some(7) && fault.fired() == 1 && events.contains("joined"))
            .then_some(())
    });
    assert_eq!(
        client
            .post(&format!("/operations/{operation}/cancel"))
            .status,
        200
    );

    let answer = waiting.join().expect("an answer");
    assert_eq!(answer.problem(), "operation-cancelled", "{answer:?}");
    assert_ne!(answer.json()["sent"], "no", "{answer:?}");
}

#[test]
fn a_delete_of_a_deleted_task_names_the_operation_that_did_it_to_those_who_may_see_it() {
    let place = place();
    let gateway = place.start();
    let id = place.cloud.add_oms(OmsSpec::new("logs", 3));
    let path = format!("/tasks/{id}");
    let done = gateway.client().delete(&path);
    assert_eq!(done.status, 200);

    let again = gateway.client().delete(&path);
    assert_eq!(again.problem(), "task-not-found");
    let link = format!("/operations/{}", done.json()["id"].as_str().expect("an id"));
    assert_eq!(again.json()["deleted_by"], link);
    let theirs = gateway.client_with("key-of-the-other-caller").delete(&path);
    assert_eq!(theirs.status, 404);
    assert_eq!(theirs.json()["deleted_by"], json!(null));
}

#[test]
fn a_deletion_is_named_also_after_another_operation_found_the_task_gone() {
    let place = place();
    let gateway = place.start();
    let id = place.cloud.add_oms(OmsSpec::new("logs", 3));
    let path = format!("/tasks/{id}");
    let done = gateway.client().delete(&path);
    assert_eq!(done.json()["outcome"], "deleted", "{done:?}");

    // A request whose first look fails is accepted. It is not repeated when the service asks for
    // more patience than that.
    let away = FaultKind::Answer(sandbox::Answer::empty(503).header("Retry-After", "3"));
    let away = Fault::on(Service::Oms, Operation::Show, away);
    place.cloud.fault(away.task(&id));
    let late = gateway.client().delete(&path);
    assert_eq!(late.json()["outcome"], "already_gone", "{late:?}");

    let again = gateway.client().delete(&path);
    let link = format!("/operations/{}", done.json()["id"].as_str().expect("an id"));
    assert_eq!(again.json()["deleted_by"], link, "{again:?}");
}

#[test]
fn a_delete_that_was_sent_is_the_doing_of_the_force_delete_that_takes_over() {
    let place = place();
    let gateway = place.start();
    let client = gateway.client();
    let other = gateway.client_with("key-of-the-other-caller");
    let id = place.cloud.add_oms(OmsSpec::new("logs", 3));
    let fault = Fault::on(Service::Oms, Operation::Show, FaultKind::DropBeforeEffect);
    let fault = place.cloud.fault(fault.task(&id).skip(2).always());
    let path = format!("/tasks/{id}");
    let plain = other.ask("DELETE", &path, None);
    wait_for("a look after the delete", || {
        (fault.fired() > 0).then_some(())
    });

    let path = format!("{path}?force=pause");
    let operation = client.force_delete(&id);
    let cancelled = client.post(&format!("/operations/{operation}/cancel"));
    assert_eq!(
        cancelled.problem(),
        "past-point-of-no-return",
        "{cancelled:?}"
    );
    fault.cancel();

    assert_eq!(client.ended(&operation)["outcome"], "deleted");
    assert_eq!(place.cloud.count(Operation::Delete, Some(&id)), 1);
    let again = client.delete(&path);
    let link = format!("/operations/{operation}");
    assert_eq!(again.json()["deleted_by"], link, "{again:?}");
    // Who may not see that one is shown their own, for which the delete was sent.
    let again = other.delete(&path);
    assert_eq!(
        again.json()["deleted_by"],
        format!("/operations/{plain}"),
        "{again:?}"
    );
}

#[test]
fn a_delete_that_was_sent_is_named_although_its_operation_did_not_see_the_task_go() {
    let place = place().set("operations.deadline", "\"1s\"");
    let gateway = place.start();
    let client = gateway.client();
    for is_taken_over in [false, true] {
        let id = place.cloud.add_oms(OmsSpec::new("logs", 3));
        let path = format!("/tasks/{id}");
        let blind = Fault::on(Service::Oms, Operation::Show, FaultKind::DropBeforeEffect);
        let blind = place.cloud.fault(blind.task(&id).skip(2).always());
        let mut operation = client.ask("DELETE", &path, None);
        wait_for("a look after the delete", || {
            (blind.fired() > 0).then_some(())
        });
        if is_taken_over {
            operation = client.ask("DELETE", &format!("{path}?force=pause"), None);
        }
        let failed = client.ended(&operation);
        assert_eq!(failed["error"]["type"], "/problems/deadline-exceeded");
        blind.cancel();
        wait_for("the service to be asked again", || {
            (client.get("/tasks").status == 200).then_some(())
        });

        let again = client.delete(&path);

        assert_eq!(again.problem(), "task-not-found", "{again:?}");
        let link = format!("/operations/{operation}");
        assert_eq!(again.json()["deleted_by"], link, "{again:?}");
    }
}

#[test]
fn a_delete_that_was_refused_deleted_nothing() {
    let place = place().set("operations.deadline", "\"1s\"");
    let gateway = place.start();
    let client = gateway.client();
    let id = place.cloud.add_oms(OmsSpec::new("logs", 3));
    let switches = TaskSwitches {
        refuse_deletes: 1000,
        ..Default::default()
    };
    assert!(place.cloud.switch(&id, switches));
    let refused = client.delete(&format!("/tasks/{id}"));
    assert_eq!(refused.problem(), "deadline-exceeded", "{refused:?}");
    assert!(place.cloud.remove(&id));
    let again = client.delete(&format!("/tasks/{id}"));
    assert_eq!(again.problem(), "task-not-found", "{again:?}");
    assert_eq!(again.json()["deleted_by"], json!(null));
}

#[test]
fn a_pause_pauses_the_task_that_a_start_it_took_over_from_still_starts() {
    let place = place();
    let gateway = place.start();
    let client = gateway.client();
    let id = place.cloud.add_sms(SmsSpec::new("web", "ABORT"));
    let slow = late(&place, Service::Sms, Operation::Start, &id);
    client.ask("POST", &format!("/tasks/{id}/start"), None);
    wait_for("the start", || (slow.fired() == 1).then_some(()));

    assert_eq!(paused(&client, &id)["outcome"], "paused");
    assert_eq!(place.cloud.sms_state(&id).as_deref(), Some("ABORT"));
    assert_eq!(place.cloud.count(Operation::Pause, Some(&id)), 1);
}

#[test]
fn a_pause_pauses_the_task_that_a_cancelled_start_still_starts() {
    let place = place();
    let gateway = place.start();
    let client = gateway.client();
    let id = place.cloud.add_sms(SmsSpec::new("web", "ABORT"));
    let slow = late(&place, Service::Sms, Operation::Start, &id);
    let start = client.ask("POST", &format!("/tasks/{id}/start"), None);
    wait_for("the start", || (slow.fired() == 1).then_some(()));
    let cancelled = client.post(&format!("/operations/{start}/cancel"));
    assert_eq!(cancelled.json()["status"], "cancelled", "{cancelled:?}");

    assert_eq!(paused(&client, &id)["outcome"], "paused");
    assert_eq!(place.cloud.sms_state(&id).as_deref(), Some("ABORT"));
    assert_eq!(place.cloud.count(Operation::Pause, Some(&id)), 1);
}

#[test]
fn a_start_starts_the_task_that_a_cancelled_pause_still_pauses() {
    let place = place();
    let gateway = place.start();
    let client = gateway.client();
    let id = place.cloud.add_sms(SmsSpec::new("web", "RUNNING"));
    let slow = late(&place, Service::Sms, Operation::Pause, &id);
    let pause = client.ask("POST", &format!("/tasks/{id}/pause"), None);
    wait_for("the pause", || (slow.fired() == 1).then_some(()));
    let cancelled = client.post(&format!("/operations/{pause}/cancel"));
    assert_eq!(cancelled.status, 200, "{cancelled:?}");

    let started = client.post(&format!("/tasks/{id}/start"));
    assert_eq!(started.json()["outcome"], "started", "{started:?}");
    assert_eq!(place.cloud.count(Operation::Start, Some(&id)), 1);
}

#[test]
fn a_look_that_takes_long_is_no_race_that_was_lost() {
    let place = place().set("upstream.request_timeout", "\"30s\"");
    let gateway = place.start();
    let client = gateway.client();
    let id = hanging(&place);
    let pause = client.ask("POST", &format!("/tasks/{id}/pause"), None);
    wait_for("the pause", || {
        (place.cloud.oms_status(&id) == Some(7)).then_some(())
    });
    // Longer than a request tries to record what it is for.
    let slow = FaultKind::Delay(Duration::from_secs(12));
    let slow = Fault::on(Service::Oms, Operation::Show, slow);
    let slow = place.cloud.fault(slow.task(&id).always());
    wait_for("a slow look", || (slow.fired() > 0).then_some(()));
    client.force_delete(&id);
    assert_eq!(client.operation(&pause)["status"], "superseded");
}

#[test]
fn a_pause_knows_of_a_start_that_was_cancelled_before_the_last_operation() {
    let place = place();
    let gateway = place.start();
    let client = gateway.client();
    let id = place.cloud.add_sms(SmsSpec::new("web", "ABORT"));
    let slow = late(&place, Service::Sms, Operation::Start, &id);
    let start = format!("/tasks/{id}/start");
    let first = client.ask("POST", &start, None);
    wait_for("the start", || (slow.fired() == 1).then_some(()));
    let cancel = |operation: &str| client.post(&format!("/operations/{operation}/cancel"));
    assert_eq!(cancel(&first).json()["status"], "cancelled");
    let refused = Fault::on(Service::Sms, Operation::Start, FaultKind::Hang).task(&id);
    place.cloud.fault(refused);
    let second = client.ask("POST", &start, None);
    assert_eq!(cancel(&second).json()["status"], "cancelled");

    assert_eq!(paused(&client, &id)["outcome"], "paused");
}

#[test]
fn a_pause_long_after_a_cancelled_start_looks_as_often_as_any_other() {
    let place = place();
    let gateway = place.start();
    let client = gateway.client();
    let id = place.cloud.add_sms(SmsSpec::new("web", "ABORT"));
    let hangs = Fault::on(Service::Sms, Operation::Start, FaultKind::DropBeforeEffect);
    let hangs = place.cloud.fault(hangs.task(&id).always());
    let start = client.ask("POST", &format!("/tasks/{id}/start"), None);
    wait_for("the start", || (hangs.fired() > 0).then_some(()));
    client.post(&format!("/operations/{start}/cancel"));
    gateway.kill();
    place.sql("UPDATE operations SET history = json_set(history, '$.sent_at', '2026-01-05T00:00:00Z', '$.start.unanswered', NULL)");
    let gateway = place.start();
    let client = gateway.client();
    let before = place.cloud.count(Operation::Show, Some(&id));

    assert_eq!(paused(&client, &id)["outcome"], "already_paused");
    // One before it is accepted, and one in its only round.
    assert_eq!(place.cloud.count(Operation::Show, Some(&id)) - before, 2);
}

#[test]
fn a_force_delete_that_takes_over_waits_for_the_answer_to_the_delete_that_was_sent() {
    let place = place();
    let gateway = place.start();
    let client = gateway.client();
    let id = place.cloud.add_oms(OmsSpec::new("logs", 3));
    let slow = late(&place, Service::Oms, Operation::Delete, &id);
    let plain = client.ask("DELETE", &format!("/tasks/{id}"), None);
    wait_for("the delete", || (slow.fired() == 1).then_some(()));

    let force = client.force_delete(&id);

    assert_ne!(plain, force);
    assert_eq!(client.ended(&force)["outcome"], "deleted");
    assert_eq!(place.cloud.count(Operation::Delete, Some(&id)), 1);
}

#[test]
fn operations_that_ended_long_ago_are_removed() {
    let place = place().set("operations.history", "\"1m\"");
    let gateway = place.start();
    let id = place.cloud.add_oms(OmsSpec::new("logs", 3));
    let done = keyed(&gateway, "DELETE", &format!("/tasks/{id}"), "k");
    let operation = format!("/operations/{}", done.json()["id"].as_str().expect("an id"));
    assert_eq!(gateway.client().get(&operation).status, 200);
    gateway.kill();
    place.age_operations();
    let gateway = place.start();
    wait_for("the removal", || {
        (gateway.client().get(&operation).status == 404).then_some(())
    });
    let fresh = keyed(&gateway, "DELETE", &format!("/tasks/{id}"), "k");
    assert_eq!(fresh.status, 404, "its key is forgotten too: {fresh:?}");
    assert_eq!(fresh.json()["deleted_by"], json!(null));
}
