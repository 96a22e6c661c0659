//! PostgreSQL as the engine of the record: opening a database, and hearing of ends in other
//! processes.

mod ends;
mod settings;

use std::time::Duration;

use sqlx::{
    AnyConnection, AnyPool, AssertSqlSafe, Connection as _, any::AnyPoolOptions,
    error::DatabaseError, migrate::Migrator,
};
use tokio::time::timeout;

pub(super) use self::ends::{Ends, tell_end};
pub use self::settings::PostgresSettings;
use super::{
    database::Pools,
    open::{OpenError, options},
    upkeep,
};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// Connections that read at the same time.
const READERS: u32 = 4;
/// Connections that write at the same time. With one that listens, a gateway has nine connections
/// at most.
const WRITERS: u32 = 4;
/// How long another process that brings the tables up to date is waited for, and how long that may
/// take here.
const MIGRATION_MAX: Duration = Duration::from_mins(1);
/// What a server that is read-only says (its manual, "PostgreSQL Error Codes").
const READ_ONLY_TRANSACTION: &str = "25006";

/// Opens the pools on a database that can be written to and whose tables are up to date.
pub(super) async fn open(server: PostgresSettings, patience: Duration) -> Result<Pools, OpenError> {
    let url = server.url();
    let sqlx_error = |error| from_sqlx(&server, error);
    // A connection outside the pools, since a pool says of a connection that fails only that it
    // took too long.
    let options = options(&url).map_err(sqlx_error)?;
    let mut connection = timeout(patience, AnyConnection::connect_with(&options))
        .await
        .map_err(|elapsed| OpenError::failed(&server, elapsed))?
        .map_err(sqlx_error)?;
    timeout(MIGRATION_MAX, migrate(&mut connection, &server))
        .await
        .map_err(|elapsed| OpenError::failed(&server, elapsed))??;
    connection.close().await.map_err(sqlx_error)?;
    Ok(Pools {
        reader: pool(&url, READERS, patience).map_err(sqlx_error)?,
        writer: pool(&url, WRITERS, patience).map_err(sqlx_error)?,
        file: None,
    })
}

fn from_sqlx(server: &PostgresSettings, error: sqlx::Error) -> OpenError {
    let code = error.as_database_error().and_then(DatabaseError::code);
    if code.is_some_and(|code| code == READ_ONLY_TRANSACTION) {
        return OpenError::ReadOnly {
            database: server.to_string(),
            source: error.into(),
        };
    }
    OpenError::failed(server, error)
}

fn pool(url: &str, connections: u32, patience: Duration) -> Result<AnyPool, sqlx::Error> {
    let pool = AnyPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(patience)
        .after_connect(move |connection, _| Box::pin(prepare(connection, patience)))
        .after_release(move |connection, _| Box::pin(answers(connection, patience)));
    Ok(pool.connect_lazy_with(options(url)?))
}

/// Whether a connection that comes back to its pool can be used again. Its place is taken until
/// this is known, and a server that vanished without a word would be asked for a quarter of an
/// hour.
async fn answers(connection: &mut AnyConnection, patience: Duration) -> Result<bool, sqlx::Error> {
    timeout(patience, connection.ping())
        .await
        .map_err(|elapsed| sqlx::Error::Io(elapsed.into()))??;
    Ok(true)
}

async fn prepare(connection: &mut AnyConnection, patience: Duration) -> Result<(), sqlx::Error> {
    // A process that is stopped in the middle must not keep rows from the others. A statement that
    // is a transaction by itself sees what it waited for. And a commit is on the disk when it
    // returns. All this whatever the defaults of the server, the database and the user.
    let limit = patience.as_millis();
    let statements = format!(
        "SET statement_timeout = {limit}; SET idle_in_transaction_session_timeout = {limit}; \
         SET default_transaction_isolation = 'read committed'; \
         SELECT set_config('synchronous_commit', 'on', false) \
         WHERE current_setting('synchronous_commit') = 'off';"
    );
    // The text holds a number besides what is written above.
    sqlx::raw_sql(AssertSqlSafe(statements))
        .execute(connection)
        .await?;
    Ok(())
}

/// Brings the tables up to date, under a lock of the database, and proves by a write that there can
/// be writes.
async fn migrate(
    connection: &mut AnyConnection,
    server: &PostgresSettings,
) -> Result<(), OpenError> {
    let sqlx_error = |error| from_sqlx(server, error);
    let encoding: String = sqlx::query_scalar("SELECT current_setting('server_encoding')")
        .fetch_one(&mut *connection)
        .await
        .map_err(sqlx_error)?;
    if encoding != "UTF8" {
        return Err(OpenError::Encoding {
            database: server.to_string(),
            encoding,
        });
    }
    // Should this process die while it waits for a lock, it must not be waited for in its turn.
    sqlx::query(
        "SELECT set_config(name, '5s', false) FROM pg_settings \
         WHERE name = 'client_connection_check_interval'",
    )
    .execute(&mut *connection)
    .await
    .map_err(sqlx_error)?;
    MIGRATIONS
        .run_direct(None, connection, false)
        .await
        .map_err(|error| OpenError::from_migration(server, error, sqlx_error))?;
    upkeep::probe(connection).await.map_err(sqlx_error)
}
