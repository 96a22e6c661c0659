//! Who has credentials obtained: one thread, so that a caller who leaves neither disturbs nor
//! repeats a login.

mod desk;

use std::{collections::HashMap, rc::Rc, time::Duration};

use futures_util::future::{join, join_all};
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinError, JoinSet},
    time::{MissedTickBehavior, interval},
};

use self::desk::Desk;
use super::{
    CredentialResult,
    attempts::Urgency,
    clerk::{Account, Clerk, Failure, SecretsSeen},
    credential::Credential,
    login::failure,
    vault::Vault,
};
use crate::domain::{
    secret::{SecretForm, SecretSource},
    service::{ProjectName, ServiceName, UpstreamError, UpstreamErrorKind, status::CredentialKind},
};

/// The most callers that wait for one login.
const MAX_WAITING: usize = 10_000;
/// How often the files of secrets are looked at. Mounted ones change without a sign.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// What others ask of the keeper.
#[derive(Debug)]
pub(super) enum Command {
    /// A credential for whoever waits at the other end.
    Need {
        project: ProjectName,
        reply: oneshot::Sender<CredentialResult>,
    },
    /// The credential of this project should be replaced before it ends.
    Refresh { project: ProjectName },
    /// The files of secrets may have changed.
    Look,
    /// A service refused a credential.
    Refused {
        credential: Credential,
        service: ServiceName,
        error: UpstreamError,
    },
}

/// Has credentials obtained, at most one for each project at a time.
pub(super) struct Keeper {
    clerk: Rc<Clerk>,
    vault: Vault,
    desks: HashMap<ProjectName, Desk>,
    running: JoinSet<(ProjectName, Result<Credential, Failure>)>,
    /// Secrets that credentials have no part in, and that are looked at all the same.
    others: Rc<[SecretSource]>,
    look: JoinSet<Vec<SecretsSeen>>,
    /// Whether the files may have changed since the present look began.
    looks_again: bool,
}

impl Keeper {
    pub(super) fn new(
        clerk: Clerk,
        vault: Vault,
        accounts: Vec<Account>,
        others: Vec<SecretSource>,
    ) -> Self {
        let desks = accounts.into_iter().map(|account| {
            let desk = Desk::new(account);
            (desk.account.project.clone(), desk)
        });
        Self {
            clerk: Rc::new(clerk),
            vault,
            desks: desks.collect(),
            running: JoinSet::new(),
            others: others.into(),
            look: JoinSet::new(),
            looks_again: false,
        }
    }

