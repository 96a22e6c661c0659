//! `POST /tasks/{id}/pause`.

use actix_web::{HttpRequest, HttpResponse, post};

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
/// Asks for a pause and waits until the task is paused. A task that waits for its turn is paused once it runs.
#[utoipa::path(
    tag = "tasks",
    params(
        ("id" = String, Path, description = "The service's id of the task.", example = "191297407830872"),
        ("dry_run" = Option<bool>, Query, description = "`true`: say what would be done, and do nothing. The answer is 200 with a plan, or the problem that the request would meet.", example = false),
        ("service" = Option<String>, Query, description = "The service, where the form of the id does not tell.", example = "oms"),
        ("project" = Option<String>, Query, description = "A configured project; without it the default one."),
        ("Prefer" = Option<String>, Header, description = "`wait=N`: wait so many seconds; `respond-async`: do not wait.", example = "wait=10"),
        ("Idempotency-Key" = Option<String>, Header, description = "The caller's own name for the request, 1 to 64 visible ASCII characters: a repeat answers as the first would, and does nothing.", example = "nightly-2026-01-05"),
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
