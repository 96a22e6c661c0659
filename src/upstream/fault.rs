//! What a failed exchange means to whoever asked for it.

use crate::{
    domain::service::{UpstreamError, UpstreamErrorKind},
    transport::{TransportError, TransportErrorKind},
};

/// The failure in the words of the port. `begun` begins the sentence; the transport, which names no address, says how it
/// ends.
pub(super) fn of_transport(begun: &str, error: TransportError) -> UpstreamError {
    use TransportErrorKind as Fault;
    let kind = match error.kind {
        Fault::Busy
        | Fault::Withdrawn
        | Fault::Resolve
        | Fault::Connect
        | Fault::Tls
        | Fault::Stale
        | Fault::Interrupted => UpstreamErrorKind::Unavailable,
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
        detail: format!("{begun}: {error}."),
    }
}
