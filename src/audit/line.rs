//! The form of a line, and the seal that binds it to all lines before it.
//!
//! A line is one JSON object of ASCII characters. Its last member `hmac` is the HMAC-SHA256, by the
//! key of the log, of the seal of the line before (32 bytes; zeros before the first line) and of
//! everything that stands in the line before this member.

use std::{fmt, io};

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use serde_json::ser::{CompactFormatter, Formatter};
use sha2::Sha256;

use crate::domain::secret::Secret;

/// The least that a key must have, in bytes.
pub const KEY_MIN: usize = 32;
/// The most characters of a value that a line holds.
const VALUE_MAX: usize = 512;
const BEFORE_SEAL: &[u8] = b",\"hmac\":\"";
const AFTER_SEAL: &[u8] = b"\"}";
const SEAL_DIGITS: usize = 64;

/// What binds a line to all lines before it.
pub(super) type Seal = [u8; 32];

/// The key of a log.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl Key {
    /// The key that a secret is, byte by byte; `None` if it is shorter than [`KEY_MIN`].
    pub fn new(secret: &Secret) -> Option<Self> {
        let bytes = secret.expose().as_bytes();
        if bytes.len() < KEY_MIN {
            return None;
        }
        Hmac::new_from_slice(bytes).ok().map(Self)
    }

    fn over(&self, before: &Seal, body: &[u8]) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(before);
        mac.update(body);
        mac
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

/// The last line so far: its number and its seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The number; 0 before the first line.
    pub seq: u64,
    pub(super) seal: Seal,
}

impl Head {
    /// Before the first line.
    pub(super) const NONE: Self = Self {
        seq: 0,
        seal: [0; 32],
    };
}

impl fmt::Display for Head {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.seq, hex::encode(self.seal))
    }
}

/// What begins a file, and what every start of the gateway and every recovery begins with.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Opened {
    /// Why: `start`, `rotation`, `recovery` or `replaced`.
    pub(super) reason: String,
    /// The seal of the line before.
    pub(super) previous: String,
    /// Whether this is the first line of its file.
    pub(super) new_file: bool,
    /// What stands between the line before and this one and is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) torn: Option<Torn>,
}

/// What a crash left behind.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct Torn {
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

/// What every line begins with, and what it says.
#[derive(Serialize)]
pub(super) struct Numbered<'a, T> {
    pub(super) seq: u64,
    pub(super) time: String,
    pub(super) kind: &'static str,
    #[serde(flatten)]
    pub(super) content: &'a T,
}

/// Writes a line that follows `before`, its end included, and gives the fresh head.
pub(super) fn seal<T: Serialize>(
    key: &Key,
    before: Head,
    (time, kind): (String, &'static str),
    content: &T,
) -> io::Result<(Vec<u8>, Head)> {
    let seq = before.seq + 1;
    let mut line = Vec::with_capacity(512);
    let numbered = Numbered {
        seq,
        time,
        kind,
        content,
    };
    let mut serializer = serde_json::Serializer::with_formatter(&mut line, Ascii(CompactFormatter));
    numbered.serialize(&mut serializer)?;
    // The brace at the end.
    line.pop();
    let seal: Seal = key.over(&before.seal, &line).finalize().into_bytes().into();
    line.extend_from_slice(BEFORE_SEAL);
    line.extend_from_slice(hex::encode(seal).as_bytes());
    line.extend_from_slice(AFTER_SEAL);
    line.push(b'\n');
    Ok((line, Head { seq, seal }))
}

/// A line that has the form of one. Whether it is genuine is another question.
pub(super) struct Sealed<'a> {
    body: &'a [u8],
    pub(super) seal: Seal,
    pub(super) seq: u64,
    /// If it is a line that opens.
    pub(super) opened: Option<Opened>,
}

#[derive(Deserialize)]
struct Start {
    seq: u64,
    kind: String,
}

impl<'a> Sealed<'a> {
    /// Reads a line without its end. `None` if it has not the form of one.
    pub(super) fn read(line: &'a [u8]) -> Option<Self> {
        let rest = line.strip_suffix(AFTER_SEAL)?;
        let (rest, digits) = rest.split_at(rest.len().checked_sub(SEAL_DIGITS)?);
        let body = rest.strip_suffix(BEFORE_SEAL)?;
        let seal = unhex(digits)?;
        let json = [body, b"}"].concat();
        let Start { seq, kind } = serde_json::from_slice(&json).ok()?;
        let opened = if kind == "opened" {
            Some(serde_json::from_slice(&json).ok()?)
        } else {
            None
        };
        Some(Self {
            body,
            seal,
            seq,
            opened,
        })
    }

    /// Whether this is what the holder of the key wrote behind `before`. The seals are compared in
    /// constant time.
    pub(super) fn follows(&self, key: &Key, before: Head) -> bool {
        before.seq.checked_add(1) == Some(self.seq)
            && key
                .over(&before.seal, self.body)
                .verify_slice(&self.seal)
                .is_ok()
    }

    /// What the line says it follows, if it opens.
    pub(super) fn claimed_before(&self) -> Option<Head> {
        Some(Head {
            seq: self.seq.checked_sub(1)?,
            seal: unhex(self.opened.as_ref()?.previous.as_bytes())?,
        })
    }

    pub(super) fn head(&self) -> Head {
        Head {
            seq: self.seq,
            seal: self.seal,
        }
    }
}

/// JSON without any character beside the visible ones of ASCII: a terminal, a viewer or another
/// program takes none of them for an order or the end of a line.
struct Ascii(CompactFormatter);

impl Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut units = [0; 2];
        for character in fragment.chars() {
            if (' '..='~').contains(&character) {
                writer.write_all(&[u8::try_from(character).unwrap_or(b'?')])?;
            } else {
                for unit in character.encode_utf16(&mut units) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
        }
        Ok(())
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }
}

/// A text of bounded length.
pub(super) fn bounded(text: &str) -> String {
    match text.char_indices().nth(VALUE_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
    }
}

/// Lower-case digits only, so that there is one way to write a seal.
fn unhex(digits: &[u8]) -> Option<Seal> {
    if digits.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    let mut seal = [0; 32];
    hex::decode_to_slice(digits, &mut seal).ok()?;
    Some(seal)
}
