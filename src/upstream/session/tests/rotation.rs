//! Keys that are replaced by others.

use super::{
    keys::{SignedBench, signed_by},
    *,
};

/// A bench whose vendor takes the keys of this number alone.
fn taking(accepted: &Arc<AtomicUsize>) -> SignedBench {
    let takes = Arc::clone(accepted);
    SignedBench::new(move |seen, writer| {
        if signed_by(seen, takes.load(Ordering::SeqCst)) {
            fine(seen, writer)
        } else {
            refuse(writer, "APIGW.0301")
        }
    })
}

/// Uses the first keys, and replaces them by the second before the vendor knows those.
async fn rotate_early(signed: &SignedBench, session: &Session) {
    session.exchange("show", &read(), None).await.unwrap();
    signed.write(2);
    signed.bench.credentials.look_at_secrets();
    tests::until(async || {
        session.exchange("show", &read(), None).await.unwrap();
        signed.seen().contains(&"2".to_owned())
    })
    .await;
}

#[actix_rt::test]
async fn a_rotation_costs_no_request_whichever_keys_the_vendor_takes() {
    let accepted = Arc::new(AtomicUsize::new(1));
    let signed = taking(&accepted);
    let session = signed.bench.session();
    rotate_early(&signed, &session).await;
    // It does.
    accepted.store(2, Ordering::SeqCst);
    signed.bench.cloud.clock.forward(2);
    session.exchange("show", &read(), None).await.unwrap();
    let seen = signed.seen();
    assert_eq!(seen[seen.len() - 2..], ["1", "2"], "{seen:?}");
    // And the file changes while nobody looks.
    signed.write(3);
    accepted.store(3, Ordering::SeqCst);
    session.exchange("pause", &change(), None).await.unwrap();
    let seen = signed.seen();
    assert_eq!(seen[seen.len() - 2..], ["2", "3"], "{seen:?}");
}

#[actix_rt::test]
async fn a_stray_refusal_in_a_rotation_costs_neither_a_request_nor_a_try_of_the_next_keys() {
    let accepted = Arc::new(AtomicUsize::new(1));
    let stray = Arc::new(AtomicUsize::new(0));
    let (takes, strays) = (Arc::clone(&accepted), Arc::clone(&stray));
    let signed = SignedBench::new(move |seen, writer| {
        let is_taken = signed_by(seen, takes.load(Ordering::SeqCst));
        let less = |left: usize| left.checked_sub(1);
        let (set, get) = (Ordering::SeqCst, Ordering::SeqCst);
        if is_taken && strays.fetch_update(set, get, less).is_err() {
            fine(seen, writer)
        } else {
            refuse(writer, "APIGW.0301")
        }
    });
    let session = signed.bench.session();
    rotate_early(&signed, &session).await;
    let fares = async |expected: &[&str]| {
        let before = signed.seen().len();
        session.exchange("show", &read(), None).await.unwrap();
        assert_eq!(signed.seen()[before..], *expected);
    };
    for _ in 0..3 {
        stray.store(1, Ordering::SeqCst);
        fares(&["1", "1"]).await;
        fares(&["1"]).await;
        signed.bench.cloud.clock.forward(20);
    }
    // Those that worked before are dead, and the vendor takes the next ones.
    accepted.store(2, Ordering::SeqCst);
    fares(&["1", "1", "2"]).await;
    fares(&["2"]).await;
}

#[actix_rt::test]
async fn keys_that_worked_are_tried_again_in_a_moment_when_those_after_them_rest() {
    let is_ill = Arc::new(AtomicBool::new(false));
    let ill = Arc::clone(&is_ill);
    let signed = SignedBench::new(move |seen, writer| {
        if signed_by(seen, 1) && !ill.load(Ordering::SeqCst) {
            fine(seen, writer)
        } else {
            refuse(writer, "APIGW.0301")
        }
    });
    let session = signed.bench.session();
    session.exchange("show", &read(), None).await.unwrap();
    signed.write(2);
    is_ill.store(true, Ordering::SeqCst);
    let fails = async || session.exchange("show", &read(), None).await.unwrap_err();
    for _ in 0..8 {
        fails().await;
        signed.bench.cloud.clock.forward(1);
    }
    let tried = signed.seen();
    let error = fails().await;
    assert_eq!(signed.seen(), tried);
    assert!(
        error.retry_after.unwrap() <= Duration::from_secs(30),
        "{error:?}"
    );
    assert!(
        tried.iter().filter(|key| *key == "2").count() <= 2,
        "{tried:?}"
    );
    is_ill.store(false, Ordering::SeqCst);
    signed.bench.cloud.clock.forward(30);
    session.exchange("show", &read(), None).await.unwrap();
    assert_eq!(signed.seen().last().unwrap(), "1");
}

#[actix_rt::test]
async fn a_service_that_knows_the_next_keys_later_than_another_costs_no_request() {
    let signed = SignedBench::new(|seen, writer| {
        if signed_by(seen, 1) {
            fine(seen, writer)
        } else {
            refuse(writer, "APIGW.0301")
        }
    });
    let knows = peer::Peer::start(fine);
    let oms = signed.bench.session();
    let sms = signed.bench.session_at("sms", knows.endpoint());
    oms.exchange("show", &read(), None).await.unwrap();
    signed.write(2);
    signed.bench.credentials.look_at_secrets();
    tests::until(async || {
        sms.exchange("show", &read(), None).await.unwrap();
        knows.seen().iter().any(|seen| signed_by(seen, 2))
    })
    .await;
    for _ in 0..10 {
        oms.exchange("show", &read(), None).await.unwrap();
        sms.exchange("show", &read(), None).await.unwrap();
        signed.bench.cloud.clock.forward(1);
    }
    assert_eq!(signed.seen()[..4], ["1", "2", "2", "1"]);
    assert_eq!(signed.seen().iter().filter(|key| *key == "2").count(), 2);
}

#[actix_rt::test]
async fn after_a_gap_between_two_pairs_of_keys_the_next_are_used_within_two_minutes() {
    let accepted = Arc::new(AtomicUsize::new(1));
    let signed = taking(&accepted);
    let session = signed.bench.session();
    let works = async || session.exchange("show", &read(), None).await.is_ok();
    assert!(works().await);
    signed.write(2);
    accepted.store(0, Ordering::SeqCst);
    for _ in 0..10 {
        assert!(!works().await);
        signed.bench.cloud.clock.forward(1);
    }
    accepted.store(2, Ordering::SeqCst);
    let mut waited = 0;
    while !works().await {
        signed.bench.cloud.clock.forward(1);
        waited += 1;
        assert!(waited < 120, "{:?}", signed.seen());
    }
}
