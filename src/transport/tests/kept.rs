//! Connections that are kept for reads, and those that are not.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use futures_util::future::join_all;

use super::{
    change, failed, get,
    peer::{Peer, Then, answer, settings, write},
};
use crate::{
    domain::service::Sent,
    transport::{Limits, Method, Transport, TransportErrorKind, until_sent, while_good},
};

#[actix_rt::test]
async fn reads_share_a_connection_and_changes_never_do() {
    let peer = Peer::start(|_, writer| answer(writer, 200, "connection: keep-alive\r\n", "{}"));
    let transport = Transport::new(&settings()).unwrap();
    for _ in 0..4 {
        transport
            .send(&peer.endpoint(), &[], &get("/"))
            .await
            .unwrap();
    }
    assert_eq!(peer.connections(), 1);
    for method in [Method::Post, Method::Delete, Method::Post] {
        transport
            .send(&peer.endpoint(), &[], &change(method))
            .await
            .unwrap();
    }
    assert_eq!(peer.connections(), 4);
}

#[actix_rt::test]
async fn what_is_held_until_a_request_is_sent_is_gone_before_it_arrives() {
    let held = Arc::new(());
    let seen = Arc::downgrade(&held);
    let peer =
        Peer::start(move |_, writer| answer(writer, 200, "", &seen.strong_count().to_string()));
    let transport = Transport::new(&settings()).unwrap();
    let endpoint = peer.endpoint();
    // On a connection that is made, on one that is kept, and on one of its own.
    for request in [get("/"), get("/"), change(Method::Post)] {
        let exchange = transport.send(&endpoint, &[], &request);
        let response = until_sent(Arc::clone(&held), exchange).await.unwrap();
        assert_eq!(&response.body[..], b"1");
    }
    assert_eq!(peer.connections(), 2);
}

#[actix_rt::test]
async fn what_is_not_good_any_more_is_not_written() {
    let peer = Peer::start(|_, writer| answer(writer, 200, "", "{}"));
    let transport = Transport::new(&settings()).unwrap();
    let endpoint = peer.endpoint();
    for request in [get("/"), change(Method::Post)] {
        let exchange = || transport.send(&endpoint, &[], &request);
        let withdrawn = failed(while_good(|| false, exchange()).await);
        assert_eq!(withdrawn, (TransportErrorKind::Withdrawn, Sent::No));
        while_good(|| true, exchange()).await.unwrap();
        // On a connection that is kept, too.
        let withdrawn = failed(while_good(|| false, exchange()).await);
        assert_eq!(withdrawn, (TransportErrorKind::Withdrawn, Sent::No));
    }
    assert_eq!(peer.seen().len(), 2);
}

#[actix_rt::test]
async fn an_answer_is_doubtful_if_its_connection_had_carried_another_request() {
    let peer = Peer::start(|_, writer| answer(writer, 200, "", "{}"));
    let transport = Transport::new(&settings()).unwrap();
    let is_doubtful = async |transport: &Transport, request| {
        let exchange = transport.send(&peer.endpoint(), &[], &request).await;
        exchange.unwrap().is_doubtful
    };
    assert!(!is_doubtful(&transport, get("/")).await);
    assert!(is_doubtful(&transport, get("/")).await);
    assert!(!is_doubtful(&transport, change(Method::Delete)).await);
    let apart = transport.apart();
    assert!(!is_doubtful(&apart, get("/")).await);
    assert!(is_doubtful(&apart, get("/")).await);
    apart.distrust();
    assert!(!is_doubtful(&apart, get("/")).await);
    assert!(is_doubtful(&transport, get("/")).await, "those are others");
}

#[actix_rt::test]
async fn nobody_gets_the_answer_that_follows_an_interim_one() {
    // Every other answer is preceded by an interim one, and comes late enough for somebody else to
    // be in its way.
    let peer = Peer::start(|seen, writer| {
        if seen.number % 2 == 1 {
            write(writer, "HTTP/1.1 103 Early Hints\r\n\r\n");
            thread::sleep(Duration::from_millis(5));
        }
        answer(writer, 200, "", seen.path())
    });
    let transport = Transport::new(&settings()).unwrap();
    let endpoint = peer.endpoint();
    let caller = async |caller: usize| {
        let mut faults = 0;
        for turn in 0..20 {
            let path = format!("/{caller}/{turn}");
            match transport.send(&endpoint, &[], &get(&path)).await {
                Ok(response) => assert_eq!(&response.body[..], path.as_bytes()),
                Err(error) => {
                    assert_eq!(error.kind, TransportErrorKind::Informational);
                    faults += 1;
                }
            }
        }
        faults
    };
    let faults: usize = join_all((0..16).map(caller)).await.into_iter().sum();
    assert!((100..=200).contains(&faults), "{faults}");
}

#[actix_rt::test]
async fn nobody_gets_the_body_that_follows_a_head_without_length() {
    let peer = Peer::start(|seen, writer| {
        if seen.number % 2 == 1 {
            write(writer, "HTTP/1.1 404 X\r\n\r\n");
            thread::sleep(Duration::from_millis(5));
        }
        answer(writer, 200, "", seen.path())
    });
    let transport = Transport::new(&settings()).unwrap();
    for turn in 0..20 {
        let path = format!("/{turn}");
        match transport.send(&peer.endpoint(), &[], &get(&path)).await {
            Ok(response) => assert_eq!(&response.body[..], path.as_bytes()),
            Err(error) => assert_eq!(error.kind, TransportErrorKind::Malformed),
        }
    }
}

