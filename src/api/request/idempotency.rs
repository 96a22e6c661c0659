//! The header `Idempotency-Key`: a caller's own name for a request, so that it can be repeated
//! without harm.

use actix_web::HttpRequest;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use crate::{
    api::request::guard::Head,
    domain::{
        service::CredentialName,
        start::{StartRequest, StorageCredential},
    },
};

/// The key of a request.
pub(in crate::api) fn key(head: &mut Head<'_>) -> Option<String> {
    let mut values = head.request.headers().get_all("idempotency-key");
    let (value, is_alone) = (values.next()?, values.next().is_none());
    let key = value.to_str().ok().filter(|key| {
        let is_clean = key.bytes().all(|byte| byte.is_ascii_graphic());
        is_clean && is_alone && (1..=64).contains(&key.len())
    });
    if key.is_none() {
        let detail = "Idempotency-Key must be one text of 1 to 64 visible ASCII characters.";
        head.query.header_fault("Idempotency-Key", detail);
    }
    key.map(str::to_owned)
}

/// The fingerprint of what a request asks for: method, path, query and body, but no keys to
/// buckets.
pub(in crate::api) fn fingerprint(request: &HttpRequest, start: Option<&StartRequest>) -> String {
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
