//! The whole behaviour of an operation, as one pure function.
//!
//! [`decide`] looks at the goal, at what was seen of the task just before, and at what was tried so
//! far, and says what to do next. It has no clock and does no input or output. What to do follows
//! from what is seen: a crash or a lost reply only means that a step is taken again. The same
//! function says whether a request is refused at once ([`refusal`]) and what a task offers
//! ([`is_offered`]), so that the three can never disagree.

use jiff::Timestamp;

use super::{
    history::{Change, History},
    operation::{Goal, Outcome, Reason},
    service::UpstreamErrorKind,
    task::{DeleteGate, Stage, Task, TaskState},
};

/// An accepted change is believed for this many looks before a pause or delete is sent again, or a
/// task at rest is said to stay there: the vendor's answers can lag behind its own acceptance, and
/// what another operation sent can be on its way.
pub const BELIEVED_LOOKS: u32 = 3;
/// So many accepted pauses, and the task still runs: somebody else starts it, and the gateway does
/// not fight a person.
pub const PAUSES_MAX: u32 = 5;
/// So many refusals without a change of state in between, and the operation fails.
pub const REFUSALS_MAX: u32 = 10;
/// Where rows of a list tell too little to wait by for ever, every so manieth wait ends in a look
/// at the task itself.
pub const WAITS_BETWEEN_LOOKS: u32 = 6;
/// So many rounds in a row with refused credentials or missing permissions, and the operation
/// fails.
pub const PERMANENT_FAULTS_MAX: u32 = 5;
/// If no delete of ours can explain it, "no such task" must be seen this often: one answer could be
/// a mistake.
pub const GONE_LOOKS: u32 = 2;
/// A task seen failed this often after an accepted start has failed because of it, not before it.
pub const FAILED_LOOKS: u32 = 3;

/// What a look at the task told.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Seen {
    /// The service says that there is no such task.
    Gone,
    /// The task stands here.
    Task(Sight),
}

/// The parts of a task that decisions rest on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sight {
    /// Where it stands.
    pub stage: Stage,
    /// Whether the service would accept a delete.
    pub gate: DeleteGate,
    /// When it was last started.
    pub started_at: Option<Timestamp>,
}

impl From<&Task> for Sight {
    fn from(task: &Task) -> Self {
        Self {
            stage: task.stage,
            gate: task.gate,
            started_at: task.started_at,
        }
    }
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send a pause.
    Pause,
    /// Send a start.
    Start,
    /// Send a delete.
    Delete,
    /// Look again later.
    Wait,
    /// The goal holds.
    Finish(Outcome),
    /// The goal cannot be reached.
    Fail(Reason),
}

/// What to do next about an operation, given a fresh look at its task that is already counted in
/// `history`.
///
/// `overdue`: the deadline has passed, so that whatever is not an end is a failure.
pub fn decide(goal: Goal, seen: Seen, history: &History, overdue: bool) -> Action {
    let action = match (goal, seen) {
        (_, Seen::Gone) => when_gone(goal, history),
        (Goal::Absent { force }, Seen::Task(sight)) => towards_absent(force, sight, history),
        (Goal::Paused, Seen::Task(sight)) => towards_paused(sight, history),
        (Goal::Running, Seen::Task(sight)) => towards_running(sight, history),
    };
    let action = limited(action, history);
    let is_end = matches!(action, Action::Finish(_) | Action::Fail(_));
    if overdue && !is_end {
        Action::Fail(Reason::DeadlineExceeded)
    } else {
        action
    }
}

/// What to do after a round that failed, counted in `history` already.
pub fn after_fault(kind: UpstreamErrorKind, history: &History, overdue: bool) -> Action {
    let reason = match kind {
        UpstreamErrorKind::CredentialsRefused => Some(Reason::CredentialsRefused),
        UpstreamErrorKind::Forbidden => Some(Reason::UpstreamForbidden),
        UpstreamErrorKind::Rejected => Some(Reason::UpstreamRejected),
        UpstreamErrorKind::CredentialsResting
        | UpstreamErrorKind::Refused
        | UpstreamErrorKind::StillInProgress
        | UpstreamErrorKind::Gone
        | UpstreamErrorKind::Throttled
        | UpstreamErrorKind::CircuitOpen
        | UpstreamErrorKind::Unavailable
        | UpstreamErrorKind::Timeout
        | UpstreamErrorKind::Malformed => None,
    };
    match reason {
        Some(reason) if history.permanent_faults >= PERMANENT_FAULTS_MAX => Action::Fail(reason),
        Some(_) | None if overdue => Action::Fail(Reason::DeadlineExceeded),
        Some(_) | None => Action::Wait,
    }
}

