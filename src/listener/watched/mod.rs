//! Connections whose callers must keep up, and whose requests are read one at a time.
//!
//! The framework limits the time for the first head on a connection, and nothing after it: a second
//! head that never ends, or an answer that is never read, would hold a connection for ever. It
//! keeps a head of up to 128 KiB before anything is known about who sends it, so that one that is
//! too large is answered here, in the way in which the framework does it.

#[cfg(test)]
mod tests;

use std::{
    future::Future as _,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};
use tokio_rustls::server::TlsStream;

use super::{
    connections::Place,
    exchange::{Exchange, LOOK_EVERY},
};
use crate::domain::clock::{Clock as _, SystemClock};

/// A connection of the system, which knows of a reset before that is read.
pub trait Socket {
    /// An error if the connection has failed.
    fn check(&self) -> io::Result<()>;
}

impl Socket for TcpStream {
    fn check(&self) -> io::Result<()> {
        self.take_error()?.map_or(Ok(()), Err)
    }
}

impl Socket for TlsStream<TcpStream> {
    fn check(&self) -> io::Result<()> {
        self.get_ref().0.check()
    }
}

/// Nothing more is read while so much is kept for when the request in front is answered.
const KEPT_MAX: usize = 16 * 1024;

/// A connection that ends with an error when its caller does not keep up.
pub struct Watched<T> {
    stream: T,
    exchange: Exchange,
    /// What came behind the request that is being read.
    kept: Vec<u8>,
    /// Whether nothing comes behind that.
    is_over: bool,
    /// Whether a part of a body was handed on, so that it is the framework's turn to do something
    /// with it.
    has_given: bool,
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
            has_given: false,
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

    /// Whether so much is kept that nothing is read, so that a reset does not show by itself.
    fn is_full(&self) -> bool {
        self.kept.len() >= KEPT_MAX
    }

    /// An error if what is to be sent waits for the caller for too long.
    fn hold_out<R>(&mut self, sent: &Poll<R>, context: &mut Context<'_>) -> io::Result<()> {
        if sent.is_ready() {
            return Ok(());
        }
        self.full_since.get_or_insert_with(Instant::now);
        self.keep_up(context)
    }

    /// An error if the caller is late; else whoever waits is woken when that has to be asked again.
    fn keep_up(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        let head = self.exchange.limit();
        let (patience, look_again) = self.exchange.patience();
        let reader = self.full_since.map(|since| since + patience);
        let limit = [head, reader].into_iter().flatten().min();
        if limit.is_none() && !self.is_full() {
            return Ok(());
        }
        let look_again = look_again.or(self.is_full().then_some(LOOK_EVERY));
        loop {
            let now = Instant::now();
            if limit.is_some_and(|limit| limit <= now) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let look_at = look_again.map(|after| now + after);
            let Some(next) = limit.into_iter().chain(look_at).min() else {
                return Ok(());
            };
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
    /// Reads what belongs to the request in front. What comes behind it is read too, so that an end
    /// of the connection is noticed, and kept. Of a body the framework is given one part at a time:
    /// it reads on until nothing comes before it looks at what it has.
    fn read_on(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.has_given) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let next = &self.kept[..self.kept.len().min(buffer.remaining())];
        // An answer counts as taken by the framework's buffer, which has no end: whoever does not
        // read gets no further one.
        let is_blocked = self.full_since.is_some() && self.exchange.is_between();
        let taken = if is_blocked {
            0
        } else {
            self.exchange.take(next)
        };
        if taken > 0 || (self.kept.is_empty() && self.is_over) {
            buffer.put_slice(&self.kept[..taken]);
            self.kept.drain(..taken);
            if self.kept.is_empty() {
                self.kept = Vec::new();
            }
            self.has_given = taken > 0 && self.exchange.is_answering();
            return Poll::Ready(Ok(()));
        }
        while !self.is_over && !self.is_full() {
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
                self.has_given = taken > 0 && self.exchange.is_answering();
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Pending
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Watched<T> {
    /// Says that the head is too large, unless that would have to wait.
    fn refuse(&mut self, context: &mut Context<'_>) {
        let date = httpdate::fmt_http_date(SystemClock.now().into());
        let answer = format!(
            "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\ndate: {date}\r\n\r\n"
        );
        // Everything before it was taken, so that there is room for these few bytes.
        _ = Pin::new(&mut self.stream).poll_write(context, answer.as_bytes());
        self.part(context);
    }

    /// Ends this direction of the connection: the last answer was sent.
    fn part(&mut self, context: &mut Context<'_>) {
        self.exchange.part();
        self.kept = Vec::new();
        _ = Pin::new(&mut self.stream).poll_shutdown(context);
    }

    /// Reads what still comes, for nobody, once the last answer was sent. A connection that is
    /// closed with something unread in it is reset, and its caller may lose the answer.
    fn hear_out(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        while self.exchange.has_parted() {
            ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
            if buffer.filled().len() == before {
                return Poll::Ready(Ok(()));
            }
            buffer.set_filled(before);
        }
        Poll::Pending
    }
}

impl<T: AsyncRead + AsyncWrite + Socket + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let mut read = Poll::Pending;
        if !self.exchange.is_parting() {
            read = self.read_on(context, buffer);
        }
        if self.exchange.is_too_large() && !self.exchange.is_parting() {
            buffer.set_filled(before);
            self.refuse(context);
        }
        if self.exchange.is_parting() {
            read = self.hear_out(context, buffer);
        }
        if self.is_full() {
            self.stream.check()?;
        }
        self.exchange.keeps(!self.kept.is_empty());
        self.keep_up(context)?;
        if read.is_pending() {
            self.exchange.wait(context.waker());
        }
        read
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.hold_out(&written, context)?;
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Asked for when everything was written. An encrypted connection takes some of that before
        // it has a place for it.
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.hold_out(&flushed, context)?;
        if flushed.is_ready() && self.full_since.take().is_some() {
            self.exchange.wake();
        }
        if flushed.is_ready() && self.exchange.is_parting() && !self.exchange.has_parted() {
            self.part(context);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = Pin::new(&mut self.stream).poll_shutdown(context);
        self.hold_out(&ended, context)?;
        ended
    }
}
