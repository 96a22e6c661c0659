//! Tells those who wait in this process that an operation may have ended, and those who watch it that it has changed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

use crate::domain::operation::OperationId;

/// How often the end of each operation was announced. A change is told without counting.
type Senders = Arc<Mutex<HashMap<OperationId, watch::Sender<u64>>>>;

/// Who waits for what. It holds an entry only while somebody waits.
#[derive(Clone, Default)]
pub(super) struct Endings(Senders);

impl Endings {
    /// Begins to listen for changes and for the end of an operation, which may never come: read the record after this.
    pub(super) fn subscribe(&self, id: OperationId) -> Subscription {
        let mut senders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let receiver = senders
            .entry(id)
            .or_insert_with(|| watch::Sender::new(0))
            .subscribe();
        let ends = *receiver.borrow();
        Subscription {
            id,
            senders: Arc::clone(&self.0),
            ends,
            receiver,
        }
    }

    /// Wakes everybody who waits for or watches this operation.
    pub(super) fn announce(&self, id: OperationId) {
        self.tell(id, 1);
    }

    /// Wakes everybody who watches this operation.
    pub(super) fn announce_change(&self, id: OperationId) {
        self.tell(id, 0);
    }

    fn tell(&self, id: OperationId, ends: u64) {
        let senders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = senders.get(&id) {
            sender.send_modify(|count| *count = count.wrapping_add(ends));
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
    receiver: watch::Receiver<u64>,
    /// How often the end was announced when this was last told of it.
    ends: u64,
}

// The sender lives as long as this subscription is counted by it, so that neither wait can fail; if one did, returning is
// right, since the record is read again afterwards.
impl Subscription {
    /// Returns once the end was announced and this subscription has not been told of it.
    pub(super) async fn announced(&mut self) {
        let told = self.ends;
        if let Ok(ends) = self.receiver.wait_for(|ends| *ends != told).await {
            self.ends = *ends;
        }
    }

    /// Returns once something was announced that this subscription has not been told of.
    pub(super) async fn changed(&mut self) {
        let _changed = self.receiver.changed().await;
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
