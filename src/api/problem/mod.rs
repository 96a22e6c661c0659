//! Problem documents (RFC 9457): the one shape of every error, and the only place where errors
//! become HTTP.
//!
//! A [`Problem`] travels inside the response it belongs to and is written out by the outermost
//! middleware, which knows the id of the request. Texts of the vendor and of libraries never become
//! part of `detail`.

mod causes;
pub(super) mod kinds;
pub(super) mod pages;

use std::{fmt, time::Duration};

use actix_web::{HttpResponse, ResponseError, http::StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use self::kinds::ProblemType;
use crate::{
    api::operations::view::OperationView,
    domain::{
        operation::Failure,
        service::{Sent, UpstreamAnswer},
    },
};

/// The most faults of a request that its answer lists.
const FAULTS_MAX: usize = 50;

/// The longest that a caller is asked to wait, whatever the cloud asks for.
const RETRY_AFTER_MAX: Duration = Duration::from_mins(1);

/// An error on its way to the caller. Boxed inside, since results of handlers carry it.
#[derive(Clone, Debug)]
pub(in crate::api) struct Problem(Box<Parts>);

#[derive(Clone, Debug)]
struct Parts {
    kind: ProblemType,
    headers: Vec<(&'static str, String)>,
    document: ProblemDocument,
}

/// An error in the form of RFC 9457, `application/problem+json`.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(in crate::api) struct ProblemDocument {
    /// A relative URI that names the kind of problem.
    #[serde(rename = "type")]
    #[schema(example = "/problems/task-in-progress")]
    pub(in crate::api) kind: String,
    /// What kind of problem it is, the same for all of the kind.
    #[schema(example = "The task is in progress")]
    pub(in crate::api) title: &'static str,
    /// The HTTP status of the answer.
    #[schema(minimum = 400, maximum = 599, example = 409)]
    pub(in crate::api) status: u16,
    /// What went wrong this time, and what to change.
    #[schema(
        example = "Task 191297407830872 is running. Pause it first, or repeat with ?force=pause."
    )]
    pub(in crate::api) detail: String,
    /// The id of the request, as in `X-Request-Id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(in crate::api) request_id: Option<String>,
    /// Whether a request that would change something reached the cloud: `no`, `yes` or `unknown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "no")]
    pub(in crate::api) sent: Option<&'static str>,
    /// What would be allowed instead.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(in crate::api) allowed: Vec<&'static str>,
    /// The faults of the request, at most 50 of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(in crate::api) errors: Vec<RequestFault>,
    /// What the cloud answered, when it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(in crate::api) upstream: Option<UpstreamView>,
    /// The operation that the problem ended, or that stands in the way: the whole document, or a
    /// link to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(in crate::api) operation: Option<OperationReference>,
    /// A link to the operation that deleted the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(in crate::api) deleted_by: Option<String>,
    /// A link to the operation that took over.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(in crate::api) superseded_by: Option<String>,
}

/// An operation, or a link to it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(in crate::api) enum OperationReference {
    /// The operation that the problem ended.
    Document(Box<OperationView>),
    /// The operation that stands in the way.
    Link(String),
}

/// One fault of a request.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(in crate::api) struct RequestFault {
    /// Where: `path`, `query`, `header` or `body`.
    #[serde(rename = "in")]
    pub(in crate::api) location: &'static str,
    /// A JSON pointer to the member of the body, or `/` and the name of the parameter.
    #[schema(example = "/force")]
    pub(in crate::api) pointer: String,
    /// What is wrong, and what would be right.
    pub(in crate::api) detail: String,
}

/// What the cloud answered.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = UpstreamAnswer)]
pub(in crate::api) struct UpstreamView {
    /// The service that answered; `iam` for the token service, `ecs-metadata` for the metadata
    /// service of an ECS.
    #[schema(example = "oms")]
    pub(in crate::api) service: String,
    /// The HTTP status.
    #[schema(example = 400)]
    pub(in crate::api) status: u16,
    /// The vendor's code.
    #[schema(example = "OMS.0063")]
    pub(in crate::api) error_code: Option<String>,
    /// The vendor's text; present for codes of a migration service only.
    pub(in crate::api) error_msg: Option<String>,
    /// The vendor's id of the request, for its support.
    pub(in crate::api) request_id: Option<String>,
}

impl From<&UpstreamAnswer> for UpstreamView {
    fn from(answer: &UpstreamAnswer) -> Self {
        Self {
            service: answer.service.clone(),
            status: answer.status,
            error_code: answer.error_code.clone(),
            error_msg: answer.error_msg.clone(),
            request_id: answer.request_id.clone(),
        }
    }
}

