//! The outermost layer: every request gets an id, a span, a log line and a number; every answer its
//! common headers, and every problem its document.

mod common;
mod entry;
mod pieces;

use std::{future::poll_fn, panic::AssertUnwindSafe, task::Poll, thread};

use actix_web::{
    Error, HttpMessage as _, HttpRequest,
    body::{self, BodySize, BoxBody, MessageBody},
    dev::{RequestHead, ResponseHead, ServiceRequest, ServiceResponse},
    error::InternalError,
    http::{
        ConnectionType, Method,
        header::{self, HeaderValue},
    },
    middleware::Next,
    web,
};
use futures_util::FutureExt as _;
use tokio::sync::OwnedSemaphorePermit;
use tracing::{Span, field};
use tracing_actix_web::RootSpanBuilder;
use ulid::Ulid;

use self::{
    common::{Common, client_request_id},
    entry::{Entry, route},
    pieces::in_pieces,
};
use super::{
    State, problem::Problem, problem::kinds::ProblemType, request::auth::is_open, request::form,
    request::rate::Noted,
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

/// Opens the span of a request. It holds the route's template and never the query, which is
/// nobody's business in a log.
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
    let left = Noted::default();
    request.extensions_mut().insert(left.clone());
    let is_page = request.path().starts_with("/docs/");
    let common = Common {
        id,
        client_id,
        left,
        is_page,
    };
    let keeps_alive = request.head().connection_type() == ConnectionType::KeepAlive;
    let exchange = request.conn_data::<Exchange>().cloned();
    let answering = exchange
        .as_ref()
        .map(|exchange| exchange.begin(body_length(request.head())));
    let outcome = match admitted {
        Ok(_place) => answer(request, next, exchange.as_ref()).await,
        Err(problem) => Ok(Ok(request.error_response(problem).map_into_boxed_body())),
    };
    match outcome {
        Ok(Ok(response)) => {
            let mut response = common.add_to(response);
            say_if_last(
                response.response_mut().head_mut(),
                keeps_alive,
                exchange.as_ref(),
            );
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
            say_if_last(response.head_mut(), keeps_alive, exchange.as_ref());
            entry.end(response.status().as_u16());
            Err(InternalError::from_response("the request was given up", response).into())
        }
    }
}

/// Says in an answer that it ends the connection, if it does. The framework says nothing when it
/// ends one that was to become another, and does not end one on which a body in chunks is still
/// coming.
fn say_if_last(head: &mut ResponseHead, keeps_alive: bool, exchange: Option<&Exchange>) {
    let is_last = !keeps_alive || exchange.is_some_and(Exchange::must_end);
    if !is_last {
        return;
    }
    head.set_connection_type(ConnectionType::Close);
    if let Some(exchange) = exchange {
        exchange.end_after_answer();
    }
}

/// What the layers inside answer, or how they panicked. A request that does not read its body, and
/// may wait for something else, is given up when that breaks a rule of chunks. Nothing is lost by
/// it: whatever changes something has read its body first.
async fn answer(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
    exchange: Option<&Exchange>,
) -> thread::Result<Result<ServiceResponse<BoxBody>, Error>> {
    // Nobody has to be woken: what reads the connection is polled together with this, and before
    // it.
    let broken = poll_fn(|_| match exchange {
        Some(exchange) if exchange.is_broken() => Poll::Ready(()),
        Some(_) | None => Poll::Pending,
    });
    tokio::select! {
        biased;
        called = AssertUnwindSafe(next.call(request)).catch_unwind() => {
            called.map(|outcome| outcome.map(ServiceResponse::map_into_boxed_body))
        }
        () = broken => Ok(Err(Problem::fault("body", "", "The body cannot be read.").into())),
    }
}

/// What follows a head, as the framework reads it, which refuses heads that have two of these or
/// none that it understands.
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

/// A place for a request, if it needs one. Whether the gateway stops is asked once it has its
/// place, so that whoever waits for the last place to be free misses no request.
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

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{SocketAddr, TcpStream},
        time::Duration,
    };

    use actix_web::{App, HttpResponse, HttpServer, middleware::from_fn};
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
