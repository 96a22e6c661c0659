//! `GET /operations`.

use actix_web::{HttpResponse, get};
use futures_util::future;
use serde::Serialize;
use utoipa::ToSchema;

use super::view::OperationView;
use crate::{
    api::{
        problem::Problem,
        request::body::Unread,
        request::guard::{Action, Head, On},
        tasks,
    },
    domain::{
        access::{Permission, Reach},
        operation::{OperationId, Status},
        store::OperationQuery,
        task::TaskId,
    },
};

/// A list of operations, with its filters.
pub(crate) struct List {
    task: Option<TaskId>,
    status: Option<Status>,
    page_size: usize,
    before: Option<OperationId>,
}

impl Action for List {
    type Target = ();
    type Body = Unread;

    fn read(head: &mut Head<'_>) -> Self {
        let query = &mut head.query;
        let statuses: Vec<&str> = Status::ALL.iter().map(|status| status.as_str()).collect();
        Self {
            task: query.parsed("task", "the id of a task", TaskId::parse),
            status: query.parsed(
                "status",
                &format!("one of {}", statuses.join(", ")),
                Status::parse,
            ),
            page_size: tasks::list::page_size(query),
            before: query.parsed(
                "page_token",
                "the next_page_token of an earlier page",
                OperationId::parse,
            ),
        }
    }

    fn permissions(&self) -> &'static [Permission] {
        &[Permission::OperationsRead]
    }
}

/// One page of operations.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OperationList {
    /// The operations, newest first. A page can be shorter than was asked for, or empty, though
    /// there is a next one: what this version cannot read is left out.
    operations: Vec<OperationView>,
    /// Send it as `page_token` for the next page; null at the end.
    #[schema(required = true)]
    next_page_token: Option<String>,
}

/// List operations.
///
/// Those that the caller asked for or joined, newest first; for holders of `operations:read-all`
/// everybody's in the projects and with the services of that grant.
#[utoipa::path(
    tag = "operations",
    params(
        ("task" = Option<String>, Query, description = "Only operations on the task with this id.", example = "191297407830872"),
        ("status" = Option<String>, Query, description = "Only operations with this status.", example = "running"),
        ("page_size" = Option<u32>, Query, description = "The most operations on a page, 1 to 200; 50 if not given.", example = 50, minimum = 1, maximum = 200),
        ("page_token" = Option<String>, Query, description = "The `next_page_token` of the page before."),
    ),
    responses((status = 200, description = "A page of operations.", body = OperationList)),
)]
#[get("/operations")]
pub(crate) async fn list_operations(on: On<List>) -> Result<HttpResponse, Problem> {
    let On {
        known,
        action:
            List {
                task,
                status,
                page_size,
                before,
            },
        ..
    } = &on;
    let or_within = known.caller().reach(Permission::OperationsReadAll);
    let sees_all = or_within.iter().any(Reach::is_all);
    let wanted = OperationQuery {
        task: None,
        task_id: task.clone(),
        status: *status,
        sent_delete: false,
        caller: (!sees_all).then(|| known.caller().name.clone()),
        or_within,
        before: *before,
        limit: u32::try_from(*page_size).unwrap_or(u32::MAX),
    };
    let found = known.state.operations.list(&wanted).await?;
    let views = found
        .operations
        .iter()
        .map(|operation| OperationView::of(operation, known));
    let operations = future::join_all(views).await;
    Ok(HttpResponse::Ok().json(OperationList {
        operations,
        next_page_token: found.next.map(|id| id.to_string()),
    }))
}