impl Problem {
    /// A problem of this kind, told in one sentence. Nothing was sent, unless [`Problem::sent`]
    /// says otherwise.
    pub(in crate::api) fn new(kind: ProblemType, detail: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            kind,
            headers: Vec::new(),
            document: ProblemDocument {
                kind: format!("/problems/{}", kind.slug()),
                title: kind.title(),
                status: kind.status(),
                detail: detail.into(),
                sent: Some(Sent::No.as_str()),
                ..ProblemDocument::default()
            },
        }))
    }

    /// A request with these faults. A request can have as many as it has bytes; the first ones are
    /// told.
    pub(in crate::api) fn invalid(mut errors: Vec<RequestFault>) -> Self {
        let detail = match errors.as_slice() {
            [only] => only.detail.clone(),
            several => format!("The request has {} faults; see errors.", several.len()),
        };
        let mut problem = Self::new(ProblemType::InvalidRequest, detail);
        errors.truncate(FAULTS_MAX);
        problem.0.document.errors = errors;
        problem
    }

    /// A request with one fault.
    pub(in crate::api) fn fault(
        location: &'static str,
        name: &str,
        detail: impl Into<String>,
    ) -> Self {
        Self::invalid(vec![RequestFault {
            location,
            pointer: format!("/{name}"),
            detail: detail.into(),
        }])
    }

    /// A path that leads nowhere.
    pub(in crate::api) fn not_found() -> Self {
        Self::new(
            ProblemType::NotFound,
            "There is no such resource. GET /docs shows what there is.",
        )
    }

    /// A fault of the gateway itself; what it was stands in the log.
    pub(in crate::api) fn internal() -> Self {
        Self::new(
            ProblemType::Internal,
            "The gateway failed to handle the request. The log has more under this request_id.",
        )
        .sent(Sent::Unknown)
    }

    /// A failed operation, with its document.
    pub(in crate::api) fn operation_failed(failure: &Failure, operation: OperationView) -> Self {
        let mut problem = Self::from(failure);
        problem.0.document.operation = Some(OperationReference::Document(Box::new(operation)));
        problem
    }

    /// Says whether something was sent.
    pub(in crate::api) fn sent(mut self, sent: Sent) -> Self {
        self.0.document.sent = Some(sent.as_str());
        self
    }

    /// Says what would be allowed instead.
    pub(in crate::api) fn allowed(mut self, allowed: Vec<&'static str>) -> Self {
        self.0.document.allowed = allowed;
        self
    }

    /// Names the operation that stands in the way.
    pub(in crate::api) fn link(mut self, operation: Option<String>) -> Self {
        self.0.document.operation = operation.map(OperationReference::Link);
        self
    }

    /// Names the operation that deleted the task.
    pub(in crate::api) fn deleted_by(mut self, operation: Option<String>) -> Self {
        self.0.document.deleted_by = operation;
        self
    }

    /// Carries the operation that ended.
    pub(in crate::api) fn ended(mut self, operation: OperationView) -> Self {
        self.0
            .document
            .superseded_by
            .clone_from(&operation.superseded_by);
        self.0.document.operation = Some(OperationReference::Document(Box::new(operation)));
        self
    }

    /// Adds a header to the answer.
    pub(in crate::api) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.headers.push((name, value.into()));
        self
    }

    /// Says when to come back, in seconds.
    pub(in crate::api) fn retry_after(self, seconds: u64) -> Self {
        self.header("Retry-After", seconds.max(1).to_string())
    }

    /// The document, for an operation's `error` member.
    pub(in crate::api) fn document(&self) -> &ProblemDocument {
        &self.0.document
    }

    /// The document as part of the answer to a request.
    pub(in crate::api) fn document_for(&self, request_id: &str) -> ProblemDocument {
        ProblemDocument {
            request_id: Some(request_id.to_owned()),
            ..self.document().clone()
        }
    }

    /// The whole answer.
    pub(in crate::api) fn render(&self, request_id: &str) -> HttpResponse {
        let parts = &self.0;
        let mut response = HttpResponse::build(self.status_code());
        for (name, value) in &parts.headers {
            response.insert_header((*name, value.as_str()));
        }
        if parts.kind == ProblemType::Unauthenticated {
            response.insert_header(("WWW-Authenticate", "Bearer"));
        }
        let document = self.document_for(request_id);
        response
            .content_type("application/problem+json")
            .body(serde_json::to_string(&document).unwrap_or_else(|_| String::from("{}")))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0.kind.slug())
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        // Every status of the table is a valid one, so the second choice is never taken.
        StatusCode::from_u16(self.0.kind.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::new(self.status_code());
        response.extensions_mut().insert(self.clone());
        response
    }
}
