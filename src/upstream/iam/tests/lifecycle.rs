//! From login to login: who waits, for how long, and for what.

use std::{
    io::Write,
    sync::{Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use futures_util::future::join_all;

use super::{Cloud, SetClock, issue, lease, oms, refusal, start_with, text, until};
use crate::{
    domain::{clock::Clock as _, service::UpstreamErrorKind},
    transport::{
        self,
        tests::peer::{Seen, Then, answer, settings, write},
    },
    upstream::iam::Credentials,
};

type Script = fn(&Seen, &mut dyn Write) -> Then;

/// Credentials that give up a login after a second.
fn impatient(cloud: &Cloud) -> Credentials {
    let limits = transport::Settings {
        request_timeout: Duration::from_secs(1),
        ..settings()
    };
    start_with(&cloud.settings(&["p"]), &limits, cloud.clock.clone()).unwrap()
}

/// Holds a login back until something comes out of the receiver.
fn held(
    cloud: &Cloud,
    then: impl Fn(&Seen, &mut dyn Write, &SetClock) -> Then + Send + Sync + 'static,
) -> mpsc::Sender<()> {
    let (release, released) = mpsc::channel::<()>();
    let (released, clock) = (Mutex::new(released), cloud.clock.clone());
    cloud.answer_login(move |seen, writer| {
        released.lock().unwrap().recv().unwrap();
        then(seen, writer, &clock)
    });
    release
}

#[actix_rt::test]
async fn of_two_hundred_first_callers_the_first_leaves_and_the_others_share_one_login() {
    let cloud = Cloud::of_tokens();
    let release = held(&cloud, |seen, writer, clock| {
        issue(seen, writer, clock.now())
    });
    let credentials = cloud.credentials(&["p"]);
    let first = text(&credentials);
    tokio::select! {
        biased;
        _ = first => panic!("the login is held back"),
        () = until(async || cloud.logins() == 1) => {}
    }
    let others = join_all((0..199).map(|_| text(&credentials)));
    let ((), others) = tokio::join!(
        async {
            // Behind all who ask.
            tokio::task::yield_now().await;
            release.send(()).unwrap();
        },
        others
    );
    assert_eq!(others, vec!["token-0"; 199]);
    assert_eq!(cloud.logins(), 1);
}

#[actix_rt::test]
async fn callers_on_many_threads_share_one_login() {
    let cloud = Cloud::of_tokens();
    let credentials = cloud.credentials(&["p"]);
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let credentials = credentials.clone();
            thread::spawn(move || {
                actix_rt::System::new()
                    .block_on(async { join_all((0..25).map(|_| text(&credentials))).await })
            })
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), vec!["token-0"; 25]);
    }
    assert_eq!(cloud.logins(), 1);
}

#[actix_rt::test]
async fn nobody_waits_longer_for_a_slow_login_than_its_limit() {
    let cloud = Cloud::of_tokens();
    for _ in 0..2 {
        cloud.answer_login(|_, writer| {
            for byte in "HTTP/1.1 201 Created\r\nx-subject-token: token".chars() {
                if write(writer, &byte.to_string()) == Then::Close {
                    break;
                }
                thread::sleep(Duration::from_millis(300));
            }
            Then::Close
        });
    }
    let credentials = impatient(&cloud);
    let begun = Instant::now();
    let results = join_all((0..20).map(|_| lease(&credentials))).await;
    for result in results {
        assert_eq!(result.unwrap_err().kind, UpstreamErrorKind::Timeout);
    }
    assert!(begun.elapsed() < Duration::from_secs(5));
    // What was learned is told at once to whoever comes next, and forgotten soon.
    let error = lease(&credentials).await.unwrap_err();
    assert_eq!(
        (error.kind, cloud.logins()),
        (UpstreamErrorKind::Timeout, 1)
    );
    cloud.clock.forward(1);
    let error = lease(&credentials).await.unwrap_err();
    assert_eq!(
        (error.kind, cloud.logins()),
        (UpstreamErrorKind::Timeout, 2)
    );
    cloud.clock.forward(2);
    assert_eq!(text(&credentials).await, "token-2");
}

#[actix_rt::test]
async fn every_fault_of_the_token_service_is_remembered_and_served_meanwhile() {
    let cloud = Cloud::of_tokens();
    let credentials = cloud.credentials(&["p"]);
    let faults: [(Script, UpstreamErrorKind); 5] = [
        (
            |_, writer| answer(writer, 500, "", ""),
            UpstreamErrorKind::Unavailable,
        ),
        (
            |_, writer| answer(writer, 429, "", ""),
            UpstreamErrorKind::Throttled,
        ),
        (
            |_, writer| answer(writer, 200, "", "{}"),
            UpstreamErrorKind::Malformed,
        ),
        (
            |_, writer| write(writer, "HTTP/1.1 100 X\r\n\r\n"),
            UpstreamErrorKind::Malformed,
        ),
        (|_, _| Then::Close, UpstreamErrorKind::Unavailable),
    ];
    for (number, (script, kind)) in faults.into_iter().enumerate() {
        cloud.answer_login(script);
        for _ in 0..50 {
            assert_eq!(lease(&credentials).await.unwrap_err().kind, kind);
        }
        assert_eq!(cloud.logins(), number + 1);
        cloud.clock.forward(31);
    }
    text(&credentials).await;
}

