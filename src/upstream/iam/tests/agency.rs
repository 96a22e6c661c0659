//! Temporary keys from a metadata service.

use std::io::Write;

use prometheus_client::registry::Registry;

use super::{
    keys::{key, refuse, signed},
    *,
};

/// How a metadata service answers requests for tokens and keys, with the moment at which the clock
/// begins.
type Answers = fn(&Seen, &mut dyn Write, Timestamp) -> Then;

/// Credentials from a metadata service.
fn of_ecs(answers: Answers) -> (Cloud, Credentials) {
    let begin: Timestamp = "2026-01-03T09:00:00Z".parse().unwrap();
    of_cloud(Cloud::start(move |seen, writer| {
        answers(seen, writer, begin)
    }))
}

/// The metrics as text.
fn metrics(credentials: &Credentials) -> String {
    let (mut text, mut registry) = (String::new(), Registry::default());
    credentials.vault.metrics.register(&mut registry);
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    text
}

/// Credentials from a metadata service without tokens that gives this document.
fn of_document(body: String) -> (Cloud, Credentials) {
    of_cloud(Cloud::start(move |seen, writer| {
        if seen.head.starts_with("PUT") {
            return answer(writer, 404, "", "");
        }
        answer(writer, 200, "", &body)
    }))
}

fn of_cloud(cloud: Cloud) -> (Cloud, Credentials) {
    let mut settings = cloud.settings(&["p"]);
    settings.projects.get_mut(&project()).unwrap().credentials = CredentialSettings::EcsAgency {
        metadata_address: cloud.peer.endpoint().to_string(),
    };
    let credentials = start(&settings, cloud.clock.clone()).unwrap();
    (cloud, credentials)
}

fn keys_document(number: usize, now: Timestamp, hours: i64) -> String {
    let ends = now + SignedDuration::from_hours(hours);
    json!({"credential": {
        "access": format!("HST{number}"), "secret": "hidden-temporary-secret",
        "securitytoken": "hidden-security-token", "expires_at": ends,
    }})
    .to_string()
}

fn lines(cloud: &Cloud) -> Vec<String> {
    let line = |seen: &Seen| seen.head.lines().next().unwrap().replace(" HTTP/1.1", "");
    cloud.peer.seen().iter().map(line).collect()
}

const ASK_TOKEN: &str = "PUT /meta-data/latest/api/token";
const ASK_KEYS: &str = "GET /openstack/latest/securitykey";

#[actix_rt::test]
async fn temporary_keys_are_asked_for_with_a_token_of_the_metadata_service() {
    let (cloud, credentials) = of_ecs(|seen, writer, now| {
        if seen.head.starts_with("PUT") {
            return answer(writer, 200, "", "metadata-token\n");
        }
        answer(writer, 200, "", &keys_document(seen.number, now, 6))
    });
    let lease = lease(&credentials).await.unwrap();
    let headers = signed(&lease);
    assert!(headers["authorization"].contains("Access=HST1,"));
    assert_eq!(headers["x-security-token"], "hidden-security-token");
    assert_eq!(headers["x-project-id"], PROJECT_ID);
    assert_eq!(lines(&cloud), [ASK_TOKEN, ASK_KEYS]);
    let [token, keys] = &cloud.peer.seen()[..] else {
        panic!("two requests are enough")
    };
    assert_eq!(token.header("x-metadata-token-ttl-seconds"), Some("21600"));
    assert_eq!(token.header("content-length"), Some("0"));
    assert_eq!(keys.header("x-metadata-token"), Some("metadata-token"));
    assert_eq!(keys.header("x-metadata-token-ttl-seconds"), None);
    assert!(!format!("{lease:?}").contains("hidden"));
}

#[actix_rt::test]
async fn a_metadata_service_without_tokens_is_asked_plainly() {
    let answers: [Answers; 3] = [
        |seen, writer, now| plain(seen, writer, now, 404),
        |seen, writer, now| plain(seen, writer, now, 405),
        |seen, writer, now| plain(seen, writer, now, 503),
    ];
    for answers in answers {
        let (cloud, credentials) = of_ecs(answers);
        assert_eq!(key(&credentials).await, "HST1");
        assert_eq!(lines(&cloud), [ASK_TOKEN, ASK_KEYS]);
        assert_eq!(cloud.peer.seen()[1].header("x-metadata-token"), None);
    }
}

