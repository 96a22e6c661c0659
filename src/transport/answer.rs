//! Reading an answer.

use std::time::Duration;

use awc::{
    ClientResponse,
    http::header::{
        CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderName, RETRY_AFTER, TRANSFER_ENCODING,
    },
};
use jiff::Timestamp;

use super::{Response, TransportErrorKind};
use crate::domain::{
    clock::{Clock as _, SystemClock},
    secret::Secret,
};

/// The largest body that is read. The vendor's largest is a page of 100 tasks of some 10 KiB each.
pub(super) const MAX_BODY: usize = 8 << 20;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const SUBJECT_TOKEN: HeaderName = HeaderName::from_static("x-subject-token");
/// The vendor's own limit for a token.
const MAX_TOKEN: usize = 16 << 10;
const MAX_REQUEST_ID: usize = 128;
/// A longer wait than this is not believed.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(24);

/// The parts of a head that outlive the reading of the body.
pub(super) struct Head {
    status: u16,
    /// The announced length of the body, unless it comes in chunks or there is none.
    length: Option<usize>,
    request_id: Option<String>,
    retry_after: Option<Duration>,
    /// The one header of a login, if it is sane.
    pub(super) token: Option<Secret>,
    reuses: bool,
}

impl Head {
    /// `reuses`: whether the connection had carried another request before.
    pub(super) fn of<S>(answer: &ClientResponse<S>, reuses: bool) -> Self {
        let headers = answer.headers();
        Self {
            status: answer.status().as_u16(),
            length: length(headers),
            request_id: request_id(headers),
            retry_after: retry_after(headers),
            token: subject_token(headers),
            reuses,
        }
    }

    /// The answer, if the body is as long as it should be, and not where there should be none. The
    /// client takes a body for an empty one when a header offers to switch to `websocket`, and
    /// would read it as the next answer.
    pub(super) fn with(self, body: bytes::Bytes) -> Option<Response> {
        let is_whole = self.length.is_none_or(|length| length == body.len());
        let may_have_it = body.is_empty() || !has_no_body(self.status);
        (is_whole && may_have_it).then_some(Response {
            status: self.status,
            body,
            request_id: self.request_id,
            retry_after: self.retry_after,
            is_doubtful: self.reuses,
        })
    }
}

/// What is wrong with an answer, as far as its head tells.
pub(super) fn fault<S>(answer: &ClientResponse<S>) -> Option<TransportErrorKind> {
    let status = answer.status();
    if status.is_informational() {
        return Some(TransportErrorKind::Informational);
    }
    let is_whole = status.as_u16() < 600 && is_framed(answer) && is_plain(answer.headers());
    (!is_whole).then_some(TransportErrorKind::Malformed)
}

/// Whether an answer of this status has no body, whatever its head says.
pub(super) fn is_bodiless<S>(answer: &ClientResponse<S>) -> bool {
    has_no_body(answer.status().as_u16())
}

fn has_no_body(status: u16) -> bool {
    [204, 304].contains(&status)
}

/// Whether the end of the body is known: by its length or by chunks, not by both and not by the end
/// of the connection. The client would take a body without either for an empty one.
fn is_framed<S>(answer: &ClientResponse<S>) -> bool {
    let sized = answer.headers().contains_key(CONTENT_LENGTH);
    match answer.headers().get(TRANSFER_ENCODING) {
        None => sized || is_bodiless(answer),
        Some(coding) => !sized && coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
    }
}

/// Whether the body is sent as it is. No request accepts a coding, so none is undone: a small body
/// could unfold to a huge one.
fn is_plain(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONTENT_ENCODING)
        .all(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"))
}

fn length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn request_id(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(REQUEST_ID)?.to_str().ok()?;
    let sane = (1..=MAX_REQUEST_ID).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    sane.then(|| text.to_owned())
}

fn subject_token(headers: &HeaderMap) -> Option<Secret> {
    let mut values = headers.get_all(SUBJECT_TOKEN);
    let (Some(only), None) = (values.next(), values.next()) else {
        return None;
    };
    let text = only.to_str().ok()?;
    let sane =
        (1..=MAX_TOKEN).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    sane.then(|| Secret::new(text))
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let wait = if is_number {
        // A number that is too large to be read is a long wait all the same.
        text.parse().map_or(MAX_RETRY_AFTER, Duration::from_secs)
    } else {
        // In any of the three forms of RFC 9110.
        let moment = httpdate::parse_http_date(text).ok()?;
        // So is a date that is too late to be reckoned with; none of the forms names one that is
        // too early.
        Timestamp::try_from(moment).map_or(MAX_RETRY_AFTER, wait_until)
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

fn wait_until(moment: Timestamp) -> Duration {
    // A moment that has passed asks for no wait.
    Duration::try_from(moment.duration_since(SystemClock.now())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use awc::http::header::{HeaderMap, HeaderValue, RETRY_AFTER};

    use super::{
        MAX_RETRY_AFTER, REQUEST_ID, SUBJECT_TOKEN, request_id, retry_after, subject_token,
    };

    fn headers(name: &awc::http::header::HeaderName, values: &[&[u8]]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for value in values {
            map.append(name.clone(), HeaderValue::from_bytes(value).unwrap());
        }
        map
    }

    #[test]
    fn a_wait_is_read_from_seconds_and_from_a_date() {
        let wait = |text: &str| retry_after(&headers(&RETRY_AFTER, &[text.as_bytes()]));
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        for long in ["99999999999", &"9".repeat(30)] {
            assert_eq!(wait(long), Some(MAX_RETRY_AFTER), "{long}");
        }
        for past in [
            "Wed, 21 Oct 2015 07:28:00 GMT",
            "Wednesday, 21-Oct-15 07:28:00 GMT",
            "Wed Oct 21 07:28:00 2015",
        ] {
            assert_eq!(wait(past), Some(Duration::ZERO), "{past}");
        }
        for future in [
            "Fri, 31 Dec 2100 23:59:59 GMT",
            "Tuesday, 31-Dec-69 23:59:59 GMT",
            "Fri Dec 31 23:59:59 2100",
            "Fri, 31 Dec 9999 23:59:59 GMT",
        ] {
            assert_eq!(wait(future), Some(MAX_RETRY_AFTER), "{future}");
        }
        for nonsense in ["", "-1", "1.5", "soon", "7 s"] {
            assert_eq!(wait(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_token_is_one_header_of_visible_characters() {
        let longest = vec![b'x'; 16384];
        let too_long = vec![b'x'; 16385];
        let token = |values: &[&[u8]]| {
            subject_token(&headers(&SUBJECT_TOKEN, values)).map(|token| token.expose().len())
        };
        assert_eq!(token(&[b"MIIabc=="]), Some(8));
        assert_eq!(token(&[&longest]), Some(16384));
        assert_eq!(token(&[&too_long]), None);
        assert_eq!(token(&[]), None);
        assert_eq!(token(&[b""]), None);
        assert_eq!(token(&[b"one", b"two"]), None);
        assert_eq!(token(&[b"one", b"one"]), None);
        assert_eq!(token(&[b"with space"]), None);
        assert_eq!(token(&[b"tab\there"]), None);
        assert_eq!(token(&[b"caf\xe9"]), None);
    }

    #[test]
    fn a_request_id_that_could_harm_a_log_is_left_out() {
        let id = |value: &[u8]| request_id(&headers(&REQUEST_ID, &[value]));
        assert_eq!(id(b"ab-12"), Some("ab-12".to_owned()));
        assert_eq!(id(b"a b"), None);
        assert_eq!(id(b"\xff"), None);
        assert_eq!(id(&[b'x'; 129]), None);
    }
}
