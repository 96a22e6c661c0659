//! The port to the audit log: who asked for which change, what was decided, and how it ended.
//!
//! Nothing that changes anything is done before the decision to do it is on disk. What is written
//! is made of names, ids and words of this program; no credential is in any of these types.

use std::{
    fmt,
    future::ready,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
};

use jiff::Timestamp;

use super::{
    operation::{Operation, OperationId, Outcome, Reason, Status},
    service::{CallerName, ProjectName, ServiceName},
    task::TaskId,
    words::words,
};

/// Tells what became of entries, which have been handed over already.
pub type Recording = Pin<Box<dyn Future<Output = Result<(), AuditUnavailable>> + Send>>;

/// A log that can be added to, and in which a change of what stands there is found. Usable from any
/// thread.
pub trait AuditLog: fmt::Debug + Send + Sync {
    /// Adds entries. After `Ok` they survive a crash of the machine. After an error they may have
    /// been written all the same.
    ///
    /// They are handed over by the call. If nobody waits for the answer any more, what was turned
    /// down is written all the same; what was allowed, and ends, may be left out: whoever does not
    /// wait does not do it, and tells an end again.
    fn record(&self, entries: Vec<Entry>) -> Recording;

    /// Adds what was denied to somebody who is not known, or only counts it if there is much of it:
    /// strangers must be able neither to fill a disk nor to push out what stands in the log. Waits
    /// for nothing.
    fn note_stranger(&self, denial: Decided);

    /// Whether entries could be added when that was last tried.
    fn is_available(&self) -> bool;
}

/// The entries cannot be added, or could not be in time; the log of the process has the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the audit log cannot be written")]
pub struct AuditUnavailable;

/// What is added to the log.
#[derive(Clone, Debug)]
pub enum Entry {
    /// A decision on a request for a change.
    Decided(Decided),
    /// The end of an operation.
    Ended(Ended),
}

words! {
    /// What was decided on a request for a change.
    Decision {
        /// The caller may do it, and it is going to be done.
        Allowed = "allowed",
        /// The caller may not do it.
        Denied = "denied",
        /// The caller may do it, and something else stands against it.
        Refused = "refused",
    }
}

words! {
    /// What stands against a request, beside what the caller lacks, why a stranger is not known,
    /// and why an operation would fail.
    Rule {
        /// There is no such operation, or the caller may not see it.
        OperationNotFound = "operation-not-found",
        /// Only whoever asked for an operation first may cancel it. It also allows that.
        Requester = "requester",
        /// The caller may not use a storage credential of that name.
        StorageCredential = "storage-credential",
        /// A browser sends the request for a page of another origin.
        CrossOrigin = "cross-origin",
        /// Another operation is running on the task.
        OperationConflict = "operation-conflict",
        /// As many operations of the caller are running as may.
        RunningOperations = "running-operations",
        /// The key of the request stands for another one.
        IdempotencyKeyReused = "idempotency-key-reused",
        /// The project does not offer the service.
        ServiceNotOffered = "service-not-offered",
        /// The name of the task decides, and could not be seen.
        TaskNameUnseen = "task-name-unseen",
    }
}

/// A request for a change: who wants what.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The id of the request.
    pub request_id: String,
    /// Who asks; `None` if that is not known.
    pub caller: Option<CallerName>,
    /// How the caller said so.
    pub method: &'static str,
    /// Where the request comes from.
    pub peer: Option<Peer>,
    /// What is wanted: `delete`, `force-delete`, `pause`, `start` or `cancel`.
    pub action: &'static str,
    /// The project.
    pub project: Option<ProjectName>,
    /// The service.
    pub service: Option<ServiceName>,
    /// The task.
    pub task: Option<TaskId>,
}

impl Attempt {
    /// Whether anybody can have made it: with credentials that nobody has, or with none.
    fn is_of_a_stranger(&self) -> bool {
        let caller = self.caller.as_ref();
        caller.is_none_or(|caller| *caller == CallerName::anonymous())
    }
}

