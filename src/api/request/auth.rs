//! Who asks: the caller is found before the body of a request is read, and before anything is looked up for it.

use actix_web::{
    Error, HttpMessage as _,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::header::{self, HeaderMap, HeaderValue},
    middleware::Next,
    web,
};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::{
    api::{
        Settings, State,
        problem::{Problem, kinds::ProblemType},
    },
    domain::{access::Caller, service::Sent},
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
    if is_open(request.path()) {
        return Ok(next.call(request).await?.map_into_left_body());
    }
    let caller = match request.app_data::<web::Data<State>>() {
        Some(state) => identify(&request, &state.settings),
        None => Err(Problem::internal()),
    };
    match caller {
        Ok(_) if asks_for_a_websocket(request.headers()) => {
            let detail = "There are no WebSockets here: leave out Upgrade.";
            let problem = Problem::fault("header", "Upgrade", detail).sent(Sent::No);
            Ok(request.error_response(problem).map_into_right_body())
        }
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            Ok(next.call(request).await?.map_into_left_body())
        }
        Err(problem) => Ok(request.error_response(problem).map_into_right_body()),
    }
}

/// Whether the framework would take whatever comes next on the connection, another request even, for the body of this
/// one. It does so for this upgrade only; other offers, which some clients make with every request, are ignored.
fn asks_for_a_websocket(headers: &HeaderMap) -> bool {
    let is_websocket = |value: &HeaderValue| {
        let protocols = value.as_bytes().split(|byte| *byte == b',');
        protocols
            .map(<[u8]>::trim_ascii)
            .any(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
    };
    headers.get_all(header::UPGRADE).any(is_websocket)
}

fn identify(request: &ServiceRequest, settings: &Settings) -> Result<Caller, Problem> {
    let mut values = request.headers().get_all(header::AUTHORIZATION);
    let caller = match (values.next(), values.next()) {
        (None, _) => Some(settings.anonymous.clone()),
        (Some(value), None) => value
            .to_str()
            .ok()
            .and_then(|text| with_key(text, settings)),
        (Some(_), Some(_)) => None,
    };
    match caller {
        Some(caller) if caller.is_anonymous() && caller.permissions.is_empty() => {
            Err(unauthenticated())
        }
        Some(caller) => Ok(caller),
        None => Err(unauthenticated()),
    }
}

/// The caller whose key stands in the header. Every digest is compared, each in constant time.
fn with_key(header: &str, settings: &Settings) -> Option<Caller> {
    let (scheme, key) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let digest: [u8; 32] = Sha256::digest(key.trim().as_bytes()).into();
    let mut found = None;
    for candidate in &settings.callers {
        if bool::from(candidate.key_sha256.ct_eq(&digest)) {
            found = Some(candidate);
        }
    }
    found.map(|candidate| candidate.caller.clone())
}

/// The answer to whoever has to say who they are.
pub(in crate::api) fn unauthenticated() -> Problem {
    Problem::new(
        ProblemType::Unauthenticated,
        "Send a key that the gateway knows: Authorization: Bearer <key>.",
    )
    .sent(Sent::No)
}
