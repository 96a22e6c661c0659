//! Tests of a connection with its other end in memory, on a clock that goes by itself.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Wake, Waker},
    time::Duration,
};

use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;
use crate::listener::{BodyLength, ConnectionLimits, Connections};

impl Socket for DuplexStream {
    fn check(&self) -> io::Result<()> {
        Ok(())
    }
}

/// The place of a connection.
fn place() -> Place {
    let limits = ConnectionLimits {
        all: 1,
        per_peer: 1,
    };
    let connections = Connections::new(limits, &mut Registry::default());
    connections.admit([127, 0, 0, 1].into()).unwrap()
}

/// A connection that takes few bytes, and its other end.
fn connection() -> (Watched<DuplexStream>, DuplexStream) {
    let (here, there) = duplex(64);
    (Watched::new(here, place()), there)
}

/// Whether somebody was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What comes of something whose limit is far below this one.
async fn soon<T>(work: impl Future<Output = T>) -> T {
    let limit = Duration::from_mins(10);
    let result = tokio::time::timeout(limit, work).await;
    result.expect("an end within its limit")
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
            found = soon(late(&mut watched)) => assert_eq!(found, (true, 5), "{drips}"),
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
    assert_eq!(soon(late(&mut watched)).await, (true, 4));
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
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(Arc::clone(&woken));
    let read = Pin::new(&mut watched).poll_read(
        &mut Context::from_waker(&waker),
        &mut ReadBuf::new(&mut bytes),
    );
    assert!(read.is_pending(), "{read:?}");
    let mut taken = [0; 64];
    there.read_exact(&mut taken).await.unwrap();
    watched.write_all(&answer[64..]).await.unwrap();
    assert!(!woken.0.load(Ordering::SeqCst));
    watched.flush().await.unwrap();
    assert!(woken.0.load(Ordering::SeqCst));
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
        while count < 4 * KEPT_MAX && there.write_all(&[b'G'; 32]).await.is_ok() {
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
    there.write_all(b" G").await.unwrap();
    assert_eq!(watched.read(&mut bytes).await.unwrap(), 1);
    drop(answer);
    assert_eq!(soon(late(&mut watched)).await, (true, 5));
}

#[tokio::test(start_paused = true)]
async fn what_comes_after_the_last_answer_is_heard_for_a_second_and_given_to_nobody() {
    for (body, sent, says_so) in [
        (BodyLength::Known(3), "POST\r\n\r\n{}", false),
        (BodyLength::Chunked, "POST\r\n\r\n", false),
        (BodyLength::Chunked, "POST\r\n\r\n9\r\n12", false),
        (BodyLength::Known(0), "POST\r\n\r\n", true),
    ] {
        let (mut watched, mut there) = connection();
        let exchange = watched.exchange();
        let mut bytes = [0; 32];
        there.write_all(sent.as_bytes()).await.unwrap();
        assert_eq!(watched.read(&mut bytes).await.unwrap(), 8);
        let answer = exchange.begin(body);
        if says_so {
            exchange.end_after_answer();
        }
        drop(answer);
        // Whoever reads an answer late is not late by that.
        watched.write_all(&[0; 64]).await.unwrap();
        let unsent = tokio::time::timeout(Duration::from_secs(20), late(&mut watched)).await;
        assert!(unsent.is_err(), "{unsent:?}");
        watched.flush().await.unwrap();
        let mut answer = Vec::new();
        there.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer.len(), 64);
        let sending = async move {
            while there.write_all(b"GET /\r\n\r\n").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            std::future::pending::<()>().await;
            drop(there);
        };
        let began = Instant::now();
        tokio::select! {
            read = soon(watched.read(&mut bytes)) => {
                assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
            }
            () = sending => unreachable!(),
        }
        assert_eq!(began.elapsed().as_secs(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn little_is_read_of_a_body_until_somebody_asks_for_it() {
    let (here, mut there) = duplex(1 << 20);
    let mut watched = Watched::new(here, place());
    let exchange = watched.exchange();
    let mut bytes = vec![0; 1 << 20];
    let body = vec![b'a'; 100_000];
    there.write_all(b"POST\r\n\r\n").await.unwrap();
    there.write_all(&body).await.unwrap();
    let mut limited = [0; 1000];
    assert_eq!(watched.read(&mut limited).await.unwrap(), 8);
    let _answer = exchange.begin(BodyLength::Known(100_000));
    let (mut read, patience) = (0, Duration::from_secs(1));
    while let Ok(count) = tokio::time::timeout(patience, watched.read(&mut limited)).await {
        read += count.unwrap();
    }
    assert_eq!(read, 4096);
    exchange.ask_for_body();
    while read < body.len() {
        let count = watched.read(&mut bytes).await.unwrap();
        assert!(count > 0);
        read += count;
        // The framework asks again at once, and decodes only when there is nothing.
        let again = futures_util::poll!(Box::pin(watched.read(&mut bytes)));
        assert!(again.is_pending());
    }
    assert_eq!(read, body.len());
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_in_the_way_is_given_up_soon() {
    let (mut watched, _there) = connection();
    let exchange = watched.exchange();
    let _answer = exchange.begin(BodyLength::Known(0));
    let (began, stop) = (Instant::now(), Duration::from_secs(12));
    exchange.give_up_when(move || began.elapsed() >= stop);
    let written = soon(watched.write_all(&[0; 1024])).await;
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
            written = soon(watched.write_all(&answer)) => {
                assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
            }
            () = reading => unreachable!(),
        }
        assert_eq!(began.elapsed().as_secs(), 30, "{drips}");
    }
}

/// A connection that takes whatever is written to it and gives none of it on, as an encrypted one
/// can, and knows of a reset.
struct Hoarding {
    incoming: DuplexStream,
    reset_at: Option<Instant>,
}

impl Hoarding {
    fn new(incoming: DuplexStream) -> Self {
        Self {
            incoming,
            reset_at: None,
        }
    }
}

impl Socket for Hoarding {
    fn check(&self) -> io::Result<()> {
        if self.reset_at.is_some_and(|at| at <= Instant::now()) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }
}

impl AsyncRead for Hoarding {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.incoming).poll_read(context, buffer)
    }
}

impl AsyncWrite for Hoarding {
    fn poll_write(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_taken_and_is_not_sent_is_given_up_whatever_is_asked_for() {
    for is_over in [false, true] {
        let (here, _there) = duplex(64);
        let mut watched = Watched::new(Hoarding::new(here), place());
        drop(watched.exchange().begin(BodyLength::Known(0)));
        watched.write_all(&[0; 1024]).await.unwrap();
        let began = Instant::now();
        let ended = async {
            if is_over {
                watched.shutdown().await
            } else {
                watched.flush().await
            }
        };
        let ended = soon(ended).await;
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), 30, "{is_over}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reset_is_noticed_although_nothing_is_read() {
    let (here, mut there) = duplex(1 << 20);
    let began = Instant::now();
    let mut stream = Hoarding::new(here);
    stream.reset_at = Some(began + LOOK_EVERY + Duration::from_secs(1));
    let mut watched = Watched::new(stream, place());
    there.write_all(b"GET\r\n\r\n").await.unwrap();
    there.write_all(&[b'G'; KEPT_MAX]).await.unwrap();
    let mut bytes = [0; 32];
    assert_eq!(watched.read(&mut bytes).await.unwrap(), 7);
    let _answer = watched.exchange().begin(BodyLength::Known(0));
    let read = soon(watched.read(&mut bytes)).await;
    assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(began.elapsed(), 2 * LOOK_EVERY);
}
