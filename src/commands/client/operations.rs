//! `operations`.

use clap::{Args, Subcommand, builder::PossibleValuesParser};
use migration_gateway::{
    client::Ask,
    domain::{
        operation::{OperationId, Status},
        task::TaskId,
    },
};
use serde_json::Value;

use super::{
    Connection, HELP, Session, run, tasks, text,
    waiting::{self, Display},
};
use crate::commands::Failure;

/// Arguments of `operations`.
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
    /// List operations, newest first, all pages of them.
    List(List),
    /// Show an operation and what happened to it.
    Show(Target),
    /// Watch an operation to its end.
    Watch(Target),
    /// End an operation without a result. What it did to the task stays done.
    Cancel(Target),
}

#[derive(Debug, Args)]
struct List {
    /// Only operations on the task with this id.
    #[arg(long, value_name = "ID", value_parser = task_id)]
    task: Option<String>,
    /// Only operations with this status.
    #[arg(long, value_parser = PossibleValuesParser::new(Status::ALL.iter().map(|status| status.as_str())))]
    status: Option<String>,
}

#[derive(Debug, Args)]
struct Target {
    /// The id of the operation.
    #[arg(value_parser = operation_id)]
    id: OperationId,
}

fn task_id(text: &str) -> Result<String, &'static str> {
    let id = TaskId::parse(text).ok_or("it must be the id of a task: 1 to 36 of 0-9 A-Z a-z -")?;
    Ok(id.to_string())
}

fn operation_id(text: &str) -> Result<OperationId, &'static str> {
    OperationId::parse(text).ok_or("it must be the id of an operation: op_ and 26 characters")
}

pub(crate) fn start(arguments: Arguments) -> Result<(), Failure> {
    let Arguments { connection, action } = arguments;
    run(&connection, move |session| match action {
        Action::List(list) => list.carry_out(session),
        Action::Show(Target { id }) => {
            let operation = session.client.get(&format!("/operations/{id}"));
            let operation = operation.map_err(|error| session.failure(error))?;
            session.print(&operation, text::operation)
        }
        Action::Watch(Target { id }) => watch(session, &id.to_string()),
        Action::Cancel(Target { id }) => {
            let target = format!("/operations/{id}/cancel");
            let ended = session.client.send(&Ask::new("POST", &target));
            let (_, operation) = ended.map_err(|error| session.failure(error))?;
            session.print(&operation, text::end)
        }
    })
}

impl List {
    fn carry_out(&self, session: &Session) -> Result<(), Failure> {
        let filters = [
            ("task", self.task.as_deref()),
            ("status", self.status.as_deref()),
        ];
        let operations = tasks::pages(session, "/operations", "operations", &filters)?;
        if session.json {
            return Ok(());
        }
        let head = text::OPERATION_COLUMNS.map(str::to_owned).to_vec();
        let rows = operations.iter().map(text::operation_row);
        let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
        crate::commands::print(&text::table(&rows))
    }
}

fn watch(session: &Session, id: &str) -> Result<(), Failure> {
    let display = Display::new(session);
    let mut ended = None::<Value>;
    session.waits_for(id);
    display.stand("looking");
    waiting::follow(session, &format!("/operations/{id}/events"), |event| {
        if event.name == "problem" {
            display.line(text::of(&event.data, "detail"))?;
            return Ok(false);
        }
        display.event(&event.data)?;
        display.stand(text::of(&event.data, "phase"));
        if event.name == "end" {
            ended = Some(event.data["operation"].clone());
        }
        Ok(ended.is_some())
    })?;
    display.end();
    match ended {
        Some(operation) => waiting::outcome(session, &operation),
        None => Ok(()),
    }
}
