//! The record of operations in SQL.
//!
//! [`SqlOperationStore`] keeps the promises of [`OperationStore`] with one SQLite file, which
//! several processes on one machine may share, or with a PostgreSQL database, which any number of
//! machines may. A commit is on the disk when it returns, and survives a crash of the process and
//! of the machine. Nothing here knows what an operation is for, and no secret is in any column: the
//! types that are written hold none.
//!
//! The statements are plain enough to serve both: types are BIGINT and TEXT, parameters `$1`. The
//! few that differ ask for the `Engine` of `database`.

mod claim;
mod database;
mod engine;
mod list;
mod open;
mod postgres;
mod read;
mod rows;
mod running;
mod sqlite;
mod unreadable;
mod upkeep;
mod watched;
mod write;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;

use self::{
    claim::LeaseClock,
    database::{Database, PATIENCE, unavailable},
    postgres::Ends,
    rows::Mutable,
    running::Desk,
    unreadable::Reader,
};
use crate::domain::{
    operation::{EventKind, Operation, OperationEvent, OperationId},
    service::{CallerName, ProjectName, ServiceName},
    store::{
        Claim, Counts, Creation, Former, Hold, IdempotencyKey, Joining, Lease, NewOperation,
        OperationQuery, OperationStore, Page, Progress, Running, StoreError,
    },
    task::TaskRef,
};

pub use self::{open::OpenError, postgres::PostgresSettings};

/// How often ends that are owed are searched for at a time where many cannot be read.
const OWED_SEARCHES: u32 = 4;

/// Where the record is kept: section `store` of the configuration.
#[derive(Clone, Debug)]
pub enum Settings {
    /// A file of this machine.
    Sqlite {
        /// The file.
        path: PathBuf,
    },
    /// A database on a server.
    Postgres(PostgresSettings),
}

impl fmt::Display for Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite { path } => path.display().fmt(formatter),
            Self::Postgres(server) => server.fmt(formatter),
        }
    }
}

/// The record of operations in a database.
///
/// It has threads of its own, so it may be shared by any threads and runtimes. What was begun is
/// ended even if the caller goes away. Every method answers within ten seconds, but for
/// [`OperationStore::next_end`], which waits for one. Times are kept to the microsecond.
pub struct SqlOperationStore {
    database: Database,
    desk: Desk,
    reader: Reader,
    /// How many of the marked operations were looked at again in this round through all of them.
    looked_again: AtomicU32,
    lease_clock: LeaseClock,
    ends: Ends,
}

impl SqlOperationStore {
    /// Opens the database, brings its tables up to date, and makes sure that it can be written to.
    /// A file that is missing is made, for the user's own eyes. May be awaited on any runtime, and
    /// on a thread without one.
    pub async fn open(settings: &Settings) -> Result<Self, OpenError> {
        Self::open_with(settings, PATIENCE).await
    }

    async fn open_with(settings: &Settings, patience: Duration) -> Result<Self, OpenError> {
        let database = Database::open(settings, patience).await?;
        let reader = Reader::default();
        let (desk, questions) = Desk::open();
        // Half of the time of a method, since a question may come just after a statement has begun.
        let limit = patience * 3 / 2;
        let pools = database.pools.clone();
        database.attend(running::answer(
            pools,
            questions,
            Arc::clone(&reader.reports),
            limit,
        ));
        let (lease_clock, ends) = match settings {
            Settings::Sqlite { .. } => (LeaseClock::Caller, Ends::unheard()),
            Settings::Postgres(server) => {
                let (ends, hearing) = Ends::of(server);
                database.attend(hearing);
                (LeaseClock::Database, ends)
            }
        };
        Ok(Self {
            database,
            desk,
            reader,
            looked_again: AtomicU32::new(0),
            lease_clock,
            ends,
        })
    }

    /// Waits for statements that are under way and closes the database. Whatever is asked for later
    /// is [`StoreError::Unavailable`].
    pub async fn close(&self) -> Result<(), StoreError> {
        self.database.close().await
    }
}

