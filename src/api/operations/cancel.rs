//! `POST /operations/{id}/cancel`.

use actix_web::{HttpRequest, HttpResponse, post};

use super::view::OperationView;
use crate::{
    api::{
        problem::{Problem, kinds::ProblemType},
        request::{
            body::NoBody,
            guard::{Action, Head, On},
        },
    },
    domain::{
        access::Permission,
        audit::{Attempt, Auditor, Decision, Rule},
        operation::{Operation, OperationId},
        service::Sent,
    },
    operations::{Cancellation, kill_point::kill_point, to_its_end},
};

/// A cancellation. Who may do it depends on the operation alone.
pub(crate) struct Cancel;

impl Action for Cancel {
    type Target = OperationId;
    type Body = NoBody;

    fn read(_head: &mut Head<'_>) -> Self {
        Self
    }

    fn permissions(&self) -> &'static [Permission] {
        &[]
    }
}

/// Cancel an operation.
///
/// Only whoever asked for it first may do so. What it did to the task stays done: a paused task
/// stays paused. Refused once a delete was sent. An operation that has ended stays as it is.
#[utoipa::path(
    tag = "operations",
    params(("id" = String, Path, description = "The operation's id.", example = "op_01JGZ4K8W3M5N7P9R1T3V5X7Z9")),
    responses((status = 200, description = "The operation, which has ended.", body = OperationView)),
)]
#[post("/operations/{id}/cancel")]
pub(crate) async fn cancel_operation(
    on: On<Cancel>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let (known, id) = (&on.known, on.target);
    let auditor = known.auditor(&request, "cancel");
    kill_point!("cancel.find.before");
    let shown = known.state.operations.show(id).await;
    kill_point!("cancel.find.after");
    let Some(operation) = shown?.filter(|operation| {
        operation.requested_by == known.caller().name || known.may_see(operation)
    }) else {
        if let Some(auditor) = auditor {
            let rule = Rule::OperationNotFound.as_str();
            auditor
                .turned_down(Decision::Denied, rule, Some(id))
                .await?;
        }
        return Err(unknown());
    };
    let auditor = auditor.map(|auditor| about(auditor, &operation));
    if operation.requested_by != known.caller().name {
        if let Some(auditor) = auditor {
            let (rule, id) = (Rule::Requester.as_str(), Some(operation.id));
            auditor.turned_down(Decision::Denied, rule, id).await?;
        }
        let detail = "Only the caller who asked for an operation may cancel it.";
        return Err(Problem::new(ProblemType::Forbidden, detail).sent(Sent::No));
    }
    let operations = known.state.operations.clone();
    let cancelled = to_its_end(async move {
        if let Some(auditor) = auditor {
            kill_point!("cancel.note.before");
            let written = auditor.allowed(operation.id, None).await;
            kill_point!("cancel.note.after");
            written?;
        }
        operations.cancel(id).await.map_err(Problem::of_cancel)
    });
    match cancelled.await? {
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

/// Who notes down what is decided about an operation.
fn about(auditor: Auditor, operation: &Operation) -> Auditor {
    let task = &operation.task;
    Auditor {
        attempt: Attempt {
            project: Some(task.project.clone()),
            service: Some(task.service.clone()),
            task: Some(task.id.clone()),
            ..auditor.attempt
        },
        granted_by: Rule::Requester.as_str().to_owned(),
        ..auditor
    }
}

fn unknown() -> Problem {
    Problem::new(
        ProblemType::OperationNotFound,
        "There is no such operation, or it is not one that this caller may see.",
    )
}
