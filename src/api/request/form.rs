//! Whether a request is for this host at all, said in one way only.

use std::net::Ipv6Addr;

use actix_web::{
    dev::ServiceRequest,
    http::header::{self, HeaderValue},
};

use crate::{api::problem::Problem, domain::service::Sent, listener::Exchange};

/// The longest name of a host (RFC 1035, section 2.3.4), without a dot at its end.
const NAME_MAX: usize = 253;

/// Refuses a target with a fragment or of a scheme that is not HTTP's, one that names another host than the header does, and a
/// header that names none: something in front may have decided by the one, and this program would go on by the other.
pub(in crate::api) fn check(request: &ServiceRequest) -> Result<(), Problem> {
    if request
        .conn_data::<Exchange>()
        .is_some_and(Exchange::has_fragment)
    {
        let detail = "The target of a request has no fragment: write # as %23.";
        return Err(Problem::fault("path", "", detail).sent(Sent::No));
    }
    // Both, however the connection was made: what stands in front may have ended TLS.
    let scheme = request.uri().scheme_str();
    if scheme.is_some_and(|scheme| !["http", "https"].contains(&scheme)) {
        let detail =
            "The target of a request is a path, or an address that begins with http or https.";
        return Err(Problem::fault("path", "", detail).sent(Sent::No));
    }
    let host = request.headers().get(header::HOST);
    let host = host.map_or(Ok(""), HeaderValue::to_str).unwrap_or("\0");
    let target = request.uri().authority();
    // A request without a host has an empty one (RFC 9112, section 3.2).
    let detail = if !host.is_empty() && split(host).is_none() {
        "Host must be a name or an address, and perhaps a port."
    } else if target.is_some_and(|target| !target.as_str().eq_ignore_ascii_case(host)) {
        "The target of the request names another host than Host does: send the path alone."
    } else {
        return Ok(());
    };
    Err(Problem::fault("header", "Host", detail).sent(Sent::No))
}

/// The host and the port of an authority that has no user's name; `None` if it is not one.
fn split(authority: &str) -> Option<(&str, Option<u16>)> {
    let end = match authority.strip_prefix('[') {
        Some(rest) => {
            let (literal, _) = rest.split_once(']')?;
            literal.parse::<Ipv6Addr>().ok()?;
            literal.len() + 2
        }
        None => authority.find(':').unwrap_or(authority.len()),
    };
    let (host, port) = authority.split_at(end);
    let digits = port.strip_prefix(':').unwrap_or(port);
    let is_port = port.is_empty() || port.starts_with(':');
    if !is_port || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let port = match digits {
        "" => None,
        digits => Some(digits.parse().ok()?),
    };
    (host.starts_with('[') || is_name(host)).then_some((host, port))
}

/// Whether these are labels of letters, digits, hyphens inside, and underscores, which names of containers have.
fn is_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        let in_label = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        !(label.is_empty() || label.starts_with('-') || label.ends_with('-'))
            && label.bytes().all(in_label)
    };
    host.len() <= NAME_MAX && host.split('.').all(is_label)
}
