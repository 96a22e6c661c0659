//! Requests signed with an access key: `SDK-HMAC-SHA256`.
//!
//! What is signed is a text made of the request: method, path, query, the headers that the request itself lists, and
//! the digest of the body. The key of the code is the secret key as it is. A request with temporary keys also brings their
//! security token, whether or not that is signed.

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

/// The access key by which a request is rightly signed. `None`: it is not signed. `Err`: the reason as the gateway words it.
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
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::{canonical_request, check, signature};
    use crate::sandbox::{
        Service,
        call::{Call, Route},
        iam::keys::Keys,
    };

    const DATE: &str = "20260101T000000Z";
    /// The moment of `DATE`.
    const NOW: i64 = 1_767_225_600_000;
    const PROJECT: &str = "2c0689c860ad4728a497c91ec0844383";

    const ACCESS_KEY: &str = "EXAMPLEAK0123456789A";
    const SECRET_KEY: &str = "exampleSecretKey0123456789abcdefABCDEF01";

    fn keys() -> Keys {
        let mut keys = Keys::default();
        keys.add(ACCESS_KEY, SECRET_KEY);
        keys
    }

    /// Whether the signature is right, or why it is wrong.
    fn checked(call: &Call, now: i64) -> Result<(), String> {
        check(call, &mut keys(), now).unwrap().map(|_| ())
    }

    /// A request whose headers are all signed.
    struct Vector {
        call: Call,
        names: String,
        digest: &'static str,
        signature: &'static str,
    }

    impl Vector {
        fn new(
            request: &str,
            headers: &[(&str, &str)],
            body: &str,
            [digest, signature]: [&'static str; 2],
        ) -> Self {
            let (method, target) = request.split_once(' ').unwrap();
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let mut headers: Vec<(String, String)> = headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            let names: Vec<&str> = headers.iter().map(|(name, _)| name.as_str()).collect();
            let names = names.join(";");
            headers.push((
                "authorization".to_owned(),
                format!(
                    "SDK-HMAC-SHA256 Access=EXAMPLEAK0123456789A, SignedHeaders={names}, Signature={signature}"
                ),
            ));
            let call = Call {
                service: Service::Oms,
                method: method.to_owned(),
                path: path.to_owned(),
                query: query.to_owned(),
                headers,
                body: body.as_bytes().to_vec(),
                route: Route::find(Service::Oms, method, path, b""),
                request_id: String::new(),
            };
            Self {
                call,
                names,
                digest,
                signature,
            }
        }
    }

    /// Results of the vendor's own program.
    fn vectors() -> [Vector; 4] {
        let oms = ("host", "oms.cn-north-4.myhuaweicloud.com");
        let json = ("content-type", "application/json");
        let (project, date) = (("x-project-id", PROJECT), ("x-sdk-date", DATE));
        [
            Vector::new(
                &format!(
                    "GET /v2/{PROJECT}/tasks?limit=10&offset=0&status=2&task_name=%E6%97%A5%E5%BF%97%20a~b%2Fc"
                ),
                &[json, oms, project, date],
                "",
                [
                    "e63de1ee6ec185c949844bde9c48893705a6393911db81ed6fee82a78cb6b929",
                    "0bf5a4b1f0f84ed45eaa0d642125303646990a77d42805a38dd47905c8d8ebd5",
                ],
            ),
            Vector::new(
                "POST /v3/tasks/7a9a9540-ff28-4869-b9e4-855fbe120001/action",
                &[
                    json,
                    ("host", "sms.ap-southeast-3.myhuaweicloud.com"),
                    project,
                    date,
                    ("x-security-token", "ExampleSecurityToken=="),
                ],
                r#"{"operation":"stop"}"#,
                [
                    "8090a64b888893e57c73a7e1655947ce771fa834fe52333ce56bf0e42e65fbbd",
                    "27e228eb38cc802ae89e2ea52c81902188dfbf371d2f646e693b46677f5a9bba",
                ],
            ),
            Vector::new(
                &format!("POST /v2/{PROJECT}/tasks/191297407830872/stop"),
                &[json, oms, project, date],
                "",
                [
                    "18e10f3ed2bd3c1f956928b29da2d0da346dd6d7f33b31d582bf990bee7cd1b1",
                    "24e670f77c5d66b4818d4e63fcd7525cd56694ab929ca0e5d23d66c828b85c2f",
                ],
            ),
            Vector::new(
                "GET /v3/auth/domains",
                &[
                    ("host", "iam.myhuaweicloud.com"),
                    ("x-domain-id", "d78cbac186b744899480f25bd022f468"),
                    date,
                ],
                "",
                [
                    "1a016b376b48fd9d4cd4636d8f9b839c7368718c0a936818225e18ddc5c22b81",
                    "7dff64aa16f1da89d3238e12cc35a024f9bdcd5a846a44c6c1a8f87ffc059621",
                ],
            ),
        ]
    }

    #[test]
    fn signatures_are_those_of_the_vendors_own_program() {
        for vector in vectors() {
            let canonical = canonical_request(&vector.call, &vector.names).unwrap();
            assert_eq!(
                hex::encode(Sha256::digest(&canonical)),
                vector.digest,
                "{canonical}"
            );
            let made = signature(&canonical, DATE, SECRET_KEY);
            assert_eq!(made, vector.signature);
            // The security token of one of them is that of no key here.
            let refused = vector
                .call
                .header("x-security-token")
                .map(|_| "decrypt token fail");
            let found = checked(&vector.call, NOW);
            assert_eq!(found.err().as_deref(), refused);
        }
    }

    #[test]
    fn every_part_of_a_request_is_covered_by_its_signature() {
        let changes: [fn(&mut Call); 5] = [
            |call| call.method = "DELETE".to_owned(),
            |call| call.path.push_str("/x"),
            |call| call.query = "limit=11".to_owned(),
            |call| call.body.push(b' '),
            |call| call.headers[0].1.push('x'),
        ];
        for change in changes {
            for mut vector in vectors() {
                change(&mut vector.call);
                let found = checked(&vector.call, NOW);
                assert_eq!(found, Err("verify aksk signature fail".to_owned()));
            }
        }
    }

    #[test]
    fn the_date_may_be_a_quarter_of_an_hour_away() {
        let [vector, ..] = vectors();
        let at = |now| checked(&vector.call, now).is_ok();
        let quarter = 15 * 60 * 1000;
        assert!(at(NOW + quarter) && at(NOW - quarter));
        assert!(!at(NOW + quarter + 1) && !at(NOW - quarter - 1));
    }

    #[test]
    fn a_key_is_locked_for_five_minutes_after_more_than_five_wrong_signatures_on_end() {
        let [right, ..] = vectors();
        let [mut wrong, ..] = vectors();
        wrong.call.query.push('1');
        let mut keys = keys();
        let mut is_right = |vector: &Vector, now| {
            let found = check(&vector.call, &mut keys, now).unwrap();
            found.map(|_| ())
        };
        let five = 5 * 60 * 1000;
        for _ in 0..5 {
            assert!(is_right(&wrong, NOW).is_err());
        }
        assert!(is_right(&right, NOW).is_ok());
        for _ in 0..6 {
            assert!(is_right(&wrong, NOW).is_err());
        }
        let locked = Err("AK access failed to reach the limit,forbidden".to_owned());
        assert_eq!(is_right(&right, NOW), locked);
        assert_eq!(is_right(&right, NOW + five - 1), locked);
        assert!(is_right(&right, NOW + five).is_ok());
    }

    #[test]
    fn a_temporary_key_is_good_until_its_end_and_with_its_own_security_token() {
        let mut keys = Keys::default();
        let issued = keys.issue(NOW + 1);
        let [vector, ..] = vectors();
        let canonical = canonical_request(&vector.call, &vector.names).unwrap();
        let signature = signature(&canonical, DATE, &issued.secret_key);
        let mut found = |token: Option<&str>, now| {
            let [mut vector, ..] = vectors();
            vector.call.headers.pop();
            let (access_key, names) = (&issued.access_key, &vector.names);
            let header = format!(
                "SDK-HMAC-SHA256 Access={access_key}, SignedHeaders={names}, Signature={signature}"
            );
            let headers = &mut vector.call.headers;
            headers.push(("authorization".to_owned(), header));
            headers.extend(token.map(|token| ("x-security-token".to_owned(), token.to_owned())));
            let found = check(&vector.call, &mut keys, now).unwrap();
            found.map(|_| ())
        };
        let refused = Err("decrypt token fail".to_owned());
        assert_eq!(found(Some(&issued.security_token), NOW), Ok(()));
        assert_eq!(found(Some(&issued.security_token), NOW + 1), refused);
        assert_eq!(found(Some("another"), NOW), refused);
        assert_eq!(found(None, NOW), refused);
    }

    #[test]
    fn only_listed_headers_count_and_host_and_date_must_be_among_them() {
        let [mut vector, ..] = vectors();
        let added = ("user-agent".to_owned(), "any".to_owned());
        vector.call.headers.push(added);
        assert_eq!(checked(&vector.call, NOW), Ok(()));
        for names in ["x-sdk-date", "host", "host;missing;x-sdk-date", ""] {
            let text = canonical_request(&vector.call, names).unwrap_or_default();
            let signature = signature(&text, DATE, SECRET_KEY);
            let header = format!(
                "SDK-HMAC-SHA256 Access=EXAMPLEAK0123456789A, SignedHeaders={names}, Signature={signature}"
            );
            let place = vector
                .call
                .headers
                .iter()
                .position(|(name, _)| name == "authorization");
            vector.call.headers[place.unwrap()].1 = header;
            assert!(checked(&vector.call, NOW).is_err(), "{names}");
        }
    }
}
