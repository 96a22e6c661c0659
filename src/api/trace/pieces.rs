//! Bodies of answers, handed out in pieces.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll, ready},
};

use actix_web::{
    body::{BodySize, BoxBody, MessageBody},
    web::Bytes,
};

use crate::listener::Answering;

/// The largest piece. The framework copies each into the buffer of its connection, and asks for no
/// more while that has enough in it: whoever does not read costs little more than this, however
/// large what they asked for is.
const PIECE_MAX: usize = 16 * 1024;

/// A body in pieces, and the request that it answers: that ends with it.
struct Pieces {
    body: BoxBody,
    /// What is left of what the body gave at once.
    rest: Bytes,
    answering: Option<Answering>,
}

impl Pieces {
    /// Whether the body of the request broke a rule, so that its connection ends: an answer without
    /// an end of its own ends too.
    fn is_given_up(&self) -> bool {
        let is_broken = self.answering.as_ref().is_some_and(Answering::is_broken);
        is_broken && self.body.size() == BodySize::Stream
    }
}

/// The same body in pieces. `answering` is dropped with it.
pub(super) fn in_pieces(body: BoxBody, answering: Option<Answering>) -> BoxBody {
    BoxBody::new(Pieces {
        body,
        rest: Bytes::new(),
        answering,
    })
}

impl MessageBody for Pieces {
    type Error = Box<dyn Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        // Nobody has to be woken: what reads the connection is polled together with this, and
        // before it.
        if self.is_given_up() {
            return Poll::Ready(None);
        }
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_next(context)) {
                Some(Ok(bytes)) => self.rest = bytes,
                end => return Poll::Ready(end),
            }
        }
        let length = self.rest.len().min(PIECE_MAX);
        Poll::Ready(Some(Ok(self.rest.split_to(length))))
    }
}

#[cfg(test)]
mod tests {
    use actix_web::body::to_bytes;

    use super::*;

    #[tokio::test]
    async fn no_piece_is_large_and_nothing_is_lost() {
        let bytes: Vec<u8> = (0..100_000_u32)
            .map(|number| number.to_le_bytes()[0])
            .collect();
        let mut body = Box::pin(in_pieces(BoxBody::new(bytes.clone()), None));
        assert_eq!(body.size(), BodySize::Sized(100_000));
        let mut found = Vec::new();
        while let Some(piece) =
            std::future::poll_fn(|context| body.as_mut().poll_next(context)).await
        {
            let piece = piece.unwrap();
            assert!(piece.len() <= PIECE_MAX);
            found.extend_from_slice(&piece);
        }
        assert_eq!(found, bytes);
        let none = in_pieces(BoxBody::new(()), None);
        assert_eq!(none.size(), BodySize::Sized(0));
        assert!(to_bytes(none).await.unwrap().is_empty());
    }
}
