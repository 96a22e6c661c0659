//! What a failed exchange means to whoever asked for it.

use std::time::Duration;

use crate::{
    domain::service::{UpstreamError, UpstreamErrorKind},
    transport::{TransportError, TransportErrorKind},
};

/// When it is worth to try again if all connections were in use: exchanges end all the time.
const BUSY_FOR: Duration = Duration::from_secs(1);

/// The failure in the words of the port. `begun` begins the sentence; the transport, which names no
/// address, says how it ends.
pub(super) fn of_transport(begun: &str, error: TransportError) -> UpstreamError {
    use TransportErrorKind as Fault;
    let kind = match error.kind {
        Fault::Busy => UpstreamErrorKind::Throttled,
        Fault::Withdrawn
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
        retry_after: (error.kind == Fault::Busy).then_some(BUSY_FOR),
        answer: None,
        detail: format!("{begun}: {error}."),
    }
}
