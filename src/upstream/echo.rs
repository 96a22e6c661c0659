//! Secrets that an answer repeats. The vendor's texts are shown to callers, and some services repeat in them what they
//! were told.

use serde_json::Value;

use crate::{
    domain::{secret::Secret, service::UpstreamError},
    transport::Response,
};

/// What stands in the place of a secret.
const MASK: &[u8] = b"***";
/// Nothing shorter is a secret, and it could be a part of any word.
const SHORTEST: usize = 8;

/// The refusal with another text in the place of the token that was sent with the request. Documents are left as they
/// are.
pub(super) fn without_token(mut response: Response, token: &Secret) -> Response {
    let token = token.expose();
    if response.status < 300 || token.len() < SHORTEST {
        return response;
    }
    if let Some(body) = masked(&response.body, token.as_bytes()) {
        response.body = body.into();
    }
    response.request_id = response.request_id.filter(|id| !id.contains(token));
    response
}

/// The error without the vendor's text, if that repeats one of the texts in `secrets`, the body of the request.
pub(super) fn without_texts(mut error: UpstreamError, secrets: Option<&Value>) -> UpstreamError {
    let repeats = |text: &Option<String>| {
        let secrets = secrets.and_then(Value::as_object);
        let mut secrets = secrets
            .into_iter()
            .flat_map(|body| body.values().filter_map(Value::as_str))
            .filter(|secret| secret.len() >= SHORTEST);
        text.as_ref()
            .is_some_and(|text| secrets.any(|secret| text.contains(secret)))
    };
    if let Some(answer) = error.answer.as_mut() {
        for text in [
            &mut answer.error_code,
            &mut answer.error_msg,
            &mut answer.request_id,
        ] {
            if repeats(text) {
                *text = None;
            }
        }
    }
    error
}

/// `None` if the secret is not there.
fn masked(body: &[u8], secret: &[u8]) -> Option<Vec<u8>> {
    let find = |body: &[u8]| body.windows(secret.len()).position(|part| part == secret);
    let (mut rest, mut clean) = (body, Vec::new());
    let mut at = find(rest)?;
    loop {
        clean.extend_from_slice(&rest[..at]);
        clean.extend_from_slice(MASK);
        rest = &rest[at + secret.len()..];
        match find(rest) {
            Some(next) => at = next,
            None => break,
        }
    }
    clean.extend_from_slice(rest);
    Some(clean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::service::{Sent, UpstreamAnswer, UpstreamErrorKind};
    use serde_json::json;

    fn answered(status: u16, body: &str) -> String {
        let response = Response {
            status,
            body: body.to_owned().into(),
            request_id: Some("r-MIItoken".to_owned()),
            retry_after: None,
        };
        let clean = without_token(response, &Secret::new("MIItoken"));
        assert_eq!(clean.request_id.is_some(), status < 300);
        String::from_utf8(clean.body.to_vec()).unwrap()
    }

    #[test]
    fn a_refusal_does_not_show_the_token_however_often_it_has_it() {
        assert_eq!(answered(400, "a MIItoken, MIItoken"), "a ***, ***");
        assert_eq!(answered(400, "MIItoken"), "***");
        assert_eq!(answered(400, "MIItoke"), "MIItoke");
        assert_eq!(answered(200, "MIItoken"), "MIItoken");
    }

    #[test]
    fn a_text_that_repeats_a_key_is_left_out_whole() {
        let shown = |text: &str| {
            let answer = UpstreamAnswer {
                error_code: Some("OMS.0066".to_owned()),
                error_msg: Some(text.to_owned()),
                ..UpstreamAnswer::default()
            };
            let error = UpstreamError {
                kind: UpstreamErrorKind::Refused,
                sent: Sent::Yes,
                retry_after: None,
                answer: Some(Box::new(answer)),
                detail: String::new(),
            };
            let told = json!({"src_sk": "the/\"key\"", "src_ak": "AK", "only_failed": true});
            let answer = without_texts(error, Some(&told)).answer.unwrap();
            assert!(answer.error_code.is_some());
            answer.error_msg
        };
        assert_eq!(shown("The key the/\"key\" is wrong."), None);
        assert!(shown("The AK is wrong, true.").is_some());
    }
}
