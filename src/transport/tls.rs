//! Whom to trust.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};

/// Why a transport cannot be built or cannot be used. Messages name files and never their content.
#[derive(Debug, thiserror::Error)]
pub enum TransportSetupError {
    /// The configured file of further roots cannot be read.
    #[error("the certificate file {} cannot be read", .0.display())]
    CaFile(PathBuf, #[source] rustls::pki_types::pem::Error),
    /// The configured file of further roots holds no certificate.
    #[error("the certificate file {} holds no certificate", .0.display())]
    CaFileEmpty(PathBuf),
    /// A certificate in the configured file of further roots cannot be used: the number tells
    /// which, from 1.
    #[error("certificate {1} in the file {path} cannot be used", path = .0.display())]
    CaFileUnusable(PathBuf, usize, #[source] rustls::Error),
    /// The TLS library refuses its own defaults.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    /// An `https` endpoint cannot be trusted by anybody.
    #[error(
        "this machine has no trusted root certificates: install them or name a file of them in the configuration"
    )]
    NoRoots,
}

/// The TLS configuration, or `None` when there is no root to trust at all: slim images have none,
/// and need none as long as every endpoint is on the machine itself.
pub(super) fn client_config(
    ca_file: Option<&Path>,
) -> Result<Option<Arc<ClientConfig>>, TransportSetupError> {
    let mut roots = RootCertStore::empty();
    // A system store with a broken certificate among good ones is common and harmless.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = ca_file {
        add_file(&mut roots, path)?;
    }
    if roots.is_empty() {
        return Ok(None);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TransportSetupError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // The HTTP client hands out dead HTTP/2 connections, so that protocol is not offered.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(Arc::new(config)))
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), TransportSetupError> {
    let unreadable = |error| TransportSetupError::CaFile(path.to_owned(), error);
    let certificates = CertificateDer::pem_file_iter(path)
        .map_err(unreadable)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(unreadable)?;
    if certificates.is_empty() {
        return Err(TransportSetupError::CaFileEmpty(path.to_owned()));
    }
    for (number, certificate) in (1..).zip(certificates) {
        let unusable = |error| TransportSetupError::CaFileUnusable(path.to_owned(), number, error);
        roots.add(certificate).map_err(unusable)?;
    }
    Ok(())
}
