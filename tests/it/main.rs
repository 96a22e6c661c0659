//! Tests of the program as a whole.

mod access;
mod architecture;
mod audit;
mod bearers;
mod board;
mod client;
mod commands;
mod configuration;
mod counts;
mod credentials;
mod docs;
mod dry_run;
mod edges;
mod errors;
mod events;
mod faults;
mod flow;
mod fuzz;
mod healthcheck;
#[cfg(feature = "kill-points")]
mod kill_matrix;
mod limits;
mod login;
mod looks;
mod lost_answers;
mod lost_replicas;
mod main_job;
mod matrix;
#[cfg(not(feature = "kill-points"))]
mod no_kill_points;
mod openapi;
mod operations;
mod order;
mod origins;
mod problem_pages;
mod program_text;
mod proxies;
mod recovery;
mod reload;
mod replicas;
mod requests;
mod secrets;
mod starts;
mod states;
mod status;
mod stopping;
mod storage;
mod stubborn;
mod support;
mod surface;
mod takeover;
mod task_names;
mod tasks;
mod tls;
mod tls_files;
mod tokens;
mod unreadable;
mod upgrade;
mod vendors;
mod whoami;
mod wire;

use std::process::Command;

/// The program itself, without the environment of whoever runs the tests.
fn gateway() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_migration-gateway"));
    command.env_clear();
    command
}
