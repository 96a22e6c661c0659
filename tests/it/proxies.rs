//! Proxies in front of the gateway: who is believed when they say where a request comes from.

use migration_gateway::sandbox::OmsSpec;

use crate::support::{
    audit_log::{audited, lines},
    gateway::{Gateway, KEY, Place},
    raw::exchange,
};

const CANCEL: &str = "POST /operations/op_01JGZ4K8W3M5N7P9R1T3V5X7Z9/cancel";

/// A place whose gateways trust these proxies; its audit log says where requests came from.
fn place(trusted: &str) -> Place {
    audited(Place::new()).set("server.trusted_proxies", trusted)
}

/// Sends a request with these headers.
fn send(gateway: &Gateway, request: &str, headers: &[u8]) -> (u16, String) {
    let mut bytes = format!(
        "{request} HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\nContent-Length: 0\r\n"
    )
    .into_bytes();
    bytes.extend(headers);
    bytes.extend(b"\r\n");
    let answer = exchange(gateway.authority(), &bytes);
    (answer.status, answer.head)
}

/// Where the audit log says that a request with these headers came from.
fn peer(place: &Place, gateway: &Gateway, headers: &[u8]) -> String {
    let known = format!("Authorization: Bearer {KEY}\r\n");
    let headers = [known.as_bytes(), headers].concat();
    let (status, head) = send(gateway, CANCEL, &headers);
    assert_eq!(status, 404, "{head}");
    last_peer(place)
}

fn last_peer(place: &Place) -> String {
    let line = lines(place, "decision").pop().expect("a decision");
    line["peer"].as_str().expect("a peer").to_owned()
}

fn assert_direct(peer: &str, why: &[u8]) {
    let port = peer.strip_prefix("127.0.0.1:");
    let is_port = port.is_some_and(|port| port.parse::<u16>().is_ok());
    assert!(is_port, "{peer} for {:?}", String::from_utf8_lossy(why));
}

const SPOOFED: [&[u8]; 4] = [
    b"X-Forwarded-For: 192.0.2.7\r\n",
    b"Forwarded: for=192.0.2.7\r\n",
    b"X-Forwarded-For: 192.0.2.7, 10.0.0.2\r\nForwarded: for=192.0.2.7, for=10.0.0.2\r\n",
    b"X-Real-IP: 192.0.2.7\r\nX-Client-IP: 192.0.2.7\r\nTrue-Client-IP: 192.0.2.7\r\nVia: 1.1 192.0.2.7\r\n",
];

#[test]
fn whoever_is_not_trusted_is_where_a_request_comes_from_whatever_it_says() {
    let nobody = audited(Place::new());
    for place in [
        nobody,
        place("[]"),
        place("[\"10.0.0.0/8\", \"127.0.0.2\"]"),
    ] {
        let gateway = place.start();
        for headers in SPOOFED {
            assert_direct(&peer(&place, &gateway, headers), headers);
            assert_eq!(send(&gateway, CANCEL, headers).0, 401);
            assert_direct(&last_peer_of_a_stranger(&place), headers);
        }
    }
}

/// The line of a stranger is not waited for by its answer.
fn last_peer_of_a_stranger(place: &Place) -> String {
    crate::support::wait_for("the line of a stranger", || {
        let line = lines(place, "decision").pop()?;
        line["caller"].is_null().then(|| last_peer(place))
    })
}

#[test]
fn a_trusted_proxy_is_believed_and_so_are_those_before_it() {
    let place = place("[\"127.0.0.0/8\", \"10.0.0.0/8\", \"2001:db8:1::/48\"]");
    let gateway = place.start();
    for (headers, told) in [
        (&b"X-Forwarded-For: 192.0.2.7\r\n"[..], "192.0.2.7"),
        (b"X-Forwarded-For: 6.6.6.6, 192.0.2.7:4711\r\n", "192.0.2.7:4711"),
        (
            b"X-Forwarded-For: \xff<script>, 6.6.6.6\r\nX-Forwarded-For: 192.0.2.7, 10.1.2.3\r\nX-Forwarded-For: 2001:db8:1::9\r\n",
            "192.0.2.7",
        ),
        (b"X-Forwarded-For: [2001:db8::7]:443, [2001:db8:1::9]:80\r\n", "[2001:db8::7]:443"),
        (b"Forwarded: for=6.6.6.6, for=\"[2001:db8::7]:443\";proto=https\r\n", "[2001:db8::7]:443"),
        (b"X-Forwarded-For: 192.0.2.7\r\nForwarded: for=192.0.2.7\r\n", "192.0.2.7"),
    ] {
        let shown = String::from_utf8_lossy(headers).into_owned();
        assert_eq!(peer(&place, &gateway, headers), told, "{shown}");
        assert_eq!(send(&gateway, CANCEL, headers).0, 401);
        assert_eq!(last_peer_of_a_stranger(&place), told, "{shown}");
    }
    for headers in [
        &b"X-Forwarded-For: unknown\r\n"[..],
        b"X-Forwarded-For: 192.0.2.7, \xff\r\n",
        b"X-Forwarded-For: \r\n",
        b"X-Forwarded-For: 192.0.2.7;6.6.6.6\r\n",
        b"X-Forwarded-For: 192.0.2.7\r\nForwarded: for=6.6.6.6\r\n",
        b"Forwarded: for=\"192.0.2.7\r\n",
        b"Forwarded: for=_hidden\r\n",
        b"X-Real-IP: 192.0.2.7\r\n",
    ] {
        assert_direct(&peer(&place, &gateway, headers), headers);
    }
}

#[test]
fn no_proxy_says_what_links_are_like() {
    let id_of = |place: &Place| place.cloud.add_oms(OmsSpec::new("logs", 7));
    let headers = format!(
        "Authorization: Bearer {KEY}\r\nPrefer: respond-async\r\nX-Forwarded-Host: evil.example\r\n\
         X-Forwarded-Proto: gopher\r\nX-Forwarded-Prefix: /evil\r\nForwarded: host=evil.example;proto=gopher\r\n"
    );
    for (public_url, base) in [
        ("\"\"", ""),
        ("\"https://gateway.example\"", "https://gateway.example"),
    ] {
        let place = place("[\"127.0.0.1\"]").set("server.public_url", public_url);
        let gateway = place.start();
        let request = format!("DELETE /tasks/{}?force=pause", id_of(&place));
        let (status, head) = send(&gateway, &request, headers.as_bytes());
        assert_eq!(status, 202, "{head}");
        let head = head.to_ascii_lowercase();
        assert!(
            head.contains(&format!("\r\nlocation: {base}/operations/op_")),
            "{head}"
        );
        assert!(!head.contains("evil") && !head.contains("gopher"), "{head}");
    }
}
