//! The configuration: a TOML file, and environment variables over it.
//!
//! [`Config`] is the plain sum of the settings of every module. All faults are found in one pass
//! and reported together, each with the full name of its key and the place it came from. No message
//! shows a value, so that a secret written into the wrong place does not reach a terminal or a log.
//! Nothing here connects to anything.

pub mod fault;

mod address;
mod callers;
mod issuers;
mod projects;
mod reader;
mod scope;
mod secrets;
mod sections;
mod source;
mod values;

#[cfg(test)]
mod tests;

use std::{io, net::SocketAddr, path::Path};

use self::{
    fault::{Faults, Origin},
    reader::Section,
    scope::Known,
};
use crate::{
    api, audit,
    domain::{
        secret::{Secret, SecretForm, SecretSource},
        service::{CallerName, IssuerName, ProjectName},
    },
    identity,
    listener::{self, ConnectionLimits},
    operations, store, telemetry, transport, upstream,
};

/// Everything that can be set.
#[derive(Clone, Debug)]
pub struct Config {
    /// Section `server`, and `default_project`.
    pub api: api::Settings,
    /// How many connections there may be: part of section `limits`.
    pub connections: ConnectionLimits,
    /// Section `server.tls`; `None` if connections from callers are not encrypted here.
    pub listener: Option<listener::Settings>,
    /// Section `audit`; `None` if there is none.
    pub audit: Option<audit::Settings>,
    /// Sections `access`, `callers` and `issuers`.
    pub identity: identity::Settings,
    /// Section `log`.
    pub telemetry: telemetry::Settings,
    /// Section `store`.
    pub store: store::Settings,
    /// Section `operations`.
    pub operations: operations::Settings,
    /// Section `upstream`, but for its `freshness` and its pace.
    pub transport: transport::Settings,
    /// Sections `projects` and `storage_credentials`, and `freshness` and the pace of section
    /// `upstream`.
    pub upstream: upstream::Settings,
}

/// Reads the file, lays the variables `MIGRATION_GATEWAY__SECTION__KEY` of the environment over it,
/// and checks everything: also that every secret that is referred to can be read and is not empty.
pub fn load(path: &Path) -> Result<Config, Faults> {
    load_with(path, source::environment())
}

/// The text of the file as it is, whether or not it is a configuration.
pub fn read_text(path: &Path) -> io::Result<String> {
    source::read_file(path)
}

/// Where a gateway listens, and how it is spoken to there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listening {
    /// The address.
    pub address: SocketAddr,
    /// Whether connections are encrypted.
    pub is_encrypted: bool,
}

/// Where a gateway listens, and nothing else of the configuration: faults elsewhere do not matter
/// to whoever only wants to know where a gateway that was started with it is.
pub fn load_listen(path: &Path) -> Result<Listening, Faults> {
    let mut faults = Faults::of(path);
    let listening = source::read(path, source::environment(), &mut faults).map(|mut root| {
        let mut server = root.section("server", &mut faults);
        Listening {
            address: sections::listen(&mut server, &mut faults),
            is_encrypted: server.has_table("tls"),
        }
    });
    match listening {
        Some(listening) if faults.is_empty() => Ok(listening),
        Some(_) | None => Err(faults),
    }
}

/// The key of the audit log, and nothing else of the configuration, so that an auditor needs none
/// of its other secrets. `None`: it has no audit log.
pub fn load_audit_key(path: &Path) -> Result<Option<audit::Key>, Faults> {
    let mut faults = Faults::of(path);
    let settings = source::read(path, source::environment(), &mut faults)
        .map(|mut root| sections::audit(&mut root, &mut faults));
    match settings {
        Some(settings) if faults.is_empty() => Ok(settings.map(|settings| settings.key)),
        Some(_) | None => Err(faults),
    }
}

/// The key of an audit log in a file of its own. The error is a sentence that begins with the file.
pub fn read_audit_key(path: &Path) -> Result<audit::Key, String> {
    sections::audit_key(&SecretSource::File(path.to_owned()))
}

/// A file of TOML that holds no more than texts by these names. The error goes on a sentence that
/// begins with the file, and shows no value.
pub fn parse_texts<const N: usize>(
    text: &str,
    names: [&str; N],
) -> Result<[Option<String>; N], String> {
    source::texts_of(text, names)
}

/// A secret that is read once. The error goes on a sentence that begins with what the secret is.
pub fn read_secret(source: &SecretSource) -> Result<Secret, String> {
    secrets::read(source, SecretForm::Key)
}

/// As [`load`], with these environment variables instead of the process's own.
fn load_with(path: &Path, variables: source::Variables) -> Result<Config, Faults> {
    let mut faults = Faults::of(path);
    let config =
        source::read(path, variables, &mut faults).and_then(|root| build(root, &mut faults));
    match config {
        Some(config) if faults.is_empty() => Ok(config),
        Some(_) | None => Err(faults),
    }
}

/// Takes the tree apart section by section. `None` only after a fault was recorded.
fn build(mut root: Section, faults: &mut Faults) -> Option<Config> {
    let known = Known {
        projects: scope::declared(&root, "projects", ProjectName::parse),
        services: upstream::catalogue()
            .into_iter()
            .map(|service| service.name)
            .collect(),
        callers: scope::declared(&root, "callers", CallerName::configured),
        issuers: scope::declared(&root, "issuers", IssuerName::parse),
    };
    let default_project = default_project(&mut root, &known, faults);
    let (limits, connections) = sections::limits(&mut root, faults);
    let (mut api, listener) = sections::server(&mut root, default_project, limits, faults);
    let client_ca = listener.as_ref().and_then(|tls| tls.client_ca.as_ref());
    let asks_for_certificates = client_ca.is_some();
    let identity = callers::read(&mut root, &known, asks_for_certificates, faults);
    let audit = sections::audit(&mut root, faults);
    let telemetry = sections::log(&mut root, faults);
    let store = sections::store(&mut root, faults);
    let (transport, freshness, pace) = sections::upstream(&mut root, faults);
    let operations = sections::operations(&mut root, transport.request_timeout, faults);
    let upstream = upstream::Settings {
        freshness,
        projects: projects::read(&mut root, &known, faults),
        storage_credentials: projects::storage_credentials(&mut root, &known, faults),
        pace,
    };
    api.storage_grants = upstream
        .storage_credentials
        .iter()
        .map(|(name, entry)| (name.clone(), entry.grant.clone()))
        .collect();
    root.finish(faults);
    Some(Config {
        api,
        connections,
        listener,
        audit,
        identity,
        telemetry,
        store: store?,
        operations,
        transport,
        upstream,
    })
}

/// The project that a request means when it names none: the one that is written, else the only one.
fn default_project(root: &mut Section, known: &Known, faults: &mut Faults) -> Option<ProjectName> {
    if let Some(entry) = root.take("default_project") {
        let name = entry.text().and_then(ProjectName::parse);
        let name = name.filter(|name| known.projects.contains(name));
        return faults.keep(
            &entry,
            name.ok_or_else(|| "must name one of the projects".to_owned()),
        );
    }
    if known.projects.len() > 1 {
        faults.push(
            "default_project",
            Origin::File,
            "is required when there is more than one project",
        );
    }
    known.projects.first().cloned()
}
