//! Leases: which operations are to be driven, by whom, and until when.

mod survey;

use std::time::Duration;

use jiff::Timestamp;
use sqlx::{AnyConnection, Arguments as _, AssertSqlSafe, any::AnyArguments};

use super::{
    database::{AnyTransaction, OneStatement, Written, unavailable},
    engine::Engine,
    read::{self, select_operations},
    rows::Columns,
    unreadable::{MARKED_MAX, Reader, Sorted, TOGETHER, last_moment},
};
use crate::domain::{
    operation::OperationId,
    store::{CLOCKS_APART, Claim, Lease, Leased, StoreError},
};

use self::survey::look_round;
pub(super) use self::survey::{Survey, survey};

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
    /// `now`: the present moment by the clock that says whether a lease has ended.
    fn of(lease: &Lease, now: i64) -> Self {
        let due = lease.now.as_microsecond();
        let duration = micros(lease.duration);
        Self {
            due,
            now,
            duration,
            until: now.saturating_add(duration),
            late: due
                .saturating_sub(duration)
                .saturating_sub(micros(CLOCKS_APART)),
        }
    }
}

impl LeaseClock {
    /// The present moment in a statement that has the caller's as this parameter.
    fn now(self, connection: &AnyConnection, callers: &'static str) -> &'static str {
        match self {
            Self::Caller => callers,
            Self::Database => Engine::of(connection).clock(),
        }
    }
}

/// Leases up to `limit` due operations, oldest look first, and puts in order what a survey found.
pub(super) async fn claim(
    mut transaction: AnyTransaction,
    ((lease, clock), found): ((Lease, LeaseClock), Survey),
    limit: u32,
    reader: Reader,
) -> Result<Written<Claim>, StoreError> {
    let term = Term::of(&lease, found.now);
    if found.is_set_back {
        bring_forward(&mut transaction, &lease, &term).await?;
    }
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
        claim.next_due_at = search.later(&mut transaction, clock).await?;
    }
    Ok(Written::Commit(transaction, claim))
}

/// The conditions of due operations. Parameters: the present moment by the caller's clock, the
/// caller, and the moment of what is late; `now` is the present moment by the clock of leases.
fn due(now: &str) -> String {
    format!(
        "status = 'running' AND unreadable_by IS NULL AND next_look_at <= $1 \
         AND (lease_until IS NULL OR lease_until <= {now}) \
         AND (kept_for IS NULL OR kept_for = $2 OR next_look_at <= $3)"
    )
}

/// The same, for a search for the first of them.
pub(super) fn first_due() -> String {
    let due = due("$4");
    format!("WHERE {due} ORDER BY operations.next_look_at, operations.id LIMIT $5")
}

