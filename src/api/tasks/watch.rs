//! `GET /tasks/{id}/events`.

use std::{sync::Arc, time::Duration};

use actix_web::{HttpRequest, HttpResponse, get};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, sleep_until};
use utoipa::ToSchema;

use super::{list, parameters, view::TaskView};
use crate::{
    api::{
        events::{self, Feed, message::Message},
        problem::{Problem, kinds::ProblemType},
        request::{
            body::Unread,
            guard::{Action, Head, Known, On},
            target::NamedTask,
        },
        trace,
    },
    domain::{
        access::{Permission, authorise},
        service::BoundService,
        task::{Task, TaskRef, TaskState},
    },
};

/// For how long in a row the cloud may fail before a stream ends.
const FAULTS_FOR: Duration = Duration::from_mins(5);
/// The longest wait for the next look after one that failed.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What whoever watches a task needs.
const NEEDED: &[Permission] = &[Permission::TasksRead];

/// Watching a task.
pub(crate) struct WatchTask {
    /// The sight that the caller has.
    shown: Option<String>,
}

impl Action for WatchTask {
    type Target = NamedTask;
    type Body = Unread;

    fn read(head: &mut Head<'_>) -> Self {
        Self {
            shown: events::last_id(head, state_id),
        }
    }

    fn permissions(&self) -> &'static [Permission] {
        NEEDED
    }
}

/// Why nothing more is to be told of a task.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ending {
    /// The migration has succeeded.
    Succeeded,
    /// The migration has failed.
    Failed,
    /// The service knows no such task any more.
    Gone,
}

impl Ending {
    pub(crate) const ALL: &[Self] = &[Self::Succeeded, Self::Failed, Self::Gone];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Gone => "gone",
        }
    }
}

/// Why nothing more is to be told of a task, and how it was last seen.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TaskEnd {
    /// `succeeded`, `failed`, or `gone` if the service knows no such task any more.
    #[schema(example = "succeeded")]
    ending: &'static str,
    /// The task; null if it is gone.
    #[schema(required = true)]
    task: Option<TaskView>,
}

/// One event of the stream of a task. `data` is JSON.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the OpenAPI document only")]
pub(crate) struct TaskMessage {
    /// A name for what the caller has seen with this event.
    #[schema(
        nullable = false,
        required = false,
        example = "6f1ed002ab5595859014ebf0951522d9"
    )]
    id: Option<String>,
    /// `task`, `problem`, and `end` for the last one.
    #[schema(example = "task")]
    event: &'static str,
    /// A `Task`, a `Problem` or a `TaskEnd`.
    data: String,
}

/// Watch a task.
///
/// A stream of server-sent events: `task` with the task as it is, and again whenever something of
/// it but `observed_at` has changed. It is looked at once a second, however many watch it; less
/// often when more than ten tasks are watched. `end` is the last one: the migration has succeeded
/// or failed, or the task is gone. `problem` says that the cloud could not be asked; the stream
/// goes on, and ends after five minutes of nothing else. Lines that begin with `:` come every 15
/// seconds. A stream ends without `end` after 15 minutes, when the gateway stops, and when the
/// caller may not read the task any more; a caller who connects again with the `Last-Event-ID` of
/// the last event, at whichever replica, is told of the task when it differs from that. Whoever has
/// seen `end` is answered 204 as long as the task is as it was, and 404 once it is gone: either
/// tells an `EventSource` not to connect again.
#[utoipa::path(
    tag = "tasks",
    params(
        parameters::InPath,
        parameters::Place,
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was seen.", example = "6f1ed002ab5595859014ebf0951522d9"),
    ),
    responses(
        (status = 200, description = "The events.", body = TaskMessage, content_type = "text/event-stream"),
        (status = 204, description = "The task has come to its end, and the caller has seen that."),
    ),
)]
#[get("/tasks/{id}/events")]
pub(crate) async fn watch_task(
    on: On<WatchTask>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let feed = Sights {
        known: on.known,
        task: on.target.task,
        service: on.target.service,
        shown: on.action.shown,
        faults: None,
        next_look: Instant::now(),
        request_id: trace::request_id(&request),
    };
    let Some(sight) = feed.look().await? else {
        let detail = format!(
            "The service {} knows no task {} in this project.",
            feed.task.service, feed.task.id
        );
        return Err(Problem::new(ProblemType::TaskNotFound, detail));
    };
    if sight.ending.is_some() && feed.shown.as_ref() == Some(&sight.id) {
        return Ok(events::nothing_more());
    }
    let state = feed.known.state.clone();
    let caller = &feed.known.caller().name;
    let place = state.stream_places.take(caller, Some(&feed.task))?;
    Ok(events::answer(feed, place, request))
}

