//! A vendor in memory: tasks that live, change and go by themselves, exchanges that are slow, fail
//! and lie.
//!
//! Whatever has a moment of its own (a request on its way, a pause that completes, a person at the
//! vendor's console) is an event in one queue, and is carried out before anybody looks. A request
//! goes on its way even if its sender dies.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::task::Id;

use super::{Mischief, Scene, exchange::Plan, ledger};
use crate::{
    domain::{
        decide::{Seen, Sight},
        history::Change,
        service::{
            ProjectName, Receipt, Sent, ServiceName, UpstreamError, UpstreamErrorKind as Kind,
        },
        task::{DeleteGate, Stage, TaskId, TaskRef},
    },
    operations::later,
};

/// Callers ask for one of so many tasks that were set up last.
pub(super) const TASKS_OF_INTEREST: usize = 5;

/// One task as it truly is, and how the vendor shows it.
pub(super) struct VendorTask {
    pub(super) reference: TaskRef,
    /// `None`: it is gone.
    pub(super) sight: Option<Sight>,
    is_sms: bool,
    /// Whether somebody starts it whenever it is paused.
    is_restless: bool,
    /// Grows with every change, so that what was to follow from an earlier stage does not.
    epoch: u32,
    /// Until when looks show what was before.
    lag: Option<(Timestamp, Sight)>,
    unknown_until: Timestamp,
    /// Whether it was shown as gone although it was there: once, and only while no delete could
    /// explain it.
    has_hidden: bool,
    /// Until when something stood in the way of whoever wants something of it.
    pub(super) hindered_until: Timestamp,
}

/// A request that changes something, from the moment it was sent.
pub(super) struct Sending {
    pub(super) task: usize,
    pub(super) change: Change,
    /// When its sender is answered or gives up, if it lives.
    pub(super) over_at: Timestamp,
    /// The process that sent it.
    pub(super) by: usize,
    pub(super) plan: Plan,
    /// What the vendor answers; `None` as long as it has not arrived.
    pub(super) answer: Option<Result<Receipt, UpstreamError>>,
    /// Whether its sender had given up before there was an answer.
    pub(super) is_given_up: bool,
}

impl Sending {
    pub(super) fn has_arrived(&self) -> bool {
        self.answer.is_some()
    }

    /// Whether its sender was told that it was accepted.
    pub(super) fn is_accepted(&self) -> bool {
        !self.is_given_up && matches!(self.answer, Some(Ok(_)))
    }

    /// Whether its sender was told that it surely had no effect.
    pub(super) fn is_refused(&self) -> bool {
        !self.is_given_up && matches!(&self.answer, Some(Err(error)) if !error.may_have_changed())
    }
}

#[derive(Clone, Copy)]
pub(super) enum Event {
    Arrival(usize),
    Next(usize, u32, Option<Stage>),
    Nature(usize),
}

#[derive(Default)]
pub(super) struct World {
    pub(super) tasks: Vec<VendorTask>,
    events: BTreeMap<(Timestamp, u64), Event>,
    number: u64,
    pub(super) sendings: Vec<Sending>,
    /// What the look of each round showed.
    pub(super) looks: HashMap<Id, Seen>,
    /// When it was answered.
    pub(super) looked_at: HashMap<Id, Instant>,
    /// How likely an exchange fails.
    pub(super) fault_rate: f64,
    /// How, if all in the same way.
    pub(super) fault: Option<Kind>,
    /// Whether each exchange takes as long as one can.
    pub(super) hangs: bool,
}

impl Scene {
    /// Somebody sets up a task, of the two services in turn.
    pub(super) fn add_task(&mut self) {
        let number = self.world.tasks.len();
        let is_sms = number % 2 == 1;
        let reference = TaskRef {
            project: ProjectName::parse("project").unwrap(),
            service: ServiceName::parse(if is_sms { "sms" } else { "oms" }).unwrap(),
            id: TaskId::parse(&format!("task-{number}")).unwrap(),
        };
        let stages: &[Stage] = if is_sms {
            &[
                Stage::Ready,
                Stage::Running,
                Stage::Running,
                Stage::Busy,
                Stage::Paused,
                Stage::Failed,
                Stage::Succeeded,
            ]
        } else {
            &[
                Stage::Initialising,
                Stage::Queued,
                Stage::Running,
                Stage::Running,
                Stage::Paused,
                Stage::Failed,
                Stage::Succeeded,
            ]
        };
        let stage = stages[self.rng.usize(..stages.len())];
        let gates = [
            DeleteGate::Open,
            DeleteGate::Open,
            DeleteGate::Closed,
            DeleteGate::Offline,
        ];
        let gate = gates[if is_sms { self.rng.usize(..4) } else { 0 }];
        let is_restless = self.rng.u8(..6) == 0;
        let now = self.now();
        let index = self.world.tasks.len();
        self.world.tasks.push(VendorTask {
            reference,
            sight: Some(Sight {
                stage,
                gate,
                started_at: self.rng.bool().then_some(now),
            }),
            is_sms,
            is_restless,
            epoch: 0,
            lag: None,
            unknown_until: now,
            has_hidden: false,
            hindered_until: now,
        });
        self.set(index, Some(stage));
        let wait = Duration::from_secs(self.rng.u64(5..120));
        self.schedule(wait, Event::Nature(index));
    }

