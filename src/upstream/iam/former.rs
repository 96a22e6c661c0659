//! The secret that worked before the present one, which the vendor may come to know later than the
//! gateway, or one of its services later than another.

use std::time::Duration;

use super::{
    attempts::{Identity, Trials, Urgency},
    clerk::{Account, Clerk, Failure},
    credential::{Credential, Proof},
    vault::Proven,
};
use crate::{domain::service::UpstreamError, upstream::CredentialSettings};

/// What a credential is obtained with.
#[derive(Clone, Copy)]
enum Secret<'a> {
    /// What the account's secrets say just now.
    Present,
    /// What this one was obtained with.
    Former(&'a Credential),
}

/// The secret that worked before the present one.
struct Former {
    credential: Credential,
    /// How many refusals of the present one let it go first.
    goes_first_from: usize,
}

impl Clerk {
    /// Obtains a credential for the account. Where one is needed, the secret that worked before the
    /// present one does as well.
    pub(super) async fn obtain(
        &self,
        account: &Account,
        urgency: Urgency,
        proven: Option<Proven>,
    ) -> Result<Credential, Failure> {
        let (Urgency::Needed, Some(proven)) = (urgency, proven) else {
            return self.obtain_by_present(account, urgency).await;
        };
        let Some(present) = self.identity(account).await else {
            return self.obtain_by_present(account, urgency).await;
        };
        let Some(former) = Former::to(present, proven) else {
            return self.obtain_by_present(account, urgency).await;
        };
        let [first, second] = self.in_order(present, &former);
        let failure = match self.obtain_by(account, first).await {
            Err(failure) if failure.is_of_secret() => failure,
            result => return result,
        };
        let result = self.obtain_by(account, second).await;
        result.map_err(|other| other.or_sooner(failure))
    }

    /// What is tried first: what does not rest. Of two that do or do not, the former one, unless it
    /// was refused more often, or the present one too seldom to be doubted.
    fn in_order<'a>(&self, present: Identity, former: &'a Former) -> [Secret<'a>; 2] {
        let uptime = self.clock.uptime();
        let present = self.attempts.borrow_mut().of(present, uptime);
        let fares = |trials: &Trials| {
            let mut refusals = trials.refusals();
            (refusals.count(uptime), refusals.rests(uptime))
        };
        let (refused, present_rests) = fares(&present);
        let (of_former, former_rests) = fares(former.credential.trials());
        let is_doubted = refused >= former.goes_first_from;
        let (former, present) = (Secret::Former(&former.credential), Secret::Present);
        let former_is_first = if former_rests == present_rests {
            is_doubted && of_former <= refused
        } else {
            present_rests
        };
        if former_is_first {
            [former, present]
        } else {
            [present, former]
        }
    }

    async fn obtain_by(
        &self,
        account: &Account,
        secret: Secret<'_>,
    ) -> Result<Credential, Failure> {
        let Secret::Former(former) = secret else {
            return self.obtain_by_present(account, Urgency::Needed).await;
        };
        let result = match (&account.credentials, former.proof()) {
            (CredentialSettings::Password { domain, user, .. }, Proof::Token { password, .. }) => {
                // Once, since the vendor counts all wrong passwords of a user.
                let urgency = Urgency::CanWait;
                self.log_in(account, [domain, user], password.clone(), urgency)
                    .await
            }
            (CredentialSettings::AccessKey { .. }, Proof::Keys(keys)) => {
                self.admit(account, keys.clone(), None, Urgency::Needed)
            }
            // It is of another kind than the account, or its keys change by themselves.
            (_, _) => return self.obtain_by_present(account, Urgency::Needed).await,
        };
        if let Ok(credential) = &result {
            credential.set_former();
            tracing::warn!(
                project = %account.project,
                "the present secret is not taken: the one that worked before it is used"
            );
        }
        // What keeps others from being tried is the present one.
        result.map_err(|failure| match failure {
            Failure::Refused(error, _) | Failure::Spared(error) => Failure::Withheld(error),
            Failure::Fault(_) | Failure::Withheld(_) => failure,
        })
    }
}

impl Former {
    /// That of an account with this secret, if there is one.
    fn to(present: Identity, proven: Proven) -> Option<Self> {
        if proven.last.identity() == present {
            // It is obsolete, most likely.
            let before = proven.before.filter(|before| !before.was_refused());
            return before.map(|credential| Self {
                credential,
                goes_first_from: Urgency::Needed.most(),
            });
        }
        // A password that was refused since is known to be wrong.
        let is_proven = proven.last.trials().refusals().is_proven();
        is_proven.then_some(Self {
            credential: proven.last,
            goes_first_from: 1,
        })
    }
}

impl Failure {
    /// Whether another secret may fare better.
    fn is_of_secret(&self) -> bool {
        match self {
            Self::Refused(..) | Self::Withheld(_) => true,
            Self::Fault(_) | Self::Spared(_) => false,
        }
    }

    /// What is to be told of two secrets of which neither can be used: that the present one was
    /// refused, or which may be tried sooner.
    fn or_sooner(self, other: Self) -> Self {
        match (self, other) {
            (Self::Withheld(one), Self::Withheld(other)) => {
                let wait = |error: &UpstreamError| error.retry_after.unwrap_or(Duration::MAX);
                let is_sooner = wait(&one) <= wait(&other);
                Self::Withheld(if is_sooner { one } else { other })
            }
            (Self::Withheld(_), refused @ Self::Refused(..)) => refused,
            (failure, _) => failure,
        }
    }
}
