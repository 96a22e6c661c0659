//! The composition root: builds everything, runs it, and drains it. The only place that knows all.

mod sandbox_config;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use actix_web::{
    HttpServer,
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
    audit::Audit,
    config::Config,
    domain::{
        audit::AuditLog,
        clock::{Clock, SystemClock},
        secret::SecretSource,
        service::{ProjectName, ServiceTraits, UpstreamError},
    },
    identity::{Identities, IdentityError},
    operations::{self, Operations, engine::Engine, engine::EngineError},
    reload::Reload,
    sandbox::{self, Cloud, CloudOptions},
    store::{OpenError, SqlOperationStore},
    upstream::{self, Lane, Upstream, UpstreamSetupError},
};

pub use crate::upstream::Admission;

/// The longest that the gateway waits for the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection without requests is kept.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

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
        tracing::info!(address = %gateway.address, "serving");
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
        let listener = TcpListener::bind(listen).map_err(|source| Error::Listen(listen, source))?;
        let address = listener
            .local_addr()
            .map_err(|source| Error::Listen(listen, source))?;
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
        let upstream = Upstream::start(
            config.upstream,
            config.transport,
            Arc::clone(&clock),
            &mut registry,
        )?;

        let operation_metrics = operations::metrics::Metrics::default();
        operation_metrics.register(&mut registry);
        let audit = config.audit.as_ref();
        let audit = audit.map(|settings| Audit::start(settings, &mut registry));
        let audit = audit.transpose().map_err(Error::Audit)?.map(Arc::new);
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
        let limits = (workers, drain_timeout);
        let server = server(listener, state.clone(), upstream.clone(), limits)
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
            upstream,
            mut hangup,
            drain_timeout,
            ..
        } = self;
        let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
        let reload_now = Notify::new();
        let watching = async {
            match reload {
                Some(reload) => reload.watch(&reload_now).await,
                None => std::future::pending().await,
            }
        };
        let handle = server.handle();
        let mut server = std::pin::pin!(server);
        let mut watching = std::pin::pin!(watching);
        let mut telling = Box::pin(operations.tell_ends());
        loop {
            tokio::select! {
                ended = &mut server => return ended.map_err(Error::Server),
                () = engine.stopped() => return Err(Error::EngineLost),
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                never = &mut watching => match never {},
                never = &mut telling => match never {},
                _ = hangup.recv() => {
                    tracing::info!("looking at the files of secrets");
                    upstream.look_at_secrets();
                    reload_now.notify_one();
                }
            }
        }
        tracing::info!("stopping: waiting requests are answered, rounds in flight end");
        operations.drain();
        drop(telling);
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

/// The server on a listener. The numbers: threads, and how long a stop may take.
fn server(
    listener: TcpListener,
    state: web::Data<api::State>,
    upstream: Upstream,
    (workers, drain_timeout): (usize, Duration),
) -> io::Result<Server> {
    let server = HttpServer::new(move || {
        let services = upstream
            .services(Lane::Callers)
            .expect("the engine's thread has built the same from the same settings");
        api::app(state.clone(), Rc::new(services))
    })
    .workers(workers)
    .client_request_timeout(HEAD_TIMEOUT)
    .keep_alive(KEEP_ALIVE)
    .shutdown_timeout(drain_timeout.as_secs().max(1))
    .disable_signals()
    .listen(listener)?;
    Ok(server.run())
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
