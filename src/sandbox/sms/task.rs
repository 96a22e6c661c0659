//! One SMS task and its source server: their states over time, and what they allow.

use std::time::Duration;

use super::super::{
    options::{AfterStop, CloudOptions, RunEnd, TaskSwitches},
    run::{Run, millis},
};

/// Source states in which a connected server does not let its task be deleted.
const BUSY_SOURCES: [&str; 10] = [
    "initialize",
    "stopping",
    "deleting",
    "cloning",
    "replicate",
    "syncing",
    "cutovering",
    "skipping",
    "clearing",
    "premiging",
];

/// The state of a task that is no more; it is never shown.
const GONE: &str = "";

/// Why SMS refuses a call; each has its own code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    NotRunning,
    NotPaused,
    NotFailed,
    Gate,
    BadParameters,
    Missing,
}

/// A task to be added.
#[derive(Clone, Debug)]
pub struct SmsSpec {
    /// Its name.
    pub name: String,
    /// Its state; any word is taken, also one that is not documented.
    pub state: String,
    /// The state of the source server; `None` is the one that goes with the task's state.
    pub source_state: Option<String>,
    /// Whether the agent on the source server is connected.
    pub connected: bool,
    /// After the migration it goes on copying changes, in the state `SYNCING`.
    pub syncing: bool,
    /// `LINUX` or `WINDOWS`.
    pub os_type: String,
    /// The size of the source's disks in bytes.
    pub bytes: u64,
    /// How much is done at first, in thousandths.
    pub done: u16,
    /// The length of the whole run; `None` is the cloud's own.
    pub run_duration: Option<Duration>,
    /// How a run ends.
    pub run_end: RunEnd,
    /// Its peculiarities.
    pub switches: TaskSwitches,
}

impl SmsSpec {
    /// An ordinary task of a connected Linux server with 40 GB.
    pub fn new(name: &str, state: &str) -> Self {
        Self {
            name: name.to_owned(),
            state: state.to_owned(),
            source_state: None,
            connected: true,
            syncing: false,
            os_type: "LINUX".to_owned(),
            bytes: 42_949_672_960,
            done: 0,
            run_duration: None,
            run_end: RunEnd::Success,
            switches: TaskSwitches::default(),
        }
    }
}

/// A change of state that comes by itself.
#[derive(Clone, Copy, Debug)]
struct Due {
    at: i64,
    state: &'static str,
}

/// A source server that is still at work although its task came to rest.
#[derive(Clone, Copy, Debug)]
struct Lag {
    until: i64,
    polls: u32,
}

/// A task of SMS.
#[derive(Clone, Debug)]
pub(in crate::sandbox) struct SmsTask {
    pub(in crate::sandbox) id: String,
    pub(in crate::sandbox) name: String,
    pub(in crate::sandbox) state: String,
    pub(in crate::sandbox) switches: TaskSwitches,
    pub(super) source_id: String,
    pub(super) source_state: String,
    pub(super) connected: bool,
    pub(super) serial: u32,
    pub(super) os_type: String,
    pub(super) bytes: u64,
    pub(super) region: String,
    pub(super) project_id: String,
    pub(super) syncing: bool,
    pub(super) created: i64,
    pub(super) started: Option<i64>,
    pub(super) finished: Option<i64>,
    pub(super) run: Run,
    run_end: RunEnd,
    due: Option<Due>,
    rested_at: i64,
    lag: Option<Lag>,
    late: Option<(String, u32)>,
}

impl SmsTask {
    pub(super) fn new(serial: u32, spec: SmsSpec, options: &CloudOptions, now: i64) -> Self {
        let mut run = Run::new(spec.run_duration.unwrap_or(options.run_duration));
        run.set_done(i64::from(spec.done.min(1000)));
        let mut task = Self {
            id: format!("7a9a9540-ff28-4869-b9e4-{serial:012x}"),
            name: spec.name,
            state: spec.state,
            switches: spec.switches,
            source_id: format!("621f2cb5-ba4f-4819-b00d-{serial:012x}"),
            source_state: "waiting".to_owned(),
            connected: spec.connected,
            serial,
            os_type: spec.os_type,
            bytes: spec.bytes,
            region: options.account.region.clone(),
            project_id: options.account.project_id.clone(),
            syncing: spec.syncing,
            created: now - 60_000,
            started: None,
            finished: None,
            run,
            run_end: spec.run_end,
            due: None,
            rested_at: now,
            lag: None,
            late: None,
        };
        if task.state != "READY" {
            task.started = Some(now - task.run.elapsed(now));
        }
        let state = task.state.clone();
        task.set_state(&state, now);
        if let Some(delay) = task.switches.delete_delay.filter(|_| state == "DELETING") {
            task.due = Some(Due {
                at: now + millis(delay),
                state: GONE,
            });
        }
        if let Some(source_state) = spec.source_state {
            task.source_state = source_state;
        }
        task
    }

