//! What a failed exchange means to whoever asked for it.

use crate::{
    domain::service::{UpstreamError, UpstreamErrorKind},
    transport::{TransportError, TransportErrorKind},
};

/// The failure in the words of the port. The sentence is the transport's, which names no address.
pub(super) fn of_transport(error: TransportError) -> UpstreamError {
    use TransportErrorKind as Fault;
    let kind = match error.kind {
        Fault::Busy | Fault::Resolve | Fault::Connect | Fault::Tls | Fault::Interrupted => {
            UpstreamErrorKind::Unavailable
        }
        Fault::Timeout => UpstreamErrorKind::Timeout,
        Fault::Unsendable | Fault::Informational | Fault::Malformed | Fault::TooLarge => {
            UpstreamErrorKind::Malformed
        }
    };
    UpstreamError {
        kind,
        sent: error.sent,
        retry_after: None,
        answer: None,
        detail: error.to_string(),
    }
}
