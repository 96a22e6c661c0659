//! Statements that write operations. Who writes at the same time, on an engine where
//! somebody can, is kept from the same task, the same caller and the same rows.

use sqlx::{AnyConnection, AssertSqlSafe};

use super::{
    database::{AnyTransaction, OneStatement, Written, unavailable},
    engine::Engine,
    postgres, read,
    rows::{self, Mutable},
    unreadable::{ODD_STATUS, TOGETHER},
};
use crate::domain::{
    operation::{EVENTS_MAX, EventKind, Operation, OperationEvent, OperationId},
    service::{CallerName, CredentialName},
    store::{Creation, Hold, IdempotencyKey, Joining, NewOperation, StoreError},
    task::TaskRef,
};

/// Records an operation, unless one is running on its task.
pub(super) async fn create(
    mut transaction: AnyTransaction,
    fresh: NewOperation,
) -> Result<Written<Creation>, StoreError> {
    let NewOperation {
        operation,
        key,
        supersedes,
        owes_end,
        follows,
        running_max,
        kept_for,
    } = fresh;
    let TaskRef {
        project,
        service,
        id,
    } = &operation.task;
    alone_with(&mut transaction, &format!("task {project} {service} {id}")).await?;
    if let Some(known) = follows
        && is_followed(&mut transaction, known, &operation.task).await?
    {
        return Ok(Written::Nothing(Creation::Lost));
    }
    if let Some((superseded, events)) = supersedes {
        let guard = (superseded.id, superseded.version);
        let changed = Mutable::of(&superseded).map_err(unavailable)?;
        if !update(&mut transaction, guard, changed, Hold::Release).await? {
            return Ok(Written::Nothing(Creation::Lost));
        }
        append(&mut transaction, superseded.id, events).await?;
    }
    if let Some(most) = running_max {
        let caller = &operation.requested_by;
        alone_with(&mut transaction, &format!("caller {caller}")).await?;
        if read::running_of(&mut transaction, caller).await? >= i64::from(most) {
            return Ok(Written::Nothing(Creation::TooMany));
        }
    }
    if !insert(&mut transaction, &operation, owes_end, kept_for.as_deref()).await? {
        let running =
            read::on_task(&mut transaction, &operation.task, "status = 'running'").await?;
        // Where others write meanwhile, it may have ended before it was read.
        return Ok(Written::Nothing(
            running.map_or(Creation::Lost, |operation| {
                Creation::Running(Box::new(operation))
            }),
        ));
    }
    // After the insert, which waits for whoever is about to make a running one odd. It may not have
    // ended, and cannot be read.
    if let Some(odd) = read::on_task(&mut transaction, &operation.task, ODD_STATUS).await? {
        return Ok(Written::Nothing(Creation::Running(Box::new(odd))));
    }
    for caller in &operation.callers {
        insert_caller(&mut transaction, operation.id, caller).await?;
    }
    let caller = &operation.requested_by;
    if !insert_key(&mut transaction, operation.id, caller, key.as_ref()).await? {
        return Ok(Written::Nothing(Creation::Lost));
    }
    append(&mut transaction, operation.id, operation.events).await?;
    Ok(Written::Commit(transaction, Creation::Created))
}

