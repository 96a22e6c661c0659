//! What was asked and answered, without secrets and without bodies.

use std::collections::VecDeque;

use jiff::Timestamp;

use super::call::{Call, Operation, Service};

/// The requests that are kept; the oldest go first.
const KEPT: usize = 200_000;

/// Headers whose values are not kept.
const SECRET_HEADERS: [&str; 6] = [
    "x-metadata-token",
    "x-auth-token",
    "x-subject-token",
    "x-security-token",
    "authorization",
    "cookie",
];

/// A request that arrived completely.
#[derive(Clone, Debug)]
pub struct RecordedRequest {
    /// When it arrived, by the cloud's clock.
    pub at: Timestamp,
    /// The service that was asked.
    pub service: Service,
    /// What was asked.
    pub operation: Operation,
    /// The HTTP method.
    pub method: String,
    /// The path as it came.
    pub path: String,
    /// The query as it came, without the question mark.
    pub query: String,
    /// The id of the task that the path names.
    pub task: Option<String>,
    /// Which of the issued tokens was sent, counted from 0; `None` without a token or with a
    /// strange one.
    pub token: Option<usize>,
    /// Whether that token was good at that moment.
    pub token_valid: bool,
    /// The access key by which it was rightly signed.
    pub access_key: Option<String>,
    /// The id of the project that the token or the signature was good for.
    pub project: Option<String>,
    /// The status that was answered; `None` if nothing was (dropped, hanging, or given up by the
    /// client).
    pub status: Option<u16>,
    /// The id that the answer carried in `X-Request-Id`.
    pub request_id: String,
    /// The headers, names in lower case, without those that carry secrets.
    pub headers: Vec<(String, String)>,
    /// The length of the body in bytes.
    pub body_length: usize,
}

impl RecordedRequest {
    /// The value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// The last requests, in the order of their arrival.
#[derive(Default)]
pub(super) struct Records {
    kept: VecDeque<RecordedRequest>,
    /// How many were let go, by age or on demand.
    gone: u64,
}

/// Names a record, also after others were let go.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordId(u64);

impl Records {
    pub(super) fn open(&mut self, call: &Call, at: Timestamp, visitor: Visitor) -> RecordId {
        if self.kept.len() == KEPT {
            self.kept.pop_front();
            self.gone += 1;
        }
        let open = |(name, _): &&(String, String)| !SECRET_HEADERS.contains(&name.as_str());
        self.kept.push_back(RecordedRequest {
            at,
            service: call.service,
            operation: call.route.operation,
            method: call.method.clone(),
            path: call.path.clone(),
            query: call.query.clone(),
            task: call.route.task.clone(),
            token: visitor.token,
            token_valid: visitor.token_valid,
            access_key: visitor.access_key,
            project: visitor.project,
            status: None,
            request_id: call.request_id.clone(),
            headers: call.headers.iter().filter(open).cloned().collect(),
            body_length: call.body.len(),
        });
        RecordId(self.gone + self.kept.len() as u64 - 1)
    }

    pub(super) fn answered(&mut self, id: RecordId, status: u16) {
        let place = id.0.checked_sub(self.gone);
        let place = place.and_then(|place| usize::try_from(place).ok());
        if let Some(record) = place.and_then(|place| self.kept.get_mut(place)) {
            record.status = Some(status);
        }
    }

    pub(super) fn all(&self) -> Vec<RecordedRequest> {
        self.kept.iter().cloned().collect()
    }

    pub(super) fn count(&self, operation: Operation, task: Option<&str>) -> usize {
        self.kept
            .iter()
            .filter(|record| record.operation == operation)
            .filter(|record| task.is_none() || record.task.as_deref() == task)
            .count()
    }

    pub(super) fn clear(&mut self) {
        self.gone += self.kept.len() as u64;
        self.kept.clear();
    }
}

/// Who sends a request, as its record says it.
#[derive(Clone, Debug, Default)]
pub(super) struct Visitor {
    pub(super) token: Option<usize>,
    pub(super) token_valid: bool,
    pub(super) access_key: Option<String>,
    pub(super) project: Option<String>,
}
