//! Answers that no peer should give. Each is met by a read on a kept connection and by a change,
//! with an ordinary read right behind.

use std::{
    fmt::Write as _,
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    failed, get,
    peer::{Peer, Then, answer, settings, write},
};
use crate::{
    domain::service::Sent,
    transport::{
        Method, Request, Response, Settings, Transport, TransportError, TransportErrorKind as Kind,
    },
};

type Outcome = Result<Response, TransportError>;

/// What came of a read and of a change whose answer the script writes. Whoever comes right behind
/// gets what is theirs.
async fn meet(
    limits: Settings,
    script: impl Fn(&mut dyn Write) -> Then + Send + Sync + 'static,
) -> [Outcome; 2] {
    let fired = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&fired);
    let peer = Peer::start(move |seen, writer| {
        if seen.path() != "/fault" {
            return answer(writer, 200, "", seen.path());
        }
        counted.fetch_add(1, Ordering::SeqCst);
        script(writer)
    });
    let transport = Transport::new(&limits).unwrap();
    let endpoint = peer.endpoint();
    let ordinary = async |path: &str| {
        let response = transport.send(&endpoint, &[], &get(path)).await.unwrap();
        assert_eq!(&response.body[..], path.as_bytes());
    };
    ordinary("/before").await;
    let read = transport.send(&endpoint, &[], &get("/fault")).await;
    ordinary("/behind").await;
    let request = Request {
        method: Method::Post,
        ..get("/fault")
    };
    let changed = transport.send(&endpoint, &[], &request).await;
    ordinary("/last").await;
    let seen = peer.seen();
    assert_eq!(
        (
            seen[1].path(),
            seen[1].connection,
            fired.load(Ordering::SeqCst)
        ),
        ("/fault", 0, 2),
        "the fault met a kept connection, and each request once"
    );
    [read, changed]
}

/// As [`meet`], for an answer that ends both exchanges with this failure.
async fn fails(
    kind: Kind,
    what: &str,
    script: impl Fn(&mut dyn Write) -> Then + Send + Sync + 'static,
) {
    let [read, changed] = meet(settings(), script).await;
    assert_eq!(failed(read), (kind, Sent::No), "{what}");
    assert_eq!(failed(changed), (kind, Sent::Unknown), "{what}");
}

fn impatient() -> Settings {
    Settings {
        request_timeout: Duration::from_secs(1),
        ..settings()
    }
}

#[actix_rt::test]
async fn an_interim_answer_alone_or_with_nine_more_is_a_fault() {
    for status in [100, 102, 103, 199] {
        let one = format!("HTTP/1.1 {status} X\r\n\r\n");
        for text in [one.clone(), one.repeat(10)] {
            fails(Kind::Informational, &text.clone(), move |writer| {
                write(writer, &text)
            })
            .await;
        }
    }
}

#[actix_rt::test]
async fn what_follows_an_interim_answer_late_is_given_to_nobody() {
    fails(Kind::Informational, "103", |writer| {
        write(writer, "HTTP/1.1 103 X\r\nlink: </x>\r\n\r\n");
        thread::sleep(Duration::from_millis(50));
        answer(writer, 200, "", "late")
    })
    .await;
}

#[actix_rt::test]
async fn a_length_that_is_given_twice_or_along_with_chunks_is_malformed() {
    for headers in [
        "content-length: 2\r\ncontent-length: 2",
        "content-length: 2\r\ncontent-length: 9",
        "content-length: 2, 2",
        "content-length: +2",
        "content-length: 0x2",
        "content-length: 2\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 2",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
        "transfer-encoding: identity\r\ncontent-length: 2",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: chunked, identity",
    ] {
        fails(Kind::Malformed, headers, move |writer| {
            write(writer, &format!("HTTP/1.1 200 X\r\n{headers}\r\n\r\n{{}}"))
        })
        .await;
    }
}

#[actix_rt::test]
async fn a_status_that_http_does_not_know_is_malformed() {
    for status in [
        "000", "099", "99", "600", "999", "1000", "2OO", "-20", "", " 200",
    ] {
        fails(Kind::Malformed, status, move |writer| {
            let head = format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\n{{}}");
            write(writer, &head)
        })
        .await;
    }
}

