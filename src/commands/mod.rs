//! The commands. Each reads its arguments, calls the library, and says in a plain sentence what
//! went wrong.

mod check_config;
mod client;
mod completions;
mod healthcheck;
mod new_key;
mod sandbox;
mod serve;
mod verify_audit;

use std::{
    fmt,
    io::{self, Write as _},
    path::PathBuf,
};

use clap::{Args, Parser};
use migration_gateway::{app, config, telemetry};

/// A REST gateway over the migration tasks of Huawei Cloud (OMS and SMS): list, show, pause, start
/// and delete them, with operations that are carried to their end whatever happens to the caller.
#[derive(Debug, Parser)]
#[command(name = "migration-gateway", version, after_help = EXAMPLES)]
pub(crate) enum Command {
    /// Serve the API until told to stop (SIGINT or SIGTERM).
    Serve(ConfigFile),
    /// Serve a simulated cloud and a gateway in front of it: no account, no keys, nothing leaves
    /// this machine.
    Sandbox(sandbox::Arguments),
    /// Check a configuration and report everything that is wrong with it; nothing is started.
    CheckConfig(check_config::Arguments),
    /// Ask the gateway that was started with a configuration whether it is ready (/readyz).
    Healthcheck(ConfigFile),
    /// Make a key for a caller and print it with its lines for the configuration.
    NewKey(new_key::Arguments),
    /// Find the first line of an audit log that was changed, removed or inserted, and print the
    /// head of the log.
    VerifyAudit(verify_audit::Arguments),
    /// List, show, pause, start, delete and watch tasks through a gateway.
    Tasks(client::Arguments<client::tasks::Action>),
    /// List, show, watch and cancel operations of a gateway.
    Operations(client::Arguments<client::operations::Action>),
    /// Print the completions of this program for a shell.
    Completions(completions::Arguments),
    /// Print the OpenAPI document of the API.
    Openapi,
}

const EXAMPLES: &str = "\
Examples:
  migration-gateway sandbox
      Try everything on http://127.0.0.1:8080 without an account.
  migration-gateway new-key team-a
      Make a key; put the printed lines into the configuration.
  migration-gateway check-config --login --config gateway.toml
      See whether a configuration is right before it is used, and whether the
      cloud lets the gateway in.
  migration-gateway serve --config gateway.toml
      Serve. MIGRATION_GATEWAY__SERVER__LISTEN=0.0.0.0:8080 in the environment
      overrides `listen` in section `server`, and so on for every key.
  migration-gateway verify-audit --config gateway.toml audit.log.* audit.log
      See whether an audit log is as it was written.
  migration-gateway tasks delete 204871530992101 --force pause
      Pause a task, delete it and wait until it is gone, through a gateway; see
      `tasks --help` for how it is found and by whom it is asked.

Exit status: 0 when all went well, 2 for a wrong command line or configuration
(a login that the cloud refuses included), 1 for everything else. `healthcheck`
ends with 0 when the gateway is ready, else with 1; `verify-audit` with 1 when
the log is not as it was written. `tasks` and `operations` have more; see their
help.";

/// Where the configuration is.
#[derive(Debug, Args)]
pub(crate) struct ConfigFile {
    /// The configuration file (TOML).
    #[arg(long = "config", value_name = "FILE")]
    path: PathBuf,
}

impl ConfigFile {
    fn load(&self) -> Result<config::Config, Failure> {
        config::load(&self.path).map_err(|faults| Failure::Usage(faults.to_string()))
    }
}

/// Why a command ended early. The text is for people.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The command line, the configuration or the environment has to be changed.
    Usage(String),
    /// Something else went wrong.
    Other(String),
    /// Something that has a status of its own went wrong.
    Status(u8, String),
    /// The same, and the output has said what.
    Silent(u8),
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::Other(text) | Self::Status(_, text) => {
                writeln!(formatter, "{text}")
            }
            Self::Silent(_) => Ok(()),
        }
    }
}

impl Command {
    /// Carries the command out.
    pub(crate) fn run(self) -> Result<(), Failure> {
        match self {
            Self::Serve(file) => serve::run(&file),
            Self::Sandbox(arguments) => sandbox::run(&arguments),
            Self::CheckConfig(arguments) => check_config::run(&arguments),
            Self::Healthcheck(file) => healthcheck::run(&file),
            Self::NewKey(arguments) => new_key::run(&arguments),
            Self::VerifyAudit(arguments) => verify_audit::run(&arguments),
            Self::Tasks(arguments) => client::tasks::start(arguments),
            Self::Operations(arguments) => client::operations::start(arguments),
            Self::Completions(arguments) => completions::run(&arguments),
            Self::Openapi => print(&app::openapi()),
        }
    }
}

fn begin_logging(settings: &telemetry::Settings) -> Result<(), Failure> {
    telemetry::init(settings).map_err(|error| match error {
        telemetry::Error::Filter => Failure::Usage(sentence(&error)),
        telemetry::Error::SetUp => Failure::Other(sentence(&error)),
    })
}

/// Prints a text and ends its last line.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", text.trim_end())
        .and_then(|()| out.flush())
        .map_err(|error| {
            // Whoever read it has seen enough, as `head` does.
            if error.kind() == io::ErrorKind::BrokenPipe {
                return Failure::Silent(1);
            }
            Failure::Other(format!("Error: nothing could be printed: {error}."))
        })
}

/// Says something beside the output. Whoever closed the error stream does not want to know.
fn warn(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// An error and its causes as one sentence.
fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = format!("Error: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text.push('.');
    text
}
