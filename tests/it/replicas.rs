//! Gateways that share a record on a server, and the server itself, which may be away.

use std::{
    collections::BTreeMap,
    sync::{Barrier, Mutex},
    thread,
};

use migration_gateway::sandbox::{OmsSpec, Operation, SmsSpec};
use serde_json::{Value, json};

use crate::support::{
    authority::Authority,
    gateway::{Gateway, Place},
    postgres::{Database, Server},
    wait_for,
};

const ASYNC: (&str, &str) = ("Prefer", "respond-async");
/// Races between two gateways.
const RACES: usize = 1000;
/// Races at the same time.
const LANES: usize = 4;

#[test]
fn a_running_task_is_paused_waited_for_deleted_and_verified_by_one_call() {
    let place = Place::postgres();
    let gateway = place.start();
    let (oms, sms) = (OmsSpec::new("logs", 2), SmsSpec::new("web", "RUNNING"));
    for id in [place.cloud.add_oms(oms), place.cloud.add_sms(sms)] {
        let answer = gateway.client().delete(&format!("/tasks/{id}?force=pause"));
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["outcome"], "deleted");
        assert_eq!(place.cloud.count(Operation::Pause, Some(&id)), 1);
        assert_eq!(place.cloud.count(Operation::Delete, Some(&id)), 1);
    }
    let log = gateway.log();
    assert!(!log.contains(Database::new().password()), "{log}");
}

/// Two requests at the same moment, one at each gateway, for the same task. Gives the ids of the
/// operations that they got.
fn race(gateways: &[Gateway; 2], task: &str, keys: [&str; 2]) -> [String; 2] {
    let start = Barrier::new(2);
    let ask = |gateway: &Gateway, key: &str| {
        let client = gateway.client();
        let path = format!("/tasks/{task}?force=pause");
        start.wait();
        let headers = [ASYNC, ("Idempotency-Key", key)];
        let answer = client.send("DELETE", &path, &headers, None);
        let answer = answer.expect("an answer");
        assert_eq!(answer.status, 202, "{answer:?}");
        answer.json()["id"].as_str().expect("an id").to_owned()
    };
    thread::scope(|scope| {
        let asked = [0, 1].map(|number| scope.spawn(move || ask(&gateways[number], keys[number])));
        asked.map(|one| one.join().expect("an id"))
    })
}

#[test]
fn of_two_requests_at_two_gateways_one_makes_an_operation_and_the_other_joins_it() {
    // The tasks pause for as long as the races go on, and nobody looks at them often.
    let place = Place::postgres()
        .set("operations.poll_min", "\"30s\"")
        .set("operations.poll_max", "\"60s\"")
        .set("limits.running_operations", "1000000");
    let gateways = [place.start(), place.start()];
    let tasks: Vec<String> = (0..RACES)
        .map(|number| place.cloud.add_oms(OmsSpec::new(&number.to_string(), 7)))
        .collect();
    let next = Mutex::new(tasks.iter().enumerate());
    let told = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..LANES {
            scope.spawn(|| {
                loop {
                    let race_of = next.lock().expect("tasks").next();
                    let Some((number, task)) = race_of else {
                        return;
                    };
                    // Every other time they say that they are the same request.
                    let (one, other) = (format!("{number}-a"), format!("{number}-b"));
                    let other = if number % 2 == 0 { &one } else { &other };
                    let [id, same] = race(&gateways, task, [&one, other]);
                    assert_eq!(id, same, "{task}");
                    told.lock().expect("ids").insert(task.clone(), id);
                }
            });
        }
    });
    assert_eq!(told.into_inner().expect("ids").len(), RACES);
    let rows = place.sql("SELECT 1 FROM operations WHERE status = 'running'");
    assert_eq!(rows, RACES as u64);
    assert_eq!(place.sql("SELECT 1 FROM operations"), RACES as u64);
    assert_eq!(
        place.sql("SELECT 1 FROM idempotency_keys"),
        (RACES + RACES / 2) as u64
    );
}

fn wait_until_ready(gateway: &Gateway, status: u16, failing: &Value) {
    wait_for("the word of /readyz", || {
        let answer = gateway.stranger().get("/readyz");
        (answer.status == status && answer.json()["failing"] == *failing).then_some(())
    });
}

