//! The certificate of a caller, as a connection keeps it.

use std::{cell::RefCell, io, sync::Arc, time::Duration};

use jiff::Timestamp;
use rustls::{
    Error,
    pki_types::{CertificateDer, UnixTime},
};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

use super::{
    Tls,
    files::{Material, Validity},
};
use crate::identity::PeerCertificate;

/// The certificate that a connection was made with. A connection can outlive the trust in it.
pub struct Peer {
    chain: Vec<CertificateDer<'static>>,
    names: Vec<String>,
    expires_at: Timestamp,
    tls: Tls,
    /// What it was last verified with, and whether it is to be trusted by that.
    verified: RefCell<Option<(Arc<Material>, bool)>>,
}

impl Peer {
    /// What the peer of a connection showed, if anything.
    pub fn of(stream: &TlsStream<TcpStream>, tls: &Tls) -> Option<Self> {
        let (_, connection) = stream.get_ref();
        let chain: Vec<_> = connection
            .peer_certificates()?
            .iter()
            .map(|certificate| certificate.clone().into_owned())
            .collect();
        // One that cannot be read names nobody, and is none that has no end.
        let (names, expires_at) = read(chain.first()?).unwrap_or_default();
        Some(Self {
            chain,
            names,
            expires_at,
            tls: tls.clone(),
            verified: RefCell::default(),
        })
    }

    /// What counts of the certificate at this moment. It is verified again if the authorities that
    /// are trusted have changed.
    pub fn certificate(&self) -> PeerCertificate<'_> {
        PeerCertificate {
            names: &self.names,
            expires_at: self.expires_at,
            is_trusted: self.is_trusted(),
        }
    }

    fn is_trusted(&self) -> bool {
        let current = self.tls.current();
        let mut verified = self.verified.borrow_mut();
        match &*verified {
            Some((by, is_trusted)) if Arc::ptr_eq(by, &current) => *is_trusted,
            Some(_) | None => {
                let is_trusted = verify(&self.chain, &current, self.tls.now());
                *verified = Some((current, is_trusted));
                is_trusted
            }
        }
    }
}

fn verify(chain: &[CertificateDer<'_>], material: &Material, now: Timestamp) -> bool {
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    match (&material.clients, chain) {
        (Some(clients), [leaf, between @ ..]) => {
            clients.verify_client_cert(leaf, between, now).is_ok()
        }
        _ => false,
    }
}

/// The alternative names of the kinds DNS and URI, and the end. A name in the form of the other
/// kind is left out, so that what is configured can be only one of them: a URI has a colon, and a
/// DNS name has none.
fn read(leaf: &[u8]) -> Option<(Vec<String>, Timestamp)> {
    let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
    let mut names = Vec::new();
    if let Some(alternatives) = leaf.subject_alternative_name().ok()? {
        for name in &alternatives.value.general_names {
            if let GeneralName::DNSName(text) | GeneralName::URI(text) = name
                && text.contains(':') == matches!(name, GeneralName::URI(_))
            {
                names.push((*text).to_owned());
            }
        }
    }
    Some((names, Validity::of(&leaf)?.expires_at))
}

/// Whether a handshake failed because the certificate of the caller is not to be trusted.
pub(super) fn is_about_certificate(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(inner, Some(Error::InvalidCertificate(_)))
}
