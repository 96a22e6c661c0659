//! Reading secrets from where they are kept.
//!
//! A file is read whenever its secret is needed, so that a changed one is used at once. While it is empty, cannot be
//! read, or holds what no such secret is, what it held before serves.

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

/// How many readings of one path may be under way, those included that hang. Each takes a thread, and none can be ended.
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
    /// Held by whoever waits for a reading until its result is noted, so that what is noted last was read last.
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

    /// Reads a secret as [`resolve`] does, without holding up the thread and within [`PATIENCE`]. A file that is of no use
    /// is told of once, and until it is good again the secret is what it held before; an error only if that is not known.
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
        // Kept until the result is noted. Whoever has it when this is given up notes what becomes of that.
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

/// Reads a secret. A file is read to its end, at most 64 KiB, and the line ends behind the text are left out; a
/// variable is taken as it is. Nothing is kept, so that a changed secret is seen at the next call.
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
mod tests {
    use std::{error::Error as _, fs, sync::Weak, time::Duration};

    use prometheus_client::{encoding::text::encode, registry::Registry};

    use super::{PATIENCE, READINGS_MAX, Secrets, resolve};
    use crate::{
        domain::secret::{
            SecretError,
            SecretForm::{self, Key, Text},
            SecretSource,
        },
        upstream::metrics::Metrics,
    };

    fn of_file(content: &[u8]) -> Result<String, SecretError> {
        of_form(content, Text)
    }

