//! `GET /tasks`: the tasks of all services in one list.

use actix_web::{HttpResponse, get};
use futures_util::future;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    page_token::{PageToken, filters_hash},
    view::TaskView,
};
use crate::{
    api::{
        problem::Problem,
        request::body::Unread,
        request::guard::{Action, Head, Known, On},
        request::query::Query,
        request::target::NamedProject,
    },
    domain::{
        access::Permission,
        service::{Patience, ServiceName, ServiceTraits},
        task::{Task, TaskState},
    },
};

/// A page looks at no more than this many pages of the services, so that a filter that hardly
/// anything passes cannot keep a request busy.
const SERVICE_PAGES_MAX: u32 = 10;

/// A list, with its filters.
pub(crate) struct List {
    state: Option<TaskState>,
    name: Option<String>,
    page_size: usize,
    page_token: Option<PageToken>,
}

impl Action for List {
    type Target = NamedProject;
    type Body = Unread;

    fn read(head: &mut Head<'_>) -> Self {
        let (services, query) = (&head.known.services, &mut head.query);
        let is_possible = |token: &PageToken| {
            let traits = services.named(&token.service);
            traits.is_some_and(|traits| token.offset <= traits.offset_limit)
        };
        let states: Vec<&str> = TaskState::ALL.iter().map(|state| state.as_str()).collect();
        Self {
            state: query.parsed(
                "state",
                &format!("one of {}", states.join(", ")),
                TaskState::parse,
            ),
            name: query.text("name"),
            page_size: page_size(query),
            page_token: query.parsed(
                "page_token",
                "the next_page_token of an earlier page",
                |text| PageToken::decode(text).filter(is_possible),
            ),
        }
    }

    fn permissions(&self) -> &'static [Permission] {
        &[Permission::TasksRead]
    }
}

/// The parameter `page_size` of every list.
pub(in crate::api) fn page_size(query: &mut Query) -> usize {
    query
        .parsed("page_size", "a whole number from 1 to 200", |text| {
            text.parse().ok().filter(|size| (1..=200).contains(size))
        })
        .unwrap_or(50)
}

/// One page of tasks.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TaskList {
    /// The tasks, service by service, in each service's own order.
    tasks: Vec<TaskView>,
    /// Send it as `page_token` for the next page; null at the end.
    #[schema(required = true)]
    next_page_token: Option<String>,
}

/// List tasks.
///
/// The tasks of every service that the caller may use, OMS first. `state` and `name` are filtered
/// by the gateway, over a limited number of the services' pages a call. A list ends where the pace
/// of a service lets nothing more through within 10 s in all. So a page can be short and still have
/// a next one.
#[utoipa::path(
    tag = "tasks",
    params(
        ("service" = Option<String>, Query, description = "Only this service: `oms` or `sms`.", example = "oms"),
        ("project" = Option<String>, Query, description = "A configured project; without it the default one."),
        ("state" = Option<String>, Query, description = "Only tasks in this state.", example = "running"),
        ("name" = Option<String>, Query, description = "Only tasks with this text in their name."),
        ("page_size" = Option<u32>, Query, description = "The most tasks on a page, 1 to 200; 50 if not given.", example = 50, minimum = 1, maximum = 200),
        ("page_token" = Option<String>, Query, description = "The `next_page_token` of the page before, with the same filters."),
    ),
    responses((status = 200, description = "A page of tasks.", body = TaskList)),
)]
#[get("/tasks")]
pub(crate) async fn list_tasks(on: On<List>) -> Result<HttpResponse, Problem> {
    let mut walk = Walk::begin(&on)?;
    while !walk.is_over() {
        walk.step(&on).await?;
    }
    let next_page_token = walk.next_page_token();
    let links = future::join_all(walk.tasks.iter().map(|task| link(&on.known, task)));
    let links: Vec<Option<String>> = links.await.into_iter().collect::<Result<_, _>>()?;
    let tasks = walk
        .tasks
        .iter()
        .zip(links)
        .map(|(task, link)| TaskView::new(task, on.known.caller(), link))
        .collect();
    Ok(HttpResponse::Ok().json(TaskList {
        tasks,
        next_page_token,
    }))
}

