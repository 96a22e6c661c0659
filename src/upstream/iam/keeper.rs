//! Who logs in: one thread, so that a caller who leaves neither disturbs nor repeats a login.

use std::{collections::HashMap, rc::Rc};

use tokio::{
    sync::{mpsc, oneshot},
    task::{Id, JoinError, JoinSet},
};

use super::{
    TokenResult, Vault,
    backoff::Backoff,
    login::{Account, Clerk, Failure, failure},
    token::Token,
};
use crate::domain::service::{ProjectName, UpstreamErrorKind};

/// The most callers that wait for one login.
const MAX_WAITING: usize = 10_000;

/// What callers ask of the keeper.
#[derive(Debug)]
pub(super) enum Command {
    /// A token for whoever waits at the other end.
    Need {
        project: ProjectName,
        reply: oneshot::Sender<TokenResult>,
    },
    /// The token of this project should be replaced before it ends.
    Refresh { project: ProjectName },
}

/// Runs logins, at most one for each project at a time.
pub(super) struct Keeper {
    clerk: Rc<Clerk>,
    vault: Vault,
    desks: HashMap<ProjectName, Desk>,
    running: JoinSet<(ProjectName, Result<Token, Failure>)>,
}

/// What the keeper knows of one project.
struct Desk {
    account: Rc<Account>,
    login: Option<Id>,
    waiting: Vec<oneshot::Sender<TokenResult>>,
    failures: Backoff,
}

impl Keeper {
    pub(super) fn new(clerk: Clerk, vault: Vault, accounts: Vec<Account>) -> Self {
        let desks = accounts.into_iter().map(|account| {
            let desk = Desk {
                account: Rc::new(account),
                login: None,
                waiting: Vec::new(),
                failures: Backoff::default(),
            };
            (desk.account.project.clone(), desk)
        });
        Self {
            clerk: Rc::new(clerk),
            vault,
            desks: desks.collect(),
            running: JoinSet::new(),
        }
    }

    /// Serves until nobody can ask any more.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        loop {
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Need { project, reply }) => self.need(project, reply).await,
                    Some(Command::Refresh { project }) => self.refresh(&project),
                    None => return,
                },
                Some(done) = self.running.join_next() => match done {
                    Ok((project, result)) => self.finish(&project, result).await,
                    Err(panic) => self.lost(&panic).await,
                },
            }
        }
    }

    async fn need(&mut self, project: ProjectName, reply: oneshot::Sender<TokenResult>) {
        let cached = self.vault.get(&project).await;
        let now = self.vault.clock.now();
        let Some(desk) = self.desks.get_mut(&project) else {
            let error = failure(
                UpstreamErrorKind::Rejected,
                "The project is not configured.",
            );
            return answer(reply, Err(error));
        };
        if let Some(token) = cached {
            return answer(reply, Ok(token));
        }
        if desk.login.is_none()
            && let Some((error, _)) = desk.failures.remembered(now)
        {
            return answer(reply, Err(error));
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
        let resting = |desk: &Desk| desk.failures.remembered(now).is_some();
        if self.desks.get(project).is_some_and(|desk| !resting(desk)) {
            self.start(project);
        }
    }

    /// Begins a login, unless one is under way.
    fn start(&mut self, project: &ProjectName) {
        let Some(desk) = self.desks.get_mut(project) else {
            return;
        };
        if desk.login.is_some() {
            return;
        }
        let (clerk, account) = (Rc::clone(&self.clerk), Rc::clone(&desk.account));
        let task = self.running.spawn_local(async move {
            let result = clerk.login(&account).await;
            (account.project.clone(), result)
        });
        desk.login = Some(task.id());
    }

    async fn finish(&mut self, project: &ProjectName, result: Result<Token, Failure>) {
        let Some(desk) = self.desks.get_mut(project) else {
            return;
        };
        desk.login = None;
        let result = match result {
            Ok(token) => {
                tracing::info!(project = %project, "logged in");
                self.vault.metrics.login("ok");
                self.vault.logins.succeeded(project, self.vault.clock.now());
                self.vault.put(token.clone()).await;
                desk.failures.succeeded();
                Ok(token)
            }
            Err(Failure::Tried(error)) => {
                let answer = error.answer.as_ref();
                tracing::warn!(
                    project = %project,
                    kind = error.kind.as_str(),
                    status = answer.map(|answer| answer.status),
                    code = answer.and_then(|answer| answer.error_code.as_deref()),
                    %error,
                    "the login failed"
                );
                self.vault.metrics.login(error.kind.as_str());
                Err(error)
            }
            Err(Failure::Withheld(error)) => Err(error),
        };
        if let Err(error) = &result {
            let now = self.vault.clock.now();
            self.vault.logins.failed(project, error, now);
            desk.failures.failed(error.clone(), now);
        }
        for reply in desk.waiting.drain(..) {
            answer(reply, result.clone());
        }
    }

    /// A login that ended without a result must not leave its project locked.
    async fn lost(&mut self, panic: &JoinError) {
        let broken = self
            .desks
            .iter()
            .find(|(_, desk)| desk.login == Some(panic.id()));
        if let Some(project) = broken.map(|(project, _)| project.clone()) {
            let error = failure(
                UpstreamErrorKind::Unavailable,
                "The login ended abnormally.",
            );
            self.finish(&project, Err(Failure::Tried(error))).await;
        }
    }
}

fn answer(reply: oneshot::Sender<TokenResult>, result: TokenResult) {
    // Whoever asked may have left.
    let _ = reply.send(result);
}
