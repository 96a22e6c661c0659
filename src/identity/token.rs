//! Bearer tokens in the form of JWT (RFC 7519), checked as RFC 8725 recommends.

use std::{sync::Arc, time::Instant};

use jiff::Timestamp;
use jsonwebtoken::{
    Header, Validation, dangerous::insecure_decode_claims, decode, decode_header, errors::ErrorKind,
};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Identity, IssuerSettings, Method, Refusal, directory::Failure, key_cache::KeyCache};
use crate::domain::{
    access::{Caller, Grant},
    service::CallerName,
};

/// The longest token that is read, in bytes. Real ones with many groups have some 4 KiB.
const TOKEN_MAX: usize = 8 << 10;
/// By how many seconds two clocks may differ.
const LEEWAY: i64 = 30;

/// Whose tokens are taken, with the keys to check them.
pub(super) struct Issuer {
    settings: IssuerSettings,
    pub(super) keys: Arc<KeyCache>,
}

/// What is read of a token before anything of it is believed: whose keys to check it with. A list
/// of issuers is refused.
#[derive(Deserialize)]
struct Claimed {
    iss: String,
}

type Claims = Map<String, Value>;

/// Who brings this token. `now` is the time of day; `instant` the same moment on the clock that the
/// age of keys is measured by.
pub(super) fn check(
    token: &str,
    issuers: &[Issuer],
    now: Timestamp,
    instant: Instant,
) -> Result<Identity, Failure> {
    if issuers.is_empty() || token.split('.').count() != 3 {
        return Err(Refusal::Unknown.into());
    }
    if token.len() > TOKEN_MAX {
        return Err(Refusal::TokenForm.into());
    }
    let claimed: Claimed = insecure_decode_claims(token).map_err(|_| Refusal::Unknown)?;
    let named = |issuer: &&Issuer| issuer.settings.issuer == claimed.iss;
    let issuer = issuers.iter().find(named).ok_or(Refusal::Unknown)?;
    issuer.check(token, now, instant).inspect_err(|failure| {
        let (Failure::Refused(reason) | Failure::NoKey { reason, .. }) = failure;
        tracing::info!(
            issuer = %issuer.settings.name,
            reason = reason.as_str(),
            "a token was not accepted"
        );
    })
}

impl Issuer {
    pub(super) fn new(settings: IssuerSettings, keys: Arc<KeyCache>) -> Self {
        Self { settings, keys }
    }

    fn check(&self, token: &str, now: Timestamp, instant: Instant) -> Result<Identity, Failure> {
        let header = self.header(token)?;
        let id = header.kid.as_deref();
        let keys = self.keys.find(id, header.alg, instant);
        let keys = keys.map_err(|reason| Failure::NoKey {
            cache: Arc::clone(&self.keys),
            reason,
        })?;
        let validation = self.validation(&header);
        for key in &keys {
            match decode::<Claims>(token, key, &validation) {
                Ok(decoded) => return Ok(self.identity(&decoded.claims, now)?),
                // It may be that of another key with the same name.
                Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature) => {}
                Err(error) => return Err(refusal(error.kind()).into()),
            }
        }
        Err(Refusal::TokenSignature.into())
    }

    /// The header, if it is of a token that could be checked. Keys and addresses of keys in it
    /// (`jwk`, `jku`, `x5c`, `x5u`) are read by nobody: whoever makes a token must not choose what
    /// it is checked with.
    fn header(&self, token: &str) -> Result<Header, Refusal> {
        // This is also where `none` ends, which is no algorithm.
        let header = decode_header(token).map_err(|_| Refusal::TokenForm)?;
        // What is critical has to be understood, and nothing is. Another type of token is not for
        // this.
        let kind = header.typ.as_deref().unwrap_or("JWT").to_ascii_lowercase();
        let kind = kind.strip_prefix("application/").unwrap_or(&kind);
        if header.crit.is_some()
            || header.enc.is_some()
            || header.zip.is_some()
            || !["jwt", "at+jwt"].contains(&kind)
        {
            return Err(Refusal::TokenForm);
        }
        let allowed = self.settings.algorithms.iter();
        if !allowed
            .map(|one| one.checked_as())
            .any(|one| one == header.alg)
        {
            return Err(Refusal::TokenAlgorithm);
        }
        Ok(header)
    }

    fn validation(&self, header: &Header) -> Validation {
        let mut validation = Validation::new(header.alg);
        validation.leeway = LEEWAY.unsigned_abs();
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.settings.issuer]);
        validation.set_audience(&[&self.settings.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation
    }

    /// Who brings a token with these claims, all of which its issuer has signed.
    fn identity(&self, claims: &Claims, now: Timestamp) -> Result<Identity, Refusal> {
        match claims.get("iat") {
            None => {}
            Some(issued) => match moment(issued) {
                Some(issued) if issued.as_second() <= now.as_second() + LEEWAY => {}
                Some(_) => return Err(Refusal::TokenEarly),
                None => return Err(Refusal::TokenClaims),
            },
        }
        let claim = claims
            .get(&self.settings.caller_claim)
            .and_then(Value::as_str);
        let name = claim.and_then(|claim| CallerName::of_issuer(&self.settings.name, claim));
        let caller = Caller {
            name: name.ok_or(Refusal::TokenClaims)?,
            grants: self.grants(claims),
        };
        Ok(Identity {
            caller: Arc::new(caller),
            method: Method::Token,
            expires_at: claims.get("exp").and_then(moment),
        })
    }

    /// What the groups in the token allow; those that are not configured allow nothing.
    fn grants(&self, claims: &Claims) -> Vec<Grant> {
        let groups: Vec<&str> = match claims.get(&self.settings.groups_claim) {
            Some(Value::String(only)) => vec![only],
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let configured = self.settings.groups.iter();
        configured
            .filter(|(name, _)| groups.contains(&name.as_str()))
            .map(|(_, grant)| grant.clone())
            .collect()
    }
}

/// A time in seconds since 1970, which may have a fraction.
fn moment(value: &Value) -> Option<Timestamp> {
    let seconds = match value.as_i64() {
        Some(seconds) => seconds,
        #[expect(
            clippy::cast_possible_truncation,
            reason = "what is beyond the range becomes its end, which is no time that can be had"
        )]
        None => value.as_f64()?.floor() as i64,
    };
    Timestamp::from_second(seconds).ok()
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the library may add kinds; whatever else is wrong is a matter of form"
)]
fn refusal(kind: &ErrorKind) -> Refusal {
    match kind {
        ErrorKind::InvalidSignature => Refusal::TokenSignature,
        ErrorKind::ExpiredSignature => Refusal::TokenExpired,
        ErrorKind::ImmatureSignature => Refusal::TokenEarly,
        ErrorKind::InvalidAudience => Refusal::TokenAudience,
        ErrorKind::InvalidAlgorithm => Refusal::TokenAlgorithm,
        ErrorKind::MissingRequiredClaim(_)
        | ErrorKind::InvalidClaimFormat(_)
        | ErrorKind::InvalidIssuer => Refusal::TokenClaims,
        _ => Refusal::TokenForm,
    }
}
