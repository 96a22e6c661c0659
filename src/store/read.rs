//! Statements that read operations.

use std::{collections::HashMap, fmt::Write as _, sync::Arc};

use sqlx::{
    AnyConnection, Arguments as _, AssertSqlSafe, Row as _,
    any::{AnyArguments, AnyRow},
};

use super::{
    database::{AnyTransaction, unavailable},
    rows::{self, Columns, Reports, Unreadable},
};
use crate::domain::{
    access::{Reach, Scope},
    operation::{Operation, OperationId},
    service::{CallerName, ProjectName, ServiceName},
    store::{Former, OperationQuery, StoreError},
    task::TaskRef,
};

/// A `SELECT` of whole operations; what follows is its `WHERE`.
macro_rules! select_operations {
    ($($rest:literal),+ $(,)?) => {
        concat!(
            "SELECT id, project, service, task, project_id, region, endpoint, kind, force, \
             source_credential, destination_credential, inline_credentials, \
             migrate_failed_objects, status, phase, outcome, failure, superseded_by, \
             requested_by, created_at, updated_at, deadline_at, finished_at, next_look_at, \
             history, last_seen, version, lease_owner, lease_until FROM operations ",
            $($rest),+
        )
    };
}
pub(super) use select_operations;

/// The most ids in one statement; engines limit the number of parameters.
pub(super) const IDS_PER_STATEMENT: usize = 500;

/// What could be read of some rows, in their order.
pub(super) type Read = Vec<Result<Operation, Unreadable>>;

/// The operation with this id.
pub(super) async fn find(
    mut transaction: AnyTransaction,
    id: OperationId,
) -> Result<Option<Operation>, StoreError> {
    let rows = sqlx::query(select_operations!("WHERE id = $1"))
        .bind(id.to_string())
        .fetch_all(&mut *transaction)
        .await?;
    one(&mut transaction, rows).await
}

/// The operation that a caller's key stands for, and the fingerprint of the request that it came with.
pub(super) async fn recall(
    mut transaction: AnyTransaction,
    caller: CallerName,
    key: String,
) -> Result<Option<(Operation, String)>, StoreError> {
    let known = sqlx::query(
        "SELECT operation_id, fingerprint FROM idempotency_keys WHERE caller = $1 AND key = $2",
    )
    .bind(caller.as_str())
    .bind(key)
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(known) = known else { return Ok(None) };
    let (id, fingerprint): (String, String) = (
        known.try_get("operation_id")?,
        known.try_get("fingerprint")?,
    );
    let rows = sqlx::query(select_operations!("WHERE id = $1"))
        .bind(id)
        .fetch_all(&mut *transaction)
        .await?;
    let operation = one(&mut transaction, rows).await?;
    Ok(operation.map(|operation| (operation, fingerprint)))
}

/// The operation that is running on a task.
pub(super) async fn running_on(
    connection: &mut AnyConnection,
    task: &TaskRef,
) -> Result<Option<Operation>, StoreError> {
    let rows = sqlx::query(select_operations!(
        "WHERE project = $1 AND service = $2 AND task = $3 AND status = 'running'"
    ))
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
    let rows = sqlx::query(
        "SELECT id, status, history FROM operations \
         WHERE project = $1 AND service = $2 AND task = $3 ORDER BY id DESC LIMIT $4",
    )
    .bind(task.project.as_str())
    .bind(task.service.as_str())
    .bind(task.id.as_str())
    .bind(i64::from(limit))
    .fetch_all(&mut *transaction)
    .await?;
    let mut former = Vec::with_capacity(rows.len());
    for row in &rows {
        let columns = Columns::new(row, row.try_get("id")?);
        former.push(Former {
            id: columns.id()?,
            record: reports.readable(columns.record()),
        });
    }
    Ok(former)
}

