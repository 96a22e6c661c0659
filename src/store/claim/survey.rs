//! What there is to be done for those who lease: one statement finds out, so that asking in vain
//! costs no more.

use jiff::Timestamp;
use sqlx::{AnyConnection, AssertSqlSafe, Row as _};

use super::{LeaseClock, Term, due, micros};
use crate::{
    domain::store::{CLOCKS_APART, Lease, StoreError},
    store::{
        database::{OneStatement, unavailable},
        engine::Engine,
        unreadable::{Version, last_moment},
    },
};

/// What there is to be done at one moment.
pub(in crate::store) struct Survey {
    /// The present moment by the clock that says whether a lease has ended.
    pub(super) now: i64,
    /// Some rest, or are leased, until a moment that can only have been said before the clock was
    /// set back.
    pub(super) is_set_back: bool,
    /// The look or the lease of some is beyond all times.
    pub(super) is_odd: bool,
    /// Some bear the mark of an older version.
    pub(super) has_older_marks: bool,
    /// The present moment by the caller's clock if any are due. Else the first look of those whose
    /// look is later, but for those that are kept for others: somebody looks for them often enough.
    next_look: Option<i64>,
    /// The first end of a lease that another owner has on an operation whose look is due; not known
    /// if any are due.
    next_end: Option<i64>,
}

impl Survey {
    /// Whether there is anything to do but to wait.
    pub(in crate::store) fn asks_for_writes(&self, lease: &Lease) -> bool {
        let now = lease.now.as_microsecond();
        let is_any_due = self.next_look.is_some_and(|look| look <= now);
        is_any_due || self.is_set_back || self.is_odd || self.has_older_marks
    }

    /// When there is something to be leased, by the caller's clock.
    pub(in crate::store) fn next_due_at(
        &self,
        lease: &Lease,
    ) -> Result<Option<Timestamp>, StoreError> {
        let by_callers_clock = |end: i64| {
            end.saturating_sub(self.now)
                .saturating_add(lease.now.as_microsecond())
                .min(last_moment())
        };
        let end = self.next_end.map(by_callers_clock);
        let due = [self.next_look, end].into_iter().flatten().min();
        let due = due.map(|due| Timestamp::from_microsecond(due).map_err(unavailable));
        due.transpose()
    }
}

/// Finds out what there is to be done, by one statement that writes nothing.
pub(in crate::store) async fn survey(
    mut connection: OneStatement,
    (lease, clock): (Lease, LeaseClock),
    version: Version,
) -> Result<Survey, StoreError> {
    look_round(&mut connection, (&lease, clock), version).await
}

/// The same within a transaction.
pub(super) async fn look_round(
    connection: &mut AnyConnection,
    (lease, clock): (&Lease, LeaseClock),
    version: Version,
) -> Result<Survey, StoreError> {
    let now = clock.now(connection, "$1");
    let any = |conditions: &str| {
        format!(
            "CAST(CASE WHEN EXISTS (SELECT 1 FROM operations WHERE {conditions}) \
             THEN 1 ELSE 0 END AS BIGINT)"
        )
    };
    let running = "status = 'running' AND unreadable_by IS NULL";
    let due = due(now);
    // Searches each of which ends at the first row that an index finds; all that are due are gone
    // through only if others hold them all.
    let sql = format!(
        "SELECT CAST({now} AS BIGINT) AS now, {} AS rests, {} AS odd_look, {} AS older, \
         CAST(CASE WHEN EXISTS (SELECT 1 FROM operations WHERE {due}) THEN $1 ELSE \
         (SELECT MIN(next_look_at) FROM operations WHERE {running} AND next_look_at > $1 \
         AND next_look_at <= $4 AND (kept_for IS NULL OR kept_for = $2)) END AS BIGINT) AS look, \
         held.first_end, held.lasts, held.odd_end FROM (SELECT \
         CAST(MIN(CASE WHEN lease_until > {now} AND lease_until <= $4 AND lease_owner <> $2 \
         THEN lease_until END) AS BIGINT) AS first_end, \
         CAST(MAX(CASE WHEN lease_until > {clock} + $8 AND lease_until <= $4 \
         THEN 1 ELSE 0 END) AS BIGINT) AS lasts, \
         CAST(MAX(CASE WHEN lease_until > $4 THEN 1 ELSE 0 END) AS BIGINT) AS odd_end \
         FROM operations WHERE {running} AND next_look_at <= $1 \
         AND NOT EXISTS (SELECT 1 FROM operations WHERE {due})) AS held",
        any(&format!(
            "{running} AND next_look_at > $6 AND updated_at > $7"
        )),
        any(&format!("{running} AND next_look_at > $4")),
        any("unreadable_by < $5"),
        clock = Engine::of(connection).clock(),
    );
    let term = Term::of(lease, 0);
    // The text is made of constants.
    let found = sqlx::query(AssertSqlSafe(sql))
        .bind(term.due)
        .bind(lease.owner.as_str())
        .bind(term.late)
        .bind(last_moment())
        .bind(version.0)
        .bind(term.due.saturating_add(micros(lease.longest_rest)))
        .bind(term.due.saturating_add(micros(CLOCKS_APART)))
        .bind(term.duration.saturating_add(micros(CLOCKS_APART)))
        .fetch_one(connection)
        .await?;
    let number = |name| found.try_get::<Option<i64>, _>(name);
    let is = |name| number(name).map(|number| number == Some(1));
    Ok(Survey {
        now: found.try_get("now")?,
        is_set_back: is("rests")? || is("lasts")?,
        is_odd: is("odd_look")? || is("odd_end")?,
        has_older_marks: is("older")?,
        next_look: number("look")?,
        next_end: number("first_end")?,
    })
}
