//! Requests that chance has spoilt, in the thousands: none makes the gateway fail, and none lets in
//! who has no right to be.
//!
//! `FUZZ_CASES` says how many of each kind, `FUZZ_SEED` where chance begins; a case that fails is
//! shown with its seed.

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use crate::{
    support::{
        gateway::{Gateway, KEY, Place},
        issuer::{Issuer, SigningKey},
    },
    wire::answers,
};

/// What is enough to see that the target itself works.
const CASES: u64 = 1500;

/// What a request that is well formed, or is not, may be answered with. Nothing of it is the
/// gateway's or the cloud's fault.
const STATUSES: [u16; 12] = [200, 202, 307, 400, 401, 403, 404, 405, 409, 413, 422, 431];

/// Runs a check with a source of chance for each case.
#[expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "how many, and from where on, is said by whoever runs it; a case that fails must be found again"
)]
fn each_case(mut check: impl FnMut(&mut fastrand::Rng)) {
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse().ok());
    let first = number("FUZZ_SEED").unwrap_or(0);
    for seed in first..first + number("FUZZ_CASES").unwrap_or(CASES) {
        let mut random = fastrand::Rng::with_seed(seed);
        let run = catch_unwind(AssertUnwindSafe(|| check(&mut random)));
        if let Err(panic) = run {
            eprintln!("again with FUZZ_CASES=1 FUZZ_SEED={seed}");
            resume_unwind(panic);
        }
    }
}

fn any<'a>(random: &mut fastrand::Rng, choices: &[&'a str]) -> &'a str {
    choices[random.usize(..choices.len())]
}

/// Changes some bytes: others, none, one twice, a piece of itself.
fn spoil(random: &mut fastrand::Rng, bytes: &mut Vec<u8>, most: usize) {
    for _ in 0..random.usize(..=most) {
        let at = random.usize(..=bytes.len());
        match random.u8(..5) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
            1 if at < bytes.len() => _ = bytes.remove(at),
            2 => bytes.insert(at, random.u8(..)),
            3 => bytes.insert(
                at,
                any(
                    random,
                    &["%", "&", "=", "/", ".", "\0", "\r", "\n", " ", ","],
                )
                .as_bytes()[0],
            ),
            _ => {
                let end = (at + random.usize(..16)).min(bytes.len());
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
}

/// Sends a request and gives the statuses of all answers, which are those of a gateway that is
/// well.
fn ask(gateway: &Gateway, request: &[u8]) -> Vec<u16> {
    let answers = answers(gateway, request);
    for (status, _) in &answers {
        assert!(
            STATUSES.contains(status),
            "{:?} is answered with {answers:?}",
            String::from_utf8_lossy(request)
        );
    }
    answers.into_iter().map(|(status, _)| status).collect()
}

#[test]
fn whatever_stands_in_a_path_and_a_query_is_answered() {
    let place = Place::new();
    let gateway = place.start();
    each_case(|random| {
        let method = any(
            random,
            &["GET", "GET", "GET", "POST", "DELETE", "HEAD", "PUT"],
        );
        let path = any(
            random,
            &[
                "/tasks",
                "/tasks/191297407830872",
                "/tasks/7/pause",
                "/tasks/7/start",
                "/operations",
                "/operations/op_01JGZ4K8W3M5N7P9R1T3V5X7Z9",
                "/operations/op_01JGZ4K8W3M5N7P9R1T3V5X7Z9/cancel",
                "/whoami",
                "/status",
                "/problems/internal",
                "/docs/",
                "/readyz",
            ],
        );
        let mut target = path.to_owned();
        for position in 0..random.usize(..4) {
            target.push(if position == 0 { '?' } else { '&' });
            target.push_str(any(
                random,
                &[
                    "service=oms",
                    "service=sms",
                    "project=default",
                    "force=pause",
                    "dry_run=true",
                    "limit=10",
                    "state=running,paused",
                    "name=a%20b",
                    "page_token=eyJzZXJ2aWNlIjoib21zIn0",
                    "status=failed",
                    "kind=delete",
                    "task=7",
                    "x=%ff",
                    "limit=99999999999999999999",
                    "=&=",
                ],
            ));
        }
        let mut target = target.into_bytes();
        spoil(random, &mut target, 6);
        let mut request = format!("{method} ").into_bytes();
        request.extend(target);
        let prefer = any(
            random,
            &[
                "wait=0",
                "respond-async",
                "wait=\"0\"; a=b",
                "wait=,",
                "\u{fc}",
            ],
        );
        let rest = format!(
            " HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {KEY}\r\nPrefer: {prefer}\r\nConnection: close\r\n\r\n"
        );
        request.extend(rest.as_bytes());
        ask(&gateway, &request);
    });
    assert_eq!(gateway.stranger().get("/readyz").status, 200);
}

#[test]
fn whatever_stands_in_the_credentials_lets_in_only_who_may() {
    let key = SigningKey::elliptic("first");
    let issuer = Issuer::with(&[&key]);
    let place = Place::new().add(&issuer.section("corp", ""));
    let gateway = place.start();
    let token = issuer.token(&key, "alice", &[]);
    // The token is good, so that it is the change that is refused.
    let whoami = |credentials: &[u8]| {
        let mut request = b"GET /whoami HTTP/1.1\r\nHost: gateway\r\nAuthorization: ".to_vec();
        request.extend(credentials);
        request.extend(b"\r\nConnection: close\r\n\r\n");
        ask(&gateway, &request)
    };
    let is_good = |credentials: &[u8]| {
        let text = String::from_utf8_lossy(credentials);
        let (scheme, credential) = text.trim().split_once(' ').unwrap_or_default();
        scheme.eq_ignore_ascii_case("bearer") && [KEY, &token].contains(&credential.trim())
    };
    for credentials in [format!("Bearer {KEY}"), format!("Bearer {token}")] {
        assert_eq!(whoami(credentials.as_bytes()), [200], "{credentials}");
    }
    each_case(|random| {
        let credential = any(random, &[KEY, &token, &token, "a.b.c", ""]);
        let scheme = any(random, &["Bearer ", "bearer ", "BEARER  ", "Basic ", ""]);
        let mut credentials = format!("{scheme}{credential}").into_bytes();
        spoil(random, &mut credentials, 4);
        let statuses = whoami(&credentials);
        let is_one_line = !credentials.iter().any(|byte| b"\r\n\0".contains(byte));
        assert!(
            !statuses.contains(&200) || is_good(&credentials) || !is_one_line,
            "{:?} is let in",
            String::from_utf8_lossy(&credentials)
        );
    });
    assert_eq!(gateway.stranger().get("/readyz").status, 200);
}