fn plain(seen: &Seen, writer: &mut dyn Write, now: Timestamp, status: u16) -> Then {
    if seen.head.starts_with("PUT") {
        return answer(writer, status, "", "<html>");
    }
    answer(writer, 200, "", &keys_document(seen.number, now, 6))
}

#[actix_rt::test]
async fn keys_that_were_refused_are_not_fetched_again_and_again() {
    let (cloud, credentials) = of_ecs(|seen, writer, now| {
        if seen.head.starts_with("PUT") {
            return answer(writer, 404, "", "");
        }
        answer(writer, 200, "", &keys_document(1, now, 6))
    });
    refuse(&credentials).await;
    refuse(&credentials).await;
    lease(&credentials).await.unwrap_err();
    cloud.clock.forward(60);
    refuse(&credentials).await;
    let fetched = || cloud.peer.seen().len() / 2;
    for minute in 0..3 {
        for _ in 0..5 {
            let error = lease(&credentials).await.unwrap_err();
            assert_eq!(error.detail, "refused by the test");
            assert_eq!(error.retry_after, Some(Duration::from_mins(1)));
        }
        // Five times before: at each refusal or for those at other addresses. And once a minute.
        let counted = format!(
            "upstream_credential_refreshes_total{{kind=\"ecs-agency\",result=\"credentials-refused\"}} {}",
            minute + 4
        );
        until(async || metrics(&credentials).contains(&counted)).await;
        assert_eq!(fetched(), minute + 6);
        let status = credentials.status(&project(), CredentialKind::EcsAgency);
        assert_eq!(status.last_error.unwrap().1.detail, "refused by the test");
        cloud.clock.forward(60);
    }
    assert_eq!(key(&credentials).await, "HST1", "three minutes are over");
}

#[actix_rt::test]
async fn a_metadata_service_that_does_not_answer_for_a_token_is_asked_plainly() {
    let (cloud, credentials) = of_ecs(|seen, writer, now| {
        if seen.head.starts_with("PUT") {
            std::thread::sleep(Duration::from_secs(4));
            return Then::Close;
        }
        answer(writer, 200, "", &keys_document(seen.number, now, 6))
    });
    assert_eq!(key(&credentials).await, "HST1");
    assert_eq!(lines(&cloud), [ASK_TOKEN, ASK_KEYS]);
    assert_eq!(cloud.peer.seen()[1].header("x-metadata-token"), None);
}

#[actix_rt::test]
async fn a_metadata_token_that_is_refused_is_replaced_once() {
    let (cloud, credentials) = of_ecs(|seen, writer, now| match seen.number {
        0 => answer(writer, 200, "", "first"),
        1 => answer(writer, 401, "", "Unauthorized"),
        2 => answer(writer, 200, "", "second"),
        _ => answer(writer, 200, "", &keys_document(seen.number, now, 6)),
    });
    assert_eq!(key(&credentials).await, "HST3");
    assert_eq!(
        cloud.peer.seen()[3].header("x-metadata-token"),
        Some("second")
    );

    let (cloud, credentials) = of_ecs(|seen, writer, _| match seen.number % 2 {
        0 => answer(writer, 200, "", "token"),
        _ => answer(writer, 401, "", "Unauthorized"),
    });
    let error = lease(&credentials).await.unwrap_err();
    assert_eq!(error.kind, UpstreamErrorKind::CredentialsRefused);
    assert_eq!(cloud.peer.seen().len(), 4);
}

#[actix_rt::test]
async fn a_machine_without_an_agency_is_told_so() {
    let (cloud, credentials) = of_ecs(|seen, writer, _| {
        if seen.head.starts_with("PUT") {
            return answer(writer, 404, "", "");
        }
        answer(
            writer,
            401,
            "",
            "{\"error\": \"Please configure Cloud Service Agency first.\"}",
        )
    });
    let error = lease(&credentials).await.unwrap_err();
    assert_eq!(error.kind, UpstreamErrorKind::CredentialsRefused);
    assert!(error.detail.contains("agency"), "{}", error.detail);
    let told = error.answer.unwrap();
    assert_eq!((told.service.as_str(), told.status), ("ecs-metadata", 401));
    assert_eq!(
        lines(&cloud),
        [ASK_TOKEN, ASK_KEYS],
        "it is not asked again"
    );
}

