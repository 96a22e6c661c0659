//! One reading of the list in place of many looks: what it costs the cloud, and that it never
//! decides anything.

use std::{
    collections::HashSet,
    thread,
    time::{Duration, Instant},
};

use migration_gateway::sandbox::{
    Answer as CloudAnswer, Fault, FaultKind, OmsSpec, Operation, RecordedRequest, Service, SmsSpec,
};
use serde_json::{Value, json};

use crate::support::{
    gateway::{Gateway, Place},
    http::Client,
    wait_for,
};

/// A task of OMS that is being paused and stays so.
fn hanging(place: &Place) -> String {
    place.cloud.add_oms(OmsSpec::new("slow", 7))
}

/// So many forced deletes of tasks whose pause hangs, each having waited once at least.
fn waiting(place: &Place, client: &Client, tasks: usize) -> (Vec<String>, Vec<String>) {
    let tasks: Vec<String> = (0..tasks).map(|_| hanging(place)).collect();
    let ask = |task: &String| client.force_delete(task);
    let operations = tasks.iter().map(ask).collect();
    (tasks, operations)
}

/// The requests that are looks: at single tasks, and pages of the list.
fn looks(place: &Place) -> Vec<RecordedRequest> {
    let mut looks = place.cloud.requests();
    looks.retain(|one| [Operation::Show, Operation::List].contains(&one.operation));
    looks
}

fn is_list(request: &RecordedRequest) -> bool {
    request.operation == Operation::List
}

/// How many rounds of operations on OMS tasks learned of them like this.
fn rounds(client: &Client, by: &str) -> u64 {
    let metrics = client.get("/metrics").text;
    let name = format!("operations_looks_total{{service=\"oms\",by=\"{by}\"}} ");
    let line = metrics.lines().find_map(|line| line.split_once(&name));
    line.map_or(0, |(_, count)| count.parse().expect("a number"))
}

/// Waits until so many more rounds went by a row of the list.
fn wait_for_rows(client: &Client, more: u64) {
    let before = rounds(client, "board");
    let limit = Instant::now() + Duration::from_mins(2);
    while rounds(client, "board") < before + more {
        assert!(Instant::now() < limit, "no rows of the list serve");
        thread::park_timeout(Duration::from_millis(50));
    }
}

fn end_all(place: &Place, client: &Client, tasks: &[String], operations: &[String]) {
    for task in tasks {
        assert!(place.cloud.set_oms_status(task, 3));
    }
    for operation in operations {
        let ended = client.ended(operation);
        assert_eq!(ended["outcome"], "deleted", "{ended}");
    }
}

fn lines_with(gateway: &Gateway, text: &str) -> usize {
    gateway
        .log()
        .lines()
        .filter(|line| line.contains(text))
        .count()
}

#[test]
fn five_hundred_that_wait_cost_one_reading_of_the_list_in_each_round_of_looks() {
    const TASKS: usize = 500;
    const PAGES: usize = TASKS / 100;
    let place = Place::new()
        .set("operations.poll_min", "\"1s\"")
        .set("operations.poll_max", "\"4s\"")
        .set("upstream.request_timeout", "\"10s\"");
    let gateway = place.start();
    let client = gateway.client();
    let (tasks, operations) = waiting(&place, &client, TASKS);
    // Until everybody has come to the longest wait: those whose waits are shorter than what is
    // between two readings look for themselves.
    let limit = Instant::now() + Duration::from_mins(2);
    loop {
        place.cloud.clear_requests();
        wait_for_rows(&client, TASKS as u64);
        let (lists, single): (Vec<_>, Vec<_>) = looks(&place).into_iter().partition(is_list);
        // One look for each reading, to compare them.
        if single.len() <= lists.len() / PAGES {
            break;
        }
        assert!(Instant::now() < limit, "they go on looking for themselves");
    }
    place.cloud.clear_requests();
    let (begun, before) = (Instant::now(), rounds(&client, "board"));
    wait_for_rows(&client, 3 * TASKS as u64);
    let (took, looks) = (begun.elapsed(), looks(&place));
    let served = rounds(&client, "board") - before;
    let readings = looks
        .iter()
        .filter(|one| is_list(one) && one.query.contains("offset=0"))
        .count();
    println!(
        "{served} rounds by {readings} readings, {} calls in {took:?}",
        looks.len()
    );
    // A round of looks is over when everybody has been served once; one may be under way at either
    // end.
    let rounds_of_looks = usize::try_from(served).expect("a number").div_ceil(TASKS) + 1;
    assert!(
        looks.len() <= (1 + PAGES) * rounds_of_looks,
        "{} calls",
        looks.len()
    );
    // All pages of a reading, and one look for each.
    let lists = looks.iter().filter(|one| is_list(one)).count();
    assert!(lists <= PAGES * (readings + 1), "{lists} pages");
    assert!(looks.len() - lists <= readings + 1, "{looks:#?}");
    // The list is read once in the longest wait.
    let most = took.as_millis() / 4000 + 1;
    assert!(readings as u128 <= most, "{readings} readings in {took:?}");
    assert_eq!(
        lines_with(&gateway, "the list of tasks serves operations"),
        1
    );
    end_all(&place, &client, &tasks, &operations);
    assert_eq!(place.cloud.count(Operation::Pause, None), 0);
}

