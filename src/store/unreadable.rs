//! Operations on record that this program cannot read: written by a newer one, or damaged.
//!
//! Nothing of them is changed but a mark of the version that came across them. What is marked is
//! passed over, whatever it is searched for, so that any number of them cost the others nothing. A
//! newer version takes the marks of older ones away: it may be able to read what they could not.
//! And every now and then each is looked at again, since somebody may have mended it.

use std::sync::Arc;

use jiff::Timestamp;
use sqlx::{
    AnyConnection, Arguments as _, AssertSqlSafe, Row as _,
    any::{AnyArguments, AnyRow},
};

use super::{
    database::{AnyTransaction, Written, unavailable},
    engine::Engine,
    read::{self, select_operations},
    rows::{self, Reports},
};
use crate::domain::{operation::Operation, store::StoreError};

/// The most operations that one transaction marks. What it is for goes on in the next one.
pub(super) const MARKED_MAX: usize = 1000;
/// How many are read in one statement where some cannot be.
pub(super) const TOGETHER: u32 = 500;

/// Who reads: what it can read goes by its version, and it says what it cannot.
#[derive(Clone, Default)]
pub(super) struct Reader {
    pub(super) version: Version,
    pub(super) reports: Arc<Reports>,
}

/// The version of a program, as a number that grows from one to the next.
#[derive(Clone, Copy)]
pub(super) struct Version(pub(super) i64);

impl Default for Version {
    /// That of this program.
    fn default() -> Self {
        const fn number(text: &str) -> i64 {
            match i64::from_str_radix(text, 10) {
                Ok(number) => number,
                Err(_) => panic!("a part of a version is a number"),
            }
        }
        const VERSION: i64 = (number(env!("CARGO_PKG_VERSION_MAJOR")) * 10_000
            + number(env!("CARGO_PKG_VERSION_MINOR")))
            * 10_000
            + number(env!("CARGO_PKG_VERSION_PATCH"));
        Self(VERSION)
    }
}

/// What was read of some rows: what can be read, with its row, and the rows of the others, which
/// were reported.
pub(super) struct Sorted<'r> {
    pub(super) readable: Vec<(Operation, &'r AnyRow)>,
    pub(super) unreadable: Vec<&'r AnyRow>,
}

impl Reader {
    /// Reads whole operations.
    pub(super) async fn read<'r>(
        &self,
        connection: &mut AnyConnection,
        rows: &'r [AnyRow],
    ) -> Result<Sorted<'r>, StoreError> {
        let mut sorted = Sorted {
            readable: Vec::with_capacity(rows.len()),
            unreadable: Vec::new(),
        };
        let read = read::complete(connection, rows).await?;
        for (read, row) in read.into_iter().zip(rows) {
            match self.reports.operation(read) {
                Some(operation) => sorted.readable.push((operation, row)),
                None => sorted.unreadable.push(row),
            }
        }
        Ok(sorted)
    }

    /// Marks these rows of operations. Tells how many there were.
    pub(super) async fn mark(
        &self,
        connection: &mut AnyConnection,
        rows: &[&AnyRow],
    ) -> Result<usize, StoreError> {
        set_mark(connection, Some(self.version.0), rows).await
    }

    /// Marks running operations that no search for due ones comes across: their look, or their
    /// lease though their look is due, is beyond all times. None of them can be read.
    pub(super) async fn mark_odd(
        &self,
        connection: &mut AnyConnection,
        due: i64,
    ) -> Result<(), StoreError> {
        for odd in ODD {
            let conditions = format!("WHERE {odd} LIMIT {TOGETHER}");
            let rows = sqlx::query(select_operations(Engine::of(connection), &conditions))
                .bind(last_moment())
                .bind(due)
                .fetch_all(&mut *connection)
                .await?;
            let sorted = self.read(connection, &rows).await?;
            self.mark(connection, &sorted.unreadable).await?;
        }
        Ok(())
    }

    /// Takes marks of older versions away. What cannot be read all the same is marked anew when it
    /// is come across.
    pub(super) async fn unmark_older(
        &self,
        connection: &mut AnyConnection,
    ) -> Result<(), StoreError> {
        let lock = Engine::of(connection).lock();
        let sql = format!(
            "UPDATE operations SET unreadable_by = NULL WHERE id IN \
             (SELECT id FROM operations WHERE unreadable_by < $1 LIMIT {MARKED_MAX}{lock})"
        );
        // The text is made of constants.
        sqlx::query(AssertSqlSafe(sql))
            .bind(self.version.0)
            .execute(connection)
            .await?;
        Ok(())
    }
}

/// The conditions of running operations that no search for due ones comes across, each for an
/// index. `$1` is the last moment, `$2` the present one.
pub(super) const ODD: [&str; 2] = [
    "status = 'running' AND unreadable_by IS NULL AND next_look_at > $1",
    "status = 'running' AND unreadable_by IS NULL AND next_look_at <= $2 AND lease_until > $1",
];

/// The condition of operations whose status is no word that this program knows, for an index:
/// whether they have ended it cannot tell.
pub(super) const ODD_STATUS: &str =
    "status NOT IN ('running', 'succeeded', 'failed', 'cancelled', 'superseded')";

/// The last moment that can be read, in microseconds.
pub(super) fn last_moment() -> i64 {
    Timestamp::MAX.as_second() * 1_000_000
}

