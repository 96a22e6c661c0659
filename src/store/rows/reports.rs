//! What is said of operations that cannot be read.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use super::Unreadable;
use crate::domain::operation::Operation;

/// Reports operations that cannot be read, each once until it is read again, however often it is
/// come across: by its name as long as they are few, and by their number if they are many.
#[derive(Default)]
pub(in crate::store) struct Reports(Mutex<Reported>);

#[derive(Default)]
struct Reported {
    named: HashSet<String>,
    /// How many there were when that was last said.
    many: u32,
}

impl Reports {
    /// The most that are named.
    pub(in crate::store) const NAMED_MAX: usize = 100;

    /// What was read, or `None` after reporting why it is left alone.
    pub(in crate::store) fn readable<T>(&self, read: Result<T, Unreadable>) -> Option<T> {
        match read {
            Ok(readable) => Some(readable),
            Err(unreadable) => {
                self.report(&unreadable);
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
        if !reported.named.is_empty() {
            reported.named.remove(&operation.id.to_string());
        }
        drop(reported);
        Some(operation)
    }

    /// Reports that so many are marked, if that are more than are named. If they are not, and there
    /// is no room for further names, those make room that are not among these.
    pub(in crate::store) fn all(&self, count: u32, names: impl Iterator<Item = String>) {
        let mut reported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_many = usize::try_from(count).is_ok_and(|count| count > Self::NAMED_MAX);
        if !is_many && reported.named.len() >= Self::NAMED_MAX {
            let names: HashSet<String> = names.collect();
            reported.named.retain(|name| names.contains(name));
        }
        let said = if is_many { count } else { 0 };
        let is_news = is_many && reported.many != said;
        reported.many = said;
        drop(reported);
        if is_news {
            tracing::error!(
                operations = count,
                "The records of many operations cannot be read, and not all of them are named. They are left alone"
            );
        }
    }

    /// The ids of those that were named.
    #[cfg(test)]
    pub(in crate::store) fn named(&self) -> Vec<String> {
        let reported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reported.named.iter().cloned().collect()
    }

    fn report(&self, unreadable: &Unreadable) {
        let mut reported = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if reported.named.len() >= Self::NAMED_MAX || !reported.named.insert(unreadable.id.clone())
        {
            return;
        }
        drop(reported);
        tracing::error!(
            operation.id = %unreadable.id,
            column = unreadable.column,
            "The record of an operation cannot be read. It is left alone; was it written by a newer version?"
        );
    }
}
