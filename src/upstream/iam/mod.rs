//! What lets the gateway in at the vendor: tokens of its token service (IAM), and keys that sign
//! requests.
//!
//! One cache serves all threads. Credentials are obtained on a thread of their own, at most one at
//! a time for each project, and only when somebody needs one; one that nears its end, or whose
//! secret has changed, is replaced while it still serves; while the vendor does not take the
//! present secret, the one that worked before it does. A failure stands for the next attempts for a
//! while, and a password or a pair of keys that was refused is tried a few times in 15 minutes at
//! most, so that the gateway does not lock its own account.

mod attempts;
mod backoff;
mod clerk;
mod credential;
mod former;
mod keeper;
mod lifetime;
mod login;
mod metadata;
mod refusals;
pub mod signature;
mod vault;

#[cfg(test)]
pub(crate) mod tests;

use std::{
    cell::{Cell, RefCell},
    io,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use jiff::Timestamp;
use prometheus_client::registry::Registry;
use tokio::{
    sync::{mpsc, oneshot},
    task::LocalSet,
    time::timeout,
};

pub use self::credential::{Credential, Lease};
pub(crate) use self::refusals::passing;
use self::{
    attempts::Attempts,
    clerk::{Account, Clerk},
    keeper::{Command, Keeper},
    login::failure,
    refusals::Refusals,
    vault::{Ages, Vault},
};
use super::{
    CredentialSettings, Settings,
    metrics::Metrics,
    secrets::{self, Secrets},
};
use crate::{
    domain::{
        clock::Clock,
        service::{
            ProjectName, ServiceName, UpstreamError, UpstreamErrorKind,
            status::{CredentialKind, CredentialStatus},
        },
    },
    transport::{self, Endpoint, EndpointError, Transport, TransportSetupError},
};

/// The most commands that wait for the thread that obtains credentials. It never waits itself, so
/// they are few.
const MAX_COMMANDS: usize = 10_000;
/// What a caller waits beyond the parts of a login that have limits of their own: other logins of
/// the same user.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest that the metadata service may take to answer.
const METADATA_TIMEOUT: Duration = Duration::from_secs(3);

/// One service of the vendor, at the address at which a project uses it.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) service: ServiceName,
    pub(crate) endpoint: Endpoint,
}

type CredentialResult = Result<Credential, UpstreamError>;

