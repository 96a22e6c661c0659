//! Requests signed with an access key: `SDK-HMAC-SHA256`.
//!
//! The page "AK/SK Signing and Authentication" of the vendor's API gateway: what is signed is a
//! text made of the method, the path, the query, some headers and the digest of the body. The
//! secret key is the key of the code as it is.

use std::fmt::Write as _;

use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::{Timestamp, tz::TimeZone};
use sha2::{Digest as _, Sha256};

use crate::domain::secret::Secret;

const ALGORITHM: &str = "SDK-HMAC-SHA256";

/// The header that has to hold [`date`].
pub const DATE_HEADER: &str = "x-sdk-date";

/// A request, as far as it is signed.
#[derive(Clone, Copy, Debug)]
pub struct Signable<'a> {
    /// The method, in upper case.
    pub method: &'a str,
    /// The path and the query, as they are sent.
    pub target: &'a str,
    /// The headers that are signed, names in lower case, in any order. `host` and [`DATE_HEADER`]
    /// have to be among them.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body; empty if there is none.
    pub body: &'a [u8],
}

/// A signature.
#[derive(Clone, Debug)]
pub struct Signature {
    /// The value of the header `Authorization`.
    pub authorization: Secret,
    /// The signature alone, which is a part of it.
    pub code: Secret,
}

/// A moment in the form of [`DATE_HEADER`], in UTC.
pub fn date(now: Timestamp) -> String {
    now.to_zoned(TimeZone::UTC)
        .strftime("%Y%m%dT%H%M%SZ")
        .to_string()
}

/// Signs a request that is sent at `date`, which is also the value of its [`DATE_HEADER`].
#[expect(
    clippy::missing_panics_doc,
    reason = "the code takes keys of every length"
)]
pub fn sign(
    request: &Signable<'_>,
    access_key: &Secret,
    secret_key: &Secret,
    date: &str,
) -> Signature {
    let (canonical, names) = canonical_request(request);
    let digest = hex::encode(Sha256::digest(canonical));
    let mut code = Hmac::<Sha256>::new_from_slice(secret_key.expose().as_bytes())
        .expect("the code takes keys of every length");
    code.update(format!("{ALGORITHM}\n{date}\n{digest}").as_bytes());
    let code = hex::encode(code.finalize().into_bytes());
    let access_key = access_key.expose();
    Signature {
        authorization: Secret::new(format!(
            "{ALGORITHM} Access={access_key}, SignedHeaders={names}, Signature={code}"
        )),
        code: Secret::new(code),
    }
}

/// The text of a request that is signed, and the names of its headers.
fn canonical_request(request: &Signable<'_>) -> (String, String) {
    let (path, query) = request
        .target
        .split_once('?')
        .unwrap_or((request.target, ""));
    let mut headers = request.headers.to_vec();
    headers.sort_unstable();
    let names: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let names = names.join(";");
    let headers = headers.iter().fold(String::new(), |text, (name, value)| {
        text + name + ":" + value.trim() + "\n"
    });
    let canonical = format!(
        "{}\n{}\n{}\n{headers}\n{names}\n{}",
        request.method,
        canonical_path(path),
        canonical_query(query),
        hex::encode(Sha256::digest(request.body)),
    );
    (canonical, names)
}

/// Every segment decoded and encoded again, with a slash at the end.
fn canonical_path(path: &str) -> String {
    let decoded = decoded(path.bytes());
    let mut canonical = String::with_capacity(path.len() + 1);
    for (number, segment) in decoded.split(|byte| *byte == b'/').enumerate() {
        if number > 0 {
            canonical.push('/');
        }
        encode(segment, &mut canonical);
    }
    if !canonical.ends_with('/') {
        canonical.push('/');
    }
    canonical
}

/// The parameters by name and then by value, encoded again.
fn canonical_query(query: &str) -> String {
    // A plus sign stands for a space in a query, and only there.
    let plain = |text: &str| {
        decoded(
            text.bytes()
                .map(|byte| if byte == b'+' { b' ' } else { byte }),
        )
    };
    let mut parameters: Vec<(Vec<u8>, Vec<u8>)> = query
        .split('&')
        .filter(|parameter| !parameter.is_empty())
        .map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")))
        .map(|(name, value)| (plain(name), plain(value)))
        .collect();
    parameters.sort_unstable();
    let mut canonical = String::with_capacity(query.len());
    for (number, (name, value)) in parameters.iter().enumerate() {
        if number > 0 {
            canonical.push('&');
        }
        encode(name, &mut canonical);
        canonical.push('=');
        encode(value, &mut canonical);
    }
    canonical
}

