//! Whoever watches an operation is told of every change of it.

use std::sync::Arc;

use super::{Operations, RECHECK, Shared, endings::Subscription};
use crate::domain::{
    operation::{Operation, OperationId},
    store::StoreError,
};

/// One who watches an operation.
pub struct Watch {
    id: OperationId,
    // Older than the first reading of the record, so that no change is missed.
    subscription: Subscription,
    shared: Arc<Shared>,
    /// Whether the record was read since it may last have changed.
    is_up_to_date: bool,
}

impl Operations {
    /// Begins to watch an operation.
    pub fn watch(&self, id: OperationId) -> Watch {
        Watch {
            id,
            subscription: self.0.endings.subscribe(id),
            shared: Arc::clone(&self.0),
            is_up_to_date: false,
        }
    }
}

impl Watch {
    /// How the operation stands: at first at once, then when it may have changed. What another process does to it is known
    /// after two seconds. `None`: there is no such operation. Whoever breaks this off misses nothing if they ask again.
    pub async fn next(&mut self) -> Result<Option<Operation>, StoreError> {
        if self.is_up_to_date {
            tokio::select! {
                () = self.subscription.changed() => {}
                () = tokio::time::sleep(RECHECK) => {}
            }
            self.is_up_to_date = false;
        }
        let found = self.shared.store.find(self.id).await?;
        self.is_up_to_date = true;
        Ok(found)
    }
}
