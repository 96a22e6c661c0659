//! `sandbox`.

use std::net::SocketAddr;

use clap::Args;
use migration_gateway::{
    app::{self, Sandbox},
    sandbox::Service,
    telemetry,
};

use super::Failure;

/// Arguments of `sandbox`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The address of the gateway. Everybody who reaches it may do everything, so that it must be a
    /// loopback address.
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
    // A sandbox whose greeting nobody can read is of use all the same.
    app::sandbox(arguments.listen, |sandbox| {
        _ = super::print(&greeting(sandbox));
    })
    .map_err(|error| Failure::Other(super::sentence(&error)))
}

/// What whoever starts a sandbox reads first: where it is, and three lines to try.
fn greeting(sandbox: &Sandbox) -> String {
    let base = format!("http://{}", sandbox.address);
    let running = |service: Service, state: &str| {
        let task = sandbox
            .tasks
            .iter()
            .find(|task| task.service == service && task.state == state);
        task.map(|task| task.id.as_str()).unwrap_or_default()
    };
    let (oms, sms) = (running(Service::Oms, "2"), running(Service::Sms, "RUNNING"));
    format!(
        "\
Migration Gateway with a simulated cloud. Nothing real is touched.

  gateway   {base}
  API docs  {base}/docs

Try these in another terminal:

  curl {base}/tasks/{oms}
  curl -X DELETE '{base}/tasks/{oms}?force=pause'
  curl -X DELETE '{base}/tasks/{sms}?force=pause'

The first shows a running OMS task. The second pauses it, waits until it is paused, deletes it and makes sure that
it is gone. The third does the same for an SMS task. Stop with Ctrl-C; everything is forgotten then.
"
    )
}
