//! The stream under an exchange, made strict.
//!
//! The HTTP client takes the end of the stream for the end of a body, even when the announced
//! length or the last chunk is missing. Here the end is an error, so that a cut answer cannot pass
//! for a whole one; an answer that is whole by its own count is never read any further.

use std::{
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use actix_rt::net::{ActixStream, Ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::sent::sent;

/// Marks the loss of a connection that had answered before and was lost before the first byte of
/// this answer: the usual race with a peer that closes idle connections.
#[derive(Debug, thiserror::Error)]
#[error("the kept connection was closed")]
pub(super) struct Stale;

/// Whether an error is the loss of a kept connection, see [`Stale`].
pub(super) fn is_stale(error: &io::Error) -> bool {
    matches!(error.get_ref(), Some(inner) if inner.is::<Stale>())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Nothing of the first answer has come.
    First,
    /// Something of an answer has come, and nothing was sent since.
    Answered,
    /// A further request is going out, and nothing of its answer has come.
    Further,
}

/// A stream on which an end is an error.
#[derive(Debug)]
pub(super) struct Strict {
    stream: Box<dyn Stream>,
    turn: Turn,
}

/// What a connection is made of: TCP, or TLS on it.
pub(super) trait Stream: ActixStream + fmt::Debug {}

impl<T: ActixStream + fmt::Debug> Stream for T {}

impl Strict {
    pub(super) fn new(stream: Box<dyn Stream>) -> Self {
        Self {
            stream,
            turn: Turn::First,
        }
    }

    fn lost(&self, error: io::Error) -> io::Error {
        match self.turn {
            Turn::Further => io::Error::other(Stale),
            Turn::First | Turn::Answered => error,
        }
    }

    fn written(&mut self, result: io::Result<usize>) -> io::Result<usize> {
        if self.turn == Turn::Answered {
            self.turn = Turn::Further;
        }
        result.map_err(|error| self.lost(error))
    }
}

impl AsyncRead for Strict {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, room) = (buffer.filled().len(), buffer.remaining());
        let result = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        let ended = room > 0 && buffer.filled().len() == before;
        Poll::Ready(match result {
            Err(error) => Err(self.lost(error)),
            Ok(()) if ended => Err(self.lost(io::ErrorKind::UnexpectedEof.into())),
            Ok(()) => {
                self.turn = Turn::Answered;
                Ok(())
            }
        })
    }
}

impl AsyncWrite for Strict {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        sent(self.turn != Turn::First)?;
        let result = ready!(Pin::new(&mut self.stream).poll_write(context, bytes));
        Poll::Ready(self.written(result))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        sent(self.turn != Turn::First)?;
        let result = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, slices));
        Poll::Ready(self.written(result))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.stream).poll_flush(context));
        Poll::Ready(result.map_err(|error| self.lost(error)))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl ActixStream for Strict {
    fn poll_read_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        self.stream.poll_read_ready(context)
    }

    fn poll_write_ready(&self, context: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        self.stream.poll_write_ready(context)
    }
}
