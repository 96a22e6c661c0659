//! Who fetches the keys of issuers: one thread, so that no request does.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Read as _},
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    task::{AbortHandle, JoinSet, LocalSet, spawn_blocking},
    time::timeout,
};

use super::{
    IdentityError, KeySource, key_cache::COOL_DOWN, key_cache::KeyCache, key_set::KeySet,
    metrics::Metrics,
};
use crate::transport::{self, Transport, TransportError};

/// The largest key set that is read, in bytes.
const SET_MAX: usize = 1 << 20;
/// The longest that the reading of a file may take: it can be on a network.
const FILE_PATIENCE: Duration = Duration::from_secs(5);

/// How many readings of one file may be under way, those included that hang. Each takes a thread,
/// and none can be ended.
const READINGS_MAX: usize = 4;

/// Why there are no fresh keys.
#[derive(Debug)]
enum FetchError {
    Transport(TransportError),
    Status(u16),
    File(io::Error),
    Late,
    TooLarge,
    NoKeySet,
}

impl FetchError {
    /// The label of the metric.
    fn kind(&self) -> &'static str {
        match self {
            Self::Transport(_) => "unreachable",
            Self::Status(_) => "status",
            Self::File(_) | Self::Late => "file",
            Self::TooLarge | Self::NoKeySet => "malformed",
        }
    }
}

impl fmt::Display for FetchError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transport(error) => error.fmt(formatter),
            Self::Status(status) => write!(formatter, "the answer had status {status}"),
            Self::File(error) => write!(formatter, "the file cannot be read: {error}"),
            Self::Late => formatter.write_str("the file was not read in time"),
            Self::TooLarge => formatter.write_str("the key set is larger than 1 MiB"),
            Self::NoKeySet => formatter.write_str("it is no key set"),
        }
    }
}

/// Starts the thread. It keeps the keys of whoever is wanted, and ends when nobody can want
/// anything any more.
pub(super) fn start(
    limits: &transport::Settings,
    wanted: watch::Receiver<Vec<Arc<KeyCache>>>,
    metrics: Metrics,
) -> Result<(), IdentityError> {
    let (ready, built) = std::sync::mpsc::sync_channel(1);
    let limits = limits.clone();
    thread::Builder::new()
        .name("identity".to_owned())
        .spawn(move || {
            // The client is bound to its thread, so it is built here, and its faults are handed
            // out.
            match prepare(&limits) {
                Ok((runtime, transport)) => {
                    let _ = ready.send(Ok(()));
                    LocalSet::new().block_on(&runtime, run(Rc::new(transport), wanted, metrics));
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            }
        })?;
    built
        .recv()
        .map_err(|_| io::Error::other("it ended at once"))?
}

fn prepare(
    limits: &transport::Settings,
) -> Result<(tokio::runtime::Runtime, Transport), IdentityError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok((runtime, Transport::new(limits)?))
}

async fn run(
    transport: Rc<Transport>,
    mut wanted: watch::Receiver<Vec<Arc<KeyCache>>>,
    metrics: Metrics,
) {
    let mut tasks = JoinSet::new();
    let mut kept: Vec<(Arc<KeyCache>, AbortHandle)> = Vec::new();
    loop {
        let caches = wanted.borrow_and_update().clone();
        kept.retain(|(cache, task)| {
            let stays = caches.iter().any(|other| Arc::ptr_eq(cache, other));
            if !stays {
                task.abort();
            }
            stays
        });
        for cache in caches {
            if !kept.iter().any(|(known, _)| Arc::ptr_eq(known, &cache)) {
                let keeping = keep(Rc::clone(&transport), Arc::clone(&cache), metrics.clone());
                kept.push((cache, tasks.spawn_local(keeping)));
            }
        }
        if wanted.changed().await.is_err() {
            return;
        }
    }
}