/// Why credentials cannot be had at all.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// Where a project's credential comes from.
    #[error("the address where project {0} gets its credential cannot be used")]
    Endpoint(ProjectName, #[source] EndpointError),
    /// Encrypted connections.
    #[error("the connection to the token service cannot be set up")]
    Transport(#[from] TransportSetupError),
    /// The thread that obtains credentials.
    #[error("the thread that logs in cannot be started")]
    Thread(#[from] io::Error),
}

/// The credentials of all projects. Clones share them; the thread that obtains them ends with the
/// last one.
#[derive(Clone)]
pub struct Credentials {
    vault: Vault,
    commands: mpsc::Sender<Command>,
    refusals: Arc<Mutex<Refusals>>,
    patience: Duration,
}

impl Credentials {
    /// Checks where credentials come from and starts the thread that obtains them. Nobody logs in
    /// yet.
    pub(super) fn start(
        settings: &Settings,
        transport: &transport::Settings,
        clock: Arc<dyn Clock>,
        (metrics, secrets): (Metrics, Secrets),
    ) -> Result<Self, CredentialsError> {
        let accounts = accounts(settings)?;
        let storage = settings.storage_credentials.values();
        let others = storage.map(|keys| keys.secret_key.clone()).collect();
        let vault = Vault::new(clock, metrics);
        let (commands, received) = mpsc::channel(MAX_COMMANDS);
        let (ready, built) = std::sync::mpsc::sync_channel(1);
        let limits = transport.clone();
        let keeper_vault = vault.clone();
        thread::Builder::new()
            .name("iam".to_owned())
            .spawn(move || {
                // The client is bound to its thread, so it is built here, and its faults are handed
                // out.
                match prepare(&limits, &accounts) {
                    Ok((runtime, transport)) => {
                        let _ = ready.send(Ok(()));
                        let clerk = Clerk {
                            transport,
                            local: Transport::clear_text(METADATA_TIMEOUT),
                            secrets,
                            metrics: keeper_vault.metrics.clone(),
                            clock: Arc::clone(&keeper_vault.clock),
                            attempts: RefCell::new(Attempts::default()),
                            serial: Cell::new(0),
                        };
                        let keeper = Keeper::new(clerk, keeper_vault, accounts, others);
                        LocalSet::new().block_on(&runtime, keeper.run(received));
                    }
                    Err(error) => {
                        let _ = ready.send(Err(error));
                    }
                }
            })?;
        built
            .recv()
            .map_err(|_| io::Error::other("it ended at once"))??;
        Ok(Self {
            vault,
            commands,
            refusals: Arc::default(),
            patience: transport
                .request_timeout
                .saturating_add(secrets::PATIENCE)
                .saturating_add(PATIENCE),
        })
    }

    /// Shows the ages of credentials in a registry.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(Ages(self.vault.clone())));
    }

    /// Returns if the thread that obtains credentials is lost, without which nobody is let in any
    /// more.
    pub(super) async fn lost(&self) {
        self.commands.closed().await;
    }

    /// Looks at the files of secrets now, and not only in a few seconds.
    pub(super) fn look_at_secrets(&self) {
        // Should the thread be busy beyond measure, it looks in a few seconds all the same.
        let _ = self.commands.try_send(Command::Look);
    }

    async fn at_hand(&self, project: &ProjectName) -> Option<Credential> {
        let credential = self.vault.get(project).await?;
        if credential.asks_for_replacement(self.now()) {
            self.refresh(project);
        }
        Some(credential)
    }

    /// Has the credential of a project replaced while it serves, if there is another one.
    fn refresh(&self, project: &ProjectName) {
        // Should the thread be busy beyond measure, the next caller asks again.
        let _ = self.commands.try_send(Command::Refresh {
            project: project.clone(),
        });
    }

    /// The credential at hand, or else the result of one login, as [`Credentials::lease`] says. Not
    /// to be used.
    pub(crate) async fn credential(&self, project: &ProjectName) -> CredentialResult {
        if let Some(credential) = self.at_hand(project).await {
            return Ok(credential);
        }
        let (reply, answer) = oneshot::channel();
        let command = Command::Need {
            project: project.clone(),
            reply,
        };
        if self.commands.try_send(command).is_err() {
            return Err(failure(
                UpstreamErrorKind::Unavailable,
                "No login can be asked for.",
            ));
        }
        match timeout(self.patience, answer).await {
            // The machine may have slept since it was issued.
            Ok(Ok(Ok(credential))) if !credential.is_usable(self.now()) => Err(failure(
                UpstreamErrorKind::Unavailable,
                "The credential had ended before it could be used.",
            )),
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(failure(
                UpstreamErrorKind::Unavailable,
                "The login was given up.",
            )),
            Err(_) => Err(failure(
                UpstreamErrorKind::Timeout,
                "The login took too long.",
            )),
        }
    }

    /// What else a service may know that was shown this one, so that no answer of it may repeat
    /// that either.
    pub(crate) fn shown_beside(&self, credential: &Credential) -> Vec<Credential> {
        self.vault.shown_beside(credential)
    }

    /// How the credential of a project stands. Nobody logs in for it.
    pub(super) fn status(&self, project: &ProjectName, kind: CredentialKind) -> CredentialStatus {
        let credential = self.vault.at_hand(project);
        let last = self.vault.logins.of(project);
        CredentialStatus {
            kind,
            state: last.state(credential.is_some()),
            usable_until: credential.and_then(|credential| credential.usable_until()),
            last_login_at: last.login_at,
            last_error: last.error,
        }
    }

    /// Tells at any later moment whether a credential may still be sent.
    pub(crate) fn watch(&self, credential: &Credential) -> impl Fn() -> bool + use<> {
        let (credential, clock) = (credential.clone(), Arc::clone(&self.vault.clock));
        move || credential.is_good(clock.now())
    }

    /// The present moment.
    pub(crate) fn now(&self) -> Timestamp {
        self.vault.clock.now()
    }
}

fn accounts(settings: &Settings) -> Result<Vec<Account>, CredentialsError> {
    let account = |(project, settings): (&ProjectName, &super::ProjectSettings)| {
        let endpoint = match &settings.credentials {
            CredentialSettings::EcsAgency { metadata_address } => {
                Endpoint::parse_local(metadata_address)
            }
            CredentialSettings::Password { .. } | CredentialSettings::AccessKey { .. } => {
                Endpoint::parse(&settings.iam_endpoint)
            }
        };
        let endpoint =
            endpoint.map_err(|error| CredentialsError::Endpoint(project.clone(), error))?;
        Ok(Account {
            project: project.clone(),
            project_id: settings.project_id.clone(),
            endpoint,
            credentials: settings.credentials.clone(),
        })
    };
    settings.projects.iter().map(account).collect()
}

fn prepare(
    limits: &transport::Settings,
    accounts: &[Account],
) -> Result<(tokio::runtime::Runtime, Transport), CredentialsError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let transport = Transport::new(limits)?;
    for account in accounts {
        transport.check(&account.endpoint)?;
    }
    Ok((runtime, transport))
}
