//! `tasks` and `operations`: what callers ask of a gateway, from a terminal or a script.

mod connection;
mod list;
pub(super) mod operations;
mod start;
pub(super) mod tasks;
mod text;
mod waiting;

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use clap::{Args, Subcommand};
use migration_gateway::client::{Client, ClientError, Problem};
use serde_json::Value;
use tokio::sync::oneshot;

use self::connection::Connection;
use super::Failure;

/// The status of a gateway that cannot be reached, or cannot say what it did.
const UNREACHABLE: u8 = 3;
/// The status of a caller who may not do something.
const DENIED: u8 = 4;
/// The status of a command that was broken off by Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;

/// What every command of a client ends its help with.
const HELP: &str = "\
The address comes from --address, else from MIGRATION_GATEWAY_ADDRESS, else from
`address` in the file below, else it is http://127.0.0.1:8080. The key comes from
--key-file, else from MIGRATION_GATEWAY_KEY, else from `key_file` in the file. It is
never an argument, since others on the machine can read those. The file is
$XDG_CONFIG_HOME/migration-gateway/client.toml, or below ~/.config:
    address = \"https://gateway.example.com\"
    key_file = \"/home/me/.config/migration-gateway/key\"
    ca_file = \"/etc/ssl/private-ca.pem\"

Exit status: 0 when it was done; 1 when it was refused or has failed, 2 for a wrong
command line or file, 3 when the gateway cannot be reached, 4 when the caller may
not do it (401 and 403), 130 when Ctrl-C broke off waiting. Operations go on then.";

/// Arguments of `tasks` or `operations`: how the gateway is reached, and what is to be done there.
#[derive(Debug, Args)]
#[command(after_help = HELP, subcommand_required = true)]
pub(crate) struct Arguments<A: Subcommand> {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: A,
}

/// One run of a command.
struct Session {
    client: Client,
    json: bool,
    /// What is said to whoever breaks it off.
    parting: Arc<Mutex<String>>,
}

impl Session {
    /// Prints documents as they are, or what they say to people.
    fn print(&self, document: &Value, text: impl FnOnce(&Value) -> String) -> Result<(), Failure> {
        if self.json {
            super::print(&document.to_string())
        } else {
            super::print(&text::lines(&text(document)))
        }
    }

    /// Shows what stands at an address.
    fn show(&self, target: &str, text: impl FnOnce(&Value) -> String) -> Result<(), Failure> {
        let document = self.client.get(target);
        let document = document.and_then(|document| self.known(document));
        self.print(&document.map_err(|error| self.failure(error))?, text)
    }

    /// A document as a gateway gives it of a task or an operation; else who gave it is none.
    fn known(&self, document: Value) -> Result<Value, ClientError> {
        if text::of(&document, "id").is_empty() {
            return Err(self.client.foreign("its answer has no id"));
        }
        Ok(document)
    }

    /// Notes what is waited for, for whoever breaks off waiting.
    fn waits_for(&self, operation: &str) {
        self.if_interrupted(format!(
            "The operation {operation} goes on. To see its end: migration-gateway operations watch {operation}"
        ));
    }

    /// Notes what is to be said to whoever breaks this off.
    fn if_interrupted(&self, parting: String) {
        *self.parting.lock().unwrap_or_else(PoisonError::into_inner) = parting;
    }

    /// An error as the end of the command.
    fn failure(&self, error: ClientError) -> Failure {
        match error {
            ClientError::Settings(_) => Failure::Usage(super::sentence(&error)),
            ClientError::Unreachable { .. }
            | ClientError::Silent { .. }
            | ClientError::Foreign { .. } => Failure::Status(UNREACHABLE, super::sentence(&error)),
            ClientError::Problem(problem) => self.problem(&problem),
        }
    }

    /// A problem as the end of the command. The document is part of the output where documents are
    /// asked for.
    fn problem(&self, problem: &Problem) -> Failure {
        let status = match problem {
            _ if problem.is_denial() => DENIED,
            _ if problem.is_unsure() => UNREACHABLE,
            _ => 1,
        };
        if self.json {
            return match super::print(&problem.document.to_string()) {
                Ok(()) => Failure::Silent(status),
                Err(failure) => failure,
            };
        }
        Failure::Status(status, text::problem(problem, &self.client))
    }
}

impl<A: Subcommand + Send + 'static> Arguments<A> {
    /// Does the work of a command, until it is done or Ctrl-C is pressed.
    fn carry_out(
        self,
        work: impl FnOnce(&Session, A) -> Result<(), Failure> + Send + 'static,
    ) -> Result<(), Failure> {
        let Self { connection, action } = self;
        run(&connection, move |session| work(session, action))
    }
}

fn run(
    connection: &Connection,
    work: impl FnOnce(&Session) -> Result<(), Failure> + Send + 'static,
) -> Result<(), Failure> {
    let settings = connection.settings()?;
    let client = Client::new(&settings);
    let client = client.map_err(|error| Failure::Usage(super::sentence(&error)))?;
    if client.shows_key() {
        super::warn("Warning: the key goes over the network in clear text; use https.");
    }
    let session = Session {
        client,
        json: connection.json,
        parting: Arc::new(Mutex::new("Interrupted.".to_owned())),
    };
    let parting = Arc::clone(&session.parting);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Other(super::sentence(&error)))?;
    let (done, ended) = oneshot::channel();
    // The work blocks. It ends with the process when it is broken off.
    thread::spawn(move || done.send(work(&session)));
    let ended = runtime.block_on(async {
        tokio::select! {
            ended = ended => ended.unwrap_or_else(|_| {
                Err(Failure::Other("Error: the command broke off.".to_owned()))
            }),
            // Where the signal cannot be received, nothing can break it off.
            Ok(()) = tokio::signal::ctrl_c() => {
                let parting = parting.lock().unwrap_or_else(PoisonError::into_inner);
                Err(Failure::Status(INTERRUPTED, format!("\n{parting}")))
            }
        }
    });
    // What is told of a failure may have been said by others.
    ended.map_err(|failure| match failure {
        Failure::Usage(told) => Failure::Usage(text::lines(&told)),
        Failure::Other(told) => Failure::Other(text::lines(&told)),
        Failure::Status(status, told) => Failure::Status(status, text::lines(&told)),
        Failure::Silent(status) => Failure::Silent(status),
    })
}
