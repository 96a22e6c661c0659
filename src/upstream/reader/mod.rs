//! Sighting tasks out of a service's answers: what all services have in common.

use std::cell::Cell;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    domain::{
        secret::Secret,
        service::{ProjectName, Receipt, ServiceName, TaskPage, UpstreamError, UpstreamErrorKind},
        task::{Stage, Task, TaskError, TaskId, TaskRef},
    },
    transport::Response,
};

use super::{
    Shared,
    answer::{self, Answers, Codes},
    details,
    echo::{self, Names},
    loose,
};

/// Where and when a document was read.
pub(super) struct Sighting<'a> {
    /// The project that was asked in.
    pub(super) project: &'a ProjectName,
    /// The service that was asked.
    pub(super) service: &'a ServiceName,
    /// When it answered.
    pub(super) at: Timestamp,
}

impl Sighting<'_> {
    /// The reference of a task that was found.
    pub(super) fn reference(&self, id: TaskId) -> TaskRef {
        TaskRef {
            project: self.project.clone(),
            service: self.service.clone(),
            id,
        }
    }
}

/// What a service says about itself to a [`Reader`].
pub(super) struct Dialect {
    /// Its codes.
    pub(super) codes: &'static Codes,
    /// Reads one task, without its details; `None` if the document has no id or no state that can
    /// be read.
    pub(super) task: fn(&Value, &Sighting<'_>) -> Option<Task>,
}

/// Reads the answers of one service of one project. It asks nobody anything.
pub(super) struct Reader {
    project: ProjectName,
    service: ServiceName,
    answers: Answers,
    task: fn(&Value, &Sighting<'_>) -> Option<Task>,
    shared: Shared,
    /// The most rows of a page that could not be read, as far as the log knows.
    unreadable: Cell<usize>,
}

/// The list of every service.
#[derive(Deserialize)]
struct PageWire {
    tasks: Option<Vec<Value>>,
    #[serde(default, deserialize_with = "loose::plain")]
    count: Option<u64>,
}

/// Why a task failed, in the members that every service uses; the code is one such as `TRF.0155` or
/// `SMS.0515`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ReasonWire {
    #[serde(deserialize_with = "loose::plain")]
    error_code: Option<String>,
    #[serde(deserialize_with = "loose::plain")]
    error_msg: Option<String>,
}

impl ReasonWire {
    /// The error, if a code is told.
    pub(super) fn told(self) -> Option<TaskError> {
        let message = self.error_msg.unwrap_or_default();
        Some(TaskError {
            code: answer::clean(&self.error_code?, answer::MESSAGE_MAX),
            message: answer::clean(&message, answer::MESSAGE_MAX),
        })
    }
}

impl Reader {
    /// For one service of one project, with the names that no text for callers may hold.
    pub(super) fn new(
        project: ProjectName,
        (service, names): (ServiceName, Names),
        dialect: &Dialect,
        shared: &Shared,
    ) -> Self {
        Self {
            answers: Answers::new(service.clone(), dialect.codes, names),
            task: dialect.task,
            project,
            service,
            shared: shared.clone(),
            unreadable: Cell::new(0),
        }
    }

    /// The task that was asked for; `None` if the service said that there is no such task. An
    /// answer about another task is [`UpstreamErrorKind::Malformed`].
    pub(super) fn task(
        &self,
        response: &Response,
        asked: &TaskId,
    ) -> Result<Option<Task>, UpstreamError> {
        let document = match self.answers.document(response) {
            Ok(document) => document,
            Err(error) if error.kind == UpstreamErrorKind::Gone => return Ok(None),
            Err(error) => return Err(error),
        };
        match self.read(&document) {
            Some(task) if task.reference.id == *asked => Ok(Some(Task {
                details: self.shown(document, &task.reference),
                ..task
            })),
            Some(_) => Err(self
                .answers
                .malformed(response, "which is about another task")),
            None => Err(self
                .answers
                .malformed(response, "which does not describe a task")),
        }
    }

