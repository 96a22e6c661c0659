//! One service of one project, spoken to with a token.

#[cfg(test)]
mod tests;

use std::{cell::Cell, rc::Rc, time::Instant};

use super::{
    answer, echo,
    flow::Flow,
    iam::{Token, Tokens},
    metrics::Metrics,
};
use crate::{
    domain::service::{
        ProjectName, Sent, ServiceName, UpstreamAnswer, UpstreamError, UpstreamErrorKind,
    },
    transport::{Endpoint, Limits, Request, Response, Transport, TransportError},
};

/// The codes by which the vendor's API gateway calls a token dead, without the prefix that differs from service to
/// service ("error codes" in its user guide): 0301 wrong authentication information, 0305 the same, 0307 the token must
/// be updated.
const DEAD_TOKEN: [&str; 3] = ["0301", "0305", "0307"];

/// One service of one project, on this thread.
pub(super) struct Session {
    transport: Rc<Transport>,
    tokens: Tokens,
    project: ProjectName,
    service: ServiceName,
    endpoint: Endpoint,
    names: echo::Names,
    flow: Flow,
    metrics: Metrics,
}

impl Session {
    /// The service.
    pub(super) fn service(&self) -> &ServiceName {
        &self.service
    }

    /// The project.
    pub(super) fn project(&self) -> &ProjectName {
        &self.project
    }

    /// The names that no text for callers may hold.
    pub(super) fn names(&self) -> &echo::Names {
        &self.names
    }

    /// Nothing is sent and nobody logs in yet.
    #[expect(clippy::too_many_arguments, reason = "each part is kept as it is")]
    pub(super) fn new(
        transport: Rc<Transport>,
        tokens: Tokens,
        project: ProjectName,
        service: ServiceName,
        endpoint: Endpoint,
        names: echo::Names,
        flow: Flow,
        metrics: Metrics,
    ) -> Self {
        Self {
            transport,
            tokens,
            project,
            service,
            endpoint,
            names,
            flow,
            metrics,
        }
    }

    /// Sends a request with a token and gives back whatever complete answer comes, refusals of every kind included,
    /// unless the answer says that the token is dead. Then it is replaced and the request is sent once more, which is safe
    /// since it was not carried out. If the replacement is refused too, that is
    /// [`UpstreamErrorKind::CredentialsRefused`], also for the next requests of a while.
    ///
    /// `operation` is the name under which the request is counted. Nothing is begun after `by`.
    pub(super) async fn exchange(
        &self,
        operation: &'static str,
        request: &Request,
        by: Option<Instant>,
    ) -> Result<Response, UpstreamError> {
        let result = self.perform(request, by).await;
        let outcome = match &result {
            Ok(response) => class(response.status),
            Err(error) => error.kind.as_str(),
        };
        self.metrics
            .request(self.service.as_str(), operation, outcome);
        result
    }

    /// What was read from an answer. One that makes no sense may be that to another request, when a service has sent more
    /// answers than it was asked for.
    pub(super) fn judged<T>(&self, read: Result<T, UpstreamError>) -> Result<T, UpstreamError> {
        if let Err(error) = &read
            && error.kind == UpstreamErrorKind::Malformed
        {
            self.transport.distrust();
        }
        read
    }

    async fn perform(
        &self,
        request: &Request,
        by: Option<Instant>,
    ) -> Result<Response, UpstreamError> {
        let by = by.map(Into::into);
        let mut is_repeated = false;
        loop {
            // Before the wait for the pace: requests that wait for a login must not go all at once after it.
            self.token().await?;
            let used = Cell::new(None);
            let carried = self.flow.carry(request.method, by, async |limits| {
                // The one from before the wait may be known to be dead.
                let token = self.token().await?;
                let attempt = self.send(&token, request, limits).await;
                used.set(Some(token));
                Ok(attempt)
            });
            let response = carried.await?;
            let Some((code, token)) = dead_token_code(&response).zip(used.take()) else {
                return Ok(response);
            };
            if is_repeated || !self.tokens.refused(&token, &self.service).await {
                let error = self.refusal(&response, code);
                return Err(self.tokens.give_up(&token, &self.service, error));
            }
            is_repeated = true;
        }
    }

    /// A token for the next request, unless the service has refused fresh ones a moment ago.
    async fn token(&self) -> Result<Token, UpstreamError> {
        if let Some(error) = self.tokens.given_up(&self.project, &self.service) {
            return Err(error);
        }
        self.tokens.token(&self.project).await
    }

    async fn send(
        &self,
        token: &Token,
        request: &Request,
        limits: Limits,
    ) -> Result<Response, TransportError> {
        let begun = Instant::now();
        let result = self
            .transport
            .send_within(limits, &self.endpoint, Some(token.text()), request)
            .await;
        self.metrics
            .exchanged(self.service.as_str(), begun.elapsed());
        let mut response = result?;
        if shows_accepted_token(response.status) {
            self.tokens.worked(token, &self.service);
        }
        response.request_id = response.request_id.map(|id| self.names.masked(&id));
        Ok(echo::without_secrets(response, &token.secrets()))
    }

    fn refusal(&self, response: &Response, code: String) -> UpstreamError {
        UpstreamError {
            kind: UpstreamErrorKind::CredentialsRefused,
            // The API gateway passes on nothing whose token it refuses.
            sent: Sent::No,
            retry_after: response.retry_after,
            answer: Some(Box::new(UpstreamAnswer {
                service: self.service.as_str().to_owned(),
                status: response.status,
                error_code: Some(code),
                error_msg: None,
                request_id: response.request_id.clone(),
            })),
            detail: format!(
                "The service {} refused a fresh token of the gateway; the endpoint may belong to another region.",
                self.service
            ),
        }
    }
}

/// The code of an answer that calls the token dead. Other refusals of status 401 are the service's own: SMS has them for
/// plain mistakes in a request.
fn dead_token_code(response: &Response) -> Option<String> {
    if response.status != 401 {
        return None;
    }
    let (code, _) = answer::error_code(&response.body)?;
    let (prefix, number) = code.split_once('.')?;
    (["APIG", "APIGW"].contains(&prefix) && DEAD_TOKEN.contains(&number)).then_some(code)
}

/// Whether an answer of this status shows that the token was accepted: not one that can come from before the check, or
/// from a fault.
fn shows_accepted_token(status: u16) -> bool {
    (200..500).contains(&status) && ![401, 403, 407, 408, 429].contains(&status)
}

fn class(status: u16) -> &'static str {
    match status {
        ..300 => "ok",
        300..400 => "http-3xx",
        400..500 => "http-4xx",
        500.. => "http-5xx",
    }
}
