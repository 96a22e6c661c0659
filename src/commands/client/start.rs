//! What a start sends along: the keys of buckets, by name or from a file.

use std::{fs, io, io::Read as _};

use clap::Args;
use serde_json::{Value, json};

use crate::commands::Failure;

/// The most that is read, in bytes.
const SIZE_MAX: u64 = 64 << 10;

/// What an OMS task is started with. SMS tasks take none of it.
#[derive(Debug, Args)]
pub(crate) struct Keys {
    /// The gateway's name for the keys to the source (`storage_credentials`).
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// The gateway's name for the keys to the destination.
    #[arg(long, value_name = "NAME")]
    destination: Option<String>,
    /// A file (`-`: the standard input) with keys in the form of the API: `{"source": {"access_key": "…", "secret_key": "…"},
    /// "destination": {…}}`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["source", "destination"])]
    credentials_file: Option<String>,
    /// Copy again only what could not be copied before.
    #[arg(long)]
    migrate_failed_objects: bool,
}

impl Keys {
    /// The body of the request, if it needs one.
    pub(super) fn body(&self) -> Result<Option<Value>, Failure> {
        let mut body = match &self.credentials_file {
            Some(path) => read(path)?,
            None => json!({}),
        };
        let named = [("source", &self.source), ("destination", &self.destination)];
        for (side, name) in named {
            if let Some(name) = name {
                body[side] = json!(name);
            }
        }
        if self.migrate_failed_objects {
            body["migrate_failed_objects"] = json!(true);
        }
        let is_empty = body.as_object().is_some_and(serde_json::Map::is_empty);
        Ok((!is_empty).then_some(body))
    }
}

fn read(path: &str) -> Result<Value, Failure> {
    let fault =
        |why: &str| Failure::Usage(format!("Error: the keys in {path} cannot be used: {why}."));
    let mut text = String::new();
    let read = if path == "-" {
        io::stdin().take(SIZE_MAX).read_to_string(&mut text)
    } else {
        fs::File::open(path).and_then(|file| file.take(SIZE_MAX).read_to_string(&mut text))
    };
    read.map_err(|error| fault(&error.to_string()))?;
    // What a parser says of a text could show a part of it.
    let body: Value = serde_json::from_str(&text).map_err(|_| fault("it is not JSON"))?;
    if body.is_object() {
        Ok(body)
    } else {
        Err(fault("it is no JSON object"))
    }
}
