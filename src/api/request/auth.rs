//! Who asks: the caller is found before the body of a request is read, and before anything is
//! looked up for it.

use actix_web::{
    Error, HttpMessage as _, HttpRequest,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::header::{self, HeaderMap, HeaderValue},
    middleware::Next,
    web,
};

use super::{audit, form, rate::Noted};
use crate::{
    api::{
        State,
        problem::{Problem, kinds::ProblemType},
    },
    domain::{audit::Rule, service::Sent},
    identity::{Credentials, Identity, Refusal},
    listener::Peer,
};

/// First parts of paths that anybody may read.
const OPEN: [&str; 6] = [
    "livez",
    "readyz",
    "metrics",
    "openapi.json",
    "docs",
    "problems",
];

/// Whether anybody may read what is there, also while the gateway is stopping.
pub(in crate::api) fn is_open(path: &str) -> bool {
    let first = path.split('/').nth(1).unwrap_or_default();
    OPEN.contains(&first)
}

/// Finds the caller and keeps it with the request, or refuses the request. The body is not touched.
pub(in crate::api) async fn authenticate(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let identity = match request.app_data::<web::Data<State>>() {
        _ if is_open(request.path()) => Ok(None),
        Some(state) => identify(&request, state).await.map(Some),
        None => Err(Problem::internal()),
    };
    let admitted = identity.and_then(|identity| {
        if asks_for_a_websocket(request.headers()) {
            let detail = "There are no WebSockets here: leave out Upgrade.";
            return Err(Problem::fault("header", "Upgrade", detail).sent(Sent::No));
        }
        Ok(identity)
    });
    match admitted {
        Ok(identity) => {
            if let Some(identity) = identity {
                request.extensions_mut().insert(identity);
            }
            Ok(next.call(request).await?.map_into_left_body())
        }
        Err(problem) => Ok(request.error_response(problem).map_into_right_body()),
    }
}

/// Whether a request is refused whatever its body is: nobody is known to have sent it, or the body
/// is said to be too large.
pub fn is_refused_by_head(
    state: &State,
    path: &str,
    headers: &HeaderMap,
    peer: Option<&Peer>,
) -> bool {
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.trim().parse::<u64>().ok());
    let max = u64::try_from(state.settings.body_max()).unwrap_or(u64::MAX);
    length.is_some_and(|length| length > max)
        || (!is_open(path) && state.identities.is_refused(&credentials(headers, peer)))
}

fn credentials<'a>(headers: &'a HeaderMap, peer: Option<&'a Peer>) -> Credentials<'a> {
    let headers = headers.get_all(header::AUTHORIZATION);
    Credentials {
        authorization: headers.map(HeaderValue::as_bytes).collect(),
        // Put there by the listener, if the peer showed a certificate.
        certificate: peer.map(Peer::certificate),
    }
}

/// Whether the framework would take whatever comes next on the connection, another request even,
/// for the body of this one. It does so for this upgrade only; other offers, which some clients
/// make with every request, are ignored.
fn asks_for_a_websocket(headers: &HeaderMap) -> bool {
    let is_websocket = |value: &HeaderValue| {
        let protocols = value.as_bytes().split(|byte| *byte == b',');
        protocols
            .map(<[u8]>::trim_ascii)
            .any(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
    };
    headers.get_all(header::UPGRADE).any(is_websocket)
}

/// The caller, if they may send one more request, and did not have it sent by a page of somebody
/// else.
async fn identify(request: &ServiceRequest, state: &State) -> Result<Identity, Problem> {
    let identity = find(request.request(), state).await;
    let identity = identity.map_err(|refusal| {
        audit::deny_early(request, state, None, refusal.as_str());
        unauthenticated(refusal)
    })?;
    let (left, counted) = state.rates.count(&identity.caller.name);
    Noted::note(&request.extensions(), left);
    counted?;
    let public_url = state.settings.public_url.as_deref();
    let is_change = !request.method().is_safe();
    if is_change && form::is_of_another_origin(request.headers(), public_url) {
        audit::deny_early(request, state, Some(&identity), Rule::CrossOrigin.as_str());
        let detail = "A browser sends this for a page of another origin. Changes are taken from programs, and from the gateway's \
                      own page.";
        return Err(Problem::new(ProblemType::Forbidden, detail).sent(Sent::No));
    }
    Ok(identity)
}

/// The caller whose credentials a request has, as far as callers are known at this moment.
pub(in crate::api) async fn find(
    request: &HttpRequest,
    state: &State,
) -> Result<Identity, Refusal> {
    let credentials = credentials(request.headers(), request.conn_data());
    state.identities.identify(&credentials).await
}

/// The answer to whoever has to say who they are.
pub(in crate::api) fn unauthenticated(refusal: Refusal) -> Problem {
    let detail = match refusal {
        Refusal::Several => {
            let detail = "Send one credential only: one Authorization header, or a client certificate that is one \
                          caller's.";
            return Problem::fault("header", "Authorization", detail);
        }
        Refusal::Missing | Refusal::Unknown => {
            "Send a key that the gateway knows: Authorization: Bearer <key>."
        }
        Refusal::Certificate => "The client certificate names nobody whom the gateway knows.",
        Refusal::CertificateExpired => "The client certificate has ended.",
        Refusal::CertificateUntrusted => {
            "The client certificate is from an authority that is trusted no more."
        }
        Refusal::TokenForm => "The token is too long, or not of a form that is taken here.",
        Refusal::TokenAlgorithm => {
            "The token's algorithm is not one that is taken from its issuer."
        }
        Refusal::TokenKey => {
            "The token's issuer has no such key. If the key is new, try again soon."
        }
        Refusal::IssuerKeys => {
            "The token cannot be checked, because the keys of its issuer cannot be had just now."
        }
        Refusal::TokenSignature => "The token's signature is wrong.",
        Refusal::TokenExpired => "The token has ended. Get a fresh one.",
        Refusal::TokenEarly => "The token is not valid yet.",
        Refusal::TokenAudience => "The token is not for this gateway.",
        Refusal::TokenClaims => {
            "The token lacks a claim that is needed, or has one of a form that is not taken."
        }
    };
    Problem::new(ProblemType::Unauthenticated, detail).sent(Sent::No)
}
