//! Opening an SQLite file: making it, naming what is wrong with it, and bringing its tables up to
//! date.

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sqlx::{
    AnyConnection, AnyPool, AssertSqlSafe, Connection as _, any::AnyPoolOptions, migrate::Migrator,
};
use tokio::time::{Instant, sleep};

use super::{
    database::{DatabaseFile, Pools},
    open::{OpenError, escaped, options},
};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// Connections that read at the same time.
const READERS: u32 = 4;

/// The result codes of SQLite that say more than "it failed" (sqlite.org, "Result and Error
/// Codes").
const BUSY: i32 = 5;
const READ_ONLY: i32 = 8;
const CANNOT_OPEN: i32 = 14;
const NOT_A_DATABASE: i32 = 26;

/// What is wrong with a file by what SQLite says of it.
fn from_sqlx(path: &Path, error: sqlx::Error) -> OpenError {
    let path = path.to_owned();
    match code(&error) {
        Some(READ_ONLY | CANNOT_OPEN) => OpenError::NotWritable {
            path,
            source: error.into(),
        },
        Some(NOT_A_DATABASE) => OpenError::NotADatabase(path),
        _ => failed(&path, error),
    }
}

fn failed(path: &Path, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> OpenError {
    OpenError::failed(path.display(), source)
}

/// The primary result code.
fn code(error: &sqlx::Error) -> Option<i32> {
    let code = error.as_database_error()?.code()?;
    code.parse::<i32>().ok().map(|code| code & 0xff)
}

/// Opens the pools on a database that can be written to and whose tables are up to date.
pub(super) async fn open(path: PathBuf, patience: Duration) -> Result<Pools, OpenError> {
    let sqlx_error = |error| from_sqlx(&path, error);
    let file = make_file(&path)?;
    let url = url_of(&file).ok_or_else(|| OpenError::Path(path.clone()))?;
    // A connection outside the pools, since a pool says of a connection that fails only that it
    // took too long.
    let options = options(&url).map_err(sqlx_error)?;
    let connecting = AnyConnection::connect_with(&options);
    let mut connection = connecting.await.map_err(sqlx_error)?;
    prepare(&mut connection, patience)
        .await
        .map_err(sqlx_error)?;
    use_write_ahead_log(&mut connection, &path, patience).await?;
    migrate(&mut connection, &path).await?;
    let file = DatabaseFile::at(file).map_err(|error| failed(&path, error))?;
    let file = Arc::new(file);
    let pools = Pools {
        reader: pool(&url, &file, READERS, patience).map_err(sqlx_error)?,
        writer: pool(&url, &file, 1, patience).map_err(sqlx_error)?,
        file: Some(file),
    };
    connection.close().await.map_err(sqlx_error)?;
    Ok(pools)
}

/// Makes the file, for nobody else's eyes, unless it is there; SQLite gives its side files the same
/// permissions. Returns the path without links and dots.
fn make_file(path: &Path) -> Result<PathBuf, OpenError> {
    // A file that is there must not be opened here: closing it would release the locks that this
    // process holds on it through SQLite (sqlite.org, "How To Corrupt An SQLite Database File").
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match made {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(OpenError::FolderMissing(path.to_owned()));
        }
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(OpenError::NotWritable {
                path: path.to_owned(),
                source: error.into(),
            });
        }
        Ok(_) | Err(_) => {}
    }
    path.canonicalize().map_err(|error| failed(path, error))
}

/// The address of a file whose path is absolute. Everything that could have a meaning in a URL is
/// escaped.
fn url_of(file: &Path) -> Option<String> {
    Some(format!("sqlite://{}?mode=rw", escaped(file.to_str()?)))
}

fn pool(
    url: &str,
    file: &Arc<DatabaseFile>,
    connections: u32,
    patience: Duration,
) -> Result<AnyPool, sqlx::Error> {
    let file = Arc::clone(file);
    let pool = AnyPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(patience)
        // A connection to a file does not age.
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            let file = Arc::clone(&file);
            Box::pin(async move {
                // A connection to a file that has taken the place for a while would be kept for
                // ever.
                file.verify().await?;
                prepare(connection, patience).await
            })
        })
        .after_release(|connection, _| Box::pin(is_at_rest(connection)));
    Ok(pool.connect_lazy_with(options(url)?))
}

async fn prepare(connection: &mut AnyConnection, patience: Duration) -> Result<(), sqlx::Error> {
    // FULL: a commit is on the disk when it returns, also if the power fails in the next moment.
    let pragmas = format!(
        "PRAGMA busy_timeout = {}; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;",
        patience.as_millis()
    );
    // The text holds a number besides what is written above.
    sqlx::raw_sql(AssertSqlSafe(pragmas))
        .execute(connection)
        .await?;
    Ok(())
}

/// Whether a connection that comes back to its pool can be used again.
///
/// After some errors, such as a full disk, SQLite ends the transaction by itself, and sqlx, whose
/// rollback then fails, goes on counting it as open: no other could ever be begun on that
/// connection.
async fn is_at_rest(connection: &mut AnyConnection) -> Result<bool, sqlx::Error> {
    // The answer comes after that to a rollback which is under way.
    connection.ping().await?;
    Ok(!connection.is_in_transaction())
}

/// Turns the write-ahead log on, so that reads and writes do not wait for each other. The file
/// remembers it.
async fn use_write_ahead_log(
    connection: &mut AnyConnection,
    path: &Path,
    patience: Duration,
) -> Result<(), OpenError> {
    let give_up = Instant::now() + patience;
    loop {
        let mode = sqlx::query_scalar::<_, String>("PRAGMA journal_mode = WAL")
            .fetch_one(&mut *connection)
            .await;
        match mode {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(_) => return Err(OpenError::NoWriteAheadLog(path.to_owned())),
            // SQLite itself does not wait here if another process does the same.
            Err(error) if code(&error) == Some(BUSY) && Instant::now() < give_up => {
                sleep(Duration::from_millis(20)).await;
            }
            Err(error) => return Err(from_sqlx(path, error)),
        }
    }
}

/// Brings the tables up to date, and proves by a write that there can be writes.
async fn migrate(connection: &mut AnyConnection, path: &Path) -> Result<(), OpenError> {
    let sqlx_error = |error| from_sqlx(path, error);
    // One transaction around all: of two processes that start together, the second waits and finds
    // nothing to do.
    let mut transaction = connection
        .begin_with("BEGIN IMMEDIATE")
        .await
        .map_err(sqlx_error)?;
    MIGRATIONS
        .run_direct(None, &mut *transaction, false)
        .await
        .map_err(|error| OpenError::from_migration(&path.display(), error, sqlx_error))?;
    super::upkeep::probe(&mut transaction)
        .await
        .map_err(sqlx_error)?;
    transaction.commit().await.map_err(sqlx_error)
}
