//! Which answers mean that there is no such task.

use super::{Gone, Malformed, Rejected, answers, nested, response};

#[test]
fn a_deep_body_is_not_taken_for_gone() {
    let error = answers()
        .document(&response(404, nested(100_000)))
        .unwrap_err();
    assert_eq!(error.kind, Malformed);
}

#[test]
fn a_code_counts_without_its_text() {
    for body in [
        r#"{"error_code":"OMS.1009"}"#,
        r#"{"errorCode":"OMS.1009","error_msg":"A text."}"#,
        r#"{"error":{"code":"OMS.1009"}}"#,
    ] {
        for status in [400, 403, 404] {
            let error = answers().document(&response(status, body)).unwrap_err();
            assert_eq!(error.kind, Gone, "{status} {body}");
        }
    }
}

#[test]
fn a_404_that_may_be_another_ones_is_not_gone() {
    for body in [
        r#"{"error_code":"APIGW.0101"}"#,
        r#"{"error_code":"APIG.0101","message":"A text."}"#,
        r#"{"code":"APIG.0101","error_msg":"A text."}"#,
        r#"{"errors":[{"error_code":"APIG.0101","error_msg":"A text."}]}"#,
        r#"[{"error_code":"APIG.0101","error_msg":"A text."}]"#,
        r#"[[["APIG.0101"]]]"#,
        r#""APIG.0101""#,
        r#"{"errorCode":"APIG.0101"}"#,
        r#"{"error":{"code":"APIG.0101"}}"#,
        r#"{"error_code":"apig.0101","error_msg":"A text."}"#,
        r#"{"Error_Code":"ApiGw.0101"}"#,
        r#"{"message":"No backend: APIG.0101, see the guide."}"#,
        r#"{"APIGW.0101":"No such API."}"#,
        r#"{"error_code":"OMS.1009","error_msg":"A text.","cause":"APIGW.0101"}"#,
        "\u{feff}{\"error_code\":\"APIG.0101\"}",
        r#"{"errors":[{"error_code":"OMS.0054"}]}"#,
        r#"[{"code":404,"message":"Not Found"}]"#,
        r#"{"ERRORCODE":"X"}"#,
        r#"["IAM.0004"]"#,
        r#""oms.1009""#,
    ] {
        let error = answers().document(&response(404, body)).unwrap_err();
        assert_eq!(error.kind, Rejected, "{body}");
        let error = answers().receipt(&response(404, body)).unwrap_err();
        assert_ne!(error.kind, Gone, "{body}");
    }
}

#[test]
fn a_404_with_json_that_names_nobody_else_is_gone() {
    for body in [
        "{}",
        "[]",
        "null",
        r#"{"status":404,"error":"Not Found","path":"/v2/p/tasks/7"}"#,
        r#"{"error_code":"","error_msg":"No such task."}"#,
        r#"{"error_code":null}"#,
        r#"{"errors":[{"error_code":"OMS.1009"}]}"#,
        r#"{"message":"The apig.example host, version 1.1009"}"#,
    ] {
        let error = answers().document(&response(404, body)).unwrap_err();
        assert_eq!(error.kind, Gone, "{body}");
    }
}
