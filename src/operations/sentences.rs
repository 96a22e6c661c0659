//! The sentences that tell a person why a request was refused or an operation failed, and what to
//! do about it, and the lines of the log about operations.

use super::{
    accept::Ask,
    plan::{Course, Step},
};
use crate::domain::{
    decide::Action,
    history::Change,
    operation::{EventKind, Goal, Operation, Outcome, Reason},
    task::{TaskError, TaskRef, TaskState},
};

/// Why a request is refused at once. `state` is the task's, `None` if there is no such task.
pub(super) fn refused(reason: Reason, task: &TaskRef, state: Option<TaskState>) -> String {
    let id = &task.id;
    let state = state.map_or("gone", TaskState::as_str);
    match reason {
        Reason::TaskNotFound => {
            format!(
                "The service {} knows no task {id} in this project.",
                task.service
            )
        }
        Reason::TaskInProgress if state == "deleting" => {
            format!("Task {id} is being deleted.")
        }
        Reason::TaskInProgress if state == "pausing" => format!(
            "Task {id} is being paused. Wait until it is paused, or repeat with ?force=pause."
        ),
        Reason::TaskInProgress if state == "unknown" => {
            format!("Task {id} is in a state that the gateway does not know, so it is left alone.")
        }
        Reason::TaskInProgress => {
            format!("Task {id} is {state}. Pause it first, or repeat with ?force=pause.")
        }
        Reason::TaskFinished => {
            format!("Task {id} has {state}. There is nothing left to pause or start.")
        }
        Reason::TaskNotStarted => {
            format!("Task {id} was never started, so it cannot be paused.")
        }
        Reason::TaskFailed
        | Reason::CredentialsLost
        | Reason::ProjectChanged
        | Reason::DeadlineExceeded
        | Reason::CredentialsRefused
        | Reason::UpstreamForbidden
        | Reason::UpstreamRejected => format!("Task {id} is {state}: {}.", reason.as_str()),
    }
}

/// What a request would lead to. `step` is `None` if the task was not seen.
pub(super) fn planned(ask: &Ask, course: Course, step: Option<Step>) -> String {
    let id = &ask.task.id;
    let begin = match course {
        Course::Begin => "",
        Course::Join => "An operation that does this runs already, and would be joined. ",
        Course::Supersede => "Another operation on the task would be superseded. ",
        Course::Replay => {
            return "The Idempotency-Key is known: nothing would be done, and the answer would be about the operation that it stands for.".to_owned();
        }
    };
    let Some(step) = step else {
        return format!(
            "{begin}Task {id} could not be seen just now. An operation looks again before it sends anything."
        );
    };
    let state = step.state.map_or("gone", TaskState::as_str);
    let rest = match step.action {
        Action::Pause if ask.goal == Goal::Paused => "a pause would be sent next",
        Action::Pause => "a pause would be sent next, and a delete once the task is at rest",
        Action::Start => "a start would be sent next",
        Action::Delete => "a delete would be sent next",
        Action::Wait => "nothing would be sent before a later look shows something else",
        Action::Finish(Outcome::Deleted | Outcome::AlreadyGone) => "nothing is left to be sent",
        Action::Finish(_) => "nothing would be sent, since that is what is wanted",
        Action::Fail(_) => "nothing would be sent, and the operation would fail",
    };
    format!("{begin}Task {id} is {state}: {rest}.")
}

/// Why an operation failed.
pub(super) fn failed(reason: Reason, operation: &Operation) -> String {
    let id = &operation.task.id;
    let state = operation.last_seen;
    let fault = operation.history.last_fault.as_ref();
    let seen = match state {
        Some(state) => format!("it was last seen {}", state.as_str()),
        None if operation.history.gone_looks > 0 => "it was last seen gone".to_owned(),
        None => "it was never seen".to_owned(),
    };
    let because = fault
        .map(|fault| format!(" {}", fault.detail))
        .unwrap_or_default();
    match reason {
        Reason::TaskInProgress
            if operation.history.pause.accepted > 0 && state == Some(TaskState::Running) =>
        {
            format!(
                "Task {id} runs again although the service accepted {} pauses: something else starts it.",
                operation.history.pause.accepted
            )
        }
        Reason::DeadlineExceeded => format!(
            "The {} of task {id} did not end in time; {seen}.{because}",
            operation.goal.kind()
        ),
        Reason::CredentialsRefused => format!(
            "The cloud refused the gateway's own credentials; whoever runs the gateway must mend that.{because}"
        ),
        Reason::UpstreamForbidden => format!(
            "The gateway's identity at the cloud lacks a permission; whoever runs the gateway must mend that.{because}"
        ),
        Reason::UpstreamRejected => {
            format!(
                "The service kept refusing to {} task {id}; {seen}.{because}",
                operation.goal.kind()
            )
        }
        Reason::CredentialsLost if operation.history.was_sent(Change::Start) => format!(
            "The storage keys of this start were lost when the gateway restarted, while it was being sent; whether task {id} was started is not known, {seen}. Look at the task before you send the start again."
        ),
        Reason::CredentialsLost => format!(
            "The storage keys of this start were lost when the gateway restarted; task {id} was not started, {seen}. Send the start again."
        ),
        Reason::ProjectChanged => format!(
            "The configuration of project {} is not the one this operation was accepted under, so it was given up.",
            operation.task.project
        ),
        Reason::TaskFailed => format!("Task {id} was started and failed."),
        Reason::TaskFinished if operation.goal == Goal::Paused => {
            format!("Task {id} ended before it could be paused; {seen}.")
        }
        Reason::TaskNotFound
        | Reason::TaskInProgress
        | Reason::TaskFinished
        | Reason::TaskNotStarted => refused(reason, &operation.task, state),
    }
}

/// Why a task that was started failed, in the vendor's words.
pub(super) fn task_failed(operation: &Operation, error: Option<&TaskError>) -> String {
    let id = &operation.task.id;
    match error {
        Some(error) if !error.message.is_empty() => {
            format!(
                "Task {id} was started and failed: {} ({}).",
                error.message, error.code
            )
        }
        Some(error) => format!("Task {id} was started and failed with {}.", error.code),
        None => format!("Task {id} was started and failed; the service gives no reason."),
    }
}

/// The one log line of an event of an operation.
pub(super) fn log_event(operation: &Operation, event: &EventKind) {
    let (state, code) = match event {
        EventKind::Observed(state) => (Some(state.map_or("gone", TaskState::as_str)), None),
        EventKind::Refused(code) => (None, code.as_deref()),
        EventKind::Fault(what) => (None, Some(what.as_str())),
        EventKind::Accepted
        | EventKind::Joined
        | EventKind::PauseSent(_)
        | EventKind::StartSent(_)
        | EventKind::DeleteSent(_)
        | EventKind::Resumed
        | EventKind::Superseded
        | EventKind::Cancelled
        | EventKind::Ended => (None, None),
    };
    tracing::info!(
        operation.id = %operation.id,
        operation.kind = operation.goal.kind(),
        operation.force = operation.goal.force(),
        operation.status = operation.status.as_str(),
        operation.outcome = operation.outcome.map(Outcome::as_str),
        operation.error = operation.failure.as_ref().map(|failure| failure.reason.as_str()),
        task.service = %operation.task.service,
        task.project = %operation.task.project,
        task.id = %operation.task.id,
        task.state = state,
        upstream.code = code,
        "operation {}",
        event.as_str()
    );
}
