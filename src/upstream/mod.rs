//! The cloud.

mod answer;
mod fault;
pub mod iam;
pub mod metrics;
pub mod secrets;
pub mod session;

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::{
    access::Scope,
    secret::SecretSource,
    service::{CallerName, CredentialName, ProjectName, ServiceName},
};

/// The projects of the cloud, and the storage keys that a start may name.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Section `projects`.
    pub projects: BTreeMap<ProjectName, ProjectSettings>,
    /// Section `storage_credentials`.
    pub storage_credentials: BTreeMap<CredentialName, StorageCredentialSettings>,
}

/// One project of the cloud.
#[derive(Clone, Debug)]
pub struct ProjectSettings {
    /// The vendor's id of the project: 32 hex digits.
    pub project_id: String,
    /// The region of the project, such as `cn-north-4`.
    pub region: String,
    /// The services that are offered for it.
    pub services: BTreeSet<ServiceName>,
    /// Base address of the token service: scheme and authority, no path.
    pub iam_endpoint: String,
    /// Base addresses of the services.
    pub endpoints: BTreeMap<ServiceName, String>,
    /// How the gateway proves its identity.
    pub credentials: CredentialSettings,
}

/// How the gateway proves its identity in one project.
#[derive(Clone, Debug)]
pub enum CredentialSettings {
    /// An IAM user with a password, exchanged for a token.
    Password {
        /// The name of the account.
        domain: String,
        /// The name of the user.
        user: String,
        /// The user's password.
        password: SecretSource,
    },
}

/// Keys to a bucket that callers may name without knowing them.
#[derive(Clone, Debug)]
pub struct StorageCredentialSettings {
    /// The access key.
    pub access_key: String,
    /// The secret key.
    pub secret_key: SecretSource,
    /// Who may name it.
    pub callers: Scope<CallerName>,
    /// In which projects.
    pub projects: Scope<ProjectName>,
}
