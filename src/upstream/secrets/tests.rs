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
