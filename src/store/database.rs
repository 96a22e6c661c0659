//! The database behind the record: its connections, its threads, and the bounds on every wait.
//!
//! A connection belongs to the runtime that opened it, so a pool on the callers' runtimes stalls
//! with any one of them. All statements therefore run on a runtime of the database's own, and go on
//! to their end if the caller goes away. One connection writes to a file: writers queue fairly in
//! its pool instead of waking up by turns at the file's lock.

use std::{fs, io, os::unix::fs::MetadataExt as _, path::PathBuf, sync::Arc, time::Duration};

use sqlx::{Any, AnyPool, Transaction, error::DatabaseError, pool::PoolConnection};
use tokio::{
    runtime::{self, Runtime},
    time::{Instant, timeout_at},
};

use super::{
    Settings,
    engine::Engine,
    open::{self, OpenError},
};
use crate::domain::store::StoreError;

/// How long one thing that a statement needs is waited for: a connection, or the lock of another
/// process.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// A transaction. It is undone when it is dropped.
pub(super) type AnyTransaction = Transaction<'static, Any>;

/// A connection for one statement, which is a transaction by itself.
pub(super) type OneStatement = PoolConnection<Any>;

/// What a transaction that may write came to.
pub(super) enum Written<T> {
    /// It is to be committed.
    Commit(AnyTransaction, T),
    /// It is to leave no trace.
    Nothing(T),
}

/// The two pools, and the file that they are open on if they are open on a file.
#[derive(Clone)]
pub(super) struct Pools {
    pub(super) reader: AnyPool,
    pub(super) writer: AnyPool,
    pub(super) file: Option<Arc<DatabaseFile>>,
}

impl Pools {
    fn engine(&self) -> Engine {
        match self.file {
            Some(_) => Engine::Sqlite,
            None => Engine::Postgres,
        }
    }

    /// Whether what is written is written to the file that was opened.
    async fn verify(&self) -> Result<(), StoreError> {
        match &self.file {
            Some(file) => file.verify().await.map_err(unavailable),
            None => Ok(()),
        }
    }
}

/// An open database.
pub(super) struct Database {
    /// `None` only while being dropped.
    runtime: Option<Runtime>,
    pub(super) pools: Pools,
    patience: Duration,
}