/// The bytes that percent-encoded ones stand for. A percent sign without two digits stands for
/// itself.
fn decoded(encoded: impl Iterator<Item = u8>) -> Vec<u8> {
    let encoded: Vec<u8> = encoded.collect();
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.as_slice();
    while let Some((&first, after)) = rest.split_first() {
        match after {
            [high, low, after @ ..] if first == b'%' && digit(*high) && digit(*low) => {
                bytes.push(value(*high) << 4 | value(*low));
                rest = after;
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    bytes
}

fn digit(byte: u8) -> bool {
    byte.is_ascii_hexdigit()
}

/// What a digit of hex is worth.
fn value(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// Percent-encodes everything but letters, digits and `-_.~`.
fn encode(bytes: &[u8], text: &mut String) {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a text cannot fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::{Signable, canonical_path, canonical_query, canonical_request, date, sign};
    use crate::domain::secret::Secret;

    const DATE: &str = "20260101T000000Z";
    const PROJECT: (&str, &str) = ("x-project-id", "2c0689c860ad4728a497c91ec0844383");
    const SENT: (&str, &str) = ("x-sdk-date", DATE);
    const JSON: (&str, &str) = ("content-type", "application/json");
    const OMS: (&str, &str) = ("host", "oms.cn-north-4.myhuaweicloud.com");

    /// Signs with the keys of the vectors, and checks the text that is signed by its digest.
    fn check(request: &Signable<'_>, canonical: &str, digest: &str, names: &str, code: &str) {
        let access_key = Secret::new("EXAMPLEAK0123456789A");
        let secret_key = Secret::new("exampleSecretKey0123456789abcdefABCDEF01");
        assert_eq!(canonical_request(request).0, canonical);
        assert_eq!(hex::encode(Sha256::digest(canonical)), digest);
        let signature = sign(request, &access_key, &secret_key, DATE);
        assert_eq!(signature.code.expose(), code);
        assert_eq!(
            signature.authorization.expose(),
            format!(
                "SDK-HMAC-SHA256 Access=EXAMPLEAK0123456789A, SignedHeaders={names}, Signature={code}"
            )
        );
    }

    #[test]
    fn a_read_with_a_query_that_needs_escaping_is_signed_as_the_vendors_program_does() {
        let request = Signable {
            method: "GET",
            target: "/v2/2c0689c860ad4728a497c91ec0844383/tasks?limit=10&offset=0&status=2&task_name=%E6%97%A5%E5%BF%97%20a~b%2Fc",
            headers: &[SENT, PROJECT, OMS, JSON],
            body: b"",
        };
        let canonical = "GET
/v2/2c0689c860ad4728a497c91ec0844383/tasks/
limit=10&offset=0&status=2&task_name=%E6%97%A5%E5%BF%97%20a~b%2Fc
content-type:application/json
host:oms.cn-north-4.myhuaweicloud.com
x-project-id:2c0689c860ad4728a497c91ec0844383
x-sdk-date:20260101T000000Z

content-type;host;x-project-id;x-sdk-date
e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        check(
            &request,
            canonical,
            "e63de1ee6ec185c949844bde9c48893705a6393911db81ed6fee82a78cb6b929",
            "content-type;host;x-project-id;x-sdk-date",
            "0bf5a4b1f0f84ed45eaa0d642125303646990a77d42805a38dd47905c8d8ebd5",
        );
    }

    #[test]
    fn a_change_with_temporary_keys_is_signed_as_the_vendors_program_does() {
        let request = Signable {
            method: "POST",
            target: "/v3/tasks/7a9a9540-ff28-4869-b9e4-855fbe120001/action",
            headers: &[
                JSON,
                ("host", "sms.ap-southeast-3.myhuaweicloud.com"),
                PROJECT,
                SENT,
                ("x-security-token", "ExampleSecurityToken=="),
            ],
            body: br#"{"operation":"stop"}"#,
        };
        let canonical = "POST
/v3/tasks/7a9a9540-ff28-4869-b9e4-855fbe120001/action/

content-type:application/json
host:sms.ap-southeast-3.myhuaweicloud.com
x-project-id:2c0689c860ad4728a497c91ec0844383
x-sdk-date:20260101T000000Z
x-security-token:ExampleSecurityToken==

content-type;host;x-project-id;x-sdk-date;x-security-token
ee361af20c740491a9dfb5aa2a88cce2323431289eb6b4355ce2eed7d211dd81";
        check(
            &request,
            canonical,
            "8090a64b888893e57c73a7e1655947ce771fa834fe52333ce56bf0e42e65fbbd",
            "content-type;host;x-project-id;x-sdk-date;x-security-token",
            "27e228eb38cc802ae89e2ea52c81902188dfbf371d2f646e693b46677f5a9bba",
        );
    }

    #[test]
    fn a_change_without_a_body_is_signed_as_the_vendors_program_does() {
        let request = Signable {
            method: "POST",
            target: "/v2/2c0689c860ad4728a497c91ec0844383/tasks/191297407830872/stop",
            headers: &[JSON, OMS, PROJECT, SENT],
            body: b"",
        };
        let canonical = "POST
/v2/2c0689c860ad4728a497c91ec0844383/tasks/191297407830872/stop/

content-type:application/json
host:oms.cn-north-4.myhuaweicloud.com
x-project-id:2c0689c860ad4728a497c91ec0844383
x-sdk-date:20260101T000000Z

content-type;host;x-project-id;x-sdk-date
e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        check(
            &request,
            canonical,
            "18e10f3ed2bd3c1f956928b29da2d0da346dd6d7f33b31d582bf990bee7cd1b1",
            "content-type;host;x-project-id;x-sdk-date",
            "24e670f77c5d66b4818d4e63fcd7525cd56694ab929ca0e5d23d66c828b85c2f",
        );
    }

    #[test]
    fn a_read_of_the_account_is_signed_as_the_vendors_program_does() {
        let request = Signable {
            method: "GET",
            target: "/v3/auth/domains",
            headers: &[
                ("host", "iam.myhuaweicloud.com"),
                ("x-domain-id", "d78cbac186b744899480f25bd022f468"),
                SENT,
            ],
            body: b"",
        };
        let canonical = "GET
/v3/auth/domains/

host:iam.myhuaweicloud.com
x-domain-id:d78cbac186b744899480f25bd022f468
x-sdk-date:20260101T000000Z

host;x-domain-id;x-sdk-date
e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        check(
            &request,
            canonical,
            "1a016b376b48fd9d4cd4636d8f9b839c7368718c0a936818225e18ddc5c22b81",
            "host;x-domain-id;x-sdk-date",
            "7dff64aa16f1da89d3238e12cc35a024f9bdcd5a846a44c6c1a8f87ffc059621",
        );
    }

    #[test]
    fn paths_and_queries_have_one_form_whatever_they_were_written_like() {
        assert_eq!(canonical_path("/"), "/");
        assert_eq!(canonical_path("/a+b/%7ec%2fd/"), "/a%2Bb/~c/d/");
        assert_eq!(canonical_path("/50%/%zz"), "/50%25/%25zz/");
        assert_eq!(canonical_query(""), "");
        assert_eq!(
            canonical_query("b=2&a=%7e&b=10&a=x+y&&c"),
            "a=x%20y&a=~&b=10&b=2&c="
        );
    }

    #[test]
    fn a_moment_is_written_in_utc_without_separators() {
        let moment = "2026-01-01T01:02:03.9+01:00".parse().unwrap();
        assert_eq!(date(moment), "20260101T000203Z");
    }

    #[test]
    fn neither_the_key_nor_the_signature_shows_in_debug_output() {
        let request = Signable {
            method: "GET",
            target: "/",
            headers: &[OMS, SENT],
            body: b"",
        };
        let signature = sign(&request, &Secret::new("AK-1"), &Secret::new("sk"), DATE);
        let shown = format!("{signature:?}");
        assert!(!shown.contains("AK-1") && !shown.contains(signature.code.expose()));
    }
}
