//! Access keys from files.

use std::fs;

use super::{super::Lease, *};

/// Lets the projects of the settings sign with keys from two files.
fn with_access_key(
    settings: &mut Settings,
    access_key: &NamedTempFile,
    secret_key: &NamedTempFile,
) {
    let file = |file: &NamedTempFile| SecretSource::File(file.path().to_owned());
    for project in settings.projects.values_mut() {
        project.credentials = CredentialSettings::AccessKey {
            access_key: AccessKeySource::Kept(file(access_key)),
            secret_key: file(secret_key),
        };
    }
}

/// A cloud, and the files of an access key.
pub(super) struct Bench {
    cloud: Cloud,
    access_key: NamedTempFile,
    secret_key: NamedTempFile,
}

impl Bench {
    pub(super) fn new() -> Self {
        let bench = Self {
            cloud: Cloud::of_tokens(),
            access_key: NamedTempFile::new().unwrap(),
            secret_key: NamedTempFile::new().unwrap(),
        };
        bench.write("AK1", "first-secret");
        bench
    }

    pub(super) fn write(&self, access_key: &str, secret_key: &str) {
        fs::write(self.access_key.path(), access_key).unwrap();
        fs::write(self.secret_key.path(), secret_key).unwrap();
    }

    fn credentials(&self) -> Credentials {
        self.credentials_of(&["p"])
    }

    pub(super) fn credentials_of(&self, projects: &[&str]) -> Credentials {
        let mut settings = self.cloud.settings(projects);
        with_access_key(&mut settings, &self.access_key, &self.secret_key);
        start(&settings, self.cloud.clock.clone()).unwrap()
    }
}

/// The headers of a request, as the credential at hand signs it.
pub(super) fn signed(credential: &Credential) -> BTreeMap<&'static str, String> {
    let headers = shown(credential).into_iter();
    headers
        .map(|Header { name, value }| (name, value.expose().to_owned()))
        .collect()
}

/// The access key of the credential at hand.
pub(super) async fn key(credentials: &Credentials) -> String {
    access_key(&lease(credentials).await.unwrap())
}

pub(super) fn access_key(credential: &Credential) -> String {
    let headers = signed(credential);
    let (_, rest) = headers["authorization"].split_once("Access=").unwrap();
    rest.split(',').next().unwrap().to_owned()
}

pub(super) async fn refuse(credentials: &Credentials) {
    let lease = lease(credentials).await.unwrap();
    credentials.refused(&lease, &oms(), &refusal());
}

#[actix_rt::test]
async fn an_access_key_needs_no_login_and_has_no_end() {
    let bench = Bench::new();
    let credentials = bench.credentials();
    assert_eq!(key(&credentials).await, "AK1");
    bench.cloud.clock.forward(400 * 24 * 3600);
    let lease = lease(&credentials).await.unwrap();
    let headers = signed(&lease);
    assert_eq!(headers["x-project-id"], PROJECT_ID);
    assert_eq!(headers.get("x-security-token"), None);
    assert_eq!(lease.serial(), 1);
    assert_eq!(bench.cloud.peer.connections(), 0);
}

#[actix_rt::test]
async fn a_changed_access_key_is_used_from_the_next_look_on() {
    let bench = Bench::new();
    let credentials = bench.credentials();
    assert_eq!(key(&credentials).await, "AK1");
    bench.write("AK2", "second-secret");
    assert_eq!(key(&credentials).await, "AK1", "nobody has looked");
    credentials.look_at_secrets();
    until(async || key(&credentials).await == "AK2").await;
}

#[actix_rt::test]
async fn a_file_that_is_of_no_use_leaves_the_access_key_as_it_is() {
    let bench = Bench::new();
    let credentials = bench.credentials();
    assert_eq!(key(&credentials).await, "AK1");
    credentials.worked(&lease(&credentials).await.unwrap(), &oms());
    bench.write("AK1", "\n");
    credentials.look_at_secrets();
    bench.write("AK2", "\n");
    credentials.look_at_secrets();
    // Half a pair is of no use, but who can tell? It is tried once, and the one that works comes
    // back.
    until(async || key(&credentials).await == "AK2").await;
    until(async || {
        // Another look may be under way, and bring them back once.
        refuse(&credentials).await;
        key(&credentials).await == "AK1"
    })
    .await;
    bench.write("AK2", "second-secret");
    until(async || {
        // When the refusal was noted, nobody can tell.
        bench.cloud.clock.forward(2);
        credentials.look_at_secrets();
        key(&credentials).await == "AK2"
    })
    .await;
    credentials.worked(&lease(&credentials).await.unwrap(), &oms());
    refuse(&credentials).await;
    assert_eq!(key(&credentials).await, "AK2", "it had worked");
}

