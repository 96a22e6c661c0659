//! Gateways that share a record, and die or stand still in the middle of the work.

use std::{
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use migration_gateway::sandbox::{
    Fault, FaultKind, OmsSpec, Operation, Service, SmsSpec, TaskSwitches,
};
use serde_json::Value;

use crate::support::{
    gateway::{Gateway, Place},
    postgres::Server,
    wait_for, wait_within,
};

const ASYNC: (&str, &str) = ("Prefer", "respond-async");
/// What a dead gateway drove is driven by another one after this.
const TAKEN_OVER_MAX: Duration = Duration::from_secs(10);

fn was_taken_over(operation: &Value) -> bool {
    let events = operation["events"].as_array().expect("events");
    events.iter().any(|event| event["event"] == "resumed")
}

#[test]
fn what_a_dead_gateway_drove_is_driven_by_another_one_within_ten_seconds() {
    take_over_from_the_dead(Place::new());
}

#[test]
fn what_a_dead_gateway_drove_is_driven_by_another_one_within_ten_seconds_on_a_server() {
    take_over_from_the_dead(Place::postgres());
}

fn take_over_from_the_dead(place: Place) {
    let place = place.set("upstream.request_timeout", "\"30s\"");
    let cloud = &place.cloud;
    let [one, other] = [place.start(), place.start()];
    let held: Vec<_> = (0..8)
        .map(|number| {
            let task = cloud.add_oms(OmsSpec::new(&number.to_string(), 2));
            // The look of the first round, after that before accepting.
            let fault = Fault::on(Service::Oms, Operation::Show, FaultKind::Hang);
            let fault = cloud.fault(fault.task(&task).skip(1));
            let operation = one.client().force_delete(&task);
            (task, fault, operation)
        })
        .collect();
    for (_, fault, _) in &held {
        wait_for("a round", || (fault.fired() == 1).then_some(()));
    }
    // Their leases have just begun.
    one.kill();
    wait_within(TAKEN_OVER_MAX, "looks by the other gateway", || {
        let is_seen = |task| cloud.count(Operation::Show, Some(task)) > 2;
        held.iter().all(|(task, ..)| is_seen(task)).then_some(())
    });
    let mut taken_over = 0;
    for (task, _, operation) in &held {
        let operation = other.client().ended(operation);
        assert_eq!(operation["outcome"], "deleted", "{operation}");
        assert_eq!(cloud.count(Operation::Delete, Some(task)), 1);
        taken_over += usize::from(was_taken_over(&operation));
    }
    assert!(taken_over > 0, "the dead gateway drove nothing");
}

/// Every request of this kind about these tasks.
fn sent(place: &Place, operation: Operation, tasks: &[String]) -> usize {
    let count = |task: &String| place.cloud.count(operation, Some(task));
    tasks.iter().map(count).sum()
}

fn changes(place: &Place, tasks: &[String]) -> usize {
    sent(place, Operation::Pause, tasks) + sent(place, Operation::Delete, tasks)
}

#[test]
fn a_gateway_that_stood_still_beyond_its_leases_sends_at_most_one_more_change() {
    // Tasks that are to be paused first, and tasks that are to be deleted.
    thread::scope(|scope| {
        for status in [2, 3] {
            scope.spawn(move || stand_still(status));
        }
    });
}

/// Stops a gateway that is about to send several changes, has another one end everything, and lets
/// it go on.
fn stand_still(status: i64) {
    let place = Place::postgres();
    let cloud = &place.cloud;
    let mut one = place.start();
    // The commits of intents to send a change take long, and no other write.
    place.sql(
        "CREATE FUNCTION take_long() RETURNS trigger LANGUAGE plpgsql \
         AS $$ BEGIN PERFORM pg_sleep(1); RETURN NULL; END $$; \
         CREATE CONSTRAINT TRIGGER intent AFTER UPDATE ON operations \
         DEFERRABLE INITIALLY DEFERRED FOR EACH ROW \
         WHEN (NEW.lease_owner IS NOT NULL AND NEW.updated_at <> OLD.updated_at) \
         EXECUTE FUNCTION take_long()",
    );
    let tasks: Vec<String> = (0..8)
        .map(|number| cloud.add_oms(OmsSpec::new(&number.to_string(), status)))
        .collect();
    let ask = |task: &String| one.client().force_delete(task);
    let operations: Vec<String> = tasks.iter().map(ask).collect();
    wait_for("intents", || {
        let committed = "SELECT 1 FROM pg_stat_activity \
                         WHERE datname = current_database() AND wait_event = 'PgSleep'";
        (place.sql(committed) >= 3).then_some(())
    });
    one.signal("STOP");
    place.sql("DROP TRIGGER intent ON operations");
    let other = place.start();
    let mut taken_over = 0;
    for operation in &operations {
        let operation = other.client().ended(operation);
        assert_eq!(operation["outcome"], "deleted", "{operation}");
        taken_over += usize::from(was_taken_over(&operation));
    }
    assert!(taken_over >= 3, "{taken_over} were taken over");
    let before = changes(&place, &tasks);
    one.signal("CONT");
    // Once it has ended in good order, nothing can come any more.
    one.signal("TERM");
    assert!(one.ended().success());
    let more = changes(&place, &tasks) - before;
    assert!(
        more <= 1,
        "{more} changes were sent after the leases had ended"
    );
    let deletes = sent(&place, Operation::Delete, &tasks);
    assert!(deletes <= tasks.len() + more, "{deletes} deletes");
    assert!(tasks.iter().all(|task| cloud.oms_status(task).is_none()));
}

/// Force deletes that are asked for while everything dies.
const DELETES: usize = 300;
/// How many gateways share them.
const REPLICAS: usize = 3;
/// How often a gateway is killed.
const KILLS: usize = 15;

#[test]
fn whatever_dies_every_delete_comes_to_its_end_and_none_is_sent_twice() {
    let server = Server::start(None);
    let place = Place::new().on(server.database());
    let cloud = &place.cloud;
    let tasks: Vec<String> = (0..DELETES)
        .map(|number| {
            let task = if number % 2 == 0 {
                cloud.add_oms(OmsSpec::new(&number.to_string(), 2))
            } else {
                cloud.add_sms(SmsSpec::new(&number.to_string(), "RUNNING"))
            };
            // As long as gateways die there is something to do.
            let switches = TaskSwitches {
                pause_delay: Some(Duration::from_millis(fastrand::u64(..12_000))),
                ..TaskSwitches::default()
            };
            assert!(cloud.switch(&task, switches));
            task
        })
        .collect();
    let replicas: [_; REPLICAS] = std::array::from_fn(|_| Mutex::new(place.start()));
    let operations = thread::scope(|scope| {
        scope.spawn(|| kill_one_after_another(&place, &server, &replicas));
        let asked = tasks.chunks(DELETES / 4).map(|tasks| {
            let ask = |task: &String| ask_until_answered(&replicas, task);
            scope.spawn(move || tasks.iter().map(ask).collect::<Vec<String>>())
        });
        let asked: Vec<_> = asked.collect();
        asked
            .into_iter()
            .flat_map(|lane| lane.join().expect("operations"))
            .collect::<Vec<String>>()
    });
    let mut taken_over = 0;
    let client = replicas[0].lock().expect("a gateway").client();
    for (task, operation) in tasks.iter().zip(&operations) {
        let operation = client.ended(operation);
        assert_eq!(operation["outcome"], "deleted", "{operation}");
        let deletes = cloud.count(Operation::Delete, Some(task));
        assert_eq!(deletes, 1, "{operation}");
        taken_over += usize::from(was_taken_over(&operation));
    }
    assert!(cloud.tasks().is_empty(), "a task is left");
    assert!(taken_over > 0, "no kill met a round");
    assert_eq!(place.sql("SELECT 1 FROM operations"), DELETES as u64);
}

/// Kills a gateway every second and starts it again. The server crashes twice, and drops its
/// connections at times.
fn kill_one_after_another(place: &Place, server: &Server, replicas: &[Mutex<Gateway>]) {
    for number in 0..KILLS {
        let next = Instant::now() + Duration::from_secs(1);
        let mut replica = replicas[number % replicas.len()].lock().expect("a gateway");
        replica.signal("KILL");
        if number % 8 == 4 {
            server.stop();
            server.start_again();
        } else if number % 3 == 0 {
            server.admin(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE application_name = 'migration-gateway'",
            );
        }
        *replica = place.start();
        drop(replica);
        // The rhythm is the point here, nothing is waited for.
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

/// Asks one gateway after the other, with a key that makes it the same request. Gives the id of the
/// operation.
fn ask_until_answered(replicas: &[Mutex<Gateway>], task: &str) -> String {
    let headers = [ASYNC, ("Idempotency-Key", task)];
    let path = format!("/tasks/{task}?force=pause");
    wait_for("an answer", || {
        let replica = &replicas[fastrand::usize(..replicas.len())];
        let client = replica.lock().expect("a gateway").client();
        let answer = client.send("DELETE", &path, &headers, None).ok()?;
        if answer.status == 503 {
            assert_eq!(answer.problem(), "store-unavailable", "{answer:?}");
            return None;
        }
        // The answer before may have died with its gateway, and the operation have ended since.
        let is_repeat = answer.header("idempotency-replayed").is_some();
        let expected = if is_repeat { &[200, 202][..] } else { &[202] };
        assert!(expected.contains(&answer.status), "{answer:?}");
        Some(answer.json()["id"].as_str().expect("an id").to_owned())
    })
}
