//! The keys of issuers of tokens.

use std::time::Instant;

use jsonwebtoken::Algorithm;

use super::*;
use crate::{
    domain::service::IssuerName,
    identity::{
        Algorithm as Allowed, IssuerSettings, KeySource,
        key_cache::{COOL_DOWN, KeyCache},
        key_set::KeySet,
    },
};

fn issuer(name: &str, file: &str) -> IssuerSettings {
    IssuerSettings {
        name: IssuerName::parse(name).unwrap(),
        issuer: format!("https://{name}.example.com"),
        audience: "gateway".to_owned(),
        keys: KeySource::File(file.into()),
        keys_max_age: Duration::from_mins(5),
        algorithms: vec![Allowed::EdDsa],
        caller_claim: "sub".to_owned(),
        groups_claim: "groups".to_owned(),
        groups: std::collections::BTreeMap::new(),
    }
}

fn keys(id: &str) -> Option<KeySet> {
    let text = format!(
        "{{\"keys\": [{{\"kty\": \"OKP\", \"crv\": \"Ed25519\", \"kid\": \"{id}\", \"x\": \"{}\"}}]}}",
        "A".repeat(43)
    );
    KeySet::parse(text.as_bytes())
}

#[test]
fn unknown_keys_cause_one_fetch_in_the_cool_down() {
    let cache = KeyCache::new(&issuer("corp", "keys.json"));
    let began = Instant::now();
    assert!(cache.want(began).is_some(), "the first fetch is waited for");
    cache.end(keys("one"), began);
    assert!(cache.want(began).is_some());
    assert!(cache.want(began).is_some(), "everybody waits for the same");
    cache.end(keys("one"), began);
    for after in [Duration::ZERO, COOL_DOWN / 2, COOL_DOWN.mul_f32(0.99)] {
        assert!(cache.want(began + after).is_none(), "{after:?}");
    }
    assert!(cache.want(began + COOL_DOWN).is_some());
    cache.end(None, began + COOL_DOWN);
    assert!(cache.want(began + COOL_DOWN.mul_f32(1.99)).is_none());
    assert!(cache.want(began + COOL_DOWN * 2).is_some());
}

#[test]
fn keys_stay_through_failed_fetches_until_they_are_too_old() {
    let cache = KeyCache::new(&issuer("corp", "keys.json"));
    let began = Instant::now();
    let find = |id, now| cache.find(Some(id), Algorithm::EdDSA, now).map(|_| ());
    assert_eq!(find("one", began), Err(Refusal::IssuerKeys));
    cache.end(keys("one"), began);
    let end = began + Duration::from_mins(5);
    cache.end(None, end);
    assert_eq!(find("one", end), Ok(()));
    assert_eq!(find("two", end), Err(Refusal::TokenKey));
    let late = end + Duration::from_millis(1);
    assert_eq!(find("one", late), Err(Refusal::IssuerKeys));
    assert!(!cache.is_usable(late));
    cache.end(keys("two"), late);
    assert_eq!(find("two", late), Ok(()));
    assert_eq!(find("one", late), Err(Refusal::TokenKey));
}

#[test]
fn a_change_of_the_settings_leaves_the_keys_of_an_issuer_that_stays() {
    let with = |issuers| Settings {
        issuers,
        ..settings(&[])
    };
    let before = Directory::new(
        &with(vec![
            issuer("stays", "a"),
            issuer("moves", "b"),
            issuer("goes", "c"),
        ]),
        None,
    );
    let after = Directory::new(
        &with(vec![
            issuer("comes", "d"),
            issuer("moves", "e"),
            issuer("stays", "a"),
        ]),
        Some(&before),
    );
    let (before, after) = (before.key_caches(), after.key_caches());
    assert!(Arc::ptr_eq(&before[0], &after[2]));
    let is_new = |cache: &Arc<KeyCache>| !before.iter().any(|old| Arc::ptr_eq(old, cache));
    assert!(is_new(&after[0]) && is_new(&after[1]));
}

#[test]
fn of_a_key_set_only_keys_for_signatures_are_taken() {
    let ed = format!(
        "\"kty\": \"OKP\", \"crv\": \"Ed25519\", \"x\": \"{}\"",
        "A".repeat(43)
    );
    let set = |members: &str| KeySet::parse(format!("{{\"keys\": [{members}]}}").as_bytes());
    for (key, is_taken) in [
        (format!("{{{ed}}}"), true),
        (
            format!("{{{ed}, \"use\": \"sig\", \"alg\": \"EdDSA\"}}"),
            true,
        ),
        (format!("{{{ed}, \"key_ops\": [\"verify\"]}}"), true),
        (format!("{{{ed}, \"use\": \"enc\"}}"), false),
        (format!("{{{ed}, \"use\": \"other\"}}"), false),
        (format!("{{{ed}, \"key_ops\": [\"sign\"]}}"), false),
        (format!("{{{ed}, \"alg\": \"RS256\"}}"), false),
        (format!("{{{ed}, \"alg\": \"HS256\"}}"), false),
        ("{\"kty\": \"oct\", \"k\": \"c2VjcmV0\"}".to_owned(), false),
        ("{\"kty\": \"RSA\", \"n\": \"AQAB\"}".to_owned(), false),
        (
            "{\"kty\": \"EC\", \"crv\": \"P-521\", \"x\": \"AA\", \"y\": \"AA\"}".to_owned(),
            false,
        ),
        ("{\"kty\": \"new\"}".to_owned(), false),
        ("7".to_owned(), false),
    ] {
        assert_eq!(!set(&key).unwrap().is_empty(), is_taken, "{key}");
        // What cannot be used does not spoil the rest.
        let both = set(&format!("{key}, {{{ed}, \"kid\": \"good\"}}")).unwrap();
        assert_eq!(both.find(Some("good"), Algorithm::EdDSA).len(), 1, "{key}");
    }
    for text in ["", "{}", "[]", "{\"keys\": {}}", "{\"keys\": [}"] {
        assert!(KeySet::parse(text.as_bytes()).is_none(), "{text}");
    }
    assert!(set("").unwrap().is_empty());
}

#[test]
fn so_many_keys_are_kept_and_so_many_of_one_name_are_tried() {
    let x = "A".repeat(43);
    let set = |ids: &[String]| {
        let keys: Vec<String> = ids
            .iter()
            .map(|id| {
                format!(
                    "{{\"kty\": \"OKP\", \"crv\": \"Ed25519\", \"kid\": \"{id}\", \"x\": \"{x}\"}}"
                )
            })
            .collect();
        let text = format!("{{\"keys\": [{}]}}", keys.join(", "));
        KeySet::parse(text.as_bytes()).unwrap()
    };
    let names: Vec<String> = (0..70).map(|number| number.to_string()).collect();
    assert_eq!(
        (set(&names[..64]).left_out(), set(&names).left_out()),
        (0, 6)
    );
    let same = vec!["same".to_owned(); 9];
    assert_eq!(set(&same).find(Some("same"), Algorithm::EdDSA).len(), 4);
    // Without a name nobody says which of them it is.
    assert!(set(&same).find(None, Algorithm::EdDSA).is_empty());
}

#[tokio::test]
async fn those_who_wait_for_one_issuer_leave_the_places_of_another() {
    let slow = KeyCache::new(&issuer("slow", "a"));
    let other = KeyCache::new(&issuer("other", "b"));
    let places: Vec<_> = (0..64)
        .map(|_| slow.waiting.try_acquire().unwrap())
        .collect();
    assert!(slow.waiting.try_acquire().is_err());
    assert!(other.waiting.try_acquire().is_ok());
    drop(places);
}
