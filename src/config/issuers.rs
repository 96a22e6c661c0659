//! Section `issuers`: whose tokens are taken, and what they allow.

use std::{collections::BTreeMap, time::Duration};

use super::{
    fault::Faults,
    reader::{Entry, Section},
    scope::{self, Known},
    values::{self, Reading},
};
use crate::{
    domain::{access::Grant, service::IssuerName},
    identity::{Algorithm, IssuerSettings, KeySource},
};

/// Section `issuers`: those without faults.
pub(super) fn read(root: &mut Section, known: &Known, faults: &mut Faults) -> Vec<IssuerSettings> {
    let mut names: BTreeMap<String, IssuerName> = BTreeMap::new();
    let mut issuers = Vec::new();
    for (name, mut section) in scope::named_sections(root, "issuers", IssuerName::parse, faults) {
        // A token says its issuer only, so that it could not be told whose it is.
        let issuer = section.required("issuer", faults, |entry| {
            let text = values::text(entry)?;
            match names.insert(text.clone(), name.clone()) {
                Some(first) => Err(format!("is the same as that of issuers.{first}")),
                None => Ok(text),
            }
        });
        issuers.extend(settings(name, issuer, section, known, faults));
    }
    issuers
}

fn settings(
    name: IssuerName,
    issuer: Option<String>,
    mut section: Section,
    known: &Known,
    faults: &mut Faults,
) -> Option<IssuerSettings> {
    let audience = section.required("audience", faults, values::text);
    let keys = key_source(&mut section, faults);
    let keys_max_age = section.optional(
        "jwks_max_age",
        faults,
        values::duration(Duration::from_secs(1), Duration::from_hours(24 * 30)),
    );
    let algorithms = section.optional("algorithms", faults, algorithms);
    let caller_claim = section.optional("caller_claim", faults, values::text);
    let groups_claim = section.optional("groups_claim", faults, values::text);
    let groups = groups(&mut section, known, faults);
    section.finish(faults);
    Some(IssuerSettings {
        name,
        issuer: issuer?,
        audience: audience?,
        keys: keys?,
        keys_max_age: keys_max_age.unwrap_or(Duration::from_hours(24)),
        algorithms: algorithms.unwrap_or_else(|| vec![Algorithm::Rs256, Algorithm::Es256]),
        caller_claim: caller_claim.unwrap_or_else(|| "sub".to_owned()),
        groups_claim: groups_claim.unwrap_or_else(|| "groups".to_owned()),
        groups,
    })
}

/// `jwks`: an address, or `{ file = "PATH" }`. `None` only after a fault was recorded.
fn key_source(section: &mut Section, faults: &mut Faults) -> Option<KeySource> {
    let entry = section.required_entry("jwks", faults)?;
    if !entry.is_table() {
        let url = entry.text().map(KeySource::parse_url);
        let source = match url {
            Some(Ok(source)) => Ok(source),
            Some(Err(error)) => Err(format!("is no address of a key set: {error}")),
            None => Err("must be an address, or { file = \"PATH\" }".to_owned()),
        };
        return faults.keep(&entry, source);
    }
    let mut table = entry.into_section(faults)?;
    let path = table.required("file", faults, values::text);
    table.finish(faults);
    path.map(|path| KeySource::File(path.into()))
}

fn algorithms(entry: &Entry) -> Reading<Vec<Algorithm>> {
    let names: Vec<&str> = Algorithm::ALL.iter().map(|known| known.as_str()).collect();
    entry
        .list()
        .filter(|list| !list.is_empty())
        .and_then(|list| list.into_iter().map(Algorithm::parse).collect())
        .ok_or_else(|| {
            format!(
                "must list at least one of {}: algorithms with a shared secret are not taken",
                names.join(", ")
            )
        })
}

/// What members of groups may do. The names of groups are the issuer's own, and may be any text.
fn groups(section: &mut Section, known: &Known, faults: &mut Faults) -> BTreeMap<String, Grant> {
    let mut groups = BTreeMap::new();
    for (name, entry) in section.section("groups", faults).take_all() {
        let Some(mut section) = entry.into_section(faults) else {
            continue;
        };
        let grant = scope::grant(&mut section, known, faults);
        section.finish(faults);
        groups.extend(grant.map(|grant| (name, grant)));
    }
    groups
}