/// Whether a row of a service's list is enough to go on waiting for a while, `seen` being the state
/// that the last look at the task itself showed. Everything else is to be found out by a look.
///
/// A row is no look, and nothing of it is noted in the history: lists may lag behind what a look
/// shows, and their rows tell less. It can only say that nothing has changed and that the state, by
/// itself, says to wait. It is not asked where the reason to wait is that a change was accepted a
/// moment ago, or where looks are counted before something is concluded (an accepted change is
/// believed for [`BELIEVED_LOOKS`], a failure is one after [`FAILED_LOOKS`], gone is gone after
/// [`GONE_LOOKS`]): if rows were counted, an outdated list could use those up; if they were not and
/// had a say, they would never be used up.
pub fn waits_by_row(goal: Goal, row: Sight, seen: Option<TaskState>, history: &History) -> bool {
    let settled = history.settled();
    let waits = |gate| {
        let sight = Sight { gate, ..row };
        decide(goal, Seen::Task(sight), &settled, false) == Action::Wait
    };
    // A source server that is offline lets a pause hang for ever, and shows in a look only.
    let tells_enough = row.gate != DeleteGate::Untold || waits(DeleteGate::Offline);
    row.stage != Stage::Unknown
        && seen == Some(row.stage.state())
        && waits(row.gate)
        && (tells_enough || !history.waits.is_multiple_of(WAITS_BETWEEN_LOOKS))
}

/// Why a request for this goal is refused at once, if the task stands like this. `history`: what
/// its operation would begin with.
pub fn refusal(goal: Goal, sight: Sight, history: &History) -> Option<Reason> {
    match decide(goal, Seen::Task(sight), history, false) {
        Action::Fail(reason) => Some(reason),
        Action::Pause | Action::Start | Action::Delete | Action::Wait | Action::Finish(_) => None,
    }
}

/// Whether asking for this goal would be accepted and is not pointless, if the task stands like
/// this.
pub fn is_offered(goal: Goal, sight: Sight) -> bool {
    match decide(goal, Seen::Task(sight), &History::default(), false) {
        Action::Pause | Action::Start | Action::Delete | Action::Wait => true,
        Action::Fail(_) | Action::Finish(_) => false,
    }
}

fn when_gone(goal: Goal, history: &History) -> Action {
    let deleting = matches!(goal, Goal::Absent { .. });
    if deleting && history.was_sent(Change::Delete) {
        return Action::Finish(Outcome::Deleted);
    }
    if history.gone_looks < GONE_LOOKS {
        return Action::Wait;
    }
    if deleting {
        Action::Finish(Outcome::AlreadyGone)
    } else {
        Action::Fail(Reason::TaskNotFound)
    }
}

#[expect(
    clippy::match_same_arms,
    reason = "each row of the table stands for itself"
)]
fn towards_absent(force: bool, sight: Sight, history: &History) -> Action {
    if history.is_unanswered(Change::Delete) || is_believed(Change::Delete, history) {
        return Action::Wait;
    }
    match (sight.stage, force) {
        (Stage::Deleting, _) => Action::Wait,
        // Whether the service deletes a task that waits for its turn is not documented. If it does
        // not, a forced delete waits until the task runs, and pauses it then.
        (Stage::Queued, true) if history.refusals >= REFUSALS_MAX => Action::Wait,
        (Stage::Queued, _) => Action::Delete,
        (Stage::Ready | Stage::Paused | Stage::Failed | Stage::Succeeded, _) => match sight.gate {
            DeleteGate::Open | DeleteGate::Untold | DeleteGate::Offline => Action::Delete,
            DeleteGate::Closed => Action::Wait,
        },
        (Stage::Running, true) if is_believed(Change::Pause, history) => Action::Wait,
        (Stage::Running, true) => Action::Pause,
        // The pause needs the agent. One that is offline can let it hang for ever, but then the
        // service accepts a delete.
        (Stage::Pausing, true) if sight.gate == DeleteGate::Offline => Action::Delete,
        (Stage::Initialising | Stage::Busy | Stage::Pausing | Stage::Unknown, true) => Action::Wait,
        // A delete that was sent may lead through states that this program does not know.
        (Stage::Unknown, false) if history.was_sent(Change::Delete) => Action::Wait,
        (
            Stage::Initialising | Stage::Running | Stage::Busy | Stage::Pausing | Stage::Unknown,
            false,
        ) => Action::Fail(Reason::TaskInProgress),
    }
}

