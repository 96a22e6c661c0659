//! Who obtains credentials, from whatever source.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
    time::Instant,
};

use super::{
    attempts::{Attempts, Identity, Trials, Urgency},
    credential::{Credential, KeyPair, Parts, Proof},
    lifetime::{Begun, Lifetime},
    login::failure,
};
use crate::{
    domain::{
        clock::Clock,
        secret::{Secret, SecretForm, SecretSource},
        service::{ProjectName, UpstreamError, UpstreamErrorKind, status::CredentialKind},
    },
    transport::{Endpoint, Transport},
    upstream::{AccessKeySource, CredentialSettings, metrics::Metrics, secrets::Secrets},
};

/// How often a pair of keys is read that changes while it is read.
const READINGS: usize = 3;

/// Who is let in where, and for which project.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) project: ProjectName,
    pub(super) project_id: String,
    /// The token service, or the metadata service.
    pub(super) endpoint: Endpoint,
    pub(super) credentials: CredentialSettings,
}

impl Account {
    pub(super) fn kind(&self) -> CredentialKind {
        self.credentials.kind()
    }

    /// Whose credentials they are, whatever the secret is: what comes from the same place may be
    /// shown in the same places. Users of the same name can be those of different clouds.
    pub(super) fn holder(&self) -> Identity {
        match &self.credentials {
            CredentialSettings::Password {
                domain,
                user,
                password,
            } => Identity::of(&["user", domain, user, &format!("{password:?}")]),
            CredentialSettings::AccessKey {
                access_key,
                secret_key,
            } => {
                let places = [format!("{access_key:?}"), format!("{secret_key:?}")];
                Identity::of(&["keys at", &places[0], &places[1]])
            }
            CredentialSettings::EcsAgency { .. } => {
                Identity::of(&["agency", self.project.as_str()])
            }
        }
    }
}

/// Obtains credentials, for all accounts.
pub(super) struct Clerk {
    /// To token services.
    pub(super) transport: Transport,
    /// To metadata services.
    pub(super) local: Transport,
    pub(super) secrets: Secrets,
    pub(super) metrics: Metrics,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) attempts: RefCell<Attempts>,
    pub(super) serial: Cell<u64>,
}

/// What the secrets of an account say just now.
#[derive(Debug)]
pub(super) struct SecretsSeen {
    pub(super) project: ProjectName,
    /// What a credential that is obtained now would be obtained with. `None` if they cannot be
    /// read, or if there are none.
    pub(super) identity: Option<Identity>,
    /// Whether one of them is in a file that is of no use. What that held before may serve.
    pub(super) is_unusable: bool,
}

/// No credential.
#[derive(Debug)]
pub(super) enum Failure {
    /// The vendor was asked, and did not come so far as to judge the secret.
    Fault(UpstreamError),
    /// The vendor was asked, and refused this secret.
    Refused(UpstreamError, Identity),
    /// The vendor was not asked: the secret could not be read, or it was refused too often a short
    /// while ago.
    Withheld(UpstreamError),
    /// No service was asked: the secret was refused a short while ago with this, and what else
    /// there is of tries is kept for when it is needed.
    Spared(UpstreamError),
}

impl Clerk {
    /// Obtains a credential with what the account's secrets say just now.
    pub(super) async fn obtain_by_present(
        &self,
        account: &Account,
        urgency: Urgency,
    ) -> Result<Credential, Failure> {
        match &account.credentials {
            CredentialSettings::Password {
                domain,
                user,
                password,
            } => {
                let password = self.read(account, password, SecretForm::Text).await;
                let password = password.map_err(Failure::Withheld)?;
                self.log_in(account, [domain, user], password, urgency)
                    .await
            }
            CredentialSettings::AccessKey {
                access_key,
                secret_key,
            } => {
                let keys = self.read_keys(account, access_key, secret_key).await;
                let keys = keys.map_err(Failure::Withheld)?;
                self.admit(account, keys, None, urgency)
            }
            CredentialSettings::EcsAgency { .. } => {
                let (keys, lifetime) = self.fetch_keys(account).await.map_err(Failure::Fault)?;
                let admitted = self.admit(account, keys, Some(lifetime), urgency);
                // The metadata service was asked, and must not be asked for the same keys at every
                // request.
                admitted.map_err(|failure| match failure {
                    Failure::Withheld(refusal) => Failure::Fault(refusal),
                    Failure::Fault(_) | Failure::Refused(..) | Failure::Spared(_) => failure,
                })
            }
        }
    }

