//! What a start sends along: the keys of buckets, by name or from a file.

use std::{fs, io, io::Read as _};

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::commands::Failure;

/// The most that is read, in bytes.
const SIZE_MAX: u64 = 64 << 10;

/// What a file of keys looks like.
const FORM: &str =
    "{\"source\": {\"access_key\": \"…\", \"secret_key\": \"…\"}, \"destination\": {…}}";

/// What an OMS task is started with. SMS tasks take none of it.
#[derive(Debug, Args)]
pub(crate) struct Keys {
    /// The gateway's name for the keys to the source (`storage_credentials`).
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// The gateway's name for the keys to the destination.
    #[arg(long, value_name = "NAME")]
    destination: Option<String>,
    /// A file (`-`: the standard input) with keys in the form of the API: `{"source":
    /// {"access_key": "…", "secret_key": "…"}, "destination": {…}}`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["source", "destination"])]
    credentials_file: Option<String>,
    /// Copy again only what could not be copied before.
    #[arg(long)]
    migrate_failed_objects: bool,
}

/// What a file of keys may hold, each member once: a reader that takes the first or the last of two
/// may take the wrong keys.
#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Body {
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<Side>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<Side>,
    #[serde(skip_serializing_if = "Option::is_none")]
    migrate_failed_objects: Option<bool>,
}

/// The gateway's name for keys, or the keys themselves.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum Side {
    Name(String),
    Keys(KeyPair),
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct KeyPair {
    access_key: String,
    secret_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    security_token: Option<String>,
}

impl Keys {
    /// The body of the request, if it needs one.
    pub(super) fn body(&self) -> Result<Option<Value>, Failure> {
        let mut body = match &self.credentials_file {
            Some(path) => read(path)?,
            None => Body::default(),
        };
        if let Some(name) = &self.source {
            body.source = Some(Side::Name(name.clone()));
        }
        if let Some(name) = &self.destination {
            body.destination = Some(Side::Name(name.clone()));
        }
        if self.migrate_failed_objects {
            body.migrate_failed_objects = Some(true);
        }
        let body = json!(body);
        Ok((body != json!({})).then_some(body))
    }
}

fn read(path: &str) -> Result<Body, Failure> {
    let fault =
        |why: &str| Failure::Usage(format!("Error: the keys in {path} cannot be used: {why}."));
    let mut text = String::new();
    let read = if path == "-" {
        io::stdin().take(SIZE_MAX + 1).read_to_string(&mut text)
    } else {
        fs::File::open(path).and_then(|file| file.take(SIZE_MAX + 1).read_to_string(&mut text))
    };
    read.map_err(|error| fault(&error.to_string()))?;
    if text.len() as u64 > SIZE_MAX {
        return Err(fault("they are more than 64 KiB"));
    }
    // What a parser says of a text could show a part of it, so that only the place is told.
    serde_json::from_str(&text).map_err(|error| {
        fault(&format!(
            "look at line {}, column {}; it must be JSON of the form {FORM}, with each member once",
            error.line(),
            error.column()
        ))
    })
}