/// Where a request comes from: the other end of its connection, or whom a proxy that is trusted
/// names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The address; one of IPv4 is never in the form that IPv6 has for it.
    pub address: IpAddr,
    /// The port, which a proxy need not name.
    pub port: Option<u16>,
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        Self {
            address: address.ip().to_canonical(),
            port: Some(address.port()),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.address, port).fmt(formatter),
            None => self.address.fmt(formatter),
        }
    }
}

/// A decision.
#[derive(Clone, Debug)]
pub struct Decided {
    /// On what.
    pub attempt: Attempt,
    /// What was decided.
    pub decision: Decision,
    /// By which rule: where the configuration grants it, or what stands against it.
    pub rule: String,
    /// What is done about it, such as `begin` or `join`.
    pub course: Option<&'static str>,
    /// The operation.
    pub operation: Option<OperationId>,
}

/// How an operation ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The operation.
    pub operation: OperationId,
    /// What it was for, in the words of [`Attempt::action`].
    pub action: &'static str,
    /// The project.
    pub project: ProjectName,
    /// The service.
    pub service: ServiceName,
    /// The task.
    pub task: TaskId,
    /// Who asked for it first.
    pub requested_by: CallerName,
    /// How it ended.
    pub status: Status,
    /// How the goal came to hold.
    pub outcome: Option<Outcome>,
    /// Why it failed.
    pub reason: Option<Reason>,
    /// What took over.
    pub superseded_by: Option<OperationId>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
}

impl From<&Operation> for Ended {
    fn from(operation: &Operation) -> Self {
        Self {
            operation: operation.id,
            action: operation.goal.action(),
            project: operation.task.project.clone(),
            service: operation.task.service.clone(),
            task: operation.task.id.clone(),
            requested_by: operation.requested_by.clone(),
            status: operation.status,
            outcome: operation.outcome,
            reason: operation.failure.as_ref().map(|failure| failure.reason),
            superseded_by: operation.superseded_by,
            finished_at: operation.finished_at,
        }
    }
}

/// Notes down what is decided on one request.
#[derive(Clone, Debug)]
pub struct Auditor {
    /// Where.
    pub log: Arc<dyn AuditLog>,
    /// The request.
    pub attempt: Attempt,
    /// Where the configuration grants it.
    pub granted_by: String,
}

impl Auditor {
    /// Notes that it is going to be done, by this operation. Nothing may be done after an error.
    pub async fn allowed(
        &self,
        operation: OperationId,
        course: Option<&'static str>,
    ) -> Result<(), AuditUnavailable> {
        self.record(Decided {
            attempt: self.attempt.clone(),
            decision: Decision::Allowed,
            rule: self.granted_by.clone(),
            course,
            operation: Some(operation),
        })
        .await
    }

    /// Notes that it is not going to be done, and what stands against it; also if nobody waits
    /// until that is written. What is denied to somebody without credentials that are known goes to
    /// [`AuditLog::note_stranger`].
    pub fn turned_down(
        &self,
        decision: Decision,
        rule: &'static str,
        operation: Option<OperationId>,
    ) -> Recording {
        let decided = Decided {
            attempt: self.attempt.clone(),
            decision,
            rule: rule.to_owned(),
            course: None,
            operation,
        };
        // What a page of somebody else has a caller's browser send is the stranger's.
        let is_sent_for_a_stranger =
            self.attempt.is_of_a_stranger() || rule == Rule::CrossOrigin.as_str();
        if decision == Decision::Denied && is_sent_for_a_stranger {
            self.log.note_stranger(decided);
            return Box::pin(ready(Ok(())));
        }
        self.record(decided)
    }

    fn record(&self, decided: Decided) -> Recording {
        self.log.record(vec![Entry::Decided(decided)])
    }
}
