//! Reading secrets from where they are kept.
//!
//! A file is read whenever its secret is needed, so that a changed one is used at once. While it is
//! empty, cannot be read, or holds what no such secret is, what it held before serves.

use std::{
    collections::HashMap,
    error::Error as _,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    task::spawn_blocking,
    time::{Instant, timeout_at},
};

use super::metrics::Metrics;
use crate::domain::secret::{Secret, SecretError, SecretForm, SecretSource};

/// The largest secret that a file may hold.
const MAX_SIZE: u64 = 64 << 10;

/// The longest that the reading of a secret may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// How many readings of one path may be under way, those included that hang. Each takes a thread,
/// and none can be ended.
const READINGS_MAX: usize = 4;

/// After what time a reading that nobody waits for any more is taken for one that hangs.
const HANGS_AFTER: Duration = Duration::from_secs(1);

/// Reads secrets, and remembers what files held. Clones share the memory.
#[derive(Clone)]
pub(super) struct Secrets {
    files: Arc<Mutex<HashMap<PathBuf, Arc<SecretFile>>>>,
    metrics: Metrics,
}

#[derive(Default)]
struct SecretFile {
    /// Held by whoever waits for a reading until its result is noted, so that what is noted last
    /// was read last.
    turn: tokio::sync::Mutex<()>,
    /// Those that are under way, also those that nobody waits for any more.
    readings: Mutex<Vec<Weak<Reading>>>,
    known: Mutex<Known>,
}

/// One reading, for as long as it is under way.
struct Reading {
    begun: Instant,
    /// What it reads, once that is known.
    inode: OnceLock<Inode>,
}

/// What a path leads to: a device and a number on it.
type Inode = (u64, u64);

#[derive(Default)]
struct Known {
    /// What it held when it was last of use.
    last: Option<Secret>,
    is_unusable: bool,
}

impl Secrets {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self {
            files: Arc::default(),
            metrics,
        }
    }

    /// Reads a secret as [`resolve`] does, without holding up the thread and within [`PATIENCE`]. A
    /// file that is of no use is told of once, and until it is good again the secret is what it
    /// held before; an error only if that is not known.
    pub(super) async fn read(
        &self,
        source: &SecretSource,
        form: SecretForm,
    ) -> Result<Secret, SecretError> {
        let SecretSource::File(path) = source else {
            return resolve(source, form);
        };
        let file = self.file(path);
        let by = Instant::now() + PATIENCE;
        let late = || SecretError::Late(place(source));
        // Kept until the result is noted. Whoever has it when this is given up notes what becomes
        // of that.
        let Ok(_turn) = timeout_at(by, file.turn.lock()).await else {
            return self.known(source).ok_or_else(late);
        };
        let found = timeout_at(by, file.look(path, source, form)).await;
        let found = found.unwrap_or_else(|_| Err(late()));
        let mut known = file.known.lock().unwrap_or_else(PoisonError::into_inner);
        self.note(path, &mut known, found)
    }

    /// A secret as far as it is known without waiting: what a file held when it was last of use.
    pub(super) fn known(&self, source: &SecretSource) -> Option<Secret> {
        let SecretSource::File(path) = source else {
            return resolve(source, SecretForm::Key).ok();
        };
        let file = self.file(path);
        let known = file.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.last.clone()
    }

    /// Whether a secret is in a file that was of no use when it was last read.
    pub(super) fn is_unusable(&self, source: &SecretSource) -> bool {
        let SecretSource::File(path) = source else {
            return false;
        };
        let file = self.file(path);
        let known = file.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.is_unusable
    }

    /// What is known of a file. There are as many as the configuration names.
    fn file(&self, path: &Path) -> Arc<SecretFile> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(files.entry(path.to_owned()).or_default())
    }

    /// Tells of changes, and gives what can be used.
    fn note(
        &self,
        path: &Path,
        known: &mut Known,
        found: Result<Secret, SecretError>,
    ) -> Result<Secret, SecretError> {
        let file = path.display();
        let is_unusable = found.is_err();
        let is_news = is_unusable != known.is_unusable;
        known.is_unusable = is_unusable;
        if is_news {
            self.metrics.secret_file_unusable(is_unusable);
        }
        match found {
            Ok(secret) => {
                let last = known.last.replace(secret.clone());
                if is_news {
                    tracing::info!(%file, "a secret file can be used again");
                } else if last.is_some_and(|last| last.expose() != secret.expose()) {
                    tracing::info!(%file, "a secret file has changed");
                }
                Ok(secret)
            }
            Err(error) => {
                if is_news {
                    tracing::warn!(
                        %file,
                        %error,
                        cause = error.source().map(ToString::to_string),
                        has_earlier_content = known.last.is_some(),
                        "a secret file cannot be used"
                    );
                }
                known.last.clone().ok_or(error)
            }
        }
    }
}

