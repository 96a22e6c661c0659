//! Tells the audit log how operations ended.
//!
//! That an end is to be told is on record from the beginning of the operation on, and stays there until it was told: whatever
//! ended it, in whichever process, and however long the audit log is away. A crash between the two can make an end be told twice.

use std::{convert::Infallible, time::Duration};

use tokio::time::{sleep, timeout};

use super::Operations;
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
        loop {
            match self.tell_some_ends().await {
                Told::Some => {}
                Told::Failed => sleep(PAUSE).await,
                Told::All => {
                    // Either way the record is asked.
                    let _told = timeout(RECHECK, self.0.ended.notified()).await;
                }
            }
        }
    }

    /// Tells the ends that are on record, as far as that succeeds at once.
    pub async fn tell_last_ends(&self) {
        while self.tell_some_ends().await == Told::Some {}
    }

    async fn tell_some_ends(&self) -> Told {
        let Some(log) = &self.0.audit else {
            return Told::All;
        };
        let owed = match self.0.store.owed_ends(TOGETHER).await {
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
        let entries = owed.iter().map(|one| Entry::Ended(Ended::from(one)));
        // The audit log has said itself that it is away.
        if log.record(entries.collect()).await.is_err() {
            return Told::Failed;
        }
        let ids: Vec<OperationId> = owed.iter().map(|operation| operation.id).collect();
        match self.0.store.ends_told(&ids).await {
            Ok(()) => Told::Some,
            Err(error) => {
                self.0.metrics.store_faults.inc();
                tracing::error!(
                    error = error.with_causes(),
                    "it cannot be recorded that ends were told to the audit log; they are told again"
                );
                Told::Failed
            }
        }
    }
}
