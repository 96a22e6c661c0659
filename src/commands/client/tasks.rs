//! `tasks`.

use clap::{Args, Subcommand, builder::PossibleValuesParser};
use migration_gateway::{
    client::{Ask, encoded},
    domain::task::{TaskId, TaskState},
};
use serde_json::Value;

use super::{
    Connection, HELP, Session, run,
    start::Keys,
    text,
    waiting::{self, Display},
};
use crate::commands::Failure;

/// Arguments of `tasks`.
#[derive(Debug, Args)]
#[command(after_help = HELP, subcommand_required = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the tasks of a project, all pages of them.
    List(List),
    /// Show a task.
    Show(Show),
    /// Pause a task, and wait until it is paused.
    Pause(Change),
    /// Start a task, and wait until it runs.
    Start(Start),
    /// Delete a task, and wait until it is gone.
    Delete(Delete),
    /// Watch a task until its migration has ended or it is gone.
    Watch(Target),
}

#[derive(Debug, Args)]
struct Place {
    /// The service: oms or sms.
    #[arg(long)]
    service: Option<String>,
    /// The project, as the gateway is configured; without it the default one.
    #[arg(long)]
    project: Option<String>,
}

#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    place: Place,
    /// Only tasks in this state.
    #[arg(long, value_parser = PossibleValuesParser::new(TaskState::ALL.iter().map(|state| state.as_str())))]
    state: Option<String>,
    /// Only tasks whose name contains this.
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,
}

#[derive(Debug, Args)]
struct Target {
    /// The id of the task.
    #[arg(value_parser = task_id)]
    id: TaskId,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
struct Show {
    #[command(flatten)]
    target: Target,
    /// With the cloud's own document.
    #[arg(long)]
    full: bool,
}

#[derive(Debug, Args)]
struct Change {
    #[command(flatten)]
    target: Target,
    /// Do not wait for the end: the operation goes on by itself.
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, Args)]
struct Start {
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    keys: Keys,
}

#[derive(Debug, Args)]
struct Delete {
    #[command(flatten)]
    change: Change,
    /// Pause the task first if it runs.
    #[arg(long, value_parser = ["pause"])]
    force: Option<String>,
}

fn task_id(text: &str) -> Result<TaskId, &'static str> {
    TaskId::parse(text).ok_or("it must be the id of a task: 1 to 36 of 0-9 A-Z a-z -")
}

pub(crate) fn start(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { connection, action } = arguments;
    run(&connection, move |session| match action {
        Action::List(list) => list.carry_out(session),
        Action::Show(Show { target, full }) => {
            let view = full.then_some(("view", "full"));
            let task = session.client.get(&target.address("", view));
            session.print(&task.map_err(|error| session.failure(error))?, text::task)
        }
        Action::Pause(change) => change.carry_out(session, ("POST", "/pause", None), None),
        Action::Start(Start { change, keys }) => {
            change.carry_out(session, ("POST", "/start", None), keys.body()?)
        }
        Action::Delete(Delete { change, force }) => {
            let force = force.as_deref().map(|force| ("force", force));
            change.carry_out(session, ("DELETE", "", force), None)
        }
        Action::Watch(target) => watch(session, &target),
    })
}

impl Place {
    fn filters(&self) -> [(&'static str, Option<&str>); 2] {
        [
            ("service", self.service.as_deref()),
            ("project", self.project.as_deref()),
        ]
    }
}

impl Target {
    fn address(&self, end: &str, more: Option<(&'static str, &str)>) -> String {
        let more = more.map(|(name, value)| (name, Some(value)));
        let query = self.place.filters().into_iter().chain(more);
        address(&format!("/tasks/{}{end}", self.id), query)
    }
}

/// A path with those of the values that are there as its query.
pub(super) fn address<'a>(
    path: &str,
    query: impl IntoIterator<Item = (&'static str, Option<&'a str>)>,
) -> String {
    let given = query.into_iter().filter_map(|(name, value)| {
        let value = encoded(value?);
        Some(format!("{name}={value}"))
    });
    let query = given.collect::<Vec<_>>().join("&");
    if query.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{query}")
    }
}

/// Every entry of a list, page by page, as it comes.
pub(super) fn pages(
    session: &Session,
    path: &str,
    member: &str,
    filters: &[(&'static str, Option<&str>)],
) -> Result<Vec<Value>, Failure> {
    let (mut entries, mut token) = (Vec::new(), None::<String>);
    loop {
        let page = [("page_size", Some("200")), ("page_token", token.as_deref())];
        let target = address(path, filters.iter().copied().chain(page));
        let mut page = session
            .client
            .get(&target)
            .map_err(|error| session.failure(error))?;
        for entry in page[member].as_array_mut().into_iter().flatten() {
            if session.json {
                crate::commands::print(&entry.to_string())?;
            }
            entries.push(entry.take());
        }
        token = page["next_page_token"].as_str().map(str::to_owned);
        if token.is_none() {
            return Ok(entries);
        }
    }
}

impl List {
    fn carry_out(&self, session: &Session) -> Result<(), Failure> {
        let filters = [
            ("state", self.state.as_deref()),
            ("name", self.name.as_deref()),
        ];
        let filters: Vec<_> = self.place.filters().into_iter().chain(filters).collect();
        let tasks = pages(session, "/tasks", "tasks", &filters)?;
        if session.json {
            return Ok(());
        }
        let head = text::TASK_COLUMNS.map(str::to_owned).to_vec();
        let rows = tasks.iter().map(text::task_row);
        let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
        crate::commands::print(&text::table(&rows))
    }
}

impl Change {
    fn carry_out(
        &self,
        session: &Session,
        (method, end, more): (&str, &str, Option<(&'static str, &str)>),
        body: Option<Value>,
    ) -> Result<(), Failure> {
        let target = self.target.address(end, more);
        let mut ask = Ask::new(method, &target);
        ask.body = body;
        waiting::change(session, ask, !self.no_wait)
    }
}

/// The end of a migration that failed is a failure of the command; a task that is gone is what may have been waited for.
fn watch(session: &Session, target: &Target) -> Result<(), Failure> {
    let display = Display::new(session);
    let mut ended = Ok(());
    display.stand("looking");
    waiting::follow(session, &target.address("/events", None), |event| {
        match event.name.as_str() {
            "task" if session.json => crate::commands::print(&event.data.to_string())?,
            "task" => display.task(&event.data)?,
            "problem" => display.line(text::of(&event.data, "detail"))?,
            "end" => {
                display.end();
                ended = end(session, &event.data);
                return Ok(true);
            }
            _ => {}
        }
        Ok(false)
    })?;
    ended
}

fn end(session: &Session, end: &Value) -> Result<(), Failure> {
    let (ending, task) = (text::of(end, "ending"), &end["task"]);
    if task.is_object() {
        session.print(task, text::progress)?;
    } else if !session.json {
        crate::commands::print("The task is gone.")?;
    }
    if ending != "failed" {
        return Ok(());
    }
    let error = &task["error"];
    let (code, message) = (text::of(error, "code"), text::of(error, "message"));
    Err(if session.json {
        Failure::Silent(1)
    } else {
        Failure::Status(
            1,
            format!("Error: the migration has failed. {code} {message}"),
        )
    })
}
