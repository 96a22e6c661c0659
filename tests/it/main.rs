//! Tests of the program as a whole.

mod architecture;
mod commands;
mod configuration;
mod docs;
mod edges;
mod healthcheck;
mod login;
mod main_job;
mod openapi;
mod problem_pages;
mod program_text;
mod support;
mod takeover;

use std::process::Command;

/// The program itself, without the environment of whoever runs the tests.
fn gateway() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_migration-gateway"));
    command.env_clear();
    command
}
