//! Refusals that meet each other, or whose request is given up.

use std::future::pending;

use futures_util::FutureExt as _;
use moka::ops::compute::Op;

use super::{
    keys::{Bench, key},
    *,
};

/// Keys that work, and those after them that are being tried.
async fn tried_beside_others(bench: &Bench) -> (Credentials, [Credential; 2]) {
    let credentials = bench.credentials_of(&["p"]);
    let first = lease(&credentials).await.unwrap();
    credentials.worked(&first, &oms());
    bench.write("AK2", "second-secret");
    credentials.look_at_secrets();
    until(async || key(&credentials).await == "AK2").await;
    let second = lease(&credentials).await.unwrap();
    let both = [first.clone(), second.clone()];
    (credentials, both)
}

#[actix_rt::test]
async fn refused_keys_that_come_back_are_given_to_nobody() {
    let bench = Bench::new();
    let (credentials, [first, _]) = tried_beside_others(&bench).await;
    // What another thread brings back that saw them good a moment ago.
    credentials.refused(&first, &oms(), &refusal());
    credentials.vault.cache.insert(project(), first).await;
    assert!(credentials.lease_now(&project(), &oms()).await.is_none());
    assert!(credentials.vault.at_hand(&project()).is_none());
    bench.write("AK3", "third-secret");
    assert_eq!(key(&credentials).await, "AK3");
}

#[actix_rt::test]
async fn keys_are_removed_although_nobody_waits_for_it() {
    let bench = Bench::new();
    let (credentials, [_, second]) = tried_beside_others(&bench).await;
    let project = project();
    // Somebody else is at work on the entry.
    let entry = credentials.vault.cache.entry_by_ref(&project);
    let busy = entry.and_compute_with(async |_| pending::<Op<Credential>>().await);
    let mut busy = Box::pin(busy);
    assert!((&mut busy).now_or_never().is_none());
    credentials.refused(&second, &oms(), &refusal());
    assert!(credentials.lease_now(&project, &oms()).await.is_none());
    drop(busy);
    assert_eq!(key(&credentials).await, "AK1");
}
