//! Logs.

/// What is logged, and how: section `log` of the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A `tracing` filter; the environment variable `RUST_LOG` wins over it.
    pub level: String,
    /// The form of a line.
    pub format: Format,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
    /// Text on a terminal, else JSON.
    Auto,
}