impl Database {
    /// Opens the database and brings its tables up to date. May be awaited on any runtime.
    pub(super) async fn open(settings: &Settings, patience: Duration) -> Result<Self, OpenError> {
        let failed = |source| OpenError::failed(settings, source);
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("store")
            .enable_all()
            .build()
            .map_err(failed)?;
        let opening = runtime.spawn(open::open(settings.clone(), patience));
        match opening.await.map_err(io::Error::other).map_err(failed) {
            Ok(Ok(pools)) => Ok(Self {
                runtime: Some(runtime),
                pools,
                patience,
            }),
            Ok(Err(error)) | Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    /// Runs `work` in a transaction that only reads.
    pub(super) async fn read<T, F>(
        &self,
        work: impl FnOnce(AnyTransaction) -> F + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let pools = self.pools.clone();
        let begin = pools.engine().begin_reading();
        self.run(async move { work(pools.reader.begin_with(begin).await?).await })
            .await
    }

    /// Runs `work`, which is one statement that only reads.
    pub(super) async fn read_by_one<T, F>(
        &self,
        work: impl FnOnce(OneStatement) -> F + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let pools = self.pools.clone();
        self.run(async move { work(pools.reader.acquire().await?).await })
            .await
    }

    /// Runs `work`, which is one statement that may write and is read to its end: it is committed
    /// by then. [`StoreError::Unsure`] if it was sent and its answer is lost.
    pub(super) async fn write_by_one<T, F>(
        &self,
        work: impl FnOnce(OneStatement) -> F + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, sqlx::Error>> + Send + 'static,
    {
        let pools = self.pools.clone();
        let until = self.until();
        let task = self.runtime().spawn(async move {
            let ready = timeout_at(until, async {
                pools.verify().await?;
                Ok::<_, StoreError>(pools.writer.acquire().await?)
            });
            let connection = ready.await.map_err(unavailable)??;
            let written = timeout_at(until, work(connection)).await;
            let engine = pools.engine();
            written
                .map_err(unsure)?
                .map_err(|error| engine.not_written(error))
        });
        // Its thread may have ended at any point.
        task.await.unwrap_or_else(|error| Err(unsure(error)))
    }

    /// Runs `work` in a transaction that may write. On a file it holds the lock for writing from
    /// its beginning: one that read first and wrote then would be refused if another process wrote
    /// between. [`StoreError::Unsure`] if the commit was asked for and its answer is lost.
    pub(super) async fn write<T, F>(
        &self,
        work: impl FnOnce(AnyTransaction) -> F + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<Written<T>, StoreError>> + Send + 'static,
    {
        self.write_until(self.until(), work).await
    }

    /// As [`Database::write`], if it can be done until then.
    pub(super) async fn write_until<T, F>(
        &self,
        until: Instant,
        work: impl FnOnce(AnyTransaction) -> F + Send + 'static,
    ) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<Written<T>, StoreError>> + Send + 'static,
    {
        let pools = self.pools.clone();
        let begin = pools.engine().begin_writing();
        let task = self.runtime().spawn(async move {
            let written = timeout_at(until, async {
                pools.verify().await?;
                work(pools.writer.begin_with(begin).await?).await
            });
            match written.await.map_err(unavailable)?? {
                Written::Nothing(done) => Ok(done),
                Written::Commit(transaction, done) => {
                    let committed = timeout_at(until, transaction.commit()).await;
                    committed.map_err(unsure)?.map_err(not_committed)?;
                    Ok(done)
                }
            }
        });
        // Its thread may have ended at any point.
        task.await.unwrap_or_else(|error| Err(unsure(error)))
    }

    /// Closes every connection, waiting for those in use. Whatever is asked for later is refused.
    pub(super) async fn close(&self) -> Result<(), StoreError> {
        let pools = self.pools.clone();
        self.run(async move {
            pools.reader.close().await;
            pools.writer.close().await;
            Ok(())
        })
        .await
    }

    /// Runs `work` on the database's own runtime until it ends or the database is dropped.
    pub(super) fn attend(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.runtime().spawn(work);
    }

    /// Runs `work` on the database's own runtime. When time is up `work` is dropped, and with it
    /// its transaction.
    async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let limit = self.limit();
        let task = self.runtime().spawn(async move {
            tokio::time::timeout(limit, work)
                .await
                .unwrap_or_else(|elapsed| Err(unavailable(elapsed)))
        });
        task.await.unwrap_or_else(|error| Err(unavailable(error)))
    }

    /// Until when a method that begins now ends at the latest.
    pub(super) fn until(&self) -> Instant {
        Instant::now() + self.limit()
    }

    /// How long one method takes at the most.
    fn limit(&self) -> Duration {
        // Longer than the waits inside, so that their more telling errors come first.
        self.patience * 3
    }

    fn runtime(&self) -> &Runtime {
        self.runtime
            .as_ref()
            .expect("only dropping takes the runtime away")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // Dropping a runtime waits for it, which is forbidden on a thread of another runtime.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A file, told apart from any other that takes its place.
///
/// A database goes on writing into a file that was removed or replaced; what is written there is
/// lost at the next start.
pub(super) struct DatabaseFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl DatabaseFile {
    /// The file that is at this path.
    pub(super) fn at(path: PathBuf) -> io::Result<Self> {
        let metadata = fs::metadata(&path)?;
        Ok(Self {
            path,
            device: metadata.dev(),
            inode: metadata.ino(),
        })
    }

    /// Whether it is still the one at its path.
    pub(super) async fn verify(self: &Arc<Self>) -> io::Result<()> {
        let file = Arc::clone(self);
        // A disk that hangs must not hold up the thread that keeps the time limits.
        let same = tokio::task::spawn_blocking(move || {
            fs::metadata(&file.path)
                .map(|found| (found.dev(), found.ino()) == (file.device, file.inode))
        });
        if same.await?? {
            Ok(())
        } else {
            Err(io::Error::other(
                "the database file was replaced by another",
            ))
        }
    }
}

/// The record cannot be reached or written, for this reason.
pub(super) fn unavailable(
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> StoreError {
    StoreError::Unavailable(error.into())
}

/// The record was lost, for this reason, after a commit was asked for.
pub(super) fn unsure(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StoreError {
    StoreError::Unsure(error.into())
}

/// What an error in place of a commit says of it.
fn not_committed(error: sqlx::Error) -> StoreError {
    let code = error.as_database_error().and_then(DatabaseError::code);
    // A file is written to when it is committed. If there is no room for that (SQLITE_FULL),
    // nothing is there to be found.
    if code.is_some_and(|code| code == "13") {
        return unavailable(error);
    }
    unsure(error)
}

/// Whatever fails before a commit is asked for leaves no trace.
impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        unavailable(error)
    }
}
