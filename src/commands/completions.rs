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
    super::print(&String::from_utf8_lossy(&script))
}
