//! Exchanges with peers that misbehave, over real sockets.

mod certificates;
mod kept;
mod lost;
mod mix;
mod oddities;
pub(crate) mod peer;
mod tls;

use std::{io::Write, net::TcpListener, slice, thread, time::Duration};

use peer::{Peer, Then, answer, settings, write};
use serde_json::json;
use tokio::time::Instant;

use super::{
    Endpoint, Header, Limits, Method, Request, Response, Settings, Transport, TransportError,
    TransportErrorKind,
};
use crate::domain::{secret::Secret, service::Sent};

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

/// Has one read and one change answered by the same script.
async fn both(
    script: impl Fn(&mut dyn Write) -> Then + Send + Sync + 'static,
) -> [Result<Response, TransportError>; 2] {
    let peer = Peer::start(move |_, writer| script(writer));
    let transport = Transport::new(&settings()).unwrap();
    let read = transport.send(&peer.endpoint(), &[], &get("/read")).await;
    let changed = transport
        .send(&peer.endpoint(), &[], &change(Method::Post))
        .await;
    [read, changed]
}

async fn both_fail(
    kind: TransportErrorKind,
    script: impl Fn(&mut dyn Write) -> Then + Send + Sync + 'static,
) {
    let [read, changed] = both(script).await;
    assert_eq!(failed(read), (kind, Sent::No));
    assert_eq!(failed(changed), (kind, Sent::Unknown));
}

#[actix_rt::test]
async fn the_headers_that_leave_are_the_listed_ones() {
    let peer = Peer::start(|_, writer| answer(writer, 200, "", "{}"));
    let transport = Transport::new(&settings()).unwrap();
    let token = Header {
        name: "x-auth-token",
        value: Secret::new("x".repeat(16384)),
    };
    let endpoint = peer.endpoint();
    for method in [Method::Get, Method::Post, Method::Delete] {
        transport
            .send(&endpoint, slice::from_ref(&token), &change(method))
            .await
            .unwrap();
    }
    transport
        .send(&endpoint, &[], &get("/read?x=1"))
        .await
        .unwrap();

    let names = |head: &str| {
        let mut names: Vec<_> = head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .map(|(name, _)| name.to_ascii_lowercase())
            .collect();
        names.sort_unstable();
        names
    };
    let seen = peer.seen();
    let always = [
        "accept",
        "accept-encoding",
        "content-length",
        "content-type",
        "date",
        "host",
        "user-agent",
    ];
    assert_eq!(
        names(&seen[0].head),
        [&always[..], &["x-auth-token"]].concat(),
        "a read"
    );
    assert_eq!(
        names(&seen[1].head),
        [
            &always[..2],
            &["connection"],
            &always[2..],
            &["x-auth-token"]
        ]
        .concat(),
        "a change"
    );
    assert_eq!(names(&seen[3].head), always, "a read without a token");
    assert_eq!(seen[3].path(), "/read?x=1");
    assert_eq!(seen[1].header("content-type"), Some("application/json"));
    assert_eq!(seen[1].header("x-auth-token"), Some(token.value.expose()));
    assert_eq!(seen[1].header("connection"), Some("close"));
    assert_eq!(seen[1].header("accept-encoding"), Some("identity"));
    assert_eq!(
        format!("http://{}", seen[1].header("host").unwrap()),
        endpoint.to_string()
    );
    assert_eq!(
        seen[1].header("user-agent"),
        Some(concat!("migration-gateway/", env!("CARGO_PKG_VERSION")))
    );
    assert_eq!(seen[2].body, r#"{"a":1}"#);
}

#[actix_rt::test]
async fn an_answer_of_any_status_is_returned_whole() {
    for status in [200, 201, 302, 400, 404, 500] {
        let [read, changed] = both(move |writer| {
            answer(
                writer,
                status,
                "X-Request-Id: r-1\r\nRetry-After: 7\r\n",
                "{\"b\":2}",
            )
        })
        .await;
        for response in [read.unwrap(), changed.unwrap()] {
            assert_eq!(response.status, status);
            assert_eq!(&response.body[..], b"{\"b\":2}");
            assert_eq!(response.request_id.as_deref(), Some("r-1"));
            assert_eq!(response.retry_after, Some(Duration::from_secs(7)));
        }
    }
}

#[actix_rt::test]
async fn an_answer_without_content_needs_no_length() {
    for text in [
        "HTTP/1.1 204 X\r\n\r\n",
        "HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let [read, changed] = both(move |writer| write(writer, text)).await;
        assert!(read.unwrap().body.is_empty());
        assert!(changed.unwrap().body.is_empty());
    }
}

#[actix_rt::test]
async fn a_redirect_is_not_followed() {
    let target = Peer::start(|_, writer| answer(writer, 200, "", "{}"));
    let location = format!("location: {}/stolen\r\n", target.endpoint());
    let [read, changed] = both(move |writer| answer(writer, 307, &location, "")).await;
    assert_eq!((read.unwrap().status, changed.unwrap().status), (307, 307));
    assert_eq!(target.connections(), 0);
}

#[actix_rt::test]
async fn a_cut_body_is_not_taken_for_a_whole_one() {
    for text in [
        "HTTP/1.1 200 X\r\ncontent-length: 10\r\n\r\n{}",
        "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n",
        "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n9\r\n{}",
    ] {
        both_fail(TransportErrorKind::Malformed, move |writer| {
            write(writer, text);
            Then::Close
        })
        .await;
    }
}

#[actix_rt::test]
async fn an_answer_that_does_not_say_where_it_ends_is_malformed() {
    for text in [
        "HTTP/1.1 200 X\r\n\r\n{}",
        "HTTP/1.1 404 X\r\nconnection: close\r\n\r\n<html>",
        "HTTP/1.0 200 X\r\n\r\n{}",
        "HTTP/1.0 200 X\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "HTTP/1.1 200 X\r\ntransfer-encoding: identity\r\n\r\n{}",
        "HTTP/1.1 200 X\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        both_fail(TransportErrorKind::Malformed, move |writer| {
            write(writer, text);
            Then::Close
        })
        .await;
    }
}

