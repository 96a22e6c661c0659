//! Base addresses.

use std::{fmt, net::IpAddr};

use awc::http::uri::Authority;

/// A base address: scheme and authority. Every request goes to one that the configuration named.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    secure: bool,
    host: String,
    port: u16,
}

/// Why a text is not a base address. The message does not repeat the text, which could hold a
/// password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Another scheme, or none.
    #[error("the address does not begin with https:// or http://")]
    Scheme,
    /// A path, a query, a fragment or user information.
    #[error("the address has more than a scheme, a host and a port")]
    Extra,
    /// The host or the port cannot be read.
    #[error("the address has no valid host and port")]
    Authority,
    /// Clear text over a network.
    #[error("http:// is accepted for loopback addresses only")]
    ClearText,
    /// Another host than this one and its neighbours.
    #[error("the address is neither link-local nor a loopback address")]
    NotLocal,
}

impl Endpoint {
    /// Reads `https://host[:port]`. Clear text, `http://host[:port]`, is accepted for `localhost`
    /// and loopback addresses only, since every request carries a credential.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        let endpoint = Self::read(text)?;
        if !endpoint.secure && !is_loopback(&endpoint.host) {
            return Err(EndpointError::ClearText);
        }
        Ok(endpoint)
    }

    /// Reads `http://host[:port]` of a service that the machine has for itself: the host is
    /// `localhost`, a loopback address or a link-local one (`169.254.0.0/16`, `fe80::/10`).
    pub fn parse_local(text: &str) -> Result<Self, EndpointError> {
        let endpoint = Self::read(text)?;
        if endpoint.secure {
            return Err(EndpointError::Scheme);
        }
        if !is_loopback(&endpoint.host) && !is_link_local(&endpoint.host) {
            return Err(EndpointError::NotLocal);
        }
        Ok(endpoint)
    }

    fn read(text: &str) -> Result<Self, EndpointError> {
        let (secure, rest) = match text.split_once("://") {
            Some(("https", rest)) => (true, rest),
            Some(("http", rest)) => (false, rest),
            Some(_) | None => return Err(EndpointError::Scheme),
        };
        if rest.contains(['/', '?', '#', '@', '\\']) {
            return Err(EndpointError::Extra);
        }
        let authority: Authority = rest.parse().map_err(|_| EndpointError::Authority)?;
        let host = authority.host().to_ascii_lowercase();
        let port = match authority.port_u16() {
            Some(port) if port > 0 && rest.len() == host.len() + 1 + decimal_width(port) => port,
            None if rest.len() == host.len() => default_port(secure),
            Some(_) | None => return Err(EndpointError::Authority),
        };
        if host.is_empty() || (host.starts_with('[') && address(&host).is_none()) {
            return Err(EndpointError::Authority);
        }
        Ok(Self { secure, host, port })
    }

    /// Whether connections are encrypted.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// The value of the `Host` header.
    pub fn host_header(&self) -> String {
        if self.port == default_port(self.secure) {
            self.host.clone()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The address of a path as the HTTP client is told it. The scheme is always `http` and the
    /// port always written, because encryption happens in the connector, below the client.
    pub(super) fn client_address(&self, path: &str) -> String {
        format!("http://{}:{}{path}", self.host, self.port)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(formatter, "{scheme}://{}", self.host_header())
    }
}

fn default_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

fn decimal_width(port: u16) -> usize {
    port.to_string().len()
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || address(host).is_some_and(|address| address.is_loopback())
}

fn is_link_local(host: &str) -> bool {
    match address(host) {
        Some(IpAddr::V4(address)) => address.is_link_local(),
        Some(IpAddr::V6(address)) => address.is_unicast_link_local(),
        None => false,
    }
}

/// The address that a host is, without the brackets of version 6.
fn address(host: &str) -> Option<IpAddr> {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    bare.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{Endpoint, EndpointError};

    #[test]
    fn a_base_address_has_a_scheme_a_host_and_perhaps_a_port() {
        for (text, shown) in [
            (
                "https://iam.cn-north-4.example.com",
                "https://iam.cn-north-4.example.com",
            ),
            ("https://IAM.example.com:443", "https://iam.example.com"),
            (
                "https://iam.example.com:8443",
                "https://iam.example.com:8443",
            ),
            ("http://127.0.0.1:8090", "http://127.0.0.1:8090"),
            ("http://[::1]:8090", "http://[::1]:8090"),
            ("http://localhost", "http://localhost"),
        ] {
            assert_eq!(
                Endpoint::parse(text).map(|e| e.to_string()),
                Ok(shown.to_owned())
            );
        }
    }

    #[test]
    fn clear_text_never_leaves_the_machine() {
        for text in [
            "http://iam.example.com",
            "http://10.0.0.1",
            "http://localhost.example.com",
            "http://127.0.0.1.example.com:80",
        ] {
            assert_eq!(
                Endpoint::parse(text),
                Err(EndpointError::ClearText),
                "{text}"
            );
        }
    }

    #[test]
    fn a_local_service_is_on_this_machine_or_its_link() {
        for text in [
            "http://169.254.169.254",
            "http://169.254.0.1:8080",
            "http://[fe80::a9fe:a9fe]",
            "http://[febf::1]:80",
            "http://127.0.0.1:9",
            "http://[::1]",
            "http://localhost:9",
        ] {
            assert!(Endpoint::parse_local(text).is_ok(), "{text}");
        }
        for (text, error) in [
            ("https://169.254.169.254", EndpointError::Scheme),
            ("169.254.169.254", EndpointError::Scheme),
            ("http://169.254.169.254/", EndpointError::Extra),
            ("http://user@169.254.169.254", EndpointError::Extra),
            ("http://169.255.0.1", EndpointError::NotLocal),
            ("http://10.0.0.1", EndpointError::NotLocal),
            ("http://0.0.0.0", EndpointError::NotLocal),
            ("http://2852039166", EndpointError::NotLocal),
            ("http://[fec0::1]", EndpointError::NotLocal),
            ("http://[::ffff:10.0.0.1]", EndpointError::NotLocal),
            ("http://metadata.example.com", EndpointError::NotLocal),
            (
                "http://169.254.169.254.example.com",
                EndpointError::NotLocal,
            ),
        ] {
            assert_eq!(Endpoint::parse_local(text), Err(error), "{text}");
        }
    }

    #[test]
    fn whatever_else_is_refused() {
        for (text, error) in [
            ("iam.example.com", EndpointError::Scheme),
            ("ftp://iam.example.com", EndpointError::Scheme),
            ("HTTPS://iam.example.com", EndpointError::Scheme),
            ("https://user:word@iam.example.com", EndpointError::Extra),
            ("https://iam.example.com/", EndpointError::Extra),
            ("https://iam.example.com?x=1", EndpointError::Extra),
            ("https://iam.example.com#x", EndpointError::Extra),
            ("https://", EndpointError::Authority),
            ("https://iam.example.com:", EndpointError::Authority),
            ("https://iam.example.com:0", EndpointError::Authority),
            ("https://iam.example.com:70000", EndpointError::Authority),
            ("https://iam.example.com:+8443", EndpointError::Authority),
            ("https://iam.example.com:08443", EndpointError::Authority),
            ("https://:80", EndpointError::Authority),
            ("https://[::1", EndpointError::Authority),
            ("https://[example]", EndpointError::Authority),
            ("https://[::1]x", EndpointError::Authority),
            ("https://iam example.com", EndpointError::Authority),
        ] {
            assert_eq!(Endpoint::parse(text), Err(error), "{text}");
        }
    }
}
