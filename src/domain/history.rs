//! What was tried so far in an operation, and what came of it.
//!
//! An intent is recorded before a request that changes something is sent, and its result
//! afterwards. A crash between the two leaves the intent standing: whether it was carried out is
//! then unknown, and the next look decides.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    decide::{BELIEVED_LOOKS, Seen},
    service::{Sent, UpstreamAnswer, UpstreamError, UpstreamErrorKind},
    task::Stage,
};

/// A request that changes a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Pause it.
    Pause,
    /// Start it.
    Start,
    /// Delete it.
    Delete,
}

impl Change {
    const ALL: [Self; 3] = [Self::Pause, Self::Start, Self::Delete];
}

/// What became of the requests of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attempts {
    /// One was sent and not definitely refused.
    pub sent: bool,
    /// How many the service accepted.
    pub accepted: u32,
    /// When one was about to be sent that may still be on its way, since nobody noted how its
    /// exchange ended.
    pub unanswered: Option<Timestamp>,
    /// Whether the next looks may still not show what one has done: it was the last change that the
    /// service accepted, or it was sent for an operation that this one inherits from.
    pub is_fresh: bool,
}

/// The intents recorded so far and what came of them, as far as later decisions need it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// A change that was about to be sent, of which no result is on record.
    pub intent: Option<Change>,
    /// When a change was last about to be sent, by this operation or by one that it inherits from.
    pub sent_at: Option<Timestamp>,
    /// Pauses.
    pub pause: Attempts,
    /// Whether nobody knows what came of the last pause: a look that shows the task pausing or
    /// paused settles it.
    pub pause_in_doubt: bool,
    /// The task's start time as it was when the last pause was sent. A later one settles it as
    /// well: who started the task again had found it paused.
    pub paused_from: Option<Timestamp>,
    /// Starts.
    pub start: Attempts,
    /// Deletes.
    pub delete: Attempts,
    /// The task's start time as it was when a start was first sent.
    pub started_before: Option<Timestamp>,
    /// Looks that found the task since a change was last accepted, or was noted as one that may
    /// still take effect.
    pub looks_since_accepted: u32,
    /// Looks that found the task since a change was last about to be sent.
    pub looks_since_sent: u32,
    /// How many of them, the latest in a row, found it failed.
    pub failed_looks: u32,
    /// Looks in a row that said "no such task".
    pub gone_looks: u32,
    /// Refusals since the task was last seen in another state.
    pub refusals: u32,
    /// Rounds in a row that failed in a way that waiting does not mend.
    pub permanent_faults: u32,
    /// Whether a request that changes something reached the vendor at any time.
    pub reached: Sent,
    /// Waits since the task was last seen in another state; the next wait grows with it.
    pub waits: u32,
    /// The last exchange that failed since a change was last accepted.
    pub last_fault: Option<Fault>,
}

/// An exchange that failed, as it is kept for the people who ask why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// One sentence.
    pub detail: String,
    /// What the vendor answered.
    pub answer: Option<UpstreamAnswer>,
}

impl From<&UpstreamError> for Fault {
    fn from(error: &UpstreamError) -> Self {
        Self {
            detail: error.detail.clone(),
            answer: error.answer.as_deref().cloned(),
        }
    }
}

impl History {
    /// Adds what was sent for an earlier operation on the same task, as far as it is among
    /// `changes`: whatever was not definitely refused may still take effect, and is believed like
    /// an accepted change.
    pub fn inherit(&mut self, from: &Self, changes: &[Change]) {
        let mut from = from.clone();
        from.settle_unknown();
        for &change in changes.iter().filter(|change| from.was_sent(**change)) {
            let unanswered = from.attempts(change).unanswered;
            let attempts = self.attempts_mut(change);
            attempts.sent = true;
            attempts.is_fresh = true;
            attempts.unanswered = attempts.unanswered.max(unanswered);
            self.sent_at = self.sent_at.max(from.sent_at);
        }
    }

