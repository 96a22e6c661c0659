//! Recording an operation, also where the word of the store gets lost.

use tokio::time::Instant;

use super::kill_point;
use crate::{
    domain::store::{Creation, NewOperation, StoreError},
    operations::Operations,
};

impl Operations {
    /// Records an operation. [`StoreError::Unsure`] if that may have been done, or may still be.
    pub(super) async fn record(&self, fresh: &NewOperation) -> Result<Creation, StoreError> {
        kill_point!("accept.create.before");
        let created = self.0.store.create(fresh).await;
        kill_point!("accept.create.after");
        let recorded = match created {
            Err(StoreError::Unsure(_)) => self.record_again(fresh).await,
            known => known,
        };
        let is_away = matches!(
            recorded,
            Err(StoreError::Unavailable(_) | StoreError::Unsure(_))
        );
        if is_away {
            self.0.metrics.store_faults.inc();
        }
        *self.0.refused_at() = is_away.then(Instant::now);
        recorded
    }

    /// The store may have done what it was asked for, or may still be about it. A second time comes
    /// to its turn after that, if it does at all, and records nothing twice; then the first can be
    /// found.
    async fn record_again(&self, fresh: &NewOperation) -> Result<Creation, StoreError> {
        kill_point!("accept.again.before");
        let again = self.0.store.create(fresh).await;
        kill_point!("accept.again.after");
        if matches!(again, Ok(Creation::Created)) {
            return Ok(Creation::Created);
        }
        kill_point!("accept.find.before");
        let found = self.0.store.find(fresh.operation.id).await;
        kill_point!("accept.find.after");
        match (found, again) {
            (Ok(Some(_)), _) => Ok(Creation::Created),
            // Without its turn the second time says nothing about the first.
            (_, Err(StoreError::Unavailable(lost) | StoreError::Unsure(lost))) => {
                Err(StoreError::Unsure(lost))
            }
            (Ok(None), had_its_turn) => had_its_turn,
            (Err(error), _) => Err(StoreError::Unsure(error.into())),
        }
    }
}
