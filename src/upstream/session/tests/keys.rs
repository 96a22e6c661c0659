//! Requests that are signed.

use super::*;

/// A bench at which requests are signed, by the keys `AK` and `SK` with these numbers.
pub(super) struct SignedBench {
    pub(super) bench: Bench,
    access_key: tempfile::NamedTempFile,
    secret_key: tempfile::NamedTempFile,
}

impl SignedBench {
    pub(super) fn new(
        script: impl Fn(&Seen, &mut dyn Write) -> Then + Send + Sync + 'static,
    ) -> Self {
        let file = || tempfile::NamedTempFile::new().unwrap();
        let (access_key, secret_key) = (file(), file());
        let mut bench = Bench::new(script);
        let mut settings = bench.cloud.settings(&["p"]);
        let of = |file: &tempfile::NamedTempFile| SecretSource::File(file.path().to_owned());
        settings.projects.get_mut(&project()).unwrap().credentials =
            CredentialSettings::AccessKey {
                access_key: AccessKeySource::Kept(of(&access_key)),
                secret_key: of(&secret_key),
            };
        bench.credentials = tests::start(&settings, bench.cloud.clock.clone()).unwrap();
        let signed = Self {
            bench,
            access_key,
            secret_key,
        };
        signed.write(1);
        signed
    }

    pub(super) fn write(&self, number: usize) {
        fs::write(self.access_key.path(), format!("AK-{number}")).unwrap();
        fs::write(self.secret_key.path(), format!("hidden-secret-{number}")).unwrap();
    }

    /// The numbers of the keys with which requests were signed.
    pub(super) fn seen(&self) -> Vec<String> {
        let key = |seen: &Seen| {
            let (_, rest) = seen.header("authorization")?.split_once("Access=AK-")?;
            Some(rest.split(',').next()?.to_owned())
        };
        let seen = self.bench.cloud.peer.seen();
        seen.iter().map(|seen| key(seen).unwrap()).collect()
    }
}

pub(super) fn signed_by(seen: &Seen, number: usize) -> bool {
    let header = seen.header("authorization").unwrap_or_default();
    header.contains(&format!("Access=AK-{number},"))
}

#[actix_rt::test]
async fn keys_are_used_by_many_at_once_after_an_answer_that_only_somebody_known_gets() {
    let body = |code: &str| json!({"error_code": code, "error_msg": "x"}).to_string();
    for (status, body, is_accepted) in [
        (200, "{}".to_owned(), true),
        (204, String::new(), false),
        (404, body("OMS.0066"), true),
        (403, body("OMS.0206"), true),
        (401, body("OMS.2005"), true),
        (403, body("APIGW.0302"), true),
        (403, body("APIG.0802"), true),
        (403, body("APIGW.0306"), false),
        (403, body("SMS.9004"), false),
        (403, String::new(), false),
        (429, body("OMS.0001"), false),
        (404, body("APIG.0101"), false),
        (400, body("OMS.0068"), false),
        (401, body("APIGW.0303"), false),
        (400, body("APIGW.0201"), false),
        (404, String::new(), false),
        (404, "<html>OMS.0066</html>".to_owned(), false),
        (200, "<html></html>".to_owned(), false),
        (200, "Welcome".to_owned(), false),
        (302, String::new(), false),
    ] {
        let answered = body.clone();
        let signed = SignedBench::new(move |_, writer| answer(writer, status, "", &answered));
        let session = signed.bench.session();
        session.exchange("show", &read(), None).await.unwrap();
        let lease = async || signed.bench.credentials.lease_now(&project(), &oms()).await;
        let both = (lease().await, lease().await);
        assert!(both.0.is_some(), "{status} {body}");
        assert_eq!(both.1.is_some(), is_accepted, "{status} {body}");
    }
}

#[actix_rt::test]
async fn a_signed_exchange_needs_neither_a_login_nor_a_token() {
    let signed = SignedBench::new(fine);
    let session = signed.bench.session();
    session.exchange("show", &read(), None).await.unwrap();
    session.exchange("pause", &change(), None).await.unwrap();
    for seen in signed.bench.cloud.peer.seen() {
        assert_eq!(seen.header("x-auth-token"), None);
        assert_eq!(seen.header("x-project-id"), Some(PROJECT_ID));
        // That of the set clock.
        assert_eq!(seen.header("x-sdk-date"), Some("20260103T090000Z"));
        assert_eq!(seen.header("x-security-token"), None);
    }
    assert_eq!(signed.seen(), ["1", "1"]);
    assert_eq!(signed.bench.cloud.logins(), 0);
}

