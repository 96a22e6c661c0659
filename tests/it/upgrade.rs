//! A database of an earlier version of the program, opened by this one.

use std::{fmt::Write as _, fs, path::Path, thread};

use migration_gateway::sandbox::{Fault, FaultKind, OmsSpec, Operation, Service};
use serde_json::Value;
use sqlx::{Connection as _, migrate::Migrator};

use crate::support::{gateway::Place, http::Client, stuck, wait_for};

/// The version of the schema that this program makes.
const LATEST: i64 = 8;
const KEY: (&str, &str) = ("Idempotency-Key", "of-the-deletion");

/// Tables and columns as each version of the schema added them. What a column holds where a version
/// lacks it is what the later versions fill in.
const ADDED: [(i64, &str, &str); 7] = [
    (
        1,
        "operations",
        "id, project, service, task, project_id, region, endpoint, kind, force, source_credential, \
         destination_credential, inline_credentials, migrate_failed_objects, status, phase, outcome, failure, \
         superseded_by, requested_by, created_at, updated_at, deadline_at, finished_at, next_look_at, history, \
         last_seen, version, lease_owner, lease_until",
    ),
    (1, "operation_callers", "operation_id, caller, number"),
    (
        1,
        "operation_events",
        "operation_id, number, happened_at, kind, detail",
    ),
    (
        2,
        "idempotency_keys",
        "caller, key, operation_id, fingerprint",
    ),
    (3, "operations", "delete_sent"),
    (4, "operations", "owes_end"),
    (6, "operations", "kept_for"),
];

/// Puts the rows of the database into one that has the schema of an earlier version, and that in
/// the place of it.
fn go_back_to(version: i64, place: &Place) {
    let (present, old) = (place.file("operations.db"), place.file("old.db"));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        sqlx::any::install_default_drivers();
        let url = format!("sqlite://{}?mode=rwc", old.display());
        let connection = sqlx::AnyConnection::connect(&url).await;
        let mut connection = connection.expect("a database");
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/sqlite");
        let migrations = Migrator::new(folder).await.expect("migrations");
        let latest = migrations.iter().map(|one| one.version).max();
        assert_eq!(latest, Some(LATEST), "a version is not tried here");
        let made = migrations.run_direct(Some(version), &mut connection, false);
        made.await.expect("the tables");
        let mut copy = format!("ATTACH '{}' AS present;\n", present.display());
        for table in [
            "operations",
            "operation_callers",
            "operation_events",
            "idempotency_keys",
        ] {
            let added = ADDED
                .into_iter()
                .filter(|(since, of, _)| *since <= version && *of == table);
            let columns: Vec<&str> = added.map(|(_, _, columns)| columns).collect();
            if !columns.is_empty() {
                let columns = columns.join(", ");
                writeln!(
                    copy,
                    "INSERT INTO main.{table} ({columns}) SELECT {columns} FROM present.{table};"
                )
                .expect("text");
            }
        }
        let copied = sqlx::raw_sql(sqlx::AssertSqlSafe(copy))
            .execute(&mut connection)
            .await;
        copied.expect("the rows");
        connection.close().await.expect("an end");
    });
    for suffix in ["-wal", "-shm"] {
        // They may be gone already.
        let _removed = fs::remove_file(place.file(&format!("operations.db{suffix}")));
    }
    fs::rename(&old, &present).expect("to be moved");
}

/// The operations whose ends stand in the audit log, as often as they do.
fn told_ends(place: &Place) -> Vec<String> {
    let text = fs::read_to_string(place.file("audit/audit.log")).expect("an audit log");
    let lines = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"));
    let ends = lines.filter(|line: &Value| line["kind"] == "end");
    ends.map(|line| line["operation"].as_str().expect("an id").to_owned())
        .collect()
}

