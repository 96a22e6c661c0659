//! What an answer says of the credential that the request showed.

use crate::{
    domain::service::ServiceName,
    transport::{Method, Response},
    upstream::answer::{self, Codes},
};

/// The codes by which the vendor's API gateway calls a token dead or a signature wrong, without the
/// prefix that differs from service to service ("error codes" in its user guide): 0301 wrong
/// authentication information, 0305 the same, 0307 the token must be updated.
const REFUSED_CREDENTIAL: [&str; 3] = ["0301", "0305", "0307"];
/// Those by which it says that a user whom it knows may not do this, by the same page: 0302 the
/// user is not authorized, 0802 the user is forbidden in this region.
const REFUSED_USER: [&str; 2] = ["0302", "0802"];
/// What the codes of the API gateway begin with.
const GATEWAY: [&str; 2] = ["APIG", "APIGW"];

/// The code of an answer that calls the credential dead or wrong. Other refusals of status 401 are
/// the service's own: SMS has them for plain mistakes in a request.
pub(super) fn refused_credential_code(response: &Response) -> Option<String> {
    if response.status != 401 {
        return None;
    }
    let (code, _) = answer::error_code(&response.body)?;
    let (prefix, number) = code.split_once('.')?;
    (GATEWAY.contains(&prefix) && REFUSED_CREDENTIAL.contains(&number)).then_some(code)
}

/// Whether an answer says that the request was not let in, and not who says so: it has no code.
pub(super) fn is_mute_refusal(response: &Response) -> bool {
    response.status == 401 && answer::error_code(&response.body).is_none()
}

/// Whether an answer names the credential in the service's own words. It can mean something else by
/// that, say the keys of a bucket.
pub(super) fn blames_credential(codes: &Codes, response: &Response) -> bool {
    let code = (400..500)
        .contains(&response.status)
        .then(|| answer::error_code(&response.body))
        .flatten();
    code.is_some_and(|(code, _)| codes.credentials.contains(&code.as_str()))
}

/// Why a signature may have been refused, by the text that follows the vendor's code 0301
/// ("APIG.0301" in its troubleshooting pages). The text is not passed on, since it can name the
/// access key.
pub(super) fn wrong_signature(response: &Response) -> &'static str {
    let message = answer::error_code(&response.body).map(|(_, message)| message.to_lowercase());
    let says = |part| {
        message
            .as_ref()
            .is_some_and(|message| message.contains(part))
    };
    if says("signature expired") {
        "its time is not the service's, so that the clock of this machine may be wrong"
    } else if says("reach the limit") {
        "the access key is locked for some minutes after too many wrong signatures"
    } else if says("not exist") {
        "there is no such access key"
    } else {
        "the access key and the secret key may not belong together, or may have ended"
    }
}

/// Whether an answer, which refuses no credential, shows that one was accepted: not one that can
/// come from before the check, such as a path that the API gateway does not know, from something in
/// between, such as a login page or a redirection, or from a fault.
pub(super) fn shows_accepted_credential(
    (service, codes): (&ServiceName, &Codes),
    method: Method,
    response: &Response,
) -> bool {
    match response.status {
        200..300 => match method {
            Method::Get => answer::is_json(&response.body),
            Method::Post | Method::Put | Method::Delete => {
                response.body.is_empty() || answer::is_json(&response.body)
            }
        },
        407 | 408 | 429 => false,
        400..500 => answer::error_code(&response.body)
            // Some of the service's own words are about the credential.
            .filter(|(code, _)| !codes.credentials.contains(&code.as_str()))
            .and_then(|(code, _)| Some(is_said_to_somebody_known(service, code.split_once('.')?)))
            .unwrap_or_default(),
        _ => false,
    }
}

/// Whether a refusal with this code comes after the check of the credential. What the service says
/// itself does: the API gateway in front of it passes on nothing else.
fn is_said_to_somebody_known(service: &ServiceName, (prefix, number): (&str, &str)) -> bool {
    prefix.eq_ignore_ascii_case(service.as_str())
        || GATEWAY.contains(&prefix) && REFUSED_USER.contains(&number)
}
