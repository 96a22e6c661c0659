//! wrk, the client that asks as fast as it is answered.

use std::{io::Write as _, process::Command, time::Duration};

use tempfile::NamedTempFile;

use crate::{Outcome, gateway::KEY, nginx::missing};

/// Which tasks are asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tasks {
    /// Another one with every request.
    Each,
    /// One and the same.
    One,
}

impl Tasks {
    /// A script for wrk, which runs it in each of its threads. The ids are numbers with fourteen
    /// digits.
    fn script(self) -> String {
        let step = match self {
            Self::Each => 1,
            Self::One => 0,
        };
        format!(
            "local threads = 0\n\
             function setup(thread)\n\
             \x20 thread:set('id', 19129740000000 + threads * 1000000000 * {step})\n\
             \x20 threads = threads + 1\n\
             end\n\
             function request()\n\
             \x20 id = id + {step}\n\
             \x20 return wrk.format(nil, string.format('/tasks/%.0f', id))\n\
             end\n"
        )
    }
}

/// What one run of wrk measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) requests_per_second: f64,
    /// Milliseconds.
    pub(crate) median: f64,
    /// Milliseconds.
    pub(crate) p99: f64,
}

/// Asks for tasks over this many connections that are kept. Fails if any answer is not a 2xx.
pub(crate) fn run(url: &str, tasks: Tasks, connections: usize, time: Duration) -> Outcome<Load> {
    let mut script = NamedTempFile::new()?;
    script.write_all(tasks.script().as_bytes())?;
    let threads = connections.min(2);
    let output = Command::new("wrk")
        .arg(format!("-t{threads}"))
        .arg(format!("-c{connections}"))
        .arg(format!("-d{}s", time.as_secs()))
        .args(["--latency", "-H", &format!("Authorization: Bearer {KEY}")])
        .arg("-s")
        .arg(script.path())
        .arg(url)
        .output()
        .map_err(|error| missing(error.into()))?;
    let text = String::from_utf8(output.stdout)?;
    let broken = ["Non-2xx", "Socket errors"];
    if !output.status.success() || broken.iter().any(|word| text.contains(word)) {
        return Err(format!("{url} was not answered as it should be: {text}").into());
    }
    let read = || -> Option<Load> {
        Some(Load {
            requests_per_second: after(&text, "Requests/sec:")?.parse().ok()?,
            median: milliseconds(after(&text, "50%")?)?,
            p99: milliseconds(after(&text, "99%")?)?,
        })
    };
    read().ok_or_else(|| format!("wrk wrote something strange: {text}").into())
}

/// The word that follows another at the beginning of a line.
fn after<'text>(text: &'text str, word: &str) -> Option<&'text str> {
    let line = text
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(word))?;
    line.split_whitespace().next()
}

fn milliseconds(text: &str) -> Option<f64> {
    // The longer units first, since they end alike.
    for (unit, factor) in [("us", 0.001), ("ms", 1.0), ("s", 1000.0)] {
        if let Some(number) = text.strip_suffix(unit) {
            return number.parse().ok().map(|number: f64| number * factor);
        }
    }
    None
}
