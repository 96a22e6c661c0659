//! HTTP to the vendor.

use std::{path::PathBuf, time::Duration};

/// The limits of every exchange with the vendor: section `upstream` of the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The longest that a connection, TLS included, may take to be made.
    pub connect_timeout: Duration,
    /// The longest that one exchange may take, from the first byte of the request to the last of the answer.
    pub request_timeout: Duration,
    /// A PEM file with roots to trust besides the system's.
    pub ca_file: Option<PathBuf>,
}

/// The methods that the vendor's interfaces use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// Reads; may share a connection.
    Get,
    /// Changes; always on a connection of its own.
    Post,
    /// Changes; always on a connection of its own.
    Delete,
}

/// One request, relative to a base address that the transport was given.
#[derive(Clone, Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path, beginning with `/`, and the query if any, already encoded.
    pub path: String,
    /// The body, sent as `application/json`.
    pub body: Option<serde_json::Value>,
}

/// A complete answer, of whatever status.
#[derive(Clone, Debug)]
pub struct Response {
    /// The HTTP status, 200 to 599.
    pub status: u16,
    /// The whole body.
    pub body: bytes::Bytes,
    /// The vendor's id of the request, from `X-Request-Id`.
    pub request_id: Option<String>,
    /// How long the vendor asks to wait, from `Retry-After` (seconds or a date).
    pub retry_after: Option<Duration>,
}
