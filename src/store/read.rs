//! Statements that read operations.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use sqlx::{
    AnyConnection, Arguments as _, AssertSqlSafe,
    any::{AnyArguments, AnyRow},
};

use super::{
    database::{AnyTransaction, OneStatement, unavailable},
    engine::Engine,
    rows::{self, Columns, Reports, Unreadable},
};
use crate::domain::{
    operation::{Operation, OperationId},
    service::{CallerName, ProjectName, ServiceName},
    store::{Former, StoreError},
    task::TaskRef,
};

/// The columns that an operation is read from.
const COLUMNS: [&str; 29] = [
    "id",
    "project",
    "service",
    "task",
    "project_id",
    "region",
    "endpoint",
    "kind",
    "force",
    "source_credential",
    "destination_credential",
    "inline_credentials",
    "migrate_failed_objects",
    "status",
    "phase",
    "outcome",
    "failure",
    "superseded_by",
    "requested_by",
    "created_at",
    "updated_at",
    "deadline_at",
    "finished_at",
    "next_look_at",
    "history",
    "last_seen",
    "version",
    "lease_owner",
    "lease_until",
];

/// A `SELECT` of whole operations with these conditions. An `ORDER BY` among them has to name the
/// table too, so that it means the column and not what is selected of it.
pub(super) fn select_operations(engine: Engine, conditions: &str) -> AssertSqlSafe<String> {
    let columns = rows::columns(engine, "operations", &COLUMNS);
    let place = engine.place();
    // The text is made of constants and numbers.
    AssertSqlSafe(format!(
        "SELECT {columns}, operations.{place} AS place FROM operations {conditions}"
    ))
}

/// The columns that an event is read from.
const EVENT_COLUMNS: [&str; 5] = ["operation_id", "number", "happened_at", "kind", "detail"];

/// The most ids in one statement; engines limit the number of parameters.
pub(super) const IDS_PER_STATEMENT: usize = 500;

/// What could be read of some rows, in their order.
pub(super) type Read = Vec<Result<Operation, Unreadable>>;

/// The operation with this id.
pub(super) async fn find(
    mut transaction: AnyTransaction,
    id: OperationId,
) -> Result<Option<Operation>, StoreError> {
    of_id(&mut transaction, &id.to_string()).await
}

async fn of_id(connection: &mut AnyConnection, id: &str) -> Result<Option<Operation>, StoreError> {
    let select = select_operations(Engine::of(connection), "WHERE id = $1");
    let rows = sqlx::query(select)
        .bind(id)
        .fetch_all(&mut *connection)
        .await?;
    one(connection, rows).await
}

/// The operation that a caller's key stands for, and the fingerprint of the request that it came
/// with.
pub(super) async fn recall(
    mut transaction: AnyTransaction,
    caller: CallerName,
    key: String,
) -> Result<Option<(Operation, String)>, StoreError> {
    let columns = rows::columns(
        Engine::of(&transaction),
        "idempotency_keys",
        &["operation_id", "fingerprint"],
    );
    let sql = format!("SELECT {columns} FROM idempotency_keys WHERE caller = $1 AND key = $2");
    // The text is made of constants.
    let known = sqlx::query(AssertSqlSafe(sql))
        .bind(caller.as_str())
        .bind(key)
        .fetch_optional(&mut *transaction)
        .await?;
    let Some(known) = known else { return Ok(None) };
    let id = Columns::new(&known, "a key").text("operation_id")?;
    let fingerprint = Columns::new(&known, id).text("fingerprint")?.to_owned();
    let operation = of_id(&mut transaction, id).await?;
    Ok(operation.map(|operation| (operation, fingerprint)))
}

/// The operation on a task whose status meets this condition, which at most one does, or one of
/// those that cannot be read.
pub(super) async fn on_task(
    connection: &mut AnyConnection,
    task: &TaskRef,
    status: &str,
) -> Result<Option<Operation>, StoreError> {
    let conditions =
        format!("WHERE project = $1 AND service = $2 AND task = $3 AND {status} LIMIT 1");
    let select = select_operations(Engine::of(connection), &conditions);
    let rows = sqlx::query(select)
        .bind(task.project.as_str())
        .bind(task.service.as_str())
        .bind(task.id.as_str())
        .fetch_all(&mut *connection)
        .await?;
    one(connection, rows).await
}

/// The operations on a task in short, newest first.
pub(super) async fn former(
    mut transaction: AnyTransaction,
    task: TaskRef,
    limit: u32,
    reports: Arc<Reports>,
) -> Result<Vec<Former>, StoreError> {
    let columns = rows::columns(
        Engine::of(&transaction),
        "operations",
        &["id", "status", "history"],
    );
    let sql = format!(
        "SELECT {columns} FROM operations \
         WHERE project = $1 AND service = $2 AND task = $3 ORDER BY operations.id DESC LIMIT $4"
    );
    // The text is made of constants.
    let rows = sqlx::query(AssertSqlSafe(sql))
        .bind(task.project.as_str())
        .bind(task.service.as_str())
        .bind(task.id.as_str())
        .bind(i64::from(limit))
        .fetch_all(&mut *transaction)
        .await?;
    let mut former = Vec::with_capacity(rows.len());
    for row in &rows {
        // One without an id is no operation that could be named.
        let found = rows::id_of(row).map(|id| Columns::new(row, id));
        let found = found.and_then(|columns| Ok((columns.id()?, columns)));
        if let Some((id, columns)) = reports.readable(found) {
            former.push(Former {
                id,
                record: reports.readable(columns.record()),
            });
        }
    }
    Ok(former)
}

