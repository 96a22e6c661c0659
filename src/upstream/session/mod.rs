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

    /// Nothing is sent and nobody logs in yet.
    #[expect(clippy::too_many_arguments, reason = "each part is kept as it is")]
    pub(super) fn new(
        transport: Rc<Transport>,
        tokens: Tokens,
        project: ProjectName,
        service: ServiceName,
        endpoint: Endpoint,
        flow: Flow,
        metrics: Metrics,
    ) -> Self {
        Self {
            transport,
            tokens,
            project,
            service,
            endpoint,
            flow,
            metrics,
        }
    }

    /// Sends a request with a token and gives back whatever complete answer comes, refusals of every kind included,
    /// unless the answer says that the token is dead. Then, if the token had worked before, it is replaced and the request
    /// is sent once more, which is safe since it was not carried out; a token that is refused at its first use is
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

    async fn perform(
        &self,
        request: &Request,
        by: Option<Instant>,
    ) -> Result<Response, UpstreamError> {
        let by = by.map(Into::into);
        let mut may_replace = true;
        loop {
            // Before the wait for the pace: requests that wait for a login must not go all at once after it.
            self.token().await?;
            let used = Cell::new(None);
            let carried = self.flow.carry(request.method, by, async |limits| {
                // The one from before the wait may be known to be dead.
                let token = self.token().await?;
                // Before the request, for others may use the same token meanwhile.
                let had_worked = token.has_worked();
                let attempt = self.send(&token, request, limits).await;
                used.set(Some((token, had_worked)));
                Ok(attempt)
            });
            let response = carried.await?;
            let Some((code, (token, had_worked))) = dead_token_code(&response).zip(used.take())
            else {
                return Ok(response);
            };
            if had_worked && may_replace {
                self.tokens.refused(&token, &self.service).await;
                may_replace = false;
                continue;
            }
            // Given up first, so that nobody who finds the token gone logs in for this service.
            let error = self.refusal(&response, code);
            let error = self.tokens.give_up(&token, &self.service, error);
            self.tokens.refused(&token, &self.service).await;
            return Err(error);
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
        let response = result?;
        if shows_accepted_token(response.status) {
            self.tokens.worked(token, &self.service);
        }
        Ok(echo::without_token(response, token.text()))
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
