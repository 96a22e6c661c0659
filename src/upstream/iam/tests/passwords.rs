//! Passwords that change in their files.

use std::{
    fs,
    sync::{Arc, Mutex, mpsc},
};

use futures_util::future::join_all;

use super::{
    Cloud, Seen, issue, lease, oms, refusal, start, text, token_of, until, wrong_password,
};
use crate::domain::{clock::Clock as _, service::ProjectName};

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
    // The one that worked is tried before it.
    cloud.answer_login(wrong_password);
    credentials.refused(&first, &oms(), &refusal());
    until(async || {
        cloud.clock.forward(2);
        lease(&credentials).await.is_ok()
    })
    .await;
    assert_eq!(text(&credentials).await, "token-4");
    assert!(cloud.peer.seen()[3].body.contains("s3cret-word"));
    assert!(cloud.peer.seen()[4].body.contains("third-word"));
}

/// A cloud that takes one password, until it takes another one.
fn taking(word: &Arc<Mutex<&'static str>>) -> Cloud {
    let cloud = Cloud::of_tokens();
    for _ in 0..20 {
        let (word, clock) = (Arc::clone(word), Arc::clone(&cloud.clock));
        cloud.answer_login(move |seen, writer| {
            if seen.body.contains(*word.lock().unwrap()) {
                issue(seen, writer, clock.now())
            } else {
                wrong_password(seen, writer)
            }
        });
    }
    cloud
}

#[actix_rt::test]
async fn a_token_that_is_refused_by_chance_in_a_rotation_is_replaced_by_the_password_before() {
    let word = Arc::new(Mutex::new("s3cret-word"));
    let cloud = taking(&word);
    let credentials = cloud.credentials(&["p"]);
    let refuse = async || {
        let refused = lease(&credentials).await.unwrap();
        credentials.worked(&refused, &oms());
        assert!(credentials.refused(&refused, &oms(), &refusal()));
        lease(&credentials).await.map(|lease| token_of(&lease))
    };
    lease(&credentials).await.unwrap();
    // The vendor does not know the next one yet, and nobody has looked.
    fs::write(cloud.password.path(), "another-word").unwrap();
    assert_eq!(refuse().await.unwrap(), "token-2");
    let words = |from: usize| {
        let seen = cloud.peer.seen();
        let bodies = seen[from..].iter();
        let is_new = bodies.map(|seen| seen.body.contains("another-word"));
        is_new.collect::<Vec<_>>()
    };
    assert_eq!(words(1), [true, false]);
    cloud.clock.forward(60);
    // It has been tried, so that the one that worked goes first.
    assert_eq!(refuse().await.unwrap(), "token-3");
    assert_eq!(words(3), [false]);
    *word.lock().unwrap() = "another-word";
    cloud.clock.forward(60);
    assert_eq!(refuse().await.unwrap(), "token-5");
    assert_eq!(words(4), [false, true]);
}

#[actix_rt::test]
async fn when_no_password_is_taken_three_are_tried_in_15_minutes() {
    let word = Arc::new(Mutex::new("s3cret-word"));
    let cloud = taking(&word);
    let credentials = cloud.credentials(&["p"]);
    let refused = lease(&credentials).await.unwrap();
    *word.lock().unwrap() = "nobody knows it";
    fs::write(cloud.password.path(), "another-word").unwrap();
    credentials.refused(&refused, &oms(), &refusal());
    for _ in 0..12 {
        let error = lease(&credentials).await.unwrap_err();
        assert_eq!(error.answer.unwrap().status, 401);
        cloud.clock.forward(60);
    }
    let seen = cloud.peer.seen();
    let is_new = seen[1..]
        .iter()
        .map(|seen| seen.body.contains("another-word"));
    assert_eq!(is_new.collect::<Vec<_>>(), [true, false, true]);
    // There and back again: neither is one that was never tried.
    for word in ["s3cret-word", "another-word"] {
        fs::write(cloud.password.path(), word).unwrap();
        lease(&credentials).await.unwrap_err();
        cloud.clock.forward(60);
    }
    assert_eq!(cloud.logins(), 4);
    cloud.clock.forward(60);
    for _ in 0..3 {
        lease(&credentials).await.unwrap_err();
        cloud.clock.forward(5);
    }
    assert_eq!(cloud.logins(), 6);
}

