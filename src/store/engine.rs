//! The two databases, as far as statements differ.

use sqlx::{AnyConnection, error::DatabaseError};

use super::database::{unavailable, unsure};
use crate::domain::store::StoreError;

/// The database, as far as statements differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Engine {
    /// One writes at a time, and nothing changes while it does.
    Sqlite,
    /// Several write at the same time. A statement waits for the end of whoever changes the same
    /// rows, and then sees that.
    Postgres,
}

impl Engine {
    /// What is behind a connection.
    pub(super) fn of(connection: &AnyConnection) -> Self {
        match connection.backend_name() {
            "PostgreSQL" => Self::Postgres,
            _ => Self::Sqlite,
        }
    }

    /// What tells a row of operations from any other, whatever stands in it.
    pub(super) fn place(self) -> &'static str {
        match self {
            Self::Sqlite => "rowid",
            Self::Postgres => "id",
        }
    }

    /// The end of a search for rows that are then written: whoever writes the same ones is not
    /// waited for, since two could wait for each other for ever.
    pub(super) fn lock(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => " FOR UPDATE SKIP LOCKED",
        }
    }

    /// The present moment by the database's own clock, in microseconds.
    pub(super) fn clock(self) -> &'static str {
        match self {
            Self::Sqlite => "CAST(unixepoch('subsec') * 1000000 AS BIGINT)",
            Self::Postgres => "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)",
        }
    }

    /// What an error in place of the answer to a statement that is a transaction by itself says of
    /// it. One that was refused has left no trace.
    pub(super) fn not_written(self, error: sqlx::Error) -> StoreError {
        let code = error.as_database_error().and_then(DatabaseError::code);
        let is_refused = code.is_some_and(|code| match self {
            // Not SQLITE_IOERR: it may come from the end of a commit.
            Self::Sqlite => code.parse::<u32>().is_ok_and(|code| code & 0xff != 10),
            // Not that the server fails or is ended ("PostgreSQL Error Codes").
            Self::Postgres => !["57P", "58", "XX"]
                .iter()
                .any(|class| code.starts_with(class)),
        });
        if is_refused {
            return unavailable(error);
        }
        unsure(error)
    }

    /// All statements see the record at one moment.
    pub(super) fn begin_reading(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN",
            Self::Postgres => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        }
    }

    /// The isolation is said, since the defaults of a server, of a database and of a user can be
    /// others. That there may be writes is not: whoever makes read-only the default wants none.
    pub(super) fn begin_writing(self) -> &'static str {
        match self {
            Self::Sqlite => "BEGIN IMMEDIATE",
            Self::Postgres => "BEGIN ISOLATION LEVEL READ COMMITTED",
        }
    }
}