    /// One page of a list. Rows that cannot be read keep their place.
    pub(super) fn page(&self, response: &Response) -> Result<TaskPage, UpstreamError> {
        let document = self.answers.document(response).map_err(not_about_a_task)?;
        let (rows, total) = match loose::object(&document) {
            Some(PageWire {
                tasks: Some(rows),
                count: Some(total),
            }) => (rows, total),
            Some(PageWire {
                tasks: None,
                count: Some(0),
            }) => (Vec::new(), 0),
            Some(_) | None => {
                return Err(self
                    .answers
                    .malformed(response, "which is not a list of tasks"));
            }
        };
        let rows: Vec<Option<Task>> = rows.iter().map(|row| self.read(row)).collect();
        let unreadable = rows.iter().filter(|row| row.is_none()).count();
        if unreadable
            > self
                .unreadable
                .replace(self.unreadable.get().max(unreadable))
        {
            tracing::warn!(
                upstream.service = %self.service,
                rows = unreadable,
                "left out rows of a list of tasks that cannot be read"
            );
        }
        Ok(TaskPage { rows, total })
    }

    /// The receipt for a change.
    pub(super) fn receipt(&self, response: &Response) -> Result<Receipt, UpstreamError> {
        self.answers.receipt(response)
    }

    /// Makes sure that nobody is told the texts in the body of a request about a task, which are
    /// keys.
    pub(super) fn hide_texts(&self, id: &TaskId, body: Option<&Value>) {
        let texts = body.and_then(Value::as_object).into_iter();
        let texts = texts.flat_map(|body| body.values().filter_map(Value::as_str));
        let reference = self.look().reference(id.clone());
        self.shared
            .storage_secrets
            .remember(&reference, texts.map(Secret::new).collect());
    }

    /// The document of a task as callers may see it.
    fn shown(&self, document: Value, task: &TaskRef) -> Value {
        let keys = self.shared.storage_secrets.mask(task);
        details::redacted(document, &|text| {
            let text = keys.masked(text);
            // Sentences can name users; what is one word is a name or an id of the task.
            if text.contains(' ') {
                self.answers.shown_text(&text)
            } else {
                echo::without_keys(&text)
            }
        })
    }

    fn look(&self) -> Sighting<'_> {
        Sighting {
            project: &self.project,
            service: &self.service,
            at: self.shared.clock.now(),
        }
    }

    fn read(&self, document: &Value) -> Option<Task> {
        let mut task = (self.task)(document, &self.look())?;
        if let Some(error) = task.error.take() {
            let keys = self.shared.storage_secrets.mask(&task.reference);
            task.error = Some(self.answers.reason(TaskError {
                code: keys.masked(&error.code),
                message: keys.masked(&error.message),
            }));
        }
        if task.stage == Stage::Unknown {
            self.shared.unknown_states.count(&self.service);
        }
        Some(task)
    }
}

/// A list that is said not to exist is asked for at a wrong place; no task is gone by that.
fn not_about_a_task(error: UpstreamError) -> UpstreamError {
    match error.kind {
        UpstreamErrorKind::Gone => UpstreamError {
            kind: UpstreamErrorKind::Rejected,
            detail: "The service says that there is no list of tasks for this project.".to_owned(),
            ..error
        },
        UpstreamErrorKind::CredentialsRefused
        | UpstreamErrorKind::CredentialsResting
        | UpstreamErrorKind::Forbidden
        | UpstreamErrorKind::Refused
        | UpstreamErrorKind::StillInProgress
        | UpstreamErrorKind::Rejected
        | UpstreamErrorKind::Throttled
        | UpstreamErrorKind::CircuitOpen
        | UpstreamErrorKind::Unavailable
        | UpstreamErrorKind::Timeout
        | UpstreamErrorKind::Malformed => error,
    }
}

#[cfg(test)]
mod tests;