#[actix_rt::test]
async fn temporary_keys_are_renewed_40_minutes_before_their_end_while_they_serve() {
    let (cloud, credentials) = of_ecs(|seen, writer, now| {
        // Those that are asked for later end later too.
        let hours = 6 + i64::try_from(seen.number).unwrap();
        if seen.head.starts_with("PUT") {
            return answer(writer, 404, "", "");
        }
        answer(writer, 200, "", &keys_document(seen.number, now, hours))
    });
    assert_eq!(key(&credentials).await, "HST1");
    credentials.worked(&lease(&credentials).await.unwrap(), &oms());
    // The keys end 7 hours after the start.
    cloud.clock.forward((7 * 60 - 47) * 60);
    assert_eq!(key(&credentials).await, "HST1");
    assert_eq!(cloud.peer.seen().len(), 2);
    cloud.clock.forward(7 * 60);
    assert_eq!(key(&credentials).await, "HST1");
    until(async || key(&credentials).await == "HST3").await;
    assert_eq!(cloud.peer.seen().len(), 4);
}

#[actix_rt::test]
async fn keys_in_every_spelling_are_read_and_nonsense_is_not() {
    let ends = "2026-01-03T15:00:00.000000Z";
    let others = [
        json!({"credentials": {"accessKeyId": "HST", "secretAccessKey": "s", "securityToken": "t", "expiration": ends}}),
        json!({"credential": {"access_key_id": "HST", "secret_access_key": "s", "security_token": "t", "expires_at": ends}}),
        json!({"access": "HST", "secret": "s", "securitytoken": "t", "expires_at": ends, "more": 1}),
    ];
    let nonsense = [
        String::new(),
        "{}".to_owned(),
        "[]".to_owned(),
        others[0].to_string() + "x",
        others[0].to_string().replace("\"s\"", "\"\""),
        others[0].to_string().replace("\"s\"", "\"a b\""),
        others[0].to_string().replace("\"t\"", "null"),
        others[0].to_string().replace("\"t\"", "\"\\n\""),
        others[0]
            .to_string()
            .replace("2026-01-03T15", "2026-01-03T08"),
        others[0].to_string().replace("2026-01", "2027-01"),
        others[0].to_string().replace(ends, "soon"),
    ];
    for (body, is_good) in others
        .iter()
        .map(|other| (other.to_string(), true))
        .chain(nonsense.into_iter().map(|body| (body, false)))
    {
        let (cloud, credentials) = of_document(body.clone());
        match lease(&credentials).await {
            Ok(lease) => {
                assert!(is_good, "{body}");
                assert!(signed(&lease)["authorization"].contains("Access=HST,"));
            }
            Err(error) => {
                assert!(!is_good, "{body}: {error}");
                assert_eq!(error.kind, UpstreamErrorKind::Malformed, "{body}");
            }
        }
        assert_eq!(cloud.peer.seen().len(), 2);
    }
}

#[actix_rt::test]
async fn a_metadata_service_with_a_fault_is_a_failure_that_is_remembered() {
    use UpstreamErrorKind as Kind;
    let answers: [(Kind, Answers); 6] = [
        (Kind::Unavailable, |_, writer, _| {
            answer(writer, 500, "", "")
        }),
        (Kind::Throttled, |_, writer, _| answer(writer, 429, "", "")),
        (Kind::Malformed, |_, writer, _| answer(writer, 200, "", "")),
        (Kind::Malformed, |_, writer, _| {
            answer(writer, 200, "", "two words")
        }),
        (Kind::Malformed, |_, writer, _| {
            answer(writer, 302, "Location: http://169.254.1.1/\r\n", "")
        }),
        (Kind::Unavailable, |_, _, _| Then::Close),
    ];
    for (kind, answers) in answers {
        let (cloud, credentials) = of_ecs(answers);
        for _ in 0..3 {
            let error = lease(&credentials).await.unwrap_err();
            assert_eq!(error.kind, kind, "{error}");
        }
        assert_eq!(cloud.peer.seen().len(), 1);
    }
}

#[test]
fn a_metadata_address_beyond_the_machine_is_found_at_start() {
    let cloud = Cloud::of_tokens();
    let mut settings = cloud.settings(&["p"]);
    settings.projects.get_mut(&project()).unwrap().credentials = CredentialSettings::EcsAgency {
        metadata_address: "http://10.0.0.1".to_owned(),
    };
    let result = start(&settings, cloud.clock.clone());
    assert!(matches!(result.err(), Some(CredentialsError::Endpoint(..))));
}
