//! What a start needs: keys to buckets, by name or as they are.

use super::{secret::Secret, service::CredentialName};

/// What a start needs besides the task.
#[derive(Clone, Debug)]
pub struct StartRequest {
    /// Keys to the source bucket; not needed for tasks that read a list of URLs.
    pub source: Option<StorageCredential>,
    /// Keys to the destination bucket.
    pub destination: Option<StorageCredential>,
    /// Copy only the objects that failed before.
    pub migrate_failed_objects: bool,
}

/// Keys to a bucket: by name, or as they are.
#[derive(Clone, Debug)]
pub enum StorageCredential {
    /// An entry of the configuration, looked up each time it is sent.
    Named(CredentialName),
    /// Sent by the caller. They live in memory only.
    Inline(StorageKeys),
}

/// Keys to a bucket.
#[derive(Clone, Debug)]
pub struct StorageKeys {
    /// The access key. Not a secret by the vendor's rules, and not shown all the same.
    pub access_key: Secret,
    /// The secret key.
    pub secret_key: Secret,
    /// The token of temporary keys.
    pub security_token: Option<Secret>,
}

/// What is recorded of a [`StartRequest`]: names, never keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartRecord {
    /// The name of the source's credential.
    pub source: Option<CredentialName>,
    /// The name of the destination's credential.
    pub destination: Option<CredentialName>,
    /// Whether keys came with the request; they are in no record.
    pub inline: bool,
    /// Copy only the objects that failed before.
    pub migrate_failed_objects: bool,
}

impl StartRecord {
    /// What is recorded of a start: names, never keys.
    pub fn of(start: Option<&StartRequest>) -> Self {
        let Some(start) = start else {
            return Self::default();
        };
        let name = |credential: &Option<StorageCredential>| match credential {
            Some(StorageCredential::Named(name)) => Some(name.clone()),
            Some(StorageCredential::Inline(_)) | None => None,
        };
        let is_inline = |credential: &Option<StorageCredential>| {
            matches!(credential, Some(StorageCredential::Inline(_)))
        };
        Self {
            source: name(&start.source),
            destination: name(&start.destination),
            inline: is_inline(&start.source) || is_inline(&start.destination),
            migrate_failed_objects: start.migrate_failed_objects,
        }
    }
}
