//! The composition root: builds everything, runs it, and drains it. The only place that knows all.

mod gateway;
mod sandbox_config;
mod server;

use std::{io, mem, net::SocketAddr, path::PathBuf, sync::Arc};

use actix_web::rt::System;
use prometheus_client::registry::Registry;

use self::gateway::Gateway;
use crate::{
    api,
    config::Config,
    domain::{
        clock::SystemClock,
        secret::SecretSource,
        service::{ProjectName, ServiceTraits, UpstreamError},
    },
    identity::IdentityError,
    listener,
    operations::engine::EngineError,
    sandbox::{self, Cloud, CloudOptions},
    store::OpenError,
    upstream::{self, Lane, Upstream, UpstreamSetupError},
};

pub use crate::upstream::Admission;

/// Why the program could not begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] io::Error),
    /// The server broke off.
    #[error("the server failed")]
    Server(#[source] io::Error),
    /// Signals cannot be received.
    #[error("signals cannot be received")]
    Signals(#[source] io::Error),
    /// The record cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The cloud cannot be used as it is configured.
    #[error(transparent)]
    Upstream(#[from] UpstreamSetupError),
    /// The audit log cannot be begun.
    #[error("no thread for the audit log")]
    Audit(#[source] io::Error),
    /// Callers cannot be told apart.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Connections cannot be encrypted.
    #[error("connections cannot be encrypted")]
    Tls(#[from] listener::Faults),
    /// The engine cannot be started.
    #[error(transparent)]
    Engine(#[from] EngineError<UpstreamSetupError>),
    /// The engine's thread was lost: nothing would be driven any more.
    #[error("the engine broke off")]
    EngineLost,
    /// The thread that obtains credentials was lost: the cloud would let nobody in any more.
    #[error("the thread that logs in broke off")]
    LoginsLost,
    /// The simulated cloud cannot be started.
    #[error("the simulated cloud cannot be started")]
    Cloud(#[source] io::Error),
    /// There is no place for temporary files.
    #[error("no temporary folder")]
    Folder(#[source] io::Error),
}

/// Runs something to its end. What hangs then, as the reading of a file may for ever, is left to
/// the end of the process: a runtime that is dropped waits for it.
fn run<T>(work: impl Future<Output = T>) -> T {
    let system = System::new();
    let ended = system.block_on(work);
    mem::forget(system);
    ended
}

/// Serves until the process is told to stop by SIGTERM or SIGINT. `path` is the file that the
/// configuration came from.
pub fn serve(config: Config, path: PathBuf) -> Result<(), Error> {
    run(async {
        let gateway = Gateway::start(config, Some(path)).await?;
        tracing::info!(address = %gateway.address, tls = gateway.tls.is_some(), "serving");
        gateway.run().await
    })
}

/// What stands behind a sandbox, for the text that greets whoever starts one.
pub struct Sandbox {
    /// The address of the gateway.
    pub address: SocketAddr,
    /// The tasks that the simulated cloud began with.
    pub tasks: Vec<sandbox::TaskLine>,
}

/// Serves a simulated cloud, and a gateway in front of it that lets everybody in, until the process
/// is told to stop. `listen` is a loopback address. `greet` is called once requests are answered.
pub fn sandbox(listen: SocketAddr, greet: impl FnOnce(&Sandbox)) -> Result<(), Error> {
    run(async {
        let cloud = Cloud::start(CloudOptions::for_people()).map_err(Error::Cloud)?;
        let tasks = cloud.seed();
        let folder = tempfile::tempdir().map_err(Error::Folder)?;
        let password = folder.path().join("password");
        std::fs::write(&password, cloud.account().password).map_err(Error::Folder)?;
        let database = folder.path().join("operations.db");
        let config =
            sandbox_config::settings(listen, &cloud, SecretSource::File(password), database);
        let gateway = Gateway::start(config, None).await?;
        // For scripts, which can point other programs at the cloud itself too.
        tracing::info!(
            gateway = %format_args!("http://{}", gateway.address),
            iam = cloud.iam_url(),
            oms = cloud.oms_url(),
            sms = cloud.sms_url(),
            "the sandbox answers"
        );
        greet(&Sandbox {
            address: gateway.address,
            tasks,
        });
        gateway.run().await
    })
}

/// What became of the login of one project.
pub struct Login {
    /// The project.
    pub project: ProjectName,
    /// How the cloud let the gateway in, or why it did not.
    pub result: Result<Admission, UpstreamError>,
}

/// Has the cloud let the gateway in once for each project, one after the other. Nothing is served
/// and nothing changed.
pub fn log_in(config: Config) -> Result<Vec<Login>, Error> {
    run(async {
        let projects = config.upstream.projects.keys().cloned().collect::<Vec<_>>();
        let mut registry = Registry::default();
        let upstream = Upstream::start(
            config.upstream,
            config.transport,
            Arc::new(SystemClock),
            &mut registry,
        )?;
        let services = upstream.services(Lane::Callers)?;
        let mut logins = Vec::new();
        for project in projects {
            let result = upstream.log_in(&services, &project).await;
            logins.push(Login { project, result });
        }
        Ok(logins)
    })
}

/// The OpenAPI document, as JSON for people.
pub fn openapi() -> String {
    let services = upstream::catalogue();
    api::openapi(&names(&services))
}

/// What the services are called, in the catalogue's order.
fn names(services: &[ServiceTraits]) -> Vec<&str> {
    services
        .iter()
        .map(|service| service.name.as_str())
        .collect()
}