#[actix_rt::test]
async fn a_token_is_replaced_in_time_by_the_password_that_worked_before() {
    let word = Arc::new(Mutex::new("s3cret-word"));
    let cloud = taking(&word);
    let credentials = cloud.credentials(&["p"]);
    assert_eq!(text(&credentials).await, "token-0");
    fs::write(cloud.password.path(), "another-word").unwrap();
    credentials.look_at_secrets();
    until(async || cloud.logins() == 2).await;
    assert_eq!(text(&credentials).await, "token-0");
    cloud.clock.forward(24 * 3600 - 20 * 60);
    until(async || text(&credentials).await == "token-3").await;
    let seen = cloud.peer.seen();
    let is_new = seen[1..]
        .iter()
        .map(|seen| seen.body.contains("another-word"));
    assert_eq!(is_new.collect::<Vec<_>>(), [true, true, false]);
}

#[actix_rt::test]
async fn a_project_that_was_never_asked_for_has_the_password_that_worked_in_another_one() {
    let word = Arc::new(Mutex::new("s3cret-word"));
    let cloud = taking(&word);
    let credentials = cloud.credentials(&["p", "q"]);
    lease(&credentials).await.unwrap();
    fs::write(cloud.password.path(), "another-word").unwrap();
    let other = ProjectName::parse("q").unwrap();
    let lease = credentials.lease(&other, &oms()).await.unwrap();
    assert_eq!(token_of(&lease), "token-2");
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

#[actix_rt::test]
async fn projects_that_are_asked_for_at_once_spend_one_try_of_the_next_password() {
    let word = Arc::new(Mutex::new("s3cret-word"));
    let cloud = taking(&word);
    let credentials = cloud.credentials(&["p", "q", "r"]);
    lease(&credentials).await.unwrap();
    fs::write(cloud.password.path(), "another-word").unwrap();
    let others = ["q", "r"].map(|name| ProjectName::parse(name).unwrap());
    let site = oms();
    for lease in join_all(others.iter().map(|other| credentials.lease(other, &site))).await {
        lease.unwrap();
    }
    let seen = cloud.peer.seen();
    let is_new = |seen: &&Seen| seen.body.contains("another-word");
    assert_eq!(seen.iter().filter(is_new).count(), 1);
    assert_eq!(cloud.logins(), 4);
}

#[actix_rt::test]
async fn a_password_is_shown_to_no_other_cloud_that_has_a_user_of_the_same_name() {
    let clouds = [Cloud::of_tokens(), Cloud::of_tokens()];
    let mut settings = clouds[0].settings(&["p"]);
    let mut of_another = clouds[1].settings(&["q"]);
    fs::write(clouds[1].password.path(), "of-another-cloud").unwrap();
    settings.projects.append(&mut of_another.projects);
    let credentials = start(&settings, clouds[0].clock.clone()).unwrap();
    let first = lease(&credentials).await.unwrap();
    let other = ProjectName::parse("q").unwrap();
    credentials.lease(&other, &oms()).await.unwrap();
    fs::write(clouds[0].password.path(), "another-word").unwrap();
    for _ in 0..2 {
        clouds[0].answer_login(wrong_password);
    }
    credentials.refused(&first, &oms(), &refusal());
    lease(&credentials).await.unwrap_err();
    let seen = clouds[0].peer.seen();
    assert!(
        seen.iter()
            .all(|seen| !seen.body.contains("of-another-cloud"))
    );
    assert_eq!(clouds[1].logins(), 1);
}
