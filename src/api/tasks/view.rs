//! A task as callers see it.

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::domain::{
    access::{Caller, Permission, authorise},
    decide::{self, Sight},
    operation::Goal,
    task::{Amount, ObjectCounts, Task, TaskError},
};

/// A migration task, the same for every service. What a service does not tell is null.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Task)]
pub(crate) struct TaskView {
    /// The service's id of the task.
    #[schema(example = "191297407830872")]
    id: String,
    /// The service that runs it.
    #[schema(example = "oms")]
    service: String,
    /// The configured project that owns it.
    #[schema(example = "default")]
    project: String,
    /// Its name at the cloud.
    #[schema(required = true, example = "logs-2026")]
    name: Option<String>,
    /// Where it stands: `waiting`, `running`, `pausing`, `paused`, `succeeded`, `failed`,
    /// `deleting` or `unknown`.
    #[schema(example = "running")]
    state: &'static str,
    /// The cloud's own word for its state.
    #[schema(example = "2")]
    upstream_state: String,
    /// What would be accepted from this caller, of `pause`, `start`, `delete` and `force_delete`.
    #[schema(example = json!(["pause", "force_delete"]))]
    actions: Vec<&'static str>,
    /// How far it is, 0 to 1.
    #[schema(required = true, minimum = 0, maximum = 1, example = 0.52)]
    progress: Option<f64>,
    /// Bytes moved and to be moved.
    #[schema(required = true)]
    bytes: Option<AmountView>,
    /// Objects by what became of them.
    #[schema(required = true)]
    objects: Option<ObjectCountsView>,
    /// Present speed.
    #[schema(required = true, minimum = 0, example = 19_871_000)]
    bytes_per_second: Option<u64>,
    /// The cloud's estimate of the time left.
    #[schema(required = true, minimum = 0, example = 284)]
    remaining_seconds: Option<u64>,
    /// When it was last started.
    #[schema(required = true, example = "2026-01-05T10:15:31Z")]
    started_at: Option<Timestamp>,
    /// Why it failed.
    #[schema(required = true)]
    error: Option<TaskErrorView>,
    /// When the gateway saw it like this.
    #[schema(example = "2026-01-05T10:20:41Z")]
    observed_at: Timestamp,
    /// A link to the operation that is running on it, if this caller may see that.
    #[schema(required = true, example = "/operations/op_01JGZ4K8W3M5N7P9R1T3V5X7Z9")]
    operation: Option<String>,
    /// The cloud's own document, with `view=full`; members named like secrets are left out, and
    /// keys and the names of the gateway's account and user are masked in its texts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Object, nullable = false, required = false)]
    details: Option<serde_json::Value>,
}

/// A part of a whole, in bytes.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Bytes)]
pub(crate) struct AmountView {
    /// Moved so far.
    #[schema(example = 38_310_000_000_u64)]
    done: u64,
    /// To be moved in all.
    #[schema(example = 73_400_320_000_u64)]
    total: u64,
}

/// Objects by what became of them.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Objects)]
pub(crate) struct ObjectCountsView {
    /// Copied.
    #[schema(example = 6200)]
    succeeded: u64,
    /// Could not be copied.
    #[schema(example = 3)]
    failed: u64,
    /// Left out on purpose.
    #[schema(example = 41)]
    skipped: u64,
    /// Found at the source.
    #[schema(example = 12_000)]
    total: u64,
}

/// Why a task failed.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = TaskError)]
pub(crate) struct TaskErrorView {
    /// The cloud's code.
    #[schema(example = "TRF.0155")]
    code: String,
    /// The cloud's text.
    #[schema(example = "The source bucket does not exist.")]
    message: String,
}

impl From<Amount> for AmountView {
    fn from(Amount { done, total }: Amount) -> Self {
        Self { done, total }
    }
}

impl From<ObjectCounts> for ObjectCountsView {
    fn from(
        ObjectCounts {
            succeeded,
            failed,
            skipped,
            total,
        }: ObjectCounts,
    ) -> Self {
        Self {
            succeeded,
            failed,
            skipped,
            total,
        }
    }
}

impl From<&TaskError> for TaskErrorView {
    fn from(TaskError { code, message }: &TaskError) -> Self {
        Self {
            code: code.clone(),
            message: message.clone(),
        }
    }
}

impl TaskView {
    /// The task as `caller` sees it, with a link to its running operation.
    pub(super) fn new(task: &Task, caller: &Caller, operation: Option<String>) -> Self {
        Self {
            actions: actions(task, caller),
            id: task.reference.id.to_string(),
            service: task.reference.service.to_string(),
            project: task.reference.project.to_string(),
            name: task.name.clone(),
            state: task.stage.state().as_str(),
            upstream_state: task.upstream_state.clone(),
            progress: task.progress,
            bytes: task.bytes.map(AmountView::from),
            objects: task.objects.map(ObjectCountsView::from),
            bytes_per_second: task.bytes_per_second,
            remaining_seconds: task.remaining_seconds,
            started_at: task.started_at,
            error: task.error.as_ref().map(TaskErrorView::from),
            observed_at: task.observed_at,
            operation,
            details: None,
        }
    }

    /// The same with the cloud's own document.
    pub(super) fn with_details(mut self, details: serde_json::Value) -> Self {
        self.details = Some(details);
        self
    }
}

/// What would be accepted, both in the task's state and from this caller.
pub(in crate::api) fn actions(task: &Task, caller: &Caller) -> Vec<&'static str> {
    const FORCE: Goal = Goal::Absent { force: true };
    const PLAIN: Goal = Goal::Absent { force: false };
    let all = [
        ("pause", Goal::Paused, &[Permission::TasksPause][..]),
        ("start", Goal::Running, &[Permission::TasksStart]),
        ("delete", PLAIN, &[Permission::TasksDelete]),
        (
            "force_delete",
            FORCE,
            &[Permission::TasksDelete, Permission::TasksPause],
        ),
    ];
    let (place, sight) = (&task.reference, Sight::from(task));
    let may = |needed| {
        authorise(caller, needed, &place.project, &place.service)
            .is_ok_and(|names| names.admit(task.name.as_deref()))
    };
    all.into_iter()
        .filter(|(_, goal, needed)| decide::is_offered(*goal, sight) && may(needed))
        .map(|(name, _, _)| name)
        .collect()
}
