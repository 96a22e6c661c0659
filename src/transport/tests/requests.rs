//! What a request looks like, and which ones are not sent.

use std::{net::TcpListener, slice};

use super::{
    change, failed, get,
    peer::{Peer, answer, settings},
};
use crate::{
    domain::{secret::Secret, service::Sent},
    transport::{Endpoint, Header, Method, Transport, TransportErrorKind},
};

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
