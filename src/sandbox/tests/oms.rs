//! OMS: documents, lists, the rules of each status, and the peculiarities.

use std::time::Duration;

use serde_json::{Value, json};

use super::{LONG, Reply, Setup, until};
use crate::sandbox::{AfterStop, ControlBody, Missing, OmsSpec, RunEnd, TaskSwitches};

const KEYS: &str = r#"{"src_ak":"SRCAK","src_sk":"SRCSK","dst_ak":"DSTAK","dst_sk":"DSTSK"}"#;

/// The code of an error, or nothing for success; every error here is HTTP 400.
fn code(reply: &Reply) -> String {
    if reply.status == 200 {
        return String::new();
    }
    assert_eq!(reply.status, 400);
    reply.code()
}

fn stop(setup: &Setup, id: &str) -> String {
    code(&setup.oms("POST", &format!("/{id}/stop"), ""))
}

fn start(setup: &Setup, id: &str) -> String {
    code(&setup.oms("POST", &format!("/{id}/start"), KEYS))
}

fn delete(setup: &Setup, id: &str) -> String {
    code(&setup.oms("DELETE", &format!("/{id}"), ""))
}

fn show(setup: &Setup, id: &str) -> Value {
    setup.oms("GET", &format!("/{id}"), "").json()
}

/// A cloud in which nothing happens by itself until the clock is moved.
fn still() -> Setup {
    Setup::new(|options| {
        options.pause_delay = LONG;
        options.start_delay = LONG;
        options.run_duration = 100 * LONG;
    })
}

fn add(setup: &Setup, status: i64) -> String {
    setup.cloud.add_oms(OmsSpec::new("media-src", status))
}

fn add_with(setup: &Setup, status: i64, switches: TaskSwitches) -> String {
    setup.cloud.add_oms(OmsSpec {
        switches,
        ..OmsSpec::new("media-src", status)
    })
}

#[test]
fn a_running_task_is_paused_over_time_and_started_again() {
    let setup = still();
    let id = add(&setup, 2);
    assert_eq!(stop(&setup, &id), "");
    assert_eq!(show(&setup, &id)["status"], 7);
    setup.cloud.advance(LONG);
    assert_eq!(show(&setup, &id)["status"], 3);
    assert_eq!(start(&setup, &id), "");
    assert_eq!(show(&setup, &id)["status"], 1);
    setup.cloud.advance(LONG);
    assert_eq!(show(&setup, &id)["status"], 2);
}

#[test]
fn the_default_delays_end_by_themselves() {
    let setup = Setup::new(|_| {});
    let id = add(&setup, 2);
    stop(&setup, &id);
    until("paused", || setup.cloud.oms_status(&id) == Some(3));
    start(&setup, &id);
    until("running", || setup.cloud.oms_status(&id) == Some(2));
}

#[test]
fn every_status_allows_what_is_documented_and_names_why_not() {
    let setup = still();
    // Status, then the answers to stop, start and delete.
    let rules = [
        (0, "OMS.0066", "OMS.0065", ""),
        (1, "OMS.0066", "OMS.0065", ""),
        (2, "", "OMS.0065", "OMS.0063"),
        (3, "OMS.0066", "", ""),
        (4, "OMS.0066", "", ""),
        (5, "OMS.0070", "OMS.0070", ""),
        (6, "OMS.0066", "OMS.0065", "OMS.0063"),
        (7, "OMS.0066", "OMS.0065", "OMS.0063"),
        (42, "OMS.0066", "OMS.0065", ""),
    ];
    for (status, on_stop, on_start, on_delete) in rules {
        assert_eq!(
            stop(&setup, &add(&setup, status)),
            on_stop,
            "stop in {status}"
        );
        assert_eq!(
            start(&setup, &add(&setup, status)),
            on_start,
            "start in {status}"
        );
        assert_eq!(
            delete(&setup, &add(&setup, status)),
            on_delete,
            "delete in {status}"
        );
    }
}

#[test]
fn the_open_questions_have_switches() {
    let setup = still();
    setup.cloud.configure(|options| {
        options.oms_refuses_delete_waiting = true;
        options.oms_stops_retrying = true;
        options.oms_missing = Missing::Http404;
        options.control_body = ControlBody::Text;
    });
    assert_eq!(delete(&setup, &add(&setup, 1)), "OMS.0063");
    let id = add(&setup, 6);
    let reply = setup.oms("POST", &format!("/{id}/stop"), "");
    assert_eq!((reply.status, reply.body.as_str()), (200, "success"));
    let reply = setup.oms("GET", "/99", "");
    assert_eq!((reply.status, reply.code().as_str()), (404, "OMS.1009"));
    setup
        .cloud
        .configure(|options| options.control_body = ControlBody::Braces);
    setup.cloud.set_oms_status(&id, 3);
    assert_eq!(setup.oms("DELETE", &format!("/{id}"), "").body, "{}");
}

