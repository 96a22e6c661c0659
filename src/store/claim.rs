//! Leases: which operations are to be driven, by whom, and until when.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::{AnyConnection, AssertSqlSafe, Row as _};

use super::{
    database::{AnyTransaction, Engine, Written, unavailable},
    read::select_operations,
    rows::Columns,
    unreadable::{MARKED_MAX, ODD, Reader, Sorted, TOGETHER, last_moment},
};
use crate::domain::{
    operation::{Operation, OperationId},
    store::{CLOCKS_APART, Claim, Lease, Leased, StoreError},
};

/// Whose clock says whether a lease has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaseClock {
    /// The caller's: all callers are on one machine.
    Caller,
    /// The database's: the clocks of several machines differ.
    Database,
}

/// The moments of a lease, in microseconds.
struct Term {
    /// Looks that are due are due by the caller's clock, which set them.
    due: i64,
    now: i64,
    duration: i64,
    until: i64,
    /// When an operation was due that is left to another owner no more: by a clock that may be
    /// ahead of that owner's.
    late: i64,
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
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
                let clock = Engine::of(connection).clock();
                // The text is a constant.
                sqlx::query_scalar(AssertSqlSafe(format!("SELECT {clock}")))
                    .fetch_one(connection)
                    .await?
            }
        };
        let duration = micros(lease.duration);
        Ok(Self {
            due,
            now,
            duration,
            until: now.saturating_add(duration),
            late: due
                .saturating_sub(duration)
                .saturating_sub(micros(CLOCKS_APART)),
        })
    }

    /// A moment of the clock that says whether a lease has ended, by the caller's clock.
    fn by_callers_clock(&self, moment: i64) -> i64 {
        moment
            .saturating_sub(self.now)
            .saturating_add(self.due)
            .min(last_moment())
    }
}

/// Leases up to `limit` due operations, oldest look first.
pub(super) async fn claim(
    mut transaction: AnyTransaction,
    lease: (Lease, LeaseClock),
    limit: u32,
    reader: Reader,
) -> Result<Written<Claim>, StoreError> {
    let term = Term::of(&mut transaction, &lease).await?;
    let (lease, _) = lease;
    bring_forward(&mut transaction, &lease, &term).await?;
    let mut claim = Claim::default();
    let mut search = Search {
        lease: &lease,
        term: &term,
        reader: &reader,
        limit: usize::try_from(limit).unwrap_or(usize::MAX),
        marked: 0,
    };
    // One more, to know whether there are more.
    let mut together = limit.saturating_add(1);
    // Those that cannot be read take no place from the others: the search goes on behind them.
    while search
        .take_some(&mut transaction, together, &mut claim)
        .await?
    {
        together = together.max(TOGETHER);
    }
    if claim.next_due_at.is_none() {
        claim.next_due_at = search.later(&mut transaction).await?;
    }
    Ok(Written::Commit(transaction, claim))
}

/// The conditions of due operations.
pub(super) const DUE: &str = "WHERE status = 'running' AND unreadable_by IS NULL AND next_look_at <= $1 \
    AND (lease_until IS NULL OR lease_until <= $2) \
    AND (kept_for IS NULL OR kept_for = $3 OR next_look_at <= $4) \
    ORDER BY operations.next_look_at, operations.id LIMIT $5";

/// Makes due what rests until a moment that can only have been said before the clock was set back.
async fn bring_forward(
    connection: &mut AnyConnection,
    lease: &Lease,
    term: &Term,
) -> Result<(), StoreError> {
    let rest = micros(lease.longest_rest);
    sqlx::query(
        "UPDATE operations SET next_look_at = $1 \
         WHERE status = 'running' AND unreadable_by IS NULL \
         AND next_look_at > $2 AND updated_at > $3",
    )
    .bind(term.due)
    .bind(term.due.saturating_add(rest))
    .bind(term.due.saturating_add(micros(CLOCKS_APART)))
    .execute(connection)
    .await?;
    Ok(())
}

/// Makes leases last for one duration from this moment on that end so late that they can only have
/// been begun before the clock was set back: their owner may be dead. One that lives has asked for
/// its lease before this moment, and sends nothing any more when one duration has passed since it
/// asked.
///
/// The moment is the database's own also where leases go by the caller's clock: the caller may have
/// been stopped for long since it read its own, and others have leased since.
async fn bring_ends_forward(connection: &mut AnyConnection, term: &Term) -> Result<(), StoreError> {
    let engine = Engine::of(connection);
    let (clock, place, lock) = (engine.clock(), engine.place(), engine.lock());
    let sql = format!(
        "UPDATE operations SET lease_until = {clock} + $1 WHERE {place} IN \
         (SELECT {place} FROM operations WHERE status = 'running' AND unreadable_by IS NULL \
         AND next_look_at <= $2 AND lease_until > {clock} + $3 AND lease_until <= $4{lock})"
    );
    // The text is made of constants.
    sqlx::query(AssertSqlSafe(sql))
        .bind(term.duration)
        .bind(term.due)
        .bind(term.duration.saturating_add(micros(CLOCKS_APART)))
        .bind(last_moment())
        .execute(connection)
        .await?;
    Ok(())
}

