use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde_json::json;

use super::*;
use crate::{
    domain::{
        access::{Scope, StorageGrant},
        secret::SecretSource,
    },
    upstream::{StorageCredentialSettings, flow::tests::PACE, metrics::Metrics},
};

const PROJECT_ID: &str = "2c0689c860ad4728a497c91ec0844383";

fn project(name: &str) -> ProjectName {
    ProjectName::parse(name).unwrap()
}

fn requests(secret: PathBuf) -> Requests {
    let archive = StorageCredentialSettings {
        access_key: "ARCHIVEAK".to_owned(),
        secret_key: SecretSource::File(secret),
        grant: StorageGrant {
            callers: Scope::All,
            projects: Scope::Only([project("prod")].into()),
        },
    };
    let name = CredentialName::parse("archive").unwrap();
    let settings = Settings {
        freshness: Duration::from_millis(500),
        projects: BTreeMap::new(),
        storage_credentials: BTreeMap::from([(name, archive)]),
        pace: PACE,
    };
    let secrets = Secrets::new(Metrics::default());
    Requests::new(PROJECT_ID, project("prod"), Arc::new(settings), secrets)
}

fn task() -> TaskId {
    TaskId::parse("204871530992144").unwrap()
}

fn named(name: &str) -> Option<StorageCredential> {
    CredentialName::parse(name).map(StorageCredential::Named)
}

fn inline(token: Option<&str>) -> StorageCredential {
    StorageCredential::Inline(StorageKeys {
        access_key: Secret::new("SRCAK"),
        secret_key: Secret::new("SRCSK"),
        security_token: token.map(Secret::new),
    })
}

fn start(
    source: Option<StorageCredential>,
    destination: Option<StorageCredential>,
) -> StartRequest {
    StartRequest {
        source,
        destination,
        migrate_failed_objects: false,
    }
}

#[test]
fn requests_are_those_of_the_documentation() {
    let requests = requests(PathBuf::new());
    let path = format!("/v2/{PROJECT_ID}/tasks/204871530992144");
    for (request, method, path) in [
        (requests.show(&task()), Method::Get, path.clone()),
        (requests.stop(&task()), Method::Post, format!("{path}/stop")),
        (requests.delete(&task()), Method::Delete, path),
    ] {
        assert_eq!(request.method, method);
        assert_eq!(request.path, path);
        assert_eq!(request.body, None);
    }
}

#[test]
fn a_page_is_never_empty_and_never_too_long() {
    for (limit, sent) in [
        (0, 1),
        (1, 1),
        (50, 50),
        (100, 100),
        (101, 100),
        (u32::MAX, 100),
    ] {
        let request = requests(PathBuf::new()).list(70, limit);
        let path = format!("/v2/{PROJECT_ID}/tasks?limit={sent}&offset=70");
        assert_eq!(request.path, path);
        assert_eq!(request.method, Method::Get);
    }
}

#[tokio::test]
async fn a_named_credential_is_read_again_at_each_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    let requests = requests(file.clone());
    for secret in ["first", "second"] {
        std::fs::write(&file, format!("{secret}\n")).unwrap();
        let request = requests
            .start(
                &task(),
                &start(Some(inline(Some("SRCTOKEN"))), named("archive")),
            )
            .await
            .unwrap();
        assert_eq!(request.method, Method::Post);
        assert!(request.path.ends_with("/tasks/204871530992144/start"));
        assert_eq!(
            request.body,
            Some(json!({
                "src_ak": "SRCAK", "src_sk": "SRCSK", "src_security_token": "SRCTOKEN",
                "dst_ak": "ARCHIVEAK", "dst_sk": secret, "migrate_failed_object": false,
            }))
        );
    }
}

#[tokio::test]
async fn a_list_of_urls_needs_no_source_keys() {
    let mut start = start(None, Some(inline(None)));
    start.migrate_failed_objects = true;
    let request = requests(PathBuf::new())
        .start(&task(), &start)
        .await
        .unwrap();
    assert_eq!(
        request.body,
        Some(json!({"dst_ak": "SRCAK", "dst_sk": "SRCSK", "migrate_failed_object": true}))
    );
}

#[tokio::test]
async fn a_credential_that_cannot_be_had_is_rejected_and_nothing_is_sent() {
    let missing = PathBuf::from("/nonexistent/place-of-the-secret");
    let mut elsewhere = requests(missing.clone());
    elsewhere.project = project("test");
    let requests = requests(missing);
    for (requests, start, word) in [
        (&requests, start(named("gone"), Some(inline(None))), "gone"),
        (&requests, start(None, named("archive")), "archive"),
        (&elsewhere, start(None, named("archive")), "archive"),
        (&requests, start(Some(inline(None)), None), "destination"),
    ] {
        let error = requests.start(&task(), &start).await.unwrap_err();
        assert_eq!(error.kind, UpstreamErrorKind::Rejected);
        assert_eq!(error.sent, Sent::No);
        assert!(error.detail.contains(word), "{}", error.detail);
        assert!(!error.detail.contains("place-of-the-secret"));
    }
}
