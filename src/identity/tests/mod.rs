//! Who is found, on a clock that the test sets.

mod key_caches;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

use super::{
    ConfiguredCaller, Credentials, Identity, Key, Method, PeerCertificate, Refusal, Settings,
    directory::{Directory, Failure},
};
use crate::domain::{
    access::{Caller, Grant, Permission, Scope},
    service::CallerName,
};

fn moment(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn key(text: &str, expires: Option<&str>) -> Key {
    Key {
        sha256: Sha256::digest(text.as_bytes()).into(),
        expires: expires.map(moment),
    }
}

fn configured(name: &str, keys: Vec<Key>, certificate: Option<&str>) -> ConfiguredCaller {
    let grant = Grant {
        place: format!("callers.{name}"),
        permissions: Permission::wildcard(),
        projects: Scope::All,
        services: Scope::All,
        tasks: Scope::All,
    };
    ConfiguredCaller {
        caller: Caller {
            name: CallerName::configured(name).unwrap(),
            grants: vec![grant],
        },
        keys,
        certificate: certificate.map(str::to_owned),
    }
}

/// A certificate with these names that is trusted, and ends with the year 2026.
fn certificate(names: &[String]) -> PeerCertificate<'_> {
    PeerCertificate {
        names,
        expires_at: moment("2027-01-01T00:00:00Z"),
        is_trusted: true,
    }
}

fn settings(anonymous: &[Permission]) -> Settings {
    let ends = Some("2026-12-31T00:00:00Z");
    Settings {
        anonymous: Caller::anonymous(anonymous.iter().copied().collect::<BTreeSet<_>>()),
        callers: vec![
            configured(
                "team-a",
                vec![key("old", ends), key("new", None)],
                Some("team-a.example.com"),
            ),
            configured(
                "team-b",
                vec![key("b", None)],
                Some("spiffe://example.com/team-b"),
            ),
        ],
        issuers: Vec::new(),
    }
}

/// Who that is, how, and until when; or why nobody.
fn identify(
    settings: &Settings,
    headers: &[&str],
    names: Option<&[&str]>,
    now: &str,
) -> Result<(String, Method, Option<String>), Refusal> {
    let names = names.map(|names| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    });
    let credentials = Credentials {
        authorization: headers.iter().map(|header| header.as_bytes()).collect(),
        certificate: names.as_deref().map(certificate),
    };
    let found = Directory::new(settings, None).identify(&credentials, moment(now));
    let shown = |identity: Identity| {
        let end = identity.expires_at.map(|end| end.to_string());
        (identity.caller.name.to_string(), identity.method, end)
    };
    match found {
        Ok(identity) => Ok(shown(identity)),
        Err(
            Failure::Refused(refusal)
            | Failure::NoKey {
                reason: refusal, ..
            },
        ) => Err(refusal),
    }
}

#[test]
fn a_key_is_known_until_the_moment_it_ends_and_another_beside_it_goes_on() {
    let settings = settings(&[]);
    let with = |key: &str, now: &str| identify(&settings, &[&format!("Bearer {key}")], None, now);
    let end = Some("2026-12-31T00:00:00Z".to_owned());
    let found = ("team-a".to_owned(), Method::Key, end);
    assert_eq!(with("old", "2026-12-30T23:59:59.999Z"), Ok(found));
    assert_eq!(with("old", "2026-12-31T00:00:00Z"), Err(Refusal::Unknown));
    assert_eq!(with("old", "2030-01-01T00:00:00Z"), Err(Refusal::Unknown));
    for now in ["2026-12-30T00:00:00Z", "2030-01-01T00:00:00Z"] {
        let found = ("team-a".to_owned(), Method::Key, None);
        assert_eq!(with("new", now), Ok(found));
    }
    assert_eq!(with("ne", "2026-01-01T00:00:00Z"), Err(Refusal::Unknown));
    // Without issuers nothing is taken for a token.
    assert_eq!(with("a.b.c", "2026-01-01T00:00:00Z"), Err(Refusal::Unknown));
}

