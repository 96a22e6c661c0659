//! An authority that signs certificates, for the listener of the gateway and for callers, good and
//! bad.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, SanType,
};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

/// An authority. All have the same name, so that only their signatures tell them apart.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key.
pub(crate) struct Certified {
    /// The certificate, and those between it and its authority.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// The same as PEM.
    pub(crate) pem: String,
    pub(crate) key: KeyPair,
}

impl Certified {
    /// The key as PEM.
    pub(crate) fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }
}

/// What a certificate of a caller says, if it has these names.
pub(crate) fn of_caller(names: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.subject_alt_names = names
        .iter()
        .map(|name| {
            let text = (*name).try_into().expect("ASCII");
            if name.contains("://") {
                SanType::URI(text)
            } else {
                SanType::DnsName(text)
            }
        })
        .collect();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn of_authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(of_authority(), key).expect("an authority");
        Self { issuer }
    }

    /// Its own certificate.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub(crate) fn sign(&self, params: &CertificateParams) -> Certified {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Certified {
            chain: vec![certificate.der().clone()],
            pem: certificate.pem(),
            key,
        }
    }

    /// As [`Authority::sign`], by another that this one has signed.
    pub(crate) fn sign_through_another(&self, params: &CertificateParams) -> Certified {
        let mut between = of_authority();
        between
            .distinguished_name
            .push(DnType::CommonName, "between");
        let key = KeyPair::generate().expect("a key");
        let between = CertifiedIssuer::signed_by(between, key, &self.issuer).expect("an authority");
        let mut signed = Self { issuer: between };
        let certified = signed.sign(params);
        let Self { issuer } = &mut signed;
        Certified {
            chain: [certified.chain, vec![issuer.der().clone()]].concat(),
            pem: certified.pem + &issuer.pem(),
            key: certified.key,
        }
    }

    /// A certificate of a caller with these names.
    pub(crate) fn caller(&self, names: &[&str]) -> Certified {
        self.sign(&of_caller(names))
    }

    /// A certificate for the listener.
    pub(crate) fn listener(&self) -> Certified {
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let mut params = CertificateParams::new(names).expect("names");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(&params)
    }

    /// What a client says that trusts this authority.
    pub(crate) fn for_agent(&self, certified: Option<&Certified>) -> TlsConfig {
        let root = Certificate::from_der(self.issuer.der()).to_owned();
        let shown = certified.map(|certified| {
            let chain: Vec<_> = certified
                .chain
                .iter()
                .map(|one| Certificate::from_der(one).to_owned())
                .collect();
            let key = PrivateKey::from_pem(certified.key_pem().as_bytes()).expect("a key");
            ClientCert::new_with_certs(&chain, key)
        });
        TlsConfig::builder()
            .root_certs(RootCerts::new_with_certs(&[root]))
            .client_cert(shown)
            .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()))
            .build()
    }

    /// As [`Authority::for_agent`], for whoever minds the handshake.
    pub(crate) fn for_socket(&self, certified: Option<&Certified>) -> ClientConfig {
        self.for_versions(certified, rustls::DEFAULT_VERSIONS)
    }

    /// As [`Authority::for_socket`], with these versions of TLS only.
    pub(crate) fn for_versions(
        &self,
        certified: Option<&Certified>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a root");
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots);
        match certified {
            None => config.with_no_client_auth(),
            Some(certified) => {
                let key = PrivatePkcs8KeyDer::from(certified.key.serialize_der());
                config
                    .with_client_auth_cert(certified.chain.clone(), PrivateKeyDer::from(key))
                    .expect("a pair")
            }
        }
    }
}
