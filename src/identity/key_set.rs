//! The public keys of an issuer.

use std::fmt;

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;

/// The most keys of an issuer that are kept; the rest is left out.
const KEYS_MAX: usize = 64;
/// The most keys of one id that a signature is checked with.
const SAME_ID_MAX: usize = 4;

const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// Keys that signatures can be checked with.
pub(super) struct KeySet {
    keys: Vec<PublicKey>,
    left_out: usize,
}

struct PublicKey {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

impl KeySet {
    /// Reads a JSON Web Key Set. Keys for other purposes, of kinds that are not known here, or that
    /// cannot be read are left out, so that none may be left. `None` if it is no such set.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let document: Document = serde_json::from_slice(text).ok()?;
        let keys = document.keys.into_iter();
        let mut keys: Vec<PublicKey> = keys.filter_map(PublicKey::of).collect();
        let left_out = keys.len().saturating_sub(KEYS_MAX);
        keys.truncate(KEYS_MAX);
        Some(Self { keys, left_out })
    }

    /// Whether there is no key that can be used.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many keys that could be used were too many.
    pub(super) fn left_out(&self) -> usize {
        self.left_out
    }

    /// The first four keys with this id that are for this algorithm. Without an id: the only key
    /// that is for it.
    pub(super) fn find(&self, id: Option<&str>, algorithm: Algorithm) -> Vec<&DecodingKey> {
        let fits = |key: &&PublicKey| {
            key.algorithms.contains(&algorithm) && (id.is_none() || key.id.as_deref() == id)
        };
        let fitting = self.keys.iter().filter(fits).map(|key| &key.key);
        let mut fitting: Vec<_> = fitting.take(SAME_ID_MAX).collect();
        if id.is_none() && fitting.len() > 1 {
            fitting.clear();
        }
        fitting
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids = self.keys.iter().map(|key| &key.id);
        formatter.debug_list().entries(ids).finish()
    }
}

impl PublicKey {
    fn of(document: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(document).ok()?;
        let common = &jwk.common;
        let is_to_sign = matches!(common.public_key_use, None | Some(PublicKeyUse::Signature));
        let is_to_verify = common
            .key_operations
            .as_ref()
            .is_none_or(|operations| operations.contains(&KeyOperations::Verify));
        if !is_to_sign || !is_to_verify {
            return None;
        }
        let mut algorithms = algorithms(&jwk.algorithm);
        if let Some(only) = common.key_algorithm {
            let only = Algorithm::try_from(only).ok()?;
            algorithms.retain(|one| *one == only);
        }
        if algorithms.is_empty() {
            return None;
        }
        Some(Self {
            key: DecodingKey::from_jwk(&jwk).ok()?,
            id: jwk.common.key_id,
            algorithms,
        })
    }
}

/// What a key can be used with. A key that is a shared secret can be used with nothing.
fn algorithms(parameters: &AlgorithmParameters) -> Vec<Algorithm> {
    match parameters {
        AlgorithmParameters::RSA(_) => RSA.to_vec(),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            vec![Algorithm::ES256]
        }
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P384 => {
            vec![Algorithm::ES384]
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            vec![Algorithm::EdDSA]
        }
        AlgorithmParameters::EllipticCurve(_)
        | AlgorithmParameters::OctetKeyPair(_)
        | AlgorithmParameters::OctetKey(_)
        | AlgorithmParameters::Other(_)
        | _ => Vec::new(),
    }
}