fn state_id(text: &str) -> Option<String> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (text.len() == 32 && text.bytes().all(is_digit)).then(|| text.to_owned())
}

/// A task as one caller sees it.
struct Sight {
    /// The same for the same sight, whenever it was taken.
    id: String,
    view: TaskView,
    ending: Option<Ending>,
}

impl Sight {
    fn new(task: &Task, view: TaskView) -> Self {
        let mut document = serde_json::to_value(&view).unwrap_or_default();
        if let Some(members) = document.as_object_mut() {
            members.remove("observed_at");
        }
        let digest = Sha256::digest(document.to_string());
        let ending = match task.stage.state() {
            TaskState::Succeeded => Some(Ending::Succeeded),
            TaskState::Failed => Some(Ending::Failed),
            TaskState::Waiting
            | TaskState::Running
            | TaskState::Pausing
            | TaskState::Paused
            | TaskState::Deleting
            | TaskState::Unknown => None,
        };
        Self {
            id: hex::encode(&digest[..16]),
            view,
            ending,
        }
    }
}

/// Looks that failed, one after the other.
#[derive(Clone, Copy)]
struct Faults {
    since: Instant,
    count: u32,
}

/// What a task looks like, from look to look.
struct Sights {
    known: Known,
    task: TaskRef,
    service: BoundService,
    /// The sight that the caller has.
    shown: Option<String>,
    faults: Option<Faults>,
    next_look: Instant,
    request_id: String,
}

impl Sights {
    /// A look that all share who look at the same moment.
    async fn look(&self) -> Result<Option<Sight>, Problem> {
        let Some(task): Option<Arc<Task>> = self.service.port.glance(&self.task.id).await? else {
            return Ok(None);
        };
        let link = list::link(&self.known, &task).await?;
        let view = TaskView::new(&task, self.known.caller(), link);
        Ok(Some(Sight::new(&task, view)))
    }

    fn look_again(&mut self, wait: Duration) {
        let places = &self.known.state.stream_places;
        self.next_look = places.next_look(&self.task, wait);
    }

    /// What a sight is worth telling.
    fn tell(&mut self, sight: Option<Sight>) -> Option<Message> {
        let (end, id) = match sight {
            None => {
                let (ending, task) = (Ending::Gone.as_str(), None);
                (TaskEnd { ending, task }, None)
            }
            Some(Sight {
                id,
                view,
                ending: Some(ending),
            }) => {
                let (ending, task) = (ending.as_str(), Some(view));
                (TaskEnd { ending, task }, Some(id))
            }
            Some(sight) if self.shown.as_ref() == Some(&sight.id) => return None,
            Some(Sight { id, view, .. }) => {
                self.shown = Some(id.clone());
                return Some(Message::new("task", Some(id), &view));
            }
        };
        Some(Message::new("end", id, &end).last())
    }

    /// A look that failed is told, and the next one comes later and later.
    fn fail(&mut self, problem: &Problem) -> Message {
        let first = Faults {
            since: Instant::now(),
            count: 0,
        };
        let mut faults = self.faults.unwrap_or(first);
        faults.count += 1;
        self.faults = Some(faults);
        self.look_again(Duration::from_secs(1 << faults.count.min(5)).min(PAUSE_MAX));
        let message = Message::new("problem", None, &problem.document_for(&self.request_id));
        if faults.since.elapsed() < FAULTS_FOR {
            message
        } else {
            message.last()
        }
    }
}

impl Feed for Sights {
    async fn next(&mut self) -> Option<Message> {
        loop {
            sleep_until(self.next_look).await;
            match self.look().await {
                Ok(sight) => {
                    self.faults = None;
                    self.look_again(Duration::ZERO);
                    if let Some(message) = self.tell(sight) {
                        return Some(message);
                    }
                }
                Err(problem) => return Some(self.fail(&problem)),
            }
        }
    }

    fn known(&mut self) -> &mut Known {
        &mut self.known
    }

    fn is_allowed(&self) -> bool {
        authorise(
            self.known.caller(),
            NEEDED,
            &self.task.project,
            &self.task.service,
        )
        .is_ok()
    }
}
