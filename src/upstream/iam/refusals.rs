//! What services say of credentials: which are not given out any more, and which services are left alone.

use std::{collections::HashMap, sync::PoisonError, time::Duration};

use super::{Credential, Credentials, backoff::Backoff, keeper::Command};
use crate::domain::service::{ProjectName, ServiceName, UpstreamError};

/// A credential that a service refuses along with the one before it is not replaced until it is this old: it is the
/// service that refuses, for instance because it belongs to another region.
const REPLACED_AGAIN_AFTER: Duration = Duration::from_mins(15);
/// What a service has refused since it last accepted a credential.
#[derive(Default)]
pub(super) struct Refusal {
    /// The credential that was replaced for it. Serials begin with 1.
    replaced: u64,
    /// The credential that was refused in spite of that.
    given_up: u64,
    backoff: Backoff,
}

impl Credentials {
    /// Notes that a service accepted the credential.
    pub(crate) fn worked(&self, credential: &Credential, service: &ServiceName) {
        if credential.set_worked() && credential.signs() {
            self.vault
                .logins
                .logged_in(credential.project(), self.now());
        }
        let refusal = self.with_refusals(|refusals| {
            let key = (credential.project().clone(), service.clone());
            refusals.remove(&key)
        });
        if let Some(refusal) = refusal {
            self.vault.logins.accepted(credential.project());
            if refusal.given_up != 0 {
                tracing::info!(
                    project = %credential.project(),
                    service = %service,
                    "the service accepts the gateway's credentials again"
                );
            }
        }
    }

    /// Notes that a service refused the credential with this error, and tells whether the request may be tried with
    /// another one: the one that worked before it, if it never did, or else a new one. Then nobody is given this one any
    /// more. Otherwise the fault is rather the service's, see [`Credentials::give_up`]; keys are not given out all the same,
    /// since the vendor counts wrong signatures.
    pub(crate) async fn refused(
        &self,
        credential: &Credential,
        service: &ServiceName,
        error: &UpstreamError,
    ) -> bool {
        self.vault.metrics.token_refused(service.as_str());
        let is_replaced = self.is_replaced(credential, service);
        if !is_replaced && !credential.signs() {
            return false;
        }
        credential.set_refused(error, self.now());
        let has_successor = credential.previous(self.now()).is_some();
        // Of many who used it at the same time, one reports it.
        if self.vault.remove(credential).await {
            tracing::warn!(
                project = %credential.project(),
                service = %service,
                kind = credential.kind().as_str(),
                "a token or a signature was refused"
            );
            if !credential.has_worked() {
                // That it was obtained is counted as well.
                let (kind, result) = (credential.kind().as_str(), error.kind.as_str());
                self.vault.metrics.credential_refresh(kind, result);
            }
            if has_successor {
                // What worked before it serves on, but somebody should know.
                let now = self.now();
                self.vault.logins.failed(credential.project(), error, now);
                // Lost only if the thread is busy beyond measure; then a replacement is obtained sooner.
                let _ = self.commands.try_send(Command::Restored {
                    project: credential.project().clone(),
                    identity: credential.identity(),
                    error: error.clone(),
                });
            }
        }
        is_replaced
    }

    /// Whether a refused credential is to be replaced: not if it has itself replaced one that was refused, and no service
    /// has accepted one since.
    fn is_replaced(&self, credential: &Credential, service: &ServiceName) -> bool {
        let (project, serial) = (credential.project(), credential.serial());
        let is_old = credential.age(self.now()) >= REPLACED_AGAIN_AFTER;
        self.with_refusals(|refusals| {
            let key = (project.clone(), service.clone());
            let is_doubted = if let Some(refusal) = refusals.get(&key) {
                refusal.replaced != serial
            } else {
                // Nobody has accepted it, and it has replaced one that another service refused.
                let mut others = refusals.iter().filter(|((other, _), _)| other == project);
                !credential.has_worked()
                    && others.any(|(_, refusal)| ![0, serial].contains(&refusal.replaced))
            };
            if is_doubted && !is_old {
                return false;
            }
            refusals.entry(key).or_default().replaced = serial;
            true
        })
    }

    /// Notes that a credential was refused which cannot be replaced by a better one, so that the service is left alone for
    /// a while: either it is dead from the beginning, or the service belongs to another region, and further logins mend
    /// neither. The error comes back with the time until then.
    pub(crate) fn give_up(
        &self,
        credential: &Credential,
        service: &ServiceName,
        error: UpstreamError,
    ) -> UpstreamError {
        let now = self.now();
        self.with_refusals(|refusals| {
            let key = (credential.project().clone(), service.clone());
            let refusal = refusals.entry(key).or_default();
            // Many may have used the same one at the same time.
            if refusal.given_up == credential.serial()
                && let Some(error) = refusal.backoff.remembered(now)
            {
                return error;
            }
            let is_news = refusal.given_up == 0;
            refusal.given_up = credential.serial();
            self.vault.logins.refused(credential.project(), &error, now);
            if is_news {
                let answer = error.answer.as_ref();
                tracing::warn!(
                    project = %credential.project(),
                    service = %service,
                    status = answer.map(|answer| answer.status),
                    code = answer.and_then(|answer| answer.error_code.clone()),
                    %error,
                    "the service refuses the gateway's credentials, fresh ones too: it is left alone for a while"
                );
            }
            refusal.backoff.failed(error, now)
        })
    }

    /// The error that stands in for a request, while a service is left alone.
    pub(crate) fn given_up(
        &self,
        project: &ProjectName,
        service: &ServiceName,
    ) -> Option<UpstreamError> {
        let now = self.now();
        self.with_refusals(|refusals| {
            let refusal = refusals.get(&(project.clone(), service.clone()))?;
            refusal.backoff.remembered(now)
        })
    }

    fn with_refusals<T>(
        &self,
        work: impl FnOnce(&mut HashMap<(ProjectName, ServiceName), Refusal>) -> T,
    ) -> T {
        // The map is whole between any two statements, so a panic elsewhere does not spoil it.
        work(&mut self.refusals.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
