//! Tells the audit log how operations ended.
//!
//! That an end is to be told is on record from the beginning of the operation on, and stays there
//! until it was told: whatever ended it, in whichever process, and for as long as the operation is
//! kept. The process that ended it tells it; another one does if it stays untold. A crash between
//! the two can make an end be told twice.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::{Operations, kill_point::kill_point, later};
use crate::domain::{
    audit::{Ended, Entry},
    operation::{Operation, OperationId},
};

/// How many ends are told at once.
const TOGETHER: u32 = 100;
/// How often the record is asked by itself, and for how long an end is left to the process that
/// made it: the record does not tell of what another process does.
const RECHECK: Duration = Duration::from_secs(10);
/// How long to leave alone what failed.
const PAUSE: Duration = Duration::from_secs(1);
/// With more of its own, which are told elsewhere or not at all, a process takes those for others'.
const OWN_MAX: usize = 10_000;

/// What became of an attempt to tell ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    /// There may be more.
    Some,
    /// None is left.
    All,
    /// They stay on record.
    Failed,
}

/// The ends that this process made and has not told yet.
#[derive(Default)]
pub(super) struct OwnEnds {
    ids: Mutex<HashSet<OperationId>>,
    /// Told whenever there is one more.
    added: Notify,
}

impl OwnEnds {
    pub(super) fn add(&self, id: OperationId) {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.len() >= OWN_MAX {
            ids.clear();
        }
        ids.insert(id);
        self.added.notify_one();
    }

    /// Those of `owed` that this process tells: its own, and those that were left for it.
    fn among<'a>(&self, owed: &'a [Operation], now: Timestamp) -> Vec<&'a Operation> {
        let ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        let is_left = |one: &Operation| one.finished_at.is_none_or(|at| later(at, RECHECK) <= now);
        owed.iter()
            .filter(|one| ids.contains(&one.id) || is_left(one))
            .collect()
    }

    fn remove(&self, told: &[OperationId]) {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        for id in told {
            ids.remove(id);
        }
    }
}

impl Operations {
    /// Tells ends as they come. Whatever fails is tried again. When the process is to stop it
    /// returns as soon as nothing is left that it can tell.
    pub async fn tell_ends(&self) {
        let mut noted = HashSet::new();
        let mut draining = self.0.draining.subscribe();
        loop {
            let told = self.tell_some_ends(&mut noted).await;
            if told != Told::Some && *draining.borrow_and_update() {
                return;
            }
            match told {
                Told::Some => {}
                Told::Failed => {
                    kill_point!("ends.failed");
                    sleep(PAUSE).await;
                }
                Told::All => {
                    // Whatever it is, the record is asked.
                    tokio::select! {
                        _told = timeout(RECHECK, self.0.own_ends.added.notified()) => {}
                        _stopping = draining.changed() => {}
                    }
                    kill_point!("ends.woken");
                }
            }
        }
    }

    /// `noted`: what is in the audit log already and not recorded to be, so that a store that is
    /// away does not fill the log with the same ends.
    async fn tell_some_ends(&self, noted: &mut HashSet<OperationId>) -> Told {
        let Some(log) = &self.0.audit else {
            return Told::All;
        };
        kill_point!("ends.owed.before");
        let owed = self.0.store.owed_ends(TOGETHER).await;
        kill_point!("ends.owed.after");
        let owed = match owed {
            Ok(owed) => owed,
            Err(error) => {
                self.0.metrics.store_faults.inc();
                tracing::error!(
                    error = error.with_causes(),
                    "ends of operations cannot be told to the audit log; trying again"
                );
                return Told::Failed;
            }
        };
        let owed = self.0.own_ends.among(&owed, self.0.clock.now());
        if owed.is_empty() {
            return Told::All;
        }
        let fresh = owed.iter().filter(|one| !noted.contains(&one.id));
        let entries: Vec<Entry> = fresh.map(|one| Entry::Ended(Ended::from(*one))).collect();
        if !entries.is_empty() {
            kill_point!("ends.note.before");
            let written = log.record(entries).await;
            kill_point!("ends.note.after");
            // The audit log has said itself that it is away.
            if written.is_err() {
                return Told::Failed;
            }
        }
        let ids: Vec<OperationId> = owed.iter().map(|operation| operation.id).collect();
        *noted = ids.iter().copied().collect();
        kill_point!("ends.told.before");
        let told = self.0.store.ends_told(&ids).await;
        kill_point!("ends.told.after");
        match told {
            Ok(()) => {
                self.0.own_ends.remove(&ids);
                noted.clear();
                Told::Some
            }
            Err(error) => {
                self.0.metrics.store_faults.inc();
                tracing::error!(
                    error = error.with_causes(),
                    "it cannot be recorded that ends were told to the audit log; trying again"
                );
                Told::Failed
            }
        }
    }
}
