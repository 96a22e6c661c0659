//! Values that must never be shown.

use std::{
    cmp::Reverse,
    fmt::{self, Write as _},
    path::PathBuf,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

/// A secret text. Its `Debug` form is fixed, it has no `Display` and cannot be serialised; whoever
/// needs the text asks for it by name, so that every use can be found.
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

/// The text with [`MASK`] in the place of each of the secrets, as they are and as JSON, addresses
/// and headers write them.
pub fn masked<'a>(text: &str, secrets: impl IntoIterator<Item = &'a Secret>) -> String {
    Mask::new(secrets).masked(text)
}

/// What [`masked`] does, for many texts.
#[derive(Clone, Debug)]
pub struct Mask {
    /// In all ways.
    written: Vec<Secret>,
}

impl Mask {
    /// For these secrets.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Secret>) -> Self {
        let long = secrets
            .into_iter()
            .map(Secret::expose)
            .filter(|secret| secret.len() >= SHORTEST);
        let mut written: Vec<String> = long.flat_map(ways_to_write).collect();
        written.dedup();
        Self {
            written: written.into_iter().map(Secret::new).collect(),
        }
    }

    /// The text without the secrets of all these; `None` if there is none in it.
    pub fn apply_all(masks: &[&Self], text: &str) -> Option<String> {
        let written = masks.iter().flat_map(|mask| &mask.written);
        let mut found: Vec<&str> = written
            .map(Secret::expose)
            .filter(|secret| text.contains(secret))
            .collect();
        // One can be a part of the other.
        found.sort_by_key(|secret| Reverse(secret.len()));
        (!found.is_empty()).then(|| {
            let text = text.to_owned();
            found
                .into_iter()
                .fold(text, |text, secret| text.replace(secret, MASK))
        })
    }

    /// The text as [`masked`] gives it back.
    pub fn masked(&self, text: &str) -> String {
        Self::apply_all(&[self], text).unwrap_or_else(|| text.to_owned())
    }
}

fn ways_to_write(secret: &str) -> [String; 5] {
    let json = Value::from(secret).to_string();
    let json = json[1..json.len() - 1].to_owned();
    let percent = |mut text: String, byte: u8| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(byte.into());
        } else {
            // A string takes whatever is written to it.
            _ = write!(text, "%{byte:02X}");
        }
        text
    };
    [
        secret.to_owned(),
        json.replace('/', "\\/"),
        json,
        secret.bytes().fold(String::new(), percent),
        BASE64_STANDARD.encode(secret),
    ]
}

/// Where a secret is kept. It is read again and again, so that a changed one is used without a
/// restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// A file; the newline at its end does not belong to the secret.
    File(PathBuf),
    /// An environment variable.
    Env(String),
}

/// What a secret consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretForm {
    /// Any text without control characters: nobody can type one of those into a form for passwords.
    Text,
    /// Visible ASCII without blanks, as the vendor makes keys: they are parts of headers.
    Key,
}

impl SecretForm {
    /// Whether a text is of this form.
    pub fn fits(self, text: &str) -> bool {
        match self {
            Self::Text => !text.contains(char::is_control),
            Self::Key => text.bytes().all(|byte| byte.is_ascii_graphic()),
        }
    }
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
    /// It has characters that no such secret has, such as line ends in the middle.
    #[error("the secret in {0} has characters that no such secret has")]
    Malformed(String),
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

    #[test]
    fn a_secret_is_found_however_it_is_written() {
        let secret = [Secret::new("a/b+\"c\"=")];
        for written in [
            "a/b+\"c\"=",
            r#"a/b+\"c\"="#,
            r#"a\/b+\"c\"="#,
            "a%2Fb%2B%22c%22%3D",
            "YS9iKyJjIj0=",
        ] {
            let text = format!("<{written}>");
            assert_eq!(masked(&text, &secret), "<***>", "{written}");
        }
    }
}
