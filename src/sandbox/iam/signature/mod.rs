//! Requests signed with an access key: `SDK-HMAC-SHA256`.
//!
//! What is signed is a text made of the request: method, path, query, the headers that the request
//! itself lists, and the digest of the body. The key of the code is the secret key as it is. A
//! request with temporary keys also brings their security token, whether or not that is signed.

use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::{civil::DateTime, tz::TimeZone};
use sha2::{Digest as _, Sha256};

use super::{
    super::call::{Call, decode},
    keys::Keys,
};

const ALGORITHM: &str = "SDK-HMAC-SHA256";

/// A request whose date is further away from its arrival than this is refused.
const WINDOW_MILLIS: i64 = 15 * 60 * 1000;

/// The digest of no bytes, which stands for every empty body.
const NO_BODY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// What the header `Authorization` of a signed request says.
struct Signed<'a> {
    access_key: &'a str,
    /// The names of the signed headers, in the order in which they are signed.
    headers: &'a str,
    signature: &'a str,
}

impl<'a> Signed<'a> {
    fn read(header: &'a str) -> Option<Self> {
        let (mut access_key, mut headers, mut signature) = (None, None, None);
        for part in header.strip_prefix(ALGORITHM)?.split(',') {
            let (name, value) = part.trim().split_once('=')?;
            match name {
                "Access" => access_key = Some(value),
                "SignedHeaders" => headers = Some(value),
                "Signature" => signature = Some(value),
                _ => return None,
            }
        }
        Some(Self {
            access_key: access_key?,
            headers: headers?,
            signature: signature?,
        })
    }
}

/// The access key by which a request is rightly signed. `None`: it is not signed. `Err`: the reason
/// as the gateway words it.
pub(super) fn signer<'a>(call: &'a Call, keys: &Keys, now: i64) -> Option<Result<&'a str, String>> {
    let header = call.header("authorization")?;
    if !header.starts_with(ALGORITHM) {
        return None;
    }
    Some(verify(call, header, keys, now))
}

/// As [`signer`], and counts what was found: a key is locked after too many wrong signatures.
pub(super) fn check<'a>(
    call: &'a Call,
    keys: &mut Keys,
    now: i64,
) -> Option<Result<&'a str, String>> {
    let found = signer(call, keys, now)?;
    let named = call.header("authorization").and_then(Signed::read);
    if let Some(named) = named
        && !keys.is_locked(named.access_key, now)
    {
        keys.count(named.access_key, found.is_ok(), now);
    }
    Some(found)
}

fn verify<'a>(call: &'a Call, header: &'a str, keys: &Keys, now: i64) -> Result<&'a str, String> {
    let wrong = || "verify aksk signature fail".to_owned();
    let signed = Signed::read(header).ok_or_else(wrong)?;
    let name = signed.access_key;
    let key = keys
        .get(name)
        .ok_or_else(|| format!("Get secretKey failed,ak:{name},err:ak not exist"))?;
    if keys.is_locked(name, now) {
        return Err("AK access failed to reach the limit,forbidden".to_owned());
    }
    let date = call.header("x-sdk-date").ok_or_else(wrong)?;
    let at = DateTime::strptime("%Y%m%dT%H%M%SZ", date)
        .and_then(|date| date.to_zoned(TimeZone::UTC))
        .map_err(|_| wrong())?;
    let at = at.timestamp().as_millisecond();
    if now.abs_diff(at) > WINDOW_MILLIS.unsigned_abs() {
        return Err("calc ak sk signature fail:signature expired".to_owned());
    }
    let names: Vec<&str> = signed.headers.split(';').collect();
    let covers = |name| names.contains(&name);
    if !covers("host") || !covers("x-sdk-date") {
        return Err(wrong());
    }
    let canonical = canonical_request(call, signed.headers).ok_or_else(wrong)?;
    if signature(&canonical, date, &key.secret_key) != signed.signature {
        return Err(wrong());
    }
    let token = call.header("x-security-token");
    match &key.temporary {
        None if token.is_none() => Ok(name),
        Some(of) if token == Some(&of.security_token) && now < of.expires_at => Ok(name),
        Some(_) | None => Err("decrypt token fail".to_owned()),
    }
}

/// The text of a request that is signed; `None` if one of the listed headers is missing.
fn canonical_request(call: &Call, names: &str) -> Option<String> {
    let headers: Option<String> = names
        .split(';')
        .map(|name| Some(format!("{name}:{}\n", call.header(name)?.trim())))
        .collect();
    let (method, path, query) = (
        &call.method,
        canonical_path(&call.path),
        canonical_query(&call.query),
    );
    let body = match call.header("x-sdk-content-sha256") {
        _ if call.body.is_empty() => NO_BODY.to_owned(),
        Some(given) => given.to_owned(),
        None => hex::encode(Sha256::digest(&call.body)),
    };
    Some(format!(
        "{method}\n{path}\n{query}\n{}\n{names}\n{body}",
        headers?
    ))
}

/// Every segment decoded and encoded again, with a slash at the end.
fn canonical_path(path: &str) -> String {
    // A plus sign stands for itself in a path.
    let decoded = decode(&path.replace('+', "%2B"));
    let segments: Vec<String> = decoded.split('/').map(encode).collect();
    let mut path = segments.join("/");
    if !path.ends_with('/') {
        path.push('/');
    }
    path
}

/// The parameters in the order of their names and values, encoded again.
fn canonical_query(query: &str) -> String {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let mut pairs: Vec<(String, String)> = pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect();
    pairs.sort();
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{}={}", encode(name), encode(value)))
        .collect();
    pairs.join("&")
}

/// Percent-encodes everything but letters, digits and `-_.~`.
fn encode(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

fn signature(canonical: &str, date: &str, secret_key: &str) -> String {
    let digest = hex::encode(Sha256::digest(canonical));
    let mut code = Hmac::<Sha256>::new_from_slice(secret_key.as_bytes())
        .expect("the code takes keys of every length");
    code.update(format!("{ALGORITHM}\n{date}\n{digest}").as_bytes());
    hex::encode(code.finalize().into_bytes())
}

#[cfg(test)]
mod tests;
