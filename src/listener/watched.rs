//! Connections whose callers must keep up, and whose requests are read one at a time.
//!
//! The framework limits the time for the first head on a connection, and nothing after it: a second head that never ends,
//! or an answer that is never read, would hold a connection for ever.

use std::{
    cell::{Cell, RefCell},
    future::Future as _,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::{
    connections::Place,
    framing::{BodyLength, Framing},
};

/// The longest that the head of a request may take.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection without requests is kept, and one that still sends the body of a request that was answered.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest that an answer may wait to be read to its end, from when the connection first takes no more of it.
const READER_TIMEOUT: Duration = Duration::from_secs(30);
/// The same, where the answer can be had again elsewhere and is in the way here, and how often that is asked.
const IMPATIENT_TIMEOUT: Duration = Duration::from_secs(1);
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Nothing more is read while so much is kept for when the request in front is answered.
const KEPT_MAX: usize = 16 * 1024;

/// What a connection is at. Clones are the same one; it lives on the thread of its connection.
#[derive(Clone, Default)]
pub struct Exchange(Rc<State>);

#[derive(Default)]
struct State {
    framing: Cell<Framing>,
    phase: Cell<Phase>,
    /// Whether something is kept for after the request that is being read.
    has_kept: Cell<bool>,
    /// Says whether the answer is in the way.
    is_in_the_way: RefCell<Option<Box<dyn Fn() -> bool>>>,
    /// Whoever is to be woken when more may be read than before.
    reader: RefCell<Option<Waker>>,
}

#[derive(Clone, Copy)]
enum Phase {
    /// Between requests; by when the next head is to be complete if something of it is there, or the body of the last one.
    Between { by: Option<Instant>, is_head: bool },
    /// A request is being answered.
    Answering,
}

impl Default for Phase {
    fn default() -> Self {
        Self::Between {
            by: None,
            is_head: false,
        }
    }
}

impl Exchange {
    /// Notes that a head is complete, and what follows it. The request is being answered until what this returns is dropped.
    #[must_use]
    pub fn begin(&self, body: BodyLength) -> Answering {
        self.with(|framing| framing.begin(body));
        self.0.phase.set(Phase::Answering);
        self.0.is_in_the_way.take();
        if self.0.has_kept.get() {
            self.wake();
        }
        Answering(self.clone())
    }

    /// Notes that the answer goes on and on, and is not waited for any more once this is so: its reader goes on elsewhere.
    pub fn give_up_when(&self, is_in_the_way: impl Fn() -> bool + 'static) {
        *self.0.is_in_the_way.borrow_mut() = Some(Box::new(is_in_the_way));
    }

    /// How long an answer may wait to be read, and when that is to be asked again.
    fn patience(&self) -> (Duration, Option<Duration>) {
        match &*self.0.is_in_the_way.borrow() {
            Some(is_in_the_way) if is_in_the_way() => (IMPATIENT_TIMEOUT, None),
            Some(_) => (READER_TIMEOUT, Some(LOOK_EVERY)),
            None => (READER_TIMEOUT, None),
        }
    }

    /// Whether the target of a request had a fragment, which none may have (RFC 9112, section 3.2).
    pub fn has_fragment(&self) -> bool {
        self.0.framing.get().has_fragment()
    }

    fn end(&self) {
        self.with(Framing::end);
        let is_between = self.0.framing.get().is_between();
        self.0.phase.set(Phase::Between {
            by: (!is_between).then(|| Instant::now() + IDLE_TIMEOUT),
            is_head: false,
        });
        if self.0.has_kept.get() || !is_between {
            self.wake();
        }
    }

    /// How many of these bytes belong to the request that is being read.
    fn take(&self, bytes: &[u8]) -> usize {
        let taken = self.with(|framing| framing.take(bytes));
        if let Phase::Between { is_head: false, .. } = self.0.phase.get()
            && self.0.framing.get().is_head()
        {
            self.0.phase.set(Phase::Between {
                by: Some(Instant::now() + HEAD_TIMEOUT),
                is_head: true,
            });
        }
        taken
    }

    fn with<T>(&self, act: impl FnOnce(&mut Framing) -> T) -> T {
        let mut framing = self.0.framing.get();
        let result = act(&mut framing);
        self.0.framing.set(framing);
        result
    }

    fn wake(&self) {
        if let Some(reader) = self.0.reader.take() {
            reader.wake();
        }
    }
}

/// A request that is being answered.
pub struct Answering(Exchange);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A connection that ends with an error when its caller does not keep up.
pub struct Watched<T> {
    stream: T,
    exchange: Exchange,
    /// What came behind the request that is being read.
    kept: Vec<u8>,
    /// Whether nothing comes behind that.
    is_over: bool,
    /// Since when it takes no more of an answer.
    full_since: Option<Instant>,
    timer: Pin<Box<Sleep>>,
    _place: Place,
}

impl<T> Watched<T> {
    /// Watches a connection, which keeps its place as long as it lives.
    pub fn new(stream: T, place: Place) -> Self {
        Self {
            stream,
            exchange: Exchange::default(),
            kept: Vec::new(),
            is_over: false,
            full_since: None,
            timer: Box::pin(sleep_until(Instant::now())),
            _place: place,
        }
    }

    /// What it is watched with.
    pub fn exchange(&self) -> Exchange {
        self.exchange.clone()
    }

    /// The connection itself.
    pub fn stream(&self) -> &T {
        &self.stream
    }

    /// An error if the caller is late; else whoever waits is woken when that has to be asked again.
    fn keep_up(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let head = match self.exchange.0.phase.get() {
            Phase::Between { by, .. } => by,
            Phase::Answering => None,
        };
        let (patience, look_again) = self.exchange.patience();
        let reader = self.full_since.map(|since| since + patience);
        let Some(limit) = [head, reader].into_iter().flatten().min() else {
            return Ok(());
        };
        loop {
            let now = Instant::now();
            if limit <= now {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let next = look_again.map_or(limit, |after| limit.min(now + after));
            if self.timer.is_elapsed() || self.timer.deadline() > next {
                self.timer.as_mut().reset(next);
            }
            if self.timer.as_mut().poll(context).is_pending() {
                return Ok(());
            }
        }
    }
}

impl<T: AsyncRead + Unpin> Watched<T> {
    /// Reads what belongs to the request in front. What comes behind it is read too, so that an end of the connection is
    /// noticed, and kept.
    fn read_on(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let next = &self.kept[..self.kept.len().min(buffer.remaining())];
        // An answer counts as taken by the framework's buffer, which has no end: whoever does not read gets no further one.
        let is_blocked = self.full_since.is_some() && self.exchange.0.framing.get().is_between();
        let taken = if is_blocked {
            0
        } else {
            self.exchange.take(next)
        };
        if taken > 0 || (self.kept.is_empty() && self.is_over) {
            buffer.put_slice(&self.kept[..taken]);
            self.kept.drain(..taken);
            return Poll::Ready(Ok(()));
        }
        while !self.is_over && self.kept.len() < KEPT_MAX {
            ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
            let bytes = &buffer.filled()[before..];
            self.is_over = bytes.is_empty();
            let taken = if self.kept.is_empty() && !is_blocked {
                self.exchange.take(bytes)
            } else {
                0
            };
            self.kept.extend_from_slice(&bytes[taken..]);
            buffer.set_filled(before + taken);
            if taken > 0 || (self.kept.is_empty() && self.is_over) {
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Pending
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = self.read_on(context, buffer);
        self.exchange.0.has_kept.set(!self.kept.is_empty());
        self.keep_up(context)?;
        if read.is_pending() {
            let mut reader = self.exchange.0.reader.borrow_mut();
            match &mut *reader {
                Some(reader) => reader.clone_from(context.waker()),
                None => *reader = Some(context.waker().clone()),
            }
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if written.is_pending() {
            self.full_since.get_or_insert_with(Instant::now);
            self.keep_up(context)?;
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Asked for when everything was written.
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if flushed.is_ready() && self.full_since.take().is_some() {
            self.exchange.wake();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    use super::*;
    use crate::listener::{ConnectionLimits, Connections};

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
}
