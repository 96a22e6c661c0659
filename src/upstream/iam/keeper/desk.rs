//! What the keeper knows of one project, and what it makes of failures.

use std::{rc::Rc, time::Duration};

use tokio::{sync::oneshot, task::Id};

use super::super::{
    CredentialResult, attempts::Identity, backoff::Backoff, clerk::Account, vault::Vault,
};
use crate::domain::service::{UpstreamError, UpstreamErrorKind, status::CredentialKind};

/// So many tokens may be fetched one behind the other, and then one more in each [`TOKEN_EVERY`]: a service that refuses good
/// ones now and then must not lead to a login for each.
const TOKENS_MAX: u32 = 20;
const TOKEN_EVERY: Duration = Duration::from_secs(3);

/// What the keeper knows of one project.
pub(super) struct Desk {
    pub(super) account: Rc<Account>,
    pub(super) login: Option<Id>,
    pub(super) waiting: Vec<oneshot::Sender<CredentialResult>>,
    pub(super) failures: Backoff,
    /// Replacements that could not be had, or that a service refused, so that what they were to replace serves on. They
    /// rest for a while then, but a credential that is needed is obtained all the same.
    pub(super) replacements: Backoff,
    /// The secret that was refused, if the last failure was such a one.
    pub(super) refused: Option<Identity>,
    /// The failure that the log knows of.
    pub(super) told: Option<Told>,
    /// When as many tokens may be fetched again as ever, on [`Clock::uptime`](crate::domain::clock::Clock::uptime).
    tokens_free_at: Duration,
}

/// A failure, as far as the same one is not told again.
type Told = (UpstreamErrorKind, Option<u16>, Option<String>);

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
            tokens_free_at: Duration::ZERO,
        }
    }

    /// How long no token is fetched, since too many were. `None`: one may be.
    pub(super) fn tokens_rest(&self, uptime: Duration) -> Option<Duration> {
        let spent = self.tokens_free_at.saturating_sub(uptime);
        let left = spent.checked_sub(TOKEN_EVERY * (TOKENS_MAX - 1))?;
        (!left.is_zero()).then_some(left)
    }

    /// Notes that a token was fetched.
    pub(super) fn token_fetched(&mut self, uptime: Duration) {
        self.tokens_free_at = self.tokens_free_at.max(uptime) + TOKEN_EVERY;
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
        count(vault, self.account.kind(), error.kind.as_str());
        let error = self.withheld(error, vault);
        let backoff = if self.waiting.is_empty() {
            &mut self.replacements
        } else {
            &mut self.failures
        };
        backoff.failed(error, vault.clock.now())
    }

    /// Notes that there is no credential, although the vendor was not asked. Nothing rests for it: the next who needs one
    /// reads the secret again.
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
        let told = Some((error.kind, status, code.clone()));
        if self.told == told {
            return;
        }
        self.told = told;
        tracing::warn!(
            project = %self.account.project,
            kind = error.kind.as_str(),
            status,
            code,
            %error,
            "the login failed"
        );
    }
}

/// Counts what came of an attempt to obtain a credential.
pub(super) fn count(vault: &Vault, kind: CredentialKind, result: &'static str) {
    if kind == CredentialKind::Password {
        vault.metrics.login(result);
    }
    vault.metrics.credential_refresh(kind.as_str(), result);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::service::ProjectName, transport::Endpoint, upstream::iam::CredentialSettings,
    };

    #[test]
    fn tokens_are_fetched_twenty_behind_each_other_and_then_one_in_three_seconds() {
        let mut desk = Desk::new(Account {
            project: ProjectName::parse("prod").unwrap(),
            project_id: String::new(),
            endpoint: Endpoint::parse("https://iam.example").unwrap(),
            credentials: CredentialSettings::EcsAgency {
                metadata_address: String::new(),
            },
        });
        let second = Duration::from_secs;
        for _ in 0..TOKENS_MAX {
            assert_eq!(desk.tokens_rest(second(100)), None);
            desk.token_fetched(second(100));
        }
        assert_eq!(desk.tokens_rest(second(100)), Some(second(3)));
        assert_eq!(desk.tokens_rest(second(102)), Some(second(1)));
        assert_eq!(desk.tokens_rest(second(103)), None);
        desk.token_fetched(second(103));
        assert_eq!(desk.tokens_rest(second(103)), Some(second(3)));
        assert_eq!(desk.tokens_rest(second(200)), None);
    }
}
