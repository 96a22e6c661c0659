//! The look before anything is recorded: whether the caller may change a task of its name, and
//! whether its state stands against what is asked for.

use super::{Ask, AskError};
use crate::{
    domain::{
        decide::{self, Sight},
        history::History,
        operation::{Operation, Reason},
        service::{Services, UpstreamErrorKind},
        task::Task,
    },
    operations::{Operations, kill_point::kill_point, sentences},
};

impl Operations {
    /// One look at the task, which also tells whether the caller may change a task of its name.
    pub(in crate::operations) async fn look(
        &self,
        services: &Services,
        ask: &Ask,
    ) -> Result<LookResult, AskError> {
        let service = services.of(&ask.task).ok_or(AskError::NotOffered)?;
        kill_point!("accept.look.before");
        let shown = service.port.show(&ask.task.id).await;
        kill_point!("accept.look.after");
        match shown {
            Err(error) => {
                // The breaker has said so itself, once for all.
                if error.kind != UpstreamErrorKind::CircuitOpen {
                    tracing::warn!(
                        task.service = %ask.task.service,
                        task.id = %ask.task.id,
                        error.kind = error.kind.as_str(),
                        %error,
                        "the look before accepting an operation failed"
                    );
                }
                if ask.names.are_all() {
                    Ok(LookResult::Failed)
                } else {
                    Err(AskError::Unseen(error))
                }
            }
            Ok(Some(task)) if !ask.names.admit(task.name.as_deref()) => Err(AskError::NameDenied),
            // What is not there has no name to be admitted by.
            Ok(None) if !ask.names.are_all() => Err(refused(Reason::TaskNotFound, ask, None)),
            Ok(seen) => Ok(LookResult::Seen(seen.map(Box::new))),
        }
    }

    /// Whether the name of the task was seen to be admitted: an error if it is not. Whoever may not
    /// change tasks of that name must not hear of what runs there; those who are among its callers
    /// were found to be admitted before.
    pub(in crate::operations) async fn admit(
        &self,
        services: &Services,
        ask: &Ask,
        running: &Operation,
    ) -> Result<bool, AskError> {
        let is_needed = !ask.names.are_all() && !running.callers.contains(&ask.caller);
        if is_needed {
            let _seen = self.look(services, ask).await?;
        }
        Ok(is_needed)
    }
}

/// What a look told.
pub(in crate::operations) enum LookResult {
    /// The task; `None`: there is none.
    Seen(Option<Box<Task>>),
    /// Nothing. An operation would look again.
    Failed,
}

/// A definite answer can refuse the request; a fault cannot, since the operation will look again.
/// Otherwise the task that was seen, if it was. `inherited`: what an operation that is taken over
/// from has tried.
pub(in crate::operations) fn refuse(
    ask: &Ask,
    look: LookResult,
    inherited: &History,
) -> Result<Option<Box<Task>>, AskError> {
    match look {
        LookResult::Failed => Ok(None),
        LookResult::Seen(None) => Err(refused(Reason::TaskNotFound, ask, None)),
        LookResult::Seen(Some(task)) => {
            match decide::refusal(ask.goal, Sight::from(&*task), inherited) {
                None => Ok(Some(task)),
                Some(reason) => Err(refused(reason, ask, Some(task))),
            }
        }
    }
}

fn refused(reason: Reason, ask: &Ask, task: Option<Box<Task>>) -> AskError {
    let state = task.as_ref().map(|task| task.stage.state());
    AskError::Refused {
        reason,
        detail: sentences::refused(reason, &ask.task, state),
        task,
    }
}
