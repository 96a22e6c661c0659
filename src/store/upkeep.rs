//! Statements that keep the record in order, and find out whether it can be written to.

use sqlx::{AnyConnection, AssertSqlSafe, Row as _};

use super::{
    database::{AnyTransaction, Written},
    engine::Engine,
    unreadable::ODD_STATUS,
};
use crate::domain::{
    operation::OperationId,
    store::{Counts, StoreError},
};

/// Removes the operations that ended first, with what belongs to them. Their other rows go along by
/// themselves. Those whose status is odd may not have ended.
pub(super) async fn remove_ended(
    mut transaction: AnyTransaction,
    before: i64,
    limit: u32,
) -> Result<Written<u64>, StoreError> {
    let sql = format!(
        "DELETE FROM operations WHERE id IN (SELECT id FROM operations \
         WHERE status <> 'running' AND NOT ({ODD_STATUS}) AND finished_at < $1 \
         ORDER BY finished_at LIMIT $2{})",
        Engine::of(&transaction).lock()
    );
    // The text is made of constants.
    let removed = sqlx::query(AssertSqlSafe(sql))
        .bind(before)
        .bind(i64::from(limit))
        .execute(&mut *transaction)
        .await?;
    Ok(Written::Commit(transaction, removed.rows_affected()))
}

/// Records that the ends of these operations were told to the audit log.
pub(super) async fn ends_told(
    mut transaction: AnyTransaction,
    ids: Vec<OperationId>,
) -> Result<Written<()>, StoreError> {
    for id in ids {
        sqlx::query("UPDATE operations SET owes_end = 0 WHERE id = $1")
            .bind(id.to_string())
            .execute(&mut *transaction)
            .await?;
    }
    Ok(Written::Commit(transaction, ()))
}

/// How many operations there are.
pub(super) async fn counts(mut transaction: AnyTransaction) -> Result<Counts, StoreError> {
    let counted = sqlx::query(
        "SELECT (SELECT COUNT(*) FROM operations WHERE status = 'running') AS running, \
         (SELECT COUNT(*) FROM operations WHERE unreadable_by IS NOT NULL) AS unreadable",
    )
    .fetch_one(&mut *transaction)
    .await?;
    Ok(Counts {
        running: counted.try_get("running")?,
        unreadable: counted.try_get("unreadable")?,
    })
}

/// Makes a small write.
pub(super) async fn check(mut transaction: AnyTransaction) -> Result<Written<()>, StoreError> {
    probe(&mut transaction).await?;
    Ok(Written::Commit(transaction, ()))
}

/// Writes for the sake of writing.
pub(super) async fn probe(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE write_probe SET writes = writes + 1 WHERE id = 1")
        .execute(connection)
        .await?;
    Ok(())
}
