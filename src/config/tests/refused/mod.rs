//! Every kind of fault, by its key.

mod callers;
mod projects;

use super::{complete, faults};

/// Replaces one part of [`complete`] and expects one fault, which begins with the key and has the
/// words.
fn refused(part: &str, by: &str, key: &str, words: &str) {
    assert!(complete().contains(part), "{part} is not in the text");
    let found = faults(&complete().replacen(part, by, 1), &[]);
    let [line] = found.as_slice() else {
        panic!("{by}: one fault expected in {found:#?}");
    };
    assert!(line.starts_with(&format!("{key} (in ")), "{by}: {line}");
    assert!(line.contains(words), "{by}: {line}");
}

/// As [`refused`], with further lines at the top.
fn refused_line(section: &str, line: &str, words: &str) {
    let key = line.split(' ').next().expect("a key");
    let key = format!("{section}.{key}");
    let lines = format!("[{section}]\n{line}\n[projects.prod]");
    refused("[projects.prod]", &lines, &key, words);
}

#[test]
fn server_settings_outside_their_limits_are_refused() {
    for (section, line, words) in [
        ("server", "listen = \"localhost\"", "address and a port"),
        (
            "server",
            "public_url = \"https://example.com/\"",
            "trailing slash",
        ),
        (
            "server",
            "public_url = \"https://example.com:+80\"",
            "absolute",
        ),
        ("server", "public_url = \"example.com\"", "absolute"),
        (
            "server",
            "public_url = \"https://u:p@example.com\"",
            "user name",
        ),
        (
            "server",
            "trusted_proxies = \"10.0.0.0/8\"",
            "must be a list of IP addresses",
        ),
        (
            "server",
            "trusted_proxies = [\"10.0.0.1/8\"]",
            "without bits behind the length",
        ),
        (
            "server",
            "trusted_proxies = [\"10.0.0.1\", \"proxy.example\"]",
            "must be a list of IP addresses",
        ),
        ("server", "workers = \"4\"", "whole number"),
        ("server", "workers = -1", "whole number"),
        ("server", "workers = 5000", "from 0 to 1024"),
        ("server", "default_wait = 30", "with a unit"),
        ("server", "default_wait = \"30\"", "with a unit"),
        ("server", "default_wait = \"0s\"", "from 1ms to 1h"),
        ("server", "default_wait = \"-5s\"", "from 1ms to 1h"),
        (
            "server",
            "default_wait = \"3m\"",
            "makes default_wait longer than max_wait",
        ),
        ("server", "max_wait = \"1month\"", "with a unit"),
        ("server", "drain_timeout = \"99999999999d\"", "with a unit"),
        ("server", "max_body = \"1MB\"", "KiB or MiB"),
        ("server", "max_body = 1024", "KiB or MiB"),
        ("server", "max_body = \"1GiB\"", "KiB or MiB"),
        (
            "server",
            "max_body = \"99999999999999999999MiB\"",
            "KiB or MiB",
        ),
        ("limits", "burst = 0", "from 1 to 1000000"),
        ("limits", "burts = 1", "not a known key"),
        ("server", "max_bodies = \"1MiB\"", "not a known key"),
    ] {
        refused_line(section, line, words);
    }
}

#[test]
fn other_settings_outside_their_limits_are_refused() {
    for (section, line, words) in [
        ("log", "level = \"inof\"", "must be a level"),
        ("log", "format = \"xml\"", "\"json\", \"text\" or \"auto\""),
        ("store", "url = \"postgres://host\"", "postgres://user@host"),
        (
            "store",
            "url = \"postgres://user:word@host/database\"",
            "store.password",
        ),
        ("store", "url = \"sqlite://\"", "path of a file"),
        ("store", "url = \"sqlite://:memory:\"", "path of a file"),
        ("store", "url = \"gateway.db\"", "path of a file"),
        ("store", "password = { file = \"x\" }", "is for PostgreSQL"),
        ("operations", "deadline = \"0s\"", "from 1s to 720h"),
        (
            "operations",
            "poll_min = \"11s\"",
            "makes poll_min longer than poll_max",
        ),
        ("operations", "concurrency = 0", "from 1 to 1024"),
        ("operations", "history = \"1s\"", "with a unit"),
        ("upstream", "connect_timeout = \"0ms\"", "from 1ms to 5m"),
        ("upstream", "request_timeout = \"1h\"", "from 1ms to 5m"),
        ("upstream", "freshness = \"2m\"", "from 0s to 1m"),
        ("upstream", "requests_per_second = 0", "from 1 to 1000000"),
        ("upstream", "burst = 1000001", "from 1 to 1000000"),
        ("upstream", "ca_file = \"/\"", "cannot be read"),
        (
            "upstream",
            "ca_file = \"/nowhere/ca.pem\"",
            "cannot be read",
        ),
        (
            "access",
            "anonymous = [\"tasks:raed\"]",
            "list of \"*\" or of tasks:read",
        ),
        ("access", "anonymous = \"tasks:read\"", "list of"),
    ] {
        refused_line(section, line, words);
    }
}
