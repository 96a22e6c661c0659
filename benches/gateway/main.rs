//! What the figures of docs/performance.md rest on: the program of this build, as a process of its
//! own, beside others on the same machine.
//!
//! `cargo bench` runs all parts and prints tables in Markdown; `cargo bench -- reads` one of
//! `reads`, `waiting`, `replicas` and `reaction`; `--quick` measures short and rough, to try the
//! benchmark itself; `--against PROGRAM` measures the reads of another build of the gateway too, to
//! see what a change is worth. Everything happens on 127.0.0.1, is limited in time and number, and
//! ends with the processes that were started here, also after a failure. It needs nginx, wrk and
//! PostgreSQL: `apt-get install nginx-light wrk postgresql`.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the tables go to standard output, and what is going on to standard error"
)]

mod figures;
mod gateway;
mod nginx;
#[expect(dead_code, reason = "tests need more of it")]
#[path = "../../tests/it/support/postgres.rs"]
mod postgres;
mod process;
mod reaction;
mod reads;
mod replicas;
mod waiting;
mod wrk;

use std::{env, error::Error, path::PathBuf, process::ExitCode, thread, time::Duration};

/// What a part gives: its tables, or why it could not be measured.
type Outcome<T> = Result<T, Box<dyn Error>>;

/// What is asked for on the command line.
#[derive(Debug, Default)]
struct Plan {
    /// Names of parts; none for all.
    parts: Vec<String>,
    is_quick: bool,
    /// Another build of the gateway.
    against: Option<PathBuf>,
}

impl Plan {
    fn read(mut arguments: impl Iterator<Item = String>) -> Outcome<Self> {
        let mut plan = Self::default();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                // Cargo's own, for every benchmark.
                "--bench" => {}
                "--quick" => plan.is_quick = true,
                "--against" => {
                    let program = arguments.next().ok_or("--against needs a program")?;
                    plan.against = Some(program.into());
                }
                name if PARTS.iter().any(|(known, ..)| *known == name) => {
                    plan.parts.push(argument);
                }
                _ => {
                    let usage =
                        "takes reads, waiting, replicas, reaction, --quick and --against PROGRAM";
                    return Err(usage.into());
                }
            }
        }
        Ok(plan)
    }

    /// The first of two, unless it is to be quick.
    fn choose<T>(&self, full: T, quick: T) -> T {
        if self.is_quick { quick } else { full }
    }
}

/// A part: its name, what it measures, and how.
type Part = (&'static str, &'static str, fn(&Plan) -> Outcome<String>);

const PARTS: [Part; 4] = [
    ("reads", "`GET /tasks/{id}` beside nginx", reads::measure),
    ("waiting", "Memory and CPU", waiting::measure),
    (
        "replicas",
        "Three gateways on PostgreSQL",
        replicas::measure,
    ),
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
    let plan = Plan::read(env::args().skip(1))?;
    let cores = thread::available_parallelism()?;
    println!("{cores} cores, Linux.");
    for (name, title, measure) in PARTS {
        if plan.parts.is_empty() || plan.parts.iter().any(|one| one == name) {
            let tables = measure(&plan).map_err(|error| format!("{name}: {error}"))?;
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