impl fmt::Debug for SqlOperationStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SqlOperationStore")
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl OperationStore for SqlOperationStore {
    async fn create(&self, fresh: &NewOperation) -> Result<Creation, StoreError> {
        let fresh = fresh.clone();
        self.database
            .write(|transaction| write::create(transaction, fresh))
            .await
    }

    async fn join(
        &self,
        id: OperationId,
        caller: &CallerName,
        key: Option<&IdempotencyKey>,
        at: Timestamp,
    ) -> Result<Joining, StoreError> {
        let who = (caller.clone(), key.cloned());
        let joined = OperationEvent {
            at,
            kind: EventKind::Joined,
        };
        self.database
            .write(move |transaction| write::join(transaction, id, who, joined))
            .await
    }

    async fn recall(
        &self,
        caller: &CallerName,
        key: &str,
    ) -> Result<Option<(Operation, String)>, StoreError> {
        let (caller, key) = (caller.clone(), key.to_owned());
        self.database
            .read(|transaction| read::recall(transaction, caller, key))
            .await
    }

    async fn find(&self, id: OperationId) -> Result<Option<Operation>, StoreError> {
        self.database
            .read(move |transaction| read::find(transaction, id))
            .await
    }

    async fn running(&self, task: &TaskRef) -> Result<Option<Running>, StoreError> {
        self.desk.ask(task).await
    }

    async fn former(&self, task: &TaskRef, limit: u32) -> Result<Vec<Former>, StoreError> {
        let (task, reports) = (task.clone(), Arc::clone(&self.reader.reports));
        self.database
            .read(move |transaction| read::former(transaction, task, limit, reports))
            .await
    }

    async fn list(&self, query: &OperationQuery) -> Result<Page, StoreError> {
        let query = query.clone();
        let (read, next) = self
            .database
            .read(|transaction| list::list(transaction, query))
            .await?;
        let readable = |read| self.reader.reports.operation(read);
        Ok(Page {
            operations: read.into_iter().filter_map(readable).collect(),
            next,
        })
    }

    async fn claim(&self, lease: &Lease, limit: u32) -> Result<Claim, StoreError> {
        let lease = (lease.clone(), self.lease_clock);
        let (of, reader) = (lease.clone(), self.reader.clone());
        let until = self.database.until();
        let version = reader.version;
        let found = self
            .database
            .read_by_one(move |connection| claim::survey(connection, of, version))
            .await?;
        if !found.asks_for_writes(&lease.0) {
            let next_due_at = found.next_due_at(&lease.0)?;
            return Ok(Claim {
                operations: Vec::new(),
                next_due_at,
            });
        }
        self.database
            .write_until(until, move |transaction| {
                claim::claim(transaction, (lease, found), limit, reader)
            })
            .await
    }

    async fn renew(
        &self,
        lease: &Lease,
        held: &[OperationId],
    ) -> Result<Vec<OperationId>, StoreError> {
        let mut renewed = Vec::with_capacity(held.len());
        for held in held.chunks(read::IDS_PER_STATEMENT) {
            let (lease, held) = ((lease.clone(), self.lease_clock), held.to_vec());
            let some = self
                .database
                .write_by_one(|connection| claim::renew(connection, lease, held))
                .await?;
            renewed.extend(some);
        }
        Ok(renewed)
    }

    async fn save(
        &self,
        operation: &mut Operation,
        events: &[OperationEvent],
        hold: Hold,
    ) -> Result<(), StoreError> {
        let guard = (operation.id, operation.version);
        let changed = Mutable::of(operation).map_err(unavailable)?;
        let kept = if events.is_empty() && !changed.ends() {
            let save = move |connection| write::save_alone(connection, guard, changed, hold);
            if !self.database.write_by_one(save).await? {
                return Err(StoreError::Stale);
            }
            Vec::new()
        } else {
            let events = events.to_vec();
            self.database
                .write(move |transaction| write::save(transaction, guard, changed, events, hold))
                .await?
        };
        operation.version += 1;
        operation.events.extend(kept);
        Ok(())
    }

    async fn progress(
        &self,
        ids: &[OperationId],
    ) -> Result<HashMap<OperationId, Progress>, StoreError> {
        let (ids, reports) = (ids.to_vec(), Arc::clone(&self.reader.reports));
        self.database
            .read_by_one(|connection| watched::progress(connection, ids, reports))
            .await
    }

    async fn next_end(&self) -> OperationId {
        self.ends.next().await
    }

    async fn remove_ended(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        let before = before.as_microsecond();
        self.database
            .write(move |transaction| upkeep::remove_ended(transaction, before, limit))
            .await
    }

    async fn owed_ends(&self, limit: u32) -> Result<Vec<Operation>, StoreError> {
        // Each time a thousand of those that cannot be read are passed. What is left is found the
        // next time.
        for _ in 0..OWED_SEARCHES {
            let reader = self.reader.clone();
            let (owed, may_be_more) = self
                .database
                .write(move |transaction| unreadable::owed_ends(transaction, limit, reader))
                .await?;
            if !owed.is_empty() || !may_be_more {
                return Ok(owed);
            }
        }
        Ok(Vec::new())
    }

    async fn ends_told(&self, ids: &[OperationId]) -> Result<(), StoreError> {
        let ids = ids.to_vec();
        self.database
            .write(|transaction| upkeep::ends_told(transaction, ids))
            .await
    }

    async fn count_running(
        &self,
        project: &ProjectName,
        service: &ServiceName,
    ) -> Result<u64, StoreError> {
        let of = (project.clone(), service.clone());
        self.database
            .read_by_one(|connection| read::count_running(connection, of))
            .await
    }

    async fn count_running_of(&self, caller: &CallerName) -> Result<u64, StoreError> {
        let caller = caller.clone();
        self.database
            .read_by_one(|connection| read::count_running_of(connection, caller))
            .await
    }

    async fn look_again(&self) -> Result<bool, StoreError> {
        let (passed, reader) = (self.looked_again.load(Relaxed), self.reader.clone());
        let (next, are_more) = self
            .database
            .write(move |transaction| unreadable::look_again(transaction, passed, reader))
            .await?;
        self.looked_again.store(next, Relaxed);
        Ok(are_more)
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        self.database.read(upkeep::counts).await
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.desk.check()?;
        self.database.write(upkeep::check).await
    }
}
