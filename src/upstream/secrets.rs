//! Reading secrets from where they are kept.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
    time::Duration,
};

use tokio::{task::spawn_blocking, time::timeout};

use crate::domain::secret::{Secret, SecretError, SecretSource};

/// The largest secret that a file may hold.
const MAX_SIZE: u64 = 64 << 10;

/// The longest that the reading of a secret may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Reads a secret without holding up the thread, and within [`PATIENCE`]. Otherwise as [`resolve`].
pub(super) async fn read(source: &SecretSource) -> Result<Secret, SecretError> {
    let owned = source.clone();
    match timeout(PATIENCE, spawn_blocking(move || resolve(&owned))).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) | Err(_) => Err(SecretError::Late(place(source))),
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
pub(super) fn resolve(source: &SecretSource) -> Result<Secret, SecretError> {
    let text = match source {
        SecretSource::File(path) => file(path)?,
        SecretSource::Env(name) => variable(name)?,
    };
    if text.is_empty() {
        return Err(SecretError::Empty(place(source)));
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
    use std::{error::Error as _, fs};

    use super::{read, resolve};
    use crate::domain::secret::{SecretError, SecretSource};

    fn of_file(content: &[u8]) -> Result<String, SecretError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        resolve(&SecretSource::File(file.path().to_owned())).map(|s| s.expose().to_owned())
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
        assert_eq!(of_file(b" s3cret \t\n").unwrap(), " s3cret \t");
        assert_eq!(of_file(b"two\nlines\n").unwrap(), "two\nlines");
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
        assert!(matches!(resolve(&missing), Err(SecretError::File(..))));
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
        let (secret, written) = tokio::join!(read(&source), write);
        written.unwrap().unwrap();
        assert_eq!(secret.unwrap().expose(), "s3cret");
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
        let set = resolve(&SecretSource::Env("CARGO_PKG_NAME".to_owned())).unwrap();
        assert_eq!(set.expose(), env!("CARGO_PKG_NAME"));
        let unset = resolve(&SecretSource::Env(
            "MIGRATION_GATEWAY_UNSET_4711".to_owned(),
        ));
        assert!(matches!(unset, Err(SecretError::Env(_))));
    }
}
