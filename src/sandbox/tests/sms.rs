//! SMS: documents, lists, actions, and the gate of the source server.

use serde_json::{Value, json};

use super::{LONG, Reply, Setup, exchange, until};
use crate::sandbox::{AfterStop, ControlBody, Missing, RunEnd, SmsGateCode, SmsSpec, TaskSwitches};

/// The code of an error, or nothing for success.
fn code(reply: &Reply) -> String {
    if reply.status == 200 {
        return String::new();
    }
    assert!(reply.status == 400 || reply.status == 404);
    reply.code()
}

fn delete(setup: &Setup, id: &str) -> String {
    code(&setup.sms("DELETE", &format!("/{id}"), ""))
}

fn show(setup: &Setup, id: &str) -> Value {
    setup.sms("GET", &format!("/{id}"), "").json()
}

/// The states of the task and of its source server.
fn states(setup: &Setup, id: &str) -> (String, String) {
    let shown = show(setup, id);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (
        text(&shown["state"]),
        text(&shown["source_server"]["state"]),
    )
}

fn pair(task: &str, source: &str) -> (String, String) {
    (task.to_owned(), source.to_owned())
}

fn still() -> Setup {
    Setup::new(|options| {
        options.pause_delay = LONG;
        options.delete_delay = LONG;
        options.run_duration = 100 * LONG;
    })
}

fn add(setup: &Setup, state: &str) -> String {
    setup.cloud.add_sms(SmsSpec::new("webserver01", state))
}

fn add_with(setup: &Setup, state: &str, switches: TaskSwitches) -> String {
    setup.cloud.add_sms(SmsSpec {
        switches,
        ..SmsSpec::new("webserver01", state)
    })
}

#[test]
fn a_task_is_paused_started_and_deleted_together_with_its_source() {
    let setup = still();
    let id = add(&setup, "RUNNING");
    assert_eq!(states(&setup, &id), pair("RUNNING", "replicate"));
    assert_eq!(delete(&setup, &id), "SMS.7719");
    assert_eq!(code(&setup.act(&id, "stop")), "");
    assert_eq!(states(&setup, &id), pair("ABORTING", "stopping"));
    assert_eq!(delete(&setup, &id), "SMS.7719");
    setup.cloud.advance(LONG);
    assert_eq!(states(&setup, &id), pair("ABORT", "stopped"));
    assert_eq!(code(&setup.act(&id, "start")), "");
    assert_eq!(states(&setup, &id), pair("RUNNING", "replicate"));
    assert_eq!(code(&setup.act(&id, "stop")), "");
    setup.cloud.advance(LONG);
    let reply = setup.sms("DELETE", &format!("/{id}"), "");
    assert_eq!((reply.status, reply.body.as_str()), (200, ""));
    assert_eq!(states(&setup, &id), pair("DELETING", "deleting"));
    assert_eq!(delete(&setup, &id), "SMS.7719");
    setup.cloud.advance(LONG);
    let gone = setup.sms("GET", &format!("/{id}"), "");
    assert_eq!((gone.status, gone.code().as_str()), (404, "SMS.7703"));
    setup
        .cloud
        .configure(|options| options.sms_missing = Missing::Http400);
    let gone = setup.sms("DELETE", &format!("/{id}"), "");
    assert_eq!((gone.status, gone.code().as_str()), (400, "SMS.7703"));
    assert_eq!(code(&setup.act(&id, "stop")), "SMS.7703");
}

#[test]
fn the_default_delays_end_by_themselves() {
    let setup = Setup::new(|_| {});
    let id = add(&setup, "RUNNING");
    setup.act(&id, "stop");
    until("paused", || {
        setup.cloud.sms_state(&id).as_deref() == Some("ABORT")
    });
    assert_eq!(delete(&setup, &id), "");
    until("gone", || setup.cloud.sms_state(&id).is_none());
}

#[test]
fn actions_are_refused_by_state() {
    let setup = still();
    // State, then the answers to stop, start and restart.
    let rules = [
        ("READY", "SMS.1038", "", "SMS.1040"),
        ("RUNNING", "", "SMS.1039", "SMS.1040"),
        ("SYNCING", "", "SMS.1039", "SMS.1040"),
        ("ABORTING", "SMS.1038", "SMS.1039", "SMS.1040"),
        ("ABORT", "SMS.1038", "", "SMS.1040"),
        ("MIGRATE_FAIL", "SMS.1038", "", ""),
        ("SYNC_FAIL", "SMS.1038", "", ""),
        ("MIGRATE_SUCCESS", "SMS.1038", "SMS.1039", "SMS.1040"),
        ("SKIPPING", "SMS.1038", "SMS.1039", "SMS.1040"),
        ("CUTOVER_READY", "SMS.1038", "SMS.1039", "SMS.1040"),
    ];
    for (state, on_stop, on_start, on_restart) in rules {
        for (operation, wanted) in [
            ("stop", on_stop),
            ("start", on_start),
            ("restart", on_restart),
        ] {
            let reply = setup.act(&add(&setup, state), operation);
            assert_eq!(code(&reply), wanted, "{operation} in {state}");
        }
    }
    let id = add(&setup, "RUNNING");
    assert_eq!(code(&setup.act(&id, "pause")), "SMS.9001");
    assert_eq!(
        code(&setup.sms("POST", &format!("/{id}/action"), "{")),
        "SMS.9001"
    );
    assert_eq!(setup.cloud.sms_state(&id).as_deref(), Some("RUNNING"));
}

