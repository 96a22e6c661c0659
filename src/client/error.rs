//! What can come between a caller and a gateway.

use std::{io::ErrorKind, time::Duration};

use ureq::Timeout;

use super::Problem;

/// Why something could not be had from a gateway.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The settings cannot be used. The text is a sentence without its end.
    #[error("{0}")]
    Settings(String),
    /// Nothing was heard of the gateway, or not all of an answer.
    #[error("the gateway at {address} cannot be reached")]
    Unreachable {
        /// Its address.
        address: String,
        /// Why.
        #[source]
        source: Box<ureq::Error>,
    },
    /// Nothing was heard of the gateway for so long that it is taken for gone.
    #[error("the gateway at {address} said nothing for {} seconds", silence.as_secs())]
    Silent {
        /// Its address.
        address: String,
        /// For how long.
        silence: Duration,
    },
    /// Whatever answers there is no gateway, or something between it and here.
    #[error("what answers at {address} is not a gateway: {why}")]
    Foreign {
        /// The address.
        address: String,
        /// What shows it.
        why: String,
        /// The status of an answer that is not of the kind that a gateway gives.
        status: Option<u16>,
    },
    /// The gateway answered with an error.
    #[error("{0}")]
    Problem(Box<Problem>),
}

impl ClientError {
    /// Whether the gateway may have taken the request on, although there is no answer.
    pub fn may_have_arrived(&self) -> bool {
        let source = match self {
            Self::Unreachable { source, .. } => source,
            Self::Silent { .. } => return true,
            // Whatever stands before the gateway may have passed the request on, and not had its
            // answer.
            Self::Foreign { status, .. } => {
                return status.is_some_and(|status| status >= 500);
            }
            Self::Problem(problem) => return problem.is_unsure(),
            Self::Settings(_) => return false,
        };
        // Nothing is sent without a connection, a name that is known and a certificate that is
        // trusted.
        if let ureq::Error::Io(error) = &**source {
            let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
            let is_untrusted = matches!(cause, Some(rustls::Error::InvalidCertificate(_)));
            !is_untrusted
                && !matches!(
                    error.kind(),
                    ErrorKind::ConnectionRefused
                        | ErrorKind::HostUnreachable
                        | ErrorKind::NetworkUnreachable
                        | ErrorKind::AddrNotAvailable
                        | ErrorKind::PermissionDenied
                )
        } else if let ureq::Error::Timeout(limit) = &**source {
            !matches!(limit, Timeout::Connect | Timeout::Resolve)
        } else {
            matches!(&**source, ureq::Error::Protocol(_))
        }
    }
}
