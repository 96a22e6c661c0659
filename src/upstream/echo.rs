//! What an answer repeats of what it was told. The vendor's texts are shown to callers, and some
//! services repeat in them secrets, or say whose they are.

use std::sync::Arc;

use serde_json::Value;

use crate::{
    domain::{
        secret::{MASK, Mask, SHORTEST},
        service::UpstreamError,
    },
    transport::Response,
};

/// Names of fewer characters are left alone: they could be any word.
const SHORTEST_NAME: usize = 4;

/// The names by which the gateway is known to the vendor, which are nobody else's business.
#[derive(Clone, Debug)]
pub(super) struct Names(Arc<[String]>);

impl Names {
    /// These, short ones aside.
    pub(super) fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let long = |name: &&str| name.chars().count() >= SHORTEST_NAME;
        let mut names: Vec<String> = names.into_iter().filter(long).map(str::to_owned).collect();
        // One name can be a part of the other.
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        Self(names.into())
    }

    /// The text with another in the place of each name that stands in it as a word of its own, in
    /// any letter case.
    pub(super) fn masked(&self, text: &str) -> String {
        let mut clean = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(character) = rest.chars().next() {
            let is_inside = clean.ends_with(|last: char| last.is_ascii_alphanumeric());
            let name = self.0.iter().find(|name| begins_with_word(rest, name));
            if let (false, Some(name)) = (is_inside, name) {
                clean.push_str(MASK);
                rest = &rest[name.len()..];
            } else {
                clean.push(character);
                rest = &rest[character.len_utf8()..];
            }
        }
        clean
    }
}

fn begins_with_word(text: &str, word: &str) -> bool {
    text.split_at_checked(word.len())
        .is_some_and(|(head, tail)| {
            head.eq_ignore_ascii_case(word)
                && !tail.starts_with(|next: char| next.is_ascii_alphanumeric())
        })
}

/// The text with another in the place of whatever looks like the key of a bucket. The vendor can
/// repeat those of a start that was long ago or came from somebody else, which nobody here knows.
///
/// A word is left out whole, with the path or the address around the key: where a key begins and
/// ends cannot be told.
pub(super) fn without_keys(text: &str) -> String {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/_-\\%".contains(byte);
    masked_words(text, is_part, |word| {
        let mut pieces = word.split(|character: char| !character.is_ascii_alphanumeric());
        pieces.any(looks_like_a_key) || ends_with_base64(word)
    })
}

/// The access keys of the clouds that OMS reads from have so many characters or more, and are the
/// shortest of their keys.
const ACCESS_KEY: usize = 20;
/// The secret keys that are written with other signs than letters and digits have so many
/// characters.
const SECRET_KEY: usize = 40;

/// Ids of tasks have no capital letters, and those of requests and digests are hexadecimal.
fn looks_like_a_key(piece: &str) -> bool {
    let has = |is: fn(&u8) -> bool| piece.bytes().any(|byte| is(&byte));
    piece.len() >= ACCESS_KEY
        && has(u8::is_ascii_uppercase)
        && has(u8::is_ascii_digit)
        && has(|byte| !byte.is_ascii_hexdigit())
}

/// Whether a word, or the end of a path, has the length and the signs of a secret key.
fn ends_with_base64(word: &str) -> bool {
    let word = word.replace("\\/", "/");
    let word = word.replace("%2F", "/").replace("%2B", "+");
    let is_key = |end: &str| {
        let has = |is: fn(&u8) -> bool| end.bytes().any(|byte| is(&byte));
        end.len() == SECRET_KEY
            && has(u8::is_ascii_uppercase)
            && has(u8::is_ascii_lowercase)
            && has(u8::is_ascii_digit)
    };
    let mut ends = word.match_indices('/').map(|(at, _)| &word[at + 1..]);
    is_key(&word) || ends.any(is_key)
}

/// The text with another in the place of each such word. `is_part`: of a word.
fn masked_words(
    text: &str,
    is_part: impl Fn(&u8) -> bool,
    is_secret: impl Fn(&str) -> bool,
) -> String {
    let is_part = |character: char| u8::try_from(character).is_ok_and(|byte| is_part(&byte));
    let (mut rest, mut clean) = (text, String::with_capacity(text.len()));
    while !rest.is_empty() {
        let end = rest.find(|character| !is_part(character));
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        clean.push_str(if is_secret(word) { MASK } else { word });
        let next = after.find(is_part);
        let (between, after) = after.split_at(next.unwrap_or(after.len()));
        clean.push_str(between);
        rest = after;
    }
    clean
}

/// The answer without the secrets of all these. One that is no text is shown to nobody.
pub(super) fn without_secrets(mut response: Response, masks: &[&Mask]) -> Response {
    if let Ok(text) = str::from_utf8(&response.body)
        && let Some(clean) = plain(text, masks).or_else(|| Mask::apply_all(masks, text))
    {
        response.body = clean.into();
    }
    response.request_id = response
        .request_id
        .filter(|id| Mask::apply_all(masks, id).is_none());
    response
}