#[test]
fn while_the_server_is_away_nothing_is_sent_and_the_work_goes_on_when_it_is_back() {
    let server = Server::start(None);
    let place = Place::new().on(server.database());
    let (gateway, cloud) = (place.start(), &place.cloud);
    wait_until_ready(&gateway, 200, &json!([]));
    // Tasks that wait to be deleted, and may not be before the record is back.
    let accepted: Vec<(String, String)> = (0..20)
        .map(|number| {
            let id = cloud.add_oms(OmsSpec::new(&number.to_string(), 7));
            let operation = gateway.client().force_delete(&id);
            (id, operation)
        })
        .collect();
    server.stop();
    wait_until_ready(&gateway, 503, &json!(["store"]));
    for (id, _) in &accepted {
        assert!(cloud.set_oms_status(id, 3));
    }
    let refused = cloud.add_oms(OmsSpec::new("refused", 2));
    let path = format!("/tasks/{refused}?force=pause");
    let answer = gateway.client().delete(&path);
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (503, "store-unavailable")
    );
    assert_eq!(answer.json()["sent"], "no");
    assert!(answer.header("retry-after").is_some());
    assert!(!answer.text.contains("127.0.0.1"), "{answer:?}");
    assert_eq!(gateway.stranger().get("/livez").status, 200);
    assert_eq!(cloud.count(Operation::Delete, None), 0);
    assert_eq!(cloud.count(Operation::Pause, None), 0);

    server.start_again();
    for (id, operation) in &accepted {
        assert_eq!(gateway.client().ended(operation)["outcome"], "deleted");
        assert_eq!(cloud.count(Operation::Delete, Some(id)), 1);
    }
    wait_until_ready(&gateway, 200, &json!([]));
    assert_eq!(gateway.client().delete(&path).status, 200);
    assert!(!gateway.log().contains(server.database().password()));
}

/// What hinders writes while the server is up.
#[derive(Clone, Copy, Debug)]
enum Hindrance {
    /// It answers as one whose disk is full.
    FullDisk,
    /// It is told to take no writes.
    ReadOnly,
    /// It drops the connection in the middle of the write.
    LostConnection,
}

impl Hindrance {
    fn begin(self, place: &Place) {
        let failing = |what: &str| {
            place.sql(&format!(
                "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {what}; RETURN NEW; END $$; \
                 CREATE TRIGGER failing BEFORE INSERT OR UPDATE ON operations \
                 FOR EACH ROW EXECUTE FUNCTION fail()"
            ));
        };
        match self {
            Self::FullDisk => failing(
                "RAISE EXCEPTION 'could not extend file: No space left on device' \
                 USING ERRCODE = 'disk_full'",
            ),
            Self::ReadOnly => place.configure_server("default_transaction_read_only", "on"),
            Self::LostConnection => failing("PERFORM pg_terminate_backend(pg_backend_pid())"),
        }
    }

    fn end(self, place: &Place) {
        match self {
            Self::FullDisk | Self::LostConnection => {
                place.sql("DROP FUNCTION fail CASCADE");
            }
            Self::ReadOnly => place.configure_server("default_transaction_read_only", "off"),
        }
    }
}

#[test]
fn while_the_server_takes_no_writes_nothing_is_sent_and_the_work_goes_on_when_it_does() {
    use Hindrance::{FullDisk, LostConnection, ReadOnly};
    thread::scope(|scope| {
        for hindrance in [FullDisk, ReadOnly, LostConnection] {
            scope.spawn(move || wait_for_writes(hindrance));
        }
    });
}

fn wait_for_writes(hindrance: Hindrance) {
    let place = Place::postgres();
    let (gateway, cloud) = (place.start(), &place.cloud);
    // Tasks that wait to be deleted.
    let accepted: Vec<(String, String)> = (0..5)
        .map(|number| {
            let id = cloud.add_oms(OmsSpec::new(&number.to_string(), 7));
            let operation = gateway.client().force_delete(&id);
            (id, operation)
        })
        .collect();
    hindrance.begin(&place);
    for (id, _) in &accepted {
        assert!(cloud.set_oms_status(id, 3));
    }
    let refused = cloud.add_oms(OmsSpec::new("refused", 2));
    let path = format!("/tasks/{refused}?force=pause");
    for _ in 0..5 {
        let answer = gateway.client().delete(&path);
        let what = (answer.status, answer.problem());
        assert_eq!(
            what,
            (503, "store-unavailable".to_owned()),
            "{hindrance:?}: {answer:?}"
        );
        assert_eq!(answer.json()["sent"], "no", "{hindrance:?}");
    }
    wait_until_ready(&gateway, 503, &json!(["store"]));
    wait_for("a failed write of the engine", || {
        let log = gateway.log();
        let failed = ["cannot be taken up", "cannot be recorded"];
        failed.iter().any(|what| log.contains(what)).then_some(())
    });
    assert_eq!(cloud.count(Operation::Delete, None), 0, "{hindrance:?}");
    assert_eq!(cloud.count(Operation::Pause, None), 0, "{hindrance:?}");

    hindrance.end(&place);
    for (id, operation) in &accepted {
        let operation = gateway.client().ended(operation);
        assert_eq!(operation["outcome"], "deleted", "{hindrance:?}");
        assert_eq!(cloud.count(Operation::Delete, Some(id)), 1);
    }
    // What was refused was not recorded, and can be asked for again.
    assert_eq!(place.sql("SELECT 1 FROM operations"), 5);
    wait_for("the record to be found again", || {
        (gateway.client().delete(&path).status == 200).then_some(())
    });
    wait_until_ready(&gateway, 200, &json!([]));
    assert!(!gateway.log().contains(Database::new().password()));
}