    /// Sets up another task if one of the latest is gone, so that there is something to do.
    pub(super) fn replace_a_task(&mut self) {
        let latest = self.world.tasks.iter().rev().take(TASKS_OF_INTEREST);
        if latest.filter(|task| task.sight.is_none()).count() > 1 {
            self.add_task();
        }
    }

    pub(super) fn schedule(&mut self, wait: Duration, event: Event) {
        let at = later(self.now(), wait);
        self.world.number += 1;
        self.world.events.insert((at, self.world.number), event);
    }

    /// Carries out whatever has become due.
    pub(super) fn catch_up(&mut self) {
        let now = self.now();
        while let Some(entry) = self.world.events.first_entry() {
            if entry.key().0 > now {
                return;
            }
            match entry.remove() {
                Event::Arrival(sending) => self.arrive(sending),
                Event::Next(task, epoch, stage) => {
                    if self.world.tasks[task].epoch == epoch {
                        self.set(task, stage);
                    }
                }
                Event::Nature(task) => self.live(task),
            }
        }
    }

    /// Puts a task into a stage, from which the next may follow by itself.
    fn set(&mut self, index: usize, stage: Option<Stage>) {
        self.note(|| format!("vendor: task {index} is {stage:?}"));
        let now = self.now();
        let task = &mut self.world.tasks[index];
        task.epoch += 1;
        let (epoch, task_is_restless) = (task.epoch, task.is_restless);
        let Some(stage) = stage else {
            task.sight = None;
            return;
        };
        let Some(sight) = &mut task.sight else { return };
        sight.stage = stage;
        let gate = sight.gate;
        let is_restless = task_is_restless && !self.is_calm;
        let longest = if is_restless { 4 } else { 60 };
        let wait = Duration::from_secs(self.rng.u64(1..longest));
        let next = match stage {
            Stage::Paused if is_restless => Some(Stage::Running),
            Stage::Initialising => Some(Stage::Queued),
            Stage::Queued | Stage::Busy => Some(Stage::Running),
            Stage::Pausing if gate == DeleteGate::Offline => return,
            Stage::Pausing => Some(Stage::Paused),
            Stage::Deleting => None,
            Stage::Running if !self.is_calm && self.rng.u8(..6) == 0 => Some(Stage::Failed),
            Stage::Running
            | Stage::Ready
            | Stage::Paused
            | Stage::Failed
            | Stage::Succeeded
            | Stage::Unknown => {
                return;
            }
        };
        self.hinder(index, later(now, wait));
        self.schedule(wait, Event::Next(index, epoch, next));
    }

    pub(super) fn hinder(&mut self, task: usize, until: Timestamp) {
        let hindered = &mut self.world.tasks[task].hindered_until;
        *hindered = until.max(*hindered);
    }

    /// Something that nobody here asked for.
    fn live(&mut self, index: usize) {
        if self.is_calm {
            return;
        }
        let now = self.now();
        let wait = Duration::from_secs(self.rng.u64(5..240));
        self.schedule(wait, Event::Nature(index));
        self.hinder(index, now);
        let is_sms = self.world.tasks[index].is_sms;
        let Some(Sight { stage, .. }) = self.world.tasks[index].sight else {
            return;
        };
        match (self.rng.u8(..12), stage) {
            (0, _) => {
                let until = later(now, Duration::from_secs(self.rng.u64(1..60)));
                self.world.tasks[index].unknown_until = until;
                self.hinder(index, until);
            }
            (1..=3, _) if is_sms => self.turn_gate(index),
            (4, Stage::Running) => self.set(index, Some(Stage::Succeeded)),
            (5, Stage::Running) => self.set(index, Some(Stage::Failed)),
            (6, Stage::Running) if is_sms => self.set(index, Some(Stage::Busy)),
            (7 | 8, Stage::Running) => self.set(index, Some(Stage::Pausing)),
            (7..=9, Stage::Ready | Stage::Paused | Stage::Failed) => self.begin(index),
            (10, _) if self.rng.u8(..4) == 0 => self.set(index, None),
            _ => {}
        }
    }

