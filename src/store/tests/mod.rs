//! Every statement against real files; two stores on one file stand for two processes.

mod files;
mod leases;
mod records;
mod round_trip;
mod running;

use std::{path::PathBuf, time::Duration};

use jiff::{SignedDuration, Timestamp};
use sqlx::AssertSqlSafe;
use tempfile::TempDir;

use super::{Settings, SqlOperationStore};
use crate::domain::{
    history::History,
    operation::{EventKind, Goal, Operation, OperationEvent, OperationId, Phase, Status},
    service::{Binding, CallerName, ProjectName, ServiceName},
    start::StartRecord,
    store::{Creation, Lease, NewOperation, OperationStore as _},
    task::{TaskId, TaskRef},
};

/// A folder of its own for the database of a test.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("the system's folder for temporary files is writable"))
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("gateway.db")
    }

    async fn open(&self) -> SqlOperationStore {
        open(self.file()).await
    }
}

async fn open(path: PathBuf) -> SqlOperationStore {
    SqlOperationStore::open(&Settings { path })
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