/// What a delete of a task that is not there says of the operation that deleted it.
fn deleted_by(client: &Client, task: &str) -> String {
    let answer = client.delete(&format!("/tasks/{task}"));
    assert_eq!(answer.problem(), "task-not-found", "{answer:?}");
    let link = answer.json()["deleted_by"].clone();
    let id = link
        .as_str()
        .and_then(|link| link.strip_prefix("/operations/"));
    id.unwrap_or_else(|| panic!("nothing deleted it: {answer:?}"))
        .to_owned()
}

/// A database with an operation that deleted a task, one that waits for a pause and one whose
/// delete was sent goes back to an earlier version, and is opened.
fn upgrade_from(version: i64) {
    let place = Place::new();
    let key = place.secret("audit-key", "0123456789abcdef0123456789abcdef");
    fs::create_dir(place.file("audit")).expect("a folder");
    let path = format!("\"{}\"", place.file("audit/audit.log").display());
    let place = place.set("audit.path", &path).set("audit.key", &key);
    let gateway = place.start();
    let client = gateway.client();

    let deleted = place.cloud.add_oms(OmsSpec::new("deleted", 3));
    let answer = client.with("DELETE", &format!("/tasks/{deleted}"), KEY);
    assert_eq!(answer.status, 200, "{answer:?}");
    let by = answer.json()["id"].as_str().expect("an id").to_owned();
    wait_for("the end to be told", || {
        (told_ends(&place) == [by.clone()]).then_some(())
    });

    let pausing = place.cloud.add_oms(stuck());
    let waits = client.force_delete(&pausing);
    wait_for("a pause", || {
        (place.cloud.oms_status(&pausing) == Some(7)).then_some(())
    });

    let unseen = place.cloud.add_oms(OmsSpec::new("unseen", 3));
    let fault = Fault::on(Service::Oms, Operation::Show, FaultKind::DropBeforeEffect);
    let fault = place.cloud.fault(fault.task(&unseen).skip(2).always());
    let sent = client.ask("DELETE", &format!("/tasks/{unseen}"), None);
    wait_for("a look after the delete", || {
        (fault.fired() > 0).then_some(())
    });

    let before = client.operation(&by);
    gateway.kill();
    // Its end counts as one that was not told.
    assert_eq!(
        place.sql(&format!(
            "UPDATE operations SET owes_end = 1 WHERE id = '{by}'"
        )),
        1
    );
    go_back_to(version, &place);
    fault.cancel();
    assert!(place.cloud.set_oms_status(&pausing, 3));

    let mut gateway = place.start();
    let client = gateway.client();
    assert_eq!(client.operation(&by), before, "{version}");
    for id in [&waits, &sent] {
        assert_eq!(client.ended(id)["outcome"], "deleted", "{version}");
    }
    assert_eq!(place.cloud.count(Operation::Delete, Some(&unseen)), 1);
    for (task, operation) in [(&deleted, &by), (&pausing, &waits), (&unseen, &sent)] {
        assert_eq!(deleted_by(&client, task), *operation, "{version}");
    }
    let again = client.with("DELETE", &format!("/tasks/{deleted}"), KEY);
    let expected = if version < 2 { 404 } else { 200 };
    assert_eq!(again.status, expected, "{version}: {again:?}");

    // Before there were audit logs nothing began in one, and so nothing ends there.
    let mut expected = vec![by.clone()];
    if version >= 4 {
        expected.extend([by, waits, sent]);
    }
    // An end of another process is left to it for a while.
    wait_for("the ends", || {
        (told_ends(&place).len() >= expected.len()).then_some(())
    });
    gateway.signal("TERM");
    assert!(gateway.ended().success());
    let mut told = told_ends(&place);
    told.sort();
    expected.sort();
    assert_eq!(told, expected, "{version}");
}

#[test]
fn a_database_of_every_earlier_version_is_read_right_and_carried_on() {
    thread::scope(|scope| {
        for version in 1..=LATEST {
            scope.spawn(move || upgrade_from(version));
        }
    });
}
