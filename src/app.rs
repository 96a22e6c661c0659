//! The composition root: builds everything, runs, and drains.

use std::net::SocketAddr;

use crate::config::Config;

/// Why the program could not begin or go on.
#[derive(Debug, thiserror::Error)]
#[error("this part of the program is not built")]
pub struct Error;

/// Serves until the process is told to stop.
pub fn serve(config: Config) -> Result<(), Error> {
    drop(config);
    Err(Error)
}

/// Serves a simulated cloud, and a gateway in front of it that lets everybody in, until the process is told to stop.
/// `listen` is a loopback address.
pub fn sandbox(listen: SocketAddr) -> Result<(), Error> {
    tracing::debug!(%listen, "the sandbox is not built");
    Err(Error)
}

/// The OpenAPI document, as JSON.
pub fn openapi() -> String {
    "{}".to_owned()
}
