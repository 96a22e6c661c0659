//! Reading secrets from where they are kept.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use crate::domain::secret::{Secret, SecretError, SecretSource};

/// The largest secret that a file may hold.
const MAX_SIZE: u64 = 64 << 10;

/// Reads a secret. A file is read to its end, at most 64 KiB, and the line ends behind the text are left out; a
/// variable is taken as it is. Nothing is kept, so that a changed secret is seen at the next call.
pub(super) fn resolve(source: &SecretSource) -> Result<Secret, SecretError> {
    let (text, place) = match source {
        SecretSource::File(path) => (read(path)?, path.display().to_string()),
        SecretSource::Env(name) => (variable(name)?, name.clone()),
    };
    if text.is_empty() {
        return Err(SecretError::Empty(place));
    }
    Ok(Secret::new(text))
}

fn read(path: &Path) -> Result<String, SecretError> {
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

    use super::resolve;
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
