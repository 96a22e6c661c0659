//! What does not go away by itself: missing permissions, wrong passwords, tasks that do not obey,
//! and other people.

use std::{thread, time::Duration};

use migration_gateway::sandbox::{
    AfterStop, Cloud, CloudOptions, Fault, FaultKind, OmsSpec, Operation, Service, SmsSpec,
    TaskSwitches,
};
use serde_json::Value;

use crate::support::{
    gateway::{Gateway, Place},
    http::Answer,
    wait_for,
};

const BOTH: [Service; 2] = [Service::Oms, Service::Sms];

/// A running task with these peculiarities.
fn add(cloud: &Cloud, service: Service, switches: TaskSwitches) -> String {
    match service {
        Service::Sms => cloud.add_sms(SmsSpec {
            switches,
            ..SmsSpec::new("web", "RUNNING")
        }),
        Service::Oms | Service::Iam => cloud.add_oms(OmsSpec {
            switches,
            ..OmsSpec::new("logs", 2)
        }),
    }
}

fn plain() -> TaskSwitches {
    TaskSwitches::default()
}

fn force_delete(gateway: &Gateway, id: &str) -> Answer {
    gateway.client().delete(&format!("/tasks/{id}?force=pause"))
}

fn pause(gateway: &Gateway, id: &str) -> Answer {
    let path = format!("/tasks/{id}/pause");
    gateway
        .client()
        .with("POST", &path, ("Content-Length", "0"))
}

/// Begins a forced deletion, does something once `when` has been sent so often, and gives the
/// answer.
fn disturbed(
    place: &Place,
    gateway: &Gateway,
    id: &str,
    when: (Operation, usize),
    disturb: impl FnOnce(&Cloud),
) -> Answer {
    thread::scope(|scope| {
        let answer = scope.spawn(|| force_delete(gateway, id));
        wait_for("the moment", || {
            (place.cloud.count(when.0, Some(id)) >= when.1).then_some(())
        });
        disturb(&place.cloud);
        answer.join().expect("an answer")
    })
}

fn assert_deleted(answer: &Answer, outcome: &str) {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.json()["status"], "succeeded", "{answer:?}");
    assert_eq!(answer.json()["outcome"], outcome, "{answer:?}");
}

/// The problem, after checking that the operation in it tells the same.
fn assert_failed(answer: &Answer, status: u16, slug: &str, sent: &str) -> Value {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.problem(), slug, "{answer:?}");
    let problem = answer.json();
    assert_eq!(problem["sent"], sent, "{answer:?}");
    assert_eq!(problem["operation"]["status"], "failed", "{answer:?}");
    assert_eq!(problem["operation"]["error"]["type"], problem["type"]);
    assert_eq!(problem["operation"]["phase"], Value::Null);
    problem
}

#[test]
fn a_missing_permission_ends_the_operation_after_five_rounds_and_is_named() {
    let place = Place::new();
    let gateway = place.start();
    let cloud = &place.cloud;
    for service in BOTH {
        let own = match service {
            Service::Sms => "SMS.9004",
            Service::Oms | Service::Iam => "OMS.0206",
        };
        let ways = [
            (FaultKind::denied(service), own, true),
            (
                FaultKind::error(403, "APIGW.0302", "No."),
                "APIGW.0302",
                false,
            ),
        ];
        for (kind, code, reaches_service) in ways {
            for at in [Operation::Show, Operation::Pause, Operation::Delete] {
                let id = add(cloud, service, plain());
                let skip = u32::from(at == Operation::Show);
                let fault = Fault::on(service, at, kind.clone()).task(&id).skip(skip);
                let fault = cloud.fault(fault.always());
                let answer = force_delete(&gateway, &id);
                let reached =
                    at == Operation::Delete || (at == Operation::Pause && reaches_service);
                let sent = if reached { "yes" } else { "no" };
                let problem = assert_failed(&answer, 502, "upstream-forbidden", sent);
                assert_eq!(problem["upstream"]["error_code"], code, "{answer:?}");
                assert_eq!(problem["upstream"]["status"], 403, "{answer:?}");
                // Five rounds. A refused look over a connection that was used before is asked again
                // over a fresh one.
                let most = if at == Operation::Show { 10 } else { 5 };
                assert!((5..=most).contains(&fault.fired()), "{at:?} {answer:?}");
                fault.cancel();
            }
        }
    }
    assert_eq!(cloud.tokens_issued(), 1);
}