#[actix_rt::test]
async fn keys_that_are_refused_by_chance_come_back_if_those_after_them_are_not_taken_yet() {
    let bench = Bench::new();
    let credentials = bench.credentials();
    credentials.worked(&lease(&credentials).await.unwrap(), &oms());
    bench.write("AK2", "second-secret");
    credentials.look_at_secrets();
    until(async || key(&credentials).await == "AK2").await;
    for (refused, others_follow) in [("AK2", true), ("AK1", true), ("AK1", true), ("AK2", false)] {
        let tried = lease(&credentials).await.unwrap();
        assert_eq!(access_key(&tried), refused);
        let is_replaced = credentials.refused(&tried, &oms(), &refusal());
        assert_eq!(is_replaced, others_follow);
    }
    // Not at once: they may be dead. Those after them can wait for longer.
    let error = lease(&credentials).await.unwrap_err();
    assert_eq!(error.kind, UpstreamErrorKind::CredentialsResting);
    assert_eq!(error.retry_after, Some(Duration::from_secs(10)));
    bench.cloud.clock.forward(10);
    assert_eq!(key(&credentials).await, "AK1");
}

#[actix_rt::test]
async fn refused_keys_are_tried_twice_and_then_after_growing_pauses_unless_they_change() {
    let bench = Bench::new();
    let credentials = bench.credentials();
    refuse(&credentials).await;
    for minutes in [1, 3, 5, 5] {
        refuse(&credentials).await;
        for _ in 0..minutes {
            let error = lease(&credentials).await.unwrap_err();
            assert_eq!(error.detail, "refused by the test");
            bench.cloud.clock.forward(60);
        }
        assert_eq!(key(&credentials).await, "AK1", "{minutes} minutes are over");
    }
    refuse(&credentials).await;
    assert!(lease(&credentials).await.is_err());
    bench.write("AK2", "second-secret");
    until(async || lease(&credentials).await.is_ok()).await;
    assert_eq!(key(&credentials).await, "AK2");
}

#[actix_rt::test]
async fn projects_with_the_same_keys_share_the_attempts() {
    let bench = Bench::new();
    let names = ["a", "b", "c", "d"];
    let credentials = bench.credentials_of(&names);
    let tried = join_all(names.map(async |name| {
        let project = ProjectName::parse(name).unwrap();
        let mut tried = 0;
        while let Ok(lease) = credentials.lease(&project, &oms()).await {
            // Others come for it while the service is asked.
            tokio::task::yield_now().await;
            tried += 1;
            credentials.refused(&lease, &oms(), &refusal());
        }
        tried
    }))
    .await;
    assert_eq!(tried.into_iter().sum::<usize>(), 2);
}

#[actix_rt::test]
async fn keys_that_worked_are_tried_by_one_at_a_time_after_a_refusal_in_another_project() {
    let bench = Bench::new();
    let credentials = bench.credentials_of(&["a", "b"]);
    let [a, b] = ["a", "b"].map(|name| ProjectName::parse(name).unwrap());
    let lease = async |project| credentials.lease(project, &oms()).await.unwrap();
    for project in [&a, &b] {
        let first: Lease = lease(project).await;
        credentials.worked(&first, &oms());
    }
    assert!(!lease(&b).await.is_on_trial());
    let refused: Lease = lease(&a).await;
    credentials.refused(&refused, &oms(), &refusal());
    let first = lease(&b).await;
    let site = &oms();
    assert!(credentials.lease_now(&b, site).await.is_none());
    credentials.worked(&first, &oms());
    let second = credentials.lease_now(&b, site).await;
    assert!(second.is_some() && credentials.lease_now(&b, site).await.is_some());
}

#[actix_rt::test]
async fn keys_that_work_again_have_all_their_attempts() {
    let bench = Bench::new();
    let credentials = bench.credentials();
    for _ in 0..5 {
        refuse(&credentials).await;
        let lease = lease(&credentials).await.unwrap();
        credentials.worked(&lease, &oms());
    }
}

