//! Recording an operation, also where the word of the store gets lost.

use tokio::time::Instant;

use super::{AskError, kill_point};
use crate::{
    domain::store::{Creation, NewOperation, StoreError},
    operations::Operations,
};

impl Operations {
    /// Records an operation. [`AskError::Unsure`] if that may have been done or not.
    pub(super) async fn record(&self, fresh: &NewOperation) -> Result<Creation, AskError> {
        kill_point!("accept.create.before");
        let created = self.0.store.create(fresh).await;
        kill_point!("accept.create.after");
        let recorded = match created {
            Err(StoreError::Unavailable(_)) => self.record_again(fresh).await,
            known => known.map_err(AskError::Store),
        };
        let is_away = matches!(
            recorded,
            Err(AskError::Store(StoreError::Unavailable(_)) | AskError::Unsure(_))
        );
        if is_away {
            self.0.metrics.store_faults.inc();
        }
        *self.0.refused_at() = is_away.then(Instant::now);
        recorded
    }

    /// The store may have done what it was asked for, or may still be about it. A second time it comes to its turn after that,
    /// and records nothing twice; then the first can be found.
    async fn record_again(&self, fresh: &NewOperation) -> Result<Creation, AskError> {
        kill_point!("accept.again.before");
        let again = self.0.store.create(fresh).await;
        kill_point!("accept.again.after");
        if matches!(again, Ok(Creation::Created)) {
            return Ok(Creation::Created);
        }
        kill_point!("accept.find.before");
        let found = self.0.store.find(fresh.operation.id).await;
        kill_point!("accept.find.after");
        match found {
            Ok(Some(_)) => Ok(Creation::Created),
            Ok(None) => again.map_err(AskError::Store),
            Err(error) => Err(AskError::Unsure(error)),
        }
    }
}
