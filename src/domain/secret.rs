//! Values that must never be shown.

use std::{fmt, path::PathBuf};

use secrecy::{ExposeSecret as _, SecretString};

/// A secret text. Its `Debug` form is fixed, it has no `Display` and cannot be serialised; whoever needs the text
/// asks for it by name, so that every use can be found.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// The text itself. It goes into an outgoing request and nowhere else.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

/// What stands in the place of a secret or a name.
pub const MASK: &str = "***";
/// Nothing shorter is a secret, and it could be a part of any word.
pub const SHORTEST: usize = 6;

/// The text with [`MASK`] in the place of each of the secrets.
pub fn masked<'a>(text: &str, secrets: impl IntoIterator<Item = &'a Secret>) -> String {
    let mut secrets: Vec<&str> = secrets.into_iter().map(Secret::expose).collect();
    // One can be a part of the other.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    let long = secrets
        .into_iter()
        .filter(|secret| secret.len() >= SHORTEST);
    long.fold(text.to_owned(), |text, secret| text.replace(secret, MASK))
}

/// Where a secret is kept. It is read again and again, so that a changed one is used without a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// A file; the newline at its end does not belong to the secret.
    File(PathBuf),
    /// An environment variable.
    Env(String),
}

/// Why a secret could not be had. The message names the place and never the content.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file could not be read.
    #[error("the file {} cannot be read", .0.display())]
    File(PathBuf, #[source] std::io::Error),
    /// The variable is not set, or not valid text.
    #[error("the environment variable {0} is not set")]
    Env(String),
    /// It was not read in time: the file can be on a network.
    #[error("the secret in {0} was not read in time")]
    Late(String),
    /// There is nothing in it.
    #[error("the secret in {0} is empty")]
    Empty(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_shows_no_secret_that_could_not_be_any_word() {
        let secrets = ["inside", "around-inside", "word", ""].map(Secret::new);
        let text = "A word around-inside of inside, insides.";
        assert_eq!(masked(text, &secrets), "A word *** of ***, ***s.");
    }
}