#[test]
fn a_change_that_a_row_shows_leads_to_a_look_and_that_to_the_end() {
    let place = Place::new();
    let gateway = place.start();
    let client = gateway.client();
    let (tasks, operations) = waiting(&place, &client, 30);
    wait_for_rows(&client, 90);
    // One is paused, one removed by another person, one fails; the others wait on.
    for (number, change) in [(3, Some(3)), (11, None), (22, Some(4))] {
        let (task, operation) = (&tasks[number], &operations[number]);
        place.cloud.clear_requests();
        match change {
            Some(status) => assert!(place.cloud.set_oms_status(task, status)),
            None => assert!(place.cloud.remove(task)),
        }
        let ended = client.ended(operation);
        let outcome = if change.is_some() {
            "deleted"
        } else {
            "already_gone"
        };
        assert_eq!(ended["outcome"], outcome, "{ended}");
        let looks = place.cloud.count(Operation::Show, Some(task));
        assert!(looks >= 2, "{looks} looks");
        // Others look only when a reading is compared with a look.
        let others = place.cloud.count(Operation::Show, Some(&tasks[0]));
        let readings = place.cloud.count(Operation::List, None);
        assert!(others <= readings, "{others} looks, {readings} readings");
    }
    let left: Vec<String> = [0, 1, 2, 4, 5, 6, 29].map(|n| tasks[n].clone()).into();
    let waiting: Vec<String> = [0, 1, 2, 4, 5, 6, 29].map(|n| operations[n].clone()).into();
    end_all(&place, &client, &left, &waiting);
}

#[test]
fn a_few_that_wait_look_for_themselves() {
    let place = Place::new();
    let gateway = place.start();
    let client = gateway.client();
    let (tasks, operations) = waiting(&place, &client, 19);
    let before = rounds(&client, "call");
    wait_for("some rounds", || {
        (rounds(&client, "call") > before + 190).then_some(())
    });
    assert_eq!(place.cloud.count(Operation::List, None), 0);
    end_all(&place, &client, &tasks, &operations);
}

/// A page of the list on which these tasks have this status.
fn page(tasks: &[String], status: i64) -> CloudAnswer {
    let rows: Vec<Value> = tasks
        .iter()
        .map(|task| json!({"id": task.parse::<u64>().expect("a number"), "status": status}))
        .collect();
    CloudAnswer::json(200, &json!({"tasks": rows, "count": rows.len()}))
}