#[test]
fn the_gate_is_the_connected_source_in_a_busy_state() {
    let setup = still();
    let closed = "initialize stopping deleting cloning replicate syncing cutovering skipping clearing premiging";
    for source in closed.split(' ') {
        let id = add(&setup, "ABORT");
        setup.cloud.set_sms_source(&id, source, true);
        assert_eq!(delete(&setup, &id), "SMS.7719", "{source}");
        setup.cloud.set_sms_source(&id, source, false);
        assert_eq!(delete(&setup, &id), "", "{source}");
    }
    let open = "unavailable waiting stopped cleared clearfailed premigready premiged premigfailed finished error";
    for source in open.split(' ') {
        let id = add(&setup, "RUNNING");
        setup.cloud.set_sms_source(&id, source, true);
        assert_eq!(delete(&setup, &id), "", "{source}");
    }
    setup
        .cloud
        .configure(|options| options.sms_gate_code = SmsGateCode::Sms2015);
    assert_eq!(delete(&setup, &add(&setup, "RUNNING")), "SMS.2015");
}

#[test]
fn the_source_can_lag_behind_its_paused_task() {
    let setup = still();
    let by_polls = TaskSwitches {
        source_lag_polls: 2,
        ..TaskSwitches::default()
    };
    let id = add_with(&setup, "SYNCING", by_polls);
    setup.act(&id, "stop");
    assert_eq!(states(&setup, &id), pair("ABORTING", "syncing"));
    setup.cloud.advance(LONG);
    assert_eq!(delete(&setup, &id), "SMS.7719");
    assert_eq!(states(&setup, &id), pair("ABORT", "syncing"));
    assert_eq!(states(&setup, &id), pair("ABORT", "syncing"));
    assert_eq!(states(&setup, &id), pair("ABORT", "stopped"));
    let by_time = TaskSwitches {
        source_lag: LONG,
        ..TaskSwitches::default()
    };
    let id = add_with(&setup, "SYNCING", by_time);
    setup.act(&id, "stop");
    setup.cloud.advance(LONG);
    assert_eq!(states(&setup, &id), pair("ABORT", "syncing"));
    setup.cloud.advance(LONG);
    assert_eq!(states(&setup, &id), pair("ABORT", "stopped"));
}

#[test]
fn without_its_agent_a_stop_hangs_until_it_comes_back() {
    let setup = still();
    let id = add(&setup, "RUNNING");
    setup.cloud.set_sms_source(&id, "replicate", false);
    setup.act(&id, "stop");
    setup.cloud.advance(10 * LONG);
    assert_eq!(states(&setup, &id).0, "ABORTING");
    assert_eq!(show(&setup, &id)["connected"], false);
    setup.cloud.set_sms_source(&id, "stopping", true);
    assert_eq!(states(&setup, &id), pair("ABORT", "stopped"));
    let other = add(&setup, "ABORTING");
    setup.cloud.set_sms_source(&other, "stopping", false);
    assert_eq!(delete(&setup, &other), "");
}

#[test]
fn a_run_ends_as_it_was_told() {
    let setup = still();
    let run = |syncing, run_end| {
        setup.cloud.add_sms(SmsSpec {
            syncing,
            run_end,
            run_duration: Some(2 * LONG),
            ..SmsSpec::new("webserver01", "READY")
        })
    };
    let good = run(false, RunEnd::Success);
    let syncs = run(true, RunEnd::Success);
    let bad = run(false, RunEnd::Failure);
    for id in [&good, &syncs, &bad] {
        assert_eq!(code(&setup.act(id, "start")), "");
    }
    setup.cloud.advance(LONG);
    let half = show(&setup, &good);
    assert_eq!(half["sub_tasks"][2]["progress"], 50);
    assert!(half["migrate_speed"].as_f64().unwrap() > 0.0);
    let left = half["remain_seconds"].as_i64().unwrap();
    assert!((3590..=3600).contains(&left), "{left}");
    setup.cloud.advance(LONG);
    assert_eq!(states(&setup, &good), pair("MIGRATE_SUCCESS", "finished"));
    assert_eq!(states(&setup, &syncs), pair("SYNCING", "syncing"));
    assert_eq!(states(&setup, &bad), pair("MIGRATE_FAIL", "error"));
    let error = show(&setup, &bad)["error_json"]
        .as_str()
        .unwrap()
        .to_owned();
    let error: Value = serde_json::from_str(&error).unwrap();
    assert_eq!(error["error_code"], "SMS.0515");
    assert_eq!(show(&setup, &good)["error_json"], "");
}

