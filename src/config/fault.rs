//! What is wrong with a configuration, for people.
//!
//! A fault names the key and the place. It never shows a value: any value may be a secret in the
//! wrong place.

use std::{fmt, path::Path};

use super::{reader::Entry, source};

/// Everything that is wrong with one configuration.
#[derive(Debug)]
pub struct Faults {
    file: String,
    found: Vec<Fault>,
}

/// One fault.
#[derive(Debug)]
struct Fault {
    /// The full name of the key, parts joined by dots; empty when the whole file is meant.
    key: String,
    origin: Origin,
    /// The rest of a sentence that begins with the key.
    message: String,
}

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The configuration file, or nowhere: then the file is the place to write it.
    File,
    /// A variable of the environment, whose name follows from the key.
    Environment,
}

impl Faults {
    /// No faults yet in the configuration of this file.
    pub(super) fn of(file: &Path) -> Self {
        Self {
            file: file.display().to_string(),
            found: Vec::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Records a fault of a key that may not be there.
    pub(super) fn push(
        &mut self,
        key: impl Into<String>,
        origin: Origin,
        message: impl Into<String>,
    ) {
        self.found.push(Fault {
            key: key.into(),
            origin,
            message: message.into(),
        });
    }

    /// Records a fault of a value.
    pub(super) fn add(&mut self, entry: &Entry, message: impl Into<String>) {
        self.push(entry.key(), entry.origin(), message);
    }

    /// The good value, or `None` after recording why there is none.
    pub(super) fn keep<T>(&mut self, entry: &Entry, read: Result<T, String>) -> Option<T> {
        match read {
            Ok(value) => Some(value),
            Err(message) => {
                self.add(entry, message);
                None
            }
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.found.len();
        let noun = if count == 1 { "fault" } else { "faults" };
        write!(
            formatter,
            "The configuration {} has {count} {noun}:",
            self.file
        )?;
        for fault in &self.found {
            formatter.write_str("\n  ")?;
            if !fault.key.is_empty() {
                write!(formatter, "{} ", fault.key)?;
            }
            match fault.origin {
                Origin::File => write!(formatter, "(in {})", self.file)?,
                Origin::Environment => {
                    write!(formatter, "(from {})", source::variable(&fault.key))?;
                }
            }
            write!(formatter, " {}.", fault.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
