//! What lines say: entries as JSON.

use jiff::Timestamp;
use serde::Serialize;

use super::line::{Opened, bounded};
use crate::domain::{
    audit::{Attempt, Decided, Ended, Entry},
    operation::{Outcome, Reason},
};

/// What a line says beside its number, its time and its kind.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Content {
    Decision(Box<Decision>),
    End(Box<End>),
    /// Denials to strangers that were only counted.
    Strangers {
        count: u64,
        since: Timestamp,
    },
    Opened(Opened),
}

/// A decision on a request.
#[derive(Debug, Serialize)]
#[expect(
    clippy::struct_field_names,
    reason = "the member of the JSON is called so"
)]
pub(super) struct Decision {
    request_id: String,
    caller: Option<String>,
    method: &'static str,
    peer: Option<String>,
    action: &'static str,
    project: Option<String>,
    service: Option<String>,
    task: Option<String>,
    decision: &'static str,
    rule: String,
    course: Option<&'static str>,
    operation: Option<String>,
}

/// The end of an operation.
#[derive(Debug, Serialize)]
pub(super) struct End {
    operation: String,
    action: &'static str,
    project: String,
    service: String,
    task: String,
    requested_by: String,
    status: &'static str,
    outcome: Option<&'static str>,
    reason: Option<&'static str>,
    superseded_by: Option<String>,
    finished_at: Option<Timestamp>,
}

impl Content {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Decision(_) => "decision",
            Self::End(_) => "end",
            Self::Strangers { .. } => "strangers",
            Self::Opened(_) => "opened",
        }
    }
}

impl From<Entry> for Content {
    fn from(entry: Entry) -> Self {
        match entry {
            Entry::Decided(decided) => Self::Decision(Box::new(decided.into())),
            Entry::Ended(ended) => Self::End(Box::new(ended.into())),
        }
    }
}

impl From<Decided> for Decision {
    fn from(decided: Decided) -> Self {
        let Attempt {
            request_id,
            caller,
            method,
            peer,
            action,
            project,
            service,
            task,
        } = decided.attempt;
        Self {
            request_id: bounded(&request_id),
            caller: caller.map(|caller| bounded(caller.as_str())),
            method,
            peer: peer.map(|peer| peer.to_string()),
            action,
            project: project.map(|project| bounded(project.as_str())),
            service: service.map(|service| bounded(service.as_str())),
            task: task.map(|task| bounded(task.as_str())),
            decision: decided.decision.as_str(),
            rule: bounded(&decided.rule),
            course: decided.course,
            operation: decided.operation.map(|operation| operation.to_string()),
        }
    }
}

impl From<Ended> for End {
    fn from(ended: Ended) -> Self {
        Self {
            operation: ended.operation.to_string(),
            action: ended.action,
            project: bounded(ended.project.as_str()),
            service: bounded(ended.service.as_str()),
            task: bounded(ended.task.as_str()),
            requested_by: bounded(ended.requested_by.as_str()),
            status: ended.status.as_str(),
            outcome: ended.outcome.map(Outcome::as_str),
            reason: ended.reason.map(Reason::as_str),
            superseded_by: ended.superseded_by.map(|id| id.to_string()),
            finished_at: ended.finished_at,
        }
    }
}
