//! Columns of a row, each read by itself, whatever stands in the others.

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use sqlx::{
    Row as _, ValueRef as _,
    any::{AnyRow, AnyTypeInfoKind},
};

use crate::{
    domain::{
        history::History,
        operation::{OperationId, Status},
        store::StoreError,
    },
    store::engine::Engine,
};

/// Which operation cannot be read, and by which column that was noticed.
#[derive(Debug)]
pub(in crate::store) struct Unreadable {
    pub(in crate::store) id: String,
    pub(in crate::store) column: &'static str,
}

impl From<Unreadable> for StoreError {
    fn from(unreadable: Unreadable) -> Self {
        Self::Unreadable(format!("{} ({})", unreadable.id, unreadable.column))
    }
}

/// What a statement selects to have these columns of a table read by [`Columns`].
///
/// A file can hold a text of any bytes, for one that is not UTF-8 the driver refuses a whole
/// answer, and any column of a file can hold a text. So texts come as bytes from there. Bytes come
/// behind one that is in no text, and are not taken for one.
pub(in crate::store) fn columns(engine: Engine, table: &str, names: &[&str]) -> String {
    let column = |name: &&str| match engine {
        Engine::Sqlite => format!(
            "CASE typeof({table}.{name}) WHEN 'text' THEN CAST({table}.{name} AS BLOB) \
             WHEN 'blob' THEN CAST(X'ff' || {table}.{name} AS BLOB) ELSE {table}.{name} END AS {name}"
        ),
        Engine::Postgres => format!("{table}.{name}"),
    };
    names.iter().map(column).collect::<Vec<_>>().join(", ")
}

/// The bytes of a text. `None` if something else is there.
fn bytes_of<'r>(row: &'r AnyRow, column: &str) -> Option<&'r [u8]> {
    let kind = row.try_get_raw(column).ok()?.type_info().kind();
    if kind == AnyTypeInfoKind::Blob {
        return row.try_get(column).ok();
    }
    row.try_get(column).ok().map(str::as_bytes)
}

/// The id in a row, whatever else is there.
pub(in crate::store) fn id_of(row: &AnyRow) -> Result<&str, Unreadable> {
    let bytes = bytes_of(row, "id").unwrap_or_default();
    str::from_utf8(bytes).map_err(|_| Unreadable {
        id: String::from_utf8_lossy(bytes).into_owned(),
        column: "id",
    })
}

/// The highest number that is read of what is counted on: nobody counts that far, and there is room
/// to count on.
const COUNT_MAX: i64 = i64::MAX / 2;

/// One row and the operation that it belongs to.
#[derive(Clone, Copy)]
pub(in crate::store) struct Columns<'r> {
    row: &'r AnyRow,
    id: &'r str,
}

impl<'r> Columns<'r> {
    pub(in crate::store) fn new(row: &'r AnyRow, id: &'r str) -> Self {
        Self { row, id }
    }

    /// Another row that belongs to the same operation.
    pub(super) fn beside(&self, row: &'r AnyRow) -> Self {
        Self::new(row, self.id)
    }

    pub(super) fn unreadable(&self, column: &'static str) -> Unreadable {
        Unreadable {
            id: self.id.to_owned(),
            column,
        }
    }

    pub(in crate::store) fn number(&self, column: &'static str) -> Result<i64, Unreadable> {
        self.row
            .try_get(column)
            .map_err(|_| self.unreadable(column))
    }

    pub(in crate::store) fn text(&self, column: &'static str) -> Result<&'r str, Unreadable> {
        self.optional_text(column)?
            .ok_or_else(|| self.unreadable(column))
    }

    pub(in crate::store) fn optional_text(
        &self,
        column: &'static str,
    ) -> Result<Option<&'r str>, Unreadable> {
        if self.is_null(column)? {
            return Ok(None);
        }
        let bytes = bytes_of(self.row, column);
        bytes
            .and_then(|bytes| str::from_utf8(bytes).ok())
            .map(Some)
            .ok_or_else(|| self.unreadable(column))
    }

    fn is_null(&self, column: &'static str) -> Result<bool, Unreadable> {
        let raw = self.row.try_get_raw(column);
        raw.map(|value| value.is_null())
            .map_err(|_| self.unreadable(column))
    }

    pub(in crate::store) fn word<T>(
        &self,
        column: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, Unreadable> {
        self.optional_word(column, parse)?
            .ok_or_else(|| self.unreadable(column))
    }

    pub(super) fn optional_word<T>(
        &self,
        column: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Unreadable> {
        let Some(text) = self.optional_text(column)? else {
            return Ok(None);
        };
        parse(text).map(Some).ok_or_else(|| self.unreadable(column))
    }

    pub(super) fn json<T: DeserializeOwned>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, Unreadable> {
        self.optional_word(column, |text| serde_json::from_str(text).ok())
    }

    pub(in crate::store) fn id(&self) -> Result<OperationId, Unreadable> {
        self.word("id", OperationId::parse)
    }

    /// Where the operation stands and what it has tried.
    pub(in crate::store) fn record(&self) -> Result<(Status, History), Unreadable> {
        let history = self.json("history")?;
        Ok((
            self.word("status", Status::parse)?,
            history.ok_or_else(|| self.unreadable("history"))?,
        ))
    }

    pub(super) fn flag(&self, column: &'static str) -> Result<bool, Unreadable> {
        Ok(self.number(column)? != 0)
    }

    pub(super) fn count(&self, column: &'static str) -> Result<i64, Unreadable> {
        let count = self.number(column)?;
        if count > COUNT_MAX {
            return Err(self.unreadable(column));
        }
        Ok(count)
    }

    /// The lease, which is no part of the operation, but decides who drives it.
    pub(super) fn lease(&self) -> Result<(), Unreadable> {
        self.optional_text("lease_owner")?;
        self.optional_time("lease_until")?;
        Ok(())
    }

    pub(super) fn time(&self, column: &'static str) -> Result<Timestamp, Unreadable> {
        self.optional_time(column)?
            .ok_or_else(|| self.unreadable(column))
    }

    pub(super) fn optional_time(
        &self,
        column: &'static str,
    ) -> Result<Option<Timestamp>, Unreadable> {
        if self.is_null(column)? {
            return Ok(None);
        }
        Timestamp::from_microsecond(self.number(column)?)
            .map(Some)
            .map_err(|_| self.unreadable(column))
    }
}