/// How many operations are running on tasks of a service of a project.
pub(super) async fn count_running(
    mut connection: OneStatement,
    (project, service): (ProjectName, ServiceName),
) -> Result<u64, StoreError> {
    let running = sqlx::query_scalar::<_, i64>(
        "SELECT COUNT(*) FROM operations WHERE project = $1 AND service = $2 AND status = 'running'",
    )
    .bind(project.as_str())
    .bind(service.as_str())
    .fetch_one(&mut *connection)
    .await?;
    Ok(u64::try_from(running).unwrap_or(0))
}

/// How many operations are running that a caller asked for first, but for those that were found to
/// be unreadable: this program does not bring them to an end.
pub(super) async fn count_running_of(
    mut connection: OneStatement,
    caller: CallerName,
) -> Result<u64, StoreError> {
    let running = running_of(&mut connection, &caller).await?;
    Ok(u64::try_from(running).unwrap_or(0))
}

/// The same in a transaction that goes on.
pub(super) async fn running_of(
    connection: &mut AnyConnection,
    caller: &CallerName,
) -> Result<i64, StoreError> {
    let count = sqlx::query_scalar(
        "SELECT COUNT(*) FROM operations \
         WHERE status = 'running' AND requested_by = $1 AND unreadable_by IS NULL",
    )
    .bind(caller.as_str())
    .fetch_one(connection)
    .await?;
    Ok(count)
}

async fn one(
    connection: &mut AnyConnection,
    rows: Vec<AnyRow>,
) -> Result<Option<Operation>, StoreError> {
    let read = complete(connection, &rows).await?.into_iter().next();
    Ok(read.transpose()?)
}

/// The end of a condition that a column is one of these, of which there can be none.
pub(super) fn one_of<'n>(
    texts: impl Iterator<Item = &'n str>,
    arguments: &mut AnyArguments,
) -> Result<String, sqlx::error::BoxDynError> {
    // No text at all is `NULL`, which nothing is one of.
    let mut end = " IN (NULL".to_owned();
    for text in texts {
        arguments.add(text)?;
        write!(end, ", ${}", arguments.len())?;
    }
    end.push(')');
    Ok(end)
}

/// Adds callers and events to rows of operations, by two statements for every 500 rows.
pub(super) async fn complete(
    connection: &mut AnyConnection,
    operations: &[AnyRow],
) -> Result<Read, StoreError> {
    let mut read = Vec::with_capacity(operations.len());
    for chunk in operations.chunks(IDS_PER_STATEMENT) {
        let ids: Vec<&str> = chunk
            .iter()
            .filter_map(|row| rows::id_of(row).ok())
            .collect();
        let callers = children(
            connection,
            ("operation_callers", &["operation_id", "number", "caller"]),
            &ids,
        )
        .await?;
        let events = children(connection, ("operation_events", &EVENT_COLUMNS), &ids).await?;
        read.extend(chunk.iter().map(|row| {
            let id = rows::id_of(row)?;
            let callers = callers.get(id).map_or(&[][..], Vec::as_slice);
            let events = events.get(id).map_or(&[][..], Vec::as_slice);
            rows::operation(Columns::new(row, id), callers, events)
        }));
    }
    Ok(read)
}

/// It is told once in the life of a process.
static ORPHAN_IS_TOLD: AtomicBool = AtomicBool::new(false);

/// The rows that belong to these operations, by operation, each in the order of their numbers.
async fn children(
    connection: &mut AnyConnection,
    (table, names): (&str, &[&str]),
    ids: &[&str],
) -> Result<HashMap<String, Vec<AnyRow>>, StoreError> {
    let mut arguments = AnyArguments::default();
    let chosen = one_of(ids.iter().copied(), &mut arguments).map_err(unavailable)?;
    let columns = rows::columns(Engine::of(connection), table, names);
    let sql = format!(
        "SELECT {columns} FROM {table} WHERE operation_id{chosen} \
         ORDER BY {table}.operation_id, {table}.number"
    );
    // The text is made of constants and numbers.
    let rows = sqlx::query_with(AssertSqlSafe(sql), arguments)
        .fetch_all(connection)
        .await?;
    let mut by_operation = HashMap::<String, Vec<AnyRow>>::new();
    for row in rows {
        // An index of a damaged file can lead to a row that has another id, and is nobody's then.
        let Ok(id) = Columns::new(&row, "").text("operation_id") else {
            if !ORPHAN_IS_TOLD.swap(true, Relaxed) {
                tracing::error!(
                    table,
                    "a row that belongs to no operation is passed over: the database is damaged"
                );
            }
            continue;
        };
        by_operation.entry(id.to_owned()).or_default().push(row);
    }
    Ok(by_operation)
}