#[actix_rt::test]
async fn an_answer_in_another_version_of_http_is_malformed() {
    // The greeting of HTTP/2: a SETTINGS frame.
    const SETTINGS_FRAME: &[u8] = b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64";
    fails(Kind::Malformed, "HTTP/2", |writer| {
        writer.write_all(SETTINGS_FRAME).unwrap();
        Then::KeepOpen
    })
    .await;
    for version in [
        "HTTP/2", "HTTP/2.0", "HTTP/0.9", "http/1.1", "ICY", "HTTP/1.2",
    ] {
        fails(Kind::Malformed, version, move |writer| {
            let head = format!("{version} 200 X\r\ncontent-length: 2\r\n\r\n{{}}");
            write(writer, &head)
        })
        .await;
    }
}

#[actix_rt::test]
async fn an_answer_of_http_1_0_is_taken_whole_or_not_at_all() {
    let [read, changed] = meet(settings(), |writer| {
        write(writer, "HTTP/1.0 200 X\r\ncontent-length: 2\r\n\r\n{}");
        Then::Close
    })
    .await;
    assert_eq!(
        (&read.unwrap().body[..], &changed.unwrap().body[..]),
        (&b"{}"[..], &b"{}"[..])
    );
    for text in [
        "HTTP/1.0 200 X\r\ncontent-length: 3\r\n\r\n{}",
        "HTTP/1.0 200 X\r\nconnection: keep-alive\r\n\r\n{}",
    ] {
        fails(Kind::Malformed, text, move |writer| {
            write(writer, text);
            Then::Close
        })
        .await;
    }
}

#[actix_rt::test]
async fn what_follows_an_answer_that_has_no_body_is_given_to_nobody() {
    for status in [204, 304] {
        for late in [
            "HTTP/1.1 200 X\r\ncontent-length: 4\r\n\r\nlate",
            "a body that should not be there",
        ] {
            let [read, changed] = meet(settings(), move |writer| {
                write(writer, &format!("HTTP/1.1 {status} X\r\n\r\n"));
                thread::sleep(Duration::from_millis(20));
                write(writer, late)
            })
            .await;
            for response in [read.unwrap(), changed.unwrap()] {
                assert_eq!((response.status, response.body.len()), (status, 0));
            }
        }
    }
}

#[actix_rt::test]
async fn a_body_where_there_should_be_none_is_malformed() {
    for status in [204, 304] {
        for body in [
            "content-length: 2\r\n\r\n{}",
            "transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        ] {
            fails(Kind::Malformed, body, move |writer| {
                write(writer, &format!("HTTP/1.1 {status} X\r\n{body}"))
            })
            .await;
        }
    }
}

#[actix_rt::test]
async fn a_length_with_an_answer_that_has_no_body_does_not_reach_for_the_next_answer() {
    for status in [204, 304] {
        // As the head of an answer to HEAD would be.
        let [read, changed] = meet(impatient(), move |writer| {
            write(
                writer,
                &format!("HTTP/1.1 {status} X\r\ncontent-length: 44\r\n\r\n"),
            )
        })
        .await;
        assert_eq!(failed(read), (Kind::Timeout, Sent::No), "{status}");
        assert_eq!(failed(changed), (Kind::Timeout, Sent::Unknown), "{status}");
    }
}

#[actix_rt::test]
async fn a_body_that_is_hidden_behind_an_offer_to_switch_protocols_is_not_lost() {
    for headers in [
        "upgrade: websocket\r\ncontent-length: 9",
        "content-length: 9\r\nupgrade: WebSocket\r\nconnection: upgrade",
        "upgrade: websocket\r\nconnection: keep-alive\r\ncontent-length: 9",
    ] {
        for pause in [0, 20] {
            fails(Kind::Malformed, headers, move |writer| {
                write(writer, &format!("HTTP/1.1 200 X\r\n{headers}\r\n\r\n"));
                thread::sleep(Duration::from_millis(pause));
                write(writer, "{\"id\":17}")
            })
            .await;
        }
    }
}

