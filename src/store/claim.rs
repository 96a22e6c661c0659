//! Leases: which operations are to be driven, by whom, and until when.

use std::sync::Arc;

use jiff::Timestamp;
use sqlx::{AnyConnection, AssertSqlSafe, Row as _};

use super::{
    database::{AnyTransaction, Engine, Written, unavailable},
    read::{self, select_operations},
    rows::{self, Columns, Reports, Unreadable},
};
use crate::domain::{
    operation::{Operation, OperationId},
    store::{Claim, Lease, Leased, StoreError},
};

/// Whose clock says whether a lease has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaseClock {
    /// The caller's: all callers are on one machine.
    Caller,
    /// The database's: the clocks of several machines differ.
    Database,
}

/// By how much the clocks of two machines that share a record may differ, in microseconds.
const CLOCKS_APART: i64 = 10_000_000;

/// The moments of a lease, in microseconds.
struct Term {
    /// Looks that are due are due by the caller's clock, which set them.
    due: i64,
    now: i64,
    until: i64,
    /// When an operation was due that is left to another owner no more.
    late: i64,
}

impl Term {
    async fn of(
        connection: &mut AnyConnection,
        (lease, clock): &(Lease, LeaseClock),
    ) -> Result<Self, StoreError> {
        let due = lease.now.as_microsecond();
        let now = match clock {
            LeaseClock::Caller => due,
            LeaseClock::Database => {
                sqlx::query_scalar(
                    "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)",
                )
                .fetch_one(connection)
                .await?
            }
        };
        let duration = i64::try_from(lease.duration.as_micros()).unwrap_or(i64::MAX);
        Ok(Self {
            due,
            late: due.saturating_sub(duration),
            now,
            until: now.saturating_add(duration),
        })
    }
}

/// Where a search for due operations goes on: after this look of the operation whose id has these bytes.
type Position = (i64, Vec<u8>);

/// Leases up to `limit` due operations, oldest look first.
pub(super) async fn claim(
    mut transaction: AnyTransaction,
    lease: (Lease, LeaseClock),
    limit: u32,
    reports: Arc<Reports>,
) -> Result<Written<Claim>, StoreError> {
    let term = Term::of(&mut transaction, &lease).await?;
    let (lease, _) = lease;
    bring_forward(&mut transaction, &lease, &term).await?;
    let mut claim = Claim::default();
    let mut after = (i64::MIN, Vec::new());
    // Those that cannot be read take no place from the others: the search goes on behind them.
    'search: while let Some(due) =
        next_due(&mut transaction, (&lease, &term), limit, &mut after).await?
    {
        for (read, owner) in due {
            let Some(mut operation) = reports.operation(read) else {
                continue;
            };
            if claim.operations.len() >= usize::try_from(limit).unwrap_or(usize::MAX) {
                claim.next_due_at = Some(operation.next_look_at);
                break 'search;
            }
            if take(&mut transaction, &lease, &term, &mut operation).await? {
                let taken_over = owner.is_some_and(|owner| owner != lease.owner);
                claim.operations.push(Leased {
                    operation,
                    taken_over,
                });
            }
        }
    }
    if claim.next_due_at.is_none() {
        let (due, is_any_odd) = later(&mut transaction, &lease, &term).await?;
        claim.next_due_at = due;
        if is_any_odd {
            report_odd(&mut transaction, &term, &reports).await?;
        }
    }
    Ok(Written::Commit(transaction, claim))
}

/// The conditions of due operations, with one of the engine and a lock.
macro_rules! due {
    ($is_sound:literal, $lock:literal) => {
        concat!(
            "WHERE status = 'running' AND next_look_at <= $1 \
             AND (lease_until IS NULL OR lease_until <= $2) \
             AND (kept_for IS NULL OR kept_for = $6 OR next_look_at <= $7) \
             AND (next_look_at > $3 OR (next_look_at = $3 AND id > CAST($4 AS TEXT)))",
            $is_sound,
            " ORDER BY operations.next_look_at, operations.id LIMIT $5",
            $lock
        )
    };
}

/// The conditions of running operations that no search for due ones comes across, each for an index: their look, or their
/// lease though their look is due, is beyond all times ($1), or their place among the others cannot be told.
macro_rules! odd {
    ($is_not_sound:literal) => {
        [
            "status = 'running' AND next_look_at > $1",
            concat!(
                "status = 'running' AND next_look_at <= $2 AND (lease_until > $1",
                $is_not_sound,
                ")"
            ),
        ]
    };
}

/// The last moment that can be read, in microseconds.
fn last_moment() -> i64 {
    Timestamp::MAX.as_second() * 1_000_000
}

fn odd(engine: Engine) -> [&'static str; 2] {
    match engine {
        Engine::Sqlite => odd!(" OR typeof(next_look_at) <> 'integer' OR typeof(id) <> 'text'"),
        Engine::Postgres => odd!(""),
    }
}

/// Makes due what rests until a moment that can only have been said before the clock was set back.
async fn bring_forward(
    connection: &mut AnyConnection,
    lease: &Lease,
    term: &Term,
) -> Result<(), StoreError> {
    let rest = i64::try_from(lease.longest_rest.as_micros()).unwrap_or(i64::MAX);
    sqlx::query(
        "UPDATE operations SET next_look_at = $1 \
         WHERE status = 'running' AND next_look_at > $2 AND updated_at > $3",
    )
    .bind(term.due)
    .bind(term.due.saturating_add(rest))
    .bind(term.due.saturating_add(CLOCKS_APART))
    .execute(connection)
    .await?;
    Ok(())
}

/// An operation that is due, and who let a lease on it end without giving it back.
type Due = (Result<Operation, Unreadable>, Option<String>);