    /// Sets the state from outside, and that of the source with it. It holds until somebody calls,
    /// except running, which goes on to its end.
    pub(in crate::sandbox) fn set_state(&mut self, state: &str, now: i64) {
        self.late = None;
        self.due = None;
        self.lag = None;
        if state == "RUNNING" && self.run.is_done(now) {
            self.run.restart();
        }
        self.enter(state, now);
    }

    /// Sets the source server's state alone.
    pub(in crate::sandbox) fn set_source(&mut self, state: &str, connected: bool, now: i64) {
        self.lag = None;
        state.clone_into(&mut self.source_state);
        self.connected = connected;
        // An agent that came back finds the stop command that waits for it.
        if connected && self.state == "ABORTING" && self.due.is_none() && self.waits_for_agent() {
            self.due = Some(Due {
                at: now,
                state: "ABORT",
            });
        }
    }

    fn waits_for_agent(&self) -> bool {
        self.switches.after_stop == AfterStop::Paused
    }

    pub(super) fn is_gone(&self) -> bool {
        self.state == GONE
    }

    /// Brings the task and its source server to this moment.
    pub(super) fn settle(&mut self, now: i64) {
        while let Some(due) = self.next().filter(|due| due.at <= now) {
            self.due = None;
            self.enter(due.state, due.at);
        }
        let over = |lag: &Lag| lag.polls == 0 && lag.until <= now;
        if self.state == "ABORT" && self.lag.as_ref().is_some_and(over) {
            self.lag = None;
            "stopped".clone_into(&mut self.source_state);
        }
    }

    fn next(&self) -> Option<Due> {
        let end = self.run.ends_at().filter(|_| self.state == "RUNNING");
        let end = end.map(|at| Due {
            at,
            state: match (self.run_end, self.syncing) {
                (RunEnd::Failure, _) => "MIGRATE_FAIL",
                (RunEnd::Success, true) => "SYNCING",
                (RunEnd::Success, false) => "MIGRATE_SUCCESS",
            },
        });
        match (self.due, end) {
            (Some(due), Some(end)) => Some(if due.at <= end.at { due } else { end }),
            (due, end) => due.or(end),
        }
    }

    fn enter(&mut self, state: &str, at: i64) {
        state.clone_into(&mut self.state);
        let source = match state {
            "READY" => "waiting",
            "RUNNING" => "replicate",
            "SYNCING" => "syncing",
            "ABORTING" => "stopping",
            "ABORT" => "stopped",
            "MIGRATE_SUCCESS" | "SYNC_SUCCESS" => "finished",
            "MIGRATE_FAIL" | "SYNC_FAIL" => "error",
            "SKIPPING" => "skipping",
            "DELETING" => "deleting",
            _ => self.source_state.as_str(),
        };
        // A source that lags behind keeps its own state until it has caught up.
        let behind = self.lag.is_some() && matches!(state, "ABORTING" | "ABORT");
        if !behind {
            self.source_state = source.to_owned();
            self.lag = None;
        }
        if state == "RUNNING" {
            self.started.get_or_insert(at);
            self.run.begin(at);
        } else {
            self.run.pause(at);
        }
        match state {
            "ABORT" => self.rest(at),
            "SYNCING" => self.run.finish(),
            "MIGRATE_SUCCESS" | "SYNC_SUCCESS" => {
                self.run.finish();
                self.finished = Some(at);
            }
            _ => {}
        }
    }

    fn rest(&mut self, at: i64) {
        self.rested_at = at;
        if let Some(lag) = &mut self.lag {
            lag.until = at + millis(self.switches.source_lag);
        }
    }

