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
    Arguments, Session,
    list::{self, Entries},
    tasks, text,
    waiting::{self, Display},
};
use crate::commands::Failure;

/// What is said to whoever cancels what has ended.
const TOO_LATE: &str = "Error: the operation had ended before it could be cancelled.";

/// The list of operations.
const OPERATIONS: Entries = Entries {
    member: "operations",
    columns: &["ID", "KIND", "TASK", "STATUS", "OUTCOME", "CREATED"],
    row: text::operation_row,
};

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Action {
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
pub(crate) struct List {
    /// Only operations on the task with this id.
    #[arg(long, value_name = "ID", value_parser = tasks::task_id)]
    task: Option<TaskId>,
    /// Only operations with this status.
    #[arg(long, value_parser = PossibleValuesParser::new(Status::ALL.iter().map(|status| status.as_str())))]
    status: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Target {
    /// The id of the operation.
    #[arg(value_parser = operation_id)]
    id: OperationId,
}

fn operation_id(text: &str) -> Result<OperationId, &'static str> {
    OperationId::parse(text).ok_or("it must be the id of an operation: op_ and 26 characters")
}

pub(crate) fn start(arguments: Arguments<Action>) -> Result<(), Failure> {
    arguments.carry_out(|session, action| match action {
        Action::List(list) => list.carry_out(session),
        Action::Show(Target { id }) => session.show(&format!("/operations/{id}"), text::operation),
        Action::Watch(Target { id }) => watch(session, &id.to_string()),
        Action::Cancel(Target { id }) => {
            let target = format!("/operations/{id}/cancel");
            let ended = session.client.send(&Ask::new("POST", &target));
            let ended = ended.and_then(|(_, operation)| session.known(operation));
            let ended = ended.map_err(|error| session.failure(error))?;
            session.print(&ended, text::end)?;
            match text::of(&ended, "status") {
                "cancelled" => Ok(()),
                _ if session.json => Err(Failure::Silent(1)),
                _ => Err(Failure::Status(1, TOO_LATE.to_owned())),
            }
        }
    })
}

impl List {
    fn carry_out(&self, session: &Session) -> Result<(), Failure> {
        let task = self.task.as_ref().map(TaskId::to_string);
        let filters = [
            ("task", task.as_deref()),
            ("status", self.status.as_deref()),
        ];
        list::show(session, &OPERATIONS, &filters)
    }
}

fn watch(session: &Session, id: &str) -> Result<(), Failure> {
    let display = Display::new(session);
    let mut ended = None::<Value>;
    session.waits_for(id);
    display.stand("looking");
    waiting::follow(session, &format!("/operations/{id}/events"), |event| {
        if event.name == "problem" {
            display.message(text::of(&event.data, "detail"));
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
