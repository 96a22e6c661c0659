//! The table of every error that callers can meet: name, status, title; and which error of the
//! ports becomes which.

use crate::domain::{operation::Reason, service::UpstreamErrorKind};

macro_rules! problem_types {
    ($($(#[$doc:meta])* $name:ident = $slug:literal, $status:literal, $title:literal;)+) => {
        /// Every kind of error that callers can meet.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(in crate::api) enum ProblemType {
            $($(#[$doc])* $name,)+
        }

        impl ProblemType {
            /// Every kind, in the order of their statuses.
            pub(in crate::api) const ALL: &[Self] = &[$(Self::$name,)+];

            /// The last part of the kind's URI.
            pub(in crate::api) fn slug(self) -> &'static str {
                match self { $(Self::$name => $slug,)+ }
            }

            /// The HTTP status.
            pub(in crate::api) fn status(self) -> u16 {
                match self { $(Self::$name => $status,)+ }
            }

            /// The page that tells people what it means and what to do about it. A kind without one
            /// does not compile.
            pub(in crate::api) fn page(self) -> &'static str {
                match self {
                    $(Self::$name => include_str!(concat!(
                        env!("CARGO_MANIFEST_DIR"), "/docs/problems/", $slug, ".md"
                    )),)+
                }
            }

            /// The same short sentence for every problem of the kind.
            pub(in crate::api) fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)+ }
            }
        }
    };
}

problem_types! {
    /// Malformed path, query, header or body.
    InvalidRequest = "invalid-request", 400, "The request is not valid";
    /// No credentials, or none that are known.
    Unauthenticated = "unauthenticated", 401, "Credentials are missing or not valid";
    /// The caller lacks something.
    Forbidden = "forbidden", 403, "The caller may not do this";
    /// No such task.
    TaskNotFound = "task-not-found", 404, "There is no such task";
    /// No such operation, or none that the caller may see.
    OperationNotFound = "operation-not-found", 404, "There is no such operation";
    /// No such resource.
    NotFound = "not-found", 404, "There is nothing here";
    /// The resource does not know the method.
    MethodNotAllowed = "method-not-allowed", 405, "The method is not allowed here";
    /// The task's state stands against the request.
    TaskInProgress = "task-in-progress", 409, "The task is in progress";
    /// The task has ended.
    TaskFinished = "task-finished", 409, "The task has ended";
    /// The task was never started.
    TaskNotStarted = "task-not-started", 409, "The task was never started";
    /// The task was started and failed.
    TaskFailed = "task-failed", 409, "The task was started and failed";
    /// Storage keys were lost with a process.
    CredentialsLost = "credentials-lost", 409, "The storage keys of the start were lost";
    /// Another operation is running on the task.
    OperationConflict = "operation-conflict", 409, "Another operation is running on the task";
    /// Another operation took over.
    OperationSuperseded = "operation-superseded", 409, "Another operation took over";
    /// The operation was cancelled.
    OperationCancelled = "operation-cancelled", 409, "The operation was cancelled";
    /// A delete was sent and cannot be taken back.
    PastPointOfNoReturn = "past-point-of-no-return", 409, "The operation cannot be cancelled any more";
    /// The body is larger than allowed.
    PayloadTooLarge = "payload-too-large", 413, "The body is too large";
    /// The key was used for another request.
    IdempotencyKeyReused = "idempotency-key-reused", 422, "The key was used for another request";
    /// More requests than the caller may send.
    RateLimited = "rate-limited", 429, "The caller sends too many requests";
    /// A fault of the gateway itself.
    Internal = "internal", 500, "The gateway failed";
    /// The cloud refused the gateway's credentials.
    CredentialsRefused = "credentials-refused", 502, "The cloud refused the gateway's credentials";
    /// The gateway's identity lacks a permission at the cloud.
    UpstreamForbidden = "upstream-forbidden", 502, "The gateway lacks a permission at the cloud";
    /// The cloud rejected the request.
    UpstreamRejected = "upstream-rejected", 502, "The cloud rejected the request";
    /// The cloud cannot be reached or answers with faults.
    UpstreamUnavailable = "upstream-unavailable", 502, "The cloud is unavailable";
    /// The cloud's answer cannot be read.
    UpstreamMalformed = "upstream-malformed", 502, "The cloud's answer cannot be read";
    /// The project's configuration changed under an operation.
    ProjectChanged = "project-changed", 502, "The project's configuration has changed";
    /// The cloud asks to slow down.
    UpstreamThrottled = "upstream-throttled", 503, "The cloud asks to slow down";
    /// The service failed often and is left alone for a while.
    CircuitOpen = "circuit-open", 503, "The service is left alone for a while";
    /// The gateway takes no requests just then.
    Overloaded = "overloaded", 503, "The gateway takes no requests just now";
    /// The record cannot be written.
    StoreUnavailable = "store-unavailable", 503, "The operation cannot be recorded";
    /// What is done cannot be noted down for those who audit it.
    AuditUnavailable = "audit-unavailable", 503, "The request cannot be audited";
    /// No answer from the cloud in time.
    UpstreamTimeout = "upstream-timeout", 504, "The cloud did not answer in time";
    /// The operation did not end in time.
    DeadlineExceeded = "deadline-exceeded", 504, "The operation did not end in time";
}

impl From<Reason> for ProblemType {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::TaskNotFound => Self::TaskNotFound,
            Reason::TaskInProgress => Self::TaskInProgress,
            Reason::TaskFinished => Self::TaskFinished,
            Reason::TaskNotStarted => Self::TaskNotStarted,
            Reason::TaskFailed => Self::TaskFailed,
            Reason::CredentialsLost => Self::CredentialsLost,
            Reason::ProjectChanged => Self::ProjectChanged,
            Reason::DeadlineExceeded => Self::DeadlineExceeded,
            Reason::CredentialsRefused => Self::CredentialsRefused,
            Reason::UpstreamForbidden => Self::UpstreamForbidden,
            Reason::UpstreamRejected => Self::UpstreamRejected,
        }
    }
}

impl From<UpstreamErrorKind> for ProblemType {
    fn from(kind: UpstreamErrorKind) -> Self {
        match kind {
            UpstreamErrorKind::CredentialsRefused | UpstreamErrorKind::CredentialsResting => {
                Self::CredentialsRefused
            }
            UpstreamErrorKind::Forbidden => Self::UpstreamForbidden,
            UpstreamErrorKind::Refused
            | UpstreamErrorKind::StillInProgress
            | UpstreamErrorKind::Gone
            | UpstreamErrorKind::Rejected => Self::UpstreamRejected,
            UpstreamErrorKind::Throttled => Self::UpstreamThrottled,
            UpstreamErrorKind::CircuitOpen => Self::CircuitOpen,
            UpstreamErrorKind::Unavailable => Self::UpstreamUnavailable,
            UpstreamErrorKind::Timeout => Self::UpstreamTimeout,
            UpstreamErrorKind::Malformed => Self::UpstreamMalformed,
        }
    }
}
