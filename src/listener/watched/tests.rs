//! Tests of a connection with its other end in memory, on a clock that goes by itself.

use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;
use crate::listener::{BodyLength, ConnectionLimits, Connections};

impl Socket for DuplexStream {
    fn check(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection that takes few bytes, and its other end.
fn connection() -> (Watched<DuplexStream>, DuplexStream) {
    let limits = ConnectionLimits {
        all: 1,
        per_peer: 1,
    };
    let connections = Connections::new(limits, &mut Registry::default());
    let place = connections.admit([127, 0, 0, 1].into()).unwrap();
    let (here, there) = duplex(64);
    (Watched::new(here, place), there)
}

/// Whether the read ends as that of a caller who is late, and after how many seconds.
async fn late(watched: &mut Watched<DuplexStream>) -> (bool, u64) {
    let began = Instant::now();
    let mut byte = [0];
    let error = loop {
        match watched.read(&mut byte).await {
            Ok(0) => return (false, began.elapsed().as_secs()),
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    let is_late = error.kind() == io::ErrorKind::TimedOut;
    (is_late, began.elapsed().as_secs())
}

#[tokio::test(start_paused = true)]
async fn a_head_that_drips_has_as_much_time_as_one_that_stands_still() {
    for drips in [false, true] {
        let (mut watched, mut there) = connection();
        there.write_all(b"G").await.unwrap();
        let dripping = async move {
            while drips && there.write_all(b"G").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            std::future::pending::<()>().await;
            drop(there);
        };
        tokio::select! {
            found = late(&mut watched) => assert_eq!(found, (true, 5), "{drips}"),
            () = dripping => unreachable!(),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_head_on_its_way_is_not_late_and_a_request_may_take_long() {
    let (mut watched, mut there) = connection();
    let exchange = watched.exchange();
    let quiet = tokio::time::timeout(Duration::from_hours(1), late(&mut watched)).await;
    assert!(quiet.is_err(), "{quiet:?}");
    there.write_all(b"GET\r\n\r\n").await.unwrap();
    let mut head = [0; 7];
    watched.read_exact(&mut head).await.unwrap();
    let answer = exchange.begin(BodyLength::Known(0));
    let answering = tokio::time::timeout(Duration::from_hours(1), late(&mut watched)).await;
    assert!(answering.is_err(), "{answering:?}");
    drop(answer);
    let quiet = tokio::time::timeout(Duration::from_hours(1), late(&mut watched)).await;
    assert!(quiet.is_err(), "{quiet:?}");
}

#[tokio::test(start_paused = true)]
async fn what_comes_behind_a_request_is_kept_until_that_is_answered_and_has_its_time_then() {
    let (mut watched, mut there) = connection();
    let exchange = watched.exchange();
    let mut bytes = [0; 32];
    there.write_all(b"GET\r\n\r\nHEAD\r\n").await.unwrap();
    assert_eq!(watched.read(&mut bytes).await.unwrap(), 7);
    let answer = exchange.begin(BodyLength::Known(0));
    let waiting = tokio::time::timeout(Duration::from_secs(12), watched.read(&mut bytes)).await;
    assert!(waiting.is_err(), "{waiting:?}");
    let ended = async {
        drop(answer);
        tokio::time::sleep(Duration::from_secs(1)).await;
        there.write_all(b"\r").await.unwrap();
    };
    let (read, ()) = tokio::join!(watched.read(&mut bytes), ended);
    assert_eq!(bytes[..read.unwrap()], *b"HEAD\r\n");
    assert_eq!(late(&mut watched).await, (true, 4));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_connection_is_noticed_while_a_request_is_answered() {
    for (behind, is_told) in [("", true), ("GET", false)] {
        let (mut watched, mut there) = connection();
        let exchange = watched.exchange();
        let mut bytes = [0; 32];
        let sent = format!("GET\r\n\r\n{behind}");
        there.write_all(sent.as_bytes()).await.unwrap();
        assert_eq!(watched.read(&mut bytes).await.unwrap(), 7);
        let answer = exchange.begin(BodyLength::Known(0));
        drop(there);
        let read = tokio::time::timeout(Duration::from_secs(1), watched.read(&mut bytes)).await;
        assert_eq!(read.is_ok(), is_told, "{read:?}");
        drop(answer);
        assert_eq!(watched.read(&mut bytes).await.unwrap(), behind.len());
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_does_not_read_an_answer_is_given_no_further_one() {
    let (mut watched, mut there) = connection();
    let exchange = watched.exchange();
    let mut bytes = [0; 32];
    there.write_all(b"GET\r\n\r\nGET\r\n\r\n").await.unwrap();
    assert_eq!(watched.read(&mut bytes).await.unwrap(), 7);
    drop(exchange.begin(BodyLength::Known(0)));
    // The framework has the answer, and the connection takes no more than a part of it.
    let answer = [0; 100];
    let second = Duration::from_secs(1);
    let written = tokio::time::timeout(second, watched.write_all(&answer)).await;
    assert!(written.is_err(), "{written:?}");
    let read = tokio::time::timeout(second, watched.read(&mut bytes)).await;
    assert!(read.is_err(), "{read:?}");
    let mut taken = [0; 64];
    there.read_exact(&mut taken).await.unwrap();
    watched.write_all(&answer[64..]).await.unwrap();
    watched.flush().await.unwrap();
    assert_eq!(watched.read(&mut bytes).await.unwrap(), 7);
}

#[tokio::test(start_paused = true)]
async fn little_is_kept_behind_a_request() {
    let (mut watched, mut there) = connection();
    let exchange = watched.exchange();
    let mut bytes = [0; 32];
    there.write_all(b"GET\r\n\r\n").await.unwrap();
    assert_eq!(watched.read(&mut bytes).await.unwrap(), 7);
    let _answer = exchange.begin(BodyLength::Known(0));
    let mut count = 0;
    let sending = async {
        while there.write_all(&[b'G'; 32]).await.is_ok() {
            count += 32;
        }
    };
    tokio::select! {
        read = watched.read(&mut bytes) => panic!("{read:?}"),
        () = sending => panic!("everything is kept"),
        () = tokio::time::sleep(Duration::from_secs(1)) => {}
    }
    assert!((KEPT_MAX..KEPT_MAX + 256).contains(&count), "{count}");
}

#[tokio::test(start_paused = true)]
async fn a_body_is_no_head_and_the_head_after_it_has_its_time() {
    let (mut watched, mut there) = connection();
    let exchange = watched.exchange();
    let mut bytes = [0; 32];
    there.write_all(b"POST\r\n\r\n{}").await.unwrap();
    assert_eq!(watched.read(&mut bytes).await.unwrap(), 8);
    let answer = exchange.begin(BodyLength::Known(3));
    assert_eq!(watched.read(&mut bytes).await.unwrap(), 2);
    // It is answered before its body is complete.
    drop(answer);
    let idle = tokio::time::timeout(Duration::from_secs(20), late(&mut watched)).await;
    assert!(idle.is_err(), "{idle:?}");
    there.write_all(b" G").await.unwrap();
    assert_eq!(late(&mut watched).await, (true, 5));

    let (mut watched, mut there) = connection();
    there.write_all(b"POST\r\n\r\n").await.unwrap();
    assert_eq!(watched.read(&mut bytes).await.unwrap(), 8);
    drop(watched.exchange().begin(BodyLength::Chunked));
    assert_eq!(late(&mut watched).await, (true, 30));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_in_the_way_is_given_up_soon() {
    let (mut watched, _there) = connection();
    let exchange = watched.exchange();
    let _answer = exchange.begin(BodyLength::Known(0));
    let (began, stop) = (Instant::now(), Duration::from_secs(12));
    exchange.give_up_when(move || began.elapsed() >= stop);
    let written = watched.write_all(&[0; 1024]).await;
    assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
    // It is looked at every five seconds.
    assert_eq!(began.elapsed().as_secs(), 15);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_reads_is_given_up() {
    for drips in [false, true] {
        let (mut watched, mut there) = connection();
        let _answer = watched.exchange().begin(BodyLength::Known(0));
        let began = Instant::now();
        let reading = async move {
            let mut byte = [0];
            while drips && there.read(&mut byte).await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            std::future::pending::<()>().await;
            drop(there);
        };
        let answer = [0; 1024];
        tokio::select! {
            written = watched.write_all(&answer) => {
                assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
            }
            () = reading => unreachable!(),
        }
        assert_eq!(began.elapsed().as_secs(), 30, "{drips}");
    }
}