impl SecretFile {
    /// Reads the file on another thread, unless it is one whose reading hangs.
    async fn look(
        &self,
        path: &Path,
        source: &SecretSource,
        form: SecretForm,
    ) -> Result<Secret, SecretError> {
        let late = || SecretError::Late(place(source));
        let (reading, hung) = self.begin().ok_or_else(late)?;
        let (path, source) = (path.to_owned(), source.clone());
        let work = move || {
            // A file that is not there is told of by whoever opens it.
            if let Ok(file) = fs::metadata(path) {
                let inode = (file.dev(), file.ino());
                if hung.contains(&inode) {
                    return Err(SecretError::Late(place(&source)));
                }
                reading.inode.get_or_init(|| inode);
            }
            resolve(&source, form)
        };
        spawn_blocking(work).await.unwrap_or_else(|_| Err(late()))
    }

    /// A reading, and the files whose reading hangs; `None` if there are too many of them.
    fn begin(&self) -> Option<(Arc<Reading>, Vec<Inode>)> {
        let mut readings = self.readings.lock().unwrap_or_else(PoisonError::into_inner);
        readings.retain(|reading| reading.strong_count() > 0);
        if readings.len() >= READINGS_MAX {
            return None;
        }
        let others = readings.iter().filter_map(Weak::upgrade);
        let hung = others.filter(|other| other.begun.elapsed() >= HANGS_AFTER);
        let hung = hung
            .filter_map(|other| other.inode.get().copied())
            .collect();
        let reading = Arc::new(Reading {
            begun: Instant::now(),
            inode: OnceLock::new(),
        });
        readings.push(Arc::downgrade(&reading));
        Some((reading, hung))
    }
}

fn place(source: &SecretSource) -> String {
    match source {
        SecretSource::File(path) => path.display().to_string(),
        SecretSource::Env(name) => name.clone(),
    }
}

/// Reads a secret. A file is read to its end, at most 64 KiB, and the line ends behind the text are
/// left out; a variable is taken as it is. Nothing is kept, so that a changed secret is seen at the
/// next call.
pub(super) fn resolve(source: &SecretSource, form: SecretForm) -> Result<Secret, SecretError> {
    let text = match source {
        SecretSource::File(path) => file(path)?,
        SecretSource::Env(name) => variable(name)?,
    };
    if text.is_empty() {
        return Err(SecretError::Empty(place(source)));
    }
    if !form.fits(&text) {
        return Err(SecretError::Malformed(place(source)));
    }
    Ok(Secret::new(text))
}

fn file(path: &Path) -> Result<String, SecretError> {
    let failed = |error| SecretError::File(path.to_owned(), error);
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_SIZE + 1).read_to_end(&mut bytes))
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_SIZE {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    // The error of the conversion holds the bytes, so it goes no further.
    let mut text =
        String::from_utf8(bytes).map_err(|_| failed(io::ErrorKind::InvalidData.into()))?;
    while text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a secret reference may name a variable"
)]
fn variable(name: &str) -> Result<String, SecretError> {
    std::env::var(name).map_err(|_| SecretError::Env(name.to_owned()))
}

#[cfg(test)]
mod tests;
