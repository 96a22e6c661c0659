//! Secrets that are refused, and others that take their place.

use std::{
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use super::{Cloud, issue, keys, lease, oms, project, refusal, text, until, wrong_password};
use crate::{
    domain::{clock::Clock as _, service::ProjectName},
    transport::tests::peer::answer,
};

#[actix_rt::test]
async fn while_a_token_serves_a_refused_password_is_not_tried_again() {
    let cloud = Cloud::of_tokens();
    let credentials = cloud.credentials(&["p"]);
    let first = lease(&credentials).await.unwrap();
    // The file gets a password that the vendor does not know yet.
    let is_known = Arc::new(AtomicBool::new(false));
    for _ in 0..3 {
        let (is_known, clock) = (Arc::clone(&is_known), Arc::clone(&cloud.clock));
        cloud.answer_login(move |seen, writer| {
            if is_known.load(Ordering::SeqCst) && seen.body.contains("another-word") {
                return issue(seen, writer, clock.now());
            }
            wrong_password(seen, writer)
        });
    }
    fs::write(cloud.password.path(), "another-word").unwrap();
    credentials.look_at_secrets();
    until(async || cloud.logins() == 2).await;
    for _ in 0..100 {
        cloud.clock.forward(2);
        assert_eq!(text(&credentials).await, "token-0");
        credentials.look_at_secrets();
        // The answer comes after what was asked for before.
        let nobody = ProjectName::parse("nobody").unwrap();
        assert!(credentials.lease(&nobody, &oms()).await.is_err());
    }
    assert_eq!(cloud.logins(), 2);
    // It knows it, and ends all tokens.
    is_known.store(true, Ordering::SeqCst);
    let error = refusal();
    credentials.refused(&first, &oms(), &error);
    until(async || {
        // When the refusal was noted, nobody can tell.
        cloud.clock.forward(2);
        lease(&credentials).await.is_ok()
    })
    .await;
    assert_eq!(text(&credentials).await, "token-3");
}

#[actix_rt::test]
async fn who_comes_while_a_refused_password_is_spared_is_let_in_by_the_one_before_it() {
    let cloud = Cloud::of_tokens();
    let credentials = cloud.credentials(&["p", "q"]);
    let first = lease(&credentials).await.unwrap();
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    cloud.answer_login(move |seen, writer| {
        released.lock().unwrap().recv().unwrap();
        wrong_password(seen, writer)
    });
    fs::write(cloud.password.path(), "another-word").unwrap();
    let other = ProjectName::parse("q").unwrap();
    let (tries, waits) = (credentials.clone(), credentials.clone());
    let tries = actix_rt::spawn(async move { tries.lease(&other, &oms()).await.map(|_| ()) });
    until(async || cloud.logins() == 2).await;
    // The replacement waits for the result of the other project's try, and so does who comes for
    // it.
    cloud.clock.forward(24 * 3600 - 20 * 60);
    assert_eq!(text(&credentials).await, "token-0");
    let error = refusal();
    credentials.refused(&first, &oms(), &error);
    let waits = actix_rt::spawn(async move { text(&waits).await });
    tokio::task::yield_now().await;
    release.send(()).unwrap();
    tries.await.unwrap().unwrap();
    let text = waits.await.unwrap();
    assert!(["token-2", "token-3"].contains(&text.as_str()), "{text}");
    let words = ["another-word", "s3cret-word", "s3cret-word"];
    for (seen, word) in cloud.peer.seen()[1..].iter().zip(words) {
        assert!(seen.body.contains(word), "{word}");
    }
    assert_eq!(cloud.logins(), 4);
}

#[actix_rt::test]
async fn another_password_is_used_at_once_however_long_the_one_before_it_rests() {
    let cloud = Cloud::of_tokens();
    let credentials = cloud.credentials(&["p"]);
    let fails = async || lease(&credentials).await.is_err();
    for _ in 0..3 {
        cloud.answer_login(wrong_password);
    }
    assert!(fails().await);
    fs::write(cloud.password.path(), "another-word").unwrap();
    assert!(fails().await);
    assert_eq!(cloud.logins(), 1, "nobody has looked");
    credentials.look_at_secrets();
    // The clock stands still, and no memory comes to its end.
    until(async || fails().await && cloud.logins() == 2).await;
    cloud.clock.forward(2);
    assert!(fails().await);
    assert_eq!(cloud.logins(), 3);
    for _ in 0..8 {
        cloud.clock.forward(60);
        assert!(fails().await);
    }
    // What was not tried is not remembered.
    assert_eq!(cloud.logins(), 3);
    fs::write(cloud.password.path(), "third-word").unwrap();
    assert_eq!(text(&credentials).await, "token-3");
}

#[actix_rt::test]
async fn whoever_is_told_of_a_refusal_is_told_when_the_next_try_may_be() {
    let cloud = Cloud::of_tokens();
    let credentials = cloud.credentials(&["p"]);
    for _ in 0..2 {
        cloud.answer_login(wrong_password);
    }
    let wait = async || {
        let error = lease(&credentials).await.unwrap_err();
        assert_eq!(error.kind.as_str(), "credentials-refused");
        error.retry_after.unwrap()
    };
    let first = wait().await;
    assert!((700..=1000).contains(&first.as_millis()), "{first:?}");
    assert_eq!(wait().await, first, "the clock stands still");
    cloud.clock.forward(1);
    let second = wait().await;
    assert!((1400..=2000).contains(&second.as_millis()), "{second:?}");
    assert_eq!(wait().await, second);
    cloud.clock.forward(120);
    assert_eq!(wait().await, Duration::from_secs(15 * 60 - 121));
    assert_eq!(cloud.logins(), 2);
}

#[actix_rt::test]
async fn a_wait_that_the_vendor_asks_for_is_kept_whatever_the_file_says() {
    let cloud = Cloud::of_tokens();
    let credentials = cloud.credentials(&["p"]);
    cloud.answer_login(|_, writer| answer(writer, 429, "Retry-After: 20\r\n", "{}"));
    assert!(lease(&credentials).await.is_err());
    fs::write(cloud.password.path(), "another-word").unwrap();
    for _ in 0..50 {
        credentials.look_at_secrets();
        assert!(lease(&credentials).await.is_err());
    }
    assert_eq!(cloud.logins(), 1);
    cloud.clock.forward(20);
    assert_eq!(text(&credentials).await, "token-1");
}

#[actix_rt::test]
async fn of_two_projects_with_changed_keys_that_are_refused_one_tries_them() {
    let bench = keys::Bench::new();
    let names = ["a", "b"].map(|name| ProjectName::parse(name).unwrap());
    let credentials = bench.credentials_of(&["a", "b"]);
    for name in &names {
        let lease = credentials.lease(name, &oms()).await.unwrap();
        credentials.worked(&lease, &oms());
    }
    bench.write("AK2", "second-secret");
    credentials.look_at_secrets();
    for name in &names {
        until(async || {
            let credential = credentials.credential(name).await.unwrap();
            keys::access_key(&credential) == "AK2"
        })
        .await;
    }
    let lease = credentials.lease(&names[0], &oms()).await.unwrap();
    let error = refusal();
    assert!(credentials.refused(&lease, &oms(), &error));
    drop(lease);
    for name in &names {
        let lease = credentials.lease(name, &oms()).await.unwrap();
        assert_eq!(keys::access_key(&lease), "AK1");
    }
}

#[actix_rt::test]
async fn late_answers_to_a_dead_token_change_nothing_for_the_one_that_followed_it() {
    let cloud = Cloud::of_tokens();
    let credentials = cloud.credentials(&["p"]);
    let refused = refusal();
    let first = credentials.credential(&project()).await.unwrap();
    credentials.worked(&first, &oms());
    assert!(credentials.refused(&first, &oms(), &refused));
    let second = credentials.credential(&project()).await.unwrap();
    assert!(credentials.refused(&first, &oms(), &refused));
    assert_eq!(text(&credentials).await, "token-1");
    // Both are dead before their first success.
    assert!(credentials.refused(&second, &oms(), &refused));
    let third = credentials.credential(&project()).await.unwrap();
    // The service may not know it yet, so that it is asked again after a while.
    for _ in 0..2 {
        assert!(!credentials.refused(&third, &oms(), &refused));
        credentials.give_up(&third, &oms(), refused.clone());
        cloud.clock.forward(2);
    }
    assert!(third.is_refused());
    credentials.give_up(&third, &oms(), refused.clone());
    credentials.worked(&first, &oms());
    assert!(credentials.given_up(&project(), &oms()).is_some());
    assert!(credentials.refused(&first, &oms(), &refused));
    let fourth = credentials.credential(&project()).await.unwrap();
    for late in [&first, &second, &third] {
        credentials.refused(late, &oms(), &refused);
        credentials.give_up(late, &oms(), refused.clone());
        assert_eq!(text(&credentials).await, "token-3");
    }
    credentials.worked(&fourth, &oms());
    assert!(credentials.given_up(&project(), &oms()).is_none());
    assert!(credentials.refused(&second, &oms(), &refused));
    assert_eq!(text(&credentials).await, "token-3");
    assert_eq!(cloud.logins(), 4);
}
