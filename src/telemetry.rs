//! Logs: lines on the standard error stream, filtered and formed as the settings say.
//!
//! What is written into a line is up to the one who writes it. Here it is only made sure that the
//! crates which see requests on the wire stay quiet at levels at which they could show a header or
//! a body.

use std::io::{self, IsTerminal as _};

use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer as _,
    filter::{FilterFn, LevelFilter, filter_fn},
    fmt,
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

/// Crates that handle whole messages of the wire, with tokens and keys in them.
const WIRE: [&str; 6] = ["actix_http", "awc", "h2", "rustls", "tokio_rustls", "mio"];

/// The module that reports, as an error, each connection from a caller on which something came that
/// is no request: anybody could fill the log with that, and nobody could do anything about it.
const CALLERS: &str = "actix_http::h1::dispatcher";

/// What is logged, and how: section `log` of the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A `tracing` filter; the environment variable `RUST_LOG` wins over it.
    pub level: String,
    /// The form of a line.
    pub format: Format,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: Format::Auto,
        }
    }
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

/// Why logging cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter, wherever it came from, cannot be understood.
    #[error(
        "the log filter (RUST_LOG, else log.level) must be a level or a list such as \"info,migration_gateway=debug\""
    )]
    Filter,
    /// Logging was begun before in this process.
    #[error("logging was set up before")]
    SetUp,
}

/// Begins to log, for the rest of the process. A `RUST_LOG` that is set and not empty replaces the
/// filter of the settings.
pub fn init(settings: &Settings) -> Result<(), Error> {
    let filter = filter(&variable().unwrap_or_else(|| settings.level.clone()))?;
    let terminal = io::stderr().is_terminal();
    let json = match settings.format {
        Format::Json => true,
        Format::Text => false,
        Format::Auto => !terminal,
    };
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(terminal);
    let lines = if json {
        lines.json().flatten_event(true).boxed()
    } else {
        lines.boxed()
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(quiet_wire())
        .with(lines)
        .try_init()
        .map_err(|_| Error::SetUp)
}

/// Whether a text is a filter that [`init`] accepts.
pub(crate) fn check_filter(text: &str) -> Result<(), Error> {
    filter(text).map(|_| ())
}

fn filter(text: &str) -> Result<EnvFilter, Error> {
    // A bare word that is no level would be taken for the name of a module: a misspelt level would
    // silence the rest.
    let is_plain = |part: &str| {
        let word = part.trim();
        word.contains(['=', '[']) || (!word.is_empty() && word.parse::<LevelFilter>().is_ok())
    };
    if !text.split(',').all(is_plain) {
        return Err(Error::Filter);
    }
    EnvFilter::builder().parse(text).map_err(|_| Error::Filter)
}

/// Lets the wire's crates through from `INFO` on only, and what callers could fill the log with not
/// at all.
fn quiet_wire() -> FilterFn {
    filter_fn(may_be_shown)
}

fn may_be_shown(metadata: &Metadata<'_>) -> bool {
    let root = metadata.target().split("::").next().unwrap_or_default();
    metadata.target() != CALLERS && (*metadata.level() <= Level::INFO || !WIRE.contains(&root))
}

#[expect(
    clippy::disallowed_methods,
    reason = "RUST_LOG is the customary way to change what one run logs"
)]
fn variable() -> Option<String> {
    std::env::var("RUST_LOG")
        .ok()
        .filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{self, Write},
        sync::{Arc, Mutex},
    };

    use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _};

    use super::{check_filter, quiet_wire};

    /// Lines in memory.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn crates_on_the_wire_are_quiet_even_when_everything_is_asked_for() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::registry()
            .with(EnvFilter::new("trace,awc::client=trace"))
            .with(quiet_wire())
            .with(fmt::layer().with_writer(move || writer.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!(target: "awc::client", "canary");
            tracing::trace!(target: "actix_http", "canary");
            tracing::error!(target: "actix_http::h1::dispatcher", "canary");
            tracing::error!(target: "actix_http::h1::service", "a failure");
            tracing::warn!(target: "awc::client", "a warning");
            tracing::trace!("a trace of our own");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        assert!(!text.contains("canary"), "{text}");
        assert!(text.contains("a failure"), "{text}");
        assert!(text.contains("a warning"), "{text}");
        assert!(text.contains("a trace of our own"), "{text}");
    }

    #[test]
    fn levels_and_lists_of_targets_are_filters() {
        for good in [
            "info",
            "WARN",
            "off",
            "info,migration_gateway=debug",
            "sqlx=warn, debug",
        ] {
            assert!(check_filter(good).is_ok(), "{good} was refused");
        }
    }

    #[test]
    fn a_misspelt_level_is_refused() {
        for bad in ["", "inof", "info,debgu", "migration_gateway=loud"] {
            assert!(check_filter(bad).is_err(), "{bad} was accepted");
        }
    }
}
