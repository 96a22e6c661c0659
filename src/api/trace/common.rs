//! What all answers have.

use actix_web::{
    HttpResponse,
    body::{BodySize, BoxBody, MessageBody as _},
    dev::ServiceResponse,
    http::{
        StatusCode,
        header::{self, HeaderMap, HeaderName, HeaderValue},
    },
};

use super::RequestId;
use crate::api::{
    problem::{Problem, kinds::ProblemType},
    request::rate::Noted,
};

/// What browsers are told with every answer: take it for what it says it is, and tell nobody where
/// it came from.
const SECURITY: [(HeaderName, &str); 2] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
];
/// Nothing of an answer is to be run or framed.
const POLICY: &str = "default-src 'none'; frame-ancestors 'none'";
/// The page for browsers runs its own scripts and styles, and asks this gateway.
const PAGE_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'";

/// What all answers to one request have in common.
pub(super) struct Common {
    pub(super) id: RequestId,
    pub(super) client_id: Option<HeaderValue>,
    pub(super) left: Noted,
    /// Whether it is about the page for browsers.
    pub(super) is_page: bool,
}

impl Common {
    pub(super) fn add_to(
        &self,
        mut response: ServiceResponse<BoxBody>,
    ) -> ServiceResponse<BoxBody> {
        let problem = response.response().extensions().get::<Problem>().cloned();
        let problem = problem.or_else(|| bare(&response));
        if let Some(problem) = problem {
            let rendered: HttpResponse = problem.render(&self.id.0);
            response = response.into_response(rendered);
        }
        self.headers(response.headers_mut());
        response
    }

    pub(super) fn headers(&self, headers: &mut HeaderMap) {
        if let Ok(id) = HeaderValue::from_str(&self.id.0) {
            headers.insert(HeaderName::from_static("x-request-id"), id);
        }
        for (name, value) in SECURITY {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let policy = if self.is_page { PAGE_POLICY } else { POLICY };
        headers.insert(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(policy),
        );
        self.left.show(headers);
        if let Some(id) = &self.client_id {
            headers.insert(HeaderName::from_static("x-client-request-id"), id.clone());
        }
        if !headers.contains_key(header::CACHE_CONTROL) {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
    }
}

/// The problem of an error that has none, since it was not one of our handlers that answered: the
/// pages of the document do, and the framework where it reads a request before any handler.
fn bare(response: &ServiceResponse<BoxBody>) -> Option<Problem> {
    let status = response.status();
    let is_error = status.is_client_error() || status.is_server_error();
    let is_foreign = response.response().error().is_some()
        || response.response().body().size() == BodySize::Sized(0);
    match status {
        _ if !(is_error && is_foreign) => None,
        StatusCode::NOT_FOUND => Some(Problem::not_found()),
        _ if status.is_client_error() => Some(Problem::new(
            ProblemType::InvalidRequest,
            "The request cannot be read.",
        )),
        _ => Some(Problem::internal()),
    }
}

/// The caller's own id of the request, if it is one that can be repeated without harm.
pub(super) fn client_request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get("x-request-id")?;
    let text = value.as_bytes();
    let is_clean = text
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte));
    ((1..=128).contains(&text.len()) && is_clean).then(|| value.clone())
}
