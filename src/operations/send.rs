//! A change on its way to the vendor.

use super::kill_point::kill_point;
use crate::domain::{
    history::Change,
    service::{BoundService, Clearance, Receipt, Sent, UpstreamError, UpstreamErrorKind},
    start::StartRequest,
    task::TaskId,
};

/// Sends a change, with a clearance that is good or not at all. `start` comes with every start.
pub(super) async fn send(
    service: &BoundService,
    id: &TaskId,
    change: Change,
    start: Option<&StartRequest>,
    clearance: &Clearance,
) -> Result<Receipt, UpstreamError> {
    match (change, start) {
        (Change::Start, Some(request)) => {
            kill_point!("round.start.before");
            let sent = service.port.start(id, request, clearance).await;
            kill_point!("round.start.after");
            sent
        }
        (Change::Start, None) => Err(UpstreamError {
            kind: UpstreamErrorKind::Rejected,
            sent: Sent::No,
            retry_after: None,
            answer: None,
            detail: "There is nothing to start the task with.".to_owned(),
        }),
        (Change::Pause, _) => {
            kill_point!("round.pause.before");
            let sent = service.port.pause(id, clearance).await;
            kill_point!("round.pause.after");
            sent
        }
        (Change::Delete, _) => {
            kill_point!("round.delete.before");
            let sent = service.port.delete(id, clearance).await;
            kill_point!("round.delete.after");
            sent
        }
    }
}
