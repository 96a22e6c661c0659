//! What a request begins with: what was sent for earlier operations on its task and may still take
//! effect.

use std::time::Duration;

use jiff::Timestamp;

use crate::domain::{
    history::History,
    operation::{Goal, Operation, OperationId, Status},
    store::{Former, StoreError},
    task::TaskRef,
};
use crate::operations::{self, Operations, kill_point::kill_point, later, round::LOOK_AGE_MAX};

/// For so long after an exchange the service can show what was before it.
const LAG_MAX: Duration = Duration::from_secs(10);
/// So many operations on the task are looked through. Those that matter were sent something for
/// within less than a minute.
const FORMER_MAX: u32 = 100;

/// What came before a request.
pub(in crate::operations) struct Inheritance {
    /// What its operation begins with.
    pub(in crate::operations) history: History,
    /// The latest operation on the task.
    pub(in crate::operations) follows: OperationId,
}

impl Operations {
    /// What an operation with this goal begins with, given the one on the task that it takes over
    /// from, if any.
    pub(in crate::operations) async fn inheritance(
        &self,
        goal: Goal,
        task: &TaskRef,
        supersedes: Option<&Operation>,
    ) -> Result<Inheritance, StoreError> {
        kill_point!("accept.former.before");
        let former = self.0.store.former(task, FORMER_MAX).await;
        kill_point!("accept.former.after");
        let former = former?;
        let mut history = History::default();
        let (now, arrival_max) = (self.0.clock.now(), self.0.settings.arrival_max());
        for one in former.iter().rev() {
            if let Some(left) = left_by(one, now, arrival_max) {
                history.inherit(left, goal.heeds());
            }
        }
        if let Some(running) = supersedes {
            history.take_over(&running.history, goal.heeds());
        }
        Ok(Inheritance {
            history,
            follows: former.first().map_or(OperationId::FIRST, |one| one.id),
        })
    }
}

/// What an operation that ended left behind, if a look at this moment may not show it yet. One that
/// succeeded has seen what came of what it sent, unless that was sent by a process that died.
fn left_by(former: &Former, now: Timestamp, arrival_max: Duration) -> Option<&History> {
    let (status, history) = former.record.as_ref()?;
    let may_matter = match status {
        Status::Running => false,
        Status::Succeeded => history.is_any_unanswered(),
        Status::Failed | Status::Cancelled | Status::Superseded => !history.is_settled(),
    };
    let is_recent = |at| now < later(at, arrival_max + LAG_MAX);
    (may_matter && history.sent_at.is_some_and(is_recent)).then_some(history)
}

impl operations::Settings {
    /// How long after it was about to be sent a change can still be on its way: it sets out while
    /// its look is fresh, and is over within the time of one exchange.
    pub(in crate::operations) fn arrival_max(&self) -> Duration {
        LOOK_AGE_MAX.saturating_add(self.exchange_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        decide::BELIEVED_LOOKS,
        history::Change,
        service::{Sent, UpstreamError, UpstreamErrorKind},
        task::Stage,
    };

    /// An exchange of which nobody knows what came.
    fn cut_off() -> UpstreamError {
        UpstreamError {
            kind: UpstreamErrorKind::Unavailable,
            sent: Sent::Unknown,
            retry_after: None,
            answer: None,
            detail: "x".to_owned(),
        }
    }

    #[test]
    fn what_was_sent_a_moment_ago_for_an_operation_that_has_ended_is_left_behind() {
        let sent_at = Timestamp::constant(1_767_600_000, 0);
        let arrival_max = Duration::from_secs(20);
        let mut answered = History::default();
        answered.intend(Change::Start, None, sent_at);
        answered.accepted(Change::Start);
        let mut unanswered = History::default();
        unanswered.intend(Change::Start, None, sent_at);
        unanswered.settle_unknown();
        let mut settled = answered.clone();
        settled.looks_since_sent = BELIEVED_LOOKS;
        // Looks before it was sent tell nothing of it.
        let mut cut = History {
            looks_since_sent: BELIEVED_LOOKS,
            looks_since_accepted: BELIEVED_LOOKS,
            ..History::default()
        };
        cut.intend(Change::Pause, None, sent_at);
        cut.failed(Change::Pause, &cut_off(), Stage::Running);
        for (status, history, seconds, is_left) in [
            (Status::Cancelled, &answered, 29, true),
            (Status::Cancelled, &answered, 30, false),
            (Status::Superseded, &unanswered, 29, true),
            (Status::Failed, &unanswered, 30, false),
            (Status::Succeeded, &answered, 0, false),
            (Status::Succeeded, &unanswered, 29, true),
            (Status::Running, &unanswered, 0, false),
            (Status::Cancelled, &History::default(), 0, false),
            (Status::Failed, &settled, 0, false),
            (Status::Cancelled, &cut, 0, true),
        ] {
            let former = Former {
                id: OperationId::FIRST,
                record: Some((status, history.clone())),
            };
            let now = later(sent_at, Duration::from_secs(seconds));
            let left = left_by(&former, now, arrival_max);
            assert_eq!(left.is_some(), is_left, "{status:?} {seconds}");
        }
    }
}
