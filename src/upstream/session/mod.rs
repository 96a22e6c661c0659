//! One service of one project, spoken to with the project's credential.

#[cfg(test)]
mod tests;
mod verdict;

use std::{cell::Cell, rc::Rc, time::Instant};

use tokio::task::spawn_local;
use tracing::Instrument as _;

use self::verdict::{refused_credential_code, shows_accepted_credential, wrong_signature};
use super::{
    echo, fault,
    flow::{Attempt, Call, Exchange, Flow},
    iam::{Credential, Credentials, Lease},
    metrics::Metrics,
};
use crate::{
    domain::service::{
        Clearance, Patience, ProjectName, Sent, ServiceName, UpstreamAnswer, UpstreamError,
        UpstreamErrorKind,
    },
    transport::{
        self, Endpoint, Limits, Place, Request, Response, Transport, TransportError,
        TransportErrorKind,
    },
};

/// How often a request waits for a place, when its credential dies in the wait.
const WAITS_MAX: usize = 3;

/// One service of one project, on this thread. Clones are the same.
#[derive(Clone)]
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
    /// `operation` is the name under which the request is counted. Nothing is sent without a clearance that is good, if there
    /// is one.
    pub(super) async fn exchange(
        &self,
        operation: &'static str,
        request: &Request,
        clearance: Option<&Clearance>,
    ) -> Result<Response, UpstreamError> {
        let call = Call {
            method: request.method,
            clearance,
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
        // Both questions together wait for the pace no longer than one may.
        let patience = &Patience::default();
        let call = Call {
            method: request.method,
            clearance: None,
            patience,
            fresh_connection: false,
        };
        let response = self.counted("show", request, call).await?;
        let seen = self.judged(read(&response));
        if !response.is_doubtful || speaks_for_itself(&seen) {
            return seen;
        }
        let response = self.read("show", request, patience).await?;
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
            clearance: None,
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
                clearance: call.clearance,
                tried: Cell::new(None),
            };
            let response = self.flow.carry(call, &sending).await?;
            let tried = sending.tried.take();
            let Some((lease, refusal)) =
                tried.and_then(|tried| Some((tried.lease, tried.refusal?)))
            else {
                return Ok(response);
            };
            if !refusal.is_replaced || is_repeated {
                return Err(self
                    .credentials
                    .give_up(&lease, &self.service, refusal.error));
            }
            is_repeated = true;
        }
    }

    /// Makes one attempt, and notes what the answer says of the credential.
    async fn attempt(
        &self,
        request: &Request,
        (lease, place): (Lease, Place),
        limits: Limits,
        clearance: Option<&Clearance>,
    ) -> Result<(Response, Tried), TransportError> {
        let authentication = lease.authenticate(&self.endpoint, request, self.credentials.now());
        let begun = Instant::now();
        let headers = &authentication.headers;
        let sending = self
            .transport
            .send_once((place, limits), &self.endpoint, headers, request);
        // A connection can take long to be made.
        let is_known = self.credentials.watch(&lease);
        let clearance = clearance.cloned();
        let is_cleared = move || {
            clearance
                .as_ref()
                .is_none_or(|clearance| clearance.is_good(Instant::now()))
        };
        let result = transport::while_good(move || is_known() && is_cleared(), sending).await;
        self.metrics
            .exchanged(self.service.as_str(), begun.elapsed());
        let mut response = result?;
        if shows_accepted_credential(&self.service, &response) {
            self.credentials.worked(&lease, &self.service);
        }
        response.request_id = response.request_id.map(|id| self.names.masked(&id));
        // The service may know those before this one, and what came meanwhile.
        let recent = self.credentials.recent(&self.project);
        let mut secrets = lease.secrets();
        secrets.extend(&authentication.signature);
        secrets.extend(recent.iter().flat_map(Credential::secrets));
        let response = echo::without_secrets(response, &secrets);
        let refusal = refused_credential_code(&response).map(|code| {
            // If it is sent twice, it must not be taken for a refusal of the next credential.
            self.transport.distrust();
            let error = self.refusal(&lease, &response, code);
            let is_replaced = self.credentials.refused(&lease, &self.service, &error);
            Refusal { error, is_replaced }
        });
        Ok((response, Tried { lease, refusal }))
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
    clearance: Option<&'a Clearance>,
    /// That of the last attempt.
    tried: Cell<Option<Tried>>,
}

/// A credential that a service was shown.
struct Tried {
    lease: Lease,
    refusal: Option<Refusal>,
}

/// That it was refused, which is noted.
struct Refusal {
    error: UpstreamError,
    /// Whether the request may be tried with another one at once.
    is_replaced: bool,
}

impl Exchange for Sending<'_> {
    type Means = (Lease, Place);

    async fn at_hand(&self) -> Result<Option<Self::Means>, UpstreamError> {
        let Session {
            transport,
            credentials,
            project,
            service,
            ..
        } = self.session;
        // An attempt before this one must not keep it waiting.
        drop(self.tried.take());
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

    async fn send(&self, means: Self::Means, mut limits: Limits) -> Attempt {
        let (session, request) = (self.session, self.request);
        let (response, tried) = if means.0.is_on_trial() {
            // What is taken for an answer to keys that are tried must be one.
            limits.fresh_connection = true;
            let (session, request, method) = (session.clone(), request.clone(), request.method);
            let clearance = self.clearance.cloned();
            let trial = async move {
                let clearance = clearance.as_ref();
                session.attempt(&request, means, limits, clearance).await
            };
            // A task of its own: the vendor counts wrong signatures, also if whoever asked has left before the answer.
            let trial = transport::taken_along(trial.in_current_span());
            let tried = spawn_local(trial).await;
            tried.unwrap_or_else(|_| {
                let lost = TransportErrorKind::Interrupted;
                Err(TransportError::new(lost, method))
            })?
        } else {
            session
                .attempt(request, means, limits, self.clearance)
                .await?
        };
        self.tried.set(Some(tried));
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

fn class(status: u16) -> &'static str {
    match status {
        ..300 => "ok",
        300..400 => "http-3xx",
        400..500 => "http-4xx",
        500.. => "http-5xx",
    }
}
