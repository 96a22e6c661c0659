//! `sandbox`.

use std::net::SocketAddr;

use clap::Args;
use migration_gateway::{app, telemetry};

use super::Failure;

/// Arguments of `sandbox`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The address of the gateway. Everybody who reaches it may do everything, so that it must be a loopback address.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = loopback)]
    listen: SocketAddr,
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "it must be an address and a port, such as 127.0.0.1:8080")?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err("it must be a loopback address, because the sandbox lets everybody in".to_owned())
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    super::begin_logging(&telemetry::Settings::default())?;
    app::sandbox(arguments.listen).map_err(|error| Failure::Other(super::sentence(&error)))
}
