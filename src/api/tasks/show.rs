//! `GET /tasks/{id}`.

use actix_web::{HttpResponse, get};

use super::{list, parameters, view::TaskView};
use crate::{
    api::{
        problem::Problem,
        problem::kinds::ProblemType,
        request::body::Unread,
        request::guard::{Action, Head, On},
        request::target::NamedTask,
    },
    domain::access::Permission,
};

/// A look at a task.
pub(crate) struct Show {
    is_full: bool,
}

impl Action for Show {
    type Target = NamedTask;
    type Body = Unread;

    fn read(head: &mut Head<'_>) -> Self {
        let is_full = |text: &str| (text == "full").then_some(());
        Self {
            is_full: head.query.parsed("view", "full", is_full).is_some(),
        }
    }

    fn permissions(&self) -> &'static [Permission] {
        &[Permission::TasksRead]
    }
}

/// Show a task.
///
/// Callers who ask for the same task at the same time, or shortly after each other
/// (`upstream.freshness` of the configuration), share one look at the cloud; `observed_at` says
/// when that was. A task that the service does not know is 404.
#[utoipa::path(
    tag = "tasks",
    params(
        parameters::InPath,
        ("view" = Option<String>, Query, description = "`full`: with the cloud's own document.", example = "full"),
        parameters::Place,
    ),
    responses((status = 200, description = "The task as it was seen just before.", body = TaskView)),
)]
#[get("/tasks/{id}")]
pub(crate) async fn show_task(on: On<Show>) -> Result<HttpResponse, Problem> {
    let named = &on.target.task;
    let Some(task) = on.target.service.port.glance(&named.id).await? else {
        let detail = format!(
            "The service {} knows no task {} in this project.",
            named.service, named.id
        );
        return Err(Problem::new(ProblemType::TaskNotFound, detail));
    };
    let link = list::link(&on.known, &task).await?;
    let details = on.action.is_full.then(|| task.details.clone());
    let view = TaskView::new(&task, on.known.caller(), link);
    Ok(HttpResponse::Ok().json(match details {
        Some(details) => view.with_details(details),
        None => view,
    }))
}
