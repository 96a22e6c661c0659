mod codes;
mod gone;

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use super::*;

use UpstreamErrorKind::{
    CredentialsRefused, Forbidden, Gone, Malformed, Refused, Rejected, StillInProgress, Throttled,
    Unavailable,
};

const CODES: Codes = Codes {
    prefix: "OMS.",
    gone: "OMS.1009",
    still_in_progress: &["OMS.0063"],
    forbidden: &["OMS.0072", "OMS.0206"],
    credentials: &["OMS.0068", "OMS.1005"],
    transient: &["OMS.1001", "OMS.2004"],
};
const HTML: &str = "<html><body>Bad Gateway</body></html>";

/// Status, body or code, meaning for a read, meaning for a change, whether the change reached the
/// service.
const MEANINGS: &[(u16, &str, UpstreamErrorKind, UpstreamErrorKind, Sent)] = &[
    (400, "OMS.1009", Gone, Gone, Sent::Yes),
    (403, "OMS.1009", Gone, Gone, Sent::Yes),
    (404, "OMS.1009", Gone, Gone, Sent::Yes),
    (404, "OMS.0054", Rejected, Refused, Sent::Yes),
    (404, "Common.0404", Rejected, Rejected, Sent::Unknown),
    (404, "", Gone, Gone, Sent::Yes),
    (404, "  \r\n", Gone, Gone, Sent::Yes),
    (404, "{}", Gone, Gone, Sent::Yes),
    (404, "APIG.0101", Rejected, Rejected, Sent::No),
    (404, "APIGW.0101", Rejected, Rejected, Sent::No),
    (404, HTML, Malformed, Malformed, Sent::Unknown),
    (404, "not found", Malformed, Malformed, Sent::Unknown),
    (
        404,
        r#"{"error_code":"OMS.1009""#,
        Malformed,
        Malformed,
        Sent::Unknown,
    ),
    (500, "OMS.1009", Unavailable, Unavailable, Sent::Yes),
    (400, "OMS.0063", StillInProgress, StillInProgress, Sent::Yes),
    (400, "OMS.0065", Rejected, Refused, Sent::Yes),
    (400, "OMS.0066", Rejected, Refused, Sent::Yes),
    (400, "OMS.0070", Rejected, Refused, Sent::Yes),
    (400, "OMS.0073", Rejected, Refused, Sent::Yes),
    (409, "OMS.0064", Rejected, Refused, Sent::Yes),
    (401, "OMS.2005", Rejected, Refused, Sent::Yes),
    (400, "OMS.0072", Forbidden, Forbidden, Sent::Yes),
    (403, "OMS.0206", Forbidden, Forbidden, Sent::Yes),
    (403, "OMS.0064", Forbidden, Forbidden, Sent::Yes),
    (403, "APIGW.0302", Forbidden, Forbidden, Sent::No),
    (403, "", Forbidden, Forbidden, Sent::Unknown),
    (403, HTML, Forbidden, Forbidden, Sent::Unknown),
    (
        400,
        "OMS.0068",
        CredentialsRefused,
        CredentialsRefused,
        Sent::Yes,
    ),
    (
        400,
        "OMS.1005",
        CredentialsRefused,
        CredentialsRefused,
        Sent::Yes,
    ),
    (
        401,
        "APIGW.0307",
        CredentialsRefused,
        CredentialsRefused,
        Sent::No,
    ),
    (
        401,
        "IAM.0067",
        CredentialsRefused,
        CredentialsRefused,
        Sent::No,
    ),
    (401, "", CredentialsRefused, CredentialsRefused, Sent::No),
    (401, HTML, CredentialsRefused, CredentialsRefused, Sent::No),
    (429, "APIGW.0308", Throttled, Throttled, Sent::No),
    (400, "APIG.0308", Throttled, Throttled, Sent::No),
    (400, "apigw.0308", Throttled, Throttled, Sent::No),
    (429, "", Throttled, Throttled, Sent::No),
    (429, "OMS.0077", Throttled, Throttled, Sent::Yes),
    (400, "OMS.1001", Unavailable, Unavailable, Sent::Yes),
    (400, "OMS.2004", Unavailable, Unavailable, Sent::Yes),
    (503, "OMS.2004", Unavailable, Unavailable, Sent::Yes),
    (500, HTML, Unavailable, Unavailable, Sent::Unknown),
    (502, "APIG.0201", Unavailable, Unavailable, Sent::Unknown),
    (503, "", Unavailable, Unavailable, Sent::Unknown),
    (504, "APIGW.0201", Unavailable, Unavailable, Sent::Unknown),
    (599, "?", Unavailable, Unavailable, Sent::Unknown),
    (413, "APIG.0201", Rejected, Rejected, Sent::No),
    (400, "Common.0013", Rejected, Rejected, Sent::Unknown),
    (400, "SMS.7703", Rejected, Rejected, Sent::Unknown),
    (400, "{}", Rejected, Rejected, Sent::Unknown),
    (400, "", Malformed, Malformed, Sent::Unknown),
    (400, HTML, Malformed, Malformed, Sent::Unknown),
    (405, "no", Malformed, Malformed, Sent::Unknown),
    (301, "", Malformed, Malformed, Sent::Unknown),
    (302, "OMS.1009", Malformed, Malformed, Sent::Unknown),
    (304, "", Malformed, Malformed, Sent::Unknown),
];

fn answers() -> Answers {
    Answers::new(ServiceName::parse("oms").unwrap(), &CODES, Names::new([]))
}

