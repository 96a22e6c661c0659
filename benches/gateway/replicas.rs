//! What three gateways that share a PostgreSQL database cost together while operations wait for
//! tasks of the simulated cloud that never come to rest: the memory of each, and what all of them
//! ask of the database and of the cloud.
//!
//! The server is one of the benchmark's own, which does not wait for its disk. It counts the
//! statements itself (`pg_stat_statements`), those that begin and end transactions among them.

use std::{fs, path::Path, thread, time::Duration};

use migration_gateway::sandbox::{Cloud, CloudOptions, Operation};

use crate::{
    Outcome, Plan,
    figures::{row, table},
    gateway::{Gateway, NO_PACE},
    postgres::{Database, Server},
    wait_for,
    waiting::{ALL_PAUSING, SETTLE, stuck},
};

const REPLICAS: usize = 3;

pub(crate) fn measure(plan: &Plan) -> Outcome<String> {
    let server = Server::start(None);
    server.admin("ALTER SYSTEM SET shared_preload_libraries = 'pg_stat_statements'");
    server.stop();
    server.start_again();
    let database = server.database();
    database.sql("CREATE EXTENSION pg_stat_statements");
    let cloud = Cloud::start(CloudOptions::default())?;
    let password = tempfile::NamedTempFile::new()?;
    let replicas = start(&cloud, &database, password.path())?;
    let mut rows = vec![row([
        "waiting operations",
        "resident MiB of each",
        "CPU % of one core, all",
        "statements per second",
        "requests to the cloud per minute",
    ])];
    let mut waiting = 0;
    for wanted in plan.choose([0, 1_000, 10_000], [0, 20, 100]) {
        eprintln!("replicas: {wanted} operations");
        let tasks: Vec<String> = (waiting..wanted).map(|_| cloud.add_oms(stuck())).collect();
        delete_all(&replicas, &tasks)?;
        waiting = wanted;
        wait_for("all tasks to be asked to pause", ALL_PAUSING, || {
            Ok((cloud.count(Operation::Pause, None) == waiting).then_some(()))
        })?;
        thread::sleep(plan.choose(SETTLE, Duration::from_secs(2)));
        let observed = observe(&cloud, &replicas, (&database, waiting), plan)?;
        eprintln!("replicas: {}", observed.join(" | "));
        rows.push(observed);
        if cloud.count(Operation::Pause, None) != waiting {
            return Err("a task was asked to pause twice".into());
        }
    }
    Ok(table(&rows))
}

fn start(cloud: &Cloud, database: &Database, password: &Path) -> Outcome<[Gateway; REPLICAS]> {
    fs::write(password, database.password())?;
    let url = format!("\"{}\"", database.url());
    let file = format!("{{ file = \"{}\" }}", password.display());
    let record = [("store.url", url.as_str()), ("store.password", &file)];
    let settings: Vec<_> = NO_PACE.into_iter().chain(record).collect();
    let started: Vec<_> = (0..REPLICAS)
        .map(|_| Gateway::start(cloud, &cloud.oms_url(), &settings))
        .collect::<Outcome<_>>()?;
    <[Gateway; REPLICAS]>::try_from(started).map_err(|_| "another number of gateways".into())
}

/// Asks each gateway for its part of the deletes, all at once.
fn delete_all(replicas: &[Gateway; REPLICAS], tasks: &[String]) -> Outcome<()> {
    let parts = tasks.chunks(tasks.len().div_ceil(REPLICAS).max(1));
    thread::scope(|scope| {
        let asking: Vec<_> = replicas
            .iter()
            .zip(parts)
            .map(|(gateway, part)| {
                scope.spawn(|| gateway.delete_all(part).map_err(|error| error.to_string()))
            })
            .collect();
        for one in asking {
            one.join().map_err(|_| "a thread panicked")??;
        }
        Ok(())
    })
}

/// How many statements gateways have sent so far.
fn statements(database: &Database) -> u64 {
    // What is told of a statement is how many rows it gave.
    database.sql(
        "SELECT generate_series(1, CAST(SUM(calls) AS bigint)) FROM pg_stat_statements \
         JOIN pg_roles ON pg_roles.oid = userid WHERE rolname = 'gateway'",
    )
}

fn observe(
    cloud: &Cloud,
    replicas: &[Gateway; REPLICAS],
    (database, waiting): (&Database, usize),
    plan: &Plan,
) -> Outcome<Vec<String>> {
    let time = plan.choose(Duration::from_mins(1), Duration::from_secs(2));
    let requests = || cloud.count(Operation::Show, None) + cloud.count(Operation::List, None);
    let cpu = || -> Outcome<f64> { replicas.iter().map(Gateway::cpu_seconds).sum() };
    let (cpu_before, asked, told) = (cpu()?, requests(), statements(database));
    thread::sleep(time);
    let cpu = cpu()? - cpu_before;
    let (asked, told) = (requests() - asked, statements(database) - told);
    let mut memory = Vec::new();
    for gateway in replicas {
        let resident = gateway.memory()?.resident;
        memory.push(format!("{:.1}", resident / f64::from(1 << 20)));
    }
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let (asked, told) = (asked as f64, told as f64);
    let seconds = time.as_secs_f64();
    Ok(vec![
        waiting.to_string(),
        memory.join(", "),
        format!("{:.1}", 100.0 * cpu / seconds),
        format!("{:.1}", told / seconds),
        format!("{:.0}", 60.0 * asked / seconds),
    ])
}
