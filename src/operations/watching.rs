//! Whoever waits for or watches an operation is told of what this process and others do to it.

use std::{convert::Infallible, sync::Arc, time::Duration};

use super::{Operations, Shared, endings::Subscription};
use crate::domain::{
    operation::{Operation, OperationId},
    store::StoreError,
};

/// How often the record is looked at for what this process is not told of, all operations together.
const RECHECK: Duration = Duration::from_secs(2);

/// One who watches an operation.
pub struct OperationWatch {
    id: OperationId,
    // Older than the first reading of the record, so that no change is missed.
    subscription: Subscription,
    shared: Arc<Shared>,
    /// Whether the record was read since it may last have changed.
    is_up_to_date: bool,
}

impl Operations {
    /// Begins to watch an operation.
    pub fn watch(&self, id: OperationId) -> OperationWatch {
        OperationWatch {
            id,
            subscription: self.0.endings.subscribe(id),
            shared: Arc::clone(&self.0),
            is_up_to_date: false,
        }
    }
}

impl Operations {
    /// Passes on, for ever, what other processes do to operations that somebody waits for or
    /// watches here. Of ends the record may tell at once, of all else it is asked every two
    /// seconds.
    pub async fn follow_others(&self) -> Infallible {
        let hearing = async {
            loop {
                let id = self.0.store.next_end().await;
                self.0.endings.announce(id);
            }
        };
        let looking = async {
            let mut has_failed = false;
            loop {
                tokio::time::sleep(RECHECK).await;
                has_failed = self.look_for_changes(has_failed).await;
            }
        };
        tokio::select! {
            never = hearing => never,
            never = looking => never,
        }
    }

    /// `has_failed`: whether it failed the last time. Tells whether it does this time.
    async fn look_for_changes(&self, has_failed: bool) -> bool {
        let endings = &self.0.endings;
        let followed = endings.followed();
        if followed.is_empty() {
            return false;
        }
        let found = self.0.store.progress(&followed).await;
        match &found {
            Ok(found) => endings.compare(&followed, found),
            // It may have been for a moment, and everybody asking at once is no help.
            Err(_) if !has_failed => {}
            // Everybody asks the record, and tells what it says of this.
            Err(_) => followed.into_iter().for_each(|id| endings.announce(id)),
        }
        found.is_err()
    }
}

impl OperationWatch {
    /// How the operation stands: at first at once, then when it may have changed. What another
    /// process does to it is known after two seconds. `None`: there is no such operation. Whoever
    /// breaks this off misses nothing if they ask again.
    pub async fn next(&mut self) -> Result<Option<Operation>, StoreError> {
        if self.is_up_to_date {
            self.subscription.changed().await;
            self.is_up_to_date = false;
        }
        let found = self.shared.store.find(self.id).await?;
        self.is_up_to_date = true;
        Ok(found)
    }
}