#[test]
fn a_password_that_is_refused_is_not_tried_again_and_again_and_operations_wait_for_a_right_one() {
    let options = CloudOptions {
        wrong_logins_before_lock: Some(3),
        ..CloudOptions::default()
    };
    let place = Place::with(options);
    let gateway = place.start();
    let cloud = &place.cloud;
    let id = add(cloud, Service::Oms, plain());
    cloud.set_password("changed-behind-the-gateway");
    let logins = || cloud.count(Operation::Login, None);
    thread::scope(|scope| {
        let caller = scope.spawn(|| force_delete(&gateway, &id));
        wait_for("the second try", || {
            let answer = gateway.client().get(&format!("/tasks/{id}"));
            assert_eq!(answer.status, 502);
            assert_eq!(answer.problem(), "credentials-refused");
            let problem = answer.json();
            assert_eq!(problem["upstream"]["service"], "iam");
            assert_eq!(problem["upstream"]["error_msg"], Value::Null);
            (logins() == 2).then_some(())
        });
        // It has come back when the gateway asked again, and not much more often.
        let running = gateway.client().get("/operations?status=running").json();
        assert_eq!(running["operations"][0]["status"], "running", "{running}");
        place.secret("password", "changed-behind-the-gateway");
        assert_deleted(&caller.join().expect("an answer"), "deleted");
    });
    assert_eq!((logins(), cloud.tokens_issued()), (3, 1));
}

#[test]
fn a_password_that_changes_in_the_middle_is_read_again_and_the_operation_goes_on() {
    let place = Place::new();
    let gateway = place.start();
    let id = add(&place.cloud, Service::Oms, plain());
    let answer = disturbed(&place, &gateway, &id, (Operation::Pause, 1), |cloud| {
        place.secret("password", "another-password");
        cloud.set_password("another-password");
    });
    assert_deleted(&answer, "deleted");
    assert_eq!(place.cloud.tokens_issued(), 2);
}

#[test]
fn a_delete_that_is_refused_for_a_while_after_the_pause_is_waited_for() {
    let place = Place::new();
    let gateway = place.start();
    let cloud = &place.cloud;
    let often = |refuse_deletes| TaskSwitches {
        refuse_deletes,
        ..plain()
    };
    let long = TaskSwitches {
        refuse_deletes_for: Duration::from_millis(1500),
        ..plain()
    };
    thread::scope(|scope| {
        for (service, switches, deletes) in [
            (Service::Oms, often(15), Some(16)),
            (Service::Sms, often(5), Some(6)),
            (Service::Oms, long.clone(), None),
        ] {
            let gateway = &gateway;
            scope.spawn(move || {
                let id = add(cloud, service, switches);
                let answer = force_delete(gateway, &id);
                assert_deleted(&answer, "deleted");
                let sent = cloud.count(Operation::Delete, Some(&id));
                assert!(deletes.is_none_or(|deletes| deletes == sent), "{sent}");
                assert_eq!(cloud.count(Operation::Pause, Some(&id)), 1);
            });
        }
        scope.spawn(|| {
            let id = add(cloud, Service::Sms, often(100));
            let problem = assert_failed(
                &force_delete(&gateway, &id),
                502,
                "upstream-rejected",
                "yes",
            );
            assert_eq!(problem["upstream"]["error_code"], "SMS.7719");
            assert_eq!(cloud.count(Operation::Delete, Some(&id)), 10);
        });
    });
}

#[test]
fn a_task_that_ignores_what_was_accepted_is_told_again_but_not_for_ever() {
    let place = Place::new();
    let gateway = place.start();
    let cloud = &place.cloud;
    thread::scope(|scope| {
        for service in BOTH {
            let gateway = &gateway;
            scope.spawn(move || {
                let deaf = TaskSwitches {
                    ignore_stops: u32::MAX,
                    ..plain()
                };
                let id = add(cloud, service, deaf);
                assert_failed(&force_delete(gateway, &id), 409, "task-in-progress", "yes");
                assert_eq!(cloud.count(Operation::Pause, Some(&id)), 5);
                assert_eq!(cloud.count(Operation::Delete, Some(&id)), 0);
            });
            scope.spawn(move || {
                let hard_of_hearing = TaskSwitches {
                    ignore_stops: 2,
                    ignore_deletes: 2,
                    ..plain()
                };
                let id = add(cloud, service, hard_of_hearing);
                assert_deleted(&force_delete(gateway, &id), "deleted");
                assert_eq!(cloud.count(Operation::Pause, Some(&id)), 3);
                assert_eq!(cloud.count(Operation::Delete, Some(&id)), 3);
            });
            scope.spawn(move || {
                let late = TaskSwitches {
                    late_polls: 2,
                    ..plain()
                };
                let id = add(cloud, service, late);
                assert_deleted(&force_delete(gateway, &id), "deleted");
                assert_eq!(cloud.count(Operation::Pause, Some(&id)), 1);
                assert_eq!(cloud.count(Operation::Delete, Some(&id)), 1);
            });
            for after_stop in [AfterStop::Succeeded, AfterStop::Failed] {
                let ends = TaskSwitches {
                    after_stop,
                    ..plain()
                };
                scope.spawn(move || {
                    let id = add(cloud, service, ends.clone());
                    assert_deleted(&force_delete(gateway, &id), "deleted");
                    let id = add(cloud, service, ends);
                    let answer = pause(gateway, &id);
                    assert_failed(&answer, 409, "task-finished", "yes");
                });
            }
        }
    });
}

