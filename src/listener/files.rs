//! From files to what a connection is made with.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use rustls::{
    Error, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
};
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::domain::words::words;

/// The largest file that is read, in bytes.
const LARGEST_FILE: u64 = 1 << 20;

/// Where the files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The certificate that callers see, and after it those between it and its authority (PEM).
    pub certificate: PathBuf,
    /// The key of the certificate (PEM).
    pub private_key: PathBuf,
    /// Whose certificates of callers are trusted (PEM); `None` if callers are not asked for
    /// certificates.
    pub client_ca: Option<PathBuf>,
}

words! {
    /// One of the files, by its key in section `server.tls`.
    TlsFile {
        /// The certificate.
        Certificate = "certificate",
        /// Its key.
        PrivateKey = "private_key",
        /// The authority of callers' certificates.
        ClientCa = "client_ca",
    }
}

/// Why a file cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub struct FileFault {
    /// Which file.
    pub file: TlsFile,
    /// The rest of a sentence that begins with it. It shows nothing of what is in the file.
    pub message: String,
}

/// Between which moments a certificate is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// From here on.
    pub begins_at: Timestamp,
    /// Until here.
    pub expires_at: Timestamp,
}

impl Validity {
    /// Whether a moment is between them.
    pub fn covers(&self, moment: Timestamp) -> bool {
        self.begins_at <= moment && moment < self.expires_at
    }

    /// What a certificate says, if that can be read.
    pub(super) fn of(certificate: &X509Certificate<'_>) -> Option<Self> {
        let validity = certificate.validity();
        Some(Self {
            begins_at: Timestamp::from_second(validity.not_before.timestamp()).ok()?,
            expires_at: Timestamp::from_second(validity.not_after.timestamp()).ok()?,
        })
    }
}

/// What the content of the files is known by.
pub(super) type Digest = [u8; 32];

/// What is in the files, good or not.
pub(super) struct Contents {
    certificate: io::Result<Vec<u8>>,
    private_key: io::Result<Vec<u8>>,
    client_ca: Option<io::Result<Vec<u8>>>,
}

/// What connections are made with.
pub(super) struct Material {
    pub(super) server: Arc<ServerConfig>,
    /// Who says which certificates of callers are to be trusted.
    pub(super) clients: Option<Arc<dyn ClientCertVerifier>>,
    pub(super) validity: Validity,
    pub(super) digest: Digest,
}

/// Whether the files can be used: until when their certificate is valid, or everything that is
/// wrong with them.
pub fn check(settings: &Settings) -> Result<Validity, Vec<FileFault>> {
    let material = Contents::read(settings).material()?;
    Ok(material.validity)
}

impl Contents {
    pub(super) fn read(settings: &Settings) -> Self {
        Self {
            certificate: read(&settings.certificate),
            private_key: read(&settings.private_key),
            client_ca: settings.client_ca.as_deref().map(read),
        }
    }

    pub(super) fn digest(&self) -> Digest {
        let files = [&self.certificate, &self.private_key];
        let mut all = Sha256::new();
        for file in files.into_iter().chain(&self.client_ca) {
            // A file that cannot be read is like none other.
            let digest = file.as_ref().map(Sha256::digest).unwrap_or_default();
            all.update(digest);
        }
        all.finalize().into()
    }

    /// Puts the files together, or says everything that is wrong with them.
    pub(super) fn material(&self) -> Result<Material, Vec<FileFault>> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut faults = Vec::new();
        let chain = bytes(&self.certificate).and_then(chain);
        let chain = keep(&mut faults, TlsFile::Certificate, chain);
        let key = bytes(&self.private_key).and_then(private_key);
        let key = keep(&mut faults, TlsFile::PrivateKey, key);
        let clients = self.client_ca.as_ref().and_then(|file| {
            let found = bytes(file).and_then(|pem| verifier(pem, &provider));
            keep(&mut faults, TlsFile::ClientCa, found)
        });
        let pair = chain.zip(key).and_then(|((chain, validity), key)| {
            let found = pair(chain, key, &provider);
            Some((keep(&mut faults, TlsFile::PrivateKey, found)?, validity))
        });
        let (pair, validity) = match pair {
            Some(pair) if faults.is_empty() => pair,
            Some(_) | None => return Err(faults),
        };
        let server = server_config(pair, clients.clone(), provider);
        let server = keep(&mut faults, TlsFile::Certificate, server).ok_or(faults)?;
        Ok(Material {
            server: Arc::new(server),
            clients,
            validity,
            digest: self.digest(),
        })
    }
}

fn keep<T>(faults: &mut Vec<FileFault>, file: TlsFile, found: Result<T, String>) -> Option<T> {
    found
        .map_err(|message| faults.push(FileFault { file, message }))
        .ok()
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe waits for whoever writes to it.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?
        .take(LARGEST_FILE + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(bytes)
}

fn bytes(file: &io::Result<Vec<u8>>) -> Result<&[u8], String> {
    let unreadable = |error| format!("names a file that cannot be read: {error}");
    file.as_deref().map_err(unreadable)
}

/// All certificates of a file, at least one. The parser's own message would quote the file.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    all.ok()
        .filter(|all| !all.is_empty())
        .ok_or_else(|| "names a file that has no certificates, or not whole ones (PEM)".to_owned())
}

/// A certificate with those above it, and its dates.
fn chain(pem: &[u8]) -> Result<(Vec<CertificateDer<'static>>, Validity), String> {
    let chain = certificates(pem)?;
    let leaf = chain.first().and_then(|leaf| {
        let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
        Validity::of(&leaf)
    });
    let validity = leaf.ok_or("names a file whose first certificate cannot be read")?;
    Ok((chain, validity))
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|_| "names a file that has no private key, or not a whole one (PEM)".to_owned())
}

fn pair(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, String> {
    CertifiedKey::from_der(chain, key, provider).map_err(|error| {
        if let Error::InconsistentKeys(_) = error {
            "is not the key of the certificate".to_owned()
        } else {
            "names a file whose key, or its certificate, is of a kind that cannot be used"
                .to_owned()
        }
    })
}

/// Trusts what these authorities have signed for clients. No certificate is asked of whoever has
/// none.
fn verifier(
    pem: &[u8],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let unusable = || "names a file with a certificate that cannot be used".to_owned();
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|_| unusable())?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .allow_unauthenticated()
        .build()
        .map_err(|_| unusable())
}

fn server_config(
    pair: CertifiedKey,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    provider: Arc<CryptoProvider>,
) -> Result<ServerConfig, String> {
    let clients = clients.unwrap_or_else(WebPkiClientVerifier::no_client_auth);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| "cannot be used: there is no version of TLS".to_owned())?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    // Of HTTP/2 there are only libraries with known faults.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A resumed session would bring the certificate of a caller without having it verified again.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}
