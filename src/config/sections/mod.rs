//! The sections that are plain settings: `limits`, `server`, `log`, `store`, `audit`, `operations`
//! and `upstream`.

mod server;

use std::{fs::File, io::Read as _, path::PathBuf, time::Duration};

pub(super) use self::server::{listen, server};
use super::{
    fault::{Faults, Origin},
    reader::{Entry, Section},
    secrets,
    values::{self, Reading},
};
use crate::{
    api::{Limits, RateLimit, StreamLimits},
    audit,
    domain::secret::{SecretForm, SecretSource},
    listener::ConnectionLimits,
    operations,
    store::{self, PostgresSettings},
    telemetry, transport,
    upstream::Pace,
};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const DAY: Duration = Duration::from_hours(24);
const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Section `limits`: of requests and operations, and of connections.
pub(super) fn limits(root: &mut Section, faults: &mut Faults) -> (Limits, ConnectionLimits) {
    let mut section = root.section("limits", faults);
    let mut limit = |name, default| section.optional(name, faults, positive).unwrap_or(default);
    let limits = Limits {
        concurrent_requests: limit("concurrent_requests", 10_000),
        running_operations: limit("running_operations", 1000),
        rate: RateLimit {
            requests_per_second: limit("requests_per_second", 100),
            burst: limit("burst", 200),
        },
        streams: StreamLimits {
            all: limit("event_streams", 1000),
            per_caller: limit("event_streams_per_caller", 100),
        },
    };
    let connections = ConnectionLimits {
        all: limit("connections", 10_000),
        per_peer: limit("connections_per_peer", 1000),
    };
    section.finish(faults);
    (limits, connections)
}

/// Section `log`.
pub(super) fn log(root: &mut Section, faults: &mut Faults) -> telemetry::Settings {
    let mut log = root.section("log", faults);
    let default = telemetry::Settings::default();
    let settings = telemetry::Settings {
        level: log
            .optional("level", faults, level)
            .unwrap_or(default.level),
        format: log
            .optional("format", faults, format)
            .unwrap_or(default.format),
    };
    log.finish(faults);
    settings
}

fn level(entry: &Entry) -> Reading<String> {
    let text = values::text(entry)?;
    telemetry::check_filter(&text).map_err(|_| {
        "must be a level (error, warn, info, debug, trace, off), or a list such as \
         \"info,migration_gateway=debug\""
            .to_owned()
    })?;
    Ok(text)
}

fn format(entry: &Entry) -> Reading<telemetry::Format> {
    match entry.text() {
        Some("json") => Ok(telemetry::Format::Json),
        Some("text") => Ok(telemetry::Format::Text),
        Some("auto") => Ok(telemetry::Format::Auto),
        Some(_) | None => Err("must be \"json\", \"text\" or \"auto\"".to_owned()),
    }
}

/// Section `store`. `None` only after a fault was recorded.
pub(super) fn store(root: &mut Section, faults: &mut Faults) -> Option<store::Settings> {
    let mut store = root.section("store", faults);
    let settings = if store.has("url") {
        store.optional("url", faults, database)
    } else {
        let path = "migration-gateway.db".into();
        Some(store::Settings::Sqlite { path })
    };
    let password = match (&settings, store.has("password")) {
        (_, false) => None,
        (Some(store::Settings::Sqlite { .. }), true) => store.optional("password", faults, |_| {
            Err("is for PostgreSQL: the store is an SQLite file".to_owned())
        }),
        (Some(store::Settings::Postgres(_)) | None, true) => {
            secrets::value(&mut store, "password", faults)
        }
    };
    store.finish(faults);
    match (settings, password) {
        (Some(store::Settings::Postgres(server)), Some(password)) => {
            Some(store::Settings::Postgres(server.with_password(password)))
        }
        (settings, _) => settings,
    }
}

fn database(entry: &Entry) -> Reading<store::Settings> {
    let url = values::text(entry)?;
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return PostgresSettings::parse(&url).map(store::Settings::Postgres);
    }
    match url.strip_prefix("sqlite://") {
        // The record must outlive the process, and SQLite takes these for its memory or for
        // options.
        Some(path) if !path.is_empty() && !path.starts_with(':') && !path.contains(['?', '#']) => {
            let path = path.into();
            Ok(store::Settings::Sqlite { path })
        }
        Some(_) | None => Err(
            "must be \"sqlite://\" and the path of a file, or like \"postgres://user@host/database\""
                .to_owned(),
        ),
    }
}

