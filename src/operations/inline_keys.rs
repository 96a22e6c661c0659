//! Storage keys that came with a request for a start. They live here, in memory, and nowhere else: a process that ends
//! takes them along.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use crate::domain::{operation::OperationId, start::StartRequest};

/// The keys of the starts that this process accepted and that the vendor has not accepted yet.
#[derive(Default)]
pub(super) struct InlineKeys(Mutex<HashMap<OperationId, StartRequest>>);

impl InlineKeys {
    /// Keeps the keys of an operation. To be called before the operation is recorded, so that whoever drives it finds
    /// them.
    pub(super) fn keep(&self, id: OperationId, request: StartRequest) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, request);
    }

    /// The keys, if this process has them.
    pub(super) fn get(&self, id: OperationId) -> Option<StartRequest> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .cloned()
    }

    /// Drops the keys.
    pub(super) fn forget(&self, id: OperationId) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
    }
}
