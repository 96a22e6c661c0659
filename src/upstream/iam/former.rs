//! The secret that worked before the present one, which the vendor may come to know later than the
//! gateway.

use super::{
    attempts::{Identity, Urgency},
    clerk::{Account, Clerk, Failure},
    credential::{Credential, Proof},
};
use crate::upstream::CredentialSettings;

impl Clerk {
    /// Obtains a credential for the account. Where one is needed, the secret that was last proven
    /// right does as well as the present one.
    pub(super) async fn obtain(
        &self,
        account: &Account,
        urgency: Urgency,
        proven: Option<Credential>,
    ) -> Result<Credential, Failure> {
        let by_present = || self.obtain_by_present(account, urgency);
        let (Urgency::Needed, Some(former)) = (urgency, proven) else {
            return by_present().await;
        };
        let present = self.identity(account).await;
        let Some(present) = present.filter(|present| *present != former.identity()) else {
            return by_present().await;
        };
        // A password that was refused since is known to be wrong.
        if !former.trials().refusals().is_proven() {
            return by_present().await;
        }
        let by_former = || self.obtain_by_former(account, &former);
        if self.goes_first(&former, present) {
            let failure = match by_former().await {
                Err(failure) if failure.is_of_secret() => failure,
                result => return result,
            };
            let result = by_present().await;
            result.map_err(|present| present.or_sooner(failure))
        } else {
            let failure = match by_present().await {
                Err(failure) if failure.is_of_secret() => failure,
                result => return result,
            };
            let result = by_former().await;
            result.map_err(|former| failure.or_sooner(former))
        }
    }

    /// Whether the former secret is tried before the present one: if it was not refused more often.
    /// One that was never refused is the better one all the same.
    fn goes_first(&self, former: &Credential, present: Identity) -> bool {
        let uptime = self.clock.uptime();
        let present = self.attempts.borrow_mut().of(present, uptime);
        let refused = present.refusals().count(uptime);
        refused > 0 && former.trials().refusals().count(uptime) <= refused
    }

    async fn obtain_by_former(
        &self,
        account: &Account,
        former: &Credential,
    ) -> Result<Credential, Failure> {
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

impl Failure {
    /// Whether another secret may fare better.
    fn is_of_secret(&self) -> bool {
        match self {
            Self::Refused(..) | Self::Withheld(_) => true,
            Self::Fault(_) | Self::Spared(_) => false,
        }
    }

    /// That of the present secret, unless nobody was asked and the former one may be tried sooner.
    fn or_sooner(self, former: Self) -> Self {
        match (self, former) {
            (Self::Withheld(present), Self::Withheld(former))
                if former.retry_after.is_some() && former.retry_after < present.retry_after =>
            {
                Self::Withheld(former)
            }
            (present, _) => present,
        }
    }
}
