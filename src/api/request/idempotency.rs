//! The header `Idempotency-Key`: a caller's own name for a request, so that it can be repeated without harm.

use actix_web::HttpRequest;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use crate::{
    api::problem::Problem,
    domain::{
        service::CredentialName,
        start::{StartRequest, StorageCredential},
        store::IdempotencyKey,
    },
};

/// The key of a request, with the fingerprint of what it asks for: method, path, query and body, but no keys to buckets.
pub(in crate::api) fn key_of(
    request: &HttpRequest,
    start: Option<&StartRequest>,
) -> Result<Option<IdempotencyKey>, Problem> {
    let mut values = request.headers().get_all("idempotency-key");
    let (Some(value), None) = (values.next(), values.next()) else {
        let is_absent = !request.headers().contains_key("idempotency-key");
        return if is_absent { Ok(None) } else { Err(fault()) };
    };
    let is_clean = value.as_bytes().iter().all(u8::is_ascii_graphic);
    if !is_clean || !(1..=64).contains(&value.len()) {
        return Err(fault());
    }
    let key = value.to_str().map_err(|_| fault())?.to_owned();
    Ok(Some(IdempotencyKey {
        key,
        fingerprint: fingerprint(request, start),
    }))
}

fn fingerprint(request: &HttpRequest, start: Option<&StartRequest>) -> String {
    // Whether it is for a dry run only does not make it another request.
    let is_asked_for = |pair: &&str| !pair.starts_with("dry_run=");
    let query = request.query_string().split('&');
    let mut query: Vec<&str> = query.filter(is_asked_for).collect();
    if query.is_empty() {
        // As no query at all is one empty pair.
        query.push("");
    }
    query.sort_unstable();
    let mut parts = vec![request.method().as_str(), request.path()];
    parts.extend(query);
    if let Some(start) = start {
        parts.extend([
            shown(start.source.as_ref()),
            shown(start.destination.as_ref()),
            if start.migrate_failed_objects {
                "failed"
            } else {
                "all"
            },
        ]);
    }
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part.as_bytes());
    }
    URL_SAFE_NO_PAD.encode(hash.finalize())
}

/// Names begin with a letter or digit, so the other words stand for nothing else.
fn shown(credential: Option<&StorageCredential>) -> &str {
    match credential {
        Some(StorageCredential::Named(name)) => CredentialName::as_str(name),
        Some(StorageCredential::Inline(_)) => "(keys)",
        None => "(none)",
    }
}

fn fault() -> Problem {
    Problem::fault(
        "header",
        "Idempotency-Key",
        "Idempotency-Key must be one text of 1 to 64 visible ASCII characters.",
    )
}
