//! One service of one project, spoken to with the project's credential.

mod check;
mod sending;
#[cfg(test)]
mod tests;
mod verdict;

use std::{cell::Cell, rc::Rc};

use self::{
    check::Check,
    sending::{Refusal, Sending},
};
use super::{
    answer::{self, Codes},
    echo,
    flow::{Call, Flow},
    iam::{self, Credentials, Site},
    metrics::Metrics,
};
use crate::{
    domain::service::{
        Clearance, Patience, ProjectName, Sent, ServiceName, UpstreamError, UpstreamErrorKind,
    },
    transport::{Purpose, Request, Response, Transport},
};

/// How often a request is sent again because the credential that it showed was refused.
const REPEATS_MAX: u32 = 2;

/// One service of one project, on this thread. Clones are the same.
#[derive(Clone)]
pub(super) struct Session {
    transport: Rc<Transport>,
    credentials: Credentials,
    project: ProjectName,
    site: Site,
    codes: &'static Codes,
    names: echo::Names,
    flow: Flow,
    metrics: Metrics,
    check: Option<Check>,
}

impl Session {
    /// The service.
    pub(super) fn service(&self) -> &ServiceName {
        &self.site.service
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
        site: Site,
        codes: &'static Codes,
        names: echo::Names,
        flow: Flow,
        metrics: Metrics,
    ) -> Self {
        Self {
            transport,
            credentials,
            project,
            site,
            codes,
            names,
            flow,
            metrics,
            check: None,
        }
    }

    /// The same, which finds out by a read that is about no task whether a credential is dead that
    /// the service calls so.
    pub(super) fn checking_by(self, request: Request) -> Self {
        Self {
            check: Some(Check::by(request)),
            ..self
        }
    }

    /// Sends a request with a token or a signature and gives back whatever complete answer comes,
    /// refusals of every kind included, unless the answer says that the credential is dead. Then it
    /// is replaced and the request is sent again, which is safe since it was not carried out. If
    /// the replacement is refused too, that is [`UpstreamErrorKind::CredentialsRefused`], also for
    /// the next requests of a while; or, if it is a token and the service has accepted others, it
    /// is replaced once more, and then that is [`UpstreamErrorKind::Unavailable`] at first. Words
    /// of the service's own that call a credential dead count if it says the same to a read that is
    /// about no task.
    ///
    /// `operation` is the name under which the request is counted. Nothing is sent without a
    /// clearance that is good, if there is one.
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
    /// Whatever else comes over a connection that has carried another request may be the answer to
    /// that, sent twice. It is asked for once more, over a connection of its own, before anybody is
    /// told that there is no such task, or that it must not be seen. What leads to another try
    /// anyhow, such as a fault of the service, is told as it is.
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

    /// As [`Session::exchange`], for a read that has only so much patience left for the pace, over
    /// a connection of its own: a list does not say whose it is.
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
            .request(self.site.service.as_str(), operation, outcome);
        result
    }

    /// What was read from an answer. One that makes no sense may be that to another request, when a
    /// service has sent more answers than it was asked for.
    pub(super) fn judged<T>(&self, read: Result<T, UpstreamError>) -> Result<T, UpstreamError> {
        if let Err(error) = &read
            && error.kind == UpstreamErrorKind::Malformed
        {
            self.transport.distrust();
        }
        read
    }

    async fn perform(&self, request: &Request, call: Call<'_>) -> Result<Response, UpstreamError> {
        let mut repeats = 0;
        // What was refused was not carried out, but whether a change was is looked at in doubt.
        let untold = |error| match request.method.purpose() {
            Purpose::Read => error,
            Purpose::Change => UpstreamError {
                sent: Sent::Unknown,
                ..error
            },
        };
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
            let Some(tried) = sending.tried.take() else {
                return Ok(response);
            };
            let (error, is_replaced) = match tried.refusal {
                Some(Refusal {
                    error, is_replaced, ..
                }) => (error, is_replaced),
                None if tried.is_blamed
                    && self.is_dead(&tried.credential).await.map_err(untold)? =>
                {
                    let code = answer::error_code(&response.body).map(|(code, _)| code);
                    let error = self.refusal(&tried.credential, &response, code);
                    let is_replaced =
                        self.credentials
                            .refused(&tried.credential, &self.site, &error);
                    (error, is_replaced)
                }
                None => return Ok(response),
            };
            if !is_replaced {
                return Err(self
                    .credentials
                    .give_up(&tried.credential, &self.site, error));
            }
            if repeats == REPEATS_MAX {
                // Others were let in meanwhile: the service is not to be left alone for it.
                return Err(iam::passing(&self.site.service, error));
            }
            repeats += 1;
        }
    }

    /// Whether the service may be asked: not if it has refused fresh credentials a moment ago.
    fn may_ask(&self) -> Result<(), UpstreamError> {
        let error = self.credentials.given_up(&self.project, &self.site);
        error.map_or(Ok(()), Err)
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
            | Kind::CredentialsResting
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