#[actix_rt::test]
async fn a_body_in_a_coding_that_nobody_asked_for_is_malformed() {
    // An empty gzip stream, and the beginning of one that unfolds to far more than it is.
    for body in [
        &b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x03\0\0\0\0\0\0\0\0\0"[..],
        &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xec, 0xc1, 1, 1, 0, 0][..],
        &b"{}"[..],
        &b""[..],
    ] {
        for coding in ["gzip", "br", "identity, gzip", "X"] {
            fails(Kind::Malformed, coding, move |writer| {
                let length = body.len();
                write(
                    writer,
                    &format!(
                        "HTTP/1.1 200 X\r\ncontent-encoding: {coding}\r\n\
                         content-length: {length}\r\n\r\n"
                    ),
                );
                writer.write_all(body).unwrap();
                Then::KeepOpen
            })
            .await;
        }
    }
    let [read, changed] = meet(settings(), |writer| {
        answer(writer, 200, "content-encoding: Identity\r\n", "{}")
    })
    .await;
    assert_eq!((read.unwrap().status, changed.unwrap().status), (200, 200));
}

#[actix_rt::test]
async fn a_redirect_is_an_answer_wherever_it_leads() {
    let elsewhere = Peer::start(|_, writer| answer(writer, 200, "", "stolen"));
    let another_host = format!("{}/stolen", elsewhere.endpoint()).replace("127.0.0.1", "localhost");
    for status in [301, 302, 303, 307, 308] {
        for location in [
            &another_host,
            "http://169.254.169.254/openstack/latest/securitykey",
            "http://[fe80::1]/",
            "//169.254.169.254/",
            "/fault",
        ] {
            let headers = format!("location: {location}\r\n");
            let [read, changed] = meet(settings(), move |writer| {
                answer(writer, status, &headers, "")
            })
            .await;
            assert_eq!(
                (read.unwrap().status, changed.unwrap().status),
                (status, status)
            );
        }
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[actix_rt::test]
async fn a_head_without_measure_is_given_up_early() {
    // What a peer could write before the client closed is little more than what the sockets hold.
    const MOST: usize = 16 << 20;
    let many = (0..10_000).fold(String::new(), |mut text, number| {
        write!(text, "x-{number}: y\r\n").unwrap();
        text
    });
    let long = format!("x: {}", "y".repeat(1 << 20));
    for piece in [many, long, "y".repeat(1 << 20), "\r\n".repeat(1 << 19)] {
        let written = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&written);
        let begun = Instant::now();
        let what = piece[..20].to_owned();
        fails(Kind::Malformed, &what, move |writer| {
            if !piece.starts_with('\r') {
                write(writer, "HTTP/1.1 200 X\r\n");
            }
            let taken = (0..64).take_while(|_| write(writer, &piece) == Then::KeepOpen);
            counted.fetch_max(taken.count() * piece.len(), Ordering::SeqCst);
            Then::Close
        })
        .await;
        assert!(begun.elapsed() < settings().request_timeout);
        let written = written.load(Ordering::SeqCst);
        assert!(written < MOST, "{written}");
    }
}

#[actix_rt::test]
async fn a_peer_that_is_slow_beyond_measure_is_given_up_at_the_limit() {
    let text =
        "HTTP/1.1 200 X\r\ncontent-length: 100\r\n\r\n{\"name\":\"a body that is long enough\"}";
    for quick in [0, 45] {
        let (quick, slow) = text.split_at(quick);
        let [read, changed] = meet(impatient(), move |writer| {
            write(writer, quick);
            for byte in slow.chars() {
                if write(writer, &byte.to_string()) == Then::Close {
                    break;
                }
                thread::sleep(Duration::from_secs(1));
            }
            Then::Close
        })
        .await;
        assert_eq!(failed(read), (Kind::Timeout, Sent::No));
        assert_eq!(failed(changed), (Kind::Timeout, Sent::Unknown));
    }
}

#[actix_rt::test]
async fn a_chunk_without_end_is_given_up_at_the_limit() {
    let [read, changed] = meet(impatient(), |writer| {
        write(
            writer,
            "HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n1",
        );
        let extension = ";x=y".repeat(1 << 10);
        while write(writer, &extension) == Then::KeepOpen {}
        Then::Close
    })
    .await;
    let ends = [Kind::Timeout, Kind::Malformed];
    assert!(ends.contains(&failed(read).0));
    assert!(ends.contains(&failed(changed).0));
}
