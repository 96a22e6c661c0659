//! Sections `projects` and `storage_credentials`.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    address,
    fault::{Faults, Origin},
    reader::{Entry, Section},
    scope::{self, Known},
    secrets,
    values::{self, Reading},
};
use crate::{
    domain::{
        access::StorageGrant,
        secret::SecretForm,
        service::{CredentialName, ProjectName, ServiceName},
    },
    upstream::{
        self, AccessKeySource, CredentialSettings, ProjectSettings, StorageCredentialSettings,
    },
};

/// Section `projects`: those without faults.
pub(super) fn read(
    root: &mut Section,
    known: &Known,
    faults: &mut Faults,
) -> BTreeMap<ProjectName, ProjectSettings> {
    if known.projects.is_empty() {
        faults.push("projects", Origin::File, "must have at least one project");
    }
    scope::named_sections(root, "projects", ProjectName::parse, faults)
        .into_iter()
        .filter_map(|(name, section)| Some((name, project(section, known, faults)?)))
        .collect()
}

fn project(mut section: Section, known: &Known, faults: &mut Faults) -> Option<ProjectSettings> {
    let project_id = section.required("project_id", faults, project_id);
    let region = section.required("region", faults, region);
    let services = section
        .optional(
            "services",
            faults,
            scope::names(&known.services, ServiceName::parse, "services"),
        )
        .unwrap_or_else(|| known.services.clone());
    let credentials = credentials(&mut section, faults);
    // While the region has a fault, any other serves to find the faults of the addresses.
    let defaults_of = region.as_deref().unwrap_or("cn-north-4");
    let endpoints = endpoints(&mut section, defaults_of, &services, faults);
    section.finish(faults);
    let (iam_endpoint, endpoints) = endpoints?;
    Some(ProjectSettings {
        project_id: project_id?,
        region: region?,
        services,
        iam_endpoint,
        endpoints,
        credentials: credentials?,
    })
}

