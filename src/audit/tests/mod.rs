//! Logs in real files: what is found in them, and what goes on after what.

mod edits;
mod files;
mod forgery;
mod lines;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use prometheus_client::registry::Registry;

use super::{Audit, Key, Settings, Target, Verified, VerifyError, Wrong, verify};
use crate::domain::{
    audit::{Attempt, AuditLog as _, AuditUnavailable, Decided, Decision, Entry},
    secret::Secret,
    service::CallerName,
};

/// A key of these letters.
fn key(letter: &str) -> Key {
    Key::new(&Secret::new(letter.repeat(32))).unwrap()
}

fn decided(rule: &str) -> Decided {
    Decided {
        attempt: Attempt {
            request_id: "01JGZ4K8W3M5N7P9R1T3V5X7Z9".to_owned(),
            caller: CallerName::parse("team-a"),
            method: "key",
            peer: Some(SocketAddr::from(([127, 0, 0, 1], 4711)).into()),
            action: "delete",
            project: None,
            service: None,
            task: None,
        },
        decision: Decision::Allowed,
        rule: rule.to_owned(),
        course: None,
        operation: None,
    }
}

/// A log in a folder.
struct Log {
    audit: Audit,
    path: PathBuf,
}

impl Log {
    fn open(folder: &Path, max_size: u64, keep: usize) -> Self {
        let path = folder.join("audit.log");
        let settings = Settings {
            target: Target::File {
                path: path.clone(),
                max_size,
                keep,
            },
            key: key("k"),
        };
        let audit = Audit::start(&settings, &mut Registry::default()).unwrap();
        Self { audit, path }
    }

    async fn add(&self, rule: &str) -> Result<(), AuditUnavailable> {
        let entry = Entry::Decided(decided(rule));
        self.audit.record(vec![entry]).await
    }

    async fn add_all(&self, count: usize) {
        for number in 0..count {
            self.add(&format!("rule {number}")).await.unwrap();
        }
    }

    async fn close(self) {
        self.audit.close().await.unwrap();
    }
}

/// All files of a log, oldest first.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    // The file that is written to has the shortest name, and stands last.
    found.sort_by_key(|path| (path.extension().unwrap() == "log", path.clone()));
    found
}

fn check(files: &[PathBuf]) -> Verified {
    verify(&key("k"), files).unwrap_or_else(|error| panic!("{error}"))
}

/// Where and how files are wrong.
fn wrong(files: &[PathBuf]) -> Option<(PathBuf, u64, Wrong)> {
    match verify(&key("k"), files) {
        Ok(_) => None,
        Err(VerifyError::Tampered(found)) => Some((found.file, found.line, found.what)),
        Err(error @ VerifyError::Unreadable(..)) => panic!("{error}"),
    }
}