    fn of_form(content: &[u8], form: SecretForm) -> Result<String, SecretError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        let source = SecretSource::File(file.path().to_owned());
        resolve(&source, form).map(|secret| secret.expose().to_owned())
    }

    #[test]
    fn a_key_is_visible_ascii_and_a_password_has_no_control_characters() {
        let all = "!\"#$%&'()*+,-./09:;<=>?@AZ[\\]^_`az{|}~";
        assert_eq!(of_form(all.as_bytes(), Key).unwrap(), all);
        assert_eq!(
            of_form("caf\u{e9} 1".as_bytes(), Text).unwrap(),
            "caf\u{e9} 1"
        );
        let neither = [
            "hidden\nhidden",
            "hidden\r\nhidden",
            "hidden\0",
            "hid\tden",
            "hidden\u{7f}",
        ];
        for content in neither.into_iter().chain(["hid den", "hidd\u{e9}n"]) {
            let error = of_form(content.as_bytes(), Key).unwrap_err();
            assert!(matches!(error, SecretError::Malformed(_)), "{content:?}");
            assert!(!format!("{error} {error:?}").contains("hid"), "{content:?}");
        }
        for content in neither {
            let result = of_form(content.as_bytes(), Text);
            assert!(
                matches!(result, Err(SecretError::Malformed(_))),
                "{content:?}"
            );
        }
    }

    #[test]
    fn the_line_ends_behind_a_secret_do_not_belong_to_it() {
        for content in [
            "s3 cret",
            "s3 cret\n",
            "s3 cret\r\n",
            "s3 cret\n\n",
            "s3 cret\r\n\r\n",
        ] {
            assert_eq!(of_file(content.as_bytes()).unwrap(), "s3 cret");
        }
        assert_eq!(of_file(b" s3cret  \n").unwrap(), " s3cret  ");
        assert_eq!(of_file(b"0123456789").unwrap(), "0123456789");
    }

    #[test]
    fn a_file_that_is_empty_missing_too_large_or_no_text_is_an_error() {
        assert!(matches!(of_file(b""), Err(SecretError::Empty(_))));
        assert!(matches!(of_file(b"\r\n\n"), Err(SecretError::Empty(_))));
        assert!(matches!(
            of_file(&vec![b'x'; 65537]),
            Err(SecretError::File(..))
        ));
        assert_eq!(of_file(&vec![b'x'; 65536]).unwrap().len(), 65536);
        let missing = SecretSource::File("/nonexistent/secret".into());
        assert!(matches!(
            resolve(&missing, Text),
            Err(SecretError::File(..))
        ));
    }

    #[tokio::test]
    async fn a_file_that_keeps_its_reader_waiting_does_not_keep_the_thread() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let source = SecretSource::File(pipe.clone());
        let write = tokio::task::spawn_blocking(move || fs::write(pipe, "s3cret\n"));
        // Both run on this one thread; neither end of a pipe opens before the other.
        let secrets = Secrets::new(Metrics::default());
        let (secret, written) = tokio::join!(secrets.read(&source, Text), write);
        written.unwrap().unwrap();
        assert_eq!(secret.unwrap().expose(), "s3cret");
    }

    /// Waits for what another thread does.
    fn until(condition: impl Fn() -> bool) {
        let mut looks = 0;
        while !condition() {
            looks += 1;
            assert!(looks < 10_000, "it never came");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Pipes whose readers wait until this is dropped, also when a test fails.
    #[derive(Default)]
    struct Pipes(Vec<std::path::PathBuf>);

    impl Drop for Pipes {
        fn drop(&mut self) {
            for pipe in &self.0 {
                // Opened for both, it waits for nobody.
                let both = fs::File::options().read(true).write(true).open(pipe);
                drop(both.unwrap());
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_hangs_is_read_once_and_another_in_its_place_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let source = SecretSource::File(path.clone());
        let secrets = Secrets::new(Metrics::default());
        let mut pipes = Pipes::default();
        for round in 1..=READINGS_MAX {
            let pipe = folder.path().join(format!("pipe-{round}"));
            let made = std::process::Command::new("mkfifo").arg(&pipe).status();
            assert!(made.unwrap().success());
            fs::hard_link(&pipe, &path).unwrap();
            pipes.0.push(pipe);
            // Others who come meanwhile, or later, take no thread each.
            let (late, too, ()) = tokio::join!(
                secrets.read(&source, Text),
                secrets.read(&source, Text),
                async {
                    let file = secrets.file(&path);
                    until(|| {
                        let last = file.readings.lock().unwrap().last().and_then(Weak::upgrade);
                        last.is_some_and(|reading| reading.inode.get().is_some())
                    });
                    tokio::time::advance(PATIENCE).await;
                }
            );
            assert_eq!((late.is_ok(), too.is_ok()), (round > 1, round > 1));
            for _ in 0..READINGS_MAX {
                let again = secrets.read(&source, Text).await;
                assert_eq!(again.is_ok(), round > 1);
            }
            assert!(secrets.is_unusable(&source));
            fs::remove_file(&path).unwrap();
            fs::write(&path, format!("secret-{round}")).unwrap();
            if round < READINGS_MAX {
                let read = secrets.read(&source, Text).await.unwrap();
                assert_eq!(read.expose(), format!("secret-{round}"));
                assert!(!secrets.is_unusable(&source));
            }
            fs::remove_file(&path).unwrap();
        }
        // There may be no more threads that hang.
        fs::write(&path, "other").unwrap();
        let last = format!("secret-{}", READINGS_MAX - 1);
        let read = secrets.read(&source, Text).await.unwrap();
        assert_eq!(read.expose(), last);
        drop(pipes);
        until(|| secrets.file(&path).begin().is_some());
        let read = secrets.read(&source, Text).await.unwrap();
        assert_eq!(read.expose(), "other");
    }

    #[tokio::test]
    async fn a_file_that_is_of_no_use_leaves_what_it_held_before() {
        let (metrics, mut registry) = (Metrics::default(), Registry::default());
        metrics.register(&mut registry);
        let unusable = || {
            let mut text = String::new();
            encode(&mut text, &registry).unwrap();
            let name = "upstream_secret_files_unusable ";
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().to_owned()
        };
        let secrets = Secrets::new(metrics);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let source = SecretSource::File(path.clone());
        let read = async || {
            let secret = secrets.read(&source, Key).await;
            secret.map(|secret| secret.expose().to_owned()).ok()
        };
        assert_eq!((read().await, unusable().as_str()), (None, "1"));
        for content in ["one", "two"] {
            fs::write(&path, content).unwrap();
            assert_eq!(read().await.as_deref(), Some(content));
            assert_eq!(unusable(), "0");
        }
        let spoil: [fn(&std::path::Path); 4] = [
            |path| fs::write(path, "\n").unwrap(),
            |path| fs::write(path, "th\nree").unwrap(),
            |path| fs::write(path, b"\xff").unwrap(),
            |path| fs::remove_file(path).unwrap(),
        ];
        for spoil in spoil {
            spoil(&path);
            for _ in 0..2 {
                assert_eq!(read().await.as_deref(), Some("two"));
                assert_eq!(unusable(), "1");
                assert!(secrets.is_unusable(&source));
            }
        }
        fs::write(&path, "three").unwrap();
        assert_eq!(read().await.as_deref(), Some("three"));
        assert!(!secrets.is_unusable(&source));
        assert_eq!(unusable(), "0");
    }

    #[test]
    fn no_message_holds_what_was_read() {
        let error = of_file(b"hidden\xff").unwrap_err();
        let cause = error.source().unwrap().to_string();
        assert!(!format!("{error} {error:?} {cause}").contains("hidden"));
    }

    #[test]
    fn a_variable_is_taken_as_it_is_and_must_be_set() {
        // Cargo sets this one for tests.
        let set = resolve(&SecretSource::Env("CARGO_PKG_NAME".to_owned()), Key).unwrap();
        assert_eq!(set.expose(), env!("CARGO_PKG_NAME"));
        let name = "MIGRATION_GATEWAY_UNSET_4711".to_owned();
        let unset = resolve(&SecretSource::Env(name), Key);
        assert!(matches!(unset, Err(SecretError::Env(_))));
    }
}
