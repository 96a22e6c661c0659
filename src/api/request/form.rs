//! Whether a request is for this host at all, said in one way only, and whether a browser sends it
//! for a page of another origin.

use std::net::Ipv6Addr;

use actix_web::{
    dev::ServiceRequest,
    http::header::{self, HeaderMap, HeaderValue},
};

use crate::{api::problem::Problem, domain::service::Sent, listener::Exchange};

/// The longest name of a host (RFC 1035, section 2.3.4), without a dot at its end.
const NAME_MAX: usize = 253;

/// Refuses a target with a fragment or of a scheme that is not HTTP's, one that names another host
/// than the header does, and a header that names none: something in front may have decided by the
/// one, and this program would go on by the other.
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

/// Whether a browser says that a page of another origin sends the request, in the name of whoever
/// looks at that page. Programs say nothing of the kind. `public_url`: what the gateway is called
/// from outside, if that is configured.
pub(super) fn is_of_another_origin(headers: &HeaderMap, public_url: Option<&str>) -> bool {
    let mut sites = headers.get_all("sec-fetch-site").peekable();
    if sites.peek().is_some() {
        // What the browser has found by the address that it asked for, whatever became of Host on
        // the way.
        return !sites.all(|site| {
            ["same-origin", "none"]
                .map(str::as_bytes)
                .contains(&site.as_bytes())
        });
    }
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let is_own = |origin: &HeaderValue| {
        origin
            .to_str()
            .ok()
            .and_then(Origin::parse)
            .is_some_and(|origin| {
                let public = public_url.and_then(Origin::of_url);
                host.is_some_and(|host| origin.is_at(host))
                    || public.is_some_and(|public| public == origin)
            })
    };
    !headers.get_all(header::ORIGIN).all(is_own)
}

/// Where a page is from (RFC 6454).
#[derive(PartialEq, Eq)]
struct Origin {
    /// The port that the scheme has where none is named; no two schemes here have the same.
    default_port: u16,
    host: String,
    port: u16,
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let default_port = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let (host, port) = split(authority)?;
        Some(Self {
            default_port,
            host: host.to_ascii_lowercase(),
            port: port.unwrap_or(default_port),
        })
    }

    fn of_url(url: &str) -> Option<Self> {
        let begin = url.find("://")? + "://".len();
        let end = url[begin..]
            .find('/')
            .map_or(url.len(), |path| begin + path);
        Self::parse(&url[..end])
    }

    /// Whether a request to this authority may be one to the origin: by which scheme it was made is
    /// not known, since something in front may have ended TLS.
    fn is_at(&self, authority: &str) -> bool {
        split(authority).is_some_and(|(host, port)| {
            self.host.eq_ignore_ascii_case(host) && self.port == port.unwrap_or(self.default_port)
        })
    }
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

/// Whether these are labels of letters, digits, hyphens inside, and underscores, which names of
/// containers have.
fn is_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    let is_label = |label: &str| {
        let in_label = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        !(label.is_empty() || label.starts_with('-') || label.ends_with('-'))
            && label.bytes().all(in_label)
    };
    host.len() <= NAME_MAX && host.split('.').all(is_label)
}
