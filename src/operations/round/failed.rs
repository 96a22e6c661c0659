//! Rounds in which an exchange failed.

use jiff::Timestamp;

use super::Round;
use crate::{
    domain::{
        decide::{self, Action},
        operation::EventKind,
        service::{UpstreamError, UpstreamErrorKind},
    },
    operations::kill_point::kill_point,
};

impl Round<'_> {
    /// A round that failed, at the look or at the change.
    pub(super) async fn failed(&mut self, error: &UpstreamError) -> Option<Timestamp> {
        kill_point!("round.failed.before");
        let code = error
            .answer
            .as_ref()
            .and_then(|answer| answer.error_code.clone());
        let event = match error.kind {
            // The service was not asked, so that nothing happened to the operation.
            UpstreamErrorKind::CircuitOpen => None,
            UpstreamErrorKind::Refused
            | UpstreamErrorKind::StillInProgress
            | UpstreamErrorKind::Gone => Some(EventKind::Refused(code)),
            UpstreamErrorKind::CredentialsRefused
            | UpstreamErrorKind::CredentialsResting
            | UpstreamErrorKind::Forbidden
            | UpstreamErrorKind::Rejected
            | UpstreamErrorKind::Throttled
            | UpstreamErrorKind::Unavailable
            | UpstreamErrorKind::Timeout
            | UpstreamErrorKind::Malformed => Some(EventKind::Fault(match code {
                Some(code) => format!("{} {code}", error.kind.as_str()),
                None => error.kind.as_str().to_owned(),
            })),
        };
        // That refused credentials rest is no news, and must not end what mended ones could still
        // carry out.
        let is_remembered = error.kind == UpstreamErrorKind::CredentialsResting;
        let was_asked = event.is_some() && !is_remembered;
        if let Some(event) = event {
            if was_asked {
                self.operation.history.round_ended(Some(error));
            } else {
                self.operation.history.not_asked(error);
            }
            self.hide_keys_of_fault();
            self.note_once(event);
        }
        let overdue = self.is_overdue();
        match decide::after_fault(error.kind, &self.operation.history, overdue) {
            Action::Fail(reason) => self.fail(reason, None).await,
            Action::Wait | Action::Pause | Action::Start | Action::Delete | Action::Finish(_) => {
                let wait = if was_asked {
                    self.next_wait(error.retry_after)
                } else {
                    self.until_asked_again(error.retry_after)
                };
                let next = self.pause_for(wait).await;
                kill_point!("round.failed.saved");
                next
            }
        }
    }

    /// The vendor may repeat the keys that came with the request.
    fn hide_keys_of_fault(&mut self) {
        let fault = self.operation.history.last_fault.as_ref();
        let text = fault
            .and_then(|fault| fault.answer.as_ref()?.error_msg.as_deref())
            .map(|text| self.without_keys(text));
        let fault = self.operation.history.last_fault.as_mut();
        if let Some(answer) = fault.and_then(|fault| fault.answer.as_mut()) {
            answer.error_msg = text;
        }
    }
}