#[test]
fn a_task_that_somebody_starts_again_in_the_middle_is_paused_again() {
    let place = Place::new();
    let gateway = place.start();
    for service in BOTH {
        let switches = TaskSwitches {
            refuse_deletes: 4,
            ..plain()
        };
        let id = add(&place.cloud, service, switches);
        let answer = disturbed(&place, &gateway, &id, (Operation::Delete, 1), |cloud| {
            let started = match service {
                Service::Sms => cloud.set_sms_state(&id, "RUNNING"),
                Service::Oms | Service::Iam => cloud.set_oms_status(&id, 2),
            };
            assert!(started, "it was gone already");
        });
        assert_deleted(&answer, "deleted");
        assert_eq!(place.cloud.count(Operation::Pause, Some(&id)), 2);
    }
}

#[test]
fn a_task_that_somebody_deletes_in_the_middle_is_gone_all_the_same() {
    let slow = CloudOptions {
        pause_delay: Duration::from_mins(10),
        ..CloudOptions::default()
    };
    let place = Place::with(slow);
    let gateway = place.start();
    let cloud = &place.cloud;
    for service in BOTH {
        let id = add(cloud, service, plain());
        let answer = disturbed(&place, &gateway, &id, (Operation::Pause, 1), |cloud| {
            assert!(cloud.remove(&id));
        });
        assert_deleted(&answer, "already_gone");
        assert_eq!(cloud.count(Operation::Delete, Some(&id)), 0);

        let id = add(cloud, service, plain());
        let answer = thread::scope(|scope| {
            let answer = scope.spawn(|| pause(&gateway, &id));
            wait_for("the pause", || {
                (cloud.count(Operation::Pause, Some(&id)) == 1).then_some(())
            });
            assert!(cloud.remove(&id));
            answer.join().expect("an answer")
        });
        assert_failed(&answer, 404, "task-not-found", "yes");

        // One whose delete was refused for certain is not the gateway's doing; one that was
        // accepted is.
        for (switches, outcome) in [
            (
                TaskSwitches {
                    refuse_deletes: 8,
                    ..plain()
                },
                "already_gone",
            ),
            (
                TaskSwitches {
                    ignore_deletes: 8,
                    ..plain()
                },
                "deleted",
            ),
        ] {
            let switches = TaskSwitches {
                pause_delay: Some(Duration::from_millis(20)),
                ..switches
            };
            let id = add(cloud, service, switches);
            let answer = disturbed(&place, &gateway, &id, (Operation::Delete, 1), |cloud| {
                assert!(cloud.remove(&id));
            });
            assert_deleted(&answer, outcome);
        }
    }
}

#[test]
fn an_operation_that_takes_too_long_says_what_was_seen_last() {
    let place = Place::new()
        .set("operations.deadline", "\"1s\"")
        .set("upstream.request_timeout", "\"300ms\"");
    let gateway = place.start();
    let cloud = &place.cloud;
    assert_eq!(gateway.client().get("/tasks").status, 200);
    let stuck = TaskSwitches {
        after_stop: AfterStop::Stuck,
        ..plain()
    };
    let hidden = |service| {
        let id = add(cloud, service, plain());
        let fault = Fault::on(service, Operation::Show, FaultKind::Hang).task(&id);
        cloud.fault(fault.skip(1).always());
        id
    };
    let mute = |service| {
        let id = add(cloud, service, plain());
        let fault = Fault::on(service, Operation::Pause, FaultKind::DropBeforeEffect).task(&id);
        cloud.fault(fault.always());
        id
    };
    let strange = [
        cloud.add_oms(OmsSpec::new("strange", 42)),
        cloud.add_sms(SmsSpec::new("strange", "CUTOVER_READY")),
    ];
    thread::scope(|scope| {
        for (service, strange) in BOTH.into_iter().zip(strange) {
            let trials = [
                (
                    add(cloud, service, stuck.clone()),
                    "last seen pausing",
                    "yes",
                ),
                (hidden(service), "never seen", "no"),
                (mute(service), "last seen running", "unknown"),
                (strange, "last seen unknown", "no"),
            ];
            for (id, words, sent) in trials {
                let gateway = &gateway;
                scope.spawn(move || {
                    let answer = force_delete(gateway, &id);
                    let problem = assert_failed(&answer, 504, "deadline-exceeded", sent);
                    let detail = problem["detail"].as_str().expect("a detail");
                    assert!(detail.contains(words), "{detail}");
                    assert_eq!(cloud.count(Operation::Delete, Some(&id)), 0);
                });
            }
        }
    });
}
