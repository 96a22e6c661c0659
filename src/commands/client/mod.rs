//! `tasks` and `operations`: what callers ask of a gateway, from a terminal or a script.

mod connection;
pub(super) mod operations;
mod start;
pub(super) mod tasks;
mod text;
mod waiting;

use std::{
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use migration_gateway::client::{Client, ClientError, Problem};
use serde_json::Value;
use tokio::sync::oneshot;

pub(super) use self::connection::Connection;
use super::Failure;

/// The status of a gateway that cannot be reached.
const UNREACHABLE: u8 = 3;
/// The status of a caller who may not do something.
const DENIED: u8 = 4;
/// The status of a command that was broken off by Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;

/// What every command of a client ends its help with.
pub(super) const HELP: &str = "\
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

/// One run of a command.
struct Session {
    client: Client,
    json: bool,
    /// The operation that is waited for.
    operation: Arc<Mutex<Option<String>>>,
}

impl Session {
    /// Prints documents as they are, or what they say to people.
    fn print(&self, document: &Value, text: impl FnOnce(&Value) -> String) -> Result<(), Failure> {
        if self.json {
            super::print(&document.to_string())
        } else {
            super::print(&text(document))
        }
    }

    /// Notes what is waited for, for whoever breaks off waiting.
    fn waits_for(&self, operation: &str) {
        let mut waited = self
            .operation
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *waited = Some(operation.to_owned());
    }

    /// An error as the end of the command.
    fn failure(&self, error: ClientError) -> Failure {
        match error {
            ClientError::Settings(_) => Failure::Usage(super::sentence(&error)),
            ClientError::Unreachable { .. } | ClientError::Foreign(..) => {
                Failure::Status(UNREACHABLE, super::sentence(&error))
            }
            ClientError::Problem(problem) => self.problem(&problem),
        }
    }

    /// A problem as the end of the command. The document is part of the output where documents are asked for.
    fn problem(&self, problem: &Problem) -> Failure {
        let status = if problem.is_denial() { DENIED } else { 1 };
        if self.json {
            return match super::print(&problem.document.to_string()) {
                Ok(()) => Failure::Silent(status),
                Err(failure) => failure,
            };
        }
        Failure::Status(status, text::problem(problem, &self.client))
    }
}

/// Does the work of a command, until it is done or Ctrl-C is pressed.
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
        operation: Arc::default(),
    };
    let waited = Arc::clone(&session.operation);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Other(super::sentence(&error)))?;
    let (done, ended) = oneshot::channel();
    // The work blocks. It ends with the process when it is broken off.
    thread::spawn(move || done.send(work(&session)));
    runtime.block_on(async {
        tokio::select! {
            ended = ended => ended.unwrap_or_else(|_| {
                Err(Failure::Other("Error: the command broke off.".to_owned()))
            }),
            _ = tokio::signal::ctrl_c() => Err(Failure::Status(INTERRUPTED, interrupted(&waited))),
        }
    })
}

fn interrupted(operation: &Mutex<Option<String>>) -> String {
    let operation = operation.lock().unwrap_or_else(PoisonError::into_inner);
    match &*operation {
        Some(id) => format!(
            "\nThe operation {id} goes on. To see its end: migration-gateway operations watch {id}"
        ),
        None => "\nInterrupted.".to_owned(),
    }
}