#[actix_rt::test]
async fn a_wrong_signature_is_not_repeated_however_many_ask() {
    let signed = SignedBench::new(|_, writer| refuse(writer, "APIGW.0301"));
    let session = signed.bench.session();
    let request = read();
    let clock = &signed.bench.cloud.clock;
    for (seconds, tries) in [(0, 2), (59, 2), (1, 3), (90, 3), (89, 3)] {
        clock.forward(seconds);
        let results = join_all((0..30).map(|_| session.exchange("show", &request, None))).await;
        for result in results {
            let error = result.unwrap_err();
            assert_eq!(error.kind.as_str(), "credentials-refused");
            assert!(error.detail.contains("signature"), "{}", error.detail);
        }
        assert_eq!(signed.seen().len(), tries);
    }
    signed.write(2);
    tests::until(async || {
        session.exchange("show", &request, None).await.unwrap_err();
        // Other keys are tried.
        signed.seen() == ["1", "1", "1", "2"]
    })
    .await;
}

#[actix_rt::test]
async fn the_reason_of_a_wrong_signature_leads_to_a_hint() {
    for (reason, hint) in [
        ("calc ak sk signature fail:signature expired", "clock"),
        ("AK access failed to reach the limit,forbidden", "locked"),
        (
            "Get secretKey failed,ak:AK-1,err:ak not exist",
            "no such access key",
        ),
        ("verify aksk signature fail", "belong together"),
    ] {
        let text = format!("Incorrect IAM authentication information: {reason}");
        let body = json!({"error_code": "APIG.0301", "error_msg": text}).to_string();
        let signed = SignedBench::new(move |_, writer| answer(writer, 401, "", &body));
        let session = signed.bench.session();
        let error = session.exchange("show", &read(), None).await.unwrap_err();
        assert!(error.detail.contains(hint), "{}", error.detail);
        assert!(!format!("{error:?}").contains("AK-1"), "{error:?}");
    }
}

#[actix_rt::test]
async fn those_who_try_keys_one_after_the_other_keep_to_the_pace() {
    let arrivals = Arrivals::default();
    let noted = arrivals.clone();
    let (release, is_released) = mpsc::channel::<()>();
    let is_released = Mutex::new(is_released);
    let mut signed = SignedBench::new(move |seen, writer| {
        noted.note();
        // Until the other end is gone.
        _ = is_released.lock().unwrap().recv();
        fine(seen, writer)
    });
    signed.bench.pace = Pace {
        requests_per_second: 20,
        burst: 1,
    };
    let (session, request) = (signed.bench.session(), read());
    let all = join_all((0..60).map(|_| session.exchange("show", &request, None)));
    let tried = async {
        while signed.seen().is_empty() || flow::tests::waiting(&session.flow) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(release);
    };
    let (results, ()) = tokio::join!(all, tried);
    assert!(results.iter().all(Result::is_ok));
    assert_eq!(signed.seen().len(), 60);
    let busiest = arrivals.busiest_second();
    assert!(busiest <= 22, "{busiest} requests in a second");
}

#[actix_rt::test]
async fn a_refusal_is_noted_although_who_caused_it_has_left() {
    let (answer_one, is_answered) = mpsc::channel::<()>();
    let is_answered = Mutex::new(is_answered);
    let signed = SignedBench::new(move |_, writer| {
        // Until the test has left.
        _ = is_answered.lock().unwrap().recv();
        refuse(writer, "APIGW.0301")
    });
    let session = Rc::new(signed.bench.session());
    for round in 0..6 {
        let asking = Rc::clone(&session);
        let caller = actix_rt::spawn(async move {
            let request = read();
            asking.exchange("list", &request, None).await.is_err()
        });
        tests::until(async || signed.seen().len() > round || caller.is_finished()).await;
        caller.abort();
        _ = answer_one.send(());
    }
    assert_eq!(signed.seen().len(), 2, "more would lock the keys");
}

