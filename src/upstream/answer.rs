//! Reading the vendor's error documents.

use serde_json::{Map, Value};

/// The pairs of names under which a code and its text are found, in the order of preference.
const PAIRS: [(&str, &str); 3] = [
    ("error_code", "error_msg"),
    ("errorCode", "errorMsg"),
    ("code", "message"),
];

/// The vendor's code and text in the body of an error, in any of the shapes that its services use: a pair counts only
/// with both of its members; without a pair on a level, the objects inside are searched, and the last hit is taken.
/// Numbers are given as text. `None` if the body is not such a document.
pub(crate) fn error_code(body: &[u8]) -> Option<(String, String)> {
    search(serde_json::from_slice::<Value>(body).ok()?.as_object()?)
}

fn search(level: &Map<String, Value>) -> Option<(String, String)> {
    let pair = PAIRS
        .iter()
        .find_map(|(code, message)| Some((level.get(*code)?, level.get(*message)?)));
    match pair {
        Some((code, message)) => Some((text(code)?, text(message).unwrap_or_default())),
        None => level
            .values()
            .rev()
            .filter_map(Value::as_object)
            .find_map(search),
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::error_code;

    #[test]
    fn a_code_is_found_in_every_shape_that_the_vendor_uses() {
        for (body, code) in [
            (r#"{"error_code":"OMS.1009","error_msg":"x"}"#, "OMS.1009"),
            (r#"{"errorCode":"A.1","errorMsg":"x"}"#, "A.1"),
            (r#"{"error":{"code":401,"message":"x","title":"y"}}"#, "401"),
            (r#"{"error":{"code":"B.2","message":"x"}}"#, "B.2"),
            (
                r#"{"code":"C.3","message":"x","error_code":"D.4","error_msg":"x"}"#,
                "D.4",
            ),
            (
                r#"{"error_code":"E.5","error":{"code":"F.6","message":"x"}}"#,
                "F.6",
            ),
            (r#"{"error_code":"G.7","error_msg":null}"#, "G.7"),
        ] {
            assert_eq!(error_code(body.as_bytes()).unwrap().0, code, "{body}");
        }
        for body in [
            "",
            "<html>",
            "[]",
            "{}",
            r#"{"error_code":"x"}"#,
            "{\"error_code\"",
        ] {
            assert_eq!(error_code(body.as_bytes()), None, "{body}");
        }
    }
}