#[actix_rt::test]
async fn an_answer_that_nobody_asked_for_is_given_to_nobody() {
    let (pushed, wait_until_pushed) = mpsc::channel();
    let peer = Peer::start(move |seen, writer| {
        answer(writer, 200, "", seen.path());
        if seen.number == 0 {
            // Apart from the answer, or the client would read and forget it together with it.
            thread::sleep(Duration::from_millis(20));
            answer(writer, 200, "", "unsolicited");
            pushed.send(()).unwrap();
        }
        Then::KeepOpen
    });
    let transport = Transport::new(&settings()).unwrap();
    transport
        .send(&peer.endpoint(), &[], &get("/0"))
        .await
        .unwrap();
    wait_until_pushed
        .recv_timeout(Duration::from_secs(5))
        .unwrap();
    let next = transport
        .send(&peer.endpoint(), &[], &get("/1"))
        .await
        .unwrap();
    assert_eq!(&next.body[..], b"/1");
    assert_eq!(peer.connections(), 2);
}

/// A peer that answers the first request of each connection, and reads the second one only.
fn once_a_connection() -> Peer {
    let served = Arc::new(Mutex::new(BTreeSet::new()));
    Peer::start(move |seen, writer| {
        if served.lock().unwrap().insert(seen.connection) {
            answer(writer, 200, "", "{}")
        } else {
            Then::Close
        }
    })
}

#[actix_rt::test]
async fn a_read_survives_the_loss_of_a_kept_connection() {
    let peer = once_a_connection();
    let transport = Transport::new(&settings()).unwrap();
    for _ in 0..4 {
        transport
            .send(&peer.endpoint(), &[], &get("/"))
            .await
            .unwrap();
    }
    // One read over a fresh connection; then one lost and repeated, each time.
    assert!(
        (4..=7).contains(&peer.seen().len()),
        "{}",
        peer.seen().len()
    );
}

#[actix_rt::test]
async fn a_read_that_was_lost_twice_is_not_sent_a_third_time() {
    let peer = Peer::start(|seen, writer| match seen.number {
        0 => answer(writer, 200, "", "{}"),
        _ => Then::Close,
    });
    let transport = Transport::new(&settings()).unwrap();
    transport
        .send(&peer.endpoint(), &[], &get("/"))
        .await
        .unwrap();
    let lost = transport.send(&peer.endpoint(), &[], &get("/")).await;
    assert_eq!(failed(lost), (TransportErrorKind::Interrupted, Sent::No));
    assert_eq!(peer.seen().len(), 3);
}

#[actix_rt::test]
async fn a_read_that_is_to_be_sent_once_is_and_may_have_a_connection_of_its_own() {
    let peer = once_a_connection();
    let transport = Transport::new(&settings()).unwrap();
    let (endpoint, request) = (peer.endpoint(), get("/"));
    let send = async |fresh_connection| {
        let place = transport.place_now(request.method).unwrap();
        let limits = Limits {
            fresh_connection,
            ..Limits::default()
        };
        transport
            .send_once((place, limits), &endpoint, &[], &request)
            .await
    };
    send(false).await.unwrap();
    let lost = send(false).await;
    assert_eq!(failed(lost), (TransportErrorKind::Stale, Sent::No));
    assert_eq!(peer.seen().len(), 2);
    send(true).await.unwrap();
    send(true).await.unwrap();
    assert_eq!((peer.seen().len(), peer.connections()), (4, 3));
}

#[actix_rt::test]
async fn a_read_that_was_answered_in_part_is_not_repeated() {
    let peer = Peer::start(|seen, writer| {
        if seen.number == 0 {
            return answer(writer, 200, "", "{}");
        }
        write(writer, "HTTP/1.1 200 X\r\ncontent-");
        Then::Close
    });
    let transport = Transport::new(&settings()).unwrap();
    transport
        .send(&peer.endpoint(), &[], &get("/"))
        .await
        .unwrap();
    let lost = transport.send(&peer.endpoint(), &[], &get("/")).await;
    assert_eq!(failed(lost), (TransportErrorKind::Interrupted, Sent::No));
    assert_eq!(peer.seen().len(), 2);
}

#[actix_rt::test]
async fn a_caller_that_leaves_spoils_nothing() {
    let (arrived, wait_until_arrived) = mpsc::channel();
    let peer = Peer::start(move |seen, writer| {
        if seen.path() == "/left" {
            arrived.send(()).unwrap();
            thread::sleep(Duration::from_millis(20));
        }
        answer(writer, 200, "", seen.path())
    });
    let transport = Transport::new(&settings()).unwrap();
    let endpoint = peer.endpoint();
    let first = transport
        .send(&endpoint, &[], &get("/first"))
        .await
        .unwrap();
    assert_eq!(&first.body[..], b"/first");
    let left = get("/left");
    tokio::select! {
        biased;
        _ = transport.send(&endpoint, &[], &left) => panic!("the caller leaves before"),
        () = async {
            while wait_until_arrived.try_recv().is_err() {
                tokio::task::yield_now().await;
            }
        } => {}
    }
    for turn in 0..5 {
        let path = format!("/{turn}");
        let response = transport.send(&endpoint, &[], &get(&path)).await.unwrap();
        assert_eq!(&response.body[..], path.as_bytes());
    }
}
