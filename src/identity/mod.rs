//! Who asks: from the credentials of a request to a caller.
//!
//! [`Identities`] knows everybody whom the configuration lets in: callers with keys, bearers of
//! tokens that a configured issuer has signed, owners of client certificates, and whoever brings
//! nothing. What it knows is replaced as a whole when the configuration changes. Nothing of a
//! request is sent anywhere to find its caller: the keys of issuers are fetched by a thread of its
//! own, as seldom as if nobody asked, and at most once in 30 seconds more because somebody brings a
//! token with an unknown key.

mod algorithm;
mod directory;
mod keeper;
mod key_cache;
mod key_set;
mod metrics;
mod settings;
mod token;

#[cfg(test)]
mod tests;

use std::{
    io,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tracing::subscriber::NoSubscriber;

pub use self::{
    algorithm::Algorithm,
    settings::{ConfiguredCaller, IssuerSettings, Key, KeySource, KeySourceError, Settings},
};
use self::{
    directory::{Directory, Failure},
    key_cache::KeyCache,
    metrics::Metrics,
};
use crate::{
    domain::{access::Caller, clock::Clock, words::words},
    transport::{self, TransportSetupError},
};

/// The longest that a request waits for the keys of an issuer, while they are being fetched.
const PATIENCE: Duration = Duration::from_secs(2);

words! {
    /// How a caller said who they are.
    Method {
        /// By nothing.
        Anonymous = "anonymous",
        /// By a key of the configuration.
        Key = "key",
        /// By a token of a configured issuer.
        Token = "token",
        /// By a client certificate.
        Certificate = "certificate",
    }
}

/// A caller who is known, and how.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Who that is.
    pub caller: Arc<Caller>,
    /// How they said so.
    pub method: Method,
    /// From when on the credential is good no more.
    pub expires_at: Option<Timestamp>,
}

/// What a request brings to say who sends it.
#[derive(Clone, Debug, Default)]
pub struct Credentials<'a> {
    /// The values of all headers `Authorization`.
    pub authorization: Vec<&'a [u8]>,
    /// The certificate that the connection was made with.
    pub certificate: Option<PeerCertificate<'a>>,
}

/// What counts of a client certificate. Its chain, and that its sender has its key, was verified
/// when the connection was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCertificate<'a> {
    /// The alternative names of its subject of the kinds DNS and URI.
    pub names: &'a [String],
    /// When it ends.
    pub expires_at: Timestamp,
    /// Whether one of those who are trusted at present has signed it.
    pub is_trusted: bool,
}

words! {
    /// Why nobody is known to have sent a request. Also the label of the metric.
    Refusal {
        /// It has no credentials, and such requests may do nothing.
        Missing = "missing",
        /// It has more than one credential.
        Several = "several",
        /// What it has is neither a known key nor a token that an issuer known here could have
        /// made.
        Unknown = "unknown",
        /// No caller has one of the certificate's names.
        Certificate = "certificate",
        /// The certificate has ended since the connection was made.
        CertificateExpired = "certificate-expired",
        /// Who signed the certificate has not been trusted any more since the connection was made.
        CertificateUntrusted = "certificate-untrusted",
        /// The token is longer than any that is read, or not in the form of one.
        TokenForm = "token-form",
        /// The token's algorithm is not one that its issuer is configured for.
        TokenAlgorithm = "token-algorithm",
        /// The issuer has no such key.
        TokenKey = "token-key",
        /// The keys of the issuer are not there, or too old: nothing can be checked.
        IssuerKeys = "issuer-keys",
        /// The token was not signed with the key that it names.
        TokenSignature = "token-signature",
        /// The token has ended.
        TokenExpired = "token-expired",
        /// The token has not begun.
        TokenEarly = "token-early",
        /// The token is for somebody else.
        TokenAudience = "token-audience",
        /// A claim that is needed is missing or of a wrong form.
        TokenClaims = "token-claims",
    }
}

