//! Opening a database: why it may fail, whatever the engine.

use std::{
    fmt::{Display, Write as _},
    path::PathBuf,
    str::FromStr as _,
    time::Duration,
};

use sqlx::{ConnectOptions as _, any::AnyConnectOptions, migrate::MigrateError};

use super::{Settings, database::Pools, postgres, sqlite};

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why the record could not be opened. Every message names the file, or the server and its
/// database.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The path is not UTF-8.
    #[error("the path of the database {} is not valid UTF-8", .0.display())]
    Path(PathBuf),
    /// Folders are not made: a typing error would go unnoticed.
    #[error("the folder of the database {} does not exist", .0.display())]
    FolderMissing(PathBuf),
    /// The file, its folder or its disk refuses writes.
    #[error(
        "the database {} cannot be opened for writing; both the file and its folder must be writable",
        path.display()
    )]
    NotWritable {
        /// The file.
        path: PathBuf,
        /// What the system or the database said.
        source: Source,
    },
    /// The file holds something else.
    #[error("the file {} is not a database", .0.display())]
    NotADatabase(PathBuf),
    /// The disk cannot hold a write-ahead log, as is the case with most network file systems.
    #[error(
        "the file system of the database {} does not support write-ahead logging; use a local disk",
        .0.display()
    )]
    NoWriteAheadLog(PathBuf),
    /// The server refuses writes.
    #[error("the database {database} is read-only; is its server a standby?")]
    ReadOnly {
        /// The server and the database.
        database: String,
        /// What the server said.
        source: Source,
    },
    /// Not every text could be written.
    #[error("the database {database} has the encoding {encoding}; it must be made with UTF8")]
    Encoding {
        /// The server and the database.
        database: String,
        /// What it has instead.
        encoding: String,
    },
    /// The tables have a form that this program does not know.
    #[error(
        "the database {database} was written by a newer version of this program (schema {version})"
    )]
    NewerSchema {
        /// The file, or the server and the database.
        database: String,
        /// The first schema that this program does not know.
        version: i64,
    },
    /// Anything else.
    #[error("the database {database} cannot be opened")]
    Failed {
        /// The file, or the server and the database.
        database: String,
        /// What the system or the database said.
        source: Source,
    },
}

impl OpenError {
    pub(super) fn failed(database: impl Display, source: impl Into<Source>) -> Self {
        Self::Failed {
            database: database.to_string(),
            source: source.into(),
        }
    }

    /// What went wrong with the tables; `of_engine` knows what the engine says.
    pub(super) fn from_migration(
        database: &impl Display,
        error: MigrateError,
        of_engine: impl Fn(sqlx::Error) -> Self,
    ) -> Self {
        if let MigrateError::VersionMissing(version) = error {
            return Self::NewerSchema {
                database: database.to_string(),
                version,
            };
        }
        if let MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) = error {
            return of_engine(error);
        }
        Self::failed(database, error)
    }
}

/// How to connect to an address, without a line in the log for each statement that takes long: the
/// text of a statement tells nobody what to do, and on a slow disk there is no end of them.
pub(super) fn options(url: &str) -> Result<AnyConnectOptions, sqlx::Error> {
    Ok(AnyConnectOptions::from_str(url)?.disable_statement_logging())
}

/// Opens the pools on a database that can be written to and whose tables are up to date.
pub(super) async fn open(settings: Settings, patience: Duration) -> Result<Pools, OpenError> {
    sqlx::any::install_default_drivers();
    match settings {
        Settings::Sqlite { path } => sqlite::open(path, patience).await,
        Settings::Postgres(server) => postgres::open(server, patience).await,
    }
}

/// A part of a URL: everything that could have a meaning there is escaped.
pub(super) fn escaped(text: &str) -> String {
    let mut url = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(&byte) {
            url.push(char::from(byte));
        } else {
            write!(url, "%{byte:02X}").expect("a String takes any text");
        }
    }
    url
}
