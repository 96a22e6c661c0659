//! `POST /tasks/{id}/pause`.

use actix_web::{HttpRequest, HttpResponse, post};

use super::parameters;
use crate::{
    api::{
        answer::{self, Change, Terms},
        operations::view::OperationView,
        plan::ChangeView,
        problem::Problem,
        request::body::NoBody,
        request::guard::{Action, Head, On},
        request::target::NamedTask,
    },
    domain::{access::Permission, operation::Goal},
};

/// A pause.
pub(crate) struct Pause {
    terms: Terms,
}

impl Action for Pause {
    type Target = NamedTask;
    type Body = NoBody;

    fn read(head: &mut Head<'_>) -> Self {
        Self {
            terms: Terms::read(head),
        }
    }

    fn change(&self) -> Option<&'static str> {
        (!self.terms.is_dry_run).then(|| Goal::Paused.action())
    }

    fn permissions(&self) -> &'static [Permission] {
        &[Permission::TasksPause]
    }
}

/// Pause a task.
///
/// Asks for a pause and waits until the task is paused. A task that waits for its turn is paused
/// once it runs.
#[utoipa::path(
    tag = "tasks",
    params(
        parameters::InPath,
        parameters::Trial,
        parameters::Place,
        parameters::Answering,
    ),
    responses(
        (status = 200, description = "The task is paused; or, with `dry_run`, the plan.", body = ChangeView),
        (status = 202, description = "The operation goes on.", body = OperationView),
    ),
)]
#[post("/tasks/{id}/pause")]
pub(crate) async fn pause_task(
    on: On<Pause>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let change = Change {
        goal: Goal::Paused,
        start: None,
        terms: on.action.terms,
    };
    answer::to_change(&request, &on.known, on.target, change).await
}