/// What [`Mask::apply_all`] makes of a document in which any character can be written as an escape,
/// so that a secret would not be found.
fn plain(text: &str, masks: &[&Mask]) -> Option<String> {
    let document: Value = text
        .contains("\\u")
        .then(|| serde_json::from_str(text).ok())??;
    Mask::apply_all(masks, &document.to_string())
}

/// The error without the vendor's text, if that repeats one of the texts in `secrets`, the body of
/// the request.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        secret::Secret,
        service::{Sent, UpstreamAnswer, UpstreamErrorKind},
    };
    use serde_json::json;

    fn answered(status: u16, body: &str) -> String {
        let response = Response {
            status,
            body: body.to_owned().into(),
            request_id: Some("r-MIItoken".to_owned()),
            retry_after: None,
            is_doubtful: false,
        };
        let secrets = ["MIItoken", "a/\"bc\"", "short", "MIItoken-2"].map(Secret::new);
        let masks = secrets.each_ref().map(|secret| Mask::new([secret]));
        let clean = without_secrets(response, &masks.each_ref());
        assert_eq!(clean.request_id, None);
        String::from_utf8(clean.body.to_vec()).unwrap()
    }

    #[test]
    fn no_answer_shows_a_secret_however_often_it_has_it() {
        for status in [200, 400, 500] {
            assert_eq!(answered(status, "a MIItoken, MIItoken"), "a ***, ***");
            assert_eq!(answered(status, "MIItoken"), "***");
            assert_eq!(answered(status, "MIItoke"), "MIItoke");
            assert_eq!(answered(status, "MIItoken-2 MIItoken"), "*** ***");
            assert_eq!(answered(status, "TUlJdG9rZW4="), "***", "in base64");
            assert_eq!(answered(status, r#"{"a":"a/\"bc\""}"#), r#"{"a":"***"}"#);
            assert_eq!(answered(status, r#"["a\/\"bc\"", "b"]"#), r#"["***", "b"]"#);
            assert_eq!(
                answered(status, r#"{"a":"MII\u0074oken"}"#),
                r#"{"a":"***"}"#
            );
            assert_eq!(answered(status, r#"{"a":"\u0074"}"#), r#"{"a":"\u0074"}"#);
            assert_eq!(answered(status, "a short word"), "a short word");
        }
    }

    #[test]
    fn a_name_is_left_out_where_it_is_a_word() {
        let names = Names::new(["acme", "svc-acme"]);
        for (text, clean) in [
            ("User svc-acme of account acme.", "User *** of account ***."),
            ("Acme/SVC-ACME", "***/***"),
            ("acme", "***"),
            ("用户acme无权", "用户***无权"),
            ("acme-logs in acme_1", "***-logs in ***_1"),
            ("acmes, pacme and xsvc-acmes", "acmes, pacme and xsvc-acmes"),
            ("", ""),
        ] {
            assert_eq!(names.masked(text), clean);
        }
    }

    #[test]
    fn a_short_name_could_be_any_word() {
        let names = Names::new(["OMS", "the"]);
        let text = "The service OMS refused the request.";
        assert_eq!(names.masked(text), text);
    }

    #[test]
    fn what_looks_like_a_key_is_left_out() {
        let (access, secret) = (
            "HPUA0T3EXAMPLEKEY123",
            "x8Kq0vN2mYb5cRt7LwZs4dJf9gHp6aQe3uViTnXo",
        );
        let slashed = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
        for (text, clean) in [
            (
                format!("The key {access} is wrong."),
                "The key *** is wrong.",
            ),
            (format!("ak={access}&sk={secret}"), "ak=***&sk=***"),
            (format!("<{slashed}>,{secret}"), "<***>,***"),
            (access.to_owned(), "***"),
            // One of its parts alone looks like a key.
            (
                "sk: QWk8JzabcdefMDktXP23x/tKsf2rcDkdfrUnW5".to_owned(),
                "sk: ***",
            ),
            (format!("secret=/{slashed}"), "secret=***"),
            (format!("PUT /bucket/{slashed}"), "PUT ***"),
            (
                "sk /S/VhyD28yfRfkJSp+twmtWqMBQ8k9RYASc++zzp".to_owned(),
                "sk ***",
            ),
            (slashed.replace('/', "\\/"), "***"),
            (slashed.replace('/', "%2F"), "***"),
            (format!("PUT /bucket/{secret} failed"), "PUT *** failed"),
        ] {
            assert_eq!(without_keys(&text), clean);
        }
        for text in [
            "",
            "任务 OMS.0066 失败",
            "Task 7a9a9540-ff28-4869-b9e4-000000000001, 0215ef11e49d4743be23dd97a1561e91, 191297407830872.",
            "MIGRATE_SUCCESS at 2026-01-05T10:15:31Z in INTERNATIONALISATION",
            "Request 0000018A2B3C4D5E6F708192A3B4C5D6, ETag D41D8CD98F00B204E9800998ECF8427E",
            "/media/2025/January/logs-of-the-first-week.tar.gz",
        ] {
            assert_eq!(without_keys(text), text);
        }
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
