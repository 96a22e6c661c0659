//! `check-config`.

use super::{ConfigFile, Failure};

pub(super) fn run(file: &ConfigFile) -> Result<(), Failure> {
    let config = file.load()?;
    super::print(&format!(
        "The configuration is right: {}, {}.",
        count(config.upstream.projects.len(), "project"),
        count(config.api.callers.len(), "caller"),
    ))
}

fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}
