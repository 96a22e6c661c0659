//! The composition root: builds everything, runs it, and drains it. The only place that knows all.

mod sandbox_config;
mod server;

use std::{
    convert::Infallible,
    future::pending,
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use actix_web::{
    dev::{Server, ServerHandle},
    rt::System,
    web,
};
use prometheus_client::registry::Registry;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
    time::timeout,
};

use crate::{
    api,
    audit::{self, Audit},
    config::Config,
    domain::{
        audit::AuditLog,
        clock::{Clock, SystemClock},
        secret::SecretSource,
        service::{ProjectName, ServiceTraits, UpstreamError},
    },
    identity::{Identities, IdentityError},
    listener::{self, Tls},
    operations::{self, Operations, engine::Engine, engine::EngineError},
    reload::Reload,
    sandbox::{self, Cloud, CloudOptions},
    store::{OpenError, SqlOperationStore},
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
    /// The simulated cloud cannot be started.
    #[error("the simulated cloud cannot be started")]
    Cloud(#[source] io::Error),
    /// There is no place for temporary files.
    #[error("no temporary folder")]
    Folder(#[source] io::Error),
}

/// Serves until the process is told to stop by SIGTERM or SIGINT. `path` is the file that the configuration came from.
pub fn serve(config: Config, path: PathBuf) -> Result<(), Error> {
    System::new().block_on(async {
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

/// Serves a simulated cloud, and a gateway in front of it that lets everybody in, until the process is told to stop.
/// `listen` is a loopback address. `greet` is called once requests are answered.
pub fn sandbox(listen: SocketAddr, greet: impl FnOnce(&Sandbox)) -> Result<(), Error> {
    System::new().block_on(async {
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

/// Has the cloud let the gateway in once for each project, one after the other. Nothing is served and nothing changed.
pub fn log_in(config: Config) -> Result<Vec<Login>, Error> {
    System::new().block_on(async {
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

/// Everything that runs.
struct Gateway {
    address: SocketAddr,
    server: Server,
    state: web::Data<api::State>,
    operations: Operations,
    engine: Engine,
    store: Arc<SqlOperationStore>,
    audit: Option<Arc<Audit>>,
    reload: Option<Reload>,
    tls: Option<Tls>,
    upstream: Upstream,
    hangup: Signal,
    drain_timeout: Duration,
}

impl Gateway {
    /// Opens the record, makes ready for the cloud, starts the engine and listens. With a `path`, callers are read from it
    /// again when it changes.
    async fn start(config: Config, path: Option<PathBuf>) -> Result<Self, Error> {
        let listen = config.api.listen;
        // First of all, so that a second gateway on the same address fails before it touches anything.
        let (listener, address) = bind(listen).map_err(|source| Error::Listen(listen, source))?;
        // From here on a hangup does not end the process.
        let hangup = signal(SignalKind::hangup()).map_err(Error::Signals)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let mut registry = Registry::with_prefix("migration_gateway");
        let store = Arc::new(SqlOperationStore::open(&config.store).await?);
        let projects = config.upstream.projects.keys().cloned().collect();
        let identities = Identities::start(
            &config.identity,
            &config.transport,
            Arc::clone(&clock),
            &mut registry,
        )?;
        let reload = path.map(|path| Reload::new(path, &config, identities.clone(), &mut registry));
        let tls = config
            .listener
            .map(|settings| Tls::start(settings, Arc::clone(&clock), &mut registry))
            .transpose()?;
        let upstream = Upstream::start(
            config.upstream,
            config.transport,
            Arc::clone(&clock),
            &mut registry,
        )?;

        let operation_metrics = operations::metrics::Metrics::default();
        operation_metrics.register(&mut registry);
        let audit = start_audit(config.audit.as_ref(), &mut registry)?;
        let operations = Operations::new(
            config.operations,
            Arc::<SqlOperationStore>::clone(&store),
            audit.clone().map(|audit| audit as Arc<dyn AuditLog>),
            clock,
            operation_metrics,
        );
        let for_engine = upstream.clone();
        let engine = Engine::start(&operations, move || for_engine.services(Lane::Rounds))?;

        let request_metrics = api::metrics::Metrics::default();
        request_metrics.register(&mut registry);
        let (workers, drain_timeout) = (config.api.workers, config.api.drain_timeout);
        let for_status = upstream.clone();
        let state = web::Data::new(api::State::new(
            config.api,
            (projects, &names(&upstream::catalogue())),
            identities,
            operations.clone(),
            api::Insight {
                registry: Arc::new(registry),
                metrics: request_metrics,
                status: Box::new(move || for_status.status()),
            },
        ));
        let api = (state.clone(), upstream.clone());
        let server = server::run(listener, tls.clone(), api, (workers, drain_timeout))
            .map_err(|source| Error::Listen(listen, source))?;
        Ok(Self {
            address,
            server,
            state,
            operations,
            engine,
            store,
            audit,
            reload,
            tls,
            upstream,
            hangup,
            drain_timeout,
        })
    }

    /// Serves until a signal to stop comes, then drains. A hangup means that secrets or callers have changed.
    async fn run(self) -> Result<(), Error> {
        let Self {
            server,
            state,
            operations,
            mut engine,
            store,
            audit,
            reload,
            tls,
            upstream,
            hangup,
            drain_timeout,
            ..
        } = self;
        let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
        let handle = server.handle();
        let mut server = std::pin::pin!(server);
        let watching = watch(reload, tls.as_ref(), &upstream, hangup);
        tokio::select! {
            ended = &mut server => return ended.map_err(Error::Server),
            () = engine.stopped() => return Err(Error::EngineLost),
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            never = watching => match never {},
            never = operations.tell_ends() => match never {},
        }
        tracing::info!("stopping: waiting requests are answered, rounds in flight end");
        operations.drain();
        let drained = async {
            // Until the last round has ended and the last request is answered, probes and callers are told of the stop by
            // an answer.
            let stopped = async {
                tokio::join!(engine.stopped(), state.all_answered());
                stop(handle).await;
            };
            tokio::join!(stopped, async { _ = server.await });
        };
        if timeout(drain_timeout, drained).await.is_err() {
            tracing::warn!("the time to stop is over; what is left goes on after the next start");
        }
        if let Some(audit) = audit {
            finish_audit(&operations, &audit, drain_timeout).await;
        }
        if let Err(error) = store.close().await {
            tracing::warn!(error = error.with_causes(), "the record was not closed");
        }
        tracing::info!("stopped");
        Ok(())
    }
}

/// Takes up what changes while everything runs: files, when they are looked at or at a hangup.
async fn watch(
    reload: Option<Reload>,
    tls: Option<&Tls>,
    upstream: &Upstream,
    mut hangup: Signal,
) -> Infallible {
    let reload_now = Notify::new();
    let callers = async {
        match reload {
            Some(reload) => reload.watch(&reload_now).await,
            None => pending().await,
        }
    };
    let certificates = async {
        match tls {
            Some(tls) => tls.watch().await,
            None => pending().await,
        }
    };
    let hangups = async {
        loop {
            hangup.recv().await;
            tracing::info!("looking at the files of secrets");
            upstream.look_at_secrets();
            reload_now.notify_one();
            if let Some(tls) = tls {
                tls.look_at_files();
            }
        }
    };
    tokio::select! {
        never = callers => never,
        never = certificates => never,
        never = hangups => never,
    }
}

/// The audit log, if there is to be one.
fn start_audit(
    settings: Option<&audit::Settings>,
    registry: &mut Registry,
) -> Result<Option<Arc<Audit>>, Error> {
    let audit = settings.map(|settings| Audit::start(settings, registry));
    Ok(audit.transpose().map_err(Error::Audit)?.map(Arc::new))
}

/// A listener and its address, whose port may have been left to the system.
fn bind(listen: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(listen)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// What the services are called, in the catalogue's order.
fn names(services: &[ServiceTraits]) -> Vec<&str> {
    services
        .iter()
        .map(|service| service.name.as_str())
        .collect()
}

/// Tells the audit log what is still to be told, within a time.
async fn finish_audit(operations: &Operations, audit: &Audit, limit: Duration) {
    let last = async {
        operations.tell_last_ends().await;
        audit.close().await
    };
    if !matches!(timeout(limit, last).await, Ok(Ok(()))) {
        tracing::warn!(
            "the audit log lacks ends of operations; they are told after the next start"
        );
    }
}

/// Takes no more connections, and lets those that are answered come to their end.
async fn stop(handle: ServerHandle) {
    handle.stop(true).await;
}