/// The link to the operation that runs on a task, if the caller may see it.
pub(super) async fn link(known: &Known, task: &Task) -> Result<Option<String>, Problem> {
    let running = known.state.operations.running(&task.reference).await?;
    Ok(running
        .filter(|operation| known.may_see_on(&task.reference, &operation.callers))
        .map(|operation| known.state.links.operation(operation.id)))
}

/// A walk through the lists of the services until a page is full.
struct Walk {
    services: Vec<ServiceName>,
    /// Which of the services is next; past the last one the list is at its end.
    at: usize,
    offset: u64,
    filters: String,
    tasks: Vec<Task>,
    service_pages: u32,
    page_size: usize,
    /// For all of it.
    patience: Patience,
    /// Whether the pace let no more through in time.
    is_cut_short: bool,
}

impl Walk {
    fn begin(on: &On<List>) -> Result<Self, Problem> {
        let names: Vec<&str> = on.target.services.iter().map(ServiceName::as_str).collect();
        let action = &on.action;
        let filters = filters_hash(&[
            on.target.project.as_str(),
            &names.join(","),
            action.state.map_or("", TaskState::as_str),
            action.name.as_deref().unwrap_or_default(),
        ]);
        let (mut at, mut offset) = (0, 0);
        if let Some(token) = &action.page_token {
            let place = names.iter().position(|name| *name == token.service);
            let detail = "page_token belongs to a list with other filters.";
            at = place
                .filter(|_| token.filters == filters)
                .ok_or_else(|| Problem::fault("query", "page_token", detail))?;
            offset = token.offset;
        }
        Ok(Self {
            services: on.target.services.clone(),
            at,
            offset,
            filters,
            tasks: Vec::new(),
            service_pages: 0,
            page_size: action.page_size,
            patience: Patience::default(),
            is_cut_short: false,
        })
    }

    fn is_over(&self) -> bool {
        self.at >= self.services.len()
            || self.tasks.len() >= self.page_size
            || self.service_pages >= SERVICE_PAGES_MAX
            || self.is_cut_short
    }

    /// Reads one page of one service.
    async fn step(&mut self, on: &On<List>) -> Result<(), Problem> {
        let name = &self.services[self.at];
        let service = on.known.services.get(&on.target.project, name);
        let traits = on.known.services.named(name.as_str());
        let (Some(service), Some(traits)) = (service, traits) else {
            return Err(Problem::internal());
        };
        let limit = self.limit(traits, &on.action);
        let page = service.port.list(self.offset, limit, &self.patience).await;
        if let Err(error) = &page
            && error.is_own_pace()
            && self.service_pages > 0
        {
            self.is_cut_short = true;
            return Ok(());
        }
        let page = page?;
        self.service_pages += 1;
        let (rows, mut passed) = (page.rows.len(), 0);
        for row in page.rows {
            if self.tasks.len() == self.page_size {
                break;
            }
            passed += 1;
            self.tasks
                .extend(row.filter(|task| on.action.lets_through(task)));
        }
        self.offset = self.offset.saturating_add(passed);
        if rows == 0 || self.offset >= page.total || self.offset > traits.offset_limit {
            self.at += 1;
            self.offset = 0;
        }
        Ok(())
    }

    /// Without a filter no more rows than there is room for; with one as many as the service gives.
    fn limit(&self, traits: &ServiceTraits, action: &List) -> u32 {
        if action.state.is_some() || action.name.is_some() {
            return traits.page_limit;
        }
        let room = self.page_size - self.tasks.len();
        u32::try_from(room)
            .unwrap_or(u32::MAX)
            .min(traits.page_limit)
    }

    fn next_page_token(&self) -> Option<String> {
        let service = self.services.get(self.at)?;
        let token = PageToken {
            service: service.to_string(),
            offset: self.offset,
            filters: self.filters.clone(),
        };
        Some(token.encode())
    }
}

impl List {
    fn lets_through(&self, task: &Task) -> bool {
        self.state.is_none_or(|state| task.stage.state() == state)
            && self.name.as_ref().is_none_or(|part| {
                task.name
                    .as_ref()
                    .is_some_and(|name| name.contains(part.as_str()))
            })
    }
}
