//! Waiting, and what is shown meanwhile: a bar where somebody looks, else a line for everything
//! that happens.

use std::{
    env,
    io::{self, IsTerminal as _},
    thread,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use migration_gateway::client::{Ask, ClientError, Event, Problem};
use serde_json::Value;

use super::{Session, text};
use crate::commands::{Failure, print, warn};

/// How long the first request waits for the end of its operation, in seconds. What happens
/// meanwhile is shown after it. Each of those that follow waits for twice as long as the one
/// before, since the gateway notes every one of them down.
const WAIT: u32 = 2;
/// The longest that one request waits, in seconds: shorter than a silence that ends everything.
const WAIT_MAX: u32 = 30;
/// For how long a gateway may be away while something is waited for.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long to wait before asking again.
const PAUSE: Duration = Duration::from_secs(1);
/// What is said to whoever does not know what became of a request.
const MAY_GO_ON: &str =
    "What was asked for may go on all the same; to see it: migration-gateway operations list";
/// How often a bar is drawn when nothing happens.
const TICK: Duration = Duration::from_millis(200);

/// What is shown while something is waited for.
pub(super) struct Display {
    bar: Option<ProgressBar>,
    /// Events that were shown.
    shown: usize,
    json: bool,
}

impl Display {
    pub(super) fn new(session: &Session) -> Self {
        let is_plain = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let is_watched = io::stdout().is_terminal() && !is_plain && !session.json;
        let bar = is_watched.then(ProgressBar::new_spinner);
        Self {
            // One that its terminal cannot draw would take lines along.
            bar: bar.filter(|bar| !bar.is_hidden()),
            shown: 0,
            json: session.json,
        }
    }

    /// Shows what happened to an operation since it was last shown.
    pub(super) fn operation(&mut self, operation: &Value) -> Result<(), Failure> {
        let events = operation["events"].as_array().into_iter().flatten();
        for event in events.skip(self.shown) {
            self.shown += 1;
            self.event(event)?;
        }
        self.stand(text::of(operation, "phase"));
        Ok(())
    }

    /// Shows one event of an operation.
    pub(super) fn event(&self, event: &Value) -> Result<(), Failure> {
        self.line(&text::event(event))
    }

    /// Says what is being done, where somebody looks.
    pub(super) fn stand(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.enable_steady_tick(TICK);
            bar.set_message(text::plain(what).replace('_', " "));
        }
    }

    /// Shows how far a task is.
    pub(super) fn task(&self, task: &Value) -> Result<(), Failure> {
        let Some(bar) = &self.bar else {
            return self.line(&text::progress(task));
        };
        let amount = &task["bytes"];
        if let (Some(done), Some(total)) = (amount["done"].as_u64(), amount["total"].as_u64()) {
            if bar.length().is_none() {
                let form = "{prefix} [{wide_bar}] {percent} %\n{wide_msg}";
                // The form is a constant, and a good one.
                let style = ProgressStyle::with_template(form);
                bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            }
            bar.set_length(total);
            bar.set_position(done);
        }
        bar.set_prefix(text::plain(text::of(task, "state")));
        bar.set_message(text::numbers(task));
        Ok(())
    }

    /// A line beside the output, for whoever waits.
    pub(super) fn message(&self, line: &str) {
        let line = &text::plain(line);
        match &self.bar {
            Some(bar) => bar.println(line),
            None => warn(line),
        }
    }

    /// One line of its own, unless documents are the output.
    fn line(&self, line: &str) -> Result<(), Failure> {
        let line = &text::plain(line);
        match &self.bar {
            _ if self.json => Ok(()),
            Some(bar) => {
                bar.println(line);
                Ok(())
            }
            None => print(line),
        }
    }

    /// Nothing is waited for any more.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Asks for a change of a task and waits until it is done, or only until the gateway has taken it
/// on.
pub(super) fn change(session: &Session, mut ask: Ask<'_>, waits: bool) -> Result<(), Failure> {
    let mut display = Display::new(session);
    let prefer = ask.headers.len();
    // Whoever breaks off is told which operation goes on, so that is asked for before anything is
    // waited for.
    ask.headers.push(("prefer", "respond-async".to_owned()));
    // With it the request can be repeated: it does nothing twice, and is answered by how its
    // operation stands then.
    ask.headers.push(("idempotency-key", fresh_key()?));
    display.stand("asking");
    session.if_interrupted(format!("Interrupted. {MAY_GO_ON}"));
    let (began, mut heard) = (Instant::now(), None);
    // Whether the gateway may have taken it on.
    let (mut may_run, mut wait) = (false, WAIT);
    let ended = loop {
        let answer = session.client.send(&ask);
        match answer.and_then(|(status, operation)| Ok((status, session.known(operation)?))) {
            Ok((202, operation)) => {
                session.waits_for(text::of(&operation, "id"));
                (heard, may_run) = (Some(Instant::now()), true);
                display.operation(&operation)?;
                if !waits {
                    break Ok(operation);
                }
                ask.headers[prefer].1 = format!("wait={wait}");
                wait = (2 * wait).min(WAIT_MAX);
            }
            Ok((_, operation)) => {
                display.operation(&operation)?;
                break Ok(operation);
            }
            Err(error) => {
                may_run |= error.may_have_arrived();
                let silence = heard.unwrap_or(began).elapsed();
                if !may_run || !is_passing(&error) || silence > PATIENCE {
                    break Err(error);
                }
                display.stand("the gateway is away");
                thread::sleep(PAUSE);
            }
        }
    };
    display.end();
    match ended {
        Ok(operation) => session.print(&operation, |operation| {
            let end = text::end(operation);
            let id = text::of(operation, "id");
            if text::of(operation, "status") == "running" {
                format!("{end}\nTo see its end: migration-gateway operations watch {id}")
            } else {
                end
            }
        }),
        Err(error) => {
            if let ClientError::Problem(problem) = &error
                && problem.document["operation"].is_object()
            {
                display.operation(&problem.document["operation"])?;
            } else if may_run {
                display.message(MAY_GO_ON);
            }
            Err(session.failure(error))
        }
    }
}

/// Follows a stream of events to its end, across as many connections as it takes. `told` says
/// whether an event is the last.
pub(super) fn follow(
    session: &Session,
    target: &str,
    mut told: impl FnMut(&Event) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let (mut last, mut heard) = (None, None::<Instant>);
    loop {
        match session.client.watch(target, last.as_deref()) {
            Ok(None) => return Ok(()),
            Ok(Some(mut events)) => {
                let began = Instant::now();
                // One that breaks off is opened again.
                for event in events.by_ref().map_while(Result::ok) {
                    if told(&event)? {
                        return Ok(());
                    }
                    last = event.id.or(last);
                }
                heard = events.heard().or(heard).or(Some(began));
            }
            Err(error) => {
                let is_short = heard.is_some_and(|heard| heard.elapsed() < PATIENCE);
                if !is_short || !is_passing(&error) {
                    return Err(session.failure(error));
                }
            }
        }
        if let Some(silence) = heard.map(|heard| heard.elapsed())
            && silence > PATIENCE
        {
            return Err(session.failure(session.client.silent(silence)));
        }
        thread::sleep(PAUSE);
    }
}

/// How an operation ended, as the end of the command.
pub(super) fn outcome(session: &Session, operation: &Value) -> Result<(), Failure> {
    session.print(operation, text::end)?;
    match text::of(operation, "status") {
        "succeeded" | "running" => Ok(()),
        _ if session.json => Err(Failure::Silent(1)),
        status => Err(match Problem::read(operation["error"].clone()) {
            Some(problem) => Failure::Status(1, text::problem(&problem, &session.client)),
            None => Failure::Status(1, format!("Error: the operation was {status}.")),
        }),
    }
}

/// Whether the gateway may be there again in a while.
fn is_passing(error: &ClientError) -> bool {
    match error {
        ClientError::Settings(_) => false,
        ClientError::Unreachable { .. }
        | ClientError::Silent { .. }
        | ClientError::Foreign { .. } => true,
        ClientError::Problem(problem) => problem.is_passing(),
    }
}

fn fresh_key() -> Result<String, Failure> {
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random)
        .map_err(|error| Failure::Other(format!("Error: there is no randomness: {error}.")))?;
    Ok(hex::encode(random))
}