    /// Looks at the account's secrets.
    pub(super) async fn look(&self, account: &Account) -> SecretsSeen {
        let identity = self.identity(account).await;
        let mut files = account.credentials.secrets();
        SecretsSeen {
            project: account.project.clone(),
            identity,
            is_unusable: files.any(|source| self.secrets.is_unusable(source)),
        }
    }

    /// What the account's secrets are just now, if they can be read; `None` for keys that change by
    /// themselves.
    pub(super) async fn identity(&self, account: &Account) -> Option<Identity> {
        match &account.credentials {
            CredentialSettings::Password {
                domain,
                user,
                password,
            } => {
                let password = self.secrets.read(password, SecretForm::Text).await.ok()?;
                Some(Self::user(domain, user, &password))
            }
            CredentialSettings::AccessKey {
                access_key,
                secret_key,
            } => {
                let keys = self.read_keys(account, access_key, secret_key).await;
                keys.ok().map(|keys| keys.identity())
            }
            CredentialSettings::EcsAgency { .. } => None,
        }
    }

    /// Fails if a secret was refused too often to be tried.
    pub(super) fn may_try(&self, trials: &Trials, urgency: Urgency) -> Result<(), Failure> {
        let refusal = trials.refusals().forbid(self.clock.uptime(), urgency, None);
        match (refusal, urgency) {
            (None, _) => Ok(()),
            (Some(refusal), Urgency::CanWait) => Err(Failure::Spared(refusal)),
            (Some(refusal), Urgency::Needed | Urgency::Former) => Err(Failure::Withheld(refusal)),
        }
    }

    pub(super) fn user(domain: &str, user: &str, password: &Secret) -> Identity {
        Identity::of(&["password", domain, user, password.expose()])
    }

    pub(super) fn begun(&self) -> Begun {
        Begun {
            at: Instant::now(),
            wall: self.clock.now(),
        }
    }

    pub(super) fn credential(
        &self,
        account: &Account,
        (identity, trials): (Identity, Arc<Trials>),
        proof: Proof,
        lifetime: Option<Lifetime>,
    ) -> Credential {
        let serial = self.serial.get() + 1;
        self.serial.set(serial);
        Credential::new(Parts {
            serial,
            project: account.project.clone(),
            kind: account.kind(),
            holder: account.holder(),
            identity,
            trials,
            proof,
            lifetime,
        })
    }

    pub(super) async fn read(
        &self,
        account: &Account,
        source: &SecretSource,
        form: SecretForm,
    ) -> Result<Secret, UpstreamError> {
        self.secrets.read(source, form).await.map_err(|error| {
            // Its place is for operators only, so it is not part of the error that travels to
            // callers.
            tracing::debug!(project = %account.project, %error, "a secret of a project cannot be read");
            let detail = "The gateway's own credentials could not be read.";
            failure(UpstreamErrorKind::Unavailable, detail)
        })
    }

    /// Reads both keys, as they belong together: somebody may be about to replace them.
    async fn read_keys(
        &self,
        account: &Account,
        access_key: &AccessKeySource,
        secret_key: &SecretSource,
    ) -> Result<KeyPair, UpstreamError> {
        let read_access_key = async || match access_key {
            AccessKeySource::Written(text) => Ok(Secret::new(text.as_str())),
            AccessKeySource::Kept(source) => self.read(account, source, SecretForm::Key).await,
        };
        let mut keys = KeyPair {
            access_key: read_access_key().await?,
            secret_key: self.read(account, secret_key, SecretForm::Key).await?,
            security_token: None,
            project_id: account.project_id.clone(),
        };
        for _ in 1..READINGS {
            let again = read_access_key().await?;
            if again.expose() == keys.access_key.expose() {
                break;
            }
            keys.access_key = again;
            keys.secret_key = self.read(account, secret_key, SecretForm::Key).await?;
        }
        Ok(keys)
    }

    /// Lets keys be used, unless they were refused too often.
    pub(super) fn admit(
        &self,
        account: &Account,
        keys: KeyPair,
        lifetime: Option<Lifetime>,
        urgency: Urgency,
    ) -> Result<Credential, Failure> {
        let identity = keys.identity();
        let trials = self.attempts.borrow_mut().of(identity, self.clock.uptime());
        self.may_try(&trials, urgency)?;
        Ok(self.credential(account, (identity, trials), Proof::Keys(keys), lifetime))
    }
}
