//! What is to be done once in a while: what is over is dropped, and what could not be read is
//! looked at again.

use std::{convert::Infallible, rc::Rc, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::time::sleep;

use crate::{
    domain::{
        operation::{OperationId, Status},
        store::StoreError,
    },
    operations::{Shared, board::Board, kill_point::kill_point},
};

/// How often the house is kept.
const HOUSEKEEPING: Duration = Duration::from_mins(1);
/// How long after the last time it is kept again if there is more to do.
const SOON: Duration = Duration::from_secs(1);
/// How many operations that ended long ago are removed at a time: few enough to be in nobody's way.
const REMOVED_MAX: u32 = 100;

/// Keeps the house for ever. A store that fails is left alone until the next time.
pub(super) async fn keep_house(shared: Arc<Shared>, board: Rc<Board>) -> Infallible {
    loop {
        board.keep_house(&shared);
        let pause = match try_to_keep_house(&shared).await {
            Ok(false) => HOUSEKEEPING,
            Ok(true) => SOON,
            Err(error) => {
                shared.metrics.store_faults.inc();
                tracing::error!(
                    error = error.with_causes(),
                    "the housekeeping failed; trying again"
                );
                kill_point!("engine.housekeeping.failed");
                HOUSEKEEPING
            }
        };
        sleep(pause).await;
    }
}

/// Tells whether to go on soon, since there may be more to do.
async fn try_to_keep_house(shared: &Shared) -> Result<bool, StoreError> {
    let kept = shared.inline_keys.kept_since(HOUSEKEEPING);
    if !kept.is_empty() {
        kill_point!("engine.keys.before");
        let over = over_among(shared, &kept).await;
        kill_point!("engine.keys.after");
        for id in over? {
            shared.inline_keys.forget(id);
        }
    }
    let kept = SignedDuration::try_from(shared.settings.history).unwrap_or(SignedDuration::MAX);
    let now = shared.clock.now();
    let before = now.saturating_sub(kept).unwrap_or(Timestamp::MIN);
    kill_point!("engine.removal.before");
    let removed = shared.store.remove_ended(before, REMOVED_MAX).await;
    kill_point!("engine.removal.after");
    let removed = removed?;
    if removed > 0 {
        tracing::info!(operations = removed, "removed ended operations");
    }
    kill_point!("engine.again.before");
    let are_more_unreadable = shared.store.look_again().await;
    kill_point!("engine.again.after");
    Ok(are_more_unreadable? || removed >= u64::from(REMOVED_MAX))
}

/// Those of these operations that have ended or are not on record.
async fn over_among(shared: &Shared, ids: &[OperationId]) -> Result<Vec<OperationId>, StoreError> {
    let progress = shared.store.progress(ids).await?;
    let mut over = Vec::new();
    for id in ids {
        let is_over = match progress.get(id) {
            Some(progress) => progress.has_ended,
            // It is not there, or cannot be read.
            None => match shared.store.find(*id).await {
                Ok(found) => found.is_none_or(|found| found.status != Status::Running),
                // It is left alone, and reported where it was read.
                Err(StoreError::Unreadable(_)) => false,
                Err(error) => return Err(error),
            },
        };
        if is_over {
            over.push(*id);
        }
    }
    Ok(over)
}
