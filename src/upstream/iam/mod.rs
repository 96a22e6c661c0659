//! Tokens of the vendor's token service (IAM).
//!
//! One cache serves all threads. Logins run on a thread of their own, at most one at a time for each project, and only
//! when somebody needs a token; a token that nears its end is replaced while it still serves. A failed login stands for
//! the next ones for a while, and a password that was refused is tried twice in 15 minutes at most, so that the gateway
//! never locks its own account.

mod attempts;
mod backoff;
mod keeper;
mod login;
mod logins;
mod token;
mod wire;

#[cfg(test)]
pub(crate) mod tests;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use moka::{
    Expiry,
    future::Cache,
    ops::compute::{CompResult, Op},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::LocalSet,
    time::timeout,
};

pub use self::token::Token;
use self::{
    attempts::Attempts,
    backoff::Backoff,
    keeper::{Command, Keeper},
    login::{Account, Clerk, failure},
    logins::Logins,
};
use super::{Settings, metrics::Metrics, secrets};
use crate::{
    domain::{
        clock::Clock,
        service::{
            ProjectName, ServiceName, UpstreamError, UpstreamErrorKind,
            status::{CredentialKind, CredentialState, CredentialStatus},
        },
    },
    transport::{self, Endpoint, EndpointError, Transport, TransportSetupError},
};

/// The most commands that wait for the thread that logs in. It never waits itself, so they are few.
const MAX_COMMANDS: usize = 10_000;
/// A token that a service refuses along with the one before it is not replaced until it is this old: it is the service
/// that refuses, for instance because it belongs to another region.
const REPLACED_AGAIN_AFTER: Duration = Duration::from_mins(15);
/// What a caller waits beyond the parts of a login that have limits of their own: other logins of the same user.
const PATIENCE: Duration = Duration::from_secs(10);

type TokenResult = Result<Token, UpstreamError>;

