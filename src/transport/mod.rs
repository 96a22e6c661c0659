//! HTTP to the vendor: the one place that opens connections, and only to configured base addresses.
//!
//! What it promises: an answer is either complete or an error, and tells whether it can belong to
//! another request; one time limit covers an exchange from connecting to the last byte; redirects
//! are never followed; a request that changes something has a connection of its own and is never
//! repeated here. What it does not do: it knows no vendor, no token and no status.

mod answer;
mod client;
mod connector;
mod endpoint;
mod error;
mod prepared;
mod sent;
mod strict;
#[cfg(test)]
pub(crate) mod tests;
mod tls;

use std::{fmt, path::PathBuf, time::Duration};

use bytes::Bytes;

pub use self::{
    client::{Place, Transport},
    endpoint::{Endpoint, EndpointError},
    error::{TransportError, TransportErrorKind},
    sent::{taken_along, until_sent, while_good},
    tls::TransportSetupError,
};
use crate::domain::secret::Secret;

/// The limits of every exchange with the vendor: section `upstream` of the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The longest that a connection, TLS included, may take to be made.
    pub connect_timeout: Duration,
    /// The longest that one exchange may take, from the search for its address to the last byte of
    /// the answer.
    pub request_timeout: Duration,
    /// A PEM file with roots to trust besides the system's.
    pub ca_file: Option<PathBuf>,
}

/// What one attempt may take, if that is less than the settings allow. The default is as much as
/// they allow.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest that it may take.
    pub time: Duration,
    /// Whether it has a connection of its own, also if it is a read.
    pub fresh_connection: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            time: Duration::MAX,
            fresh_connection: false,
        }
    }
}

/// The methods that the vendor's interfaces use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// It reads.
    Get,
    /// It changes something.
    Post,
    /// It changes something.
    Put,
    /// It changes something.
    Delete,
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// It only reads: it may share a connection.
    Read,
    /// It changes something: it has a connection of its own.
    Change,
}

impl Method {
    /// The word on the request line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }

    /// What requests of this method are for.
    pub fn purpose(self) -> Purpose {
        match self {
            Self::Get => Purpose::Read,
            Self::Post | Self::Put | Self::Delete => Purpose::Change,
        }
    }
}

/// One request, relative to a base address that the transport was given.
#[derive(Clone)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path, beginning with `/`, and the query if any, already encoded.
    pub path: String,
    /// The body, sent as [`CONTENT_TYPE`].
    pub body: Option<serde_json::Value>,
}

impl Request {
    /// The bytes of the body as they are sent.
    pub fn content(&self) -> Bytes {
        let text = self.body.as_ref().map(ToString::to_string);
        Bytes::from(text.unwrap_or_default())
    }
}

/// The media type that every request names, one without a body too.
pub const CONTENT_TYPE: &str = "application/json";

/// A header of one request, besides those that all have and that it cannot replace. Its value is
/// not shown, since most hold a credential.
#[derive(Clone, Debug)]
pub struct Header {
    /// The name, in lower case.
    pub name: &'static str,
    /// The value.
    pub value: Secret,
}

impl fmt::Debug for Request {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A body can hold a password or storage keys.
        formatter
            .debug_struct("Request")
            .field("method", &self.method)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// A complete answer, of whatever status.
#[derive(Clone)]
pub struct Response {
    /// The HTTP status, 200 to 599.
    pub status: u16,
    /// The whole body.
    pub body: Bytes,
    /// The vendor's id of the request, from `X-Request-Id`.
    pub request_id: Option<String>,
    /// How long the vendor asks to wait, from `Retry-After` (seconds or a date).
    pub retry_after: Option<Duration>,
    /// Whether its connection had carried another request before. A peer that sends an answer twice
    /// makes the second one look like the answer to the next request, so that such an answer counts
    /// for no more than it says itself.
    pub is_doubtful: bool,
}

impl fmt::Debug for Response {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A body can name users and accounts.
        formatter
            .debug_struct("Response")
            .field("status", &self.status)
            .field("request_id", &self.request_id)
            .finish_non_exhaustive()
    }
}

/// A complete answer to a login.
#[derive(Clone, Debug)]
pub struct LoginResponse {
    /// The answer.
    pub response: Response,
    /// The token, from `X-Subject-Token`. `None` unless the answer has exactly one such header, of
    /// 1 to 16384 visible ASCII characters.
    pub token: Option<Secret>,
}
