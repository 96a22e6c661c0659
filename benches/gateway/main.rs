//! What the figures of docs/performance.md rest on: the program of this build, as a process of its own, beside others on
//! the same machine.
//!
//! `cargo bench` runs all parts and prints tables in Markdown; `cargo bench -- reads` one of `reads`, `waiting` and
//! `reaction`; `--quick` measures short and rough, to try the benchmark itself. Everything happens on 127.0.0.1, is
//! limited in time and number, and ends with the processes that were started here, also after a failure. It needs
//! nginx and wrk: `apt-get install nginx-light wrk`.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the tables go to standard output, and what is going on to standard error"
)]

mod figures;
mod gateway;
mod nginx;
mod process;
mod reaction;
mod reads;
mod waiting;
mod wrk;

use std::{env, error::Error, process::ExitCode, thread, time::Duration};

/// What a part gives: its tables, or why it could not be measured.
type Outcome<T> = Result<T, Box<dyn Error>>;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effort {
    /// As for the document.
    Full,
    /// To see whether the benchmark works.
    Quick,
}

impl Effort {
    /// The first of two, unless it is to be quick.
    fn choose<T>(self, full: T, quick: T) -> T {
        match self {
            Self::Full => full,
            Self::Quick => quick,
        }
    }
}

/// A part: its name, what it measures, and how.
type Part = (&'static str, &'static str, fn(Effort) -> Outcome<String>);

const PARTS: [Part; 3] = [
    ("reads", "`GET /tasks/{id}` beside nginx", reads::measure),
    ("waiting", "Memory and CPU", waiting::measure),
    ("reaction", "From paused to deleted", reaction::measure),
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("The benchmark failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Outcome<()> {
    let mut effort = Effort::Full;
    let mut wanted = Vec::new();
    for argument in env::args().skip(1) {
        match argument.as_str() {
            // Cargo's own, for every benchmark.
            "--bench" => {}
            "--quick" => effort = Effort::Quick,
            name if PARTS.iter().any(|(known, ..)| *known == name) => {
                wanted.push(argument.clone());
            }
            _ => return Err("takes --quick and the names reads, waiting, reaction".into()),
        }
    }
    let cores = thread::available_parallelism()?;
    println!("{cores} cores, Linux.");
    for (name, title, measure) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|one| one == name) {
            let tables = measure(effort).map_err(|error| format!("{name}: {error}"))?;
            println!("\n### {title}\n\n{tables}");
        }
    }
    Ok(())
}

/// Waits until `condition` gives something, or says in vain for what.
fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Outcome<Option<T>>,
) -> Outcome<T> {
    let began = std::time::Instant::now();
    loop {
        if let Some(found) = condition()? {
            return Ok(found);
        }
        if began.elapsed() > limit {
            return Err(format!("waited {limit:?} in vain for {what}").into());
        }
        thread::sleep(Duration::from_millis(20));
    }
}