/// Makes due what rests until a moment that can only have been said before the clock was set back.
async fn bring_forward(
    connection: &mut AnyConnection,
    lease: &Lease,
    term: &Term,
) -> Result<(), StoreError> {
    let engine = Engine::of(connection);
    let (place, lock) = (engine.place(), engine.lock());
    let sql = format!(
        "UPDATE operations SET next_look_at = $1 WHERE {place} IN \
         (SELECT {place} FROM operations WHERE status = 'running' AND unreadable_by IS NULL \
         AND next_look_at > $2 AND updated_at > $3{lock})"
    );
    // The text is made of constants.
    sqlx::query(AssertSqlSafe(sql))
        .bind(term.due)
        .bind(term.due.saturating_add(micros(lease.longest_rest)))
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
        let first_due = first_due() + engine.lock();
        let rows = sqlx::query(select_operations(engine, &first_due))
            .bind(self.term.due)
            .bind(self.lease.owner.as_str())
            .bind(self.term.late)
            .bind(self.term.now)
            .bind(i64::from(together))
            .fetch_all(&mut *connection)
            .await?;
        let Sorted {
            readable,
            unreadable,
        } = self.reader.read(connection, &rows).await?;
        self.marked += self.reader.mark(connection, &unreadable).await?;
        let room = self.limit.saturating_sub(claim.operations.len());
        let without_room = readable.get(room).map(|(first, _)| first.next_look_at);
        let mut taken = Vec::with_capacity(room.min(readable.len()));
        for (operation, row) in readable.into_iter().take(room) {
            let owner = Columns::new(row, "").optional_text("lease_owner")?;
            let taken_over = owner.is_some_and(|owner| owner != self.lease.owner);
            taken.push(Leased {
                operation,
                taken_over,
            });
        }
        take(connection, self.lease, self.term, &mut taken).await?;
        claim.operations.append(&mut taken);
        if without_room.is_some() {
            claim.next_due_at = without_room;
            return Ok(false);
        }
        if self.marked >= MARKED_MAX {
            // Enough for one transaction: the next one comes at once.
            claim.next_due_at = Some(self.lease.now);
            return Ok(false);
        }
        let is_all = u32::try_from(rows.len()).is_ok_and(|rows| rows < together);
        Ok(!is_all && !unreadable.is_empty())
    }

    /// When there is something to be leased again. What is marked, or is to be, and leases that
    /// last too long are put in order.
    async fn later(
        &self,
        connection: &mut AnyConnection,
        clock: LeaseClock,
    ) -> Result<Option<Timestamp>, StoreError> {
        let version = self.reader.version;
        let mut found = look_round(connection, (self.lease, clock), version).await?;
        if found.is_set_back {
            bring_ends_forward(connection, self.term).await?;
            found = look_round(connection, (self.lease, clock), version).await?;
        }
        if found.is_odd {
            self.reader.mark_odd(connection, self.term.due).await?;
        }
        if found.has_older_marks {
            self.reader.unmark_older(connection).await?;
            return Ok(Some(self.lease.now));
        }
        found.next_due_at(self.lease)
    }
}

/// Leases operations that were found. All are as they were read, since nobody else can write to
/// them.
async fn take(
    connection: &mut AnyConnection,
    lease: &Lease,
    term: &Term,
    found: &mut [Leased],
) -> Result<(), StoreError> {
    for chunk in found.chunks_mut(read::IDS_PER_STATEMENT) {
        let mut arguments = AnyArguments::default();
        arguments.add(lease.owner.as_str()).map_err(unavailable)?;
        arguments.add(term.until).map_err(unavailable)?;
        let ids: Vec<String> = chunk
            .iter()
            .map(|one| one.operation.id.to_string())
            .collect();
        let ids = ids.iter().map(String::as_str);
        let chosen = read::one_of(ids, &mut arguments).map_err(unavailable)?;
        let sql = format!(
            "UPDATE operations SET lease_owner = $1, lease_until = $2, version = version + 1 \
             WHERE id{chosen}"
        );
        // The text is made of constants and numbers.
        sqlx::query_with(AssertSqlSafe(sql), arguments)
            .execute(&mut *connection)
            .await?;
        for one in chunk {
            one.operation.version += 1;
        }
    }
    Ok(())
}

/// Extends the leases of this owner on these operations, as many as one statement takes, but for
/// those that somebody is writing to. Tells which it has.
pub(super) async fn renew(
    mut connection: OneStatement,
    (lease, clock): (Lease, LeaseClock),
    held: Vec<OperationId>,
) -> Result<Vec<OperationId>, sqlx::Error> {
    let mut arguments = AnyArguments::default();
    let add = |error| sqlx::Error::Encode(error);
    arguments.add(lease.now.as_microsecond()).map_err(add)?;
    arguments.add(micros(lease.duration)).map_err(add)?;
    arguments.add(lease.owner.as_str()).map_err(add)?;
    let ids: Vec<String> = held.iter().map(OperationId::to_string).collect();
    let chosen = read::one_of(ids.iter().map(String::as_str), &mut arguments).map_err(add)?;
    let (now, lock) = (clock.now(&connection, "$1"), Engine::of(&connection).lock());
    let sql = format!(
        "UPDATE operations SET lease_until = {now} + $2 \
         WHERE id IN (SELECT id FROM operations WHERE lease_owner = $3 AND status = 'running' \
         AND id{chosen}{lock}) RETURNING id"
    );
    // The text is made of constants and numbers.
    let renewed = sqlx::query_scalar_with::<_, String, _>(AssertSqlSafe(sql), arguments)
        .fetch_all(&mut *connection)
        .await?;
    Ok(renewed
        .iter()
        .filter_map(|id| OperationId::parse(id))
        .collect())
}
