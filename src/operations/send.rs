//! A change on its way to the vendor.

use std::time::Instant;

use super::kill_point::kill_point;
use crate::domain::{
    history::Change,
    service::{BoundService, Receipt, UpstreamError},
    start::StartRequest,
    task::TaskId,
};

/// Sends a change, by this moment or not at all. `start` comes with every start.
pub(super) async fn send(
    service: &BoundService,
    id: &TaskId,
    change: Change,
    start: Option<&StartRequest>,
    by: Instant,
) -> Result<Receipt, UpstreamError> {
    match (change, start) {
        (Change::Start, Some(request)) => {
            kill_point!("round.start.before");
            let sent = service.port.start(id, request, by).await;
            kill_point!("round.start.after");
            sent
        }
        (Change::Pause | Change::Start, _) => {
            kill_point!("round.pause.before");
            let sent = service.port.pause(id, by).await;
            kill_point!("round.pause.after");
            sent
        }
        (Change::Delete, _) => {
            kill_point!("round.delete.before");
            let sent = service.port.delete(id, by).await;
            kill_point!("round.delete.after");
            sent
        }
    }
}
