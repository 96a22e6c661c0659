//! What runs together: built in order, watched over, and drained.

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
    web,
};
use prometheus_client::registry::Registry;
use rustix::net::sockopt::set_socket_send_buffer_size;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
    time::timeout,
};

use super::{Error, names, server};
use crate::{
    api,
    audit::{self, Audit},
    config::Config,
    domain::{
        audit::AuditLog,
        clock::{Clock, SystemClock},
    },
    identity::Identities,
    listener::{Connections, Tls},
    operations::{self, Operations, engine::Engine},
    reload::Reload,
    store::SqlOperationStore,
    upstream::{self, Lane, Upstream},
};

/// How long each of the audit log and the record may take to be closed, after the time for
/// draining.
const CLOSING_MAX: Duration = Duration::from_secs(4);

/// How much of an answer the system holds for a caller, in bytes; it takes twice as much for
/// itself.
const SEND_BUFFER: usize = 64 * 1024;

/// Everything that runs.
pub(super) struct Gateway {
    pub(super) address: SocketAddr,
    server: Server,
    state: web::Data<api::State>,
    operations: Operations,
    engine: Engine,
    store: Arc<SqlOperationStore>,
    audit: Option<Arc<Audit>>,
    reload: Option<Reload>,
    pub(super) tls: Option<Tls>,
    upstream: Upstream,
    hangup: Signal,
    drain_timeout: Duration,
}

impl Gateway {
    /// Opens the record, makes ready for the cloud, starts the engine and listens. With a `path`,
    /// callers are read from it again when it changes.
    pub(super) async fn start(config: Config, path: Option<PathBuf>) -> Result<Self, Error> {
        let listen = config.api.listen;
        // First of all, so that a second gateway on the same address fails before it touches
        // anything.
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
        let connections = Connections::new(config.connections, &mut registry);
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

        let audit = start_audit(config.audit.as_ref(), &mut registry)?;
        let ports = (Arc::clone(&store), audit.clone(), clock);
        let operations = start_operations(config.operations, ports, &mut registry);
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
        let secured = (connections, tls.clone());
        let server = server::run(listener, secured, api, (workers, drain_timeout))
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

    /// Serves until a signal to stop comes, then drains. A hangup means that secrets or callers
    /// have changed.
    pub(super) async fn run(self) -> Result<(), Error> {
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
        let mut telling = std::pin::pin!(operations.tell_ends());
        let watching = watch(reload, tls.as_ref(), &upstream, hangup);
        tokio::select! {
            ended = &mut server => return ended.map_err(Error::Server),
            () = engine.stopped() => return Err(Error::EngineLost),
            () = upstream.lost() => return Err(Error::LoginsLost),
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            never = watching => match never {},
            // Returns after `drain` only, and is awaited again then.
            () = &mut telling => {}
            never = operations.follow_others() => match never {},
        }
        tracing::info!("stopping: waiting requests are answered, rounds in flight end");
        operations.drain();
        let drained = async {
            // Until the last round has ended and the last request is answered, probes and callers
            // are told of the stop by an answer.
            let stopped = async {
                tokio::join!(engine.stopped(), state.all_answered());
                stop(handle).await;
            };
            let ended = async {
                if let Err(error) = server.await {
                    tracing::warn!(%error, "the server failed while it stopped");
                }
            };
            tokio::join!(stopped, ended);
        };
        if timeout(drain_timeout, drained).await.is_err() {
            tracing::warn!("the time to stop is over; what is left goes on after the next start");
        }
        if let Some(audit) = audit {
            finish_audit(telling, &audit).await;
        }
        close(&store).await;
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

/// The operations, with those who stand behind their ports.
fn start_operations(
    settings: operations::Settings,
    (store, audit, clock): (Arc<SqlOperationStore>, Option<Arc<Audit>>, Arc<dyn Clock>),
    registry: &mut Registry,
) -> Operations {
    let metrics = operations::metrics::Metrics::default();
    metrics.register(registry);
    let audit = audit.map(|audit| audit as Arc<dyn AuditLog>);
    Operations::new(settings, store, audit, clock, metrics)
}

/// A listener and its address, whose port may have been left to the system.
fn bind(listen: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(listen)?;
    // Connections inherit it. Left to itself the system would buffer megabytes for each caller who
    // does not read.
    set_socket_send_buffer_size(&listener, SEND_BUFFER)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Tells the audit log what is still to be told, within a time.
async fn finish_audit(telling: impl Future<Output = ()>, audit: &Audit) {
    let last = async {
        telling.await;
        audit.close().await
    };
    if !matches!(timeout(CLOSING_MAX, last).await, Ok(Ok(()))) {
        tracing::warn!(
            "the audit log lacks ends of operations; they are told after the next start"
        );
    }
}

async fn close(store: &SqlOperationStore) {
    match timeout(CLOSING_MAX, store.close()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(error = error.with_causes(), "the record was not closed");
        }
        Err(_) => tracing::warn!("the record was not closed in time"),
    }
}

/// Takes no more connections, and lets those that are answered come to their end.
async fn stop(handle: ServerHandle) {
    handle.stop(true).await;
}
