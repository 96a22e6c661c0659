//! The record of operations in SQL.

use std::path::PathBuf;

/// Where the record is kept: section `store` of the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The database file.
    pub path: PathBuf,
}
