//! How many requests are answered at the same time, and when the last of them has its answer.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places of the requests that are being answered. Probes, metrics and documents need none.
pub(super) struct Places {
    free: Arc<Semaphore>,
    all: u32,
}

impl Places {
    pub(super) fn new(all: u32) -> Self {
        let free = usize::try_from(all).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            free: Arc::new(Semaphore::new(free.min(Semaphore::MAX_PERMITS))),
            all,
        }
    }

    /// A place, to be held until the answer is there; `None` if there is none.
    pub(super) fn take(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    /// Returns once all places are free.
    pub(super) async fn all_free(&self) {
        // It fails only if it was closed, which nobody does.
        _ = self.free.acquire_many(self.all).await;
    }
}
