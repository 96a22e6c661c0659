//! The secret that worked before the present one, which the vendor may come to know later than the
//! gateway, or one of its services later than another.

use std::time::Duration;

use super::{
    attempts::{Identity, Trials, Urgency},
    clerk::{Account, Clerk, Failure},
    credential::{Credential, KeyPair, Proof},
    vault::Proven,
};
use crate::{domain::service::UpstreamError, upstream::CredentialSettings};

/// What a credential is obtained with.
#[derive(Clone, Copy)]
enum Secret<'a> {
    /// What the account's secrets say just now.
    Present(Urgency),
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
    /// Obtains a credential for the account. With something `proven`, the secret that worked before
    /// the present one does as well.
    pub(super) async fn obtain(
        &self,
        account: &Account,
        urgency: Urgency,
        proven: Option<Proven>,
    ) -> Result<Credential, Failure> {
        let Some(proven) = proven else {
            return self.obtain_by_present(account, urgency).await;
        };
        let Some(present) = self.identity(account).await else {
            return self.obtain_by_present(account, urgency).await;
        };
        let Some(former) = Former::to(present, proven) else {
            return self.obtain_by_present(account, urgency).await;
        };
        let order = self.order(&former, present, urgency);
        let failure = match self.obtain_by(account, order[0]).await {
            Err(failure) if failure.is_of_secret() => failure,
            result => return result,
        };
        let result = self.obtain_by(account, order[1]).await;
        result.map_err(|other| other.or_sooner(failure))
    }

    /// What is tried first where one is needed: what rests for less long. Of two that do not rest
    /// it is the former one, unless it was refused more often, or the present one too seldom to be
    /// doubted.
    fn order<'a>(
        &self,
        former: &'a Former,
        present: Identity,
        urgency: Urgency,
    ) -> [Secret<'a>; 2] {
        let uptime = self.clock.uptime();
        let present = self.attempts.borrow_mut().of(present, uptime);
        let fares = |trials: &Trials| {
            let mut refusals = trials.refusals();
            (refusals.count(uptime), refusals.rest(uptime))
        };
        let (refused, rest) = fares(&present);
        let (refused_before, rest_before) = fares(former.credential.trials());
        let is_doubted = refused >= former.goes_first_from && refused_before <= refused;
        let goes_first = rest_before < rest || rest_before == rest && is_doubted;
        let former = Secret::Former(&former.credential);
        match urgency {
            Urgency::Needed if goes_first => [former, Secret::Present(urgency)],
            // If another project finds out first that it is refused, its last try is kept.
            Urgency::Needed if refused == 0 => [Secret::Present(Urgency::CanWait), former],
            Urgency::Needed | Urgency::CanWait | Urgency::Former => {
                [Secret::Present(urgency), former]
            }
        }
    }

    async fn obtain_by(
        &self,
        account: &Account,
        secret: Secret<'_>,
    ) -> Result<Credential, Failure> {
        let former = match secret {
            Secret::Present(urgency) => return self.obtain_by_present(account, urgency).await,
            Secret::Former(former) => former,
        };
        let result = match (&account.credentials, former.proof()) {
            (CredentialSettings::Password { domain, user, .. }, Proof::Token { password, .. }) => {
                let password = password.clone();
                self.log_in(account, [domain, user], password, Urgency::Former)
                    .await
            }
            (CredentialSettings::AccessKey { .. }, Proof::Keys(keys)) => {
                let keys = KeyPair {
                    project_id: account.project_id.clone(),
                    ..keys.clone()
                };
                self.admit(account, keys, None, Urgency::Needed)
            }
            // An account has always been of one kind.
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
            Failure::Refused(error, _) => Failure::Withheld(error),
            Failure::Fault(_) | Failure::Withheld(_) | Failure::Spared(_) => failure,
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
        Some(Self {
            credential: proven.last,
            goes_first_from: 1,
        })
    }
}

impl Failure {
    /// Whether another secret may fare better.
    fn is_of_secret(&self) -> bool {
        match self {
            Self::Refused(..) | Self::Withheld(_) | Self::Spared(_) => true,
            Self::Fault(_) => false,
        }
    }

    /// What is to be told of two secrets of which neither can be used: that the present one was
    /// refused or spared, or which may be tried sooner.
    fn or_sooner(self, other: Self) -> Self {
        match (self, other) {
            (Self::Withheld(one), Self::Withheld(other)) => {
                let wait = |error: &UpstreamError| error.retry_after.unwrap_or(Duration::MAX);
                let is_sooner = wait(&one) <= wait(&other);
                Self::Withheld(if is_sooner { one } else { other })
            }
            (Self::Withheld(_), present @ (Self::Refused(..) | Self::Spared(_))) => present,
            (failure, _) => failure,
        }
    }
}
