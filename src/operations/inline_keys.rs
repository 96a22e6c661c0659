//! Storage keys that came with a request for a start. They live here, in memory, and nowhere else: a process that ends
//! takes them along.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;

use crate::domain::{operation::OperationId, start::StartRequest};

/// The keys of the starts that this process accepted and that the vendor has not accepted yet, each with the moment
/// after which its operation has no use for them.
#[derive(Default)]
pub(super) struct InlineKeys(Mutex<HashMap<OperationId, (Timestamp, StartRequest)>>);

impl InlineKeys {
    /// Keeps the keys of an operation. To be called before the operation is recorded, so that whoever drives it finds
    /// them. After `deadline` the operation has no use for them.
    pub(super) fn keep(
        &self,
        id: OperationId,
        request: StartRequest,
        now: Timestamp,
        deadline: Timestamp,
    ) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A caller who leaves before the record has answered, and another process that ends an operation, leave keys
        // behind that nobody forgets.
        kept.retain(|_, (deadline, _)| *deadline > now);
        kept.insert(id, (deadline, request));
    }

    /// The keys, if this process has them.
    pub(super) fn get(&self, id: OperationId) -> Option<StartRequest> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .map(|(_, request)| request.clone())
    }

    /// Drops the keys.
    pub(super) fn forget(&self, id: OperationId) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::InlineKeys;
    use crate::domain::{operation::OperationId, start::StartRequest};

    #[test]
    fn keys_that_nobody_forgot_go_once_their_operation_has_no_use_for_them() {
        let keys = InlineKeys::default();
        let request = StartRequest {
            source: None,
            destination: None,
            migrate_failed_objects: false,
        };
        let at = |minutes| Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minutes);
        let [first, second, third] = [0, 10, 30].map(|minutes| {
            let id = OperationId::at(at(minutes));
            keys.keep(id, request.clone(), at(minutes), at(minutes + 30));
            id
        });
        assert!(keys.get(first).is_none());
        assert!(keys.get(second).is_some());
        keys.forget(third);
        assert!(keys.get(third).is_none());
    }
}
