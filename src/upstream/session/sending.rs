//! One request, sent with a credential, and what the answer says of that.

use std::{cell::Cell, time::Instant};

use bytes::Bytes;
use tokio::{task::spawn_local, time::timeout_at};
use tracing::Instrument as _;

use super::{
    Session,
    verdict::{
        blames_credential, is_mute_refusal, refused_credential_code, shows_accepted_credential,
        wrong_signature,
    },
};
use crate::{
    domain::{
        secret::Mask,
        service::{Clearance, Sent, UpstreamAnswer, UpstreamError, UpstreamErrorKind},
    },
    transport::{self, Limits, Place, Request, Response, TransportError, TransportErrorKind},
    upstream::{
        echo, fault,
        flow::{Attempt, Dispatch},
        iam::{Credential, Lease},
    },
};

/// How often a request waits for a place, when its credential dies in the wait.
const WAITS_MAX: usize = 3;

/// A request that is sent with a credential.
pub(super) struct Sending<'a> {
    pub(super) session: &'a Session,
    pub(super) request: &'a Request,
    pub(super) clearance: Option<&'a Clearance>,
    /// That of the last attempt.
    pub(super) tried: Cell<Option<Tried>>,
}

/// A credential that a service was shown.
pub(super) struct Tried {
    pub(super) credential: Credential,
    pub(super) is_accepted: bool,
    /// Whether the service calls it dead in words of its own.
    pub(super) is_blamed: bool,
    pub(super) refusal: Option<Refusal>,
}

/// That it was refused, which is noted.
pub(super) struct Refusal {
    /// Held until it is decided what follows.
    _lease: Lease,
    pub(super) error: UpstreamError,
    /// Whether the request may be tried with another one at once.
    pub(super) is_replaced: bool,
}

impl Dispatch for Sending<'_> {
    type Means = (Lease, Place);

    async fn at_hand(&self) -> Result<Option<Self::Means>, UpstreamError> {
        let Session {
            transport,
            credentials,
            project,
            site,
            ..
        } = self.session;
        // The credential from before the wait may be known to be dead.
        self.session.may_ask()?;
        let lease = credentials.lease_now(project, site).await;
        let Some((lease, place)) = lease.zip(transport.place_now(self.request.method)) else {
            return Ok(None);
        };
        Ok(Some((credentials.admit(lease, site)?, place)))
    }

    async fn wait(&self, by: Option<tokio::time::Instant>) -> Result<Self::Means, UpstreamError> {
        let session = self.session;
        let failed = |error| {
            let begun = format!(
                "The exchange with the service {} failed",
                session.site.service
            );
            fault::of_transport(&begun, error)
        };
        let late = || {
            failed(TransportError::new(
                TransportErrorKind::Busy,
                self.request.method,
            ))
        };
        for _ in 0..WAITS_MAX {
            let lease = session.credentials.lease(&session.project, &session.site);
            let lease = match by {
                Some(by) => timeout_at(by, lease).await.map_err(|_| late())?,
                None => lease.await,
            }?;
            let place = session.transport.place(self.request.method, by).await;
            let place = place.map_err(failed)?;
            // It can have died in the wait for the place, which others may use while another one is
            // obtained.
            if lease.is_good(session.credentials.now()) {
                return Ok((session.credentials.admit(lease, &session.site)?, place));
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
            // A task of its own: the vendor counts wrong signatures, also if whoever asked has left
            // before the answer.
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

impl Session {
    /// Makes one attempt, and notes what the answer says of the credential.
    async fn attempt(
        &self,
        request: &Request,
        (lease, place): (Lease, Place),
        limits: Limits,
        clearance: Option<&Clearance>,
    ) -> Result<(Response, Tried), TransportError> {
        let authentication =
            lease.authenticate(&self.site.endpoint, request, self.credentials.now());
        let begun = Instant::now();
        let headers = &authentication.headers;
        let sending =
            self.transport
                .send_once((place, limits), &self.site.endpoint, headers, request);
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
            .exchanged(self.site.service.as_str(), begun.elapsed());
        let mut response = result.inspect_err(|error| self.note_fault(&lease, *error))?;
        let code = refused_credential_code(&response);
        let is_accepted = code.is_none()
            && shows_accepted_credential(
                (&self.site.service, self.codes),
                request.method,
                &response,
            );
        if is_accepted {
            self.credentials.worked(&lease, &self.site);
        }
        // Who tries keys takes no chance: the vendor counts wrong signatures, however the answer
        // comes.
        let is_doubted = lease.is_on_trial() && is_mute_refusal(&response);
        response.request_id = response.request_id.map(|id| self.names.masked(&id));
        // Among them is what came meanwhile.
        let beside = self.credentials.shown_beside(&lease);
        let signature = Mask::new(&authentication.signature);
        let mut masks = vec![lease.mask(), &signature];
        masks.extend(beside.iter().map(Credential::mask));
        let response = echo::without_secrets(response, &masks);
        let is_blamed = blames_credential(self.codes, &response);
        let credential = Credential::clone(&lease);
        let refusal = (code.is_some() || is_doubted).then(|| {
            // If it is sent twice, it must not be taken for a refusal of the next credential.
            self.transport.distrust();
            let error = self.refusal(&lease, &response, code);
            let is_replaced = self.credentials.refused(&lease, &self.site, &error);
            Refusal {
                _lease: lease,
                error,
                is_replaced,
            }
        });
        let tried = Tried {
            credential,
            is_accepted,
            is_blamed,
            refusal,
        };
        Ok((response, tried))
    }

    /// An answer of which only the head came whole may have refused the keys that were tried, and
    /// the vendor counts that.
    fn note_fault(&self, lease: &Lease, error: TransportError) {
        if error.status == Some(401) && lease.is_on_trial() {
            let response = Response {
                status: 401,
                body: Bytes::new(),
                request_id: None,
                retry_after: None,
                is_doubtful: false,
            };
            let refusal = self.refusal(lease, &response, None);
            self.credentials.refused(lease, &self.site, &refusal);
        }
    }

    pub(super) fn refusal(
        &self,
        credential: &Credential,
        response: &Response,
        code: Option<String>,
    ) -> UpstreamError {
        let service = &self.site.service;
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
                service: service.as_str().to_owned(),
                status: response.status,
                error_code: code,
                error_msg: None,
                request_id: response.request_id.clone(),
            })),
            detail,
        }
    }
}