/// Why tokens cannot be had at all.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// The address of a project's token service.
    #[error("the address of the token service of project {0} cannot be used")]
    Endpoint(ProjectName, #[source] EndpointError),
    /// Encrypted connections.
    #[error("the connection to the token service cannot be set up")]
    Transport(#[from] TransportSetupError),
    /// The thread that logs in.
    #[error("the thread that logs in cannot be started")]
    Thread(#[from] io::Error),
}

/// The tokens of all projects. Clones share them; the thread that logs in ends with the last one.
#[derive(Clone)]
pub struct Tokens {
    vault: Vault,
    commands: mpsc::Sender<Command>,
    refusals: Arc<Mutex<HashMap<(ProjectName, ServiceName), Refusal>>>,
    patience: Duration,
}

/// What callers and the thread that logs in share.
#[derive(Clone)]
struct Vault {
    cache: Cache<ProjectName, Token>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    logins: Logins,
}

/// What a service has refused since it last accepted a token.
#[derive(Default)]
struct Refusal {
    /// The token that was replaced for it. Serials begin with 1.
    replaced: u64,
    /// The token that was refused in spite of that.
    given_up: u64,
    backoff: Backoff,
}

struct PerToken;

impl Expiry<ProjectName, Token> for PerToken {
    fn expire_after_create(&self, _: &ProjectName, token: &Token, _: Instant) -> Option<Duration> {
        Some(token.left())
    }

    // The default keeps the end of the token that was there before.
    fn expire_after_update(
        &self,
        _: &ProjectName,
        token: &Token,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(token.left())
    }
}

impl Vault {
    async fn get(&self, project: &ProjectName) -> Option<Token> {
        let token = self.cache.get(project).await?;
        token.is_usable(self.clock.now()).then_some(token)
    }

    /// As [`Vault::get`], without waiting and without counting as a use.
    fn at_hand(&self, project: &ProjectName) -> Option<Token> {
        let (_, token) = self.cache.iter().find(|(name, _)| **name == *project)?;
        token.is_usable(self.clock.now()).then_some(token)
    }

    async fn put(&self, token: Token) {
        self.cache.insert(token.project().clone(), token).await;
    }

    /// Removes a token, unless another one has taken its place. Tells whether it did.
    async fn remove(&self, token: &Token) -> bool {
        let serial = token.serial();
        let result = self
            .cache
            .entry_by_ref(token.project())
            .and_compute_with(async |cached| match cached {
                Some(cached) if cached.value().serial() == serial => Op::Remove,
                Some(_) | None => Op::Nop,
            })
            .await;
        matches!(result, CompResult::Removed(_))
    }
}

impl Tokens {
    /// Checks the addresses of the token services and starts the thread that logs in. Nobody logs in yet.
    pub fn start(
        settings: &Settings,
        transport: &transport::Settings,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
    ) -> Result<Self, TokensError> {
        let accounts = accounts(settings)?;
        let cache = Cache::builder().expire_after(PerToken).build();
        let vault = Vault {
            cache,
            clock,
            metrics,
            logins: Logins::default(),
        };
        let (commands, received) = mpsc::channel(MAX_COMMANDS);
        let (ready, built) = std::sync::mpsc::sync_channel(1);
        let limits = transport.clone();
        let keeper_vault = vault.clone();
        thread::Builder::new()
            .name("iam".to_owned())
            .spawn(move || {
                // The client is bound to its thread, so it is built here, and its faults are handed out.
                match prepare(&limits, &accounts) {
                    Ok((runtime, transport)) => {
                        let _ = ready.send(Ok(()));
                        let clerk = Clerk {
                            transport,
                            clock: Arc::clone(&keeper_vault.clock),
                            attempts: RefCell::new(Attempts::default()),
                            serial: Cell::new(0),
                        };
                        let keeper = Keeper::new(clerk, keeper_vault, accounts);
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

    /// A token of the project: the one at hand, or else the result of one login that all who wait share. A failed login
    /// is answered from memory for a while. Never waits longer than a login may take.
    pub async fn token(&self, project: &ProjectName) -> Result<Token, UpstreamError> {
        if let Some(token) = self.vault.get(project).await {
            if token.asks_for_replacement(self.now()) {
                // Should the thread be busy beyond measure, the next caller asks again.
                let _ = self.commands.try_send(Command::Refresh {
                    project: project.clone(),
                });
            }
            return Ok(token);
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
            Ok(Ok(Ok(token))) if !token.is_usable(self.now()) => Err(failure(
                UpstreamErrorKind::Unavailable,
                "The token had ended before it could be used.",
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

    /// Notes that a service accepted the token.
    pub(crate) fn worked(&self, token: &Token, service: &ServiceName) {
        token.set_worked();
        self.with_refusals(|refusals| {
            refusals.remove(&(token.project().clone(), service.clone()));
        });
    }

    /// Notes that a service called the token dead, and tells whether the request may be tried with another one. Then
    /// nobody is given this one any more. Otherwise the fault is rather the service's, see [`Tokens::give_up`].
    pub(crate) async fn refused(&self, token: &Token, service: &ServiceName) -> bool {
        if !self.is_replaced(token, service) {
            return false;
        }
        // Of many who used it at the same time, one reports it.
        if self.vault.remove(token).await {
            tracing::warn!(project = %token.project(), service = %service, "a token was refused");
            self.vault.metrics.token_refused(service.as_str());
        }
        true
    }

    /// Whether a refused token is to be replaced: not if it has itself replaced one that was refused, and no service has
    /// accepted a token since.
    fn is_replaced(&self, token: &Token, service: &ServiceName) -> bool {
        let (project, serial) = (token.project(), token.serial());
        let is_old = token.age(self.now()) >= REPLACED_AGAIN_AFTER;
        self.with_refusals(|refusals| {
            let key = (project.clone(), service.clone());
            let is_doubted = if let Some(refusal) = refusals.get(&key) {
                refusal.replaced != serial
            } else {
                // Nobody has accepted it, and it has replaced one that another service refused.
                let mut others = refusals.iter().filter(|((other, _), _)| other == project);
                !token.has_worked()
                    && others.any(|(_, refusal)| ![0, serial].contains(&refusal.replaced))
            };
            if is_doubted && !is_old {
                return false;
            }
            refusals.entry(key).or_default().replaced = serial;
            true
        })
    }

    /// Notes that a token was refused which cannot be replaced by a better one, so that the service is left alone for a
    /// while: either the token service issues dead tokens, or the service belongs to another region, and further logins
    /// mend neither. The error comes back with the time until then.
    pub(crate) fn give_up(
        &self,
        token: &Token,
        service: &ServiceName,
        error: UpstreamError,
    ) -> UpstreamError {
        let now = self.now();
        self.with_refusals(|refusals| {
            let key = (token.project().clone(), service.clone());
            let refusal = refusals.entry(key).or_default();
            // Many may have used the same token at the same time.
            if refusal.given_up == token.serial()
                && let Some((error, left)) = refusal.backoff.remembered(now)
            {
                return not_before(error, left);
            }
            refusal.given_up = token.serial();
            self.vault.logins.failed(token.project(), &error, now);
            let wait = refusal.backoff.failed(error.clone(), now);
            not_before(error, wait)
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
            let (error, left) = refusal.backoff.remembered(now)?;
            Some(not_before(error, left))
        })
    }

    /// How the credential of a project stands. Nobody logs in for it.
    pub(super) fn status(&self, project: &ProjectName, kind: CredentialKind) -> CredentialStatus {
        let token = self.vault.at_hand(project);
        let last = self.vault.logins.of(project);
        CredentialStatus {
            kind,
            state: match token {
                Some(_) => CredentialState::Ok,
                None => last.state_without(),
            },
            usable_until: token.and_then(|token| token.usable_until()),
            last_login_at: last.login_at,
            last_error: last.error,
        }
    }

    fn with_refusals<T>(
        &self,
        work: impl FnOnce(&mut HashMap<(ProjectName, ServiceName), Refusal>) -> T,
    ) -> T {
        // The map is whole between any two statements, so a panic elsewhere does not spoil it.
        work(&mut self.refusals.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn now(&self) -> Timestamp {
        self.vault.clock.now()
    }
}

/// The error with the time for which it is remembered: whoever drives an operation would otherwise come back before the
/// vendor is asked again, and take the memory for a further failure.
fn not_before(error: UpstreamError, wait: Duration) -> UpstreamError {
    UpstreamError {
        retry_after: Some(wait),
        ..error
    }
}

fn accounts(settings: &Settings) -> Result<Vec<Account>, TokensError> {
    let account = |(project, settings): (&ProjectName, &super::ProjectSettings)| {
        let endpoint = Endpoint::parse(&settings.iam_endpoint)
            .map_err(|error| TokensError::Endpoint(project.clone(), error))?;
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
) -> Result<(tokio::runtime::Runtime, Transport), TokensError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let transport = Transport::new(limits)?;
    for account in accounts {
        transport.check(&account.endpoint)?;
    }
    Ok((runtime, transport))
}
