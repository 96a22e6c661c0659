//! The HTTP side.

use std::{net::SocketAddr, time::Duration};

use crate::domain::{access::Caller, service::ProjectName};

/// How requests are served: sections `server`, `access` and `callers` of the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// The base of absolute links; `None` for relative ones.
    pub public_url: Option<String>,
    /// Threads that serve requests.
    pub workers: usize,
    /// How long a request without `Prefer` waits for its operation.
    pub default_wait: Duration,
    /// The longest that a request may wait.
    pub max_wait: Duration,
    /// How long a stop may take.
    pub drain_timeout: Duration,
    /// The largest body of a request, in bytes.
    pub max_body: usize,
    /// The project that is meant when a request names none.
    pub default_project: Option<ProjectName>,
    /// Requests without credentials.
    pub anonymous: Caller,
    /// Callers with keys.
    pub callers: Vec<KeyedCaller>,
}

/// A caller and the digest of its key.
#[derive(Clone, Debug)]
pub struct KeyedCaller {
    /// SHA-256 of the key's bytes.
    pub key_sha256: [u8; 32],
    /// Who that is.
    pub caller: Caller,
}
