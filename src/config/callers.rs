//! Sections `access` and `callers`: who may ask, and for what.

use std::collections::HashMap;

use super::{
    fault::Faults,
    reader::Section,
    scope::{self, Known},
    values,
};
use crate::{
    api::KeyedCaller,
    domain::{
        access::{Caller, Scope},
        service::{CallerName, ProjectName, ServiceName},
    },
};

/// Everybody who may ask.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) anonymous: Caller,
    pub(super) callers: Vec<KeyedCaller>,
}

/// Sections `access` and `callers`; callers with faults are left out.
pub(super) fn read(root: &mut Section, known: &Known, faults: &mut Faults) -> Access {
    let mut access = root.section("access", faults);
    let permissions = access.optional("anonymous", faults, scope::permissions);
    access.finish(faults);
    let sections = scope::named_sections(root, "callers", CallerName::parse, faults);
    // Two callers with one key could not be told apart.
    let mut owners = HashMap::new();
    let mut callers = Vec::new();
    for (name, mut section) in sections {
        if name == CallerName::anonymous() {
            let message = "has the name of requests without credentials: choose another";
            section.fault(faults, message);
        }
        let key_sha256 = section.required("key_sha256", faults, |entry| {
            let digest = values::digest(entry)?;
            match owners.insert(digest, name.clone()) {
                Some(first) => Err(format!("is the same as that of callers.{first}")),
                None => Ok(digest),
            }
        });
        let caller = caller(name, section, known, faults);
        callers.extend(
            key_sha256
                .zip(caller)
                .map(|(key_sha256, caller)| KeyedCaller { key_sha256, caller }),
        );
    }
    Access {
        anonymous: Caller::anonymous(permissions.unwrap_or_default()),
        callers,
    }
}

fn caller(
    name: CallerName,
    mut section: Section,
    known: &Known,
    faults: &mut Faults,
) -> Option<Caller> {
    let permissions = section.required("permissions", faults, scope::permissions);
    let projects = section.required(
        "projects",
        faults,
        scope::scope(&known.projects, ProjectName::parse, "projects"),
    );
    let services = section.optional(
        "services",
        faults,
        scope::scope(&known.services, ServiceName::parse, "services"),
    );
    section.finish(faults);
    Some(Caller {
        name,
        permissions: permissions?,
        projects: projects?,
        services: services.unwrap_or(Scope::All),
    })
}
