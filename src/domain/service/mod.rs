//! The port to a migration service, and what can go wrong behind it.

mod clearance;
mod names;
pub mod status;

use std::{cell::Cell, collections::HashMap, rc::Rc, sync::Arc, time::Duration};

use async_trait::async_trait;

pub use self::{
    clearance::{Clearance, HeldLease},
    names::{CallerName, CredentialName, IssuerName, ProjectName, ServiceName},
};
use super::{
    start::StartRequest,
    task::{Task, TaskId, TaskRef},
};

/// One migration service, seen through one project with its own credentials.
///
/// Every method makes at most one attempt that could change something, within the configured time
/// limit of one exchange (a further attempt is made only where the one before provably had no
/// effect, because its credential was refused or no connection was made; after a refusal the time
/// limit begins anew). Waiting for the service's pace comes on top, with a limit of its own.
///
/// A change rests on a look, and looks age, and on a lease, which ends: its first byte is written
/// while its [`Clearance`] is good or, with [`Sent::No`], not at all.
#[async_trait(?Send)]
pub trait MigrationService {
    /// Looks at one task. `None` means that the service itself said that there is no such task.
    async fn show(&self, id: &TaskId) -> Result<Option<Task>, UpstreamError>;

    /// Shows one task to somebody who only wants to know how it stands: a look that began a short
    /// while ago, or that others wait for, may serve. It is never a ground to change something or
    /// to refuse a change. `None` as for [`show`](MigrationService::show).
    async fn glance(&self, id: &TaskId) -> Result<Option<Arc<Task>>, UpstreamError> {
        Ok(self.show(id).await?.map(Arc::new))
    }

    /// One page of the service's list, in its own order, from the `offset`th task on. If the wait
    /// for the pace is longer than `patience` lasts, that is [`UpstreamErrorKind::Throttled`],
    /// without an answer.
    async fn list(
        &self,
        offset: u64,
        limit: u32,
        patience: &Patience,
    ) -> Result<TaskPage, UpstreamError>;

    /// Asks for a pause. `Ok` means accepted, not yet paused.
    async fn pause(&self, id: &TaskId, clearance: &Clearance) -> Result<Receipt, UpstreamError>;

    /// Asks for a start. `Ok` means accepted, not yet running.
    async fn start(
        &self,
        id: &TaskId,
        request: &StartRequest,
        clearance: &Clearance,
    ) -> Result<Receipt, UpstreamError>;

    /// Asks for the removal of the task. `Ok` means accepted, not yet gone.
    async fn delete(&self, id: &TaskId, clearance: &Clearance) -> Result<Receipt, UpstreamError>;
}

/// How long reads may still wait for the pace of their services: all those of one request together.
#[derive(Debug)]
pub struct Patience(Cell<Duration>);

impl Patience {
    /// The longest wait.
    const LIMIT: Duration = Duration::from_secs(10);

    /// What is left.
    pub fn left(&self) -> Duration {
        self.0.get()
    }

    /// Notes a wait.
    pub fn spend(&self, waited: Duration) {
        self.0.set(self.left().saturating_sub(waited));
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self(Cell::new(Self::LIMIT))
    }
}

/// The service's word that it took a change on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// The vendor's own id of the request, for its support.
    pub request_id: Option<String>,
}

/// One page of a service's list of tasks.
#[derive(Clone, Debug)]
pub struct TaskPage {
    /// What the service sent, in its order; `None` for a row that cannot be read.
    pub rows: Vec<Option<Task>>,
    /// How many tasks there are in all.
    pub total: u64,
}

/// What stands behind one service of one project: kept with every operation, so that an operation
/// is never continued against another account or place than the one it was accepted for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The vendor's id of the project.
    pub project_id: String,
    /// The region of the project.
    pub region: String,
    /// The base address of the service.
    pub endpoint: String,
}