    /// As [`History::inherit`], from an operation that this one takes over from: it answers for
    /// what was sent as well.
    pub fn take_over(&mut self, from: &Self, changes: &[Change]) {
        self.inherit(from, changes);
        if changes.iter().any(|change| from.was_sent(*change)) {
            self.reached = self.reached.max(from.sent());
        }
    }

    /// Whether nothing that was sent can take effect any more without having been seen: its
    /// exchange has ended, and looks have told what came of it.
    pub fn is_settled(&self) -> bool {
        self.intent.is_none()
            && !self.is_any_unanswered()
            && self.looks_since_sent >= BELIEVED_LOOKS
    }

    /// Whether a change may still be on its way.
    pub fn is_unanswered(&self, change: Change) -> bool {
        self.attempts(change).unanswered.is_some()
    }

    /// Whether any change may still be on its way.
    pub fn is_any_unanswered(&self) -> bool {
        Change::ALL.iter().any(|change| self.is_unanswered(*change))
    }

    /// Forgets what was sent so long before `now` that it has arrived or never will. From then on
    /// looks tell whether it has had an effect.
    pub fn forget_unanswered(&mut self, now: Timestamp, limit: Duration) {
        // A clock that was set back does not make it wait.
        let is_on_its_way = |since: &Timestamp| {
            let age = Duration::try_from(now.duration_since(*since));
            age.is_ok_and(|age| age < limit)
        };
        for change in Change::ALL {
            let attempts = self.attempts_mut(change);
            let is_fresh = attempts.is_fresh;
            if attempts
                .unanswered
                .take_if(|since| !is_on_its_way(since))
                .is_some()
            {
                self.waits = 0;
                if is_fresh {
                    self.looks_since_accepted = 0;
                }
            }
        }
    }

    /// As if looks enough had been counted for whatever is concluded from a number of them.
    #[must_use]
    pub fn settled(&self) -> Self {
        let mut settled = self.clone();
        for change in Change::ALL {
            let attempts = settled.attempts_mut(change);
            attempts.unanswered = None;
            attempts.is_fresh = false;
        }
        settled.failed_looks = u32::MAX;
        settled
    }

    /// Whether a change was sent, or may have been, and was not definitely refused.
    pub fn was_sent(&self, change: Change) -> bool {
        self.intent == Some(change) || self.attempts(change).sent
    }

    /// Whether a request that changes something reached the vendor, as far as is known: one that is
    /// about to be sent, or whose result nobody noted, may have.
    pub fn sent(&self) -> Sent {
        let open = if self.intent.is_some() {
            Sent::Unknown
        } else {
            Sent::No
        };
        self.reached.max(open)
    }

    /// Notes a look. `changed`: the task was in another state at the look before.
    pub fn observe(&mut self, seen: &Seen, changed: bool) {
        if changed {
            self.refusals = 0;
            self.waits = 0;
        }
        match seen {
            Seen::Gone => self.gone_looks = self.gone_looks.saturating_add(1),
            Seen::Task(sight) => {
                self.gone_looks = 0;
                if self.pause_in_doubt && matches!(sight.stage, Stage::Pausing | Stage::Paused) {
                    self.count_accepted(Change::Pause);
                }
                let was_restarted =
                    self.paused_from.is_some() && sight.started_at > self.paused_from;
                if self.pause_in_doubt && was_restarted {
                    self.pause.accepted = self.pause.accepted.saturating_add(1);
                    self.pause_in_doubt = false;
                }
                self.looks_since_accepted = self.looks_since_accepted.saturating_add(1);
                self.looks_since_sent = self.looks_since_sent.saturating_add(1);
                self.failed_looks = if sight.stage == Stage::Failed {
                    self.failed_looks.saturating_add(1)
                } else {
                    0
                };
            }
        }
    }

    /// Notes that a change is about to be sent at this moment. `started_at`: the task's start time
    /// as seen in this round.
    pub fn intend(&mut self, change: Change, started_at: Option<Timestamp>, now: Timestamp) {
        if change == Change::Start && !self.was_sent(Change::Start) {
            self.started_before = started_at;
        }
        self.settle_unknown();
        self.intent = Some(change);
        self.sent_at = Some(now);
        self.looks_since_sent = 0;
        if change == Change::Pause {
            self.pause_in_doubt = false;
            self.paused_from = started_at;
        }
    }

