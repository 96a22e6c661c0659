//! Addresses: of the services of the cloud, and the base of links.

use std::net::{IpAddr, Ipv6Addr};

use super::{
    reader::Entry,
    values::{self, Reading},
};
use crate::transport::Endpoint;

/// An absolute `http` or `https` address without user name, query and fragment.
struct Address<'a> {
    secure: bool,
    host: &'a str,
    /// Empty, or begins with a slash.
    path: &'a str,
}

/// The base of absolute links. A path is allowed, as a gateway may stand under one; empty means relative links.
pub(super) fn public_url(entry: &Entry) -> Reading<Option<String>> {
    let Some(url) = values::text_or_empty(entry)? else {
        return Ok(None);
    };
    match parse(&url) {
        Some(address) if !address.path.ends_with('/') => Ok(Some(url)),
        Some(_) | None => Err(
            "must be empty, or an absolute http or https address without \
                               user name, query, fragment and trailing slash"
                .to_owned(),
        ),
    }
}

/// The base address of a service of the cloud: scheme and authority. Plain `http` is for loopback addresses only,
/// since tokens travel there.
pub(super) fn endpoint(entry: &Entry) -> Reading<String> {
    let url = values::text(entry)?;
    match parse(&url) {
        Some(address) if !address.path.is_empty() => {
            Err("must end with the host or the port, without a slash or a path".to_owned())
        }
        Some(address) if address.secure || is_loopback(address.host) => Ok(url),
        Some(_) => Err(
            "must begin with https://, because http:// is accepted for loopback addresses only"
                .to_owned(),
        ),
        None => Err("must be an https address such as \
                     \"https://oms.cn-north-4.myhuaweicloud.com\""
            .to_owned()),
    }
}

/// The base address of a service that the machine has for itself, such as the metadata service: secrets come from there
/// in clear text.
pub(super) fn local(entry: &Entry) -> Reading<String> {
    let url = values::text(entry)?;
    match Endpoint::parse_local(&url) {
        Ok(_) => Ok(url),
        Err(_) => Err(
            "must be http:// and a link-local or loopback address, such as \
                       \"http://169.254.169.254\""
                .to_owned(),
        ),
    }
}

fn parse(url: &str) -> Option<Address<'_>> {
    let (scheme, rest) = url.split_once("://")?;
    let secure = match scheme {
        "https" => true,
        "http" => false,
        _ => return None,
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let in_path = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%".contains(&byte);
    if !path.bytes().all(in_path) {
        return None;
    }
    let end = host_end(authority)?;
    let (host, port) = authority.split_at(end);
    let fits = match port.strip_prefix(':') {
        Some(digits) => digits.parse::<u16>().is_ok_and(|port| port > 0),
        None => port.is_empty(),
    };
    fits.then_some(Address { secure, host, path })
}

/// Where the host ends in an authority, if it begins with one.
fn host_end(authority: &str) -> Option<usize> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (literal, _) = rest.split_once(']')?;
        literal.parse::<Ipv6Addr>().ok()?;
        return Some(literal.len() + 2);
    }
    let end = authority.find(':').unwrap_or(authority.len());
    let in_host = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-';
    (end > 0 && authority[..end].bytes().all(in_host)).then_some(end)
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::{is_loopback, parse};

    #[test]
    fn only_plain_absolute_addresses_are_read() {
        for good in [
            "https://example.com",
            "http://127.0.0.1:8080",
            "https://[::1]:8443/base",
            "https://example.com/a/b",
        ] {
            assert!(parse(good).is_some(), "{good} was refused");
        }
        for bad in [
            "example.com",
            "//example.com",
            "ftp://example.com",
            "https://",
            "https://:80",
            "https://user:password@example.com",
            "https://example.com?x=1",
            "https://example.com/#x",
            "https://example.com:0",
            "https://example.com:70000",
            "https://[::1",
            "https://[example]",
            "https://[::1]x",
            "https://exa mple.com",
        ] {
            assert!(parse(bad).is_none(), "{bad} was accepted");
        }
    }

    #[test]
    fn a_name_that_only_looks_like_loopback_is_none() {
        assert!(is_loopback("127.0.0.1"));
        assert!(is_loopback("127.1.2.3"));
        assert!(is_loopback("[::1]"));
        assert!(is_loopback("localhost"));
        assert!(!is_loopback("127.0.0.1.example.com"));
        assert!(!is_loopback("localhost.example.com"));
        assert!(!is_loopback("10.0.0.1"));
        assert!(!is_loopback("[::2]"));
    }
}
