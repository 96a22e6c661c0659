//! Logins that fail.

use super::*;

#[actix_rt::test]
async fn an_id_of_a_request_that_repeats_the_password_is_not_passed_on() {
    let cloud = Cloud::of_tokens();
    cloud.answer_login(|_, writer| {
        let body = "{\"error\":{\"code\":401,\"message\":\"x\"}}";
        answer(writer, 401, "X-Request-Id: s3cret\r\n", body)
    });
    let credentials = cloud.credentials(&["p"]);
    let error = lease(&credentials).await.unwrap_err();
    assert_eq!(error.kind, UpstreamErrorKind::CredentialsRefused);
    assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
}

#[actix_rt::test]
async fn a_wrong_password_counts_also_if_no_more_than_the_head_of_its_refusal_comes() {
    let cloud = Cloud::of_tokens();
    for _ in 0..5 {
        cloud.answer_login(|_, writer| {
            let cut = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 100\r\n\r\n{";
            writer.write_all(cut.as_bytes()).unwrap();
            Then::Close
        });
    }
    let credentials = cloud.credentials(&["p"]);
    for _ in 0..10 {
        lease(&credentials).await.unwrap_err();
        cloud.clock.forward(60);
    }
    assert_eq!(cloud.logins(), 2);
}

#[actix_rt::test]
async fn a_wrong_password_is_tried_twice_in_15_minutes_unless_it_changes() {
    let cloud = Cloud::of_tokens();
    for _ in 0..5 {
        cloud.answer_login(wrong_password);
    }
    let credentials = cloud.credentials(&["p"]);
    let refused = async || lease(&credentials).await.unwrap_err();
    let error = refused().await;
    assert_eq!(error.kind, UpstreamErrorKind::CredentialsRefused);
    let answer = error.answer.as_ref().unwrap();
    assert_eq!((answer.service.as_str(), answer.status), ("iam", 401));
    assert_eq!(answer.error_code.as_deref(), Some("401"));
    assert_eq!(
        (answer.error_msg.as_ref(), answer.request_id.as_deref()),
        (None, Some("a-7"))
    );
    assert!(!format!("{error:?}").contains("s3cret"));

    refused().await;
    assert_eq!(cloud.logins(), 1, "the error is remembered");
    cloud.clock.forward(2);
    refused().await;
    assert_eq!(cloud.logins(), 2);
    for _ in 0..12 {
        cloud.clock.forward(60);
        assert_eq!(refused().await.kind.as_str(), "credentials-refused");
    }
    assert_eq!(cloud.logins(), 2, "two are enough");
    cloud.clock.forward(4 * 60);
    refused().await;
    assert_eq!(cloud.logins(), 3, "15 minutes are over");
    for _ in 0..5 {
        cloud.clock.forward(60);
        refused().await;
    }
    assert_eq!(cloud.logins(), 4);

    fs::write(cloud.password.path(), "another-word").unwrap();
    cloud.clock.forward(60);
    refused().await;
    assert_eq!(cloud.logins(), 5, "a changed password is tried");
    assert!(cloud.peer.seen()[4].body.contains("another-word"));
    cloud.clock.forward(60);
    refused().await;
    assert_eq!(cloud.logins(), 5, "three of one user are enough");
    cloud.clock.forward(8 * 60);
    assert_eq!(text(&credentials).await, "token-5");
}

#[actix_rt::test]
async fn projects_of_one_user_share_the_attempts() {
    let cloud = Cloud::of_tokens();
    for _ in 0..9 {
        cloud.answer_login(wrong_password);
    }
    let names = ["a", "b", "c", "d"];
    let credentials = cloud.credentials(&names);
    let results = join_all(names.map(async |name| {
        credentials
            .lease(&ProjectName::parse(name).unwrap(), &oms())
            .await
            .unwrap_err()
            .kind
    }))
    .await;
    // Those who come after the second refusal are told of it.
    let [refused, resting] = [
        UpstreamErrorKind::CredentialsRefused,
        UpstreamErrorKind::CredentialsResting,
    ];
    assert_eq!(results, [refused, refused, resting, resting]);
    assert_eq!(cloud.logins(), 2);
}

#[actix_rt::test]
async fn an_answer_that_is_no_token_is_an_error_of_its_kind() {
    use UpstreamErrorKind as Kind;
    let cloud = Cloud::of_tokens();
    let credentials = cloud.credentials(&["p"]);
    let token = "X-Subject-Token: token\r\n";
    let good = |clock: &SetClock| document(clock.now(), 3600);
    let cases: [(Kind, u16, &str, Option<&str>); 23] = [
        (Kind::Malformed, 201, "", None),
        (Kind::Malformed, 200, token, None),
        (Kind::Malformed, 302, token, None),
        (
            Kind::Malformed,
            201,
            "X-Subject-Token: a\r\nX-Subject-Token: b\r\n",
            None,
        ),
        (Kind::Malformed, 201, "X-Subject-Token: a b\r\n", None),
        (Kind::Malformed, 201, token, Some("")),
        (Kind::Malformed, 201, token, Some("<html>")),
        (Kind::Malformed, 201, token, Some("{\"token\":{}}")),
        (
            Kind::Malformed,
            201,
            token,
            Some("{\"token\":{\"expires_at\":\"soon\"}}"),
        ),
        (
            Kind::Malformed,
            201,
            token,
            Some("{\"token\":{\"expires_at\":\"2001-01-01T00:00:00Z\"}}"),
        ),
        (
            Kind::Malformed,
            201,
            token,
            Some("{\"token\":{\"expires_at\":\"9001-01-01T00:00:00Z\"}}"),
        ),
        (
            Kind::Malformed,
            201,
            token,
            Some(
                "{\"token\":{\"expires_at\":\"2026-01-04T09:00:00Z\",\"project\":{\"id\":\"x\"}}}",
            ),
        ),
        (
            Kind::CredentialsRefused,
            400,
            "",
            Some("{\"error\":{\"code\":400,\"message\":\"x\"}}"),
        ),
        (
            Kind::CredentialsRefused,
            403,
            "",
            Some("{\"error_code\":\"IAM.0081\",\"error_msg\":\"x\"}"),
        ),
        (Kind::Malformed, 400, "", Some("<html>")),
        (
            Kind::CredentialsRefused,
            400,
            "",
            Some("{\"error_code\":\"a\\nb\",\"error_msg\":\"x\"}"),
        ),
        (Kind::Malformed, 418, "", Some("{}")),
        (
            Kind::Rejected,
            404,
            "",
            Some("{\"error_code\":\"IAM.0004\",\"error_msg\":\"x\"}"),
        ),
        (Kind::Throttled, 429, "", Some("")),
        (
            Kind::Throttled,
            400,
            "",
            Some("{\"error_code\":\"IAM.0012\",\"error_msg\":\"x\"}"),
        ),
        (Kind::Unavailable, 500, token, Some("{}")),
        (Kind::Unavailable, 503, "", Some("")),
        (Kind::Malformed, 103, "", Some("")),
    ];
    for (number, (kind, status, headers, body)) in cases.into_iter().enumerate() {
        let body = body.map_or_else(|| good(&cloud.clock), str::to_owned);
        cloud.answer_login(move |_, writer| answer(writer, status, headers, &body));
        let error = lease(&credentials).await.unwrap_err();
        assert_eq!(error.kind, kind, "{status} {headers} {number}");
        assert_eq!(error.answer.is_some(), status >= 200);
        assert_eq!(cloud.logins(), number + 1);
        cloud.clock.forward(60);
    }
    cloud.answer_login(|_, _| Then::Close);
    let error = lease(&credentials).await.unwrap_err();
    assert_eq!(error.kind, UpstreamErrorKind::Unavailable);
    cloud.clock.forward(60);
    text(&credentials).await;
}

#[actix_rt::test]
async fn a_password_that_cannot_be_read_is_no_login() {
    let cloud = Cloud::of_tokens();
    fs::write(cloud.password.path(), "\n").unwrap();
    let credentials = cloud.credentials(&["p"]);
    let error = lease(&credentials).await.unwrap_err();
    assert_eq!(error.kind, UpstreamErrorKind::Unavailable);
    assert!(!error.detail.contains('/'), "{}", error.detail);
    assert_eq!(cloud.logins(), 0);
    fs::write(cloud.password.path(), "s3cret-word").unwrap();
    cloud.clock.forward(60);
    assert_eq!(text(&credentials).await, "token-0");
}

#[actix_rt::test]
async fn a_vendor_that_asks_for_a_wait_gets_it() {
    let cloud = Cloud::of_tokens();
    cloud.answer_login(|_, writer| answer(writer, 429, "Retry-After: 20\r\n", "{}"));
    let credentials = cloud.credentials(&["p"]);
    let error = lease(&credentials).await.unwrap_err();
    assert_eq!(error.retry_after, Some(Duration::from_secs(20)));
    cloud.clock.forward(19);
    assert!(lease(&credentials).await.is_err());
    assert_eq!(cloud.logins(), 1);
    cloud.clock.forward(1);
    text(&credentials).await;
}

/// A clock that breaks once, at the given reading.
struct BrokenClock(Arc<SetClock>, AtomicI64);

impl Clock for BrokenClock {
    fn now(&self) -> Timestamp {
        assert_ne!(
            self.1.fetch_sub(1, Ordering::SeqCst),
            0,
            "this reading breaks, as the test wants"
        );
        self.0.now()
    }

    fn uptime(&self) -> Duration {
        self.0.uptime()
    }
}

#[actix_rt::test]
async fn a_login_that_breaks_leaves_its_project_usable() {
    let cloud = Cloud::of_tokens();
    // The first reading is that of the thread which accepts the call, the second that of the login.
    let clock = Arc::new(BrokenClock(Arc::clone(&cloud.clock), AtomicI64::new(1)));
    let settings = cloud.settings(&["p"]);
    let credentials = start(&settings, clock).unwrap();
    let error = lease(&credentials).await.unwrap_err();
    assert_eq!(error.kind, UpstreamErrorKind::Unavailable);
    assert_eq!(error.detail, "The login ended abnormally.");
    cloud.clock.forward(60);
    assert_eq!(text(&credentials).await, "token-0");
}

#[actix_rt::test]
async fn a_thread_that_breaks_is_told_of() {
    let cloud = Cloud::of_tokens();
    let clock = Arc::new(BrokenClock(
        Arc::clone(&cloud.clock),
        AtomicI64::new(i64::MAX),
    ));
    let credentials = start(&cloud.settings(&["p"]), clock.clone()).unwrap();
    text(&credentials).await;
    assert!(credentials.lost().now_or_never().is_none());
    clock.1.store(0, Ordering::SeqCst);
    let command = Command::Refresh { project: project() };
    credentials.commands.try_send(command).unwrap();
    let lost = timeout(Duration::from_secs(10), credentials.lost()).await;
    assert!(lost.is_ok(), "nobody was told");
}

#[test]
fn an_address_that_cannot_be_used_is_found_at_start() {
    let cloud = Cloud::of_tokens();
    let mut settings = cloud.settings(&["p"]);
    settings.projects.get_mut(&project()).unwrap().iam_endpoint = "http://iam.example.com".into();
    let result = start(&settings, cloud.clock.clone());
    assert!(matches!(result.err(), Some(CredentialsError::Endpoint(..))));
}

#[actix_rt::test]
async fn a_403_of_something_in_between_is_no_wrong_password() {
    let cloud = Cloud::of_tokens();
    let credentials = cloud.credentials(&["p"]);
    for _ in 0..5 {
        cloud.answer_login(|_, writer| answer(writer, 403, "", "<html>denied</html>"));
        let error = lease(&credentials).await.unwrap_err();
        assert_eq!(error.kind, UpstreamErrorKind::Malformed);
        cloud.clock.forward(60);
    }
    assert_eq!(cloud.logins(), 5);
    assert!(lease(&credentials).await.is_ok());
}
