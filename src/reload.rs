//! Callers change while the program runs: the configuration is read again when its file has another
//! content, and when a hangup (SIGHUP) asks for it.
//!
//! Only whom the gateway lets in changes (sections `access`, `callers` and `issuers`), from one
//! request to the next. Everything else is used as it was read at the start. A file with any fault
//! changes nothing, and one that is being written is waited for: a part of a configuration can be
//! one too.

use std::{
    convert::Infallible,
    error::Error as _,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::{Notify, Semaphore, oneshot},
    time::{sleep, timeout},
};

use crate::{
    config::{self, Config, fault::Faults},
    identity::Identities,
};

/// How often the file is looked at. Its content is compared, not its date: what a container mounts
/// changes by links.
const INTERVAL: Duration = Duration::from_secs(10);

/// For how long a file has to stay as it is before it is used.
const SETTLING: Duration = Duration::from_secs(1);
/// How many readings may be under way, those included that hang: what made them hang may have been
/// replaced meanwhile.
const READINGS_MAX: usize = 4;
/// The longest that a reading may take: the file, and what the secrets in it refer to.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most looks at a file that goes on changing, one after the other.
const LOOKS_MAX: u32 = 10;

/// Reads the configuration again.
pub struct Reload {
    path: PathBuf,
    identities: Identities,
    metrics: Metrics,
    /// The digest of what was last read, whether it was good or not. `None` at first, so that a
    /// change during the start is not missed.
    content: Option<Content>,
    used: Fingerprint,
    /// How many callers are in use.
    callers: usize,
    settling: Duration,
    /// One is held by each reading, also by one that hangs and that nobody waits for any more.
    readings: Arc<Semaphore>,
    /// Whether the log knows that the last reading failed.
    is_stuck: bool,
}

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("the configuration was not read in time")]
    Late,
    #[error("the reading of the configuration ended abnormally")]
    Lost,
    #[error("the thread that reads the configuration cannot be started")]
    Thread(#[from] std::io::Error),
}

/// The digest of a file's content; `None` if it could not be read.
type Content = Option<[u8; 32]>;

/// The settings as texts to be compared, never to be shown.
#[derive(PartialEq, Eq)]
struct Fingerprint {
    identity: String,
    rest: String,
}

