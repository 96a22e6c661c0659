//! `tasks`.

use clap::{Args, Subcommand, builder::PossibleValuesParser};
use migration_gateway::{
    client::Ask,
    domain::task::{TaskId, TaskState},
};
use serde_json::Value;

use super::{
    Arguments, Session,
    list::{self, Entries, address},
    start::Keys,
    text,
    waiting::{self, Display},
};
use crate::commands::Failure;

/// The list of tasks.
const TASKS: Entries = Entries {
    member: "tasks",
    columns: &["ID", "SERVICE", "PROJECT", "STATE", "PROGRESS", "NAME"],
    row: text::task_row,
};

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Action {
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
pub(crate) struct List {
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
pub(crate) struct Target {
    /// The id of the task.
    #[arg(value_parser = task_id)]
    id: TaskId,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    #[command(flatten)]
    target: Target,
    /// With the cloud's own document.
    #[arg(long)]
    full: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Change {
    #[command(flatten)]
    target: Target,
    /// Do not wait for the end: the operation goes on by itself.
    #[arg(long)]
    no_wait: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Start {
    #[command(flatten)]
    change: Change,
    #[command(flatten)]
    keys: Keys,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    #[command(flatten)]
    change: Change,
    /// Pause the task first if it runs.
    #[arg(long, value_parser = ["pause"])]
    force: Option<String>,
}

pub(super) fn task_id(text: &str) -> Result<TaskId, &'static str> {
    TaskId::parse(text).ok_or("it must be the id of a task: 1 to 36 of 0-9 A-Z a-z -")
}

pub(crate) fn start(arguments: Arguments<Action>) -> Result<(), Failure> {
    arguments.carry_out(|session, action| match action {
        Action::List(list) => list.carry_out(session),
        Action::Show(Show { target, full }) => {
            let view = full.then_some(("view", "full"));
            session.show(&target.address("", view), text::task)
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
    /// What names it on a command line.
    fn arguments(&self) -> String {
        let places = self.place.filters().into_iter();
        places.fold(self.id.to_string(), |line, (name, value)| match value {
            Some(value) => format!("{line} --{name} {}", text::plain(value)),
            None => line,
        })
    }

    fn address(&self, end: &str, more: Option<(&'static str, &str)>) -> String {
        let more = more.map(|(name, value)| (name, Some(value)));
        let query = self.place.filters().into_iter().chain(more);
        address(&format!("/tasks/{}{end}", self.id), query)
    }
}

impl List {
    fn carry_out(&self, session: &Session) -> Result<(), Failure> {
        let filters = [
            ("state", self.state.as_deref()),
            ("name", self.name.as_deref()),
        ];
        let filters: Vec<_> = self.place.filters().into_iter().chain(filters).collect();
        list::show(session, &TASKS, &filters)
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

/// The end of a migration that failed is a failure of the command; a task that is gone is what may
/// have been waited for.
fn watch(session: &Session, target: &Target) -> Result<(), Failure> {
    let display = Display::new(session);
    let mut ended = Ok(());
    display.stand("looking");
    session.if_interrupted(format!(
        "To watch it again: migration-gateway tasks watch {}",
        target.arguments()
    ));
    waiting::follow(session, &target.address("/events", None), |event| {
        match event.name.as_str() {
            "task" if session.json => crate::commands::print(&event.data.to_string())?,
            "task" => display.task(&event.data)?,
            "problem" => display.message(text::of(&event.data, "detail")),
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
            text::plain(&format!(
                "Error: the migration has failed. {code} {message}"
            )),
        )
    })
}