    pub(super) fn stop(&mut self, options: &CloudOptions, now: i64) -> Result<(), Refusal> {
        if !matches!(self.state.as_str(), "RUNNING" | "SYNCING") {
            return Err(Refusal::NotRunning);
        }
        if TaskSwitches::take(&mut self.switches.ignore_stops) {
            return Ok(());
        }
        self.be_late();
        let lags = self.switches.source_lag_polls > 0 || !self.switches.source_lag.is_zero();
        self.lag = lags.then_some(Lag {
            until: i64::MAX,
            polls: self.switches.source_lag_polls,
        });
        self.enter("ABORTING", now);
        let at = now + millis(self.switches.pause_delay.unwrap_or(options.pause_delay));
        let ends = |state| Some(Due { at, state });
        self.due = match self.switches.after_stop {
            // The stop is a command that the agent fetches; without one it waits for ever.
            AfterStop::Paused if !self.connected => None,
            AfterStop::Paused => ends("ABORT"),
            AfterStop::Succeeded => ends("MIGRATE_SUCCESS"),
            AfterStop::Failed => ends("MIGRATE_FAIL"),
            AfterStop::Stuck => None,
        };
        Ok(())
    }

    pub(super) fn start(&mut self, now: i64) -> Result<(), Refusal> {
        match self.state.as_str() {
            "READY" | "ABORT" | "MIGRATE_FAIL" | "SYNC_FAIL" | "SYNC_F_ROLLBACK_SUCCESS" => {
                self.go(now);
                Ok(())
            }
            _ => Err(Refusal::NotPaused),
        }
    }

    pub(super) fn restart(&mut self, now: i64) -> Result<(), Refusal> {
        match self.state.as_str() {
            "MIGRATE_FAIL" | "SYNC_FAIL" => {
                self.go(now);
                Ok(())
            }
            _ => Err(Refusal::NotFailed),
        }
    }

    fn go(&mut self, now: i64) {
        if TaskSwitches::take(&mut self.switches.ignore_starts) {
            return;
        }
        self.be_late();
        self.lag = None;
        self.due = None;
        // A failed migration begins again; only the copying of changes follows a migration that is
        // done.
        let syncs = self.syncing && self.run.is_done(now) && self.state != "MIGRATE_FAIL";
        if syncs {
            self.enter("SYNCING", now);
        } else {
            if self.run.is_done(now) {
                self.run.restart();
            }
            self.started = Some(now);
            self.enter("RUNNING", now);
        }
    }

    /// The gate is the source server: connected and busy, it refuses. The task's own state does not
    /// matter.
    pub(super) fn check_delete(&mut self, now: i64) -> Result<(), Refusal> {
        let busy = self.connected && BUSY_SOURCES.contains(&self.source_state.as_str());
        let resting = self.state == "ABORT";
        let until = self.rested_at + millis(self.switches.refuse_deletes_for);
        let refuses =
            resting && (TaskSwitches::take(&mut self.switches.refuse_deletes) || now < until);
        if busy || refuses {
            Err(Refusal::Gate)
        } else {
            Ok(())
        }
    }

    pub(super) fn delete(&mut self, options: &CloudOptions, now: i64) {
        let delay = self.switches.delete_delay.unwrap_or(options.delete_delay);
        self.late = None;
        if self.state == "DELETING" && self.due.is_some() {
            return;
        }
        self.enter("DELETING", now);
        self.due = Some(Due {
            at: now + millis(delay),
            state: GONE,
        });
    }

    fn be_late(&mut self) {
        let polls = self.switches.late_polls;
        self.late = (polls > 0).then(|| (self.state.clone(), polls));
    }

    /// The state that a read shows.
    pub(in crate::sandbox) fn shown_state(&self) -> &str {
        self.late.as_ref().map_or(&self.state, |(state, _)| state)
    }

    /// Counts a read.
    pub(super) fn count_poll(&mut self) {
        if let Some((_, left)) = &mut self.late {
            *left -= 1;
            if *left == 0 {
                self.late = None;
            }
        }
        if let Some(lag) = self.lag.as_mut().filter(|_| self.state == "ABORT") {
            lag.polls = lag.polls.saturating_sub(1);
        }
    }
}