#[actix_rt::test]
async fn an_answer_repeats_neither_the_credential_before_nor_the_one_that_came_meanwhile() {
    let bench = Bench::new(|seen, writer| {
        if seen.header("x-auth-token") == Some("token-0") {
            return refuse(writer, "APIGW.0307");
        }
        let told = json!({"old": "token-0", "now": "token-2"}).to_string();
        answer(writer, 200, "", &told)
    });
    let session = bench.session();
    let response = session.exchange("show", &read(), None).await.unwrap();
    let told = String::from_utf8(response.body.to_vec()).unwrap();
    assert!(!told.contains("token-"), "{told}");

    let signed = SignedBench::new(|_, writer| {
        let told = json!({"text": "hidden-secret-1, AK-1 and hidden-secret-2"}).to_string();
        answer(writer, 200, "", &told)
    });
    let session = signed.bench.session();
    session.exchange("show", &read(), None).await.unwrap();
    signed.write(2);
    signed.bench.credentials.look_at_secrets();
    tests::until(async || {
        let response = session.exchange("show", &read(), None).await.unwrap();
        let told = String::from_utf8(response.body.to_vec()).unwrap();
        assert!(!told.contains("hidden-secret-1"), "{told}");
        signed.seen().contains(&"2".to_owned())
    })
    .await;
}

#[actix_rt::test]
async fn a_refusal_without_a_word_counts_where_keys_are_tried() {
    let empty = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n".to_owned();
    // Only its head comes whole.
    let cut = empty.replace(": 0", ": 100");
    for answer in [empty, cut] {
        let answered = answer.clone();
        let signed = SignedBench::new(move |_, writer| {
            writer.write_all(answered.as_bytes()).unwrap();
            Then::Close
        });
        let session = signed.bench.session();
        for _ in 0..5 {
            _ = session.exchange("show", &read(), None).await;
        }
        assert_eq!(signed.bench.requests(), 2, "{answer}");
        let error = session.exchange("show", &read(), None).await.unwrap_err();
        assert_eq!(error.kind, UpstreamErrorKind::CredentialsResting);
    }
}

#[actix_rt::test]
async fn keys_that_a_service_calls_wrong_in_its_own_words_are_tried_no_more_often() {
    let blame = |writer: &mut dyn Write| {
        let body = json!({"error_code": "OMS.1005", "error_msg": "x"}).to_string();
        answer(writer, 400, "", &body)
    };
    for of_one_task in [false, true] {
        let signed = SignedBench::new(move |seen, writer| {
            if of_one_task && seen.path() != "/tasks/1" {
                return fine(seen, writer);
            }
            blame(writer)
        });
        let list = Request {
            path: "/tasks".to_owned(),
            ..read()
        };
        let session = signed.bench.session().checking_by(list.clone());
        for _ in 0..5 {
            let result = session.exchange("show", &read(), None).await;
            assert_eq!(result.is_ok(), of_one_task);
        }
        let seen = signed.seen().len();
        // Each of two attempts is a request and the check of what it was answered.
        assert_eq!(seen, if of_one_task { 10 } else { 4 });
        let result = session.exchange("list", &list, None).await;
        assert_eq!(result.is_ok(), of_one_task);
    }
}

#[actix_rt::test]
async fn a_wrong_address_that_is_the_first_to_try_keys_does_not_keep_another_one_from_them() {
    let signed = SignedBench::new(fine);
    let refuses = peer::Peer::start(|_, writer| refuse(writer, "APIGW.0301"));
    let sms = signed.bench.session_at("sms", refuses.endpoint());
    let state = || {
        let kind = CredentialKind::AccessKey;
        signed.bench.credentials.status(&project(), kind).state
    };
    for _ in 0..5 {
        sms.exchange("show", &read(), None).await.unwrap_err();
        assert_eq!(state(), CredentialState::Refused);
    }
    assert_eq!(refuses.seen().len(), 2);
    let oms = signed.bench.session();
    oms.exchange("show", &read(), None).await.unwrap();
    assert_eq!(state(), CredentialState::Ok);
}

#[actix_rt::test]
async fn a_service_that_refuses_good_keys_does_not_keep_another_one_from_them() {
    let signed = SignedBench::new(fine);
    let refuses = peer::Peer::start(|_, writer| refuse(writer, "APIGW.0301"));
    let oms = signed.bench.session();
    let sms = signed.bench.session_at("sms", refuses.endpoint());
    oms.exchange("show", &read(), None).await.unwrap();
    for _ in 0..10 {
        sms.exchange("show", &read(), None).await.unwrap_err();
        oms.exchange("show", &read(), None).await.unwrap();
    }
    assert!(refuses.seen().len() <= 3, "{}", refuses.seen().len());
}
