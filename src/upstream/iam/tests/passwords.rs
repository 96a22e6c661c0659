//! Passwords that change in their files.

use std::{
    fs,
    sync::{Arc, Mutex, mpsc},
};

use super::{Cloud, issue, lease, oms, refusal, text, until, wrong_password};
use crate::domain::clock::Clock as _;

#[actix_rt::test]
async fn a_changed_password_is_used_for_a_login_while_the_token_serves() {
    let cloud = Cloud::of_tokens();
    let credentials = cloud.credentials(&["p"]);
    assert_eq!(text(&credentials).await, "token-0");
    credentials.look_at_secrets();
    let (release, released) = mpsc::channel::<()>();
    let (released, clock) = (Mutex::new(released), Arc::clone(&cloud.clock));
    cloud.answer_login(move |seen, writer| {
        released.lock().unwrap().recv().unwrap();
        issue(seen, writer, clock.now())
    });
    fs::write(cloud.password.path(), "another-word").unwrap();
    credentials.look_at_secrets();
    until(async || cloud.logins() == 2).await;
    assert_eq!(text(&credentials).await, "token-0");
    release.send(()).unwrap();
    until(async || text(&credentials).await == "token-1").await;
    assert!(cloud.peer.seen()[1].body.contains("another-word"));
    assert_eq!(cloud.logins(), 2);
}

#[actix_rt::test]
async fn a_changed_password_that_is_refused_has_one_more_attempt_when_the_token_ends() {
    let cloud = Cloud::of_tokens();
    let credentials = cloud.credentials(&["p"]);
    let first = lease(&credentials).await.unwrap();
    credentials.worked(&first, &oms());
    cloud.answer_login(wrong_password);
    fs::write(cloud.password.path(), "another-word").unwrap();
    for _ in 0..4 {
        credentials.look_at_secrets();
        until(async || cloud.logins() == 2).await;
        assert_eq!(text(&credentials).await, "token-0");
        cloud.clock.forward(60);
    }
    fs::write(cloud.password.path(), "third-word").unwrap();
    cloud.answer_login(wrong_password);
    until(async || {
        // When the refusal before was noted, nobody can tell.
        cloud.clock.forward(2);
        credentials.look_at_secrets();
        cloud.logins() == 3
    })
    .await;
    assert!(cloud.peer.seen()[2].body.contains("third-word"));
    credentials.refused(&first, &oms(), &refusal());
    until(async || {
        cloud.clock.forward(2);
        lease(&credentials).await.is_ok()
    })
    .await;
    assert_eq!(text(&credentials).await, "token-3");
    assert!(cloud.peer.seen()[3].body.contains("third-word"));
}

#[actix_rt::test]
async fn a_login_reads_the_password_afresh_and_else_takes_the_last_good_one() {
    let cloud = Cloud::of_tokens();
    let credentials = cloud.credentials(&["p"]);
    let login = async |number: usize, word: &str| {
        assert_eq!(text(&credentials).await, format!("token-{number}"));
        assert!(cloud.peer.seen()[number].body.contains(word), "{word}");
        cloud.clock.forward(24 * 3600);
    };
    login(0, "s3cret-word").await;
    fs::write(cloud.password.path(), "another-word").unwrap();
    login(1, "another-word").await;
    fs::write(cloud.password.path(), "").unwrap();
    login(2, "another-word").await;
    fs::remove_file(cloud.password.path()).unwrap();
    login(3, "another-word").await;
    fs::write(cloud.password.path(), "third-word").unwrap();
    login(4, "third-word").await;
}

#[actix_rt::test]
async fn a_refreshed_token_that_is_refused_at_once_leaves_the_one_before_it() {
    let cloud = Cloud::of_tokens();
    let credentials = cloud.credentials(&["p"]);
    let first = lease(&credentials).await.unwrap();
    credentials.worked(&first, &oms());
    fs::write(cloud.password.path(), "another-word").unwrap();
    credentials.look_at_secrets();
    until(async || text(&credentials).await == "token-1").await;
    let second = lease(&credentials).await.unwrap();
    assert!(credentials.refused(&second, &oms(), &refusal()));
    assert_eq!(text(&credentials).await, "token-0");
    credentials.worked(&first, &oms());
    assert!(credentials.refused(&first, &oms(), &refusal()));
    until(async || {
        cloud.clock.forward(2);
        lease(&credentials).await.is_ok()
    })
    .await;
    assert_eq!(text(&credentials).await, "token-2");
}
