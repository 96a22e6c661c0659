//! `verify-audit`.

use std::path::PathBuf;

use clap::Args;
use migration_gateway::{
    audit::{self, Head, Key, Stretch, VerifyError},
    config,
};

use super::Failure;

/// Arguments of `verify-audit`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The configuration file that names the key (audit.key); nothing else of it is read.
    #[arg(long, value_name = "FILE", required_unless_present = "key_file")]
    config: Option<PathBuf>,
    /// A file that holds the key.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    key_file: Option<PathBuf>,
    /// The files of the log, oldest first: `audit.log.* audit.log`.
    #[arg(value_name = "LOG", required = true)]
    files: Vec<PathBuf>,
}

#[expect(
    clippy::unnecessary_debug_formatting,
    reason = "whoever can make a file in the folder chooses its name, with line ends and orders to terminals in it"
)]
pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let verified = audit::verify(&key(arguments)?, &arguments.files);
    let verified = verified.map_err(|error| match error {
        VerifyError::Tampered(_) => Failure::Other(super::sentence(&error)),
        VerifyError::Unreadable(..) => Failure::Usage(super::sentence(&error)),
    })?;
    let Head { seq, .. } = verified.before;
    if seq > 0 {
        super::print(&format!(
            "The log begins before these files: line {} is not in them. Compare it with the head noted then.",
            verified.before
        ))?;
    }
    for Stretch {
        file,
        line,
        after,
        bytes,
        sha256,
    } in &verified.sealed
    {
        super::print(&format!(
            "sealed {file:?}, line {line}: {bytes} bytes after number {after} are no line, SHA-256 {sha256}. The gateway found them when \
             it opened the file: a line that a crash or a full disk cut short, or what somebody made of the last lines. Number \
             {after} is the last that is sure to have been there."
        ))?;
    }
    super::print(&format!(
        "{} lines are as they were written.\nhead {}",
        verified.lines, verified.head
    ))
}

fn key(arguments: &Arguments) -> Result<Key, Failure> {
    if let Some(path) = &arguments.key_file {
        return config::read_audit_key(path).map_err(|message| {
            Failure::Usage(format!("The key in {} {message}.", path.display()))
        });
    }
    let path = arguments.config.clone().unwrap_or_default();
    config::load_audit_key(&path)
        .map_err(|faults| Failure::Usage(faults.to_string()))?
        .ok_or_else(|| {
            Failure::Usage(format!(
                "The configuration {} has no section audit.",
                path.display()
            ))
        })
}