#[test]
fn a_server_that_cannot_prove_who_it_is_gets_no_password() {
    let authority = Authority::new();
    let listener = authority.listener();
    let server = Server::start(Some([&listener.pem, &listener.key_pem()]));
    let place = Place::new().on(server.database());
    place.secret("roots.pem", &authority.pem());
    place.secret("others.pem", &Authority::new().pem());
    let at = |place: Place, host: &str, roots: &str| {
        let database = place.url().replace("127.0.0.1", host);
        let roots = place.file(roots);
        let url = format!(
            "\"{database}?sslmode=verify-full&sslrootcert={}\"",
            roots.display()
        );
        place.set("store.url", &url)
    };
    let place = at(place, "127.0.0.1", "others.pem");
    let refusal = place.refusal();
    assert!(refusal.contains("certificate"), "{refusal}");
    let place = at(place, "127.0.0.2", "roots.pem");
    let refusal = place.refusal();
    assert!(
        refusal.contains("certificate") || refusal.contains("refused"),
        "{refusal}"
    );
    let place = at(place, "localhost", "roots.pem");
    let gateway = place.start();
    wait_until_ready(&gateway, 200, &json!([]));
    let encrypted = "SELECT 1 FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE application_name = 'migration-gateway' AND NOT ssl";
    assert_eq!(place.sql(encrypted), 0, "a connection is not encrypted");
    let encrypted = encrypted.replace("NOT ssl", "ssl");
    assert!(place.sql(&encrypted) > 0);

    // One that speaks no TLS at all.
    let plain = Place::new().on(Server::start(None).database());
    let url = format!("\"{}?sslmode=verify-full\"", plain.url());
    let refusal = plain.set("store.url", &url).refusal();
    assert!(refusal.contains("TLS"), "{refusal}");
}

#[test]
fn a_gateway_that_is_older_than_its_record_does_not_start() {
    let place = Place::postgres();
    place.start().kill();
    place.sql(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9000, 'of tomorrow', true, '', 0)",
    );
    let refusal = place.refusal();
    assert!(
        refusal.contains("a newer version of this program (schema 9000)"),
        "{refusal}"
    );
}

/// How many statements a gateway's user has sent to a server.
fn statements(place: &Place) -> u64 {
    // What is told of a statement is how many rows it gave.
    place.sql(
        "SELECT generate_series(1, CAST(SUM(calls) AS bigint)) FROM pg_stat_statements \
         JOIN pg_roles ON pg_roles.oid = userid WHERE rolname = 'gateway'",
    )
}

/// How many rounds of operations on OMS tasks gateways went through that learned of them from a
/// list.
fn rounds(gateways: &[Gateway]) -> u64 {
    let name = "operations_looks_total{service=\"oms\",by=\"board\"} ";
    let of = |gateway: &Gateway| {
        let metrics = gateway.client().get("/metrics").text;
        let line = metrics.lines().find_map(|line| line.split_once(name));
        line.map_or(0, |(_, count)| count.parse().expect("a number"))
    };
    gateways.iter().map(of).sum()
}

#[test]
fn a_round_in_which_nothing_changes_costs_a_few_statements() {
    const TASKS: u64 = 300;
    let server = Server::start(None);
    server.admin("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'");
    server.stop();
    server.start_again();
    let place = Place::new()
        .on(server.database())
        .set("operations.poll_max", "\"2s\"")
        .set("upstream.requests_per_second", "1000000")
        .set("upstream.burst", "1000000");
    place.sql("CREATE EXTENSION pg_stat_statements");
    let gateways = [place.start(), place.start(), place.start()];
    for (number, gateway) in (0..TASKS).zip(gateways.iter().cycle()) {
        // It stays half way to its pause.
        let task = place.cloud.add_oms(OmsSpec::new(&number.to_string(), 7));
        gateway.client().force_delete(&task);
    }
    let wait_for_rounds = |number| {
        let wanted = rounds(&gateways) + number;
        wait_for("rounds", || (rounds(&gateways) >= wanted).then_some(()));
    };
    wait_for_rounds(3 * TASKS);
    let (sent, gone) = (statements(&place), rounds(&gateways));
    wait_for_rounds(3 * TASKS);
    let gone = rounds(&gateways) - gone;
    let sent = statements(&place) - sent;
    println!("{sent} statements in {gone} rounds");
    assert!(sent <= 5 * gone, "{sent} statements in {gone} rounds");
}