fn project_id(entry: &Entry) -> Reading<String> {
    entry
        .text()
        .filter(|text| text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .map(str::to_owned)
        .ok_or_else(|| "must be the cloud's id of the project: 32 digits of hex".to_owned())
}

fn region(entry: &Entry) -> Reading<String> {
    entry
        .text()
        .filter(|text| upstream::is_region(text))
        .map(str::to_owned)
        .ok_or_else(|| "must be a region such as \"cn-north-4\"".to_owned())
}

/// The addresses of the token service and of every offered service. `None` only after a fault was
/// recorded.
fn endpoints(
    project: &mut Section,
    region: &str,
    services: &BTreeSet<ServiceName>,
    faults: &mut Faults,
) -> Option<(String, BTreeMap<ServiceName, String>)> {
    let mut section = project.section("endpoints", faults);
    let iam = endpoint(
        &mut section,
        "iam",
        upstream::default_iam_endpoint(region),
        faults,
    );
    let mut addresses = BTreeMap::new();
    for service in upstream::catalogue()
        .into_iter()
        .map(|service| service.name)
    {
        let key = service.as_str();
        if services.contains(&service) {
            let default = upstream::default_endpoint(&service, region);
            let address = endpoint(&mut section, key, default, faults);
            addresses.extend(address.map(|address| (service, address)));
        } else {
            // An address of a service that is not offered is checked and not used.
            section.optional(key, faults, address::endpoint);
        }
    }
    section.finish(faults);
    (addresses.len() == services.len()).then_some((iam?, addresses))
}

/// The address that is written, else the default. `None` only after a fault was recorded.
fn endpoint(
    section: &mut Section,
    key: &str,
    default: Option<String>,
    faults: &mut Faults,
) -> Option<String> {
    if let Some(entry) = section.take(key) {
        let address = address::endpoint(&entry);
        return faults.keep(&entry, address);
    }
    if default.is_none() {
        let message = "is required, because there is no default for the project's region";
        faults.push(section.name(key), Origin::File, message);
    }
    default
}

/// The metadata service of an ECS.
const METADATA_ADDRESS: &str = "http://169.254.169.254";

/// The ways in which the gateway can be let in.
#[derive(Clone, Copy)]
enum Kind {
    Password,
    AccessKey,
    EcsAgency,
}

/// How the gateway is let in. `None` only after a fault was recorded.
fn credentials(project: &mut Section, faults: &mut Faults) -> Option<CredentialSettings> {
    let mut section = project.section("credentials", faults);
    // A kind that is not there is reported alone: its other keys would only be called unknown.
    let credentials = match section.required("kind", faults, kind)? {
        Kind::Password => {
            let domain = section.required("domain", faults, values::text);
            let user = section.required("user", faults, values::text);
            let password = secrets::required(&mut section, ("password", SecretForm::Text), faults);
            domain
                .zip(user)
                .zip(password)
                .map(|((domain, user), password)| CredentialSettings::Password {
                    domain,
                    user,
                    password,
                })
        }
        Kind::AccessKey => {
            let access_key = access_key(&mut section, faults);
            let secret_key =
                secrets::required(&mut section, ("secret_key", SecretForm::Key), faults);
            access_key.zip(secret_key).map(|(access_key, secret_key)| {
                CredentialSettings::AccessKey {
                    access_key,
                    secret_key,
                }
            })
        }
        Kind::EcsAgency => {
            let written = section.take("metadata_address");
            let address = match &written {
                Some(entry) => faults.keep(entry, address::local(entry)),
                None => Some(METADATA_ADDRESS.to_owned()),
            };
            address.map(|metadata_address| CredentialSettings::EcsAgency { metadata_address })
        }
    };
    section.finish(faults);
    credentials
}

fn kind(entry: &Entry) -> Reading<Kind> {
    match entry.text() {
        Some("password") => Ok(Kind::Password),
        Some("access-key") => Ok(Kind::AccessKey),
        Some("ecs-agency") => Ok(Kind::EcsAgency),
        Some(_) | None => Err("must be \"password\", \"access-key\" or \"ecs-agency\"".to_owned()),
    }
}

/// An access key: written out, or by reference as a secret is. `None` only after a fault was
/// recorded.
fn access_key(section: &mut Section, faults: &mut Faults) -> Option<AccessKeySource> {
    if section.has_table("access_key") {
        return secrets::required(section, ("access_key", SecretForm::Key), faults)
            .map(AccessKeySource::Kept);
    }
    section.required("access_key", faults, |entry| {
        let written = written_key(entry).map(AccessKeySource::Written);
        written.ok_or_else(|| {
            "must be an access key, or { file = \"PATH\" } or { env = \"VARIABLE\" }".to_owned()
        })
    })
}

fn written_key(entry: &Entry) -> Option<String> {
    let key = |text: &&str| !text.is_empty() && SecretForm::Key.fits(text);
    entry.text().filter(key).map(ToOwned::to_owned)
}

/// Section `storage_credentials`: those without faults.
pub(super) fn storage_credentials(
    root: &mut Section,
    known: &Known,
    faults: &mut Faults,
) -> BTreeMap<CredentialName, StorageCredentialSettings> {
    scope::named_sections(root, "storage_credentials", CredentialName::parse, faults)
        .into_iter()
        .filter_map(|(name, section)| Some((name, storage_credential(section, known, faults)?)))
        .collect()
}

fn storage_credential(
    mut section: Section,
    known: &Known,
    faults: &mut Faults,
) -> Option<StorageCredentialSettings> {
    let access_key = section.required("access_key", faults, |entry| {
        written_key(entry).ok_or_else(|| "must be an access key".to_owned())
    });
    let secret_key = secrets::required(&mut section, ("secret_key", SecretForm::Key), faults);
    let callers = section.required("callers", faults, scope::callers(known));
    let projects = section.required(
        "projects",
        faults,
        scope::scope(&known.projects, ProjectName::parse, "projects"),
    );
    section.finish(faults);
    Some(StorageCredentialSettings {
        access_key: access_key?,
        secret_key: secret_key?,
        grant: StorageGrant {
            callers: callers?,
            projects: projects?,
        },
    })
}
