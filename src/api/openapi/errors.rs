//! Which errors each route can answer with.

use crate::api::problem::kinds::ProblemType;

/// What every guarded route can answer with.
const GUARDED: [ProblemType; 6] = [
    ProblemType::InvalidRequest,
    ProblemType::Unauthenticated,
    ProblemType::Forbidden,
    ProblemType::RateLimited,
    ProblemType::Overloaded,
    ProblemType::StoreUnavailable,
];

/// What every look at the cloud can answer with.
const LOOK: [ProblemType; 7] = [
    ProblemType::CredentialsRefused,
    ProblemType::UpstreamForbidden,
    ProblemType::UpstreamRejected,
    ProblemType::UpstreamUnavailable,
    ProblemType::UpstreamMalformed,
    ProblemType::UpstreamThrottled,
    ProblemType::UpstreamTimeout,
];

/// What every operation can end with, or be refused with.
const CHANGE: [ProblemType; 13] = [
    ProblemType::IdempotencyKeyReused,
    ProblemType::TaskNotFound,
    ProblemType::TaskInProgress,
    ProblemType::OperationConflict,
    ProblemType::OperationSuperseded,
    ProblemType::OperationCancelled,
    ProblemType::CredentialsRefused,
    ProblemType::UpstreamForbidden,
    ProblemType::UpstreamRejected,
    ProblemType::ProjectChanged,
    ProblemType::DeadlineExceeded,
    ProblemType::StoreUnavailable,
    ProblemType::AuditUnavailable,
];

/// The kinds of problem that an operation of the document can answer with, beside `internal`.
pub(super) fn problems_of(operation_id: &str) -> Vec<ProblemType> {
    use ProblemType as P;
    let (groups, own): (&[&[P]], &[P]) = match operation_id {
        "list_tasks" => (&[&GUARDED, &LOOK], &[]),
        "show_task" | "watch_task" => (&[&GUARDED, &LOOK], &[P::TaskNotFound]),
        "pause_task" => (&[&GUARDED, &CHANGE], &[P::TaskFinished, P::TaskNotStarted]),
        "start_task" => (
            &[&GUARDED, &CHANGE],
            &[
                P::TaskFinished,
                P::TaskFailed,
                P::CredentialsLost,
                P::PayloadTooLarge,
            ],
        ),
        "delete_task" => (&[&GUARDED, &CHANGE], &[]),
        "list_operations" => (&[&GUARDED], &[]),
        "cancel_operation" => (
            &[&GUARDED],
            &[
                P::OperationNotFound,
                P::PastPointOfNoReturn,
                P::AuditUnavailable,
            ],
        ),
        "show_operation" | "watch_operation" => (&[&GUARDED], &[P::OperationNotFound]),
        "whoami" => (
            &[],
            &[
                P::InvalidRequest,
                P::Unauthenticated,
                P::RateLimited,
                P::Overloaded,
            ],
        ),
        "show_problem" => (&[], &[P::InvalidRequest, P::NotFound]),
        "livez" | "readyz" | "metrics" => (&[], &[P::InvalidRequest]),
        "show_status" => (
            &[],
            &[
                P::InvalidRequest,
                P::Unauthenticated,
                P::Forbidden,
                P::RateLimited,
                P::Overloaded,
            ],
        ),
        _ => (&[], &[]),
    };
    let wanted = |kind: &P| {
        *kind == P::Internal
            || own.contains(kind)
            || groups.iter().any(|group| group.contains(kind))
    };
    ProblemType::ALL.iter().copied().filter(wanted).collect()
}