/// Section `audit`; `None` if there is none, or after a fault was recorded.
pub(super) fn audit(root: &mut Section, faults: &mut Faults) -> Option<audit::Settings> {
    if !root.has("audit") {
        return None;
    }
    let mut section = root.section("audit", faults);
    let path = section.required("path", faults, values::text);
    let key = secrets::required(&mut section, ("key", SecretForm::Text), faults);
    let max_size = section
        .optional("max_size", faults, values::size(64 * KIB, 1024 * MIB))
        .unwrap_or(100 * MIB);
    let keep = section
        .optional("keep_files", faults, values::number(0, 10_000))
        .unwrap_or(10);
    let fault = |message| faults.push(section.name("key"), Origin::File, message);
    let key = key.and_then(|source| audit_key(&source).map_err(fault).ok());
    section.finish(faults);
    let path = path?;
    let target = if path == "stdout" {
        audit::Target::Stdout
    } else {
        audit::Target::File {
            path: path.into(),
            max_size: max_size as u64,
            keep,
        }
    };
    Some(audit::Settings { target, key: key? })
}

/// The key that a secret is.
pub(super) fn audit_key(source: &SecretSource) -> Reading<audit::Key> {
    audit::Key::new(&secrets::read(source, SecretForm::Text)?).ok_or_else(|| {
        format!(
            "is shorter than {} bytes: make one with `openssl rand -hex 32`",
            audit::KEY_MIN
        )
    })
}

/// Section `operations`. `exchange_max`: the longest that one request can be on its way to the
/// cloud.
pub(super) fn operations(
    root: &mut Section,
    exchange_max: Duration,
    faults: &mut Faults,
) -> operations::Settings {
    let mut section = root.section("operations", faults);
    let (poll_min, poll_max) = ordered(
        &mut section,
        ("poll_min", 500 * MILLISECOND),
        ("poll_max", 10 * SECOND),
        faults,
    );
    let settings = operations::Settings {
        deadline: section
            .optional("deadline", faults, values::duration(SECOND, 30 * DAY))
            .unwrap_or(30 * MINUTE),
        poll_min,
        poll_max,
        exchange_max,
        concurrency: section
            .optional("concurrency", faults, values::number(1, 1024))
            .unwrap_or(64),
        history: section
            .optional("history", faults, values::duration(MINUTE, 3650 * DAY))
            .unwrap_or(30 * DAY),
    };
    section.finish(faults);
    settings
}

/// Section `upstream`: what concerns single exchanges, how old an answer may be that serves again,
/// and the pace.
pub(super) fn upstream(
    root: &mut Section,
    faults: &mut Faults,
) -> (transport::Settings, Duration, Pace) {
    let mut upstream = root.section("upstream", faults);
    let timeout = values::duration(MILLISECOND, 5 * MINUTE);
    let settings = transport::Settings {
        connect_timeout: upstream
            .optional("connect_timeout", faults, &timeout)
            .unwrap_or(3 * SECOND),
        request_timeout: upstream
            .optional("request_timeout", faults, &timeout)
            .unwrap_or(15 * SECOND),
        ca_file: upstream.optional("ca_file", faults, ca_file).flatten(),
    };
    let freshness = upstream
        .optional(
            "freshness",
            faults,
            values::duration(Duration::ZERO, MINUTE),
        )
        .unwrap_or(500 * MILLISECOND);
    let pace = Pace {
        requests_per_second: upstream
            .optional("requests_per_second", faults, positive)
            .unwrap_or(50),
        burst: upstream.optional("burst", faults, positive).unwrap_or(100),
    };
    upstream.finish(faults);
    (settings, freshness, pace)
}

fn positive(entry: &Entry) -> Reading<u32> {
    let number = values::number(1, 1_000_000)(entry)?;
    // It is not larger than the limit.
    Ok(u32::try_from(number).unwrap_or(u32::MAX))
}

fn ca_file(entry: &Entry) -> Reading<Option<PathBuf>> {
    let Some(path) = values::text_or_empty(entry)?.map(PathBuf::from) else {
        return Ok(None);
    };
    // A directory can be opened; only reading tells.
    match File::open(&path).and_then(|mut file| file.read(&mut [0])) {
        Ok(_) => Ok(Some(path)),
        Err(error) => Err(format!("names a file that cannot be read: {error}")),
    }
}

/// Two durations of which the first must not be longer than the second, each given by its key and
/// its default.
fn ordered(
    section: &mut Section,
    (low_key, low): (&str, Duration),
    (high_key, high): (&str, Duration),
    faults: &mut Faults,
) -> (Duration, Duration) {
    let mut written = Vec::new();
    let mut read = |key, default| {
        let Some(entry) = section.take(key) else {
            return Some(default);
        };
        let duration = values::duration(MILLISECOND, HOUR)(&entry);
        let duration = faults.keep(&entry, duration);
        written.push(entry);
        duration
    };
    let (Some(low), Some(high)) = (read(low_key, low), read(high_key, high)) else {
        return (low, high);
    };
    // What the environment says lies over the file, so that it is the one to blame.
    let blamed = written
        .iter()
        .max_by_key(|entry| entry.origin() == Origin::Environment);
    if let Some(entry) = blamed.filter(|_| low > high) {
        faults.add(entry, format!("makes {low_key} longer than {high_key}"));
    }
    (low, high)
}
