//! Connections whose callers must keep up, and whose requests are read one at a time.
//!
//! The framework limits the time for the first head on a connection, and nothing after it: a second head that never ends,
//! or an answer that is never read, would hold a connection for ever. It keeps a head of up to 128 KiB before anything is known
//! about who sends it, so that one that is too large is answered here, in the way in which the framework does it.

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

    /// Whether so much is kept that nothing is read, so that a reset does not show by itself.
    fn is_full(&self) -> bool {
        self.kept.len() >= KEPT_MAX
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
                return Poll::Ready(Ok(()));
            }
        }
        Poll::Pending
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Watched<T> {
    /// Says that the head is too large and ends this direction of the connection, unless that would have to wait.
    fn refuse(&mut self, context: &mut Context<'_>) {
        self.kept = Vec::new();
        self.exchange.part();
        let date = httpdate::fmt_http_date(SystemClock.now().into());
        let answer = format!(
            "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\ndate: {date}\r\n\r\n"
        );
        // Everything before it was taken, so that there is room for these few bytes.
        let written = Pin::new(&mut self.stream).poll_write(context, answer.as_bytes());
        if written.is_ready() {
            _ = Pin::new(&mut self.stream).poll_shutdown(context);
        }
    }

    /// Reads what still comes, for nobody. A connection that is closed with something unread in it is reset, and its caller may
    /// lose the answer.
    fn hear_out(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        loop {
            ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
            if buffer.filled().len() == before {
                return Poll::Ready(Ok(()));
            }
            buffer.set_filled(before);
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Socket + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let was_refused = self.exchange.is_too_large();
        let mut read = Poll::Pending;
        if !was_refused {
            read = self.read_on(context, buffer);
        }
        if self.exchange.is_too_large() {
            if !was_refused {
                self.refuse(context);
            }
            buffer.set_filled(before);
            read = self.hear_out(context, buffer);
        } else if self.exchange.is_broken() {
            // For the framework the connection ends before the byte that breaks the rule.
            self.kept = Vec::new();
            self.is_over = true;
            if read.is_pending() {
                read = Poll::Ready(Ok(()));
            }
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
