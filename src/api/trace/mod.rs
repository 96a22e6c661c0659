//! The outermost layer: every request gets an id, a span, a log line and a number; every answer its common headers, and
//! every problem its document.

mod pieces;

use std::{panic::AssertUnwindSafe, time::Instant};

use actix_web::{
    Error, HttpMessage as _, HttpRequest, HttpResponse,
    body::{self, BodySize, BoxBody, MessageBody},
    dev::{RequestHead, ServiceRequest, ServiceResponse},
    error::InternalError,
    http::{
        ConnectionType, Method, StatusCode,
        header::{self, HeaderMap, HeaderName, HeaderValue},
    },
    middleware::Next,
    web,
};
use futures_util::FutureExt as _;
use tokio::sync::OwnedSemaphorePermit;
use tracing::{Span, field};
use tracing_actix_web::RootSpanBuilder;
use ulid::Ulid;

use self::pieces::in_pieces;
use super::{
    State, problem::Problem, problem::kinds::ProblemType, request::auth::is_open, request::form,
    request::rate::Left,
};
use crate::{
    domain::{
        clock::{Clock as _, SystemClock},
        service::Sent,
    },
    listener::{BodyLength, Exchange},
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

/// The id of a request.
pub(super) fn request_id(request: &HttpRequest) -> String {
    let extensions = request.extensions();
    let id = extensions.get::<RequestId>();
    id.map(|id| id.0.clone()).unwrap_or_default()
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
    let id = RequestId::make();
    let client_id = client_request_id(request.headers());
    let state = request.app_data::<web::Data<State>>().cloned();
    let admitted = form::check(&request).and_then(|()| admit(request.path(), state.as_ref()));
    let mut entry = Entry::begin(&request, id.clone(), state);
    let is_head = request.method() == Method::HEAD;
    if is_head {
        // Routes know GET only. The encoder leaves out the body of whatever answers a HEAD.
        request.head_mut().method = Method::GET;
    }
    request.extensions_mut().insert(id.clone());
    let is_page = request.path().starts_with("/docs/");
    let common = Common {
        id,
        client_id,
        is_page,
    };
    let is_upgrade = request.head().connection_type() == ConnectionType::Upgrade;
    let exchange = request.conn_data::<Exchange>().cloned();
    let answering = exchange
        .as_ref()
        .map(|exchange| exchange.begin(body_length(request.head())));
    let outcome = match admitted {
        Ok(_place) => {
            let called = AssertUnwindSafe(next.call(request)).catch_unwind().await;
            called.map(|outcome| outcome.map(ServiceResponse::map_into_boxed_body))
        }
        Err(problem) => Ok(Ok(request.error_response(problem).map_into_boxed_body())),
    };
    match outcome {
        Ok(Ok(response)) => {
            let mut response = common.add_to(response);
            // The framework ends a connection that was to be another, and would not say so. And if a target had a fragment,
            // whoever wrote it and whoever read it do not agree where requests begin and end.
            if is_upgrade || exchange.is_some_and(|exchange| exchange.has_fragment()) {
                let head = response.response_mut().head_mut();
                head.set_connection_type(ConnectionType::Close);
            }
            if is_head && response.response().body().size() == BodySize::Stream {
                // A stream would hold the connection, and say nothing on it.
                response = response.map_body(|_, _| BoxBody::new(body::None::new()));
            }
            response = response.map_body(|_, body| in_pieces(body, answering));
            entry.end(response.status().as_u16());
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
            let problem = problem.unwrap_or_else(Problem::internal);
            let mut response = problem.render(&common.id.0);
            common.headers(response.headers_mut());
            entry.end(response.status().as_u16());
            Err(InternalError::from_response("the request was given up", response).into())
        }
    }
}

/// What follows a head, as the framework reads it, which refuses heads that have two of these or none that it understands.
fn body_length(head: &RequestHead) -> BodyLength {
    let headers = &head.headers;
    let is_websocket = |value: &HeaderValue| {
        let protocol = value.as_bytes().trim_ascii();
        protocol.eq_ignore_ascii_case(b"websocket")
    };
    let is_upgrade =
        head.method == Method::CONNECT || headers.get_all(header::UPGRADE).any(is_websocket);
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.map(|length| length.to_str().ok()?.trim().parse().ok());
    match length {
        _ if headers.contains_key(header::TRANSFER_ENCODING) => BodyLength::Chunked,
        _ if is_upgrade => BodyLength::Unknown,
        None => BodyLength::Known(0),
        Some(length) => length.map_or(BodyLength::Unknown, BodyLength::Known),
    }
}

/// The label of whatever no route answered.
const NO_ROUTE: &str = "none";
/// What a request is counted and logged under whose caller reset the connection before the answer. It is no status of HTTP,
/// and never sent. A caller who merely closes it cannot be told from one who has no more to say and waits.
const BROKEN_OFF: u16 = 499;

/// The line in the log and the number in the metrics that every request gets, also one that is broken off.
struct Entry {
    began: Instant,
    method: Method,
    route: Option<String>,
    id: RequestId,
    state: Option<web::Data<State>>,
    has_ended: bool,
}

impl Entry {
    fn begin(request: &ServiceRequest, id: RequestId, state: Option<web::Data<State>>) -> Self {
        Self {
            began: Instant::now(),
            method: request.method().clone(),
            route: request.match_pattern(),
            id,
            state,
            has_ended: false,
        }
    }

    fn end(&mut self, status: u16) {
        self.has_ended = true;
        let took = self.began.elapsed();
        let route = self.route.as_deref().unwrap_or(NO_ROUTE);
        let message = if status == BROKEN_OFF {
            "request broken off by its caller"
        } else {
            "request answered"
        };
        tracing::info!(
            http.method = %self.method,
            http.route = route,
            http.status_code = status,
            duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            request_id = self.id.0,
            "{message}"
        );
        if let Some(state) = &self.state {
            state
                .insight
                .metrics
                .count(self.method.as_str(), route, status, took);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if !self.has_ended {
            self.end(BROKEN_OFF);
        }
    }
}

/// A place for a request, if it needs one. Whether the gateway stops is asked once it has its place, so that whoever waits
/// for the last place to be free misses no request.
fn admit(
    path: &str,
    state: Option<&web::Data<State>>,
) -> Result<Option<OwnedSemaphorePermit>, Problem> {
    let Some(state) = state.filter(|_| !is_open(path)) else {
        return Ok(None);
    };
    let place = state.places.take();
    let (detail, seconds) = if state.operations.is_draining() {
        let detail =
            "The gateway is stopping. Operations that were accepted go on after its next start.";
        (detail, 5)
    } else if place.is_none() {
        (
            "The gateway answers as many requests as it may at the same time.",
            1,
        )
    } else {
        return Ok(place);
    };
    Err(Problem::new(ProblemType::Overloaded, detail)
        .sent(Sent::No)
        .retry_after(seconds))
}

/// What browsers are told with every answer: take it for what it says it is, and tell nobody where it came from.
const SECURITY: [(HeaderName, &str); 2] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
];
/// Nothing of an answer is to be run or framed.
const POLICY: &str = "default-src 'none'; frame-ancestors 'none'";
/// The page for browsers runs its own scripts and styles, and asks this gateway.
const PAGE_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'";

/// What all answers to one request have in common.
struct Common {
    id: RequestId,
    client_id: Option<HeaderValue>,
    /// Whether it is about the page for browsers.
    is_page: bool,
}

impl Common {
    fn add_to(&self, mut response: ServiceResponse<BoxBody>) -> ServiceResponse<BoxBody> {
        let problem = response.response().extensions().get::<Problem>().cloned();
        let problem = problem.or_else(|| bare(&response));
        if let Some(problem) = problem {
            let rendered: HttpResponse = problem.render(&self.id.0);
            response = response.into_response(rendered);
        }
        let left = response.request().extensions().get::<Left>().copied();
        if let Some(left) = left {
            left.show(response.headers_mut());
        }
        self.headers(response.headers_mut());
        response
    }

    fn headers(&self, headers: &mut HeaderMap) {
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
        if let Some(id) = &self.client_id {
            headers.insert(HeaderName::from_static("x-client-request-id"), id.clone());
        }
        if !headers.contains_key(header::CACHE_CONTROL) {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
    }
}

/// The problem of an error that has none, since it was not one of our handlers that answered: the pages of the document
/// do, and the framework where it reads a request before any handler.
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
        .unwrap_or_else(|| NO_ROUTE.to_owned())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{SocketAddr, TcpStream},
        time::Duration,
    };

    use actix_web::{App, HttpServer, middleware::from_fn};
    use serde_json::Value;

    use super::*;

    async fn fall() -> HttpResponse {
        panic!("canary");
    }

    async fn stand() -> HttpResponse {
        HttpResponse::Ok().body("standing")
    }

    async fn fail() -> Result<HttpResponse, Error> {
        Err(actix_web::error::ErrorServiceUnavailable("canary"))
    }

    /// The head and the body of an answer to a request that asks for no further one.
    fn ask(address: SocketAddr, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.to_ascii_lowercase(), body.to_owned())
    }

    #[actix_web::test]
    async fn a_panic_of_a_handler_is_answered_and_takes_nothing_else_along() {
        let server = HttpServer::new(|| {
            App::new()
                .route("/fall", web::get().to(fall))
                .route("/stand", web::get().to(stand))
                .route("/fail", web::get().to(fail))
                .wrap(from_fn(finish))
        })
        .workers(1)
        .disable_signals()
        .bind("127.0.0.1:0")
        .unwrap();
        let address = server.addrs()[0];
        let server = server.run();
        let handle = server.handle();
        actix_web::rt::spawn(server);
        let asked = actix_web::rt::task::spawn_blocking(move || {
            ["/fall", "/fail", "/fall", "/stand"].map(|path| ask(address, path))
        });
        let [fallen, failed, again, standing] = asked.await.unwrap();
        for (head, body) in [&fallen, &failed, &again] {
            assert!(head.starts_with("http/1.1 500 "), "{head}");
            assert!(head.contains("content-type: application/problem+json"));
            assert!(head.contains("cache-control: no-store"));
            assert!(!body.contains("canary"), "{body}");
            let problem: Value = serde_json::from_str(body).unwrap();
            assert_eq!(problem["type"], "/problems/internal");
            let id = problem["request_id"].as_str().unwrap().to_lowercase();
            assert!(head.contains(&format!("x-request-id: {id}")), "{head}");
        }
        assert!(standing.0.starts_with("http/1.1 200 "), "{standing:?}");
        assert_eq!(standing.1, "standing");
        handle.stop(true).await;
    }
}
