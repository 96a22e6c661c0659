//! `GET /operations/{id}/events`.

use actix_web::{HttpRequest, HttpResponse, get};
use serde::Serialize;
use utoipa::ToSchema;

use super::view::{EventView, OperationView};
use crate::{
    api::{
        events::{self, Feed, message::Message},
        problem::{Problem, kinds::ProblemType},
        request::{
            body::Unread,
            guard::{Action, Head, Known, On},
        },
        trace,
    },
    domain::{
        access::Permission,
        operation::{Operation, OperationId, Phase, Status},
    },
    operations::OperationWatch,
};

/// Watching an operation.
pub(crate) struct WatchOperation {
    /// How many of its events the caller has.
    sent: usize,
}

impl Action for WatchOperation {
    type Target = OperationId;
    type Body = Unread;

    fn read(head: &mut Head<'_>) -> Self {
        let sent = events::last_id(head, number);
        Self {
            sent: sent.unwrap_or(0),
        }
    }

    fn permissions(&self) -> &'static [Permission] {
        &[Permission::OperationsRead]
    }
}

/// What happened to an operation, and where it stands.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OperationUpdate {
    #[serde(flatten)]
    event: EventView,
    /// Where the operation stands when this is sent: `running`, `succeeded`, `failed`, `cancelled`
    /// or `superseded`.
    #[schema(example = "running")]
    status: &'static str,
    /// What it is about just then; null at the end.
    #[schema(required = true)]
    phase: Option<&'static str>,
    /// With the last event: the operation, which has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, required = false)]
    operation: Option<OperationView>,
}

/// One event of the stream of an operation. `data` is JSON.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the OpenAPI document only")]
pub(crate) struct OperationMessage {
    /// The number of the event, from 1 on. `problem` has none.
    #[schema(nullable = false, required = false, example = "4")]
    id: Option<String>,
    /// `progress`, and `end` for the last one; `problem` if the record cannot be read, after which
    /// the stream ends too.
    #[schema(example = "progress")]
    event: &'static str,
    /// An `OperationUpdate` or a `Problem`.
    data: String,
}

/// Watch an operation.
///
/// A stream of server-sent events: one for everything that happened to the operation so far, and
/// one for everything that happens from then on. The last one, `end`, carries the operation as it
/// ended; then the stream ends. Lines that begin with `:` come every 15 seconds. A stream ends
/// without `end` after 15 minutes, when the gateway stops, and when the caller may not read the
/// operation any more; a caller who connects again with the `Last-Event-ID` of the last event goes
/// on after it, at whichever replica. Whoever has seen `end` is answered 204, which tells an
/// `EventSource` not to connect again.
#[utoipa::path(
    tag = "operations",
    params(
        ("id" = String, Path, description = "The operation's id.", example = "op_01JGZ4K8W3M5N7P9R1T3V5X7Z9"),
        ("Last-Event-ID" = Option<String>, Header, description = "The id of the last event that was seen; only later ones are sent.", example = "3"),
    ),
    responses(
        (status = 200, description = "The events.", body = OperationMessage, content_type = "text/event-stream"),
        (status = 204, description = "The operation has ended, and the caller has seen that."),
    ),
)]
#[get("/operations/{id}/events")]
pub(crate) async fn watch_operation(
    on: On<WatchOperation>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let mut watch = on.known.state.operations.watch(on.target);
    let first = watch.next().await?;
    let Some(operation) = first.filter(|operation| on.known.may_see(operation)) else {
        return Err(Problem::new(
            ProblemType::OperationNotFound,
            "There is no such operation, or it is not one that this caller may see.",
        ));
    };
    let sent = on.action.sent;
    if sent > operation.events.len() {
        return Err(events::unknown_id());
    }
    if operation.status != Status::Running && sent == operation.events.len() {
        return Ok(events::nothing_more());
    }
    let caller = &on.known.caller().name;
    let place = on.known.state.stream_places.take(caller, None)?;
    let feed = Events {
        known: on.known,
        watch,
        operation,
        sent,
        request_id: trace::request_id(&request),
    };
    Ok(events::answer(feed, place, request))
}

fn number(text: &str) -> Option<usize> {
    let is_canonical = text == "0" || !text.starts_with(['0', '+']);
    text.parse().ok().filter(|_| is_canonical)
}

/// The events of an operation.
struct Events {
    known: Known,
    watch: OperationWatch,
    /// As it was last read.
    operation: Operation,
    /// How many of its events the caller has.
    sent: usize,
    request_id: String,
}

impl Feed for Events {
    async fn next(&mut self) -> Option<Message> {
        while self.operation.events.len() <= self.sent {
            match self.watch.next().await {
                Ok(found) => self.operation = found.filter(|found| self.known.may_see(found))?,
                Err(error) => {
                    let problem = Problem::from(error).document_for(&self.request_id);
                    return Some(Message::new("problem", None, &problem).last());
                }
            }
        }
        let operation = &self.operation;
        let event = EventView::from(&operation.events[self.sent]);
        let number = self.sent + 1;
        let is_last = operation.status != Status::Running && number == operation.events.len();
        let ended = if is_last {
            Some(OperationView::of(operation, &self.known).await)
        } else {
            None
        };
        let update = OperationUpdate {
            event,
            status: operation.status.as_str(),
            phase: operation.phase.map(Phase::as_str),
            operation: ended,
        };
        self.sent = number;
        let id = Some(number.to_string());
        Some(if is_last {
            Message::new("end", id, &update).last()
        } else {
            Message::new("progress", id, &update)
        })
    }

    fn known(&mut self) -> &mut Known {
        &mut self.known
    }

    fn is_allowed(&self) -> bool {
        self.known.caller().has(Permission::OperationsRead) && self.known.may_see(&self.operation)
    }
}
