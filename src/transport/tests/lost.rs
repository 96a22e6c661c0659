//! Kept connections that are lost: while nobody uses them, or just as the next request arrives.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::Duration,
};

use super::{
    change, failed, get,
    peer::{Peer, Then, answer, settings},
};
use crate::{
    domain::service::Sent,
    transport::{Endpoint, Method, Transport, TransportErrorKind},
};

/// Reads the head of a request. The requests here have no body.
fn head(stream: &mut TcpStream) -> Vec<u8> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    head
}

/// A peer that answers the first request of every connection, and resets the connection as soon as
/// a second one comes. Tells of each reset.
fn resetting() -> (Endpoint, mpsc::Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (reset, resets) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, reset) = (stream.unwrap(), reset.clone());
            thread::spawn(move || {
                head(&mut stream);
                let text = "HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\n{}";
                stream.write_all(text.as_bytes()).unwrap();
                if matches!(stream.peek(&mut [0]), Ok(1)) {
                    // To close with bytes that nobody has read is to reset.
                    drop(stream);
                    reset.send(()).unwrap();
                }
            });
        }
    });
    let endpoint = Endpoint::parse(&format!("http://{address}")).unwrap();
    (endpoint, resets)
}

#[actix_rt::test]
async fn a_read_survives_the_reset_of_a_kept_connection() {
    let (endpoint, resets) = resetting();
    let transport = Transport::new(&settings()).unwrap();
    for turn in 0..4 {
        let response = transport.send(&endpoint, &[], &get("/")).await.unwrap();
        assert_eq!(&response.body[..], b"{}");
        if turn % 2 == 1 {
            resets.recv_timeout(Duration::from_secs(5)).unwrap();
        }
    }
}

#[actix_rt::test]
async fn a_change_does_not_meet_a_kept_connection() {
    let (endpoint, resets) = resetting();
    let transport = Transport::new(&settings()).unwrap();
    transport.send(&endpoint, &[], &get("/")).await.unwrap();
    for method in [Method::Post, Method::Delete, Method::Post] {
        // Without a body, as the peer reads none.
        let request = crate::transport::Request { method, ..get("/") };
        transport.send(&endpoint, &[], &request).await.unwrap();
    }
    assert!(resets.try_recv().is_err());
}

#[actix_rt::test]
async fn a_connection_that_was_closed_while_nobody_used_it_costs_nothing() {
    let peer = Peer::start(|seen, writer| {
        answer(writer, 200, "", seen.path());
        Then::Close
    });
    let transport = Transport::new(&settings()).unwrap();
    for turn in 0..10 {
        let path = format!("/{turn}");
        let response = transport
            .send(&peer.endpoint(), &[], &get(&path))
            .await
            .unwrap();
        assert_eq!(&response.body[..], path.as_bytes());
    }
    // A request that met the close half way was not read.
    assert_eq!(peer.seen().len(), 10);
    assert_eq!(peer.connections(), 10);
}

#[actix_rt::test]
async fn a_change_is_not_repeated_whatever_becomes_of_its_connection() {
    let peer = Peer::start(|seen, writer| match seen.path() {
        "/" => answer(writer, 200, "", "{}"),
        _ => Then::Close,
    });
    let transport = Transport::new(&settings()).unwrap();
    for _ in 0..3 {
        let endpoint = peer.endpoint();
        transport.send(&endpoint, &[], &get("/")).await.unwrap();
        let lost = transport.send(&endpoint, &[], &change(Method::Post)).await;
        assert_eq!(
            failed(lost),
            (TransportErrorKind::Interrupted, Sent::Unknown)
        );
    }
    let changes = peer
        .seen()
        .iter()
        .filter(|seen| seen.path() == "/change")
        .count();
    assert_eq!(changes, 3);
}
