//! How far operations have come, for all that somebody waits for or watches.

use std::{collections::HashMap, sync::Arc};

use sqlx::{
    AssertSqlSafe,
    any::{AnyArguments, AnyRow},
};

use super::{
    database::{OneStatement, unavailable},
    engine::Engine,
    read::{IDS_PER_STATEMENT, one_of},
    rows::{self, Columns, Reports, Unreadable},
};
use crate::domain::{
    operation::{OperationId, Status},
    store::{Progress, StoreError},
};

/// One statement for every 500 operations.
pub(super) async fn progress(
    mut connection: OneStatement,
    ids: Vec<OperationId>,
    reports: Arc<Reports>,
) -> Result<HashMap<OperationId, Progress>, StoreError> {
    let mut found = HashMap::with_capacity(ids.len());
    for chunk in ids.chunks(IDS_PER_STATEMENT) {
        let mut arguments = AnyArguments::default();
        let chunk: Vec<String> = chunk.iter().map(OperationId::to_string).collect();
        let chosen =
            one_of(chunk.iter().map(String::as_str), &mut arguments).map_err(unavailable)?;
        let columns = rows::columns(
            Engine::of(&connection),
            "operations",
            &["id", "status", "version"],
        );
        let sql = format!(
            "SELECT {columns}, \
             (SELECT COUNT(*) FROM operation_events WHERE operation_id = operations.id) AS events \
             FROM operations WHERE id{chosen} AND unreadable_by IS NULL"
        );
        // The text is made of constants and numbers.
        let rows = sqlx::query_with(AssertSqlSafe(sql), arguments)
            .fetch_all(&mut *connection)
            .await?;
        found.extend(rows.iter().filter_map(|row| reports.readable(one(row))));
    }
    Ok(found)
}

fn one(row: &AnyRow) -> Result<(OperationId, Progress), Unreadable> {
    let columns = Columns::new(row, rows::id_of(row)?);
    let progress = Progress {
        version: columns.number("version")?,
        events: columns.number("events")?,
        has_ended: columns.word("status", Status::parse)? != Status::Running,
    };
    Ok((columns.id()?, progress))
}
