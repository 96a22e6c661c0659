//! The requests of OMS.

use std::sync::Arc;

use crate::{
    domain::{
        secret::{Secret, SecretForm},
        service::{CredentialName, ProjectName, Sent, UpstreamError, UpstreamErrorKind},
        start::{StartRequest, StorageCredential, StorageKeys},
        task::TaskId,
    },
    transport::{Method, Request},
    upstream::{Settings, secrets::Secrets},
};

use super::{PAGE_LIMIT, wire};

/// Makes the requests about the tasks of one project.
pub(super) struct Requests {
    /// The path of the list of tasks.
    tasks: String,
    project: ProjectName,
    settings: Arc<Settings>,
    secrets: Secrets,
}

impl Requests {
    /// For one project, by the vendor's id and by ours.
    pub(super) fn new(
        project_id: &str,
        project: ProjectName,
        settings: Arc<Settings>,
        secrets: Secrets,
    ) -> Self {
        Self {
            tasks: format!("/v2/{project_id}/tasks"),
            project,
            settings,
            secrets,
        }
    }

    /// "Querying a Migration Task".
    pub(super) fn show(&self, id: &TaskId) -> Request {
        self.about(Method::Get, id, "")
    }

    /// "Querying Migration Tasks"; the offset counts tasks, not pages.
    pub(super) fn list(&self, offset: u64, limit: u32) -> Request {
        let limit = limit.clamp(1, PAGE_LIMIT);
        Request {
            method: Method::Get,
            path: format!("{}?limit={limit}&offset={offset}", self.tasks),
            body: None,
        }
    }

    /// "Pausing a Migration Task". It has no body.
    pub(super) fn stop(&self, id: &TaskId) -> Request {
        self.about(Method::Post, id, "/stop")
    }

    /// "Deleting a Migration Task".
    pub(super) fn delete(&self, id: &TaskId) -> Request {
        self.about(Method::Delete, id, "")
    }

    /// "Starting a Migration Task", with the keys that the request names or brings.
    /// [`UpstreamErrorKind::Rejected`] if a named one cannot be had.
    pub(super) async fn start(
        &self,
        id: &TaskId,
        start: &StartRequest,
    ) -> Result<Request, UpstreamError> {
        let source = match &start.source {
            Some(credential) => Some(self.keys(credential).await?),
            None => None,
        };
        let destination = start
            .destination
            .as_ref()
            .ok_or_else(|| rejected("A start needs keys to the destination.".to_owned()))?;
        let destination = self.keys(destination).await?;
        let body = wire::start_body(source.as_ref(), &destination, start.migrate_failed_objects);
        Ok(Request {
            body: Some(body),
            ..self.about(Method::Post, id, "/start")
        })
    }

    /// A request about one task. An id has no character with a meaning in a URL.
    fn about(&self, method: Method, id: &TaskId, action: &str) -> Request {
        Request {
            method,
            path: format!("{}/{id}{action}", self.tasks),
            body: None,
        }
    }

    async fn keys(&self, credential: &StorageCredential) -> Result<StorageKeys, UpstreamError> {
        match credential {
            StorageCredential::Inline(keys) => Ok(keys.clone()),
            StorageCredential::Named(name) => self.named_keys(name).await,
        }
    }

    /// The configuration can have changed since the start was accepted, so it is asked again each
    /// time.
    async fn named_keys(&self, name: &CredentialName) -> Result<StorageKeys, UpstreamError> {
        let entry = self
            .settings
            .storage_credentials
            .get(name)
            .filter(|entry| entry.grant.projects.contains(&self.project))
            .ok_or_else(|| {
                rejected(format!(
                    "The storage credential {name} is not configured for this project."
                ))
            })?;
        let secret_key = self.secrets.read(&entry.secret_key, SecretForm::Key).await;
        let secret_key = secret_key.map_err(|error| {
            // Where the secret is kept is for the operator; whoever asked gets to know the name
            // only.
            tracing::debug!(credential = %name, %error, "a storage credential cannot be read");
            rejected(format!("The storage credential {name} cannot be read."))
        })?;
        Ok(StorageKeys {
            access_key: Secret::new(entry.access_key.as_str()),
            secret_key,
            security_token: None,
        })
    }
}

/// A start that cannot be sent as it is.
fn rejected(detail: String) -> UpstreamError {
    UpstreamError {
        kind: UpstreamErrorKind::Rejected,
        sent: Sent::No,
        retry_after: None,
        answer: None,
        detail,
    }
}

#[cfg(test)]
mod tests;
