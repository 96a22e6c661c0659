//! What a request meets: what it stands for already, or what runs on its task.

use super::{Ask, AskError, kill_point};
use crate::{
    domain::{
        operation::{Goal, Operation},
        start::StartRecord,
    },
    operations::Operations,
};

/// What a request meets.
pub(in crate::operations) enum Standing {
    /// The operation that its key stands for.
    Known(Operation),
    /// Nothing runs on the task.
    Free,
    /// An operation that serves it.
    Same(Operation),
    /// An operation that it takes over from.
    Lesser(Operation),
    /// An operation that it has to leave alone.
    Other(Operation),
}

impl Operations {
    pub(in crate::operations) async fn standing(
        &self,
        ask: &Ask,
        start: &StartRecord,
    ) -> Result<Standing, AskError> {
        if let Some(known) = self.recall(ask).await? {
            return Ok(Standing::Known(known));
        }
        kill_point!("accept.running.before");
        let running = self.running_on(&ask.task).await;
        kill_point!("accept.running.after");
        Ok(match running? {
            None => Standing::Free,
            Some(running) if is_served_by(&running, ask.goal, start) => Standing::Same(running),
            Some(running) if supersedes(ask.goal, running.goal) => Standing::Lesser(running),
            Some(running) => Standing::Other(running),
        })
    }

    /// The operation that the key of a request stands for.
    async fn recall(&self, ask: &Ask) -> Result<Option<Operation>, AskError> {
        let Some(key) = &ask.key else { return Ok(None) };
        kill_point!("accept.recall.before");
        let recalled = self.0.store.recall(&ask.caller, &key.key).await;
        kill_point!("accept.recall.after");
        match recalled? {
            Some((_, fingerprint)) if fingerprint != key.fingerprint => Err(AskError::KeyReused),
            known => Ok(known.map(|(operation, _)| operation)),
        }
    }
}

/// Whether a request is served by an operation that is running: it is the same, or it is for a task
/// to be gone if it is at rest, which a deletion that also pauses it does too.
fn is_served_by(running: &Operation, goal: Goal, start: &StartRecord) -> bool {
    let force_delete = Goal::Absent { force: true };
    running.is_same_request(goal, start)
        || (running.goal == force_delete && goal == Goal::Absent { force: false })
}

/// Whether a goal takes over from one that is being driven at.
fn supersedes(goal: Goal, running: Goal) -> bool {
    match goal {
        Goal::Absent { force: true } => true,
        Goal::Paused => running == Goal::Running,
        Goal::Absent { force: false } | Goal::Running => false,
    }
}
