//! `DELETE /tasks/{id}`, plain and by force.

use actix_web::{HttpRequest, HttpResponse, delete};

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

/// A deletion; by force it pauses a running task first.
pub(crate) struct Delete {
    force: bool,
    terms: Terms,
}

impl Action for Delete {
    type Target = NamedTask;
    type Body = NoBody;

    fn read(head: &mut Head<'_>) -> Self {
        let is_pause = |text: &str| (text == "pause").then_some(());
        Self {
            force: head.query.parsed("force", "pause", is_pause).is_some(),
            terms: Terms::read(head),
        }
    }

    fn change(&self) -> Option<&'static str> {
        (!self.terms.is_dry_run).then(|| Goal::Absent { force: self.force }.action())
    }

    fn permissions(&self) -> &'static [Permission] {
        if self.force {
            &[Permission::TasksDelete, Permission::TasksPause]
        } else {
            &[Permission::TasksDelete]
        }
    }
}

/// Delete a task.
///
/// A task at rest is deleted; a running one is refused with 409. With `force=pause` a running task
/// is paused first: the gateway waits until it is really paused, deletes it, and verifies that it
/// is gone. The answer is 200 with the ended operation, or 202 with the running one when the wait
/// is over; the operation goes on either way.
#[utoipa::path(
    tag = "tasks",
    params(
        parameters::InPath,
        ("force" = Option<String>, Query, description = "`pause`: pause the task first if it is running.", example = "pause"),
        parameters::Trial,
        parameters::Place,
        parameters::Answering,
    ),
    responses(
        (status = 200, description = "The task is gone; or, with `dry_run`, the plan.", body = ChangeView),
        (status = 202, description = "The operation goes on.", body = OperationView),
    ),
)]
#[delete("/tasks/{id}")]
pub(crate) async fn delete_task(
    on: On<Delete>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let change = Change {
        goal: Goal::Absent {
            force: on.action.force,
        },
        start: None,
        terms: on.action.terms,
    };
    answer::to_change(&request, &on.known, on.target, change).await
}
