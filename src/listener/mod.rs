//! Connections from callers: how many there may be, how long a caller may keep one waiting, and
//! TLS, section `server.tls` of the configuration.
//!
//! The certificate, its key and the authority of callers' certificates are files. They are looked
//! at once in a while and at a hangup, and are replaced together, so that each connection is made
//! with files that belong to each other; files with faults change nothing. Handshakes have a limit
//! in time and in number. Whom a certificate stands for is not decided here.

mod chunks;
mod connections;
mod exchange;
mod files;
mod framing;
mod handshakes;
mod metrics;
mod peer;
mod watched;

#[cfg(test)]
mod tests;

use std::{
    convert::Infallible,
    fmt,
    io::{self, ErrorKind},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use jiff::Timestamp;
use prometheus_client::registry::Registry;
use tokio::{
    net::TcpStream,
    sync::{Notify, Semaphore},
    task::spawn_blocking,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use self::{
    files::{Contents, Digest, Material},
    handshakes::Handshakes,
    metrics::Metrics,
};
use crate::domain::clock::Clock;

pub use self::{
    connections::{ConnectionLimits, Connections, Place},
    exchange::{Answering, Exchange, HEAD_TIMEOUT},
    files::{FileFault, Settings, TlsFile, Validity, check},
    framing::BodyLength,
    peer::Peer,
    watched::Watched,
};

/// The longest that a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the files are looked at. Their content is compared, not their dates: what a container
/// mounts changes by links.
const INTERVAL: Duration = Duration::from_secs(10);

/// How many readings of the files may be under way, those included that hang. Each takes a thread,
/// and none can be ended.
const READINGS_MAX: usize = 4;
/// The longest that a reading may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the files cannot be used.
#[derive(Debug)]
pub enum Faults {
    /// Each of these has a fault.
    Files(Vec<FileFault>),
    /// They were not read in time.
    Late,
}

impl fmt::Display for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Files(faults) = self else {
            return formatter.write_str("the files of server.tls were not read in time");
        };
        for (index, FileFault { file, message }) in faults.iter().enumerate() {
            let between = if index == 0 { "" } else { "; " };
            write!(formatter, "{between}server.tls.{} {message}", file.as_str())?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// What encrypts the connections from callers. Clones share it.
#[derive(Clone)]
pub struct Tls(Arc<Shared>);

struct Shared {
    settings: Settings,
    current: RwLock<Arc<Material>>,
    handshakes: Handshakes,
    asked: Notify,
    /// One is held by each reading, also by one that hangs and that nobody waits for any more.
    readings: Arc<Semaphore>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
}

impl Tls {
    /// Reads the files for the first time.
    pub fn start(
        settings: Settings,
        clock: Arc<dyn Clock>,
        registry: &mut Registry,
    ) -> Result<Self, Faults> {
        let material = Contents::read(&settings)
            .material()
            .map_err(Faults::Files)?;
        let metrics = Metrics::default();
        metrics.register(registry);
        metrics.expires(material.validity.expires_at);
        if !material.validity.covers(clock.now()) {
            tracing::warn!(
                begins_at = %material.validity.begins_at,
                expires_at = %material.validity.expires_at,
                "the certificate of the listener is not valid at this time: callers who check it stay away"
            );
        }
        Ok(Self(Arc::new(Shared {
            settings,
            current: RwLock::new(Arc::new(material)),
            handshakes: Handshakes::default(),
            asked: Notify::new(),
            readings: Arc::new(Semaphore::new(READINGS_MAX)),
            clock,
            metrics,
        })))
    }

    /// Makes an encrypted connection of a plain one, or closes it: at the latest after five
    /// seconds, and before that to make room when too many newer ones are being made. A certificate
    /// that is not to be trusted is an error too.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let accepted = self.handshake(stream).await;
        let result = match &accepted {
            Ok(_) => "ok",
            Err(error) if error.kind() == ErrorKind::TimedOut => "late",
            Err(error) if error.kind() == ErrorKind::QuotaExceeded => "shed",
            Err(error) if peer::is_about_certificate(error) => "certificate",
            Err(_) => "failed",
        };
        self.0.metrics.handshake(result);
        if let Err(error) = &accepted {
            // Whoever scans ports causes this: not for the log of every day.
            tracing::debug!(%error, result, "no encrypted connection came about");
        }
        accepted
    }

    async fn handshake(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let turn = self.0.handshakes.begin(stream.peer_addr()?.ip());
        let acceptor = TlsAcceptor::from(Arc::clone(&self.current().server));
        tokio::select! {
            accepted = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)) => accepted?,
            () = turn.displaced() => Err(ErrorKind::QuotaExceeded.into()),
        }
    }

    /// Has the files looked at soon.
    pub fn look_at_files(&self) {
        self.0.asked.notify_one();
    }

    /// Looks at the files for ever: once in a while, and when it is asked to.
    pub async fn watch(&self) -> Infallible {
        let mut told = self.current().digest;
        loop {
            let is_asked = tokio::select! {
                () = self.0.asked.notified() => true,
                () = sleep(INTERVAL) => false,
            };
            self.look(&mut told, is_asked).await;
        }
    }

    /// Reads the files, and uses them if they are others than those in use or somebody asks for it.
    /// Those that are refused are told of once, by what is in them, and tried at every look: a
    /// certificate becomes valid.
    async fn look(&self, told: &mut Digest, is_asked: bool) {
        let settings = self.0.settings.clone();
        let (in_use, before) = (self.current().digest, *told);
        let work = move || {
            let contents = Contents::read(&settings);
            let digest = contents.digest();
            let is_old = digest == in_use && digest == before;
            (!is_old || is_asked).then(|| (digest, contents.material().map_err(Faults::Files)))
        };
        let (digest, found) = match self.read(work).await {
            Some(None) => return,
            Some(Some((digest, read))) => (digest, read.and_then(|material| self.fit(material))),
            // What is in them is not known, and like nothing that is.
            None => (Digest::default(), Err(Faults::Late)),
        };
        *told = digest;
        match found {
            Ok(material) => self.take(material),
            Err(_) if digest == before && !is_asked => {}
            Err(faults) => self.refuse(&faults),
        }
    }

    /// What a reading gives within [`PATIENCE`]; `None` if it gives nothing by then.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let readings = Arc::clone(&self.0.readings);
        let reading = async {
            let place = readings.acquire_owned().await.ok()?;
            let work = move || {
                let result = read();
                drop(place);
                result
            };
            spawn_blocking(work).await.ok()
        };
        timeout(PATIENCE, reading).await.ok().flatten()
    }

    /// The material, unless its certificate is not valid at this time while the one in use is.
    fn fit(&self, material: Material) -> Result<Material, Faults> {
        let now = self.0.clock.now();
        if material.validity.covers(now) || !self.current().validity.covers(now) {
            return Ok(material);
        }
        Err(Faults::Files(vec![FileFault {
            file: TlsFile::Certificate,
            message: "is not valid at this time".to_owned(),
        }]))
    }

    fn take(&self, material: Material) {
        let (metrics, expires_at) = (&self.0.metrics, material.validity.expires_at);
        let has_changed = material.digest != self.current().digest;
        metrics.reloaded("ok", false);
        if has_changed {
            metrics.expires(expires_at);
            let mut current = self
                .0
                .current
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            *current = Arc::new(material);
        }
        tracing::info!(%expires_at, has_changed, "the files of the listener were read again");
    }

    fn refuse(&self, faults: &Faults) {
        self.0.metrics.reloaded("faulty", true);
        tracing::error!(
            %faults,
            "the files of the listener have faults: those before stay in use"
        );
    }

    fn current(&self) -> Arc<Material> {
        let current = self.0.current.read();
        Arc::clone(&current.unwrap_or_else(PoisonError::into_inner))
    }

    fn now(&self) -> Timestamp {
        self.0.clock.now()
    }
}