#[actix_rt::test]
async fn a_token_that_is_refused_while_its_replacement_is_under_way_is_not_given_out() {
    let cloud = Cloud::of_tokens();
    let credentials = cloud.credentials(&["p"]);
    let old = lease(&credentials).await.unwrap();
    let error = refusal();
    let release = held(&cloud, |seen, writer, clock| {
        issue(seen, writer, clock.now())
    });
    cloud.clock.forward(24 * 3600 - 20 * 60);
    assert_eq!(text(&credentials).await, "token-0");
    until(async || cloud.logins() == 2).await;
    assert!(credentials.refused(&old, &oms(), &error));
    let waits = text(&credentials);
    tokio::pin!(waits);
    tokio::select! {
        biased;
        text = &mut waits => panic!("{text} was given out"),
        () = tokio::time::sleep(Duration::from_millis(20)) => {}
    }
    release.send(()).unwrap();
    assert_eq!(waits.await, "token-1");
    assert_eq!(cloud.logins(), 2);
}

#[actix_rt::test]
async fn a_token_that_ends_before_it_arrives_is_given_to_nobody() {
    // The machine sleeps during the login: the answer is read a day after it was written.
    let cloud = Cloud::of_tokens();
    let clock = cloud.clock.clone();
    cloud.answer_login(move |seen, writer| {
        let issued = clock.now();
        clock.forward(25 * 3600);
        issue(seen, writer, issued)
    });
    let credentials = cloud.credentials(&["p"]);
    let error = lease(&credentials).await.unwrap_err();
    assert_eq!(error.kind, UpstreamErrorKind::Unavailable);
    assert!(!format!("{error:?}").contains("token-0"));
    cloud.clock.forward(1);
    assert_eq!(text(&credentials).await, "token-1");
    assert_eq!(cloud.logins(), 2);
}

#[actix_rt::test]
async fn a_replacement_that_ends_before_it_arrives_is_given_to_nobody_either() {
    let cloud = Cloud::of_tokens();
    let credentials = cloud.credentials(&["p"]);
    text(&credentials).await;
    let clock = cloud.clock.clone();
    cloud.answer_login(move |seen, writer| {
        let issued = clock.now();
        clock.forward(24 * 3600);
        issue(seen, writer, issued)
    });
    cloud.clock.forward(24 * 3600 - 20 * 60);
    assert_eq!(text(&credentials).await, "token-0");
    until(async || cloud.logins() == 2).await;
    // By now both are over.
    until(async || lease(&credentials).await.is_err() || cloud.logins() == 3).await;
    cloud.clock.forward(2);
    assert_eq!(text(&credentials).await, "token-2");
}

#[actix_rt::test]
async fn a_clock_that_jumps_never_brings_a_dead_token_back() {
    let cloud = Cloud::of_tokens();
    let credentials = cloud.credentials(&["p"]);
    assert_eq!(text(&credentials).await, "token-0");
    // A leap forward ends it, and the leap back does not revive it, since another one took its
    // place.
    cloud.clock.forward(30 * 3600);
    assert_eq!(text(&credentials).await, "token-1");
    cloud.clock.forward(-30 * 3600);
    assert_eq!(text(&credentials).await, "token-1");
    assert_eq!(cloud.logins(), 2);
}

#[actix_rt::test]
async fn a_clock_that_is_wrong_for_good_does_not_lengthen_a_token() {
    // The token service lives a day behind, or ahead: what counts is the shorter of two lifetimes.
    for hours in [-20, 20] {
        let cloud = Cloud::of_tokens();
        let clock = cloud.clock.clone();
        cloud.answer_login(move |seen, writer| {
            issue(
                seen,
                writer,
                clock.now() + jiff::SignedDuration::from_hours(hours),
            )
        });
        let credentials = cloud.credentials(&["p"]);
        assert_eq!(text(&credentials).await, "token-0");
        let lives = if hours < 0 { 4 } else { 24 };
        cloud.clock.forward(lives * 3600 - 120);
        assert_eq!(text(&credentials).await, "token-0", "{hours}");
        until(async || cloud.logins() == 2).await;
        cloud.clock.forward(120);
        assert_ne!(text(&credentials).await, "token-0", "{hours}");
    }
}
