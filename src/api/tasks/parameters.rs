//! What several requests about tasks take, for the OpenAPI document: it is read in `request` and by
//! `Terms`.
#![expect(dead_code, reason = "for the OpenAPI document only")]

use utoipa::IntoParams;

/// A task in a path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct InPath {
    /// The service's id of the task.
    #[param(example = "191297407830872")]
    id: String,
}

/// Where a task is.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Place {
    /// The service, where the form of the id does not tell.
    #[param(example = "oms")]
    service: Option<String>,
    /// A configured project; without it the default one.
    project: Option<String>,
}

/// Whether a change is only to be tried.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Trial {
    /// `true`: say what would be done, and do nothing. The answer is 200 with a plan, or the
    /// problem that the request would meet.
    #[param(example = false)]
    dry_run: Option<bool>,
}

/// How a change is answered.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(crate) struct Answering {
    /// `wait=N`: wait so many seconds; `respond-async`: do not wait.
    #[param(rename = "Prefer", example = "wait=10")]
    prefer: Option<String>,
    /// The caller's own name for the request, 1 to 64 visible ASCII characters: a repeat answers as
    /// the first would, and does nothing.
    #[param(rename = "Idempotency-Key", example = "nightly-2026-01-05")]
    idempotency_key: Option<String>,
}
