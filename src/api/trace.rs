//! The outermost layer: every request gets an id, a span, a log line and a number; every answer its common headers, and
//! every problem its document.

use std::{panic::AssertUnwindSafe, time::Instant};

use actix_web::{
    Error, HttpMessage as _, HttpResponse,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    error::InternalError,
    http::{
        Method,
        header::{self, HeaderMap, HeaderName, HeaderValue},
    },
    middleware::Next,
    web,
};
use futures_util::FutureExt as _;
use tracing::{Span, field};
use tracing_actix_web::RootSpanBuilder;
use ulid::Ulid;

use super::{State, problem::Problem, problem::kinds::ProblemType};
use crate::domain::{
    clock::{Clock as _, SystemClock},
    service::Sent,
};

/// The id of a request, made here.
#[derive(Clone, Debug)]
struct RequestId(String);

impl RequestId {
    fn make() -> Self {
        let milliseconds = u64::try_from(SystemClock.now().as_millisecond()).unwrap_or(0);
        Self(Ulid::from_parts(milliseconds, fastrand::u128(..)).to_string())
    }
}

/// Opens the span of a request. It holds the route's template and never the query, which is nobody's business in a log.
pub(super) struct RequestSpan;

impl RootSpanBuilder for RequestSpan {
    fn on_request_start(request: &ServiceRequest) -> Span {
        let id = request
            .extensions()
            .get::<RequestId>()
            .map(|id| id.0.clone());
        tracing::info_span!(
            "request",
            request_id = id,
            http.method = %request.method(),
            http.route = field::Empty,
        )
    }

    fn on_request_end<B: MessageBody>(span: Span, outcome: &Result<ServiceResponse<B>, Error>) {
        if let Ok(response) = outcome {
            span.record("http.route", route(response).as_str());
        }
    }
}

/// Gives a request its id and an answer what all answers have.
pub(super) async fn finish(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let began = Instant::now();
    let id = RequestId::make();
    let client_id = client_request_id(request.headers());
    let method = request.method().clone();
    let state = request.app_data::<web::Data<State>>().cloned();
    if method == Method::HEAD {
        // Routes know GET only. The encoder leaves out the body of whatever answers a HEAD.
        request.head_mut().method = Method::GET;
    }
    request.extensions_mut().insert(id.clone());
    let common = Common { id, client_id };
    let is_draining = state
        .as_ref()
        .is_some_and(|state| state.operations.is_draining());
    let outcome = if is_draining && !is_probe(request.path()) {
        Ok(Ok(request.error_response(stopping()).map_into_boxed_body()))
    } else {
        let called = AssertUnwindSafe(next.call(request)).catch_unwind().await;
        called.map(|outcome| outcome.map(ServiceResponse::map_into_boxed_body))
    };
    match outcome {
        Ok(Ok(response)) => {
            let response = common.add_to(response);
            let route = route(&response);
            log(
                &method,
                &route,
                response.status().as_u16(),
                began,
                &common.id,
            );
            if let Some(state) = state {
                let status = response.status().as_u16();
                state
                    .metrics
                    .count(method.as_str(), &route, status, began.elapsed());
            }
            Ok(response)
        }
        // The request is gone, so the answer is built here and handed on as it is.
        failed => {
            if failed.is_err() {
                tracing::error!(request_id = common.id.0, "a handler panicked");
            }
            let problem = match &failed {
                Ok(Err(error)) => error.as_error::<Problem>().cloned(),
                Ok(Ok(_)) | Err(_) => None,
            };
            let mut response = problem
                .unwrap_or_else(Problem::internal)
                .render(&common.id.0);
            let status = response.status().as_u16();
            common.headers(response.headers_mut());
            log(&method, "none", status, began, &common.id);
            if let Some(state) = state {
                state
                    .metrics
                    .count(method.as_str(), "none", status, began.elapsed());
            }
            Err(InternalError::from_response("the request was given up", response).into())
        }
    }
}

/// Whoever watches the gateway hears of its stop by these.
fn is_probe(path: &str) -> bool {
    ["/livez", "/readyz", "/metrics"].contains(&path)
}

fn stopping() -> Problem {
    let detail =
        "The gateway is stopping. Operations that were accepted go on after its next start.";
    Problem::new(ProblemType::Overloaded, detail)
        .sent(Sent::No)
        .retry_after(5)
}

/// What all answers to one request have in common.
struct Common {
    id: RequestId,
    client_id: Option<HeaderValue>,
}

impl Common {
    fn add_to(&self, mut response: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
        let problem = response.response().extensions().get::<Problem>().cloned();
        if let Some(problem) = problem {
            let rendered: HttpResponse = problem.render(&self.id.0);
            response = response.into_response(rendered);
        }
        self.headers(response.headers_mut());
        response
    }

    fn headers(&self, headers: &mut HeaderMap) {
        if let Ok(id) = HeaderValue::from_str(&self.id.0) {
            headers.insert(HeaderName::from_static("x-request-id"), id);
        }
        if let Some(id) = &self.client_id {
            headers.insert(HeaderName::from_static("x-client-request-id"), id.clone());
        }
        if !headers.contains_key(header::CACHE_CONTROL) {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
    }
}

/// The caller's own id of the request, if it is one that can be repeated without harm.
fn client_request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get("x-request-id")?;
    let text = value.as_bytes();
    let is_clean = text
        .iter()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte));
    ((1..=128).contains(&text.len()) && is_clean).then(|| value.clone())
}

/// The template of the route that answered; one word for everything that no route answered.
fn route<B>(response: &ServiceResponse<B>) -> String {
    response
        .request()
        .match_pattern()
        .unwrap_or_else(|| "none".to_owned())
}

fn log(method: &Method, route: &str, status: u16, began: Instant, id: &RequestId) {
    let duration_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::info!(
        http.method = %method,
        http.route = route,
        http.status_code = status,
        duration_ms,
        request_id = id.0,
        "request answered"
    );
}