/// Operations whose end is still to be told to the audit log, the first to end first, up to `limit`
/// of them, and whether there may be more behind such as cannot be read.
pub(super) async fn owed_ends(
    mut transaction: AnyTransaction,
    limit: u32,
    reader: Reader,
) -> Result<Written<(Vec<Operation>, bool)>, StoreError> {
    let select = "WHERE owes_end = 1 AND status <> 'running' AND unreadable_by IS NULL \
                  ORDER BY operations.finished_at, operations.id LIMIT $1";
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let (mut together, mut marked) = (limit, 0);
    loop {
        let rows = sqlx::query(select_operations(Engine::of(&transaction), select))
            .bind(i64::from(together))
            .fetch_all(&mut *transaction)
            .await?;
        let Sorted {
            mut readable,
            unreadable,
        } = reader.read(&mut transaction, &rows).await?;
        marked += reader.mark(&mut transaction, &unreadable).await?;
        let is_all = unreadable.is_empty() || u32::try_from(rows.len()).is_ok_and(|n| n < together);
        if readable.len() >= most || is_all || marked >= MARKED_MAX {
            let may_be_more = readable.len() < most && !is_all;
            readable.truncate(most);
            let owed = readable.into_iter().map(|(operation, _)| operation);
            let found = (owed.collect(), may_be_more);
            return Ok(match marked {
                0 => Written::Nothing(found),
                _ => Written::Commit(transaction, found),
            });
        }
        together = limit.max(TOGETHER);
    }
}

/// Looks at some of the marked operations again, those behind the first `passed`, and takes the
/// marks of those away that can be read. Before the first of them it marks those whose status is
/// odd, which no claim comes across. Tells how many are to be passed next time, and whether there
/// are more.
pub(super) async fn look_again(
    mut transaction: AnyTransaction,
    passed: u32,
    reader: Reader,
) -> Result<Written<(u32, bool)>, StoreError> {
    if passed == 0 && mark_odd_statuses(&mut transaction, &reader).await? {
        return Ok(Written::Commit(transaction, (0, true)));
    }
    let select = "WHERE unreadable_by IS NOT NULL \
                  ORDER BY operations.unreadable_by, operations.id LIMIT $1 OFFSET $2";
    let rows = sqlx::query(select_operations(Engine::of(&transaction), select))
        .bind(i64::from(TOGETHER))
        .bind(i64::from(passed))
        .fetch_all(&mut *transaction)
        .await?;
    let sorted = reader.read(&mut transaction, &rows).await?;
    let mended: Vec<&AnyRow> = sorted.readable.iter().map(|(_, row)| *row).collect();
    set_mark(&mut transaction, None, &mended).await?;
    let remain = u32::try_from(sorted.unreadable.len()).unwrap_or(TOGETHER);
    let passed = passed.saturating_add(remain);
    if u32::try_from(rows.len()).is_ok_and(|read| read >= TOGETHER) {
        return Ok(Written::Commit(transaction, (passed, true)));
    }
    let name = |row: &&AnyRow| rows::id_of(row).map_or_else(|odd| odd.id, str::to_owned);
    reader
        .reports
        .all(passed, sorted.unreadable.iter().map(name));
    Ok(Written::Commit(transaction, (0, false)))
}

/// Marks operations whose status is odd. Whether there are more.
async fn mark_odd_statuses(
    connection: &mut AnyConnection,
    reader: &Reader,
) -> Result<bool, StoreError> {
    let conditions = format!("WHERE {ODD_STATUS} AND unreadable_by IS NULL LIMIT {TOGETHER}");
    let rows = sqlx::query(select_operations(Engine::of(connection), &conditions))
        .fetch_all(&mut *connection)
        .await?;
    let sorted = reader.read(connection, &rows).await?;
    reader.mark(connection, &sorted.unreadable).await?;
    Ok(u32::try_from(rows.len()).is_ok_and(|read| read >= TOGETHER))
}

/// Sets or takes away the mark of these rows, whatever their ids are. Tells how many there were.
async fn set_mark(
    connection: &mut AnyConnection,
    mark: Option<i64>,
    rows: &[&AnyRow],
) -> Result<usize, StoreError> {
    for chunk in rows.chunks(read::IDS_PER_STATEMENT) {
        let mut arguments = AnyArguments::default();
        arguments.add(mark).map_err(unavailable)?;
        let engine = Engine::of(connection);
        let mut places = Vec::with_capacity(chunk.len());
        for row in chunk {
            let added = match engine {
                Engine::Sqlite => arguments.add(row.try_get::<i64, _>("place")?),
                Engine::Postgres => arguments.add(row.try_get::<String, _>("place")?),
            };
            added.map_err(unavailable)?;
            places.push(format!("${}", arguments.len()));
        }
        let (place, places, lock) = (engine.place(), places.join(", "), engine.lock());
        let sql = format!(
            "UPDATE operations SET unreadable_by = $1 WHERE {place} IN \
             (SELECT {place} FROM operations WHERE {place} IN ({places}){lock})"
        );
        // The text is made of constants and numbers.
        sqlx::query_with(AssertSqlSafe(sql), arguments)
            .execute(&mut *connection)
            .await?;
    }
    Ok(rows.len())
}
