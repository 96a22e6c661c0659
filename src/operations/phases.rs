//! What an operation is about at a moment: a memo for people, by which nothing is decided.

use crate::domain::{
    decide::Seen,
    history::Change,
    operation::{Goal, Operation, Phase},
    task::Stage,
};

/// What an operation that waits is about.
pub(super) fn waiting_phase(operation: &Operation, seen: Seen) -> Phase {
    match operation.goal {
        Goal::Paused => Phase::WaitingUntilPaused,
        Goal::Running => Phase::WaitingUntilRunning,
        Goal::Absent { .. } if operation.history.was_sent(Change::Delete) => Phase::Verifying,
        Goal::Absent { .. } => match seen {
            Seen::Gone => Phase::Verifying,
            Seen::Task(sight) if sight.stage.is_at_rest() || sight.stage == Stage::Deleting => {
                Phase::Deleting
            }
            Seen::Task(_) => Phase::WaitingUntilPaused,
        },
    }
}

/// What an operation is about after a change was sent.
pub(super) fn phase_after(change: Change, accepted: bool) -> Phase {
    match (change, accepted) {
        (Change::Pause, _) => Phase::WaitingUntilPaused,
        (Change::Start, _) => Phase::WaitingUntilRunning,
        (Change::Delete, true) => Phase::Verifying,
        (Change::Delete, false) => Phase::Deleting,
    }
}
