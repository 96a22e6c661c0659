//! Whether a request is for this host at all, said in one way only.

use actix_web::{
    dev::ServiceRequest,
    http::{
        header::{self, HeaderValue},
        uri::Authority,
    },
};

use crate::{api::problem::Problem, domain::service::Sent, listener::Exchange};

/// Refuses a target with a fragment, one that names another host than the header does, and a header that names none: something in front may
/// have decided by the one, and this program would go on by the other.
pub(in crate::api) fn check(request: &ServiceRequest) -> Result<(), Problem> {
    if request
        .conn_data::<Exchange>()
        .is_some_and(Exchange::has_fragment)
    {
        let detail = "The target of a request has no fragment: write # as %23.";
        return Err(Problem::fault("path", "", detail).sent(Sent::No));
    }
    let host = request.headers().get(header::HOST);
    let host = host.map_or(Ok(""), HeaderValue::to_str).unwrap_or("\0");
    // A request without a host has an empty one (RFC 9112, section 3.2).
    let is_host = host.is_empty()
        || host
            .parse::<Authority>()
            .is_ok_and(|authority| is_plain(&authority));
    let target = request.uri().authority();
    let detail = if !is_host {
        "Host must be a name or an address, and perhaps a port."
    } else if target.is_some_and(|target| !target.as_str().eq_ignore_ascii_case(host)) {
        "The target of the request names another host than Host does: send the path alone."
    } else {
        return Ok(());
    };
    Err(Problem::fault("header", "Host", detail).sent(Sent::No))
}

/// Whether it has no user's name, which hosts have not.
fn is_plain(authority: &Authority) -> bool {
    !authority.as_str().contains('@')
}
