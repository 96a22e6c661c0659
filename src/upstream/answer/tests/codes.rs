//! The code of an answer, and the text that belongs to it.

use super::{HTML, nested};
use crate::upstream::answer::error_code;

#[test]
fn codes_are_found_in_every_shape() {
    let rows = [
        (
            r#"{"error_code":"OMS.0063","error_msg":"m"}"#,
            "OMS.0063",
            "m",
        ),
        (
            r#"{"error_code":"APIG.0301","error_msg":"m","request_id":"r"}"#,
            "APIG.0301",
            "m",
        ),
        (
            r#"{"error":{"code":401,"message":"m","title":"Unauthorized"}}"#,
            "401",
            "m",
        ),
        (
            r#"{"error":{"code":"IAM.0003","message":"m"}}"#,
            "IAM.0003",
            "m",
        ),
        (r#"{"errorCode":"X.1","errorMsg":"m"}"#, "X.1", "m"),
        (r#"{"code":"X.2","message":"m"}"#, "X.2", "m"),
        (r#"{"error_code":1100,"error_msg":"m"}"#, "1100", "m"),
        (r#"{"error_code":"X.3","error_msg":null}"#, "X.3", ""),
        (r#"{"error_code":"X.4","error_msg":7}"#, "X.4", "7"),
        (
            r#"{"error_code":"SMS.9004","error_msg":"m","encoded_authorization_message":"b2Jm",
                "error_param":["p"],"details":[{"error_code":"SMS.1","error_msg":"n"}]}"#,
            "SMS.9004",
            "m",
        ),
        // The first pair at a level wins, and a level wins over those below it.
        (
            r#"{"code":"C","message":"n","error_code":"E","error_msg":"m"}"#,
            "E",
            "m",
        ),
        (
            r#"{"a":{"code":"C","message":"n"},"error_code":"E","error_msg":"m"}"#,
            "E",
            "m",
        ),
        // A code needs no text; a text of another pair is not its own.
        (r#"{"error_code":"OMS.1009"}"#, "OMS.1009", ""),
        (r#"{"error_code":"E","code":"C","message":"m"}"#, "E", ""),
        (r#"{"error_code":null,"code":"C","message":"m"}"#, "C", "m"),
        (r#"{"error_code":"","error":{"code":"C"}}"#, "C", ""),
        // Of several nested ones the last one wins.
        (
            r#"{"a":{"code":"C","message":"n"},"b":{"code":"D","message":"m"}}"#,
            "D",
            "m",
        ),
        (
            r#"{"a":{"b":{"c":{"errorCode":"C","errorMsg":"m"}}}}"#,
            "C",
            "m",
        ),
    ];
    for (body, code, message) in rows {
        let found = error_code(body.as_bytes());
        assert_eq!(found, Some((code.to_owned(), message.to_owned())), "{body}");
    }
}

#[test]
fn what_has_no_code_has_none() {
    let deep = format!(r#"{{"a":{}}}"#, nested(100_000));
    for body in [
        "",
        "{}",
        "[]",
        "null",
        "7",
        "ok",
        HTML,
        r#"{"error_msg":"m"}"#,
        r#"{"error_code":null,"error_msg":null}"#,
        r#"{"error_code":"","error_msg":"m"}"#,
        r#"{"error_code":{},"error_msg":"m"}"#,
        r#"{"error_code":true,"error_msg":"m"}"#,
        r#"[{"error_code":"OMS.0063","error_msg":"m"}]"#,
        r#"{"details":[{"error_code":"OMS.0063","error_msg":"m"}]}"#,
        r#"{"error_code":"OMS.0063","error_msg":"m"#,
        "{\"error_code\":\"\\u0000\",\"error_msg\":1}",
        &deep,
    ] {
        assert_eq!(error_code(body.as_bytes()), None, "{body:.60}");
    }
    assert_eq!(
        error_code(b"{\"error_code\":\"\xff\",\"error_msg\":\"m\"}"),
        None
    );
}
