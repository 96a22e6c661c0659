//! Storage keys that came with a request for a start. They live here, in memory, and nowhere else:
//! a process that ends takes them along.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::domain::{operation::OperationId, start::StartRequest};

/// The keys of the starts that this process accepted and that have not ended yet, each with the
/// moment since when they are here. Until the end the vendor can repeat them in its texts.
#[derive(Default)]
pub(super) struct InlineKeys(Mutex<BTreeMap<OperationId, Kept>>);

struct Kept {
    request: StartRequest,
    since: Instant,
}

impl InlineKeys {
    /// Keeps the keys of an operation. To be called before the operation is recorded, so that
    /// whoever drives it finds them.
    pub(super) fn keep(&self, id: OperationId, request: StartRequest) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(
                id,
                Kept {
                    request,
                    since: Instant::now(),
                },
            );
    }

    /// The keys, if this process has them.
    pub(super) fn get(&self, id: OperationId) -> Option<StartRequest> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .map(|kept| kept.request.clone())
    }

    /// The operations whose keys have been here for so long. Another process may have ended them,
    /// or they were never recorded.
    pub(super) fn kept_since(&self, age: Duration) -> Vec<OperationId> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = |kept: &Kept| kept.since.elapsed() >= age;
        kept.iter()
            .filter(|(_, kept)| is_old(kept))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Drops the keys.
    pub(super) fn forget(&self, id: OperationId) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
    }

    /// Whether there are no keys here.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }
}
