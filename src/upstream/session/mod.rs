//! One service of one project, spoken to with the project's credential.

#[cfg(test)]
mod tests;

use std::{cell::Cell, rc::Rc, time::Instant};

use super::{
    answer, echo, fault,
    flow::{Attempt, Call, Exchange, Flow},
    iam::{Credential, Credentials, Lease},
    metrics::Metrics,
};
use crate::{
    domain::service::{
        Patience, ProjectName, Sent, ServiceName, UpstreamAnswer, UpstreamError, UpstreamErrorKind,
    },
    transport::{
        self, Endpoint, Limits, Place, Request, Response, Transport, TransportError,
        TransportErrorKind,
    },
};

/// The codes by which the vendor's API gateway calls a token dead or a signature wrong, without the prefix that differs
/// from service to service ("error codes" in its user guide): 0301 wrong authentication information, 0305 the same, 0307
/// the token must be updated.
const REFUSED_CREDENTIAL: [&str; 3] = ["0301", "0305", "0307"];
/// Those by which it says that a user whom it knows may not do this, by the same page: 0302 the user is not authorized, 0802 the
/// user is forbidden in this region.
const REFUSED_USER: [&str; 2] = ["0302", "0802"];
/// What the codes of the API gateway begin with.
const GATEWAY: [&str; 2] = ["APIG", "APIGW"];
/// How often a request waits for a place, when its credential dies in the wait.
const WAITS_MAX: usize = 3;

/// One service of one project, on this thread.
pub(super) struct Session {
    transport: Rc<Transport>,
    credentials: Credentials,
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
        credentials: Credentials,
        project: ProjectName,
        service: ServiceName,
        endpoint: Endpoint,
        names: echo::Names,
        flow: Flow,
        metrics: Metrics,
    ) -> Self {
        Self {
            transport,
            credentials,
            project,
            service,
            endpoint,
            names,
            flow,
            metrics,
        }
    }

    /// Sends a request with a token or a signature and gives back whatever complete answer comes, refusals of every kind
    /// included, unless the answer says that the credential is dead. Then it is replaced and the request is sent once more,
    /// which is safe since it was not carried out. If the replacement is refused too, that is
    /// [`UpstreamErrorKind::CredentialsRefused`], also for the next requests of a while; or
    /// [`UpstreamErrorKind::Unavailable`] at first, if it is a token and the service has accepted others.
    ///
    /// `operation` is the name under which the request is counted. Nothing is begun after `by`.
    pub(super) async fn exchange(
        &self,
        operation: &'static str,
        request: &Request,
        by: Option<Instant>,
    ) -> Result<Response, UpstreamError> {
        let call = Call {
            method: request.method,
            by: by.map(Into::into),
            patience: &Patience::default(),
            fresh_connection: false,
        };
        self.counted(operation, request, call).await
    }

    /// Reads about one task; `read` says what an answer shows, if it is about that task.
    ///
    /// Whatever else comes over a connection that has carried another request may be the answer to that, sent twice. It is
    /// asked for once more, over a connection of its own, before anybody is told that there is no such task, or that
    /// it must not be seen. What leads to another try anyhow, such as a fault of the service, is told as it is.
    pub(super) async fn show<T>(
        &self,
        request: &Request,
        read: impl Fn(&Response) -> Result<Option<T>, UpstreamError>,
    ) -> Result<Option<T>, UpstreamError> {
        let response = self.exchange("show", request, None).await?;
        let seen = self.judged(read(&response));
        if !response.is_doubtful || speaks_for_itself(&seen) {
            return seen;
        }
        let response = self.read("show", request, &Patience::default()).await?;
        let seen = self.judged(read(&response));
        if matches!(seen, Ok(Some(_))) {
            // The other answer was none to this request, and what is is still to come there.
            self.transport.distrust();
        }
        seen
    }

    /// As [`Session::exchange`], for a read that has only so much patience left for the pace, over a connection of its own:
    /// a list does not say whose it is.
    pub(super) async fn read(
        &self,
        operation: &'static str,
        request: &Request,
        patience: &Patience,
    ) -> Result<Response, UpstreamError> {
        let call = Call {
            method: request.method,
            by: None,
            patience,
            fresh_connection: true,
        };
        self.counted(operation, request, call).await
    }

    async fn counted(
        &self,
        operation: &'static str,
        request: &Request,
        call: Call<'_>,
    ) -> Result<Response, UpstreamError> {
        let result = self.perform(request, call).await;
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

    async fn perform(&self, request: &Request, call: Call<'_>) -> Result<Response, UpstreamError> {
        let mut is_repeated = false;
        loop {
            // Whoever cannot be let in need not wait for the pace.
            self.may_ask()?;
            self.credentials.credential(&self.project).await?;
            let sending = Sending {
                session: self,
                request,
                used: Cell::new(None),
            };
            let response = self.flow.carry(call, &sending).await?;
            let refusal = refused_credential_code(&response).zip(sending.used.take());
            let Some((code, credential)) = refusal else {
                return Ok(response);
            };
            // If it is sent twice, it must not be taken for a refusal of the next credential.
            self.transport.distrust();
            let error = self.refusal(&credential, &response, code);
            let refused = self.credentials.refused(&credential, &self.service, &error);
            if !refused || is_repeated {
                return Err(self.credentials.give_up(&credential, &self.service, error));
            }
            is_repeated = true;
        }
    }

    /// Whether the service may be asked: not if it has refused fresh credentials a moment ago.
    fn may_ask(&self) -> Result<(), UpstreamError> {
        let error = self.credentials.given_up(&self.project, &self.service);
        error.map_or(Ok(()), Err)
    }

    fn refusal(&self, credential: &Credential, response: &Response, code: String) -> UpstreamError {
        let service = &self.service;
        let detail = if credential.signs() {
            let reason = wrong_signature(response);
            format!("The service {service} refused the gateway's signature: {reason}.")
        } else {
            format!(
                "The service {service} refused a fresh token of the gateway; the endpoint may belong to another region."
            )
        };
        UpstreamError {
            kind: UpstreamErrorKind::CredentialsRefused,
            // The API gateway passes on nothing whose credential it refuses.
            sent: Sent::No,
            retry_after: response.retry_after,
            answer: Some(Box::new(UpstreamAnswer {
                service: self.service.as_str().to_owned(),
                status: response.status,
                error_code: Some(code),
                error_msg: None,
                request_id: response.request_id.clone(),
            })),
            detail,
        }
    }
}

