//! From a request for a change to its answer: record it, wait as long as the caller likes, say how it stands.

use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, http::header};

use super::{
    operations::view::OperationView, problem::Problem, problem::kinds::ProblemType,
    request::guard::Known, request::prefer::Preference,
};
use crate::{
    domain::{
        decide::Sight,
        operation::{Goal, Operation, Status},
        start::StartRequest,
        task::TaskRef,
    },
    operations::{Ask, AskError},
};

/// Records what is asked for, or joins what runs already, and answers.
pub(super) async fn to_change(
    request: &HttpRequest,
    known: &Known,
    task: TaskRef,
    goal: Goal,
    start: Option<StartRequest>,
) -> Result<HttpResponse, Problem> {
    let preference = Preference::of(request, &known.state.settings)?;
    let ask = Ask {
        caller: known.caller.name.clone(),
        task,
        goal,
        start,
    };
    let operation = match known.state.operations.start(&known.services, &ask).await {
        Ok(operation) => operation,
        Err(error) => return Err(refusal(error, known)),
    };
    let operations = &known.state.operations;
    let latest = match operations.wait(operation.id, preference.wait()).await {
        Ok(latest) => latest.unwrap_or(operation),
        Err(error) => {
            // It is on record and may have been acted on, so this is no refusal.
            tracing::error!(
                operation.id = %operation.id,
                error = &error as &dyn std::error::Error,
                "an accepted operation cannot be read; it is answered as it was accepted"
            );
            operation
        }
    };
    let view = OperationView::new(&latest, known);
    match latest.status {
        Status::Succeeded => {
            let mut response = HttpResponse::Ok();
            applied(&mut response, preference);
            Ok(response.json(view))
        }
        Status::Running => Ok(accepted(&latest, view, preference, known)),
        Status::Failed => match &latest.failure {
            Some(failure) => Err(Problem::operation_failed(failure, view)),
            None => Err(Problem::internal()),
        },
        Status::Cancelled => Err(Problem::new(
            ProblemType::OperationCancelled,
            "The operation was cancelled by somebody who may do so.",
        )
        .ended(view)),
        Status::Superseded => Err(Problem::new(
            ProblemType::OperationSuperseded,
            "Another operation on the same task took over.",
        )
        .ended(view)),
    }
}

/// Says in the answer which preference was heeded.
pub(super) fn applied(response: &mut HttpResponseBuilder, preference: Preference) {
    if let Some(applied) = preference.applied() {
        response.insert_header(("Preference-Applied", applied));
    }
}

fn accepted(
    operation: &Operation,
    view: OperationView,
    preference: Preference,
    known: &Known,
) -> HttpResponse {
    let mut response = HttpResponse::Accepted();
    applied(&mut response, preference);
    response
        .insert_header((header::LOCATION, known.state.links.operation(operation.id)))
        .insert_header((header::RETRY_AFTER, 1))
        .json(view)
}

fn refusal(error: AskError, known: &Known) -> Problem {
    let sight: Option<Sight> = match &error {
        AskError::Refused { sight, .. } => *sight,
        AskError::Conflict(_) | AskError::NotOffered | AskError::Store(_) => None,
    };
    let conflict = match &error {
        AskError::Conflict(running) if known.may_see(running) => {
            Some(known.state.links.operation(running.id))
        }
        AskError::Conflict(_)
        | AskError::Refused { .. }
        | AskError::NotOffered
        | AskError::Store(_) => None,
    };
    let allowed = sight
        .map(|sight| super::tasks::view::actions(sight, &known.caller))
        .unwrap_or_default()
        .into_iter()
        .map(|action| {
            if action == "force_delete" {
                "force=pause"
            } else {
                action
            }
        })
        .collect();
    Problem::from(error).allowed(allowed).link(conflict)
}