#[test]
fn a_list_that_says_paused_or_gone_deletes_nothing_and_ends_nothing() {
    let place = Place::new();
    let gateway = place.start();
    let client = gateway.client();
    let (tasks, operations) = waiting(&place, &client, 25);
    let lies = [
        page(&tasks, 3),
        page(&tasks, 5),
        page(&tasks, 4),
        page(&tasks, 2),
        page(&tasks, 9),
        page(&[], 3),
        page(&tasks[..5], 7),
    ];
    for lie in lies {
        let kind = FaultKind::Answer(lie);
        let fault = Fault::on(Service::Oms, Operation::List, kind).always();
        let fault = place.cloud.fault(fault);
        let enough = || (fault.fired() > 4).then_some(());
        wait_for("some readings", enough);
        place.cloud.clear_requests();
        wait_for("looks at all of them", || {
            let looks = looks(&place);
            let seen: HashSet<_> = looks.iter().filter_map(|one| one.task.clone()).collect();
            (seen.len() >= 20).then_some(())
        });
        fault.cancel();
    }
    for change in [Operation::Pause, Operation::Delete] {
        assert_eq!(place.cloud.count(change, None), 0, "{change:?}");
    }
    for operation in &operations {
        assert_eq!(client.operation(operation)["status"], "running");
    }
    end_all(&place, &client, &tasks, &operations);
}

#[test]
fn a_list_that_lags_behind_holds_nobody_up() {
    let place = Place::new();
    let gateway = place.start();
    let client = gateway.client();
    let (tasks, operations) = waiting(&place, &client, 25);
    wait_for_rows(&client, 50);
    let old = FaultKind::Answer(page(&tasks, 7));
    let old = place
        .cloud
        .fault(Fault::on(Service::Oms, Operation::List, old).always());
    end_all(&place, &client, &tasks, &operations);
    assert!(old.fired() > 0);
    assert_eq!(
        lines_with(&gateway, "a look shows what the list does not"),
        1
    );
}

#[test]
fn a_row_that_never_changes_is_not_why_an_operation_fails() {
    let place = Place::new()
        .set("operations.deadline", "\"12s\"")
        .set("operations.poll_min", "\"1s\"")
        .set("operations.poll_max", "\"1s\"");
    let gateway = place.start();
    let client = gateway.client();
    let (tasks, operations) = waiting(&place, &client, 100);
    wait_for_rows(&client, 100);
    let old = FaultKind::Answer(page(&tasks, 7));
    let old = place
        .cloud
        .fault(Fault::on(Service::Oms, Operation::List, old).always());
    assert!(place.cloud.set_oms_status(&tasks[77], 3));
    let ended = client.ended(&operations[77]);
    assert_eq!(ended["outcome"], "deleted", "{ended}");
    assert!(old.fired() > 0);
}

#[test]
fn those_who_wait_do_not_all_look_when_a_service_is_no_longer_left_alone() {
    let place = Place::new()
        .set("operations.poll_min", "\"500ms\"")
        .set("operations.poll_max", "\"500ms\"");
    let gateway = place.start();
    let client = gateway.client();
    let (tasks, operations) = waiting(&place, &client, 60);
    wait_for_rows(&client, 120);
    let broken = || FaultKind::error(500, "OMS.1001", "Something broke.");
    for operation in [Operation::List, Operation::Show] {
        let fault = Fault::on(Service::Oms, operation, broken()).always();
        place.cloud.fault(fault);
    }
    wait_for("the breaker to open", || {
        (lines_with(&gateway, "the circuit breaker opened") > 0).then_some(())
    });
    place.cloud.clear_faults();
    place.cloud.clear_requests();
    wait_for_rows(&client, 60);
    let looks = place.cloud.count(Operation::Show, None);
    assert!(looks <= 30, "{looks} looks");
    end_all(&place, &client, &tasks, &operations);
}

#[test]
fn a_list_that_cannot_be_read_is_one_fault_and_nobody_is_stopped_by_it() {
    let place = Place::new();
    let gateway = place.start();
    let client = gateway.client();
    let kind = FaultKind::error(500, "OMS.1001", "Something broke.");
    let fault = Fault::on(Service::Oms, Operation::List, kind).always();
    let fault = place.cloud.fault(fault);
    let (tasks, operations) = waiting(&place, &client, 40);
    let line = "the list of tasks cannot be read for those who wait";
    wait_for("the last try for a while", || {
        (lines_with(&gateway, line) == 3).then_some(())
    });
    // Each with its retries.
    let fired = fault.fired();
    assert!((3..=9).contains(&fired), "{fired}");
    end_all(&place, &client, &tasks, &operations);
    assert_eq!(fault.fired(), fired);
    assert_eq!(lines_with(&gateway, line), 3);
    for operation in &operations {
        let events = client.operation(operation)["events"].clone();
        let events = events.as_array().expect("events");
        assert!(
            events.iter().all(|one| one["event"] != "fault"),
            "{events:?}"
        );
    }
    assert_eq!(rounds(&client, "board"), 0);
}

