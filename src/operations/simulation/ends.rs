//! What must hold at the end of an operation: that it is true, whose doing it was, and that it came
//! in time.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Scene,
    ledger::{row_allows_delete, shown},
};
use crate::{
    domain::{
        decide::{Seen, Sight},
        history::Change,
        operation::{Goal, Operation, Outcome, Reason, Status},
        service::Sent,
        task::Stage,
    },
    operations::later,
};

/// An undisturbed operation ends this long after its deadline at the latest: an exchange that was
/// under way, a lease that runs out, a look.
const SLACK: Duration = Duration::from_mins(2);
/// What nothing has stood in the way of for so long is done.
const UNDISTURBED: Duration = Duration::from_mins(5);

impl Scene {
    pub(super) fn check_end(&mut self, operation: &Operation, look: Option<Seen>) {
        let id = operation.id;
        let word = match (operation.outcome, &operation.failure) {
            (Some(outcome), _) => outcome.as_str(),
            (None, Some(failure)) => failure.reason.as_str(),
            (None, None) => operation.status.as_str(),
        };
        self.count(word);
        let reason = operation.failure.as_ref().map(|failure| failure.reason);
        match (operation.status, operation.outcome, reason) {
            (Status::Succeeded, Some(outcome), None) => {
                self.check_success(operation, outcome, look);
            }
            (Status::Failed, None, Some(reason)) => self.check_failure(operation, reason),
            (Status::Cancelled, None, None) => {
                if self.may_have_sent(id, Change::Delete) {
                    self.blame(format!("{id} is cancelled after a delete"));
                }
            }
            (Status::Superseded, None, None) => {}
            what => self.blame(format!("{id} ends as {what:?}")),
        }
        self.check_time(operation);
    }

    fn check_success(&mut self, operation: &Operation, outcome: Outcome, look: Option<Seen>) {
        let id = operation.id;
        let Some(task) = self.index_of(operation) else {
            return;
        };
        let is_gone = self.world.tasks[task].sight.is_none();
        let stage = shown(look).map(|sight| sight.stage);
        let runs = matches!(stage, Some(Stage::Running));
        let sent = |change| self.may_have_sent(id, change);
        let holds = match outcome {
            Outcome::Deleted => is_gone && look == Some(Seen::Gone) && sent(Change::Delete),
            Outcome::AlreadyGone => is_gone && look == Some(Seen::Gone) && !sent(Change::Delete),
            Outcome::Paused => stage == Some(Stage::Paused) && sent(Change::Pause),
            Outcome::AlreadyPaused => stage == Some(Stage::Paused) && !sent(Change::Pause),
            Outcome::Started => (runs || stage == Some(Stage::Succeeded)) && sent(Change::Start),
            Outcome::AlreadyRunning => runs && !sent(Change::Start),
        };
        let is_at_rest = matches!(outcome, Outcome::Paused | Outcome::AlreadyPaused);
        if is_at_rest && self.is_on_its_way(task, Change::Start, self.world.sendings.len()) {
            self.blame(format!("{id} ends {outcome:?} while a start is on its way"));
        }
        if !holds {
            self.blame(format!(
                "{id} ends {outcome:?}; last look {look:?}, gone {is_gone}"
            ));
        }
    }

    fn check_failure(&mut self, operation: &Operation, reason: Reason) {
        let (id, now) = (operation.id, self.now());
        let Some(task) = self.index_of(operation) else {
            return;
        };
        let truth = self.world.tasks[task].sight;
        let is_true = match reason {
            Reason::DeadlineExceeded => now >= operation.deadline_at,
            Reason::TaskNotFound => truth.is_none(),
            Reason::CredentialsLost => operation.start.inline,
            Reason::ProjectChanged => false,
            Reason::TaskInProgress
            | Reason::TaskFinished
            | Reason::TaskNotStarted
            | Reason::TaskFailed
            | Reason::CredentialsRefused
            | Reason::UpstreamForbidden
            | Reason::UpstreamRejected => true,
        };
        if !is_true {
            self.blame(format!("{id} fails as {reason:?}; the task is {truth:?}"));
        }
        let has_arrived = self.deeds.get(&id).is_some_and(|deeds| {
            deeds.intents.iter().any(|intent| {
                intent.sending.is_some_and(|number| {
                    let sending = &self.world.sendings[number];
                    sending.has_arrived() && !sending.is_refused()
                })
            })
        });
        let sent = operation.failure.as_ref().map(|failure| failure.sent);
        if has_arrived && sent == Some(Sent::No) {
            self.blame(format!("{id} says that it sent nothing"));
        }
        let undisturbed = self.undisturbed_since(task);
        if reason == Reason::DeadlineExceeded
            && later(undisturbed.max(operation.created_at), UNDISTURBED) < now
            && self.is_within_reach(operation, truth)
        {
            self.blame(format!(
                "{id} did not get on, undisturbed since {undisturbed}; the task is {truth:?}"
            ));
        }
    }

    fn undisturbed_since(&self, task: usize) -> Timestamp {
        self.disturbed_at.max(self.world.tasks[task].hindered_until)
    }

    /// Whether a step towards the goal is possible with a task that stands like this.
    fn is_within_reach(&self, operation: &Operation, truth: Option<Sight>) -> bool {
        let Some(sight) = truth else { return true };
        match operation.goal {
            Goal::Absent { force } => {
                row_allows_delete(sight, force) || (force && sight.stage == Stage::Running)
            }
            Goal::Paused => matches!(sight.stage, Stage::Running | Stage::Paused),
            Goal::Running => match sight.stage {
                Stage::Running | Stage::Succeeded => true,
                Stage::Ready | Stage::Paused | Stage::Failed => {
                    self.accepted(operation.id, Change::Start) == 0
                }
                Stage::Initialising
                | Stage::Queued
                | Stage::Busy
                | Stage::Pausing
                | Stage::Deleting
                | Stage::Unknown => false,
            },
        }
    }

    fn check_time(&mut self, operation: &Operation) {
        let now = self.now();
        if operation.finished_at.is_none_or(|at| at > now) {
            self.blame(format!("{} ends in the future", operation.id));
        }
        if now > later(operation.deadline_at.max(self.disturbed_at), SLACK) {
            self.blame(format!("{} ends long after its deadline", operation.id));
        }
    }

    /// The operations that have not ended, and whether one of them should have.
    pub(super) fn check_deadlines(&mut self) -> bool {
        let now = self.now();
        let disturbed = self.disturbed_at;
        let mut running = self
            .deeds
            .iter()
            .filter(|(_, deeds)| deeds.ended_at.is_none())
            .peekable();
        let is_any = running.peek().is_some();
        let late = running
            .find(|(_, deeds)| now > later(deeds.deadline_at.max(disturbed), SLACK))
            .map(|(id, _)| *id);
        if let Some(id) = late {
            self.blame(format!("{id} does not end"));
        }
        is_any
    }
}
