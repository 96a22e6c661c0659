//! The composition root: builds everything, runs it, and drains it. The only place that knows all.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener},
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
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use crate::{
    api,
    config::Config,
    domain::{
        access::{Caller, Permission},
        clock::{Clock, SystemClock},
        secret::SecretSource,
        service::{ProjectName, ServiceName, ServiceTraits, UpstreamError},
    },
    operations::{self, Operations, engine::Engine, engine::EngineError},
    sandbox::{self, Cloud, CloudOptions},
    store::{self, OpenError, SqlOperationStore},
    transport,
    upstream::{self, Lane, Pace, Upstream, UpstreamSetupError},
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

/// Serves until the process is told to stop by SIGTERM or SIGINT.
pub fn serve(config: Config) -> Result<(), Error> {
    System::new().block_on(async {
        let gateway = Gateway::start(config).await?;
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
        let config = sandbox_config(listen, &cloud, SecretSource::File(password), database);
        let gateway = Gateway::start(config).await?;
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
    operations: Operations,
    engine: Engine,
    store: Arc<SqlOperationStore>,
    upstream: Upstream,
    drain_timeout: Duration,
}

impl Gateway {
    /// Opens the record, makes ready for the cloud, starts the engine and listens.
    async fn start(config: Config) -> Result<Self, Error> {
        let listen = config.api.listen;
        // First of all, so that a second gateway on the same address fails before it touches anything.
        let listener = TcpListener::bind(listen).map_err(|source| Error::Listen(listen, source))?;
        let address = listener
            .local_addr()
            .map_err(|source| Error::Listen(listen, source))?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let mut registry = Registry::with_prefix("migration_gateway");
        let store = Arc::new(SqlOperationStore::open(&config.store).await?);
        let projects = config.upstream.projects.keys().cloned().collect();
        let upstream = Upstream::start(
            config.upstream,
            config.transport,
            Arc::clone(&clock),
            &mut registry,
        )?;

        let operation_metrics = operations::metrics::Metrics::default();
        operation_metrics.register(&mut registry);
        let operations = Operations::new(
            config.operations,
            Arc::<SqlOperationStore>::clone(&store),
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
            operations.clone(),
            api::Insight {
                registry: Arc::new(registry),
                metrics: request_metrics,
                status: Box::new(move || for_status.status()),
            },
        ));
        let for_workers = upstream.clone();
        let server = HttpServer::new(move || {
            let services = for_workers
                .services(Lane::Callers)
                .expect("the engine's thread has built the same from the same settings");
            api::app(state.clone(), Rc::new(services))
        })
        .workers(workers)
        .client_request_timeout(HEAD_TIMEOUT)
        .keep_alive(KEEP_ALIVE)
        .shutdown_timeout(drain_timeout.as_secs().max(1))
        .disable_signals()
        .listen(listener)
        .map_err(|source| Error::Listen(listen, source))?
        .run();
        Ok(Self {
            address,
            server,
            operations,
            engine,
            store,
            upstream,
            drain_timeout,
        })
    }

    /// Serves until a signal to stop comes, then drains. A hangup means that secrets have changed.
    async fn run(self) -> Result<(), Error> {
        let Self {
            server,
            operations,
            mut engine,
            store,
            upstream,
            drain_timeout,
            ..
        } = self;
        let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(Error::Signals)?;
        let handle = server.handle();
        let mut server = std::pin::pin!(server);
        loop {
            tokio::select! {
                ended = &mut server => return ended.map_err(Error::Server),
                () = engine.stopped() => return Err(Error::EngineLost),
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                _ = hangup.recv() => {
                    tracing::info!("looking at the files of secrets");
                    upstream.look_at_secrets();
                }
            }
        }
        tracing::info!("stopping: waiting requests are answered, rounds in flight end");
        operations.drain();
        let drained = async {
            // Until the last round has ended, probes and callers are told of the stop by an answer.
            let stopped = async {
                engine.stopped().await;
                stop(handle).await;
            };
            tokio::join!(stopped, async { _ = server.await });
        };
        if timeout(drain_timeout, drained).await.is_err() {
            tracing::warn!("the time to stop is over; what is left goes on after the next start");
        }
        if let Err(error) = store.close().await {
            tracing::warn!(error = error.with_causes(), "the record was not closed");
        }
        tracing::info!("stopped");
        Ok(())
    }
}

/// What the services are called, in the catalogue's order.
fn names(services: &[ServiceTraits]) -> Vec<&str> {
    services
        .iter()
        .map(|service| service.name.as_str())
        .collect()
}

/// Takes no more connections, and lets those that are answered come to their end.
async fn stop(handle: ServerHandle) {
    handle.stop(true).await;
}

/// The settings of a gateway in front of a simulated cloud, for whoever tries it out.
fn sandbox_config(
    listen: SocketAddr,
    cloud: &Cloud,
    password: SecretSource,
    database: std::path::PathBuf,
) -> Config {
    let account = cloud.account();
    let project = ProjectName::parse("sandbox").expect("the name is well formed");
    let endpoints: BTreeMap<ServiceName, String> = upstream::catalogue()
        .into_iter()
        .filter_map(|service| {
            let url = match service.name.as_str() {
                "oms" => cloud.oms_url(),
                "sms" => cloud.sms_url(),
                _ => return None,
            };
            Some((service.name, url))
        })
        .collect();
    let project_settings = upstream::ProjectSettings {
        project_id: account.project_id,
        region: account.region,
        services: endpoints.keys().cloned().collect(),
        iam_endpoint: cloud.iam_url(),
        endpoints,
        credentials: upstream::CredentialSettings::Password {
            domain: account.domain,
            user: account.user,
            password,
        },
    };
    Config {
        api: api::Settings {
            listen,
            public_url: None,
            workers: 2,
            default_wait: Duration::from_secs(30),
            max_wait: Duration::from_mins(2),
            drain_timeout: Duration::from_secs(5),
            max_body: 1 << 20,
            default_project: Some(project.clone()),
            anonymous: Caller::anonymous(Permission::ALL.iter().copied().collect()),
            callers: Vec::new(),
            storage_grants: BTreeMap::new(),
        },
        telemetry: crate::telemetry::Settings::default(),
        store: store::Settings { path: database },
        operations: operations::Settings {
            deadline: Duration::from_mins(30),
            poll_min: Duration::from_millis(500),
            poll_max: Duration::from_secs(10),
            concurrency: 64,
            history: Duration::from_hours(24),
        },
        transport: transport::Settings {
            connect_timeout: Duration::from_secs(3),
            request_timeout: Duration::from_secs(15),
            ca_file: None,
        },
        upstream: upstream::Settings {
            freshness: Duration::from_millis(500),
            projects: BTreeMap::from([(project, project_settings)]),
            storage_credentials: BTreeMap::new(),
            pace: Pace {
                requests_per_second: 50,
                burst: 100,
            },
        },
    }
}
