//! `completions`.

use clap::{Args, CommandFactory as _};
use clap_complete::{Shell, generate};

use super::{Command, Failure};

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The shell.
    shell: Shell,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut script = Vec::new();
    generate(
        arguments.shell,
        &mut Command::command(),
        "migration-gateway",
        &mut script,
    );
    let mut script = String::from_utf8_lossy(&script).into_owned();
    if arguments.shell == Shell::Bash {
        // The generator writes a name with a hyphen in two ways, and then finds no command.
        script = script.replace("migration__subcmd__gateway", "migration__gateway");
    }
    super::print(&script)
}
