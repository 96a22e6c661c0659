//! Every statement against real files and a real server; two stores on one database stand for two
//! processes.

/// Tests of what both engines promise: functions of a place.
macro_rules! on_both_engines {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Place::new()).await;
            })+
        }
        mod postgres {
            $(#[tokio::test]
            async fn $name() {
                super::$name(super::Place::postgres()).await;
            })+
        }
    };
}

mod files;
mod leases;
mod lists;
mod many_unreadable;
mod odd_values;
mod processes;
mod records;
mod round_trip;
mod running;
#[path = "../../../tests/it/support/postgres.rs"]
mod server;
mod servers;
mod unreadable;

use std::{path::PathBuf, time::Duration};

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use sqlx::{Any, AnyPool, AssertSqlSafe, pool::PoolConnection};
use tempfile::TempDir;

use self::server::Database;
use super::{
    PostgresSettings, Settings, SqlOperationStore,
    claim::LeaseClock,
    unreadable::{Reader, Version},
};
use crate::domain::{
    history::History,
    operation::{EventKind, Goal, Operation, OperationEvent, OperationId, Outcome, Phase, Status},
    secret::Secret,
    service::{Binding, CallerName, ProjectName, ServiceName},
    start::StartRecord,
    store::{Creation, Lease, NewOperation, OperationStore as _},
    task::{TaskId, TaskRef},
};

/// A database of its own for a test: a file in a folder, unless there is one on a server.
struct Place {
    folder: TempDir,
    database: Option<Database>,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir();
        Self {
            folder: folder.expect("the system's folder for temporary files is writable"),
            database: None,
        }
    }

    fn postgres() -> Self {
        Self {
            database: Some(Database::new()),
            ..Self::new()
        }
    }

    /// Another one of the same engine.
    fn another(&self) -> Self {
        match self.database {
            Some(_) => Self::postgres(),
            None => Self::new(),
        }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("gateway.db")
    }

    async fn open(&self) -> SqlOperationStore {
        match &self.database {
            None => open(self.file()).await,
            Some(database) => {
                let mut store = SqlOperationStore::open(&settings(database)).await;
                // The tests have moments of their own.
                if let Ok(store) = &mut store {
                    store.lease_clock = LeaseClock::Caller;
                }
                store.expect("the store opens")
            }
        }
    }
}

fn settings(database: &Database) -> Settings {
    let server = PostgresSettings::parse(&database.url()).expect("an address");
    Settings::Postgres(server.with_password(Secret::new(database.password())))
}

async fn open(path: PathBuf) -> SqlOperationStore {
    SqlOperationStore::open(&Settings::Sqlite { path })
        .await
        .expect("the store opens")
}

/// Some fixed moment, this many seconds on.
fn moment(seconds: i64) -> Timestamp {
    Timestamp::constant(1_767_600_000, 0) + SignedDuration::from_secs(seconds)
}

fn task(id: &str) -> TaskRef {
    TaskRef {
        project: ProjectName::parse("prod").unwrap(),
        service: ServiceName::parse("oms").unwrap(),
        id: TaskId::parse(id).unwrap(),
    }
}

fn caller(name: &str) -> CallerName {
    CallerName::parse(name).unwrap()
}

fn event(seconds: i64, kind: EventKind) -> OperationEvent {
    OperationEvent {
        at: moment(seconds),
        kind,
    }
}

/// A fresh operation of `team-a` on this task, accepted and to be looked at at second 0.
fn fresh(id: &str) -> Operation {
    Operation {
        id: OperationId::at(moment(0)),
        task: task(id),
        binding: Binding {
            project_id: "0215ef11e49d4743be23dd97a1561e91".to_owned(),
            region: "cn-north-4".to_owned(),
            endpoint: "https://oms.cn-north-4.myhuaweicloud.com".to_owned(),
        },
        goal: Goal::Absent { force: true },
        start: StartRecord::default(),
        status: Status::Running,
        phase: Some(Phase::Observing),
        outcome: None,
        failure: None,
        superseded_by: None,
        requested_by: caller("team-a"),
        callers: vec![caller("team-a")],
        created_at: moment(0),
        updated_at: moment(0),
        deadline_at: moment(1800),
        finished_at: None,
        next_look_at: moment(0),
        version: 1,
        history: History::default(),
        last_seen: None,
        events: vec![event(0, EventKind::Accepted)],
    }
}

/// The lease of this owner, taken at this second, for 30 seconds.
fn lease(owner: &str, seconds: i64) -> Lease {
    Lease {
        owner: owner.to_owned(),
        duration: Duration::from_secs(30),
        now: moment(seconds),
        longest_rest: Duration::from_hours(1),
    }
}

/// The operation as it ended with this status, at second 9.
fn ended(operation: &Operation, status: Status) -> Operation {
    Operation {
        status,
        phase: None,
        outcome: (status == Status::Succeeded).then_some(Outcome::Deleted),
        finished_at: Some(moment(9)),
        updated_at: moment(9),
        ..operation.clone()
    }
}

/// An operation of its own moment, so that it is known which is the later one.
fn begun(id: &str, seconds: i64) -> Operation {
    Operation {
        id: OperationId::at(moment(seconds)),
        ..fresh(id)
    }
}

/// Runs this eight times at once, on two stores of one place in turn.
async fn in_two_processes<T>(
    place: &Place,
    work: impl AsyncFn(&SqlOperationStore, usize) -> T,
) -> Vec<T> {
    let stores = [place.open().await, place.open().await];
    let (stores, work) = (&stores, &work);
    join_all((0..8).map(|number| async move { work(&stores[number % 2], number).await })).await
}

/// Every connection that a pool may have.
async fn all_connections(pool: &AnyPool) -> Vec<PoolConnection<Any>> {
    let mut connections = Vec::new();
    for _ in 0..pool.options().get_max_connections() {
        connections.push(pool.acquire().await.unwrap());
    }
    connections
}

impl SqlOperationStore {
    /// Records an operation that has to be the only one on its task.
    async fn add(&self, operation: Operation) -> Operation {
        let creation = self
            .create(&NewOperation::new(operation.clone()))
            .await
            .unwrap();
        assert!(matches!(creation, Creation::Created), "{creation:?}");
        operation
    }

    async fn read_back(&self, id: OperationId) -> Operation {
        self.find(id)
            .await
            .unwrap()
            .expect("the operation is on record")
    }

    /// Does to the database what another program could do to it.
    async fn meddle(&self, sql: String) {
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&self.database.pools.writer)
            .await
            .unwrap();
    }
}
