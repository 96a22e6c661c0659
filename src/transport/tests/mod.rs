//! Exchanges with peers that misbehave, over real sockets.

mod answers;
mod certificates;
mod kept;
mod lost;
mod mix;
mod oddities;
pub(crate) mod peer;
mod requests;
mod tls;

use std::{thread, time::Duration};

use peer::{Peer, Then, answer, settings, write};
use serde_json::json;
use tokio::time::Instant;

use super::{
    Limits, Method, Request, Response, Settings, Transport, TransportError, TransportErrorKind,
};
use crate::domain::service::Sent;

pub(super) fn get(path: &str) -> Request {
    Request {
        method: Method::Get,
        path: path.to_owned(),
        body: None,
    }
}

fn change(method: Method) -> Request {
    Request {
        method,
        path: "/change".to_owned(),
        body: Some(json!({"a": 1})),
    }
}

fn failed(result: Result<Response, TransportError>) -> (TransportErrorKind, Sent) {
    let error = result.unwrap_err();
    (error.kind, error.sent)
}

#[actix_rt::test]
async fn one_time_limit_covers_head_and_body() {
    for text in [
        "",
        "HTTP/1.1 200 X\r\n",
        "HTTP/1.1 200 X\r\ncontent-length: 9\r\n\r\n{",
    ] {
        let peer = Peer::start(move |_, writer| write(writer, text));
        let limits = Settings {
            request_timeout: Duration::from_millis(200),
            ..settings()
        };
        let transport = Transport::new(&limits).unwrap();
        let read = transport.send(&peer.endpoint(), &[], &get("/")).await;
        assert_eq!(failed(read), (TransportErrorKind::Timeout, Sent::No));
        let changed = transport
            .send(&peer.endpoint(), &[], &change(Method::Delete))
            .await;
        assert_eq!(
            failed(changed),
            (TransportErrorKind::Timeout, Sent::Unknown)
        );
    }
}

#[actix_rt::test]
async fn a_login_yields_the_token_and_needs_none() {
    let peer = Peer::start(|seen, writer| match seen.number {
        0 => answer(writer, 201, "x-subject-token: MIIabc\r\n", "{}"),
        1 => answer(
            writer,
            201,
            "X-Subject-Token: a\r\nX-Subject-Token: b\r\n",
            "{}",
        ),
        _ => answer(writer, 401, "", "{}"),
    });
    let transport = Transport::new(&settings()).unwrap();
    let mut tokens = Vec::new();
    for _ in 0..3 {
        let login = transport
            .login(&peer.endpoint(), &change(Method::Post))
            .await
            .unwrap();
        tokens.push(login.token.map(|token| token.expose().to_owned()));
    }
    assert_eq!(tokens, [Some("MIIabc".to_owned()), None, None]);
    assert_eq!(peer.seen()[0].header("x-auth-token"), None);
}

#[test]
fn neither_a_token_nor_a_body_shows_in_debug_output() {
    let request = Request {
        body: Some(json!({"password": "hidden"})),
        ..get("/")
    };
    assert!(!format!("{request:?}").contains("hidden"));
    let response = Response {
        status: 200,
        body: "hidden".into(),
        request_id: None,
        retry_after: None,
        is_doubtful: false,
    };
    assert!(!format!("{response:?}").contains("hidden"));
    let error = TransportError::new(TransportErrorKind::Connect, Method::Get);
    assert_eq!(error.to_string(), "no connection could be made");
}

#[actix_rt::test]
async fn an_exchange_can_have_less_time_than_the_settings_allow() {
    let peer = Peer::start(|_, _| {
        thread::park();
        Then::Close
    });
    let transport = Transport::new(&settings()).unwrap();
    let began = Instant::now();
    let limits = Limits {
        time: Duration::from_millis(50),
        ..Limits::default()
    };
    let request = change(Method::Post);
    let place = transport.place_now(request.method).unwrap();
    let result = transport
        .send_once((place, limits), &peer.endpoint(), &[], &request)
        .await;
    assert_eq!(failed(result), (TransportErrorKind::Timeout, Sent::Unknown));
    assert!(began.elapsed() < settings().request_timeout);
}

#[actix_rt::test]
async fn too_many_exchanges_at_once_are_told_so() {
    // Whoever is let in never gets an answer.
    let peer = Peer::start(|_, _| {
        thread::park();
        Then::Close
    });
    let limits = Settings {
        request_timeout: Duration::from_secs(30),
        ..settings()
    };
    let transport = Transport::new(&limits).unwrap();
    let (endpoint, request) = (peer.endpoint(), change(Method::Post));
    let crowd = (0..super::client::LIMIT).map(|_| transport.send(&endpoint, &[], &request));
    let crowd = futures_util::future::join_all(crowd);
    let one_more = async {
        while peer.seen().len() < super::client::LIMIT {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // It gives up its place in the line in time.
        let began = Instant::now();
        assert!(transport.place_now(Method::Post).is_none());
        let by = began + Duration::from_millis(50);
        let late = transport.place(Method::Post, Some(by)).await.unwrap_err();
        assert_eq!((late.kind, late.sent), (TransportErrorKind::Busy, Sent::No));
        assert!(began.elapsed() < Duration::from_secs(4));
        transport.send(&endpoint, &[], &request).await
    };
    tokio::select! {
        _ = crowd => panic!("the peer does not answer"),
        result = one_more => {
            assert_eq!(failed(result), (TransportErrorKind::Busy, Sent::No));
        }
    }
    // Reads have places of their own, and those who left freed theirs.
    assert_eq!(peer.seen().len(), super::client::LIMIT);
}