#[actix_rt::test]
async fn what_is_not_http_is_malformed() {
    let many = format!("HTTP/1.1 200 X\r\n{}\r\n", "x: y\r\n".repeat(97));
    let long = format!("HTTP/1.1 200 X\r\nx: {}\r\n\r\n", "y".repeat(200_000));
    for text in [
        "SSH-2.0-OpenSSH_9.2\r\n".to_owned(),
        "HTTP/1.1 200 X\r\ncontent-length: -1\r\n\r\n".to_owned(),
        "HTTP/1.1 200 X\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}".to_owned(),
        "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n".to_owned(),
        many,
        long,
    ] {
        both_fail(TransportErrorKind::Malformed, move |writer| {
            write(writer, &text)
        })
        .await;
    }
}

#[actix_rt::test]
async fn a_peer_that_reads_and_closes_leaves_open_what_it_did() {
    both_fail(TransportErrorKind::Interrupted, |_| Then::Close).await;
    both_fail(TransportErrorKind::Interrupted, |writer| {
        write(writer, "HTTP/1.1 200 X\r\ncont");
        Then::Close
    })
    .await;
}

#[actix_rt::test]
async fn an_interim_answer_is_a_fault() {
    for status in ["100 Continue", "103 Early Hints", "101 Switching Protocols"] {
        let text =
            format!("HTTP/1.1 {status}\r\n\r\nHTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\n{{}}");
        both_fail(TransportErrorKind::Informational, move |writer| {
            write(writer, &text)
        })
        .await;
    }
}

#[actix_rt::test]
async fn a_body_of_more_than_8_mib_is_too_large() {
    both_fail(TransportErrorKind::TooLarge, |writer| {
        write(
            writer,
            &format!(
                "HTTP/1.1 200 X\r\ncontent-length: {}\r\n\r\n",
                (8 << 20) + 1
            ),
        )
    })
    .await;
    both_fail(TransportErrorKind::TooLarge, |writer| {
        write(
            writer,
            "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n",
        );
        let chunk = format!("100000\r\n{}\r\n", "x".repeat(1 << 20));
        for _ in 0..9 {
            write(writer, &chunk);
        }
        Then::KeepOpen
    })
    .await;
    let [read, _] = both(|writer| answer(writer, 200, "", &"x".repeat(8 << 20))).await;
    assert_eq!(read.unwrap().body.len(), 8 << 20);
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
async fn what_could_not_be_connected_was_not_sent() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let transport = Transport::new(&settings()).unwrap();
    let refused = Endpoint::parse(&format!("http://{free}")).unwrap();
    for method in [Method::Get, Method::Post, Method::Delete] {
        let result = transport.send(&refused, &[], &change(method)).await;
        assert_eq!(failed(result), (TransportErrorKind::Connect, Sent::No));
    }
    let nameless = Endpoint::parse("https://name.invalid").unwrap();
    let result = transport.send(&nameless, &[], &change(Method::Post)).await;
    let (kind, sent) = failed(result);
    // A machine without roots does not get as far as the name.
    assert!(
        [TransportErrorKind::Resolve, TransportErrorKind::Tls].contains(&kind),
        "{kind:?}"
    );
    assert_eq!(sent, Sent::No);
}

#[actix_rt::test]
async fn what_cannot_be_written_is_not_sent() {
    let peer = Peer::start(|_, writer| answer(writer, 200, "", "{}"));
    let transport = Transport::new(&settings()).unwrap();
    let unsendable = (TransportErrorKind::Unsendable, Sent::No);
    for path in ["", "read", "@example.com/", "/a b", "/a\r\nx: y"] {
        let result = transport.send(&peer.endpoint(), &[], &get(path)).await;
        assert_eq!(failed(result), unsendable, "{path:?}");
    }
    for (name, value) in [("x-auth-token", "token\r\nx-evil: 1"), ("x evil", "1")] {
        let header = Header {
            name,
            value: Secret::new(value),
        };
        let result = transport.send(&peer.endpoint(), &[header], &get("/")).await;
        assert_eq!(failed(result), unsendable);
    }
    assert_eq!(peer.connections(), 0);
}

#[actix_rt::test]
async fn a_header_of_a_request_replaces_none_of_those_that_all_have() {
    let peer = Peer::start(|_, writer| answer(writer, 200, "", "{}"));
    let transport = Transport::new(&settings()).unwrap();
    let headers = ["host", "content-type"].map(|name| Header {
        name,
        value: Secret::new("evil.example.com"),
    });
    let result = transport
        .send(&peer.endpoint(), &headers, &change(Method::Put))
        .await;
    assert_eq!(result.unwrap().status, 200);
    let head = &peer.seen()[0].head;
    assert!(head.starts_with("PUT "), "{head}");
    assert!(!head.contains("evil"), "{head}");
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