    /// Serves until nobody can ask any more.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.obey(command).await,
                    None => return,
                },
                Some(done) = self.running.join_next() => match done {
                    Ok((project, result)) => self.finish(&project, result).await,
                    Err(panic) => self.lost(&panic).await,
                },
                _ = ticks.tick() => self.look(),
                Some(seen) = self.look.join_next() => self.compare(seen.unwrap_or_default()).await,
            }
        }
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Need { project, reply } => self.need(project, reply).await,
            Command::Refresh { project } => self.refresh(&project),
            Command::Look => self.look(),
            Command::Refused {
                credential,
                service,
                error,
            } => self.remove(&credential, &service, error).await,
        }
    }

    /// Takes a refused credential out of use, for the one that worked before it if there is one.
    /// Whoever asks for another one later is served after that.
    async fn remove(
        &mut self,
        credential: &Credential,
        service: &ServiceName,
        error: UpstreamError,
    ) {
        let (project, kind) = (credential.project(), credential.kind().as_str());
        let has_predecessor = credential.previous(self.vault.clock.now()).is_some();
        if !self.vault.remove(credential).await {
            return;
        }
        tracing::warn!(project = %project, service = %service, kind, "a token or a signature was refused");
        if !credential.has_worked() {
            // That it was obtained is counted as well.
            let result = error.kind.as_str();
            self.vault.metrics.credential_refresh(kind, result);
        }
        if has_predecessor && let Some(desk) = self.desks.get_mut(project) {
            // What worked before it serves on, but somebody should know.
            let now = self.vault.clock.now();
            self.vault.logins.failed(project, &error, now);
            desk.replacements.failed(error, now);
            desk.refused = Some(credential.identity());
        }
    }

    async fn need(&mut self, project: ProjectName, reply: oneshot::Sender<CredentialResult>) {
        let cached = self.vault.get(&project).await;
        let now = self.vault.clock.now();
        let Some(desk) = self.desks.get_mut(&project) else {
            let error = failure(
                UpstreamErrorKind::Rejected,
                "The project is not configured.",
            );
            return answer(reply, Err(error));
        };
        if let Some(credential) = cached {
            return answer(reply, Ok(credential));
        }
        if desk.login.is_none()
            && let Some(error) = desk.failures.remembered(now)
        {
            return answer(reply, Err(error));
        }
        if desk.waiting.len() == MAX_WAITING {
            desk.waiting.retain(|reply| !reply.is_closed());
        }
        if desk.waiting.len() == MAX_WAITING {
            let error = failure(
                UpstreamErrorKind::Unavailable,
                "Too many callers wait for a token.",
            );
            return answer(reply, Err(error));
        }
        desk.waiting.push(reply);
        self.start(&project);
    }

    fn refresh(&mut self, project: &ProjectName) {
        let now = self.vault.clock.now();
        let resting = |desk: &Desk| {
            [&desk.failures, &desk.replacements]
                .iter()
                .any(|failures| failures.remembered(now).is_some())
        };
        if self.desks.get(project).is_some_and(|desk| !resting(desk)) {
            self.start(project);
        }
    }

    /// Begins to obtain a credential, unless that is under way.
    fn start(&mut self, project: &ProjectName) {
        let Some(desk) = self.desks.get_mut(project) else {
            return;
        };
        if desk.login.is_some() {
            return;
        }
        let (clerk, account) = (Rc::clone(&self.clerk), Rc::clone(&desk.account));
        let urgency = if desk.waiting.is_empty() {
            Urgency::CanWait
        } else {
            Urgency::Needed
        };
        // What serves is replaced by another one like it in time, if that is all there is.
        let is_late = || {
            let at_hand = self.vault.at_hand(project);
            at_hand.is_some_and(|one| one.is_late(self.vault.clock.now()))
        };
        let proven = (urgency == Urgency::Needed || is_late())
            .then(|| self.vault.proven(account.holder()))
            .flatten();
        let task = self.running.spawn_local(async move {
            let result = clerk.obtain(&account, urgency, proven).await;
            (account.project.clone(), result)
        });
        desk.login = Some((task.id(), urgency));
    }

    async fn finish(&mut self, project: &ProjectName, result: Result<Credential, Failure>) {
        let Some(desk) = self.desks.get_mut(project) else {
            return;
        };
        let urgency = desk.login.take().map(|(_, urgency)| urgency);
        let result = match result {
            Ok(credential) => {
                let kind = desk.account.kind();
                tracing::info!(project = %project, "{}", success(kind));
                desk.told = None;
                self.vault.metrics.credential_refresh(kind.as_str(), "ok");
                let logins = &self.vault.logins;
                // Keys by themselves promise nothing, least of all if a service refused them.
                if !credential.was_refused() {
                    logins.obtained(project);
                }
                if !credential.signs() {
                    logins.logged_in(project, self.vault.clock.now());
                    self.vault.prove(&credential);
                }
                self.vault.put(credential.clone()).await;
                desk.failures.forget();
                Ok(credential)
            }
            Err(Failure::Fault(error)) => Err(desk.failed(error, None, &self.vault)),
            Err(Failure::Refused(error, secret)) => {
                let is_needed = urgency == Some(Urgency::Needed) || desk.waiting.is_empty();
                let error = desk.failed(error, Some(secret), &self.vault);
                if !is_needed {
                    // Whoever came meanwhile may be let in by another secret.
                    desk.failures.forget();
                    return self.start(project);
                }
                Err(error)
            }
            Err(Failure::Withheld(error)) => Err(desk.withheld(error, &self.vault)),
            Err(Failure::Spared(refusal)) => {
                if !desk.waiting.is_empty() {
                    // Whoever came meanwhile has nothing else.
                    self.start(project);
                } else if desk.account.kind() == CredentialKind::EcsAgency {
                    // The metadata service was asked, as opposed to a file.
                    desk.failed(refusal, None, &self.vault);
                }
                return;
            }
        };
        for reply in desk.waiting.drain(..) {
            answer(reply, result.clone());
        }
    }

    /// A login that ended without a result must not leave its project locked.
    async fn lost(&mut self, panic: &JoinError) {
        let broken = self
            .desks
            .iter()
            .find(|(_, desk)| desk.login.is_some_and(|(id, _)| id == panic.id()));
        if let Some(project) = broken.map(|(project, _)| project.clone()) {
            let detail = "The login ended abnormally.";
            let error = failure(UpstreamErrorKind::Unavailable, detail);
            self.finish(&project, Err(Failure::Fault(error))).await;
        }
    }

    /// Begins to look at the secrets of all accounts.
    fn look(&mut self) {
        self.looks_again = !self.look.is_empty();
        if self.looks_again {
            return;
        }
        let (clerk, others) = (Rc::clone(&self.clerk), Rc::clone(&self.others));
        let accounts: Vec<_> = self
            .desks
            .values()
            .map(|desk| Rc::clone(&desk.account))
            .collect();
        self.look.spawn_local(async move {
            // Each may take its time, so that none waits for another.
            let others = others.iter();
            // What is wrong with it is told where it is read, and whoever needs it reads it again.
            let others = join_all(others.map(|source| clerk.secrets.read(source, SecretForm::Key)));
            let seen = join_all(accounts.iter().map(|account| clerk.look(account)));
            join(others, seen).await.1
        });
    }

    /// Replaces the credentials that were obtained with other secrets than there are, and those
    /// that a service has refused: nobody may ask for another one while that service is left alone.
    /// Where none is at hand otherwise, whoever needs one reads the secret anyhow; the refusal of
    /// another secret does not keep anybody from that.
    async fn compare(&mut self, seen: Vec<SecretsSeen>) {
        for look in seen {
            let project = look.project;
            if look.is_unusable {
                self.vault.secret_is_unusable(&project);
            }
            let Some(identity) = look.identity else {
                continue;
            };
            if let Some(desk) = self.desks.get_mut(&project) {
                desk.forget_refusal_of_another(identity);
            }
            let dead = || self.vault.recent(&project).pop_back();
            let last = self.vault.get(&project).await;
            let last = last.or_else(|| dead().filter(Credential::is_refused));
            if last.is_some_and(|last| last.identity() != identity) {
                self.refresh(&project);
            }
        }
        if self.looks_again {
            self.look();
        }
    }
}

/// What is logged when a credential was obtained.
fn success(kind: CredentialKind) -> &'static str {
    match kind {
        CredentialKind::Password => "logged in",
        CredentialKind::AccessKey => "an access key was read",
        CredentialKind::EcsAgency => "temporary keys were fetched",
    }
}

fn answer(reply: oneshot::Sender<CredentialResult>, result: CredentialResult) {
    // Whoever asked may have left.
    let _ = reply.send(result);
}