#[test]
fn a_deleted_task_is_missing_for_every_call() {
    let setup = still();
    let id = add(&setup, 3);
    let reply = setup.oms("DELETE", &format!("/{id}"), "");
    assert_eq!((reply.status, reply.body.as_str()), (200, ""));
    assert_eq!(reply.header("content-length"), Some("0"));
    assert_eq!(code(&setup.oms("GET", &format!("/{id}"), "")), "OMS.1009");
    assert_eq!(stop(&setup, &id), "OMS.1009");
    assert_eq!(start(&setup, &id), "OMS.1009");
    assert_eq!(delete(&setup, &id), "OMS.1009");
    assert_eq!(setup.cloud.oms_status(&id), None);
    assert_eq!(code(&setup.oms("GET", "/not-a-number", "")), "OMS.0054");
    assert_eq!(code(&setup.oms("GET", "/1234567890123456", "")), "OMS.0054");
}

#[test]
fn a_start_needs_keys_which_are_kept_and_never_shown() {
    let setup = still();
    let id = add(&setup, 3);
    let start_with = |id: &str, body: &str| code(&setup.oms("POST", &format!("/{id}/start"), body));
    assert_eq!(start_with(&id, ""), "OMS.0067");
    assert_eq!(start_with(&id, "{}"), "OMS.0064");
    let without_source = r#"{"dst_ak":"DSTAK","dst_sk":"DSTSK","migrate_failed_object":true}"#;
    assert_eq!(start_with(&id, without_source), "OMS.0064");
    assert_eq!(setup.cloud.oms_start_keys(&id), None);
    assert_eq!(start_with(&id, KEYS), "");
    let keys = setup.cloud.oms_start_keys(&id).unwrap();
    assert_eq!(keys.src_sk.as_deref(), Some("SRCSK"));
    assert_eq!(keys.dst_ak.as_deref(), Some("DSTAK"));
    assert!(!format!("{keys:?}").contains("SK"));
    let shown = show(&setup, &id).to_string();
    assert!(!shown.contains("SRCAK") && !shown.contains("DSTSK"));
    let by_url = setup.cloud.add_oms(OmsSpec {
        task_type: "url_list".to_owned(),
        ..OmsSpec::new("urls", 4)
    });
    assert_eq!(start_with(&by_url, without_source), "");
    assert!(
        setup
            .cloud
            .oms_start_keys(&by_url)
            .unwrap()
            .migrate_failed_object
    );
}

#[test]
fn a_running_task_progresses_and_ends() {
    let setup = still();
    let run = |run_end| {
        setup.cloud.add_oms(OmsSpec {
            run_duration: Some(2 * LONG),
            run_end,
            ..OmsSpec::new("media-src", 2)
        })
    };
    let (good, bad) = (run(RunEnd::Success), run(RunEnd::Failure));
    setup.cloud.advance(LONG);
    let half = show(&setup, &good);
    assert_eq!(
        (half["status"].as_i64(), half["progress"].as_f64()),
        (Some(2), Some(0.5))
    );
    let close = |value: &Value, wanted: i64| (value.as_i64().unwrap() - wanted).abs() < 10_000;
    assert!(
        close(&half["left_time"], 3_600_000),
        "{}",
        half["left_time"]
    );
    assert!(close(&half["total_time"], 3_600_000));
    assert_eq!(half["successful_num"].as_i64().unwrap() / 100, 59);
    assert!(half["migrate_speed"].as_i64().unwrap() > 0);
    setup.cloud.advance(LONG);
    let end = show(&setup, &good);
    assert_eq!(
        (end["status"].as_i64(), end["progress"].as_f64()),
        (Some(5), Some(1.0))
    );
    assert_eq!(end["complete_size"], end["total_size"]);
    assert_eq!(end["error_reason"], Value::Null);
    let end = show(&setup, &bad);
    assert_eq!(end["status"], 4);
    assert_eq!(end["error_reason"]["error_code"], "TRF.0155");
    assert!(start(&setup, &bad).is_empty());
    let again = show(&setup, &bad);
    assert!(again["start_time"].as_i64() > end["start_time"].as_i64());
    assert_eq!(again["progress"].as_f64(), Some(0.0));
}

