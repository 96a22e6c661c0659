//! Sections `access`, `callers` and `issuers` of the configuration.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use jiff::Timestamp;

use super::Algorithm;
use crate::{
    domain::{
        access::{Caller, Grant},
        service::IssuerName,
    },
    transport::{Endpoint, EndpointError},
};

/// Everybody who may ask.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Requests without credentials.
    pub anonymous: Caller,
    /// Callers who are named in the configuration.
    pub callers: Vec<ConfiguredCaller>,
    /// Whose tokens are taken.
    pub issuers: Vec<IssuerSettings>,
}

/// A caller who is named in the configuration, and what they are known by.
#[derive(Clone, Debug)]
pub struct ConfiguredCaller {
    /// Who that is.
    pub caller: Caller,
    /// Their keys; several so that one can take the place of another.
    pub keys: Vec<Key>,
    /// A name that the client certificate has: exactly this one.
    pub certificate: Option<String>,
}

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// SHA-256 of the key's bytes.
    pub sha256: [u8; 32],
    /// From when on the key is unknown.
    pub expires: Option<Timestamp>,
}

/// Whose tokens are taken, and what they allow.
#[derive(Clone, Debug)]
pub struct IssuerSettings {
    /// The name in the configuration, which the names of its callers begin with.
    pub name: IssuerName,
    /// What the claim `iss` must be.
    pub issuer: String,
    /// What the claim `aud` must be or hold.
    pub audience: String,
    /// Where its keys are.
    pub keys: KeySource,
    /// For how long keys are used after they were last seen there.
    pub keys_max_age: Duration,
    /// The algorithms that its tokens may be signed with.
    pub algorithms: Vec<Algorithm>,
    /// The claim that names the caller.
    pub caller_claim: String,
    /// The claim that holds the caller's groups.
    pub groups_claim: String,
    /// What members of each group may do.
    pub groups: BTreeMap<String, Grant>,
}

/// Where the keys of an issuer are, as a JSON Web Key Set (RFC 7517).
#[derive(Clone, PartialEq, Eq)]
pub enum KeySource {
    /// At an address: its base, and its path with the query.
    Url(Endpoint, String),
    /// In a file.
    File(PathBuf),
}

/// Why a text is not the address of a key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySourceError {
    /// The base cannot be used.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The path or the query has other characters than an address can have.
    #[error("the path of the address cannot be read")]
    Path,
}

impl KeySource {
    /// Reads `https://host[:port]/path[?query]`; `http://` for loopback addresses only.
    pub fn parse_url(text: &str) -> Result<Self, KeySourceError> {
        let authority = text.find("://").map_or(0, |at| at + 3);
        let path = text[authority..]
            .find(['/', '?', '#'])
            .map_or(text.len(), |at| authority + at);
        let (base, path) = text.split_at(path);
        let endpoint = Endpoint::parse(base)?;
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"#\"<>\\^`{|}".contains(&byte);
        if !path.starts_with('/') || !path.bytes().all(is_plain) {
            return Err(KeySourceError::Path);
        }
        Ok(Self::Url(endpoint, path.to_owned()))
    }
}

impl fmt::Debug for KeySource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(endpoint, path) => write!(formatter, "{endpoint}{path}"),
            Self::File(path) => write!(formatter, "{}", path.display()),
        }
    }
}
