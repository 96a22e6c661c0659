//! How far operations have come, for all that somebody waits for or watches.

use std::collections::HashMap;

use sqlx::{AssertSqlSafe, Row as _, any::AnyArguments};

use super::{
    database::{AnyTransaction, unavailable},
    read::{IDS_PER_STATEMENT, one_of},
};
use crate::domain::{
    operation::{OperationId, Status},
    store::{Progress, StoreError},
};

/// One statement for every 500 operations.
pub(super) async fn progress(
    mut transaction: AnyTransaction,
    ids: Vec<OperationId>,
) -> Result<HashMap<OperationId, Progress>, StoreError> {
    let mut found = HashMap::with_capacity(ids.len());
    for chunk in ids.chunks(IDS_PER_STATEMENT) {
        let mut arguments = AnyArguments::default();
        let chunk: Vec<String> = chunk.iter().map(OperationId::to_string).collect();
        let chosen =
            one_of(chunk.iter().map(String::as_str), &mut arguments).map_err(unavailable)?;
        let sql = format!(
            "SELECT id, status, version, \
             (SELECT COUNT(*) FROM operation_events WHERE operation_id = operations.id) AS events \
             FROM operations WHERE id{chosen}"
        );
        // The text is made of constants and numbers.
        let rows = sqlx::query_with(AssertSqlSafe(sql), arguments)
            .fetch_all(&mut *transaction)
            .await?;
        for row in &rows {
            let Some(id) = OperationId::parse(row.try_get("id")?) else {
                continue;
            };
            let progress = Progress {
                version: row.try_get("version")?,
                events: row.try_get("events")?,
                has_ended: row.try_get::<&str, _>("status")? != Status::Running.as_str(),
            };
            found.insert(id, progress);
        }
    }
    Ok(found)
}
