//! What the keeper knows of one project, and what it makes of failures.

use std::rc::Rc;

use tokio::{sync::oneshot, task::Id};

use super::super::{
    CredentialResult,
    attempts::{Identity, Urgency},
    backoff::Backoff,
    clerk::Account,
    vault::Vault,
};
use crate::domain::service::UpstreamError;

/// What the keeper knows of one project.
pub(super) struct Desk {
    pub(super) account: Rc<Account>,
    pub(super) login: Option<(Id, Urgency)>,
    pub(super) waiting: Vec<oneshot::Sender<CredentialResult>>,
    pub(super) failures: Backoff,
    /// Replacements that could not be had, or that a service refused, so that what they were to
    /// replace serves on. They rest for a while then, but a credential that is needed is obtained
    /// all the same.
    pub(super) replacements: Backoff,
    /// The secret that was refused, if the last failure was such a one.
    pub(super) refused: Option<Identity>,
    /// The failure that the log knows of.
    pub(super) told: Option<Told>,
}

/// A failure, as far as the same one is not told again: its kind, status and code, and whether
/// anybody waits for its result.
type Told = (&'static str, Option<u16>, Option<String>, bool);

impl Desk {
    pub(super) fn new(account: Account) -> Self {
        Self {
            account: Rc::new(account),
            login: None,
            waiting: Vec::new(),
            failures: Backoff::default(),
            replacements: Backoff::default(),
            refused: None,
            told: None,
        }
    }

    /// Notes that the vendor was asked in vain, perhaps because it refused this secret.
    pub(super) fn failed(
        &mut self,
        error: UpstreamError,
        secret: Option<Identity>,
        vault: &Vault,
    ) -> UpstreamError {
        if secret.is_some() && secret != self.refused {
            // Whoever has put another one in its place wants to know how it fares.
            self.told = None;
        }
        self.refused = secret;
        let kind = self.account.kind().as_str();
        vault.metrics.credential_refresh(kind, error.kind.as_str());
        let error = self.withheld(error, vault);
        let backoff = if self.waiting.is_empty() {
            &mut self.replacements
        } else {
            &mut self.failures
        };
        backoff.failed(error, vault.clock.now())
    }

    /// Notes that there is no credential, although the vendor was not asked. Nothing rests for it:
    /// the next who needs one reads the secret again.
    pub(super) fn withheld(&mut self, error: UpstreamError, vault: &Vault) -> UpstreamError {
        self.tell(&error);
        let now = vault.clock.now();
        vault.logins.failed(&self.account.project, &error, now);
        error
    }

    /// Notes which secret there is. Nothing rests any longer for the refusal of another one.
    pub(super) fn forget_refusal_of_another(&mut self, secret: Identity) {
        if self.refused.is_some_and(|refused| refused != secret) {
            self.refused = None;
            self.failures.forget();
            self.replacements.forget();
        }
    }

    /// Logs a failure that is another one than the last.
    fn tell(&mut self, error: &UpstreamError) {
        let answer = error.answer.as_ref();
        let status = answer.map(|answer| answer.status);
        let code = answer.and_then(|answer| answer.error_code.clone());
        let is_waited_for = !self.waiting.is_empty();
        let told = Some((error.kind.as_str(), status, code.clone(), is_waited_for));
        if self.told == told {
            return;
        }
        self.told = told;
        tracing::warn!(
            project = %self.account.project,
            kind = error.kind.as_str(),
            status,
            code,
            rests_s = error.retry_after.map(|rest| rest.as_secs()),
            %error,
            "the login failed"
        );
    }
}