/// Why callers cannot be known at all.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Encrypted connections.
    #[error("the connection to the issuers of tokens cannot be set up")]
    Transport(#[from] TransportSetupError),
    /// The thread that fetches keys.
    #[error("the thread that fetches the keys of issuers cannot be started")]
    Thread(#[from] io::Error),
}

/// Everybody who may ask. Clones share what they know; the thread that fetches keys ends with the
/// last one.
#[derive(Clone)]
pub struct Identities(Arc<Shared>);

struct Shared {
    directory: RwLock<Arc<Directory>>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    /// Whose keys are to be fetched.
    wanted: watch::Sender<Vec<Arc<KeyCache>>>,
    /// Told when others are known than before.
    changes: watch::Sender<()>,
}

impl Identities {
    /// Starts the thread that fetches the keys of issuers. Nobody waits for them yet.
    pub fn start(
        settings: &Settings,
        transport: &transport::Settings,
        clock: Arc<dyn Clock>,
        registry: &mut Registry,
    ) -> Result<Self, IdentityError> {
        let metrics = Metrics::default();
        metrics.register(registry);
        let directory = Arc::new(Directory::new(settings, None));
        let (wanted, to_keep) = watch::channel(directory.key_caches());
        keeper::start(transport, to_keep, metrics.clone())?;
        Ok(Self(Arc::new(Shared {
            directory: RwLock::new(directory),
            clock,
            metrics,
            wanted,
            changes: watch::Sender::new(()),
        })))
    }

    /// Knows these from here on, and nobody else. The keys of an issuer that stays as it is are
    /// kept.
    pub fn replace(&self, settings: &Settings) {
        let mut current = self
            .0
            .directory
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let directory = Arc::new(Directory::new(settings, Some(&current)));
        self.0.wanted.send_replace(directory.key_caches());
        *current = directory;
        drop(current);
        self.0.changes.send_replace(());
    }

    /// Tells of every change of who is known, from here on.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.0.changes.subscribe()
    }

    /// Finds out who sent a request. The answer comes at once, unless the request has a token with
    /// a key that is not known and keys may be fetched or are being fetched: then it waits for
    /// these, 2 seconds at most.
    pub async fn identify(&self, credentials: &Credentials<'_>) -> Result<Identity, Refusal> {
        let found = match self.look_up(credentials) {
            Err(Failure::NoKey { cache, reason }) => {
                if self.has_seen_fetch(&cache).await {
                    self.look_up(credentials)
                } else {
                    Err(Failure::Refused(reason))
                }
            }
            found => found,
        };
        found.map_err(|failure| {
            let refusal = match failure {
                Failure::Refused(refusal)
                | Failure::NoKey {
                    reason: refusal, ..
                } => refusal,
            };
            self.0.metrics.refused(refusal);
            refusal
        })
    }

    /// Whether [`Identities::identify`] would refuse a request at once. That is neither counted nor
    /// logged.
    pub fn is_refused(&self, credentials: &Credentials<'_>) -> bool {
        let silent = NoSubscriber::default();
        let found = tracing::subscriber::with_default(silent, || self.look_up(credentials));
        matches!(found, Err(Failure::Refused(_)))
    }

    fn look_up(&self, credentials: &Credentials<'_>) -> Result<Identity, Failure> {
        let directory = self
            .0
            .directory
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        directory.identify(credentials, self.0.clock.now())
    }

    /// Waits for keys to be fetched, if they are. Whether such a fetch has ended, well or not.
    async fn has_seen_fetch(&self, cache: &KeyCache) -> bool {
        let Ok(_place) = cache.waiting.try_acquire() else {
            return false;
        };
        let Some(mut fetched) = cache.want(Instant::now()) else {
            return false;
        };
        matches!(
            tokio::time::timeout(PATIENCE, fetched.changed()).await,
            Ok(Ok(()))
        )
    }
}
