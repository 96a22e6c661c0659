//! Tells those who wait in this process that an operation may have ended, and those who watch it
//! that it has changed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::domain::{operation::OperationId, store::Progress};

type Senders = Arc<Mutex<HashMap<OperationId, Sender>>>;

#[derive(Default)]
struct Sender {
    /// How often the end of the operation was announced. A change is told without counting.
    ends: watch::Sender<u64>,
    /// How far it had come when the record was last looked at, if that was since somebody follows
    /// it.
    progress: Option<Progress>,
}

/// Who waits for what. It holds an entry only while somebody waits.
#[derive(Clone, Default)]
pub(super) struct Endings(Senders);

impl Endings {
    /// Begins to listen for changes and for the end of an operation, which may never come: read the
    /// record after this.
    pub(super) fn subscribe(&self, id: OperationId) -> Subscription {
        let mut senders = self.senders();
        let receiver = senders.entry(id).or_default().ends.subscribe();
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
        if let Some(sender) = self.senders().get(&id) {
            sender.tell(ends);
        }
    }

    /// The operations that somebody waits for or watches.
    pub(super) fn followed(&self) -> Vec<OperationId> {
        self.senders().keys().copied().collect()
    }

    /// Wakes whoever waits for or watches those of these operations that have changed on record
    /// since the last time.
    pub(super) fn compare(&self, followed: &[OperationId], found: &HashMap<OperationId, Progress>) {
        let mut senders = self.senders();
        for id in followed {
            let Some(sender) = senders.get_mut(id) else {
                continue;
            };
            let before = sender.progress;
            sender.progress = found.get(id).copied();
            // One that is not there was removed or cannot be read: nobody will follow it for long.
            if sender.progress.is_none() || sender.progress != before {
                let is_over = sender.progress.is_none_or(|progress| progress.has_ended);
                sender.tell(is_over.into());
            }
        }
    }

    fn senders(&self) -> MutexGuard<'_, HashMap<OperationId, Sender>> {
        // Whole at any moment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nobody waits.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }
}

impl Sender {
    fn tell(&self, ends: u64) {
        self.ends
            .send_modify(|count| *count = count.wrapping_add(ends));
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

// The sender lives as long as this subscription is counted by it, so that neither wait can fail; if
// one did, returning is right, since the record is read again afterwards.
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
            .is_some_and(|sender| sender.ends.receiver_count() <= 1)
        {
            senders.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn whoever_follows_an_operation_is_woken_when_the_record_says_something_else_than_before() {
        let endings = Endings::default();
        let id = OperationId::FIRST;
        let (mut waits, mut watches) = (endings.subscribe(id), endings.subscribe(id));
        let at = |version, has_ended| Progress {
            version,
            events: 1,
            has_ended,
        };
        for (progress, is_changed, is_over) in [
            // What was read before that may be older.
            (Some(at(1, false)), true, false),
            (Some(at(1, false)), false, false),
            (Some(at(2, false)), true, false),
            (Some(at(3, true)), true, true),
            (Some(at(3, true)), false, false),
            (None, true, true),
            // Whoever came meanwhile is told too.
            (None, true, true),
        ] {
            let found = progress
                .map(|progress| (id, progress))
                .into_iter()
                .collect();
            endings.compare(&endings.followed(), &found);
            let changed = watches.changed().now_or_never().is_some();
            let over = waits.announced().now_or_never().is_some();
            assert_eq!((changed, over), (is_changed, is_over), "{progress:?}");
        }
        drop((waits, watches));
        assert_eq!(endings.followed(), []);
    }
}
