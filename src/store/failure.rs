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
    answer: Option<AnswerRow>,
}

#[derive(Serialize, Deserialize)]
struct AnswerRow {
    service: String,
    status: u16,
    error_code: Option<String>,
    error_msg: Option<String>,
    request_id: Option<String>,
}

impl FailureRow {
    pub(super) fn of(failure: &Failure) -> Self {
        Self {
            reason: failure.reason.as_str().to_owned(),
            detail: failure.detail.clone(),
            sent: failure.sent,
            answer: failure.answer.clone().map(|answer| AnswerRow {
                service: answer.service,
                status: answer.status,
                error_code: answer.error_code,
                error_msg: answer.error_msg,
                request_id: answer.request_id,
            }),
        }
    }

    /// `None` if the reason is not one that this program knows.
    pub(super) fn into_failure(self) -> Option<Failure> {
        Some(Failure {
            reason: Reason::parse(&self.reason)?,
            detail: self.detail,
            sent: self.sent,
            answer: self.answer.map(|answer| UpstreamAnswer {
                service: answer.service,
                status: answer.status,
                error_code: answer.error_code,
                error_msg: answer.error_msg,
                request_id: answer.request_id,
            }),
        })
    }
}
