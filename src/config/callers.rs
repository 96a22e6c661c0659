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

/// Whose a digest is. Two callers with one key could not be told apart.
type Owners = HashMap<[u8; 32], CallerName>;

/// Sections `access`, `callers` and `issuers`; callers and issuers with faults are left out.
pub(super) fn read(root: &mut Section, known: &Known, faults: &mut Faults) -> Settings {
    let mut access = root.section("access", faults);
    let permissions = access.optional("anonymous", faults, scope::permissions);
    access.finish(faults);
    let sections = scope::named_sections(root, "callers", CallerName::configured, faults);
    let mut owners = Owners::new();
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
        match owners.insert(sha256, name.clone()) {
            Some(first) => Err(format!("is the same as that of callers.{first}")),
            None => Ok(sha256),
        }
    };
    let mut keys = Vec::new();
    let single = section.take("key_sha256");
    let several = section.take("keys");
    if single.is_none() && several.is_none() {
        faults.push(
            section.name("key_sha256"),
            Origin::File,
            "is required where there is no list `keys`",
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
    let grant = scope::grant(&mut section, known, faults);
    section.finish(faults);
    Some(ConfiguredCaller {
        caller: Caller {
            name: name.clone(),
            grants: vec![grant?],
        },
        keys,
    })
}

fn timestamp(entry: &Entry) -> Reading<jiff::Timestamp> {
    entry
        .text()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| "must be a time with a zone, such as \"2026-12-31T00:00:00Z\"".to_owned())
}