/// Makes whoever records something about the same thing wait for the end of this transaction, so
/// that what is read about it holds until then.
async fn alone_with(connection: &mut AnyConnection, thing: &str) -> Result<(), StoreError> {
    if Engine::of(connection) == Engine::Postgres {
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
            .bind(thing)
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// Whether there is a later operation on the task. What has a damaged id is not known to be later.
async fn is_followed(
    connection: &mut AnyConnection,
    known: OperationId,
    task: &TaskRef,
) -> Result<bool, StoreError> {
    let id = rows::columns(Engine::of(connection), "operations", &["id"]);
    let sql = format!(
        "SELECT {id} FROM operations \
         WHERE project = $1 AND service = $2 AND task = $3 AND operations.id > $4 LIMIT {TOGETHER}"
    );
    // The text is made of constants.
    let later = sqlx::query(AssertSqlSafe(sql))
        .bind(task.project.as_str())
        .bind(task.service.as_str())
        .bind(task.id.as_str())
        .bind(known.to_string())
        .fetch_all(connection)
        .await?;
    let is_whole = |row| rows::id_of(row).is_ok_and(|id| OperationId::parse(id).is_some());
    Ok(later.iter().any(is_whole))
}

/// Whether there was room for it: no operation is running on its task.
async fn insert(
    connection: &mut AnyConnection,
    operation: &Operation,
    owes_end: bool,
    kept_for: Option<&str>,
) -> Result<bool, StoreError> {
    let Mutable {
        status,
        phase,
        outcome,
        failure,
        superseded_by,
        updated_at,
        deadline_at,
        finished_at,
        next_look_at,
        history,
        last_seen,
        delete_sent,
    } = Mutable::of(operation).map_err(unavailable)?;
    let start = &operation.start;
    let inserted = sqlx::query(
        "INSERT INTO operations (id, project, service, task, project_id, region, endpoint, kind, \
         force, source_credential, destination_credential, inline_credentials, \
         migrate_failed_objects, status, phase, outcome, failure, superseded_by, requested_by, \
         created_at, updated_at, deadline_at, finished_at, next_look_at, history, last_seen, \
         delete_sent, version, owes_end, kept_for) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, \
         $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30) \
         ON CONFLICT (project, service, task) WHERE status = 'running' DO NOTHING",
    )
    .bind(operation.id.to_string())
    .bind(operation.task.project.as_str())
    .bind(operation.task.service.as_str())
    .bind(operation.task.id.as_str())
    .bind(operation.binding.project_id.as_str())
    .bind(operation.binding.region.as_str())
    .bind(operation.binding.endpoint.as_str())
    .bind(operation.goal.kind())
    .bind(operation.goal.force())
    .bind(start.source.as_ref().map(CredentialName::as_str))
    .bind(start.destination.as_ref().map(CredentialName::as_str))
    .bind(i64::from(start.inline))
    .bind(i64::from(start.migrate_failed_objects))
    .bind(status)
    .bind(phase)
    .bind(outcome)
    .bind(failure)
    .bind(superseded_by)
    .bind(operation.requested_by.as_str())
    .bind(operation.created_at.as_microsecond())
    .bind(updated_at)
    .bind(deadline_at)
    .bind(finished_at)
    .bind(next_look_at)
    .bind(history)
    .bind(last_seen)
    .bind(delete_sent)
    .bind(operation.version)
    .bind(i64::from(owes_end))
    .bind(kept_for)
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// Adds a caller to an operation that is running, and the event that says so.
pub(super) async fn join(
    mut transaction: AnyTransaction,
    id: OperationId,
    (caller, key): (CallerName, Option<IdempotencyKey>),
    joined: OperationEvent,
) -> Result<Written<Joining>, StoreError> {
    // An update that changes nothing: on an engine with several writers it holds the row, and with
    // it the numbers of its events, until the commit.
    let running =
        sqlx::query("UPDATE operations SET version = version WHERE id = $1 AND status = 'running'")
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
    if running.rows_affected() != 1
        || !insert_key(&mut transaction, id, &caller, key.as_ref()).await?
    {
        return Ok(Written::Nothing(Joining::Lost));
    }
    if insert_caller(&mut transaction, id, &caller).await? {
        append(&mut transaction, id, vec![joined]).await?;
    }
    Ok(Written::Commit(transaction, Joining::Joined))
}

/// Whether the key, if there is one, stands for the operation from here on: it stood for none
/// before, or for one that is gone, as it can be after repairs of the database by hand.
async fn insert_key(
    connection: &mut AnyConnection,
    id: OperationId,
    caller: &CallerName,
    key: Option<&IdempotencyKey>,
) -> Result<bool, StoreError> {
    let Some(key) = key else { return Ok(true) };
    if insert_fresh_key(connection, id, caller, key).await? {
        return Ok(true);
    }
    // A statement of its own: it sees what another has committed that the insert waited for.
    let freed = sqlx::query(
        "DELETE FROM idempotency_keys WHERE caller = $1 AND key = $2 \
         AND NOT EXISTS (SELECT 1 FROM operations WHERE id = operation_id)",
    )
    .bind(caller.as_str())
    .bind(key.key.as_str())
    .execute(&mut *connection)
    .await?;
    Ok(freed.rows_affected() == 1 && insert_fresh_key(connection, id, caller, key).await?)
}

/// Whether there was no such key.
async fn insert_fresh_key(
    connection: &mut AnyConnection,
    id: OperationId,
    caller: &CallerName,
    key: &IdempotencyKey,
) -> Result<bool, StoreError> {
    let inserted = sqlx::query(
        "INSERT INTO idempotency_keys (caller, key, operation_id, fingerprint) \
         VALUES ($1, $2, $3, $4) ON CONFLICT (caller, key) DO NOTHING",
    )
    .bind(caller.as_str())
    .bind(key.key.as_str())
    .bind(id.to_string())
    .bind(key.fingerprint.as_str())
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// Whether the caller was not among the operation's callers before.
async fn insert_caller(
    connection: &mut AnyConnection,
    id: OperationId,
    caller: &CallerName,
) -> Result<bool, StoreError> {
    let inserted = sqlx::query(
        "INSERT INTO operation_callers (operation_id, caller, number) \
         SELECT $1, $2, COALESCE(MAX(number), 0) + 1 FROM operation_callers \
         WHERE operation_id = $1 \
         ON CONFLICT (operation_id, caller) DO NOTHING",
    )
    .bind(id.to_string())
    .bind(caller.as_str())
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// A write of a driver that has nothing to tell, guarded by the version that it holds: whether that
/// is still the one on record.
pub(super) async fn save_alone(
    mut connection: OneStatement,
    guard: (OperationId, i64),
    changed: Mutable,
    hold: Hold,
) -> Result<bool, sqlx::Error> {
    set(&mut connection, guard, changed, hold).await
}

/// A write of a driver, guarded by the version that it holds. Returns the events that were kept.
pub(super) async fn save(
    mut transaction: AnyTransaction,
    guard: (OperationId, i64),
    changed: Mutable,
    events: Vec<OperationEvent>,
    hold: Hold,
) -> Result<Written<Vec<OperationEvent>>, StoreError> {
    if !update(&mut transaction, guard, changed, hold).await? {
        return Err(StoreError::Stale);
    }
    let kept = append(&mut transaction, guard.0, events).await?;
    Ok(Written::Commit(transaction, kept))
}

/// Whether the operation was running in this version, and was written. Its end is told.
async fn update(
    connection: &mut AnyConnection,
    guard: (OperationId, i64),
    changed: Mutable,
    hold: Hold,
) -> Result<bool, StoreError> {
    let ends = changed.ends();
    let is_saved = set(connection, guard, changed, hold).await?;
    if is_saved && ends && Engine::of(connection) == Engine::Postgres {
        postgres::tell_end(connection, guard.0).await?;
    }
    Ok(is_saved)
}

/// Whether the operation was running in this version, and was written: by one statement.
async fn set(
    connection: &mut AnyConnection,
    (id, version): (OperationId, i64),
    changed: Mutable,
    hold: Hold,
) -> Result<bool, sqlx::Error> {
    let keeps = hold == Hold::Keep && !changed.ends();
    let saved = sqlx::query(
        "UPDATE operations SET status = $1, phase = $2, outcome = $3, failure = $4, \
         superseded_by = $5, updated_at = $6, deadline_at = $7, finished_at = $8, \
         next_look_at = $9, history = $10, last_seen = $11, delete_sent = $12, \
         version = version + 1, unreadable_by = NULL, \
         lease_owner = CASE WHEN $13 = 1 THEN lease_owner ELSE NULL END, \
         lease_until = CASE WHEN $13 = 1 THEN lease_until ELSE NULL END \
         WHERE id = $14 AND version = $15 AND status = 'running'",
    )
    .bind(changed.status)
    .bind(changed.phase)
    .bind(changed.outcome)
    .bind(changed.failure)
    .bind(changed.superseded_by)
    .bind(changed.updated_at)
    .bind(changed.deadline_at)
    .bind(changed.finished_at)
    .bind(changed.next_look_at)
    .bind(changed.history)
    .bind(changed.last_seen)
    .bind(changed.delete_sent)
    .bind(i64::from(keeps))
    .bind(id.to_string())
    .bind(version)
    .execute(connection)
    .await?;
    Ok(saved.rows_affected() == 1)
}

/// Appends events as long as there is room, and returns those that were kept. The last place
/// belongs to the end.
async fn append(
    connection: &mut AnyConnection,
    id: OperationId,
    events: Vec<OperationEvent>,
) -> Result<Vec<OperationEvent>, StoreError> {
    if events.is_empty() {
        return Ok(events);
    }
    let mut number = sqlx::query_scalar::<_, i64>(
        "SELECT COALESCE(MAX(number), 0) FROM operation_events WHERE operation_id = $1",
    )
    .bind(id.to_string())
    .fetch_one(&mut *connection)
    .await?;
    let mut kept = Vec::with_capacity(events.len());
    for event in events {
        let full = usize::try_from(number).is_ok_and(|number| number + 1 >= EVENTS_MAX);
        if full && event.kind != EventKind::Ended {
            continue;
        }
        number += 1;
        sqlx::query(
            "INSERT INTO operation_events (operation_id, number, happened_at, kind, detail) \
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(id.to_string())
        .bind(number)
        .bind(event.at.as_microsecond())
        .bind(event.kind.as_str())
        .bind(rows::event_detail(&event.kind).map(without_zeros))
        .execute(&mut *connection)
        .await?;
        kept.push(event);
    }
    Ok(kept)
}

/// PostgreSQL has no zero byte in any text, and a vendor can send one.
fn without_zeros(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
