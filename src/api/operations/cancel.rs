//! `POST /operations/{id}/cancel`.

use actix_web::{HttpResponse, post};

use super::view::OperationView;
use crate::{
    api::{
        problem::{Problem, kinds::ProblemType},
        request::{body::NoBody, guard::OnOwnOperation},
    },
    domain::service::Sent,
    operations::Cancellation,
};

/// Cancel an operation.
///
/// Only whoever asked for it first may do so. What it did to the task stays done: a paused task stays paused. Refused once a
/// delete was sent. An operation that has ended stays as it is.
#[utoipa::path(
    tag = "operations",
    params(("id" = String, Path, description = "The operation's id.", example = "op_01JGZ4K8W3M5N7P9R1T3V5X7Z9")),
    responses((status = 200, description = "The operation, which has ended.", body = OperationView)),
)]
#[post("/operations/{id}/cancel")]
pub(crate) async fn cancel_operation(
    on: OnOwnOperation,
    _no_body: NoBody,
) -> Result<HttpResponse, Problem> {
    let known = &on.known;
    let shown = known.state.operations.show(on.id).await?;
    let Some(operation) = shown.filter(|operation| {
        operation.requested_by == known.caller().name || known.may_see(operation)
    }) else {
        return Err(unknown());
    };
    if operation.requested_by != known.caller().name {
        let detail = "Only the caller who asked for an operation may cancel it.";
        return Err(Problem::new(ProblemType::Forbidden, detail).sent(Sent::No));
    }
    match known.state.operations.cancel(on.id).await? {
        Cancellation::Unknown => Err(unknown()),
        Cancellation::Ended(operation) => {
            Ok(HttpResponse::Ok().json(OperationView::of(&operation, known).await))
        }
        Cancellation::TooLate(operation) => {
            let detail =
                "A delete was sent for this operation, and cannot be taken back. Wait for its end.";
            let link = known.state.links.operation(operation.id);
            Err(Problem::new(ProblemType::PastPointOfNoReturn, detail)
                .sent(operation.history.sent())
                .link(Some(link)))
        }
    }
}

fn unknown() -> Problem {
    Problem::new(
        ProblemType::OperationNotFound,
        "There is no such operation, or it is not one that this caller may see.",
    )
}