#[test]
fn those_who_were_served_do_not_all_look_when_the_list_fails() {
    let place = Place::new()
        .set("operations.poll_min", "\"2s\"")
        .set("operations.poll_max", "\"2s\"");
    let gateway = place.start();
    let client = gateway.client();
    let (tasks, operations) = waiting(&place, &client, 60);
    wait_for_rows(&client, 120);
    let kind = FaultKind::throttled();
    let fault = Fault::on(Service::Oms, Operation::List, kind).times(1);
    place.cloud.clear_requests();
    let fault = place.cloud.fault(fault);
    wait_for("the failure", || (fault.fired() == 1).then_some(()));
    wait_for_rows(&client, 60);
    let looks = place.cloud.count(Operation::Show, None);
    assert!(looks <= 15, "{looks} looks");
    end_all(&place, &client, &tasks, &operations);
}

#[test]
fn a_list_that_is_far_longer_than_those_who_wait_is_left_alone() {
    let place = Place::new();
    let gateway = place.start();
    let client = gateway.client();
    for _ in 0..1300 {
        place.cloud.add_oms(OmsSpec::new("old", 5));
    }
    let (tasks, operations) = waiting(&place, &client, 24);
    wait_for("some rounds", || {
        (rounds(&client, "call") > 240).then_some(())
    });
    // Its first page says how long it is.
    assert_eq!(place.cloud.count(Operation::List, None), 1);
    assert_eq!(lines_with(&gateway, "too long to serve so few"), 1);
    end_all(&place, &client, &tasks, &operations);
}

#[test]
fn a_source_that_goes_offline_is_found_although_the_list_does_not_tell() {
    let place = Place::new();
    let gateway = place.start();
    let client = gateway.client();
    let tasks: Vec<String> = (0..24)
        .map(|_| place.cloud.add_sms(SmsSpec::new("web", "ABORTING")))
        .collect();
    let operations: Vec<String> = tasks.iter().map(|task| client.force_delete(task)).collect();
    wait_for("rows", || {
        let metrics = client.get("/metrics").text;
        metrics
            .contains("operations_looks_total{service=\"sms\",by=\"board\"}")
            .then_some(())
    });
    for task in &tasks {
        assert!(place.cloud.set_sms_source(task, "stopping", false));
    }
    for operation in &operations {
        let ended = client.ended(operation);
        assert_eq!(ended["outcome"], "deleted", "{ended}");
    }
}

#[test]
fn rows_of_the_list_do_not_hold_up_starts_whose_keys_were_lost_with_their_process() {
    let place = Place::new()
        .set("operations.poll_min", "\"200ms\"")
        .set("operations.poll_max", "\"2s\"");
    let gateway = place.start();
    let client = gateway.client();
    let keys = json!({"access_key": "AK", "secret_key": "SK"});
    let start = json!({"source": keys, "destination": keys});
    let (waiting, operations) = waiting(&place, &client, 30);
    // They wait until the tasks are paused.
    let starts: Vec<String> = (0..30)
        .map(|_| format!("/tasks/{}/start", hanging(&place)))
        .map(|path| client.ask("POST", &path, Some(&start)))
        .collect();
    wait_for_rows(&client, 60);
    gateway.kill();
    let gateway = place.start();
    let client = gateway.client();
    for id in &starts {
        let ended = client.ended(id);
        assert_eq!(ended["error"]["type"], "/problems/credentials-lost");
        assert_eq!(ended["error"]["sent"], "no");
    }
    // The list went on serving those who may wait by it.
    wait_for_rows(&client, 30);
    assert_eq!(place.cloud.count(Operation::Start, None), 0);
    end_all(&place, &client, &waiting, &operations);
}