/// How many operations are running on tasks of a service of a project.
pub(super) async fn count_running(
    mut transaction: AnyTransaction,
    (project, service): (ProjectName, ServiceName),
) -> Result<u64, StoreError> {
    let running = sqlx::query_scalar::<_, i64>(
        "SELECT COUNT(*) FROM operations WHERE project = $1 AND service = $2 AND status = 'running'",
    )
    .bind(project.as_str())
    .bind(service.as_str())
    .fetch_one(&mut *transaction)
    .await?;
    Ok(u64::try_from(running).unwrap_or(0))
}

/// How many operations are running that a caller asked for first, but for those that were found to be unreadable: this program
/// does not bring them to an end.
pub(super) async fn count_running_of(
    mut transaction: AnyTransaction,
    caller: CallerName,
    reports: Arc<Reports>,
) -> Result<u64, StoreError> {
    let running = running_of(&mut transaction, &caller, &reports).await?;
    Ok(u64::try_from(running).unwrap_or(0))
}

/// The same in a transaction that goes on.
pub(super) async fn running_of(
    connection: &mut AnyConnection,
    caller: &CallerName,
    reports: &Reports,
) -> Result<i64, StoreError> {
    let mut sql =
        "SELECT COUNT(*) FROM operations WHERE status = 'running' AND requested_by = $1".to_owned();
    let mut arguments = AnyArguments::default();
    arguments.add(caller.as_str()).map_err(unavailable)?;
    for (index, id) in reports.unreadable().into_iter().enumerate() {
        let before = if index == 0 { " AND id NOT IN (" } else { ", " };
        arguments.add(id).map_err(unavailable)?;
        write!(sql, "{before}${}", arguments.len()).map_err(unavailable)?;
    }
    if arguments.len() > 1 {
        sql.push(')');
    }
    // The text is made of constants and numbers.
    let count = sqlx::query_scalar_with(AssertSqlSafe(sql), arguments)
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

/// Operations that the query asks for, newest first, and where the list goes on: three statements, however many there are.
pub(super) async fn list(
    mut transaction: AnyTransaction,
    query: OperationQuery,
) -> Result<(Read, Option<OperationId>), StoreError> {
    let (sql, arguments) = list_statement(&query).map_err(unavailable)?;
    // The text is put together from constants; what comes from outside is bound.
    let mut rows = sqlx::query_with(AssertSqlSafe(sql), arguments)
        .fetch_all(&mut *transaction)
        .await?;
    let mut next = None;
    if rows.len() > usize::try_from(query.limit).unwrap_or(usize::MAX) {
        rows.pop();
        let mut ids = rows.iter().rev().filter_map(|row| rows::id_of(row).ok());
        next = ids.find_map(OperationId::parse);
    }
    Ok((complete(&mut transaction, &rows).await?, next))
}

/// Operations whose end is still to be told to the audit log, the first to end first: `limit` that can be read if there are, and
/// perhaps more, however many before them cannot.
pub(super) async fn owed_ends(
    mut transaction: AnyTransaction,
    limit: u32,
) -> Result<Read, StoreError> {
    let mut owed = Read::new();
    let mut missing = usize::try_from(limit).unwrap_or(usize::MAX);
    while missing > 0 {
        let rows = sqlx::query(select_operations!(
            "WHERE owes_end = 1 AND status <> 'running' ORDER BY finished_at, id LIMIT $1 OFFSET $2"
        ))
        .bind(i64::from(limit))
        .bind(i64::try_from(owed.len()).unwrap_or(i64::MAX))
        .fetch_all(&mut *transaction)
        .await?;
        if rows.is_empty() {
            break;
        }
        let read = complete(&mut transaction, &rows).await?;
        missing = missing.saturating_sub(read.iter().filter(|one| one.is_ok()).count());
        owed.extend(read);
    }
    Ok(owed)
}

/// A condition that is not asked for is left out of the text, so that an index can serve those that are.
fn list_statement(
    query: &OperationQuery,
) -> Result<(String, AnyArguments), sqlx::error::BoxDynError> {
    let mut conditions = Vec::new();
    let mut arguments = AnyArguments::default();
    let mut add = |condition: &'static str, value: &str| {
        arguments.add(value)?;
        conditions.push(condition.replace('?', &format!("${}", arguments.len())));
        Ok::<(), sqlx::error::BoxDynError>(())
    };
    if let Some(task) = &query.task {
        add("project = ?", task.project.as_str())?;
        add("service = ?", task.service.as_str())?;
        add("task = ?", task.id.as_str())?;
    }
    if let Some(id) = &query.task_id {
        add("task = ?", id.as_str())?;
    }
    if let Some(status) = query.status {
        add("status = ?", status.as_str())?;
    }
    if let Some(before) = query.before {
        add("id < ?", &before.to_string())?;
    }
    if let Some(caller) = &query.caller {
        conditions.push(seen(caller, &query.or_within, &mut arguments)?);
    }
    if query.sent_delete {
        conditions.push("delete_sent = 1".to_owned());
    }
    let mut sql = select_operations!("").to_owned();
    for (index, condition) in conditions.iter().enumerate() {
        let word = if index == 0 { "WHERE" } else { " AND" };
        write!(sql, "{word} {condition}")?;
    }
    // One more, to know whether there are more.
    arguments.add(i64::from(query.limit) + 1)?;
    write!(sql, " ORDER BY id DESC LIMIT ${}", arguments.len())?;
    Ok((sql, arguments))
}