/// One more than `limit` of the operations that are due after a position, which moves on; `None` if there are none.
async fn next_due(
    connection: &mut AnyConnection,
    (lease, term): (&Lease, &Term),
    limit: u32,
    after: &mut Position,
) -> Result<Option<Vec<Due>>, StoreError> {
    // Nobody waits for somebody else who leases the same ones.
    let engine = Engine::of(connection);
    let due = match engine {
        Engine::Sqlite => due!(
            " AND typeof(next_look_at) = 'integer' AND typeof(id) = 'text'",
            ""
        ),
        Engine::Postgres => due!("", " FOR UPDATE SKIP LOCKED"),
    };
    let query = sqlx::query(select_operations(engine, due))
        .bind(term.due)
        .bind(term.now)
        .bind(after.0);
    let query = match engine {
        Engine::Sqlite => query.bind(after.1.as_slice()),
        Engine::Postgres => query.bind(String::from_utf8_lossy(&after.1).into_owned()),
    };
    let rows = query
        .bind(i64::from(limit) + 1)
        .bind(lease.owner.as_str())
        .bind(term.late)
        .fetch_all(&mut *connection)
        .await?;
    let Some(last) = rows.last() else {
        return Ok(None);
    };
    let last_id = rows::bytes_of(last, "id").unwrap_or_default();
    *after = (last.try_get("next_look_at")?, last_id.to_owned());
    let read = read::complete(connection, &rows).await?;
    // Where an owner cannot be read, the operation cannot either.
    let owners = rows.iter().map(|row| {
        let owner = Columns::new(row, "").optional_text("lease_owner").ok()??;
        Some(owner.to_owned())
    });
    Ok(Some(read.into_iter().zip(owners).collect()))
}

/// Leases one operation. Whether it was still as it was read: it is, since nobody else can write to it.
async fn take(
    connection: &mut AnyConnection,
    lease: &Lease,
    term: &Term,
    operation: &mut Operation,
) -> Result<bool, StoreError> {
    let taken = sqlx::query(
        "UPDATE operations SET lease_owner = $1, lease_until = $2, version = version + 1 \
         WHERE id = $3 AND version = $4 AND status = 'running'",
    )
    .bind(lease.owner.as_str())
    .bind(term.until)
    .bind(operation.id.to_string())
    .bind(operation.version)
    .execute(connection)
    .await?;
    if taken.rows_affected() != 1 {
        return Ok(false);
    }
    operation.version += 1;
    Ok(true)
}

/// When the first of those becomes due that are not due: its look, or the end of the lease that another owner has on one whose
/// look is due. Those that are kept for others are left out: somebody looks for them often enough. And whether there are odd ones.
async fn later(
    connection: &mut AnyConnection,
    lease: &Lease,
    term: &Term,
) -> Result<(Option<Timestamp>, bool), StoreError> {
    let [odd_look, odd_lease] = odd(Engine::of(connection));
    // Searches each of which ends at the first row that an index finds or sees few rows, and not all that are running.
    let sql = format!(
        "SELECT CAST(MIN(due) AS BIGINT) AS due, CAST(CASE WHEN \
         EXISTS (SELECT 1 FROM operations WHERE {odd_look}) \
         OR EXISTS (SELECT 1 FROM operations WHERE {odd_lease}) THEN 1 ELSE 0 END AS BIGINT) AS odd \
         FROM (SELECT MIN(next_look_at) AS due FROM operations \
         WHERE status = 'running' AND next_look_at > $2 AND next_look_at <= $1 \
         AND (kept_for IS NULL OR kept_for = $4) \
         UNION ALL SELECT MIN(lease_until) FROM operations \
         WHERE status = 'running' AND next_look_at <= $2 AND lease_until > $3 AND lease_until <= $1 \
         AND lease_owner <> $4) AS found"
    );
    // The text is made of constants.
    let found = sqlx::query(AssertSqlSafe(sql))
        .bind(last_moment())
        .bind(term.due)
        .bind(term.now)
        .bind(lease.owner.as_str())
        .fetch_one(connection)
        .await?;
    let due: Option<i64> = found.try_get("due")?;
    let due = due.map(|due| Timestamp::from_microsecond(due).map_err(unavailable));
    Ok((due.transpose()?, found.try_get::<i64, _>("odd")? != 0))
}

/// Reports the odd ones, of which none can be read.
async fn report_odd(
    connection: &mut AnyConnection,
    term: &Term,
    reports: &Reports,
) -> Result<(), StoreError> {
    let engine = Engine::of(connection);
    for odd in odd(engine) {
        let conditions = format!("WHERE {odd} LIMIT {}", Reports::MAX);
        let rows = sqlx::query(select_operations(engine, &conditions))
            .bind(last_moment())
            .bind(term.due)
            .fetch_all(&mut *connection)
            .await?;
        for read in read::complete(connection, &rows).await? {
            reports.readable(read);
        }
    }
    Ok(())
}

/// Extends the leases of this owner on these operations. Tells which it has.
pub(super) async fn renew(
    mut transaction: AnyTransaction,
    lease: (Lease, LeaseClock),
    held: Vec<OperationId>,
) -> Result<Written<Vec<OperationId>>, StoreError> {
    let term = Term::of(&mut transaction, &lease).await?;
    let mut renewed = Vec::with_capacity(held.len());
    for id in held {
        let extended = sqlx::query(
            "UPDATE operations SET lease_until = $1 \
             WHERE id = $2 AND lease_owner = $3 AND status = 'running'",
        )
        .bind(term.until)
        .bind(id.to_string())
        .bind(lease.0.owner.as_str())
        .execute(&mut *transaction)
        .await?;
        if extended.rows_affected() == 1 {
            renewed.push(id);
        }
    }
    Ok(Written::Commit(transaction, renewed))
}
