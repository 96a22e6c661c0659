//! What can go wrong with an exchange, and whether the request may have arrived all the same.

use std::{error::Error, io};

use awc::error::{ConnectError, PayloadError, SendRequestError};

use super::{Method, Purpose, connector, sent, strict};
use crate::domain::service::Sent;

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TransportErrorKind {
    /// The request cannot be written as HTTP: a path without its first `/`, or a token with
    /// characters that a header cannot hold.
    Unsendable,
    /// It was not good any more when it was about to be written, see [`super::while_good`].
    Withdrawn,
    /// Every connection was in use until it was too late to begin.
    Busy,
    /// The name of the host is not known.
    Resolve,
    /// No connection could be made in time.
    Connect,
    /// No encrypted connection could be made: the certificate was not accepted, the peer does not
    /// speak TLS, or there is no root certificate to trust.
    Tls,
    /// No complete answer within the time limit.
    Timeout,
    /// A kept connection ended before the first byte of the answer came: the usual race with a peer
    /// that closes idle ones.
    Stale,
    /// The connection ended before the head of an answer came.
    Interrupted,
    /// An answer of status 1xx, which nobody asked for.
    Informational,
    /// What came is not a complete HTTP answer.
    Malformed,
    /// The body of the answer is larger than 8 MiB, or than the limit that was given.
    TooLarge,
}

impl TransportErrorKind {
    fn sentence(self) -> &'static str {
        match self {
            Self::Unsendable => "the request could not be written",
            Self::Withdrawn => {
                "what the request rests on had come to its end before it was written"
            }
            Self::Busy => "every connection that the gateway allows itself was in use",
            Self::Resolve => "the name of the host could not be resolved",
            Self::Connect => "no connection could be made",
            Self::Tls => "no encrypted connection could be made",
            Self::Timeout => "no complete answer came within the time limit",
            Self::Stale | Self::Interrupted => "the connection ended before an answer came",
            Self::Informational => "an interim answer came that nobody had asked for",
            Self::Malformed => "the answer was cut or not in the form of HTTP",
            Self::TooLarge => "the answer was too large",
        }
    }

    /// Whether a failure of this kind happens before the first byte of the request is written.
    fn is_before_sending(self) -> bool {
        match self {
            Self::Unsendable
            | Self::Withdrawn
            | Self::Busy
            | Self::Resolve
            | Self::Connect
            | Self::Tls => true,
            Self::Timeout
            | Self::Stale
            | Self::Interrupted
            | Self::Informational
            | Self::Malformed
            | Self::TooLarge => false,
        }
    }
}

/// A failed exchange. The message holds no address, no header and nothing of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .kind.sentence())]
pub struct TransportError {
    /// What went wrong.
    pub kind: TransportErrorKind,
    /// Whether a request that changes something may have arrived. `No` for reads.
    pub sent: Sent,
    /// The status of an answer of which no more than the head came whole.
    pub status: Option<u16>,
}

impl TransportError {
    /// The failure of an exchange of this method.
    pub fn new(kind: TransportErrorKind, method: Method) -> Self {
        let sent = match method.purpose() {
            Purpose::Read => Sent::No,
            Purpose::Change if kind.is_before_sending() => Sent::No,
            Purpose::Change => Sent::Unknown,
        };
        Self {
            kind,
            sent,
            status: None,
        }
    }
}

impl From<SendRequestError> for TransportErrorKind {
    fn from(error: SendRequestError) -> Self {
        use awc::error::SendRequestError as E;
        match error {
            E::Connect(error) => connecting(&error),
            E::Url(_) | E::Http(_) => Self::Unsendable,
            E::Send(error) => interrupted(&error),
            E::Response(error) => answering(&error),
            E::Timeout => Self::Timeout,
            // None of these happens with HTTP/1.1 and a body in memory; they say nothing about what
            // was sent.
            E::H2(_) | E::TunnelNotSupported | E::Body(_) | E::Custom(..) | _ => Self::Interrupted,
        }
    }
}

impl From<PayloadError> for TransportErrorKind {
    fn from(error: PayloadError) -> Self {
        if matches!(error, PayloadError::Overflow) {
            Self::TooLarge
        } else {
            Self::Malformed
        }
    }
}

fn connecting(error: &ConnectError) -> TransportErrorKind {
    match error {
        ConnectError::Resolver(_) | ConnectError::NoRecords | ConnectError::Unresolved => {
            TransportErrorKind::Resolve
        }
        ConnectError::Io(error) if connector::is_handshake(error) => TransportErrorKind::Tls,
        ConnectError::Io(_) | ConnectError::Timeout => TransportErrorKind::Connect,
        ConnectError::SslIsNotSupported => TransportErrorKind::Unsendable,
        // The client says so when a peer reads the request and closes: the request may well have
        // been carried out.
        ConnectError::Disconnected | ConnectError::H2(_) | _ => TransportErrorKind::Interrupted,
    }
}

fn interrupted(error: &io::Error) -> TransportErrorKind {
    if strict::is_stale(error) {
        TransportErrorKind::Stale
    } else if sent::is_withdrawn(error) {
        TransportErrorKind::Withdrawn
    } else {
        TransportErrorKind::Interrupted
    }
}

/// What the client says about an answer that it cannot read. A failed read is among its reasons.
fn answering(error: &(dyn Error + 'static)) -> TransportErrorKind {
    match error.source().and_then(|cause| cause.downcast_ref()) {
        Some(cause) => interrupted(cause),
        None => TransportErrorKind::Malformed,
    }
}