/// A search for due operations in one transaction.
struct Search<'s> {
    lease: &'s Lease,
    term: &'s Term,
    reader: &'s Reader,
    limit: usize,
    /// How many were marked that cannot be read.
    marked: usize,
}

impl Search<'_> {
    /// Leases some of the first that are due, and marks those of them that cannot be read. Whether
    /// to do so again.
    async fn take_some(
        &mut self,
        connection: &mut AnyConnection,
        together: u32,
        claim: &mut Claim,
    ) -> Result<bool, StoreError> {
        let engine = Engine::of(connection);
        let due = format!("{DUE}{}", engine.lock());
        let rows = sqlx::query(select_operations(engine, &due))
            .bind(self.term.due)
            .bind(self.term.now)
            .bind(self.lease.owner.as_str())
            .bind(self.term.late)
            .bind(i64::from(together))
            .fetch_all(&mut *connection)
            .await?;
        let Sorted {
            readable,
            unreadable,
        } = self.reader.read(connection, &rows).await?;
        self.marked += self.reader.mark(connection, &unreadable).await?;
        for (mut operation, row) in readable {
            if claim.operations.len() >= self.limit {
                claim.next_due_at = Some(operation.next_look_at);
                return Ok(false);
            }
            take(connection, self.lease, self.term, &mut operation).await?;
            let owner = Columns::new(row, "").optional_text("lease_owner")?;
            let taken_over = owner.is_some_and(|owner| owner != self.lease.owner);
            claim.operations.push(Leased {
                operation,
                taken_over,
            });
        }
        if self.marked >= MARKED_MAX {
            // Enough for one transaction: the next one comes at once.
            claim.next_due_at = Some(self.lease.now);
            return Ok(false);
        }
        let is_all = u32::try_from(rows.len()).is_ok_and(|rows| rows < together);
        Ok(!is_all && !unreadable.is_empty())
    }

    /// When the first of those becomes due that are not due: its look, or the end of the lease that
    /// another owner has on one whose look is due. Those that are kept for others are left out:
    /// somebody looks for them often enough. What is marked, or is to be, is put in order.
    async fn later(&self, connection: &mut AnyConnection) -> Result<Option<Timestamp>, StoreError> {
        bring_ends_forward(connection, self.term).await?;
        let [odd_look, odd_lease] = ODD;
        // Searches each of which ends at the first row that an index finds or sees few rows, and
        // not all that are running.
        let sql = format!(
            "SELECT CAST(MIN(look) AS BIGINT) AS look, CAST(MIN(lease) AS BIGINT) AS lease, CAST(CASE WHEN \
             EXISTS (SELECT 1 FROM operations WHERE {odd_look}) \
             OR EXISTS (SELECT 1 FROM operations WHERE {odd_lease}) THEN 1 ELSE 0 END AS BIGINT) AS odd, \
             CAST(CASE WHEN EXISTS (SELECT 1 FROM operations WHERE unreadable_by < $5) \
             THEN 1 ELSE 0 END AS BIGINT) AS older \
             FROM (SELECT MIN(next_look_at) AS look, NULL AS lease FROM operations \
             WHERE status = 'running' AND unreadable_by IS NULL \
             AND next_look_at > $2 AND next_look_at <= $1 AND (kept_for IS NULL OR kept_for = $4) \
             UNION ALL SELECT NULL, MIN(lease_until) FROM operations \
             WHERE status = 'running' AND unreadable_by IS NULL \
             AND next_look_at <= $2 AND lease_until > $3 AND lease_until <= $1 \
             AND lease_owner <> $4) AS found"
        );
        // The text is made of constants.
        let found = sqlx::query(AssertSqlSafe(sql))
            .bind(last_moment())
            .bind(self.term.due)
            .bind(self.term.now)
            .bind(self.lease.owner.as_str())
            .bind(self.reader.version.0)
            .fetch_one(&mut *connection)
            .await?;
        if found.try_get::<i64, _>("odd")? != 0 {
            self.reader.mark_odd(connection, self.term.due).await?;
        }
        if found.try_get::<i64, _>("older")? != 0 {
            self.reader.unmark_older(connection).await?;
            return Ok(Some(self.lease.now));
        }
        let lease: Option<i64> = found.try_get("lease")?;
        let lease = lease.map(|until| self.term.by_callers_clock(until));
        let look: Option<i64> = found.try_get("look")?;
        let due = [look, lease].into_iter().flatten().min();
        let due = due.map(|due| Timestamp::from_microsecond(due).map_err(unavailable));
        due.transpose()
    }
}

/// Leases one operation, which is still as it was read: nobody else can write to it.
async fn take(
    connection: &mut AnyConnection,
    lease: &Lease,
    term: &Term,
    operation: &mut Operation,
) -> Result<(), StoreError> {
    sqlx::query(
        "UPDATE operations SET lease_owner = $1, lease_until = $2, version = version + 1 \
         WHERE id = $3 AND version = $4 AND status = 'running'",
    )
    .bind(lease.owner.as_str())
    .bind(term.until)
    .bind(operation.id.to_string())
    .bind(operation.version)
    .execute(connection)
    .await?;
    operation.version += 1;
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