    /// Notes that the result of the last intent, if any is open, will never be known.
    pub fn settle_unknown(&mut self) {
        if let Some(change) = self.intent.take() {
            self.note_unknown(change);
            self.reached = self.reached.max(Sent::Unknown);
            let sent_at = self.sent_at;
            let attempts = self.attempts_mut(change);
            attempts.unanswered = attempts.unanswered.max(sent_at);
        }
    }

    /// Notes that the service accepted the change that was intended.
    pub fn accepted(&mut self, change: Change) {
        self.intent = None;
        self.count_accepted(change);
        self.reached = Sent::Yes;
        self.failed_looks = 0;
        self.refusals = 0;
        self.waits = 0;
        self.permanent_faults = 0;
        self.last_fault = None;
    }

    /// Notes that the change that was intended failed, `stage` being what was seen just before.
    pub fn failed(&mut self, change: Change, error: &UpstreamError, stage: Stage) {
        self.intent = None;
        self.reached = self.reached.max(error.sent);
        if error.may_have_changed() {
            self.note_unknown(change);
        }
        match error.kind {
            // "No such task" in answer to a change of a task that was just seen is a refusal too:
            // the next look decides.
            UpstreamErrorKind::Refused | UpstreamErrorKind::Gone => {
                self.refusals = self.refusals.saturating_add(1);
            }
            // This code can come although the task rests (a vendor trap known from Terraform's
            // provider, which retries a delete on it). There it means "not yet" and is bounded by
            // the deadline; otherwise it is a refusal.
            UpstreamErrorKind::StillInProgress
                if change != Change::Delete || !stage.is_at_rest() =>
            {
                self.refusals = self.refusals.saturating_add(1);
            }
            UpstreamErrorKind::StillInProgress
            | UpstreamErrorKind::CredentialsRefused
            | UpstreamErrorKind::CredentialsResting
            | UpstreamErrorKind::Forbidden
            | UpstreamErrorKind::Rejected
            | UpstreamErrorKind::Throttled
            | UpstreamErrorKind::CircuitOpen
            | UpstreamErrorKind::Unavailable
            | UpstreamErrorKind::Timeout
            | UpstreamErrorKind::Malformed => {}
        }
    }

    /// Notes how a round went: `Some` for the exchange that failed in it.
    pub fn round_ended(&mut self, fault: Option<&UpstreamError>) {
        if let Some(error) = fault {
            self.last_fault = Some(Fault::from(error));
        }
        self.permanent_faults = if fault.is_some_and(UpstreamError::is_permanent) {
            self.permanent_faults.saturating_add(1)
        } else {
            0
        };
    }

    /// Notes a failure of an earlier exchange that stood in for one in this round: nobody was
    /// asked.
    pub fn not_asked(&mut self, fault: &UpstreamError) {
        self.last_fault = Some(Fault::from(fault));
    }

    fn note_unknown(&mut self, change: Change) {
        self.attempts_mut(change).sent = true;
        self.pause_in_doubt |= change == Change::Pause;
    }

    fn count_accepted(&mut self, change: Change) {
        for other in Change::ALL {
            self.attempts_mut(other).is_fresh = other == change;
        }
        let attempts = self.attempts_mut(change);
        attempts.sent = true;
        attempts.accepted = attempts.accepted.saturating_add(1);
        self.looks_since_accepted = 0;
        self.pause_in_doubt &= change != Change::Pause;
    }

    /// What became of the requests of one kind.
    pub fn attempts(&self, change: Change) -> Attempts {
        match change {
            Change::Pause => self.pause,
            Change::Start => self.start,
            Change::Delete => self.delete,
        }
    }

    fn attempts_mut(&mut self, change: Change) -> &mut Attempts {
        match change {
            Change::Pause => &mut self.pause,
            Change::Start => &mut self.start,
            Change::Delete => &mut self.delete,
        }
    }
}