impl Fingerprint {
    fn of(config: &Config) -> Self {
        let Config {
            api,
            connections,
            listener,
            audit,
            identity,
            telemetry,
            store,
            operations,
            transport,
            upstream,
        } = config;
        Self {
            identity: format!("{identity:?}"),
            rest: format!(
                "{api:?}{audit:?}{connections:?}{listener:?}{telemetry:?}{store:?}{operations:?}{transport:?}{upstream:?}"
            ),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Metrics {
    reloads: Family<Labels, Counter>,
    is_outdated: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    result: &'static str,
}

impl Reload {
    /// Nothing is read yet. `config` is what is in use.
    pub fn new(
        path: PathBuf,
        config: &Config,
        identities: Identities,
        registry: &mut Registry,
    ) -> Self {
        let metrics = Metrics::default();
        registry.register(
            "configuration_reloads",
            "Readings of the configuration file after a change or a hangup, by what became of them: ok, faulty or unread",
            metrics.reloads.clone(),
        );
        registry.register(
            "configuration_outdated",
            "1 while the configuration file has faults or cannot be read, so that an older one is in use",
            metrics.is_outdated.clone(),
        );
        Self {
            path,
            identities,
            metrics,
            content: None,
            used: Fingerprint::of(config),
            callers: config.identity.callers.len(),
            settling: SETTLING,
            readings: Arc::new(Semaphore::new(READINGS_MAX)),
            is_stuck: false,
        }
    }

    /// Looks at the file for ever: once in a while, and when it is told to.
    pub async fn watch(mut self, asked: &Notify) -> Infallible {
        loop {
            let is_asked = tokio::select! {
                () = asked.notified() => true,
                () = sleep(INTERVAL) => false,
            };
            self.look(is_asked).await;
        }
    }

    /// Reads the file, and uses what is in it if it is another one or somebody asks for it, once it
    /// stays as it is.
    async fn look(&mut self, is_asked: bool) {
        let Some(mut seen) = self.read(content).await else {
            return;
        };
        if !is_asked && self.content == Some(seen) {
            return;
        }
        for _ in 0..LOOKS_MAX {
            sleep(self.settling).await;
            // The content is read last: if it is still what was seen, the configuration was loaded
            // from that.
            let load = |path: &Path| (config::load(path), content(path));
            let Some((loaded, content)) = self.read(load).await else {
                return;
            };
            if content == seen {
                self.content = Some(content);
                match loaded {
                    Ok(config) => self.take(&config, is_asked),
                    Err(faults) => self.refuse(&faults),
                }
                return;
            }
            seen = content;
        }
        tracing::warn!(
            "the configuration file goes on changing: it is used once it stays as it is"
        );
    }

    /// What a reading gives within [`PATIENCE`]. `None`: it failed, which is told, and is tried
    /// again with the next look.
    async fn read<T: Send + 'static>(
        &mut self,
        read: impl FnOnce(&Path) -> T + Send + 'static,
    ) -> Option<T> {
        let (path, readings) = (self.path.clone(), Arc::clone(&self.readings));
        let reading = async {
            let place = readings
                .acquire_owned()
                .await
                .map_err(|_| ReadError::Lost)?;
            let (sender, result) = oneshot::channel();
            // A thread of its own, for which no runtime waits when the gateway stops.
            let thread = thread::Builder::new().name("reload".to_owned());
            thread.spawn(move || {
                let result = read(&path);
                drop(place);
                // Nobody may wait for it any more.
                _ = sender.send(result);
            })?;
            result.await.map_err(|_| ReadError::Lost)
        };
        let result = timeout(PATIENCE, reading).await;
        match result.unwrap_or(Err(ReadError::Late)) {
            Ok(result) => {
                self.is_stuck = false;
                Some(result)
            }
            Err(error) => {
                self.stick(&error);
                None
            }
        }
    }

    /// Notes that nobody knows what the configuration says. That is told once.
    fn stick(&mut self, error: &ReadError) {
        self.content = None;
        self.metrics.is_outdated.set(1);
        if !std::mem::replace(&mut self.is_stuck, true) {
            self.metrics.count("unread");
            tracing::error!(
                %error,
                cause = error.source().map(ToString::to_string),
                "the configuration cannot be read again: callers stay as they were"
            );
        }
    }

    fn take(&mut self, config: &Config, is_asked: bool) {
        let fresh = Fingerprint::of(config);
        let has_changed = fresh.identity != self.used.identity;
        self.metrics.is_outdated.set(0);
        if fresh.rest != self.used.rest {
            tracing::warn!(
                "settings beside those of callers have changed: they are used after a restart"
            );
        }
        if has_changed {
            self.identities.replace(&config.identity);
            self.used.identity = fresh.identity;
            let callers = config.identity.callers.len();
            if callers == 0 && self.callers > 0 {
                tracing::warn!(
                    "the configuration names no caller: every key and every certificate is refused"
                );
            }
            self.callers = callers;
        }
        if has_changed || is_asked {
            self.metrics.count("ok");
            let settings = &config.identity;
            tracing::info!(
                callers = settings.callers.len(),
                issuers = settings.issuers.len(),
                has_changed,
                "the configuration of callers was read again"
            );
        }
    }

    fn refuse(&self, faults: &Faults) {
        self.metrics.is_outdated.set(1);
        self.metrics.count("faulty");
        // One line for one change, whatever is wrong with it. No fault shows a value.
        let faults = faults.to_string().replace('\n', " ");
        tracing::error!(
            faults,
            "the configuration has faults: callers stay as they were"
        );
    }
}

impl Metrics {
    fn count(&self, result: &'static str) {
        self.reloads.get_or_create(&Labels { result }).inc();
    }
}

fn content(path: &Path) -> Content {
    let text = config::read_text(path).ok();
    text.map(|text| Sha256::digest(text).into())
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use super::*;
    use crate::domain::clock::SystemClock;

    fn text(folder: &Path, callers: &str) -> String {
        let secret = folder.join("secret");
        fs::write(&secret, "s3cret").unwrap();
        format!(
            "[projects.prod]\nproject_id = \"0215ef11e49d4743be23dd97a1561e91\"\nregion = \"cn-north-4\"\n\
             [projects.prod.credentials]\nkind = \"password\"\ndomain = \"acme\"\nuser = \"gateway\"\n\
             password = {{ file = \"{}\" }}\n{callers}",
            secret.display()
        )
    }

    fn caller(name: &str, digit: &str) -> String {
        let digest = digit.repeat(64);
        format!(
            "[callers.{name}]\nkey_sha256 = \"{digest}\"\npermissions = [\"*\"]\nprojects = [\"*\"]\n"
        )
    }

    #[tokio::test]
    async fn one_change_of_the_file_counts_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gateway.toml");
        let write = |callers: &str| fs::write(&path, text(folder.path(), callers)).unwrap();
        write(&caller("team-a", "a"));
        let config = config::load(&path).unwrap();
        let mut registry = Registry::default();
        let identities = Identities::start(
            &config.identity,
            &config.transport,
            Arc::new(SystemClock),
            &mut registry,
        )
        .unwrap();
        let mut reload = Reload::new(path.clone(), &config, identities, &mut registry);
        reload.settling = Duration::ZERO;
        let count = |reload: &Reload, result| {
            let labels = Labels { result };
            reload.metrics.reloads.get_or_create(&labels).get()
        };
        for (callers, ok, faulty) in [
            (caller("team-a", "a"), 0, 0),
            // Nothing that counts.
            (
                format!(
                    "# {}",
                    caller("team-a", "a").replace("[callers", "\n[callers")
                ),
                0,
                0,
            ),
            (caller("team-a", "b"), 1, 0),
            ("[callers.team-a]".to_owned(), 1, 1),
            ("[callers.team-b]".to_owned(), 1, 2),
            (caller("team-a", "b"), 1, 2),
            (caller("team-b", "b"), 2, 2),
        ] {
            write(&callers);
            for _ in 0..3 {
                reload.look(false).await;
                let counted = (count(&reload, "ok"), count(&reload, "faulty"));
                assert_eq!(counted, (ok, faulty), "{callers}");
            }
        }
        fs::remove_file(&path).unwrap();
        for _ in 0..3 {
            reload.look(false).await;
            assert_eq!(count(&reload, "faulty"), 3);
        }
        assert_eq!(reload.metrics.is_outdated.get(), 1);
    }
}