    fn turn_gate(&mut self, index: usize) {
        let gates = [DeleteGate::Open, DeleteGate::Closed, DeleteGate::Offline];
        let gate = gates[self.rng.usize(..3)];
        self.note(|| format!("vendor: the gate of task {index} is {gate:?}"));
        let stage = self.world.tasks[index].sight.as_mut().map(|sight| {
            sight.gate = gate;
            sight.stage
        });
        if stage == Some(Stage::Pausing) {
            self.set(index, stage);
        }
    }

    fn begin(&mut self, index: usize) {
        let now = self.now();
        let task = &mut self.world.tasks[index];
        let is_queued = !task.is_sms && self.rng.bool();
        if let Some(sight) = &mut task.sight {
            sight.started_at = Some(now);
        }
        self.set(
            index,
            Some(if is_queued {
                Stage::Queued
            } else {
                Stage::Running
            }),
        );
    }

    fn arrive(&mut self, number: usize) {
        let Sending {
            task: index,
            change,
            plan,
            by,
            ..
        } = self.world.sendings[number];
        let before = self.world.tasks[index].sight;
        let now = self.now();
        let answer = match (plan.fault, before) {
            (Some(kind), _) if !plan.has_effect => Err(self.error(kind, plan.sent)),
            (_, None) => Err(self.error(Kind::Gone, Sent::Yes)),
            (_, Some(sight)) if !takes(sight, change) => {
                let kind = if self.rng.bool() {
                    Kind::Refused
                } else {
                    Kind::StillInProgress
                };
                Err(self.error(kind, Sent::Yes))
            }
            (fault, Some(sight)) => {
                if plan.is_ignored {
                    self.hinder(index, now);
                } else {
                    self.carry_out(index, change, sight);
                }
                match fault {
                    Some(kind) => Err(self.error(kind, plan.sent)),
                    None => Ok(Receipt { request_id: None }),
                }
            }
        };
        self.note(|| {
            let said = answer.as_ref().map_err(|error| error.kind);
            let ignored = if plan.is_ignored { " (ignored)" } else { "" };
            format!("vendor: {change:?} of task {index} arrives: {said:?}{ignored}")
        });
        self.world.sendings[number].answer = Some(answer);
        if !self.is_calm && self.rng.u8(..40) == 0 {
            self.make_mischief(Mischief::Crash(by));
        }
    }

    fn carry_out(&mut self, index: usize, change: Change, before: Sight) {
        if !self.is_calm && self.rng.u8(..3) == 0 {
            let until = later(self.now(), Duration::from_secs(self.rng.u64(1..25)));
            self.world.tasks[index].lag = Some((until, before));
            self.hinder(index, until);
        }
        let lingers = self.world.tasks[index].is_sms || self.rng.bool();
        match change {
            Change::Pause => self.set(index, Some(Stage::Pausing)),
            Change::Start => self.begin(index),
            Change::Delete => self.set(index, lingers.then_some(Stage::Deleting)),
        }
    }

    /// What a look shows.
    pub(super) fn view(&mut self, index: usize) -> Option<Sight> {
        let now = self.now();
        let is_hidden = !self.is_calm
            && !self.world.tasks[index].has_hidden
            && !self.a_delete_is_on_record(index)
            && self.rng.u8(..12) == 0;
        let task = &mut self.world.tasks[index];
        if is_hidden {
            task.has_hidden = true;
            return None;
        }
        if let Some((until, sight)) = task.lag
            && now < until
        {
            return Some(sight);
        }
        let sight = task.sight?;
        let stage = if now < task.unknown_until {
            Stage::Unknown
        } else {
            sight.stage
        };
        Some(Sight { stage, ..sight })
    }
}

/// Whether the vendor carries out a change of a task that stands like this.
fn takes(sight: Sight, change: Change) -> bool {
    match change {
        Change::Pause => sight.stage == Stage::Running,
        Change::Start => matches!(sight.stage, Stage::Ready | Stage::Paused | Stage::Failed),
        Change::Delete => ledger::row_allows_delete(sight, true),
    }
}