#[test]
fn a_key_is_compared_as_it_was_sent_but_for_the_blanks_around_it() {
    let settings = settings(&[]);
    let with = |value: &str| {
        identify(&settings, &[value], None, "2026-06-01T00:00:00Z").map(|found| found.0)
    };
    for good in ["Bearer new", "bEARER new", "Bearer   new", "Bearer new \t"] {
        assert_eq!(with(good), Ok("team-a".to_owned()), "{good:?}");
    }
    for bad in [
        "Bearer \u{a0}new",
        "Bearer new\u{a0}",
        "Bearer new\u{2003}",
        "Bearer \u{3000}new",
        "Bearer\u{a0}new",
        "Bearer new\u{85}",
        "Bearer new\u{feff}",
        "Bearer new\u{c}",
        "Bearer \tnew",
        "Bearer\tnew",
        "Bearer",
        "Bearer ",
        "Bearer  ",
        "Bearer new x",
    ] {
        assert_eq!(with(bad), Err(Refusal::Unknown), "{bad:?}");
    }
}

#[test]
fn a_certificate_names_the_caller_whose_name_is_exactly_one_of_its() {
    let settings = settings(&[Permission::TasksRead]);
    let now = "2026-06-01T00:00:00Z";
    let with = |names: &[&str]| identify(&settings, &[], Some(names), now);
    let end = Some("2027-01-01T00:00:00Z".to_owned());
    let found = |name: &str| Ok((name.to_owned(), Method::Certificate, end.clone()));
    assert_eq!(with(&["team-a.example.com"]), found("team-a"));
    assert_eq!(with(&["x", "spiffe://example.com/team-b"]), found("team-b"));
    for name in [
        "team-a.example.com.evil.example",
        "x.team-a.example.com",
        "TEAM-A.example.com",
        "team-a.example.com.",
        "*.example.com",
        "spiffe://example.com/team-b/",
        "spiffe://example.com/team",
        "",
    ] {
        // A credential that is not known does not become none, although requests without any are
        // let in.
        assert_eq!(with(&[name]), Err(Refusal::Certificate), "{name}");
    }
    assert_eq!(with(&[]), Err(Refusal::Certificate));
    let two = with(&["team-a.example.com", "spiffe://example.com/team-b"]);
    assert_eq!(two, Err(Refusal::Several));
}

#[test]
fn a_certificate_counts_until_it_ends_and_as_long_as_its_authority_is_trusted() {
    let settings = settings(&[Permission::TasksRead]);
    let with = |now| identify(&settings, &[], Some(&["team-a.example.com"]), now);
    let method = with("2026-12-31T23:59:59.999Z").map(|found| found.1);
    assert_eq!(method, Ok(Method::Certificate));
    assert_eq!(
        with("2027-01-01T00:00:00Z"),
        Err(Refusal::CertificateExpired)
    );
    let names = ["team-a.example.com".to_owned()];
    let untrusted = PeerCertificate {
        is_trusted: false,
        ..certificate(&names)
    };
    let credentials = Credentials {
        certificate: Some(untrusted),
        ..Credentials::default()
    };
    let found =
        Directory::new(&settings, None).identify(&credentials, moment("2026-06-01T00:00:00Z"));
    assert!(matches!(
        found,
        Err(Failure::Refused(Refusal::CertificateUntrusted))
    ));
}

#[test]
fn two_credentials_are_refused_whatever_they_are() {
    let settings = settings(&[Permission::TasksRead]);
    let now = "2026-06-01T00:00:00Z";
    let named: &[&str] = &["team-a.example.com"];
    let unknown: &[&str] = &["nobody.example.com"];
    let two = ["Bearer new", "Bearer new"];
    for (headers, names) in [
        (&two[..], None),
        (&two, Some(named)),
        (&two, Some(unknown)),
        (&["Bearer new"], Some(named)),
        (&["Bearer wrong"], Some(named)),
        (&[""], Some(named)),
        (&["Bearer new"], Some(unknown)),
    ] {
        let found = identify(&settings, headers, names, now);
        assert_eq!(found, Err(Refusal::Several), "{headers:?} {names:?}");
    }
}

#[test]
fn whoever_brings_nothing_is_let_in_only_if_something_is_granted() {
    let now = "2026-06-01T00:00:00Z";
    let found = identify(&settings(&[]), &[], None, now);
    assert_eq!(found, Err(Refusal::Missing));
    let found = identify(&settings(&[Permission::TasksRead]), &[], None, now);
    let anonymous = ("anonymous".to_owned(), Method::Anonymous, None);
    assert_eq!(found, Ok(anonymous));
}
