//! Which problem an error of a port is: the only place where these become HTTP.

use super::{Problem, RETRY_AFTER_MAX, UpstreamView, kinds::ProblemType};
use crate::{
    domain::{
        access::Denied,
        audit::AuditUnavailable,
        operation::Failure,
        service::{Sent, UpstreamError},
        store::StoreError,
    },
    operations::AskError,
};

impl From<&Failure> for Problem {
    fn from(failure: &Failure) -> Self {
        let mut problem =
            Self::new(failure.reason.into(), failure.detail.clone()).sent(failure.sent);
        problem.0.document.upstream = failure.answer.as_ref().map(UpstreamView::from);
        problem
    }
}

impl From<UpstreamError> for Problem {
    fn from(error: UpstreamError) -> Self {
        let kind = ProblemType::from(error.kind);
        let mut problem = Self::new(kind, error.detail).sent(error.sent);
        problem.0.document.upstream = error.answer.as_deref().map(UpstreamView::from);
        if [ProblemType::UpstreamThrottled, ProblemType::CircuitOpen].contains(&kind) {
            let asked = error.retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
            // Whoever comes back in less than that comes too early.
            problem = problem.retry_after(asked.as_secs() + u64::from(asked.subsec_nanos() > 0));
        }
        problem
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::error!(error = error.with_causes(), "the store failed a request");
        match error {
            StoreError::Unavailable(_) => Self::new(
                ProblemType::StoreUnavailable,
                "The gateway's record cannot be reached, and nothing was sent. Try again soon.",
            )
            .sent(Sent::No)
            .retry_after(5),
            StoreError::Unsure(_) => Self::new(
                ProblemType::StoreUnavailable,
                "The gateway's record was lost while this was being recorded. It may have been recorded, and is carried out then. \
                 Repeat the request, with the same Idempotency-Key if it had one: that is safe, for it finds the operation if \
                 there is one.",
            )
            .sent(Sent::Unknown)
            .retry_after(5),
            StoreError::Stale => Self::new(
                ProblemType::StoreUnavailable,
                "The operation on the task changed whenever this was to be recorded, and nothing was sent. Try again soon.",
            )
            .sent(Sent::No)
            .retry_after(5),
            StoreError::Unreadable(_) => Self::new(
                ProblemType::Internal,
                "What is on record of the operation cannot be read by this version of the gateway, and nothing was sent. The log \
                 says which operation it is.",
            )
            .sent(Sent::No),
        }
    }
}

impl Problem {
    /// Why an operation was not cancelled, as far as the record knows.
    pub(in crate::api) fn of_cancel(error: StoreError) -> Self {
        let is_unsure = matches!(error, StoreError::Unsure(_));
        let mut problem = Self::from(error);
        if is_unsure {
            let detail = "The gateway's record was lost while the operation was being cancelled. It may have ended by this, or \
                          goes on. Look at it, or cancel it again: that is safe.";
            problem.0.document.detail = detail.into();
        }
        problem
    }
}

impl From<AuditUnavailable> for Problem {
    fn from(_: AuditUnavailable) -> Self {
        Self::new(
            ProblemType::AuditUnavailable,
            "The gateway's audit log cannot be written, and nothing was sent. Try again soon.",
        )
        .sent(Sent::No)
        .retry_after(5)
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        Self::new(ProblemType::Forbidden, sentence(&denied.to_string())).sent(Sent::No)
    }
}

/// Why nothing was recorded, but for [`AskError::Conflict`], whose link depends on who asks.
impl From<AskError> for Problem {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Refused { reason, detail, .. } => {
                Self::new(reason.into(), detail).sent(Sent::No)
            }
            AskError::Conflict(_) => Self::new(
                ProblemType::OperationConflict,
                "Another operation is running on the task. Wait for its end, then try again.",
            )
            .sent(Sent::No),
            AskError::KeyReused => Self::new(
                ProblemType::IdempotencyKeyReused,
                "This Idempotency-Key was used for another request. Use a fresh one for each request.",
            )
            .sent(Sent::No),
            AskError::TooMany(most) => Self::new(
                ProblemType::RateLimited,
                format!("{most} operations of the caller are running, and no more may. Try again when some have ended."),
            )
            .sent(Sent::No)
            .retry_after(5),
            AskError::NotOffered => Self::fault(
                "query",
                "project",
                "The project does not offer this service.",
            ),
            AskError::NameDenied => Denied::TaskName.into(),
            AskError::Unseen(error) => error.into(),
            AskError::Unaudited(error) => error.into(),
            AskError::Store(error) => error.into(),
        }
    }
}

fn sentence(message: &str) -> String {
    let mut characters = message.chars();
    match characters.next() {
        Some(first) => format!("{}{}.", first.to_uppercase(), characters.as_str()),
        None => String::new(),
    }
}
