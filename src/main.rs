//! The command line.

mod commands;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::Parser as _;

use commands::{Command, Failure};

fn main() -> ExitCode {
    match Command::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Whoever closed the error stream does not want to know.
            let _ = write!(io::stderr(), "{failure}");
            match failure {
                Failure::Usage(_) => ExitCode::from(2),
                Failure::Other(_) => ExitCode::FAILURE,
                Failure::Status(status, _) | Failure::Silent(status) => ExitCode::from(status),
            }
        }
    }
}