/// A request that is sent with a credential.
struct Sending<'a> {
    session: &'a Session,
    request: &'a Request,
    /// That of the last attempt.
    used: Cell<Option<Lease>>,
}

impl<'a> Exchange for Sending<'a> {
    type Means = (Lease, Place<'a>);

    async fn at_hand(&self) -> Result<Option<Self::Means>, UpstreamError> {
        let Session {
            transport,
            credentials,
            project,
            service,
            ..
        } = self.session;
        // An attempt before this one must not keep it waiting.
        drop(self.used.take());
        // The credential from before the wait may be known to be dead.
        self.session.may_ask()?;
        let lease = credentials.lease_now(project).await;
        let Some((lease, place)) = lease.zip(transport.place_now(self.request.method)) else {
            return Ok(None);
        };
        Ok(Some((credentials.admit(lease, service)?, place)))
    }

    async fn wait(&self, by: Option<tokio::time::Instant>) -> Result<Self::Means, UpstreamError> {
        let session = self.session;
        let failed = |error| {
            let begun = format!("The exchange with the service {} failed", session.service);
            fault::of_transport(&begun, error)
        };
        for _ in 0..WAITS_MAX {
            let lease = session.credentials.lease(&session.project).await?;
            let place = session.transport.place(self.request.method, by).await;
            let place = place.map_err(failed)?;
            // It can have died in the wait for the place, which others may use while another one is obtained.
            if lease.is_good(session.credentials.now()) {
                return Ok((session.credentials.admit(lease, &session.service)?, place));
            }
        }
        let method = self.request.method;
        Err(failed(TransportError::new(
            TransportErrorKind::Withdrawn,
            method,
        )))
    }

    async fn send(&self, (lease, place): Self::Means, mut limits: Limits) -> Attempt {
        let session = self.session;
        // What is taken for an answer to keys that are tried must be one.
        limits.fresh_connection |= lease.is_on_trial();
        let now = session.credentials.now();
        let authentication = lease.authenticate(&session.endpoint, self.request, now);
        let begun = Instant::now();
        let headers = &authentication.headers;
        let sending =
            session
                .transport
                .send_once((place, limits), &session.endpoint, headers, self.request);
        // A connection can take long to be made.
        let result = transport::while_good(session.credentials.watch(&lease), sending).await;
        session
            .metrics
            .exchanged(session.service.as_str(), begun.elapsed());
        let mut response = result?;
        if shows_accepted_credential(&session.service, &response) {
            session.credentials.worked(&lease, &session.service);
        }
        response.request_id = response.request_id.map(|id| session.names.masked(&id));
        // The service may know those before this one, and what came meanwhile.
        let recent = session.credentials.recent(&session.project);
        let mut secrets = lease.secrets();
        secrets.extend(&authentication.signature);
        secrets.extend(recent.iter().flat_map(Credential::secrets));
        let response = echo::without_secrets(response, &secrets);
        self.used.set(Some(lease));
        Ok(response)
    }
}

/// Whether what an answer shows is about the task that was asked for, or concludes nothing.
fn speaks_for_itself<T>(seen: &Result<Option<T>, UpstreamError>) -> bool {
    use UpstreamErrorKind as Kind;
    match seen {
        Ok(task) => task.is_some(),
        Err(error) => match error.kind {
            Kind::Throttled | Kind::CircuitOpen | Kind::Unavailable | Kind::Timeout => true,
            Kind::CredentialsRefused
            | Kind::Forbidden
            | Kind::Refused
            | Kind::StillInProgress
            | Kind::Gone
            | Kind::Rejected
            | Kind::Malformed => false,
        },
    }
}

/// The code of an answer that calls the credential dead or wrong. Other refusals of status 401 are the service's own: SMS has them for
/// plain mistakes in a request.
fn refused_credential_code(response: &Response) -> Option<String> {
    if response.status != 401 {
        return None;
    }
    let (code, _) = answer::error_code(&response.body)?;
    let (prefix, number) = code.split_once('.')?;
    (GATEWAY.contains(&prefix) && REFUSED_CREDENTIAL.contains(&number)).then_some(code)
}

/// Why a signature may have been refused, by the text that follows the vendor's code 0301 ("APIG.0301" in its
/// troubleshooting pages). The text is not passed on, since it can name the access key.
fn wrong_signature(response: &Response) -> &'static str {
    let message = answer::error_code(&response.body).map(|(_, message)| message.to_lowercase());
    let says = |part| {
        message
            .as_ref()
            .is_some_and(|message| message.contains(part))
    };
    if says("signature expired") {
        "its time is not the service's, so that the clock of this machine may be wrong"
    } else if says("reach the limit") {
        "the access key is locked for some minutes after too many wrong signatures"
    } else if says("not exist") {
        "there is no such access key"
    } else {
        "the access key and the secret key may not belong together, or may have ended"
    }
}

/// Whether an answer shows that the credential was accepted: not one that can come from before the check, or from a fault.
fn shows_accepted_credential(service: &ServiceName, response: &Response) -> bool {
    match response.status {
        407 | 408 | 429 => false,
        401 | 403 => answer::error_code(&response.body)
            .and_then(|(code, _)| Some(is_said_to_somebody_known(service, code.split_once('.')?)))
            .unwrap_or_default(),
        status => (200..500).contains(&status),
    }
}

/// Whether a refusal with this code comes after the check of the credential. What the service says itself does: the API
/// gateway in front of it passes on nothing else.
fn is_said_to_somebody_known(service: &ServiceName, (prefix, number): (&str, &str)) -> bool {
    prefix.eq_ignore_ascii_case(service.as_str())
        || GATEWAY.contains(&prefix) && REFUSED_USER.contains(&number)
}

fn class(status: u16) -> &'static str {
    match status {
        ..300 => "ok",
        300..400 => "http-3xx",
        400..500 => "http-4xx",
        500.. => "http-5xx",
    }
}
