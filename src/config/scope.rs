//! Lists of names that are defined elsewhere in the configuration, and `*` for all of them.

use std::collections::BTreeSet;

use super::{
    fault::Faults,
    reader::{Entry, Section},
    values::Reading,
};
use crate::domain::{
    access::{Grant, NamePattern, Permission, Scope},
    service::{CallerName, IssuerName, ProjectName, ServiceName},
};

/// The names that lists may hold.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) projects: BTreeSet<ProjectName>,
    pub(super) services: BTreeSet<ServiceName>,
    pub(super) callers: BTreeSet<CallerName>,
    pub(super) issuers: BTreeSet<IssuerName>,
}

impl Known {
    /// Reads the name of a configured caller, or of one whom a configured issuer may name.
    fn caller(&self, text: &str) -> Option<CallerName> {
        let name = CallerName::parse(text)?;
        let is_of_issuer = text
            .split_once(':')
            .and_then(|(issuer, _)| IssuerName::parse(issuer))
            .is_some_and(|issuer| self.issuers.contains(&issuer));
        (is_of_issuer || self.callers.contains(&name)).then_some(name)
    }
}

/// Reads a list of callers, or `["*"]`.
pub(super) fn callers(known: &Known) -> impl Fn(&Entry) -> Reading<Scope<CallerName>> {
    move |entry| {
        all_or_only(entry, |text| known.caller(text)).ok_or_else(|| {
            "must list at least one of the callers, or of those of an issuer as \"ISSUER:claim\", \
             and nothing else, or be [\"*\"] for all"
                .to_owned()
        })
    }
}

/// Reads a list of patterns for names of tasks, or `["*"]`.
pub(super) fn patterns(entry: &Entry) -> Reading<Scope<NamePattern>> {
    all_or_only(entry, NamePattern::parse).ok_or_else(|| {
        "must list at least one pattern such as \"logs-*\", each of 1 to 255 bytes, \
         or be [\"*\"] for all"
            .to_owned()
    })
}

/// Everything for `["*"]`, else what is listed.
fn all_or_only<T: Ord>(entry: &Entry, parse: impl Fn(&str) -> Option<T>) -> Option<Scope<T>> {
    match entry.list().as_deref() {
        Some(["*"]) => Some(Scope::All),
        Some(_) | None => listed(entry, parse).map(Scope::Only),
    }
}

/// What is listed. `None` if that is nothing, or if something in the list cannot be read.
fn listed<T: Ord>(entry: &Entry, parse: impl Fn(&str) -> Option<T>) -> Option<BTreeSet<T>> {
    let list = entry.list().filter(|list| !list.is_empty())?;
    list.into_iter().map(parse).collect()
}

/// Takes out what is granted together. `None` only after a fault was recorded.
pub(super) fn grant(section: &mut Section, known: &Known, faults: &mut Faults) -> Option<Grant> {
    let granted = section.required("permissions", faults, permissions);
    let projects = section.required(
        "projects",
        faults,
        scope(&known.projects, ProjectName::parse, "projects"),
    );
    let services = section.optional(
        "services",
        faults,
        scope(&known.services, ServiceName::parse, "services"),
    );
    let tasks = section.optional("tasks", faults, patterns);
    Some(Grant {
        place: section.full_name().to_owned(),
        permissions: granted?,
        projects: projects?,
        services: services.unwrap_or(Scope::All),
        tasks: tasks.unwrap_or(Scope::All),
    })
}

/// Reads a list of known names, or `["*"]`. `what` says in the plural what is listed.
pub(super) fn scope<T: Ord + Clone>(
    known: &BTreeSet<T>,
    parse: fn(&str) -> Option<T>,
    what: &str,
) -> impl Fn(&Entry) -> Reading<Scope<T>> {
    move |entry| {
        all_or_only(entry, |text| known_name(known, parse, text)).ok_or_else(|| {
            format!("must list at least one of the {what}, and nothing else, or be [\"*\"] for all")
        })
    }
}

/// Reads a list of known names that is not empty. `what` says in the plural what is listed.
pub(super) fn names<T: Ord + Clone>(
    known: &BTreeSet<T>,
    parse: fn(&str) -> Option<T>,
    what: &str,
) -> impl Fn(&Entry) -> Reading<BTreeSet<T>> {
    move |entry| {
        listed(entry, |text| known_name(known, parse, text))
            .ok_or_else(|| format!("must list at least one of the {what}, and nothing else"))
    }
}

fn known_name<T: Ord>(known: &BTreeSet<T>, parse: fn(&str) -> Option<T>, text: &str) -> Option<T> {
    parse(text).filter(|name| known.contains(name))
}

/// Reads a list of permissions; `*` stands for all but `operations:read-all`. It may be empty.
pub(super) fn permissions(entry: &Entry) -> Reading<BTreeSet<Permission>> {
    let list = entry.list().ok_or_else(wanted_permissions)?;
    let mut permissions = BTreeSet::new();
    for name in list {
        if name == "*" {
            permissions.extend(Permission::wildcard());
        } else {
            permissions.insert(Permission::parse(name).ok_or_else(wanted_permissions)?);
        }
    }
    Ok(permissions)
}

fn wanted_permissions() -> String {
    let names: Vec<&str> = Permission::ALL.iter().map(|known| known.as_str()).collect();
    format!("must be a list of \"*\" or of {}", names.join(", "))
}

/// Takes out a table of named tables. An entry with another kind of name, or that is no table,
/// becomes a fault and is left out.
pub(super) fn named_sections<T>(
    root: &mut Section,
    key: &str,
    parse: fn(&str) -> Option<T>,
    faults: &mut Faults,
) -> Vec<(T, Section)> {
    let mut sections = Vec::new();
    for (name, entry) in root.section(key, faults).take_all() {
        match parse(&name) {
            Some(name) => sections.extend(entry.into_section(faults).map(|table| (name, table))),
            None => faults.add(
                &entry,
                "has a name with other characters than a-z, 0-9 and -",
            ),
        }
    }
    sections
}

/// The well-formed names in a table of named tables, which stays where it is: they are known even
/// where what they stand for has faults.
pub(super) fn declared<T: Ord>(
    root: &Section,
    key: &str,
    parse: fn(&str) -> Option<T>,
) -> BTreeSet<T> {
    root.keys_of(key).into_iter().filter_map(parse).collect()
}
