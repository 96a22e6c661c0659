//! The audit log of a gateway: where it is, what stands in it, and what `verify-audit` says of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use serde_json::Value;

use super::gateway::Place;

pub(crate) const AUDIT_KEY: &str = "0123456789abcdef0123456789abcdef";

/// Has the gateways of a place keep an audit log in the folder `audit`.
pub(crate) fn audited(place: Place) -> Place {
    let key = place.secret("audit-key", AUDIT_KEY);
    fs::create_dir(place.file("audit")).expect("a folder");
    let path = format!("\"{}\"", log(&place).display());
    place.set("audit.path", &path).set("audit.key", &key)
}

/// The file that is written to.
pub(crate) fn log(place: &Place) -> PathBuf {
    place.file("audit").join("audit.log")
}

/// The lines of a kind. What is no line of JSON fails the test.
pub(crate) fn lines(place: &Place, kind: &str) -> Vec<Value> {
    lines_of(&log(place), kind)
}

/// As [`lines`], of one file.
pub(crate) fn lines_of(file: &Path, kind: &str) -> Vec<Value> {
    let text = fs::read_to_string(file).expect("an audit log");
    let line = |line: &str| serde_json::from_str::<Value>(line).expect("a line of JSON");
    let lines = text.lines().map(line);
    lines.filter(|line| line["kind"] == kind).collect()
}

/// All files of the log, oldest first.
pub(crate) fn files(place: &Place) -> Vec<PathBuf> {
    let entries = fs::read_dir(place.file("audit")).expect("a folder");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("one").path()).collect();
    files.sort_by_key(|path| (*path == log(place), path.clone()));
    files
}

/// What `verify-audit` says of files.
pub(crate) fn verify(place: &Place, files: &[PathBuf]) -> Output {
    let mut command = crate::gateway();
    command.args(["verify-audit", "--key-file"]);
    command.arg(place.file("audit-key")).args(files);
    command.output().expect("the program")
}

/// That the log is whole, and the number of its last line.
pub(crate) fn assert_whole(place: &Place) -> u64 {
    let output = verify(place, &files(place));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    let head = text.lines().find_map(|line| line.strip_prefix("head "));
    let seq = head.and_then(|head| head.split(' ').next());
    seq.expect("a head").parse().expect("a number")
}
