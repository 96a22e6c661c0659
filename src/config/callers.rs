//! Sections `access` and `callers`: who may ask, and for what.

use std::collections::HashMap;

use super::{
    fault::{Faults, Origin},
    issuers,
    reader::{Entry, Section},
    scope::{self, Known},
    values::{self, Reading},
};
use crate::{
    domain::{access::Caller, service::CallerName},
    identity::{ConfiguredCaller, Key, Settings},
};

/// Whose a digest or the name in a certificate is. Two callers with the same could not be told
/// apart.
#[derive(Default)]
struct Owners {
    digests: HashMap<[u8; 32], CallerName>,
    certificates: HashMap<String, CallerName>,
    asks_for_certificates: bool,
}

/// Sections `access`, `callers` and `issuers`; callers and issuers with faults are left out.
/// Certificates of callers are of no use where nobody asks for them.
pub(super) fn read(
    root: &mut Section,
    known: &Known,
    asks_for_certificates: bool,
    faults: &mut Faults,
) -> Settings {
    let mut access = root.section("access", faults);
    let permissions = access.optional("anonymous", faults, scope::permissions);
    access.finish(faults);
    let sections = scope::named_sections(root, "callers", CallerName::configured, faults);
    let mut owners = Owners {
        asks_for_certificates,
        ..Owners::default()
    };
    let mut callers = Vec::new();
    for (name, section) in sections {
        if name == CallerName::anonymous() {
            let message = "has the name of requests without credentials: choose another";
            section.fault(faults, message);
        }
        callers.extend(caller(&name, section, (known, &mut owners), faults));
    }
    Settings {
        anonymous: Caller::anonymous(permissions.unwrap_or_default()),
        callers,
        issuers: issuers::read(root, known, faults),
    }
}

fn caller(
    name: &CallerName,
    mut section: Section,
    (known, owners): (&Known, &mut Owners),
    faults: &mut Faults,
) -> Option<ConfiguredCaller> {
    let mut fresh = |entry: &Entry| {
        let sha256 = values::digest(entry)?;
        match owners.digests.insert(sha256, name.clone()) {
            Some(first) => Err(format!("is the same as that of callers.{first}")),
            None => Ok(sha256),
        }
    };
    let mut keys = Vec::new();
    let single = section.take("key_sha256");
    let several = section.take("keys");
    let certificate = section.take("certificate");
    if single.is_none() && several.is_none() && certificate.is_none() {
        faults.push(
            section.name("key_sha256"),
            Origin::File,
            "is required where there is neither a list `keys` nor a `certificate`",
        );
    }
    if let Some(entry) = single {
        let sha256 = fresh(&entry);
        let sha256 = faults.keep(&entry, sha256);
        keys.extend(sha256.map(|sha256| Key {
            sha256,
            expires: None,
        }));
    }
    for mut key in several
        .and_then(|entry| entry.into_sections(faults))
        .unwrap_or_default()
    {
        let sha256 = key.required("sha256", faults, &mut fresh);
        let expires = key.optional("expires", faults, timestamp);
        key.finish(faults);
        keys.extend(sha256.map(|sha256| Key { sha256, expires }));
    }
    let certificate = certificate.and_then(|entry| {
        let mine = subject(&entry).and_then(|text| {
            if !owners.asks_for_certificates {
                return Err("is of use only with server.tls.client_ca".to_owned());
            }
            match owners.certificates.insert(text.clone(), name.clone()) {
                Some(first) => Err(format!("is the same as that of callers.{first}")),
                None => Ok(text),
            }
        });
        faults.keep(&entry, mine)
    });
    let grant = scope::grant(&mut section, known, faults);
    section.finish(faults);
    Some(ConfiguredCaller {
        caller: Caller {
            name: name.clone(),
            grants: vec![grant?],
        },
        keys,
        certificate,
    })
}

/// An alternative name of the kinds DNS and URI, which certificates have in ASCII.
fn subject(entry: &Entry) -> Reading<String> {
    let is_name =
        |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    let name = entry.text().filter(is_name).map(str::to_owned);
    name.ok_or_else(|| {
        "must be the DNS name or the URI of a certificate, such as \"team-a.example.com\""
            .to_owned()
    })
}

fn timestamp(entry: &Entry) -> Reading<jiff::Timestamp> {
    entry
        .text()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| "must be a time with a zone, such as \"2026-12-31T00:00:00Z\"".to_owned())
}
