//! What is said of operations that cannot be read.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use super::Unreadable;
use crate::domain::operation::Operation;

/// Reports every operation that cannot be read, once until it is read again: it is come across with every claim and
/// list.
#[derive(Default)]
pub(in crate::store) struct Reports(Mutex<HashSet<String>>);

impl Reports {
    /// Operations that could not be read are remembered up to this number; any further are reported every time.
    pub(in crate::store) const MAX: usize = 1000;

    /// What was read, or `None` after reporting why it is left alone.
    pub(in crate::store) fn readable<T>(&self, read: Result<T, Unreadable>) -> Option<T> {
        match read {
            Ok(readable) => Some(readable),
            Err(unreadable) => {
                self.report(unreadable);
                None
            }
        }
    }

    /// Does the same with a whole operation. One that was reported and can be read has been mended.
    pub(in crate::store) fn operation(
        &self,
        read: Result<Operation, Unreadable>,
    ) -> Option<Operation> {
        let operation = self.readable(read)?;
        let mut reported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Nearly always there are none.
        if !reported.is_empty() {
            reported.remove(&operation.id.to_string());
        }
        drop(reported);
        Some(operation)
    }

    /// The ids of those that were reported.
    pub(in crate::store) fn unreadable(&self) -> Vec<String> {
        let reported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reported.iter().cloned().collect()
    }

    fn report(&self, unreadable: Unreadable) {
        let mut reported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.contains(&unreadable.id) {
            return;
        }
        tracing::error!(
            operation.id = %unreadable.id,
            column = unreadable.column,
            "The record of an operation cannot be read. It is left alone; was it written by a newer version?"
        );
        if reported.len() < Self::MAX {
            reported.insert(unreadable.id);
        }
    }
}