#[actix_rt::test]
async fn keys_that_have_not_worked_yet_are_tried_by_one_at_a_time() {
    let bench = Bench::new();
    let credentials = bench.credentials();
    let first = lease(&credentials).await.unwrap();
    let others: Vec<_> = (0..20)
        .map(|_| {
            let credentials = credentials.clone();
            actix_rt::spawn(async move { lease(&credentials).await.map(|_| ()) })
        })
        .collect();
    tokio::task::yield_now().await;
    assert!(others.iter().all(|other| !other.is_finished()));
    credentials.worked(&first, &oms());
    drop(first);
    for other in others {
        assert!(other.await.unwrap().is_ok());
    }
    let both = [lease(&credentials).await, lease(&credentials).await];
    assert!(both.iter().all(Result::is_ok), "they have worked");
}

#[actix_rt::test]
async fn an_endpoint_that_does_not_answer_leaves_a_place_to_another() {
    let bench = Bench::new();
    let credentials = bench.credentials();
    let _hangs = lease(&credentials).await.unwrap();
    assert!(credentials.lease_now(&project(), &oms()).await.is_none());
    let elsewhere = at("https://sms.example");
    let other = credentials.lease(&project(), &elsewhere).await.unwrap();
    let third = at("https://third.example");
    assert!(credentials.lease_now(&project(), &third).await.is_none());
    credentials.worked(&other, &oms());
    assert!(credentials.lease_now(&project(), &third).await.is_some());
}

#[actix_rt::test]
async fn no_more_attempts_are_under_way_than_may_fail() {
    let bench = Bench::new();
    let credentials = bench.credentials();
    let elsewhere = at("https://sms.example");
    let hangs = lease(&credentials).await.unwrap();
    let other = credentials.lease(&project(), &elsewhere).await.unwrap();
    credentials.refused(&other, &elsewhere, &refusal());
    drop(other);
    // Of two refusals one has come, and the other may be on its way.
    until(async || credentials.credential(&project()).await.is_ok()).await;
    assert!(
        credentials
            .lease_now(&project(), &elsewhere)
            .await
            .is_none()
    );
    credentials.refused(&hangs, &oms(), &refusal());
    drop(hangs);
    let error = credentials.lease(&project(), &elsewhere).await.unwrap_err();
    assert_eq!(error.kind, UpstreamErrorKind::CredentialsResting);
}

#[actix_rt::test]
async fn who_waits_for_keys_that_are_refused_meanwhile_gets_other_ones() {
    let bench = Bench::new();
    let credentials = bench.credentials();
    let first = lease(&credentials).await.unwrap();
    let waiting = credentials.clone();
    let waiting = actix_rt::spawn(async move { key(&waiting).await });
    tokio::task::yield_now().await;
    bench.write("AK2", "second-secret");
    credentials.refused(&first, &oms(), &refusal());
    drop(first);
    assert_eq!(waiting.await.unwrap(), "AK2");
}

#[actix_rt::test]
async fn while_one_request_tries_changed_keys_the_others_use_those_that_worked() {
    let bench = Bench::new();
    let credentials = bench.credentials();
    credentials.worked(&lease(&credentials).await.unwrap(), &oms());
    bench.write("AK2", "second-secret");
    credentials.look_at_secrets();
    until(async || key(&credentials).await == "AK2").await;
    let trial = lease(&credentials).await.unwrap();
    for _ in 0..3 {
        assert_eq!(key(&credentials).await, "AK1");
    }
    credentials.worked(&trial, &oms());
    drop(trial);
    assert_eq!(key(&credentials).await, "AK2");
}

#[actix_rt::test]
async fn who_waits_for_keys_that_rest_at_its_address_meanwhile_gets_other_ones() {
    let bench = Bench::new();
    let credentials = bench.credentials_of(&["p", "q"]);
    let first = lease(&credentials).await.unwrap();
    credentials.worked(&first, &oms());
    bench.write("AK2", "second-secret");
    credentials.refused(&first, &oms(), &refusal());
    drop(first);
    assert_eq!(key(&credentials).await, "AK2");
    refuse(&credentials).await;
    let tried = lease(&credentials).await.unwrap();
    assert_eq!(access_key(&tried), "AK1");
    let other = ProjectName::parse("q").unwrap();
    let at_hand = credentials.credential(&other).await.unwrap();
    assert_eq!(access_key(&at_hand), "AK1");
    let site = oms();
    let mut waits = std::pin::pin!(credentials.lease(&other, &site));
    assert!(
        waits.as_mut().now_or_never().is_none(),
        "somebody tries them"
    );
    credentials.refused(&tried, &oms(), &refusal());
    drop(tried);
    assert_eq!(access_key(&waits.await.unwrap()), "AK2");
}