fn response(status: u16, body: impl Into<Vec<u8>>) -> Response {
    Response {
        status,
        body: Bytes::from(body.into()),
        request_id: Some("req-1".to_owned()),
        retry_after: None,
        is_doubtful: false,
    }
}

fn coded(code: &str) -> String {
    json!({"error_code": code, "error_msg": "A text."}).to_string()
}

fn nested(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

#[test]
fn every_status_and_code_has_one_meaning() {
    for (status, body, read, change, sent) in MEANINGS {
        let is_code = body.split_once('.').is_some_and(|(_, number)| {
            number.len() == 4 && number.bytes().all(|byte| byte.is_ascii_digit())
        });
        let written = if is_code {
            coded(body)
        } else {
            (*body).to_owned()
        };
        let response = response(*status, written);
        let error = answers().document(&response).unwrap_err();
        assert_eq!(
            (error.kind, error.sent),
            (*read, Sent::No),
            "read: {status} {body}"
        );
        let error = answers().receipt(&response).unwrap_err();
        assert_eq!(
            (error.kind, error.sent),
            (*change, *sent),
            "change: {status} {body}"
        );
        let answer = error.answer.unwrap();
        assert_eq!(answer.status, *status);
        assert_eq!(answer.error_code.as_deref(), is_code.then_some(*body));
    }
}

#[test]
fn a_document_is_well_formed_json_to_its_end() {
    let document = answers()
        .document(&response(200, r#" {"id": 1} "#))
        .unwrap();
    assert_eq!(document, json!({"id": 1}));
    let deep = nested(100_000);
    for body in [
        "",
        " ",
        "ok",
        HTML,
        r#"{"id": 1"#,
        r#"{"id": 1} {"#,
        "{'id': 1}",
        &deep,
    ] {
        let error = answers().document(&response(200, body)).unwrap_err();
        assert_eq!((error.kind, error.sent), (Malformed, Sent::No));
    }
    let error = answers()
        .document(&response(200, b"\"\xff\"".to_vec()))
        .unwrap_err();
    assert_eq!(error.kind, Malformed);
}

#[test]
fn a_change_is_accepted_with_an_empty_a_well_formed_or_a_plain_body() {
    for body in [
        "",
        "  \n",
        "{}",
        "{ }",
        "\"\"",
        "null",
        "[]",
        r#"{"id": "x"}"#,
        "success",
        "Task stopped.",
        "\u{feff}{}",
        "任务已停止",
    ] {
        for status in [200, 201, 202, 204] {
            let receipt = answers().receipt(&response(status, body)).unwrap();
            assert_eq!(receipt.request_id.as_deref(), Some("req-1"), "{body}");
        }
    }
}

#[test]
fn a_change_answered_by_something_else_may_have_been_made() {
    let long = "word ".repeat(200);
    let deep = nested(100_000);
    for body in [
        HTML,
        "<",
        "  <!DOCTYPE html>",
        "{",
        "{\"id\": ",
        "[1, 2",
        "\"cut",
        "{\"a\": 1} trailing",
        "Please <a href=\"/login\">log in</a>",
        "a\u{0}b",
        &long,
        &deep,
    ] {
        let error = answers().receipt(&response(200, body)).unwrap_err();
        assert_eq!(
            (error.kind, error.sent),
            (Malformed, Sent::Unknown),
            "{body:.40}"
        );
        assert!(error.may_have_changed());
    }
    let error = answers()
        .receipt(&response(200, vec![0xff, 0xfe]))
        .unwrap_err();
    assert_eq!((error.kind, error.sent), (Malformed, Sent::Unknown));
}

#[test]
fn only_the_services_own_texts_are_shown() {
    let own = answers()
        .receipt(&response(400, coded("OMS.0063")))
        .unwrap_err();
    assert_eq!(
        own.answer.as_deref(),
        Some(&UpstreamAnswer {
            service: "oms".to_owned(),
            status: 400,
            error_code: Some("OMS.0063".to_owned()),
            error_msg: Some("A text.".to_owned()),
            request_id: Some("req-1".to_owned()),
        })
    );
    for code in [
        "APIGW.0301",
        "APIG.0301",
        "IAM.0062",
        "SMS.9004",
        "XOMS.0063",
        "oms.0063",
    ] {
        let error = answers().receipt(&response(401, coded(code))).unwrap_err();
        assert!(!error.detail.contains("A text"));
        let answer = error.answer.unwrap();
        assert_eq!(answer.error_code.as_deref(), Some(code));
        assert_eq!(answer.error_msg, None, "{code}");
    }
}

#[test]
fn texts_are_bounded_and_hold_no_control_characters() {
    let body = json!({
        "error_code": format!("OMS.{}", "9".repeat(500)),
        "error_msg": format!("one\r\ntwo\u{1b}[31m{}", "ü".repeat(5_000)),
    });
    let mut response = response(400, body.to_string());
    response.request_id = Some(format!("a\nb{}", "x".repeat(500)));
    let answer = answers().receipt(&response).unwrap_err().answer.unwrap();
    assert_eq!(answer.error_code.unwrap().chars().count(), 64);
    let message = answer.error_msg.unwrap();
    assert_eq!(message.chars().count(), 1_024);
    assert!(message.starts_with("onetwo[31mü"));
    let id = answer.request_id.unwrap();
    assert!(id.starts_with("abx") && id.len() == 64);
}

#[test]
fn the_asked_wait_is_kept() {
    let mut response = response(429, coded("APIGW.0308"));
    response.retry_after = Some(Duration::from_secs(7));
    let error = answers().document(&response).unwrap_err();
    assert_eq!(error.retry_after, Some(Duration::from_secs(7)));
}
