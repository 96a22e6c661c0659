//! `GET /operations/{id}`.

use actix_web::{HttpResponse, get};

use super::view::OperationView;
use crate::{
    api::{
        answer,
        problem::Problem,
        problem::kinds::ProblemType,
        request::body::Unread,
        request::guard::{Action, Head, On},
        request::prefer::Preference,
    },
    domain::{access::Permission, operation::OperationId},
};

/// A look at an operation, which can be a long one.
pub(crate) struct Show {
    preference: Preference,
}

impl Action for Show {
    type Target = OperationId;
    type Body = Unread;

    fn read(head: &mut Head<'_>) -> Self {
        Self {
            preference: Preference::read(head),
        }
    }

    fn permissions(&self) -> &'static [Permission] {
        &[Permission::OperationsRead]
    }
}

/// Show an operation.
///
/// With `Prefer: wait=N` the answer comes when the operation has ended, or after so many seconds.
/// It is 200 in any case: how the operation ended stands in it.
#[utoipa::path(
    tag = "operations",
    params(
        ("id" = String, Path, description = "The operation's id.", example = "op_01JGZ4K8W3M5N7P9R1T3V5X7Z9"),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait so many seconds for its end.", example = "wait=10"),
    ),
    responses((status = 200, description = "The operation.", body = OperationView)),
)]
#[get("/operations/{id}")]
pub(crate) async fn show_operation(on: On<Show>) -> Result<HttpResponse, Problem> {
    let operations = &on.known.state.operations;
    let (id, preference) = (on.target, on.action.preference);
    let first = operations
        .show(id)
        .await?
        .filter(|operation| on.known.may_see(operation));
    // Who may see it is settled before anybody waits: callers are added to an operation and never
    // taken away.
    let shown = match (first, preference) {
        (Some(_), Preference::Wait(limit)) => operations.wait(id, limit).await?,
        (first, _) => first,
    };
    let Some(operation) = shown else {
        return Err(Problem::new(
            ProblemType::OperationNotFound,
            "There is no such operation, or it is not one that this caller may see.",
        ));
    };
    let mut response = HttpResponse::Ok();
    if matches!(preference, Preference::Wait(_))
        && let Some(applied) = answer::applied(preference, &operation, operations)
    {
        response.insert_header(("Preference-Applied", applied));
    }
    Ok(response.json(OperationView::of(&operation, &on.known).await))
}
