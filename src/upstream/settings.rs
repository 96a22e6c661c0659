//! What the configuration says about the cloud: its projects, how the gateway proves its identity
//! there, and the storage keys that a start may name.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Pace, echo::Names};
use crate::domain::{
    access::StorageGrant,
    secret::SecretSource,
    service::{CredentialName, ProjectName, ServiceName, status::CredentialKind},
};

/// The projects of the cloud, the storage keys that a start may name, and how old an answer to
/// callers may be.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How old a look at a task may be that serves another caller, from before it was asked for:
    /// key `freshness` of section `upstream`. Zero: only those share a look who come while it is
    /// under way.
    pub freshness: Duration,
    /// Section `projects`.
    pub projects: BTreeMap<ProjectName, ProjectSettings>,
    /// Section `storage_credentials`.
    pub storage_credentials: BTreeMap<CredentialName, StorageCredentialSettings>,
    /// The pace of each service, part of section `upstream`.
    pub pace: Pace,
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

impl ProjectSettings {
    /// The base address of a service, if the project offers it.
    pub(super) fn endpoint(&self, service: &ServiceName) -> Option<&str> {
        self.services
            .contains(service)
            .then(|| self.endpoints.get(service).map(String::as_str))
            .flatten()
    }
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
    /// An access key, by which every request is signed.
    AccessKey {
        /// The access key.
        access_key: AccessKeySource,
        /// The secret key that belongs to it.
        secret_key: SecretSource,
    },
    /// Temporary keys of the agency that the ECS has which this program runs on.
    EcsAgency {
        /// Base address of the metadata service: `http`, link-local or loopback.
        metadata_address: String,
    },
}

/// Where an access key is. It is no secret by itself, but it changes together with its secret key.
#[derive(Clone, Debug)]
pub enum AccessKeySource {
    /// In the configuration.
    Written(String),
    /// Where a secret would be.
    Kept(SecretSource),
}

impl CredentialSettings {
    /// The names that callers are not told.
    pub(super) fn names(&self) -> Names {
        match self {
            Self::Password { domain, user, .. } => Names::new([domain.as_str(), user]),
            Self::AccessKey { .. } | Self::EcsAgency { .. } => Names::new([]),
        }
    }

    /// Where its secrets are.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &SecretSource> {
        let (first, second) = match self {
            Self::Password { password, .. } => (Some(password), None),
            Self::AccessKey {
                access_key: AccessKeySource::Kept(access_key),
                secret_key,
            } => (Some(secret_key), Some(access_key)),
            Self::AccessKey { secret_key, .. } => (Some(secret_key), None),
            Self::EcsAgency { .. } => (None, None),
        };
        first.into_iter().chain(second)
    }

    /// The word for it.
    pub(super) fn kind(&self) -> CredentialKind {
        match self {
            Self::Password { .. } => CredentialKind::Password,
            Self::AccessKey { .. } => CredentialKind::AccessKey,
            Self::EcsAgency { .. } => CredentialKind::EcsAgency,
        }
    }
}

/// Keys to a bucket that callers may name without knowing them.
#[derive(Clone, Debug)]
pub struct StorageCredentialSettings {
    /// The access key.
    pub access_key: String,
    /// The secret key.
    pub secret_key: SecretSource,
    /// Who may name it, and where.
    pub grant: StorageGrant,
}
