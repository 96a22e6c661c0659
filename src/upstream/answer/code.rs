//! The vendor's codes in the body of an answer: where they stand, and whose they are.

use serde_json::{Map, Value};

/// The longest code of the vendor that is kept, in characters. Real ones have about ten.
pub(super) const CODE_MAX: usize = 64;
/// The longest text of the vendor that is kept, in characters.
pub(in crate::upstream) const MESSAGE_MAX: usize = 1_024;
/// The names under which the vendor's services write a code and its text, in the order in which
/// they are tried.
const PAIRS: [(&str, &str); 3] = [
    ("error_code", "error_msg"),
    ("errorCode", "errorMsg"),
    ("code", "message"),
];
/// What the codes of the API gateway begin with; services behind the shared gateway spell it in the
/// second way.
const GATEWAY_PREFIXES: [&str; 2] = ["APIG.", "APIGW."];

/// The vendor's code and its text in the document of an error, in any of the shapes that its
/// services use: `error_code` with `error_msg`, `errorCode` with `errorMsg`, or `code` with
/// `message`, at the top or in a nested object. A code counts without its text. Numbers are given
/// as text; both are cut to a bounded length and hold no control characters. `None` if there is no
/// code.
pub(super) fn first(document: &Value) -> Option<(String, String)> {
    pair(document.as_object()?)
}

/// The first code that is there wins; only then nested objects are asked, and the last one with an
/// answer wins. That is how the vendor's own SDK reads them. The depth is limited by the JSON
/// parser.
fn pair(object: &Map<String, Value>) -> Option<(String, String)> {
    let here = PAIRS.iter().find_map(|(code, message)| {
        let code = object.get(*code).and_then(code_in)?;
        let message = object.get(*message).and_then(scalar).unwrap_or_default();
        Some((code, clean(&message, MESSAGE_MAX)))
    });
    here.or_else(|| {
        object
            .values()
            .filter_map(Value::as_object)
            .filter_map(pair)
            .next_back()
    })
}

fn code_in(value: &Value) -> Option<String> {
    let code = clean(&scalar(value)?, CODE_MAX);
    (!code.is_empty()).then_some(code)
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A text of the vendor's, fit to be shown: of at most `max` characters, none of them a control
/// character.
pub(in crate::upstream) fn clean(text: &str, max: usize) -> String {
    text.chars()
        .filter(|character| !character.is_control())
        .take(max)
        .collect()
}

/// The number in a code of the API gateway, in any letter case.
pub(super) fn gateway_number(code: &str) -> Option<&str> {
    GATEWAY_PREFIXES.iter().find_map(|prefix| {
        let (head, number) = code.split_at_checked(prefix.len())?;
        head.eq_ignore_ascii_case(prefix).then_some(number)
    })
}

/// Whether a code of the API gateway stands anywhere in a document, in names and in the middle of
/// texts too. The depth is limited by the JSON parser.
pub(super) fn names_gateway(document: &Value) -> bool {
    match document {
        Value::String(text) => has_gateway_code(text),
        Value::Array(items) => items.iter().any(names_gateway),
        Value::Object(members) => members
            .iter()
            .any(|(name, value)| has_gateway_code(name) || names_gateway(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn has_gateway_code(text: &str) -> bool {
    let begins_with_code = |at| {
        let number = gateway_number(&text[at..]);
        number.is_some_and(|number| number.starts_with(|first: char| first.is_ascii_digit()))
    };
    text.char_indices().any(|(at, _)| begins_with_code(at))
}

/// Whether a code other than `own` stands anywhere in a document: under one of the names of codes,
/// in any letter case, or as a text that has the form of one. The depth is limited by the JSON
/// parser.
pub(super) fn names_other_than(own: &str, document: &Value) -> bool {
    match document {
        Value::String(text) => text != own && is_code(text),
        Value::Array(items) => items.iter().any(|item| names_other_than(own, item)),
        Value::Object(members) => members.iter().any(|(name, value)| {
            let names_code = PAIRS
                .iter()
                .any(|(code, _)| code.eq_ignore_ascii_case(name));
            let other = names_code && code_in(value).is_some_and(|code| code != own);
            other || names_other_than(own, value)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Whether a text is like `OMS.1009`: a word and a number of at least three digits.
pub(super) fn is_code(text: &str) -> bool {
    text.trim().split_once('.').is_some_and(|(word, number)| {
        let is_word = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphabetic());
        is_word && number.len() >= 3 && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}
