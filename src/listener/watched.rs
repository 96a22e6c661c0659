//! Connections whose callers must keep up.
//!
//! The framework limits the time for the first head on a connection, and nothing after it: a second head that never ends,
//! or an answer that is never read, would hold a connection for ever.

use std::{
    cell::{Cell, RefCell},
    future::Future as _,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::connections::Place;

/// The longest that the head of a request may take.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection without requests is kept, and one of which nobody knows whether the next request has begun.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest that an answer may wait to be read to its end, from when the connection first takes no more of it.
const READER_TIMEOUT: Duration = Duration::from_secs(30);
/// The same, where the answer can be had again elsewhere and is in the way here.
const IMPATIENT_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a connection is looked at while a request is being answered: nobody says when the answer has gone out.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What a connection is at. Clones are the same one; it lives on the thread of its connection.
#[derive(Clone, Default)]
pub struct Exchange(Rc<State>);

#[derive(Default)]
struct State {
    phase: Cell<Phase>,
    /// The last bytes that came.
    tail: Cell<[u8; TAIL]>,
    line: Cell<Line>,
    has_fragment: Cell<bool>,
    /// Says whether the answer is in the way.
    is_in_the_way: RefCell<Option<Box<dyn Fn() -> bool>>>,
}

/// What counts of the line that is coming.
#[derive(Clone, Copy, Default)]
struct Line {
    /// Whether this is not its first word any more.
    has_word: bool,
    /// Whether the word has the mark of a fragment, and whether the word before it has, which was not the first.
    has_mark: bool,
    had_mark: bool,
}

/// So many bytes are remembered: as many as the end of a request line has.
const TAIL: usize = b" HTTP/1.1\r\n".len();

#[derive(Clone, Copy)]
enum Phase {
    /// Between requests; by when the next head is to be complete if something of it is there.
    Between { by: Option<Instant>, is_head: bool },
    /// A request is being answered; whether there are bytes beyond its head, which are its body or the beginning of the
    /// next one.
    Answering { has_more: bool },
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
    /// Notes that a head is complete.
    pub fn begin(&self) {
        let has_more = !self.0.tail.get().ends_with(b"\r\n\r\n");
        self.0.phase.set(Phase::Answering { has_more });
        self.0.is_in_the_way.take();
    }

    /// Notes that the answer goes on and on, and is not waited for any more once this is so: its reader goes on elsewhere.
    pub fn give_up_when(&self, is_in_the_way: impl Fn() -> bool + 'static) {
        *self.0.is_in_the_way.borrow_mut() = Some(Box::new(is_in_the_way));
    }

    fn reader_timeout(&self) -> Duration {
        match &*self.0.is_in_the_way.borrow() {
            Some(is_in_the_way) if is_in_the_way() => IMPATIENT_TIMEOUT,
            _ => READER_TIMEOUT,
        }
    }

    /// Notes that there is an answer.
    pub fn end(&self) {
        if let Phase::Answering { has_more } = self.0.phase.get() {
            self.0.phase.set(Phase::Between {
                by: has_more.then(|| Instant::now() + IDLE_TIMEOUT),
                is_head: false,
            });
        }
    }

    /// Whether the target of a request had a fragment, which no target may have (RFC 9112, section 3.2). The framework leaves
    /// it out, with all that follows, so that this is asked of the bytes: whatever may be the end of a request line counts, since
    /// one can follow a body in the middle of a line. It stays so for the rest of the connection.
    pub fn has_fragment(&self) -> bool {
        self.0.has_fragment.get()
    }

    fn received(&self, bytes: &[u8]) {
        for byte in bytes {
            self.take(*byte);
        }
        self.0.phase.set(match self.0.phase.get() {
            head @ Phase::Between { is_head: true, .. } => head,
            Phase::Between { is_head: false, .. } => Phase::Between {
                by: Some(Instant::now() + HEAD_TIMEOUT),
                is_head: true,
            },
            Phase::Answering { .. } => Phase::Answering { has_more: true },
        });
    }
}

impl Exchange {
    fn take(&self, byte: u8) {
        let mut tail = self.0.tail.get();
        tail.rotate_left(1);
        tail[TAIL - 1] = byte;
        self.0.tail.set(tail);
        let line = self.0.line.get();
        self.0.line.set(match byte {
            b'\n' => {
                let end = tail.strip_suffix(b"\n").unwrap_or_default();
                let end = end.strip_suffix(b"\r").unwrap_or(end);
                if line.had_mark && (end.ends_with(b" HTTP/1.1") || end.ends_with(b" HTTP/1.0")) {
                    self.0.has_fragment.set(true);
                }
                Line::default()
            }
            b' ' => Line {
                has_word: true,
                has_mark: false,
                had_mark: line.has_word && line.has_mark,
            },
            b'#' => Line {
                has_mark: true,
                ..line
            },
            _ => line,
        });
    }
}

/// A connection that ends with an error when its caller does not keep up.
pub struct Watched<T> {
    stream: T,
    exchange: Exchange,
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
        loop {
            let now = Instant::now();
            let head = match self.exchange.0.phase.get() {
                Phase::Between { by, .. } => by,
                Phase::Answering { .. } => None,
            };
            let patience = self.exchange.reader_timeout();
            let reader = self.full_since.map(|since| since + patience);
            let limit = [head, reader].into_iter().flatten().min();
            if limit.is_some_and(|limit| limit <= now) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let look = now + LOOK_EVERY;
            let next = match self.exchange.0.phase.get() {
                Phase::Answering { .. } => Some(limit.map_or(look, |limit| limit.min(look))),
                Phase::Between { .. } => limit,
            };
            let Some(next) = next else { return Ok(()) };
            if self.timer.is_elapsed() || self.timer.deadline() > next {
                self.timer.as_mut().reset(next);
            }
            if self.timer.as_mut().poll(context).is_pending() {
                return Ok(());
            }
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.exchange.received(&buffer.filled()[before..]);
        }
        self.keep_up(context)?;
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
        if flushed.is_ready() {
            self.full_since = None;
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
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
        time::advance,
    };

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
        exchange.begin();
        let answering = tokio::time::timeout(Duration::from_hours(1), late(&mut watched)).await;
        assert!(answering.is_err(), "{answering:?}");
        exchange.end();
        let quiet = tokio::time::timeout(Duration::from_hours(1), late(&mut watched)).await;
        assert!(quiet.is_err(), "{quiet:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_beginning_of_a_head_that_came_during_an_answer_counts_from_its_end() {
        let (mut watched, mut there) = connection();
        let exchange = watched.exchange();
        exchange.begin();
        there.write_all(b"G").await.unwrap();
        let mut byte = [0];
        watched.read_exact(&mut byte).await.unwrap();
        advance(Duration::from_mins(1)).await;
        let ended = exchange.clone();
        let answer = async {
            tokio::time::sleep(Duration::from_secs(12)).await;
            ended.end();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            (is_late, seconds) = late(&mut watched) => {
                assert!(is_late);
                // It is looked at every five seconds.
                assert!((42..=47).contains(&seconds), "{seconds}");
            }
            () = answer => unreachable!(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_no_head_and_the_head_after_it_has_its_time() {
        let (mut watched, mut there) = connection();
        let exchange = watched.exchange();
        there.write_all(b"POST\r\n\r\n{}").await.unwrap();
        let mut bytes = [0; 10];
        watched.read_exact(&mut bytes).await.unwrap();
        exchange.begin();
        exchange.end();
        let idle = tokio::time::timeout(Duration::from_secs(20), late(&mut watched)).await;
        assert!(idle.is_err(), "{idle:?}");
        there.write_all(b"G").await.unwrap();
        assert_eq!(late(&mut watched).await, (true, 5));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_in_the_way_is_given_up_soon() {
        let (mut watched, _there) = connection();
        let exchange = watched.exchange();
        exchange.begin();
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
            watched.exchange().begin();
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
