//! Addresses: of the services of the cloud, and the base of links.

use super::{
    reader::Entry,
    values::{self, Reading},
};
use crate::transport::{Endpoint, EndpointError};

/// The base of absolute links. A path is allowed, as a gateway may stand under one; empty means
/// relative links.
pub(super) fn public_url(entry: &Entry) -> Reading<Option<String>> {
    let Some(url) = values::text_or_empty(entry)? else {
        return Ok(None);
    };
    if is_base_of_links(&url) {
        Ok(Some(url))
    } else {
        Err(
            "must be empty, or an absolute http or https address without \
                               user name, query, fragment and trailing slash"
                .to_owned(),
        )
    }
}

/// The base address of a service of the cloud: scheme and authority. Plain `http` is for loopback
/// addresses only, since tokens travel there.
pub(super) fn endpoint(entry: &Entry) -> Reading<String> {
    let url = values::text(entry)?;
    match Endpoint::parse(&url) {
        Ok(_) => Ok(url),
        Err(EndpointError::Extra) => Err(
            "must end with the host or the port, without a slash or a path, and have no user name"
                .to_owned(),
        ),
        Err(EndpointError::ClearText) => Err(
            "must begin with https://, because http:// is accepted for loopback addresses only"
                .to_owned(),
        ),
        Err(EndpointError::Scheme | EndpointError::Authority | EndpointError::NotLocal) => Err(
            "must be an https address such as \"https://oms.cn-north-4.myhuaweicloud.com\""
                .to_owned(),
        ),
    }
}

/// The base address of a service that the machine has for itself, such as the metadata service:
/// secrets come from there in clear text.
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

/// Whether it has a scheme, a host, perhaps a port and a path, and nothing else.
fn is_base_of_links(url: &str) -> bool {
    let scheme = ["https://", "http://"];
    let Some(rest) = scheme.iter().find_map(|scheme| url.strip_prefix(scheme)) else {
        return false;
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let in_path = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%".contains(&byte);
    // Nothing is sent there, so that clear text is for any host.
    Endpoint::parse(&format!("https://{authority}")).is_ok()
        && path.bytes().all(in_path)
        && !path.ends_with('/')
}

#[cfg(test)]
mod tests {
    use super::is_base_of_links;

    #[test]
    fn only_plain_absolute_addresses_are_bases_of_links() {
        for good in [
            "https://example.com",
            "http://example.com:8080",
            "https://[::1]:8443/base",
            "https://example.com/a/b",
        ] {
            assert!(is_base_of_links(good), "{good} was refused");
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
            "https://example.com/a?x=1",
            "https://example.com/a/",
            "https://example.com:0",
            "https://example.com:+80",
            "https://exa mple.com",
        ] {
            assert!(!is_base_of_links(bad), "{bad} was accepted");
        }
    }
}
