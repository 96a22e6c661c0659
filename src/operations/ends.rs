//! Tells the audit log how operations ended.
//!
//! That an end is to be told is on record from the beginning of the operation on, and stays there until it was told: whatever
//! ended it, in whichever process, and however long the audit log is away. A crash between the two can make an end be told twice.

use std::{collections::HashSet, convert::Infallible, time::Duration};

use tokio::time::{sleep, timeout};

use super::{Operations, kill_point::kill_point};
use crate::domain::{
    audit::{Ended, Entry},
    operation::OperationId,
};

/// How many ends are told at once.
const TOGETHER: u32 = 100;
/// How often the record is asked by itself: it is not told of what another process does.
const RECHECK: Duration = Duration::from_secs(10);
/// How long to leave alone what failed.
const PAUSE: Duration = Duration::from_secs(1);

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

impl Operations {
    /// Tells ends as they come, for ever. Whatever fails is tried again.
    pub async fn tell_ends(&self) -> Infallible {
        let mut noted = HashSet::new();
        loop {
            match self.tell_some_ends(&mut noted).await {
                Told::Some => {}
                Told::Failed => {
                    kill_point!("ends.failed");
                    sleep(PAUSE).await;
                }
                Told::All => {
                    // Either way the record is asked.
                    let _told = timeout(RECHECK, self.0.ended.notified()).await;
                    kill_point!("ends.woken");
                }
            }
        }
    }

    /// Tells the ends that are on record, as far as that succeeds at once.
    pub async fn tell_last_ends(&self) {
        let mut noted = HashSet::new();
        while self.tell_some_ends(&mut noted).await == Told::Some {}
    }

    /// `noted`: what is in the audit log already and not recorded to be, so that a store that is away does not fill the log
    /// with the same ends.
    async fn tell_some_ends(&self, noted: &mut HashSet<OperationId>) -> Told {
        let Some(log) = &self.0.audit else {
            return Told::All;
        };
        kill_point!("ends.owed.before");
        let owed = self.0.store.owed_ends(TOGETHER).await;
        kill_point!("ends.owed.after");
        let owed = match owed {
            Ok(owed) if owed.is_empty() => return Told::All,
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
        let fresh = owed.iter().filter(|one| !noted.contains(&one.id));
        let entries: Vec<Entry> = fresh.map(|one| Entry::Ended(Ended::from(one))).collect();
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