fn towards_paused(sight: Sight, history: &History) -> Action {
    match sight.stage {
        // A start that was sent for an earlier operation may still take effect.
        Stage::Ready | Stage::Paused | Stage::Failed
            if history.is_unanswered(Change::Start) || is_believed(Change::Start, history) =>
        {
            Action::Wait
        }
        Stage::Running if is_believed(Change::Pause, history) => Action::Wait,
        Stage::Running => Action::Pause,
        Stage::Paused if history.was_sent(Change::Pause) => Action::Finish(Outcome::Paused),
        Stage::Paused => Action::Finish(Outcome::AlreadyPaused),
        Stage::Initialising | Stage::Queued | Stage::Busy | Stage::Pausing | Stage::Unknown => {
            Action::Wait
        }
        Stage::Ready => Action::Fail(Reason::TaskNotStarted),
        Stage::Failed | Stage::Succeeded => Action::Fail(Reason::TaskFinished),
        Stage::Deleting => Action::Fail(Reason::TaskInProgress),
    }
}

#[expect(
    clippy::match_same_arms,
    reason = "each row of the table stands for itself"
)]
fn towards_running(sight: Sight, history: &History) -> Action {
    let accepted = history.start.accepted > 0;
    match sight.stage {
        // A pause that was sent for an earlier operation may still take effect.
        Stage::Running
            if history.is_unanswered(Change::Pause) || is_believed(Change::Pause, history) =>
        {
            Action::Wait
        }
        Stage::Running if history.was_sent(Change::Start) => Action::Finish(Outcome::Started),
        Stage::Running => Action::Finish(Outcome::AlreadyRunning),
        Stage::Succeeded if history.was_sent(Change::Start) => Action::Finish(Outcome::Started),
        Stage::Succeeded => Action::Fail(Reason::TaskFinished),
        Stage::Failed if has_failed_since_start(sight, history) => Action::Fail(Reason::TaskFailed),
        // One operation never starts a task again after an accepted start.
        Stage::Ready | Stage::Paused | Stage::Failed if accepted => Action::Wait,
        Stage::Ready | Stage::Paused | Stage::Failed => Action::Start,
        Stage::Initialising | Stage::Queued | Stage::Busy | Stage::Pausing | Stage::Unknown => {
            Action::Wait
        }
        Stage::Deleting => Action::Fail(Reason::TaskInProgress),
    }
}

/// Whether the failure that is seen belongs to our start and not to the run before it.
fn has_failed_since_start(sight: Sight, history: &History) -> bool {
    let restarted = history.was_sent(Change::Start)
        && sight.started_at.is_some()
        && sight.started_at > history.started_before;
    restarted || (history.start.accepted > 0 && history.failed_looks >= FAILED_LOOKS)
}

fn is_believed(change: Change, history: &History) -> bool {
    history.attempts(change).is_fresh && history.looks_since_accepted <= BELIEVED_LOOKS
}

/// Ends what has been tried often enough.
fn limited(action: Action, history: &History) -> Action {
    match action {
        Action::Pause if history.pause.accepted >= PAUSES_MAX => {
            Action::Fail(Reason::TaskInProgress)
        }
        Action::Pause | Action::Start | Action::Delete if history.refusals >= REFUSALS_MAX => {
            Action::Fail(Reason::UpstreamRejected)
        }
        Action::Pause
        | Action::Start
        | Action::Delete
        | Action::Wait
        | Action::Finish(_)
        | Action::Fail(_) => action,
    }
}

#[cfg(test)]
#[path = "decide_tests/mod.rs"]
mod tests;
