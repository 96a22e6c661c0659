//! The JSON in which the error that ended an operation is kept.

use serde::{Deserialize, Serialize};

use crate::domain::{
    operation::{Failure, Reason},
    service::{Sent, UpstreamAnswer},
};

/// A [`Failure`] as it is kept.
#[derive(Serialize, Deserialize)]
pub(super) struct FailureRow {
    reason: String,
    detail: String,
    sent: Sent,
    answer: Option<UpstreamAnswer>,
}

impl FailureRow {
    pub(super) fn of(failure: &Failure) -> Self {
        Self {
            reason: failure.reason.as_str().to_owned(),
            detail: failure.detail.clone(),
            sent: failure.sent,
            answer: failure.answer.clone(),
        }
    }

    /// `None` if the reason is not one that this program knows.
    pub(super) fn into_failure(self) -> Option<Failure> {
        Some(Failure {
            reason: Reason::parse(&self.reason)?,
            detail: self.detail,
            sent: self.sent,
            answer: self.answer,
        })
    }
}
