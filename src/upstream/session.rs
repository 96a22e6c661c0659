//! Exchanges with one service of one project.

use crate::{
    domain::service::{ProjectName, Sent, ServiceName, UpstreamError, UpstreamErrorKind},
    transport::{Request, Response},
};

/// One service of one project, and the credentials for it.
#[derive(Debug)]
pub(crate) struct Session {
    service: ServiceName,
    project: ProjectName,
}

impl Session {
    /// For one service of one project.
    pub(crate) fn new(project: ProjectName, service: ServiceName, _endpoint: &str) -> Self {
        Self { service, project }
    }

    /// Sends one request.
    #[expect(clippy::unused_async, reason = "a stub")]
    pub(crate) async fn exchange(
        &self,
        operation: &'static str,
        request: &Request,
    ) -> Result<Response, UpstreamError> {
        Err(UpstreamError {
            kind: UpstreamErrorKind::Unavailable,
            sent: Sent::No,
            retry_after: None,
            answer: None,
            detail: format!("{operation} {}", request.path),
        })
    }

    /// The service.
    pub(crate) fn service(&self) -> &ServiceName {
        &self.service
    }

    /// The project.
    pub(crate) fn project(&self) -> &ProjectName {
        &self.project
    }
}