/// What a service is called and which ids are its own; the same for all projects.
#[derive(Clone, Debug)]
pub struct ServiceTraits {
    /// Its short name.
    pub name: ServiceName,
    /// Whether an id that comes without the name of a service is one of this service's.
    pub owns: fn(&TaskId) -> bool,
    /// Whether an id can be one of this service's when the service is named.
    pub accepts: fn(&TaskId) -> bool,
    /// The most tasks that one page of its list may hold.
    pub page_limit: u32,
    /// The last place of its list that can be asked for.
    pub offset_limit: u64,
    /// Whether a start needs storage credentials.
    pub start_needs_credentials: bool,
}

/// One service of one project, ready to be used on this thread.
#[derive(Clone)]
pub struct BoundService {
    /// The port.
    pub port: Rc<dyn MigrationService>,
    /// What it is bound to.
    pub binding: Binding,
}

/// All services of all projects on this thread. The order of services is that of the catalogue.
#[derive(Clone)]
pub struct Services {
    catalogue: Vec<ServiceTraits>,
    bound: HashMap<(ProjectName, ServiceName), BoundService>,
}

impl Services {
    /// Collects services under the project that they belong to.
    pub fn new(
        catalogue: Vec<ServiceTraits>,
        bound: HashMap<(ProjectName, ServiceName), BoundService>,
    ) -> Self {
        Self { catalogue, bound }
    }

    /// Every service that this program knows, in the order in which lists show them.
    pub fn catalogue(&self) -> &[ServiceTraits] {
        &self.catalogue
    }

    /// The service with this name, whether or not a project offers it.
    pub fn named(&self, name: &str) -> Option<&ServiceTraits> {
        self.catalogue
            .iter()
            .find(|traits| traits.name.as_str() == name)
    }

    /// The first service, in the catalogue's order, that recognises the id as its own.
    pub fn owner_of(&self, id: &TaskId) -> Option<&ServiceTraits> {
        self.catalogue.iter().find(|traits| (traits.owns)(id))
    }

    /// The service of a project, or `None` if the project does not offer it.
    pub fn get(&self, project: &ProjectName, service: &ServiceName) -> Option<&BoundService> {
        self.bound.get(&(project.clone(), service.clone()))
    }

    /// The service that runs a task.
    pub fn of(&self, task: &TaskRef) -> Option<&BoundService> {
        self.get(&task.project, &task.service)
    }
}

/// Whether a request that would change something reached the vendor.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Sent {
    /// It surely did not.
    #[default]
    No,
    /// It may have.
    Unknown,
    /// It did, and the vendor answered.
    Yes,
}

impl Sent {
    /// The word used in problem documents.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Unknown => "unknown",
            Self::Yes => "yes",
        }
    }
}

/// What kind of failure it was; whoever drives an operation decides by this alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamErrorKind {
    /// The vendor refused the gateway's own credentials, or refused to issue a token for them.
    CredentialsRefused,
    /// They were refused a while ago and are left alone until they are tried again, so that nobody
    /// was asked.
    CredentialsResting,
    /// The gateway's identity lacks a permission at the vendor.
    Forbidden,
    /// The service refused to change the task, in its present state, with a code of its own.
    /// Nothing was changed.
    Refused,
    /// The service says that the task is still in progress (`OMS.0063`), which can be out of date.
    /// Nothing was changed.
    StillInProgress,
    /// The service says, in answer to a change, that there is no such task.
    Gone,
    /// The vendor rejected the request for a reason that waiting does not mend.
    Rejected,
    /// The vendor asks to slow down, or the gateway keeps to a pace of its own. Nothing was
    /// changed.
    Throttled,
    /// The endpoint has failed often and is left alone for a while. Nothing was sent.
    CircuitOpen,
    /// No connection, or the vendor answered with a fault of its own.
    Unavailable,
    /// No complete answer within the time limit.
    Timeout,
    /// An answer that is cut, of a wrong form, or about another task.
    Malformed,
}

