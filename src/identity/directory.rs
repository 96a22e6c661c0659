//! Everybody who is known at one moment.

use std::{collections::HashMap, sync::Arc, time::Instant};

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{
    Credentials, Identity, Key, Method, PeerCertificate, Refusal, Settings,
    key_cache::KeyCache,
    token::{self, Issuer},
};
use crate::domain::access::Caller;

/// Everybody who is known. It never changes.
pub(super) struct Directory {
    anonymous: Arc<Caller>,
    keys: Vec<(Key, Arc<Caller>)>,
    /// Callers by the name in their certificate.
    certificates: HashMap<String, Arc<Caller>>,
    issuers: Vec<Issuer>,
}

/// Why a caller could not be found.
pub(super) enum Failure {
    /// There is none.
    Refused(Refusal),
    /// The token cannot be checked with the keys that are there. Fresh ones may help.
    NoKey {
        cache: Arc<KeyCache>,
        reason: Refusal,
    },
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Directory {
    /// Knows whom the settings name. Keys of issuers are taken over from another directory, where
    /// they are the same.
    pub(super) fn new(settings: &Settings, before: Option<&Self>) -> Self {
        let cache = |issuer| {
            let known = before.into_iter().flat_map(Self::key_caches);
            let mut same = known.filter(|cache| cache.is_for(issuer));
            same.next()
                .unwrap_or_else(|| Arc::new(KeyCache::new(issuer)))
        };
        let mut directory = Self {
            anonymous: Arc::new(settings.anonymous.clone()),
            keys: Vec::new(),
            certificates: HashMap::new(),
            issuers: settings
                .issuers
                .iter()
                .map(|issuer| Issuer::new(issuer.clone(), cache(issuer)))
                .collect(),
        };
        for configured in &settings.callers {
            let caller = Arc::new(configured.caller.clone());
            let keys = configured.keys.iter().cloned();
            directory
                .keys
                .extend(keys.map(|key| (key, Arc::clone(&caller))));
            let named = configured.certificate.clone();
            directory
                .certificates
                .extend(named.map(|name| (name, caller)));
        }
        directory
    }

    /// The keys of all issuers.
    pub(super) fn key_caches(&self) -> Vec<Arc<KeyCache>> {
        self.issuers
            .iter()
            .map(|issuer| Arc::clone(&issuer.keys))
            .collect()
    }

    /// Who has these credentials. Does no input or output.
    pub(super) fn identify(
        &self,
        credentials: &Credentials<'_>,
        now: Timestamp,
    ) -> Result<Identity, Failure> {
        match (
            &credentials.certificate,
            credentials.authorization.as_slice(),
        ) {
            (_, [_, _, ..]) | (Some(_), [_]) => Err(Refusal::Several.into()),
            (Some(certificate), []) => Ok(self.with_certificate(certificate, now)?),
            (None, [header]) => self.with_header(header, now),
            (None, []) if self.anonymous.has_any() => Ok(Identity {
                caller: Arc::clone(&self.anonymous),
                method: Method::Anonymous,
                expires_at: None,
            }),
            (None, []) => Err(Refusal::Missing.into()),
        }
    }

    /// The caller whom the certificate names. Names are compared as a whole, byte by byte. One that
    /// names nobody is a credential that is not known, and not none.
    fn with_certificate(
        &self,
        certificate: &PeerCertificate<'_>,
        now: Timestamp,
    ) -> Result<Identity, Refusal> {
        if !certificate.is_trusted {
            return Err(Refusal::CertificateUntrusted);
        }
        if certificate.expires_at <= now {
            return Err(Refusal::CertificateExpired);
        }
        let mut named = certificate
            .names
            .iter()
            .filter_map(|name| self.certificates.get(name));
        let caller = named.next().ok_or(Refusal::Certificate)?;
        if named.any(|other| !Arc::ptr_eq(other, caller)) {
            return Err(Refusal::Several);
        }
        Ok(Identity {
            caller: Arc::clone(caller),
            method: Method::Certificate,
            expires_at: Some(certificate.expires_at),
        })
    }

    fn with_header(&self, header: &[u8], now: Timestamp) -> Result<Identity, Failure> {
        let text = std::str::from_utf8(header).map_err(|_| Refusal::Unknown)?;
        let (scheme, credential) = text.split_once(' ').ok_or(Refusal::Unknown)?;
        // RFC 9110, sections 5.5 and 11.4. What else looks like a blank belongs to the credential.
        let credential = credential.trim_start_matches(' ');
        let credential = credential.trim_end_matches([' ', '\t']);
        if !scheme.eq_ignore_ascii_case("bearer") || credential.is_empty() {
            return Err(Refusal::Unknown.into());
        }
        match self.with_key(credential, now) {
            Some(identity) => Ok(identity),
            None => token::check(credential, &self.issuers, now, Instant::now()),
        }
    }

    /// The caller whose key this is. Every digest is compared, each in constant time.
    fn with_key(&self, key: &str, now: Timestamp) -> Option<Identity> {
        let digest: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        let mut found = None;
        for (candidate, caller) in &self.keys {
            if bool::from(candidate.sha256.ct_eq(&digest)) {
                found = Some((candidate, caller));
            }
        }
        let (key, caller) = found?;
        if key.expires.is_some_and(|end| end <= now) {
            return None;
        }
        Some(Identity {
            caller: Arc::clone(caller),
            method: Method::Key,
            expires_at: key.expires,
        })
    }
}