/// The condition that an operation is one that a caller asked for or joined, or is in one of these places.
fn seen(
    caller: &CallerName,
    or_within: &[Reach],
    arguments: &mut AnyArguments,
) -> Result<String, sqlx::error::BoxDynError> {
    arguments.add(caller.as_str())?;
    let mut text = format!(
        "(EXISTS (SELECT 1 FROM operation_callers WHERE operation_id = operations.id AND caller = ${})",
        arguments.len()
    );
    for reach in or_within {
        let projects = reach.projects.names().map(ProjectName::as_str);
        let services = reach.services.names().map(ServiceName::as_str);
        text.push_str(" OR (1 = 1");
        if reach.projects != Scope::All {
            write!(text, " AND project{}", one_of(projects, arguments)?)?;
        }
        if reach.services != Scope::All {
            write!(text, " AND service{}", one_of(services, arguments)?)?;
        }
        text.push(')');
    }
    text.push(')');
    Ok(text)
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
            "SELECT operation_id, caller FROM operation_callers",
            &ids,
        )
        .await?;
        let events = children(
            connection,
            "SELECT operation_id, happened_at, kind, detail FROM operation_events",
            &ids,
        )
        .await?;
        read.extend(chunk.iter().map(|row| {
            let id = rows::id_of(row)?;
            let callers = callers.get(id).map_or(&[][..], Vec::as_slice);
            let events = events.get(id).map_or(&[][..], Vec::as_slice);
            rows::operation(Columns::new(row, id), callers, events)
        }));
    }
    Ok(read)
}

/// The rows that belong to these operations, by operation, each in the order of their numbers.
async fn children(
    connection: &mut AnyConnection,
    select: &'static str,
    ids: &[&str],
) -> Result<HashMap<String, Vec<AnyRow>>, StoreError> {
    let mut arguments = AnyArguments::default();
    let chosen = one_of(ids.iter().copied(), &mut arguments).map_err(unavailable)?;
    let sql = format!("{select} WHERE operation_id{chosen} ORDER BY operation_id, number");
    // The text is made of constants and numbers.
    let rows = sqlx::query_with(AssertSqlSafe(sql), arguments)
        .fetch_all(connection)
        .await?;
    let mut by_operation = HashMap::<String, Vec<AnyRow>>::new();
    for row in rows {
        let id = row.try_get("operation_id")?;
        by_operation.entry(id).or_default().push(row);
    }
    Ok(by_operation)
}
