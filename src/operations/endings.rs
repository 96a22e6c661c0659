//! Tells those who wait in this process that an operation may have ended.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

use crate::domain::operation::OperationId;

type Senders = Arc<Mutex<HashMap<OperationId, watch::Sender<()>>>>;

/// Who waits for what. It holds an entry only while somebody waits.
#[derive(Clone, Default)]
pub(super) struct Endings(Senders);

impl Endings {
    /// Begins to listen for the end of an operation, which may never come: read the record after this.
    pub(super) fn subscribe(&self, id: OperationId) -> Subscription {
        let mut senders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = senders
            .entry(id)
            .or_insert_with(|| watch::Sender::new(()))
            .subscribe();
        Subscription {
            id,
            senders: Arc::clone(&self.0),
            receiver,
        }
    }

    /// Wakes everybody who waits for this operation.
    pub(super) fn announce(&self, id: OperationId) {
        let senders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = senders.get(&id) {
            sender.send_replace(());
        }
    }

    /// Whether nobody waits.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }
}

/// One who waits.
pub(super) struct Subscription {
    id: OperationId,
    senders: Senders,
    receiver: watch::Receiver<()>,
}

impl Subscription {
    /// Returns once there was an announcement that this subscription has not been told of.
    pub(super) async fn announced(&mut self) {
        // The sender lives as long as this subscription is counted by it, so this cannot fail; if it did, returning is
        // right, since the record is read again afterwards.
        let _announced = self.receiver.changed().await;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        // This receiver is still counted: the last one to leave takes the entry along.
        if senders
            .get(&self.id)
            .is_some_and(|sender| sender.receiver_count() <= 1)
        {
            senders.remove(&self.id);
        }
    }
}
