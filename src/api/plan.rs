//! Dry runs: what a request would lead to.

use actix_web::HttpResponse;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    answer,
    operations::view::{OperationTaskView, OperationView},
    problem::Problem,
    request::guard::Known,
};
use crate::{
    domain::{audit::AuditUnavailable, decide::Action, operation::Outcome, task::TaskState},
    operations::{Ask, AskError, Plan},
};

/// The answer to a request for a change: the operation, or what it would be.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = Change)]
#[expect(
    dead_code,
    reason = "it describes the two answers, each of which is written where it is made"
)]
pub(crate) enum ChangeView {
    /// The operation that was asked for.
    Operation(OperationView),
    /// With `dry_run`.
    Plan(PlanView),
}

/// What a request would lead to, as things stood when it was asked.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Plan)]
pub(crate) struct PlanView {
    /// Always true: nothing was recorded, and nothing that changes anything was sent.
    #[schema(example = true)]
    dry_run: bool,
    /// What was asked for: `delete`, `pause` or `start`.
    #[schema(example = "delete")]
    kind: &'static str,
    /// `pause` if a running task might be paused to delete it.
    #[schema(required = true, example = "pause")]
    force: Option<&'static str>,
    /// The task.
    task: OperationTaskView,
    /// Where the task stands; null if it is gone, or was not looked at or seen.
    #[schema(required = true, example = "running")]
    state: Option<&'static str>,
    /// What would become of the request: `begin` an operation, `join` the one that runs,
    /// `supersede` it, or `replay` what the `Idempotency-Key` stands for.
    #[schema(example = "begin")]
    course: &'static str,
    /// A link to the operation that would be joined, superseded or replayed, if this caller may see
    /// it.
    #[schema(required = true, example = "/operations/op_01JGZ4K8W3M5N7P9R1T3V5X7Z9")]
    operation: Option<String>,
    /// What would be sent next: `pause`, `start` or `delete`; `wait` if the task has to change
    /// first; null if nothing would be sent.
    #[schema(required = true, example = "pause")]
    next: Option<&'static str>,
    /// How the operation would end at once, such as `already_paused`; null if it would not.
    #[schema(required = true, example = "already_paused")]
    outcome: Option<&'static str>,
    /// The same in a sentence, with the reason.
    #[schema(
        example = "Task 191297407830872 is running: a pause would be sent next, and a delete once the task is at rest."
    )]
    why: String,
}

impl PlanView {
    fn new(plan: Plan, ask: &Ask, known: &Known) -> Self {
        let (next, outcome) = match plan.next {
            Some(Action::Pause) => (Some("pause"), None),
            Some(Action::Start) => (Some("start"), None),
            Some(Action::Delete) => (Some("delete"), None),
            Some(Action::Wait) => (Some("wait"), None),
            Some(Action::Finish(outcome)) => (None, Some(outcome)),
            Some(Action::Fail(_)) | None => (None, None),
        };
        let visible = plan.operation.filter(|operation| known.may_see(operation));
        Self {
            dry_run: true,
            kind: ask.goal.kind(),
            force: ask.goal.force(),
            task: OperationTaskView::new(&ask.task, known),
            state: plan.state.map(TaskState::as_str),
            course: plan.course.as_str(),
            operation: visible.map(|operation| known.state.links.operation(operation.id)),
            next,
            outcome: outcome.map(Outcome::as_str),
            why: plan.why,
        }
    }
}

/// Says what would be done. Refused like the request itself, also if its decision could not be
/// noted down when that was last tried.
pub(super) async fn answer(ask: &Ask, known: &Known) -> Result<HttpResponse, Problem> {
    let operations = &known.state.operations;
    let planned = operations.plan(&known.services, ask).await;
    let is_decided = !matches!(planned, Err(AskError::Store(_)));
    if is_decided && operations.audit().is_some_and(|log| !log.is_available()) {
        return Err(AuditUnavailable.into());
    }
    match planned {
        Ok(plan) => Ok(HttpResponse::Ok().json(PlanView::new(plan, ask, known))),
        Err(error) => Err(answer::refusal(error, ask, known).await?),
    }
}
