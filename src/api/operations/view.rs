//! An operation as callers see it.

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    api::{
        problem::{Problem, ProblemDocument},
        request::guard::Known,
    },
    domain::{
        operation::{EventKind, Operation, OperationEvent, Outcome, Phase},
        task::{TaskRef, TaskState},
    },
};

/// Something that was asked for, driven to its end by the gateway whether or not anybody waits.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Operation)]
pub(crate) struct OperationView {
    /// Its id.
    #[schema(example = "op_01JGZ4K8W3M5N7P9R1T3V5X7Z9")]
    id: String,
    /// What was asked for: `delete`, `pause` or `start`.
    #[schema(example = "delete")]
    kind: &'static str,
    /// `pause` if a running task may be paused to delete it.
    #[schema(required = true, example = "pause")]
    force: Option<&'static str>,
    /// The task.
    task: OperationTaskView,
    /// Where it stands: `running`, `succeeded`, `failed`, `cancelled` or `superseded`.
    #[schema(example = "succeeded")]
    status: &'static str,
    /// What it is about just now, for people; null at the end.
    #[schema(required = true)]
    phase: Option<&'static str>,
    /// How the goal came to hold: `deleted`, `already_gone`, `paused`, `already_paused`, `started`
    /// or `already_running`.
    #[schema(required = true, example = "deleted")]
    outcome: Option<&'static str>,
    /// The caller who asked first.
    #[schema(example = "team-a")]
    requested_by: String,
    /// When it was recorded.
    #[schema(example = "2026-01-05T10:20:41Z")]
    created_at: Timestamp,
    /// When its record last changed.
    #[schema(example = "2026-01-05T10:20:44Z")]
    updated_at: Timestamp,
    /// When it fails if it has not ended.
    #[schema(example = "2026-01-05T10:50:41Z")]
    deadline_at: Timestamp,
    /// When it ended.
    #[schema(required = true, example = "2026-01-05T10:20:44Z")]
    finished_at: Option<Timestamp>,
    /// What happened, oldest first, at most 200 entries.
    events: Vec<EventView>,
    /// Why it failed.
    #[schema(required = true, no_recursion)]
    error: Option<Box<ProblemDocument>>,
    /// A link to the operation that took over, if this caller may see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, required = false)]
    pub(crate) superseded_by: Option<String>,
}

/// The task of an operation.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = OperationTask)]
pub(crate) struct OperationTaskView {
    /// The service's id of the task.
    #[schema(example = "191297407830872")]
    id: String,
    /// The service.
    #[schema(example = "oms")]
    service: String,
    /// The configured project.
    #[schema(example = "default")]
    project: String,
    /// A link to the task.
    #[schema(example = "/tasks/191297407830872")]
    href: String,
}

impl OperationTaskView {
    /// The task, with a link.
    pub(crate) fn new(task: &TaskRef, known: &Known) -> Self {
        Self {
            id: task.id.to_string(),
            service: task.service.to_string(),
            project: task.project.to_string(),
            href: known.state.links.task(task, &known.services),
        }
    }
}

/// One entry of an operation's record.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = OperationEvent)]
pub(crate) struct EventView {
    /// When.
    #[schema(example = "2026-01-05T10:20:42Z")]
    at: Timestamp,
    /// What: `accepted`, `joined`, `observed`, `pause_sent`, `start_sent`, `delete_sent`,
    /// `refused`, `fault`, `resumed`, `superseded`, `cancelled` or `ended`.
    #[schema(example = "observed")]
    event: &'static str,
    /// With `observed`: the task's state, `gone` if the service said that there is no such task.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, required = false, example = "running")]
    state: Option<&'static str>,
    /// The cloud's id of the request that was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, required = false)]
    request_id: Option<String>,
    /// With `refused` and `fault`: the cloud's code or the kind of fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, required = false)]
    code: Option<String>,
}

impl From<&OperationEvent> for EventView {
    fn from(event: &OperationEvent) -> Self {
        let (mut state, mut request_id, mut code) = (None, None, None);
        match &event.kind {
            EventKind::Observed(seen) => state = Some(seen.map_or("gone", TaskState::as_str)),
            EventKind::PauseSent(id) | EventKind::StartSent(id) | EventKind::DeleteSent(id) => {
                request_id.clone_from(id);
            }
            EventKind::Refused(refused) => code.clone_from(refused),
            EventKind::Fault(fault) => code = Some(fault.clone()),
            EventKind::Accepted
            | EventKind::Joined
            | EventKind::Resumed
            | EventKind::Superseded
            | EventKind::Cancelled
            | EventKind::Ended => {}
        }
        Self {
            at: event.at,
            event: event.kind.as_str(),
            state,
            request_id,
            code,
        }
    }
}

impl OperationView {
    /// The operation as a caller sees it who may see it. The operation that took over from it is
    /// named only if the caller may see that too.
    pub(crate) async fn of(operation: &Operation, known: &Known) -> Self {
        let mut view = Self::new(operation, known);
        if let Some(id) = operation.superseded_by {
            view.superseded_by = match known.state.operations.show(id).await {
                Ok(other) => other
                    .filter(|other| known.may_see(other))
                    .map(|other| known.state.links.operation(other.id)),
                // A link is not worth the whole answer.
                Err(error) => {
                    tracing::error!(
                        operation.id = %id,
                        error = error.with_causes(),
                        "an operation cannot be read, and is not linked to"
                    );
                    None
                }
            };
        }
        view
    }

    fn new(operation: &Operation, known: &Known) -> Self {
        Self {
            id: operation.id.to_string(),
            kind: operation.goal.kind(),
            force: operation.goal.force(),
            task: OperationTaskView::new(&operation.task, known),
            status: operation.status.as_str(),
            phase: operation.phase.map(Phase::as_str),
            outcome: operation.outcome.map(Outcome::as_str),
            requested_by: operation.requested_by.to_string(),
            created_at: operation.created_at,
            updated_at: operation.updated_at,
            deadline_at: operation.deadline_at,
            finished_at: operation.finished_at,
            events: operation.events.iter().map(EventView::from).collect(),
            error: operation
                .failure
                .as_ref()
                .map(|failure| Box::new(Problem::from(failure).document().clone())),
            superseded_by: None,
        }
    }
}
