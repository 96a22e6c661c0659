//! How tokens come, serve and go.

use super::*;

#[actix_rt::test]
async fn nobody_logs_in_before_a_token_is_needed_and_then_as_the_vendor_documents() {
    let cloud = Cloud::of_tokens();
    let credentials = cloud.credentials(&["p"]);
    assert_eq!(cloud.peer.connections(), 0);
    assert_eq!(text(&credentials).await, "token-0");
    assert_eq!(text(&credentials).await, "token-0");
    let [login] = &cloud.peer.seen()[..] else {
        panic!("one login is enough")
    };
    assert!(
        login
            .head
            .starts_with("POST /v3/auth/tokens?nocatalog=true HTTP/1.1")
    );
    assert_eq!(login.header("x-auth-token"), None);
    let body: serde_json::Value = serde_json::from_str(&login.body).unwrap();
    let expected = json!({"auth": {
        "identity": {"methods": ["password"], "password": {"user": {
            "name": "svc-migrate", "password": "s3cret-word", "domain": {"name": "acme"},
        }}},
        "scope": {"project": {"id": PROJECT_ID}},
    }});
    assert_eq!(body, expected);
}

#[actix_rt::test]
async fn eighty_first_calls_are_one_login() {
    let cloud = Cloud::of_tokens();
    let credentials = cloud.credentials(&["p"]);
    let texts = join_all((0..80).map(|_| text(&credentials))).await;
    assert_eq!(texts, vec!["token-0"; 80]);
    assert_eq!(cloud.logins(), 1);
}

#[actix_rt::test]
async fn a_caller_that_leaves_neither_ends_nor_repeats_the_login() {
    let cloud = Cloud::of_tokens();
    let (release, released) = mpsc::channel::<()>();
    let (released, clock) = (Mutex::new(released), Arc::clone(&cloud.clock));
    cloud.answer_login(move |seen, writer| {
        released.lock().unwrap().recv().unwrap();
        issue(seen, writer, clock.now())
    });
    let credentials = cloud.credentials(&["p"]);
    tokio::select! {
        biased;
        _ = text(&credentials) => panic!("the login is held back"),
        () = until(async || cloud.logins() == 1) => {}
    }
    let second = text(&credentials);
    release.send(()).unwrap();
    assert_eq!(second.await, "token-0");
    assert_eq!(cloud.logins(), 1);
}

#[actix_rt::test]
async fn a_token_near_its_end_serves_while_it_is_replaced() {
    let cloud = Cloud::of_tokens();
    let credentials = cloud.credentials(&["p"]);
    assert_eq!(text(&credentials).await, "token-0");
    let (release, released) = mpsc::channel::<()>();
    let (released, clock) = (Mutex::new(released), Arc::clone(&cloud.clock));
    cloud.answer_login(move |seen, writer| {
        released.lock().unwrap().recv().unwrap();
        issue(seen, writer, clock.now())
    });
    cloud.clock.forward(24 * 3600 - 41 * 60);
    assert_eq!(text(&credentials).await, "token-0");
    assert_eq!(cloud.logins(), 1);

    cloud.clock.forward(20 * 60);
    assert_eq!(text(&credentials).await, "token-0");
    until(async || cloud.logins() == 2).await;
    cloud.clock.forward(5);
    assert_eq!(text(&credentials).await, "token-0");
    release.send(()).unwrap();
    until(async || text(&credentials).await == "token-1").await;
    assert_eq!(cloud.logins(), 2);
}

#[actix_rt::test]
async fn a_token_serves_to_its_end_when_it_cannot_be_replaced() {
    let cloud = Cloud::of_tokens();
    let credentials = cloud.credentials(&["p"]);
    text(&credentials).await;
    cloud.answer_login(|_, writer| answer(writer, 503, "", "{}"));
    cloud.clock.forward(24 * 3600 - 20 * 60);
    assert_eq!(text(&credentials).await, "token-0");
    until(async || cloud.logins() == 2).await;
    assert_eq!(text(&credentials).await, "token-0");
    // The next attempt is made after a while, and succeeds. When the failure was noted, nobody can
    // tell.
    until(async || {
        cloud.clock.forward(1);
        text(&credentials).await != "token-0"
    })
    .await;
}

#[actix_rt::test]
async fn after_a_sleep_of_the_machine_the_old_token_is_not_used() {
    let cloud = Cloud::of_tokens();
    let credentials = cloud.credentials(&["p"]);
    assert_eq!(text(&credentials).await, "token-0");
    cloud.clock.forward(25 * 3600);
    assert_eq!(text(&credentials).await, "token-1");
}

fn lasting(serial: u64, milliseconds: u64) -> Option<Credential> {
    let whole = SignedDuration::from_secs(100);
    let age = Duration::from_millis(95_000 - milliseconds);
    let wall = Timestamp::UNIX_EPOCH;
    let at = Instant::now().checked_sub(age)?;
    Some(Credential::new(Parts {
        serial,
        project: ProjectName::parse(&format!("p{}", serial % 10)).unwrap(),
        kind: CredentialKind::Password,
        holder: Identity::of(&[]),
        identity: Identity::of(&[]),
        trials: Arc::default(),
        proof: Proof::Token {
            text: Secret::new("t"),
            password: Secret::new("p"),
        },
        lifetime: Lifetime::of_token(Begun { at, wall }, None, wall + whole),
    }))
}

#[actix_rt::test]
async fn a_new_token_does_not_inherit_the_end_of_the_old_one() {
    let clock = Arc::new(SetClock(AtomicI64::new(0)));
    let vault = Vault::new(clock, Metrics::default());
    let (Some(old), Some(new), Some(other)) =
        (lasting(1, 200), lasting(11, 90_000), lasting(2, 300))
    else {
        return; // The machine has only just started.
    };
    vault.put(old).await;
    vault.put(new.clone()).await;
    vault.put(other.clone()).await;
    until(async || vault.cache.get(other.project()).await.is_none()).await;
    assert_eq!(
        vault.get(new.project()).await.map(|token| token.serial()),
        Some(11)
    );
}

#[actix_rt::test]
async fn a_refused_token_is_removed_only_while_it_is_the_one_at_hand() {
    let cloud = Cloud::of_tokens();
    let credentials = cloud.credentials(&["p"]);
    let error = refusal();
    let old = lease(&credentials).await.unwrap();
    credentials.refused(&old, &oms(), &error);
    assert_eq!(text(&credentials).await, "token-1");
    credentials.refused(&old, &oms(), &error);
    assert_eq!(text(&credentials).await, "token-1");
    assert_eq!(cloud.logins(), 2);
}