#[test]
fn a_list_is_filtered_and_paged_and_its_items_are_shorter() {
    let setup = still();
    let first = add(&setup, "RUNNING");
    for number in 0..4 {
        setup
            .cloud
            .add_sms(SmsSpec::new(&format!("mail{number}"), "ABORT"));
    }
    let list = |query: &str| setup.sms("GET", query, "").json();
    let names = |list: &Value| -> Vec<String> {
        let tasks = list["tasks"].as_array().unwrap().iter();
        tasks
            .map(|task| task["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let page = list("?state=ABORT&limit=2&offset=1");
    assert_eq!(page["count"], 4);
    assert_eq!(names(&page), ["mail2", "mail1"]);
    assert_eq!(names(&list("?name=web&limit=0")), ["webserver01"]);
    assert_eq!(list(&format!("?id={first}"))["count"], 1);
    let item = &list("?state=RUNNING")["tasks"][0];
    let source = item["source_server"]["id"].as_str().unwrap();
    assert_eq!(list(&format!("?source_server_id={source}"))["count"], 1);
    assert!(item.get("connected").is_none() && item.get("start_date").is_none());
    assert!(item["source_server"].get("migration_cycle").is_none());
    assert_eq!(item["log_collect_status"], "INIT");
    let shown = show(&setup, &first);
    assert_eq!(shown["source_server"]["migration_cycle"], "replicating");
    assert_eq!(shown["connected"], true);
    for query in [
        "?limit=201",
        "?offset=65536",
        "?limit=x",
        "?state=SYNC_FAIL",
    ] {
        assert_eq!(code(&setup.sms("GET", query, "")), "SMS.9001", "{query}");
    }
}

#[test]
fn the_old_checks_answer_401_with_a_good_token() {
    let setup = Setup::new(|options| options.sms_legacy_checks = true);
    let ask = |content_type: &str, body: &str| {
        let headers = format!("x-auth-token: {}\r\n{content_type}", setup.token);
        let reply = exchange(&setup.cloud.sms_url(), "GET /v3/tasks", &headers, body);
        (reply.status, reply.json()["error_code"].clone())
    };
    assert_eq!(ask("", ""), (401, json!("SMS.2005")));
    assert_eq!(
        ask("content-type: text/plain\r\n", ""),
        (401, json!("SMS.2006"))
    );
    let json_type = "content-type: application/json;charset=utf8\r\n";
    assert_eq!(
        ask(json_type, &"x".repeat(10_241)),
        (401, json!("SMS.2004"))
    );
    assert_eq!(ask(json_type, "").0, 200);
}

#[test]
fn bodies_and_ends_of_control_calls_can_be_chosen() {
    let setup = still();
    setup
        .cloud
        .configure(|options| options.control_body = ControlBody::Braces);
    let race = TaskSwitches {
        after_stop: AfterStop::Succeeded,
        late_polls: 1,
        ..TaskSwitches::default()
    };
    let id = add_with(&setup, "RUNNING", race);
    assert_eq!(setup.act(&id, "stop").body, "{}");
    assert_eq!(show(&setup, &id)["state"], "RUNNING");
    assert_eq!(show(&setup, &id)["state"], "ABORTING");
    setup.cloud.advance(LONG);
    assert_eq!(states(&setup, &id), pair("MIGRATE_SUCCESS", "finished"));
    let stubborn = TaskSwitches {
        refuse_deletes: 1,
        ignore_deletes: 1,
        ..TaskSwitches::default()
    };
    let id = add_with(&setup, "ABORT", stubborn);
    assert_eq!(delete(&setup, &id), "SMS.7719");
    assert_eq!(delete(&setup, &id), "");
    assert_eq!(states(&setup, &id).0, "ABORT");
    assert_eq!(delete(&setup, &id), "");
    assert_eq!(states(&setup, &id).0, "DELETING");
}

#[test]
fn third_parties_change_and_remove_tasks() {
    let setup = still();
    let id = add(&setup, "RUNNING");
    assert!(setup.cloud.set_sms_state(&id, "REPLICATE_FAIL"));
    assert_eq!(states(&setup, &id), pair("REPLICATE_FAIL", "replicate"));
    assert!(setup.cloud.remove(&id));
    assert!(!setup.cloud.set_sms_state(&id, "RUNNING"));
    assert!(!setup.cloud.set_sms_source(&id, "error", true));
}
