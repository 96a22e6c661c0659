//! Answers, whole and broken.

use std::{io::Write, time::Duration};

use super::{
    change, failed, get,
    peer::{Peer, Then, answer, settings, write},
};
use crate::{
    domain::service::Sent,
    transport::{Method, Response, Transport, TransportError, TransportErrorKind},
};

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
