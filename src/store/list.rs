//! The statement for lists of operations.

use std::fmt::Write as _;

use sqlx::{
    Arguments as _,
    any::{AnyArguments, AnyRow},
};

use super::{
    database::{AnyTransaction, unavailable},
    engine::Engine,
    read::{Read, complete, one_of, select_operations},
    rows,
    unreadable::TOGETHER,
};
use crate::domain::{
    access::{Reach, Scope},
    operation::OperationId,
    service::{CallerName, ProjectName, ServiceName},
    store::{OperationQuery, StoreError},
};

/// How often more rows are read where a page has none by whose id the list could go on.
const SEARCHES: u32 = 10;

/// Operations that the query asks for, newest first, and where the list goes on: three statements,
/// however many there are. Rows without an id take no place in a page that has no other yet; of so
/// many of them that this does not come to an end, the last is the error.
pub(super) async fn list(
    mut transaction: AnyTransaction,
    query: OperationQuery,
) -> Result<(Read, Option<OperationId>), StoreError> {
    let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
    let (mut read, mut together) = (Read::new(), query.limit);
    for _ in 0..=SEARCHES {
        let part = (together, read.len());
        let (conditions, arguments) = list_conditions(&query, part).map_err(unavailable)?;
        let select = select_operations(Engine::of(&transaction), &conditions);
        let rows = sqlx::query_with(select, arguments)
            .fetch_all(&mut *transaction)
            .await?;
        let first = rows.iter().position(|row| id(row).is_some());
        let most = usize::try_from(together).unwrap_or(usize::MAX);
        let end = first.map_or(most, |first| most.min(first.saturating_add(limit)));
        let page = rows.get(..end).unwrap_or(&rows);
        let next = page.iter().rev().find_map(id);
        read.extend(complete(&mut transaction, page).await?);
        if page.len() == rows.len() || next.is_some() {
            return Ok((read, next.filter(|_| page.len() < rows.len())));
        }
        together = query.limit.max(TOGETHER);
    }
    match read.pop() {
        Some(Err(nameless)) => Err(nameless.into()),
        Some(Ok(_)) | None => Ok((read, None)),
    }
}

/// The id by which a list could go on behind a row.
fn id(row: &AnyRow) -> Option<OperationId> {
    rows::id_of(row).ok().and_then(OperationId::parse)
}

/// What is put together from constants; what comes from outside is bound. A condition that is not
/// asked for is left out of the text, so that an index can serve those that are.
fn list_conditions(
    query: &OperationQuery,
    (limit, offset): (u32, usize),
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
    let mut sql = String::new();
    for (index, condition) in conditions.iter().enumerate() {
        let word = if index == 0 { "WHERE" } else { " AND" };
        write!(sql, "{word} {condition}")?;
    }
    // One more, to know whether there are more.
    arguments.add(i64::from(limit) + 1)?;
    write!(
        sql,
        " ORDER BY operations.id DESC LIMIT ${}",
        arguments.len()
    )?;
    if offset > 0 {
        write!(sql, " OFFSET {offset}")?;
    }
    Ok((sql, arguments))
}

/// The condition that an operation is one that a caller asked for or joined, or is in one of these
/// places.
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