#[test]
fn a_list_is_filtered_and_paged_and_counts_all() {
    let setup = still();
    for number in 0..12 {
        let status = if number < 3 { 3 } else { 2 };
        setup
            .cloud
            .add_oms(OmsSpec::new(&format!("logs-{number}"), status));
    }
    setup.cloud.add_oms(OmsSpec {
        group_id: "g1".to_owned(),
        project_id: None,
        ..OmsSpec::new("other", 5)
    });
    setup.cloud.add_oms(OmsSpec {
        project_id: Some("elsewhere".to_owned()),
        ..OmsSpec::new("logs-x", 2)
    });
    let list = |query: &str| {
        let body = setup.oms("GET", query, "").json();
        let names = body["tasks"].as_array().unwrap().iter();
        let names: Vec<String> = names
            .map(|task| task["name"].as_str().unwrap().to_owned())
            .collect();
        (body["count"].as_u64().unwrap(), names)
    };
    let (count, names) = list("");
    assert_eq!((count, names.len(), names[0].as_str()), (13, 10, "other"));
    let (count, names) = list("?limit=5&offset=10");
    assert_eq!(
        (count, names),
        (13, vec!["logs-2".into(), "logs-1".into(), "logs-0".into()])
    );
    assert_eq!(list("?status=3").0, 3);
    assert_eq!(list("?task_name=gs-1&limit=100").0, 3);
    assert_eq!(list("?group_id=g1").1, vec!["other".to_owned()]);
    assert_eq!(list("?offset=50"), (13, vec![]));
    for (query, wanted) in [
        ("?limit=0", "OMS.0064"),
        ("?limit=101", "OMS.0064"),
        ("?limit=x", "OMS.0064"),
        ("?offset=-1", "OMS.0064"),
        ("?status=6", "OMS.0052"),
        ("?status=x", "OMS.0052"),
        ("?task_name=a%26b", "OMS.0064"),
    ] {
        assert_eq!(code(&setup.oms("GET", query, "")), wanted, "{query}");
    }
}

#[test]
fn ids_are_numbers_of_fifteen_digits() {
    let setup = still();
    let id = add(&setup, 2);
    let shown = show(&setup, &id);
    assert_eq!(shown["id"], json!(id.parse::<u64>().unwrap()));
    assert_eq!(id.len(), 15);
}

#[test]
fn a_stop_can_be_seen_late() {
    let setup = still();
    let id = add_with(
        &setup,
        2,
        TaskSwitches {
            late_polls: 2,
            ..TaskSwitches::default()
        },
    );
    assert_eq!(stop(&setup, &id), "");
    assert_eq!(setup.cloud.oms_status(&id), Some(7));
    let seen: Vec<Value> = (0..3)
        .map(|_| show(&setup, &id)["status"].clone())
        .collect();
    assert_eq!(seen, [json!(2), json!(2), json!(7)]);
}

#[test]
fn a_stop_can_be_overtaken_by_the_end_or_lead_nowhere() {
    let setup = still();
    for (after_stop, wanted) in [
        (AfterStop::Succeeded, 5),
        (AfterStop::Failed, 4),
        (AfterStop::Stuck, 7),
    ] {
        let switches = TaskSwitches {
            after_stop,
            ..TaskSwitches::default()
        };
        let id = add_with(&setup, 2, switches);
        assert_eq!(stop(&setup, &id), "");
        setup.cloud.advance(2 * LONG);
        assert_eq!(show(&setup, &id)["status"], wanted);
    }
}

#[test]
fn deletes_of_a_paused_task_can_be_refused_by_number_or_by_time() {
    let setup = still();
    let by_number = TaskSwitches {
        refuse_deletes: 2,
        ..TaskSwitches::default()
    };
    let id = add_with(&setup, 3, by_number);
    assert_eq!(delete(&setup, &id), "OMS.0063");
    assert_eq!(delete(&setup, &id), "OMS.0063");
    assert_eq!(delete(&setup, &id), "");
    let by_time = TaskSwitches {
        refuse_deletes_for: LONG,
        ..TaskSwitches::default()
    };
    let id = add_with(&setup, 3, by_time);
    assert_eq!(delete(&setup, &id), "OMS.0063");
    setup.cloud.advance(LONG);
    assert_eq!(delete(&setup, &id), "");
}

#[test]
fn accepted_calls_can_have_no_effect() {
    let setup = still();
    let id = add_with(
        &setup,
        2,
        TaskSwitches {
            ignore_stops: 1,
            ignore_starts: 1,
            ignore_deletes: 1,
            pause_delay: Some(Duration::ZERO),
            ..TaskSwitches::default()
        },
    );
    assert_eq!(stop(&setup, &id), "");
    assert_eq!(setup.cloud.oms_status(&id), Some(2));
    assert_eq!(stop(&setup, &id), "");
    assert_eq!(setup.cloud.oms_status(&id), Some(3));
    assert_eq!(start(&setup, &id), "");
    assert_eq!(setup.cloud.oms_status(&id), Some(3));
    assert_eq!(delete(&setup, &id), "");
    assert_eq!(setup.cloud.oms_status(&id), Some(3));
    assert_eq!(delete(&setup, &id), "");
    assert_eq!(setup.cloud.oms_status(&id), None);
}

#[test]
fn third_parties_change_and_remove_tasks() {
    let setup = still();
    let id = add(&setup, 2);
    assert!(setup.cloud.set_oms_status(&id, 42));
    assert_eq!(show(&setup, &id)["status"], 42);
    setup.cloud.advance(200 * LONG);
    assert_eq!(setup.cloud.oms_status(&id), Some(42));
    assert!(setup.cloud.remove(&id));
    assert!(!setup.cloud.remove(&id));
    assert!(!setup.cloud.set_oms_status(&id, 2));
}
