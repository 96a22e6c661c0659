//! Answers of a token service that look like a token, and are none.

use std::io::Write;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{Cloud, PROJECT_ID, lease, text};
use crate::{
    domain::{clock::Clock as _, service::UpstreamErrorKind},
    transport::tests::peer::{Then, answer},
};

const GOOD: &str = "X-Subject-Token: token\r\n";

/// A login that is answered like this fails with this kind, is asked once, and the next one after
/// it succeeds.
async fn is_no_token(
    what: &str,
    kind: UpstreamErrorKind,
    script: impl Fn(&mut dyn Write, Timestamp) -> Then + Send + Sync + 'static,
) {
    let cloud = Cloud::of_tokens();
    let clock = cloud.clock.clone();
    cloud.answer_login(move |_, writer| script(writer, clock.now()));
    let credentials = cloud.credentials(&["p"]);
    let error = lease(&credentials).await.expect_err(what);
    assert_eq!(error.kind, kind, "{what}");
    assert!(lease(&credentials).await.is_err(), "{what}");
    assert_eq!(cloud.logins(), 1, "{what}");
    cloud.clock.forward(1);
    assert_eq!(text(&credentials).await, "token-1", "{what}");
}

async fn malformed(what: &str, status: u16, headers: &str, body: impl Fn(Timestamp) -> String) {
    let (headers, text) = (
        headers.to_owned(),
        body("2026-01-03T09:00:00Z".parse().unwrap()),
    );
    is_no_token(what, UpstreamErrorKind::Malformed, move |writer, _| {
        answer(writer, status, &headers, &text)
    })
    .await;
}

/// The document of a good token, changed.
fn changed(change: impl Fn(&mut Value)) -> impl Fn(Timestamp) -> String {
    move |now| {
        let mut document = json!({"token": {
            "issued_at": now,
            "expires_at": now + SignedDuration::from_hours(24),
            "project": {"id": PROJECT_ID},
        }});
        change(&mut document["token"]);
        document.to_string()
    }
}

fn untouched(now: Timestamp) -> String {
    changed(|_| {})(now)
}

#[actix_rt::test]
async fn a_header_that_is_no_token() {
    let long = format!("X-Subject-Token: {}\r\n", "x".repeat(17 << 10));
    for (what, headers) in [
        ("no header", ""),
        ("an empty header", "X-Subject-Token: \r\n"),
        (
            "two headers",
            "X-Subject-Token: a\r\nX-Subject-Token: b\r\n",
        ),
        (
            "one header twice",
            "X-Subject-Token: a\r\nX-Subject-Token: a\r\n",
        ),
        ("a control character", "X-Subject-Token: a\u{1}b\r\n"),
        ("a tab", "X-Subject-Token: a\tb\r\n"),
        ("a NUL", "X-Subject-Token: a\0b\r\n"),
        ("a delete", "X-Subject-Token: a\u{7f}b\r\n"),
        ("a space", "X-Subject-Token: a b\r\n"),
        ("a folded line", "X-Subject-Token: a\r\n b\r\n"),
        ("no ASCII", "X-Subject-Token: tok\u{e9}n\r\n"),
        ("17 KiB", long.as_str()),
    ] {
        malformed(what, 201, headers, untouched).await;
    }
}

#[actix_rt::test]
async fn a_status_that_is_not_201() {
    for status in [200, 202, 203, 206, 300, 302, 304, 599] {
        let kind = if status == 599 {
            UpstreamErrorKind::Unavailable
        } else {
            UpstreamErrorKind::Malformed
        };
        // A 304 has no body, so what follows is none.
        let body = if status == 304 {
            String::new()
        } else {
            untouched(Timestamp::UNIX_EPOCH)
        };
        is_no_token(&status.to_string(), kind, move |writer, _| {
            answer(writer, status, GOOD, &body)
        })
        .await;
    }
}

#[actix_rt::test]
async fn a_document_that_describes_no_token() {
    for body in [
        "",
        " ",
        "<html><body>Sign in</body></html>",
        "null",
        "[]",
        "{}",
        "{\"token\":null}",
        "{\"token\":{}}",
        "{\"token\":{\"expires_at\":null}}",
        "{\"token\":{\"expires_at\":1767517200}}",
        "{\"token\":{\"expires_at\":\"\"}}",
        "{\"token\":{\"expires_at\":\"tomorrow\"}}",
        "{\"token\":{\"expires_at\":\"2026-01-04T09:00:00Z\"",
        "{\"token\":{\"expires_at\":\"2026-01-04T09:00:00Z\"}} x",
    ] {
        malformed(body, 201, GOOD, |_| body.to_owned()).await;
    }
    malformed("not UTF-8", 201, GOOD, |now| {
        untouched(now).replace('2', "\u{feff}")
    })
    .await;
}

#[actix_rt::test]
async fn a_life_that_is_over_or_too_long_to_believe() {
    for (what, hours) in [
        ("a day ago", -24),
        ("now", 0),
        ("in 32 days", 32 * 24),
        ("in a hundred years", 876_000),
    ] {
        let end = move |token: &mut Value| {
            let issued: Timestamp = token["issued_at"].as_str().unwrap().parse().unwrap();
            token["expires_at"] = json!(issued + SignedDuration::from_hours(hours));
        };
        malformed(what, 201, GOOD, changed(end)).await;
    }
    let reversed = |token: &mut Value| token["issued_at"] = json!("2026-02-01T00:00:00Z");
    malformed("issued after its end", 201, GOOD, changed(reversed)).await;
}

#[actix_rt::test]
async fn a_token_for_another_project() {
    for id in [
        "0f5181caba0024e72f89c0045e707b91",
        "",
        " ",
        "2C0689C860AD4728A497C91EC0844383",
    ] {
        malformed(
            id,
            201,
            GOOD,
            changed(|token| token["project"]["id"] = json!(id)),
        )
        .await;
    }
    let nameless = |token: &mut Value| token["project"] = json!({"name": "cn-north-4"});
    malformed("a project without an id", 201, GOOD, changed(nameless)).await;
    let homeless = |token: &mut Value| {
        token.as_object_mut().unwrap().remove("project");
    };
    malformed("a token for no project", 201, GOOD, changed(homeless)).await;
}