impl UpstreamErrorKind {
    /// The word used in logs, metrics and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CredentialsRefused | Self::CredentialsResting => "credentials-refused",
            Self::Forbidden => "forbidden",
            Self::Refused => "refused",
            Self::StillInProgress => "still-in-progress",
            Self::Gone => "gone",
            Self::Rejected => "rejected",
            Self::Throttled => "throttled",
            Self::CircuitOpen => "circuit-open",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Malformed => "malformed",
        }
    }
}

/// What the vendor answered, as far as it may be shown to callers.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct UpstreamAnswer {
    /// The service that answered; `iam` for the token service, `ecs-metadata` for the metadata
    /// service of an ECS.
    pub service: String,
    /// The HTTP status.
    pub status: u16,
    /// The vendor's code, if the answer had one.
    pub error_code: Option<String>,
    /// The vendor's text; kept for codes of a migration service only, since IAM's and the API
    /// gateway's texts can name users and keys.
    pub error_msg: Option<String>,
    /// The vendor's own id of the request.
    pub request_id: Option<String>,
}

/// A failed exchange with the vendor.
///
/// The message is this program's own sentence. It holds no address, no credential and no text of
/// the vendor.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{detail}")]
pub struct UpstreamError {
    /// What kind of failure it was.
    pub kind: UpstreamErrorKind,
    /// Whether a request that changes something reached the vendor. `No` for reads.
    pub sent: Sent,
    /// How long to wait before trying again: by the vendor's wish, or until the gateway asks it
    /// again.
    pub retry_after: Option<Duration>,
    /// What the vendor answered, if it did. Boxed, since errors travel through every layer.
    pub answer: Option<Box<UpstreamAnswer>>,
    /// One sentence for people.
    pub detail: String,
}

impl UpstreamError {
    /// The same, with the time after which it is worth to try again.
    #[must_use]
    pub fn not_before(self, wait: Duration) -> Self {
        Self {
            retry_after: Some(wait),
            ..self
        }
    }

    /// The same, standing in for a further attempt, which is made after this time at the earliest.
    #[must_use]
    pub fn remembered(self, left: Duration) -> Self {
        let mut error = self.not_before(left);
        if error.kind == UpstreamErrorKind::CredentialsRefused {
            error.kind = UpstreamErrorKind::CredentialsResting;
        }
        error
    }

    /// Whether a change that ended in this error may have had an effect all the same.
    pub fn may_have_changed(&self) -> bool {
        match self.kind {
            UpstreamErrorKind::Unavailable
            | UpstreamErrorKind::Timeout
            | UpstreamErrorKind::Malformed => self.sent != Sent::No,
            UpstreamErrorKind::CredentialsRefused
            | UpstreamErrorKind::CredentialsResting
            | UpstreamErrorKind::Forbidden
            | UpstreamErrorKind::Refused
            | UpstreamErrorKind::StillInProgress
            | UpstreamErrorKind::Gone
            | UpstreamErrorKind::Rejected
            | UpstreamErrorKind::Throttled
            | UpstreamErrorKind::CircuitOpen => false,
        }
    }

    /// Whether the gateway's own pace let the request through too late, so that nobody was asked.
    pub fn is_own_pace(&self) -> bool {
        self.kind == UpstreamErrorKind::Throttled && self.answer.is_none()
    }

    /// Whether repeating the exchange can help only if somebody changes something first.
    pub fn is_permanent(&self) -> bool {
        match self.kind {
            UpstreamErrorKind::CredentialsRefused
            | UpstreamErrorKind::CredentialsResting
            | UpstreamErrorKind::Forbidden
            | UpstreamErrorKind::Rejected => true,
            UpstreamErrorKind::Refused
            | UpstreamErrorKind::StillInProgress
            | UpstreamErrorKind::Gone
            | UpstreamErrorKind::Throttled
            | UpstreamErrorKind::CircuitOpen
            | UpstreamErrorKind::Unavailable
            | UpstreamErrorKind::Timeout
            | UpstreamErrorKind::Malformed => false,
        }
    }
}