/// Fetches the keys of one issuer for ever: at once, when it is time, and when somebody wants them.
async fn keep(transport: Rc<Transport>, cache: Arc<KeyCache>, metrics: Metrics) {
    let (mut health, mut left_out, mut readings) = (None, 0, Readings::new());
    loop {
        cache.begin();
        let fetched = fetch(&transport, &cache.source, &mut readings).await;
        let result = match &fetched {
            Ok(keys) if keys.is_empty() => "no-keys",
            Ok(_) => "ok",
            Err(error) => error.kind(),
        };
        metrics.fetched(&cache.issuer, result);
        let pause = if fetched.is_ok() {
            cache.refresh_after()
        } else {
            COOL_DOWN.min(cache.refresh_after())
        };
        health = Some(tell(&cache, &fetched, health));
        left_out = tell_left_out(&cache, &fetched, left_out);
        cache.end(fetched.ok(), Instant::now());
        // Woken early if somebody wants them.
        let _ = timeout(pause, cache.wanted.notified()).await;
    }
}

/// How the keys of an issuer are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    /// As the issuer shows them.
    Fresh,
    /// None: the issuer shows none that can be used.
    Withdrawn,
    /// As the issuer showed them some time ago.
    Old,
    /// Not there, or too old to be used.
    Missing,
}

/// The log has the changes only: the beginning and the end of an outage, and when it lasts too
/// long.
fn tell(cache: &KeyCache, fetched: &Result<KeySet, FetchError>, before: Option<Health>) -> Health {
    let issuer = &cache.issuer;
    let health = match fetched {
        Ok(keys) if keys.is_empty() => Health::Withdrawn,
        Ok(_) => Health::Fresh,
        Err(_) if cache.is_usable(Instant::now()) => Health::Old,
        Err(_) => Health::Missing,
    };
    let error = fetched.as_ref().err().map(ToString::to_string);
    if before == Some(health) {
        return health;
    }
    match health {
        Health::Fresh => tracing::info!(%issuer, "the keys of an issuer were fetched"),
        Health::Withdrawn => {
            tracing::warn!(%issuer, "an issuer shows no key that can be used; its tokens are refused");
        }
        Health::Old => {
            tracing::warn!(%issuer, error, "the keys of an issuer cannot be fetched; the old ones are used");
        }
        Health::Missing => {
            tracing::error!(%issuer, error, "there are no keys of an issuer; its tokens are refused");
        }
    }
    health
}

/// Says that an issuer has more keys than are kept, when their number changes; gives it.
fn tell_left_out(cache: &KeyCache, fetched: &Result<KeySet, FetchError>, before: usize) -> usize {
    let left_out = fetched.as_ref().map_or(before, KeySet::left_out);
    if left_out > 0 && left_out != before {
        let issuer = &cache.issuer;
        tracing::warn!(%issuer, left_out, "an issuer shows more keys than are kept; the rest is left out");
    }
    left_out
}

async fn fetch(
    transport: &Transport,
    source: &KeySource,
    readings: &mut Readings,
) -> Result<KeySet, FetchError> {
    let text = match source {
        KeySource::Url(endpoint, path) => {
            let answer = transport.fetch(endpoint, path, SET_MAX).await;
            let answer = answer.map_err(FetchError::Transport)?;
            if answer.status != 200 {
                return Err(FetchError::Status(answer.status));
            }
            answer.body.to_vec()
        }
        KeySource::File(path) => {
            readings.retain(|reading| !reading.is_finished());
            if readings.len() >= READINGS_MAX {
                return Err(FetchError::Late);
            }
            let path = path.clone();
            let reading = spawn_blocking(move || read(path));
            readings.push(reading.abort_handle());
            let read = timeout(FILE_PATIENCE, reading).await;
            read.map_err(|_| FetchError::Late)?
                .map_err(|error| FetchError::File(io::Error::other(error)))??
        }
    };
    KeySet::parse(&text).ok_or(FetchError::NoKeySet)
}

/// Readings of one file that are under way, also those that nobody waits for any more.
type Readings = Vec<AbortHandle>;

fn read(path: PathBuf) -> Result<Vec<u8>, FetchError> {
    // Opening a pipe waits for whoever writes to it.
    if !fs::metadata(&path).map_err(FetchError::File)?.is_file() {
        return Err(FetchError::File(io::Error::other("it is no regular file")));
    }
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(SET_MAX as u64 + 1).read_to_end(&mut text))
        .map_err(FetchError::File)?;
    if text.len() > SET_MAX {
        return Err(FetchError::TooLarge);
    }
    Ok(text)
}
