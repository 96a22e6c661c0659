//! Exchanges with the vendor in memory: slow, failing, before or after the effect, and ignored.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;

use super::{
    Scene, SharedScene,
    world::{Event, Sending},
};
use crate::{
    domain::{
        decide::{Seen, Sight},
        history::Change,
        service::{
            Clearance, MigrationService, Patience, Receipt, Sent, ServiceName, TaskPage,
            UpstreamError, UpstreamErrorKind as Kind,
        },
        start::StartRequest,
        task::{DeleteGate, Stage, Task, TaskId, TaskRef},
    },
    operations::later,
};

/// No exchange takes longer.
pub(super) const EXCHANGE_MAX: Duration = Duration::from_secs(30);

const FAULTS: [Kind; 13] = [
    Kind::CredentialsRefused,
    Kind::Forbidden,
    Kind::Refused,
    Kind::StillInProgress,
    Kind::Rejected,
    Kind::Throttled,
    Kind::CircuitOpen,
    Kind::Unavailable,
    Kind::Unavailable,
    Kind::Timeout,
    Kind::Timeout,
    Kind::Malformed,
    Kind::Malformed,
];

/// What is to go wrong with one exchange.
#[derive(Clone, Copy)]
pub(super) struct Plan {
    pub(super) there: Duration,
    pub(super) back: Duration,
    pub(super) fault: Option<Kind>,
    /// Whether the fault comes after the effect.
    pub(super) has_effect: bool,
    pub(super) sent: Sent,
    pub(super) is_ignored: bool,
}

/// How long after the look that it rests on a change may set out.
const LOOK_AGE_MAX: Duration = Duration::from_secs(5);

impl Scene {
    /// A change is begun before its look is old, or not at all.
    fn check_time_left(&mut self, by: Instant) {
        let round = tokio::task::try_id();
        let looked_at = round.and_then(|round| self.world.looked_at.get(&round));
        let age = looked_at.map(|at| by.saturating_duration_since(*at));
        if age.is_none_or(|age| age > LOOK_AGE_MAX) || by < this_instant() {
            self.blame(format!("a change may set out {age:?} after its look"));
        }
    }

    /// Whether all exchanges that fail do so in the same way, and in which.
    pub(super) fn pick_fault(&mut self) {
        let kind = FAULTS[self.rng.usize(..FAULTS.len())];
        self.world.fault = self.rng.bool().then_some(kind);
    }

    /// How long a change waits for the pace, and for whatever else it takes.
    fn plan_turn(&mut self, by: Instant) -> Duration {
        if self.is_calm || self.rng.u8(..4) > 0 {
            return Duration::ZERO;
        }
        let longest = by.saturating_duration_since(this_instant());
        longest.mul_f64(self.rng.f64())
    }

    fn plan(&mut self, index: usize, is_change: bool) -> Plan {
        let pace = if self.rng.u8(..12) == 0 && !self.is_calm {
            12_000
        } else {
            900
        };
        let mut plan = Plan {
            there: Duration::from_millis(self.rng.u64(10..pace)),
            back: Duration::from_millis(self.rng.u64(10..pace)),
            fault: None,
            has_effect: false,
            sent: if is_change { Sent::Yes } else { Sent::No },
            is_ignored: false,
        };
        if self.world.hangs {
            plan.there = EXCHANGE_MAX.saturating_sub(plan.back);
        }
        if self.is_calm {
            return plan;
        }
        plan.is_ignored = is_change && self.rng.u8(..8) == 0;
        if self.rng.f64() < self.world.fault_rate {
            self.hinder(index, self.now());
            let any = FAULTS[self.rng.usize(..FAULTS.len())];
            let kind = self.world.fault.unwrap_or(any);
            plan.fault = Some(kind);
            if is_change {
                self.plan_change(&mut plan, kind);
            } else if kind == Kind::Timeout {
                plan.there = EXCHANGE_MAX;
            }
        }
        plan
    }

    fn plan_change(&mut self, plan: &mut Plan, kind: Kind) {
        match kind {
            Kind::Timeout => {
                plan.sent = Sent::Unknown;
                plan.has_effect = self.rng.bool();
                // The vendor may act on it long after nobody waits any more.
                plan.there = Duration::from_secs(self.rng.u64(1..40));
                plan.back = EXCHANGE_MAX.saturating_sub(plan.there);
            }
            Kind::Unavailable | Kind::Malformed => {
                plan.has_effect = self.rng.bool();
                plan.sent = match self.rng.u8(..3) {
                    0 if !plan.has_effect => Sent::No,
                    1 => Sent::Unknown,
                    _ => Sent::Yes,
                };
            }
            Kind::CredentialsRefused | Kind::CredentialsResting | Kind::CircuitOpen => {
                plan.sent = Sent::No;
            }
            Kind::Forbidden
            | Kind::Refused
            | Kind::StillInProgress
            | Kind::Gone
            | Kind::Rejected
            | Kind::Throttled => {}
        }
    }

    pub(super) fn error(&mut self, kind: Kind, sent: Sent) -> UpstreamError {
        UpstreamError {
            kind,
            sent,
            retry_after: [Kind::Throttled, Kind::CircuitOpen]
                .contains(&kind)
                .then(|| Duration::from_secs(self.rng.u64(1..200))),
            answer: None,
            detail: format!("It is {}.", kind.as_str()),
        }
    }
}

/// The present moment of the simulation, for those who do not run in it.
fn this_instant() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Scene {
    /// What goes wrong with a page of the list is in the way of all who wait for a task in it.
    fn plan_list(&mut self, service: &ServiceName) -> Plan {
        let indices = self.listed(service);
        let plan = self.plan(indices.first().copied().unwrap_or(0), false);
        if plan.fault.is_some() {
            let now = self.now();
            for index in indices {
                self.hinder(index, now);
            }
        }
        plan
    }

    /// The tasks of a service, newest first.
    fn listed(&self, service: &ServiceName) -> Vec<usize> {
        let tasks = self.world.tasks.iter().enumerate().rev();
        let of_service = tasks.filter(|(_, task)| task.reference.service == *service);
        of_service.map(|(index, _)| index).collect()
    }

    fn page(&mut self, service: &ServiceName, offset: u64, limit: u32) -> TaskPage {
        let now = self.now();
        let mut rows = Vec::new();
        for index in self.listed(service) {
            let row = self.row(index);
            rows.extend(row.map(|sight| {
                let is_readable = self.is_calm || self.rng.u8(..12) > 0;
                is_readable.then(|| task(&self.world.tasks[index].reference, sight, now))
            }));
        }
        let total = rows.len() as u64;
        let offset = usize::try_from(offset).unwrap();
        let rows = rows.into_iter().skip(offset).take(limit as usize);
        TaskPage {
            rows: rows.collect(),
            total,
        }
    }

    /// What a row shows. It tells less than a look, and it lies more.
    fn row(&mut self, index: usize) -> Option<Sight> {
        let mut sight = self.view(index)?;
        if !self.is_calm && self.rng.u8(..10) == 0 {
            self.count("lie");
            self.hinder(index, self.now());
            sight.stage = Stage::ALL[self.rng.usize(..Stage::ALL.len())];
        }
        // As in the lists of that service.
        if self.world.tasks[index].reference.service.as_str() == "sms" {
            sight.gate = DeleteGate::Untold;
        }
        Some(sight)
    }
}

fn task(reference: &TaskRef, sight: Sight, observed_at: Timestamp) -> Task {
    Task {
        reference: reference.clone(),
        name: None,
        stage: sight.stage,
        gate: sight.gate,
        upstream_state: String::new(),
        progress: None,
        bytes: None,
        objects: None,
        bytes_per_second: None,
        remaining_seconds: None,
        started_at: sight.started_at,
        error: None,
        observed_at,
        details: serde_json::Value::Null,
    }
}

/// The vendor as one process sees it.
pub(super) struct Vendor {
    pub(super) scene: SharedScene,
    pub(super) service: ServiceName,
    pub(super) process: usize,
    /// The owner of its leases.
    pub(super) owner: String,
    /// Whether it is the engine that asks, not a request that is being accepted.
    pub(super) is_engine: bool,
}

impl Vendor {
    fn index(&self, id: &TaskId) -> usize {
        let scene = self.scene.lock().unwrap();
        scene
            .world
            .tasks
            .iter()
            .position(|task| task.reference.id == *id)
            .unwrap()
    }

    async fn send(
        &self,
        id: &TaskId,
        change: Change,
        clearance: &Clearance,
    ) -> Result<Receipt, UpstreamError> {
        let task = self.index(id);
        let turn = self.scene.lock().unwrap().plan_turn(clearance.by);
        tokio::time::sleep(turn).await;
        let (number, limit) = {
            let mut scene = self.scene.lock().unwrap();
            scene.catch_up();
            if !clearance.is_good(this_instant()) {
                return Err(scene.error(Kind::Throttled, Sent::No));
            }
            let plan = scene.plan(task, true);
            let limit = plan.there.saturating_add(plan.back).min(EXCHANGE_MAX);
            let number = scene.world.sendings.len();
            let over_at = later(scene.now(), limit);
            scene.world.sendings.push(Sending {
                task,
                change,
                over_at,
                by: self.process,
                plan,
                answer: None,
                is_given_up: false,
            });
            scene.check_sending(task, change, number, self.is_engine.then_some(&self.owner));
            scene.check_time_left(clearance.by);
            scene.schedule(plan.there, Event::Arrival(number));
            (number, limit)
        };
        tokio::time::sleep(limit).await;
        let mut scene = self.scene.lock().unwrap();
        scene.catch_up();
        if let Some(answer) = scene.world.sendings[number].answer.clone() {
            return answer;
        }
        scene.world.sendings[number].is_given_up = true;
        Err(scene.error(Kind::Timeout, Sent::Unknown))
    }
}

#[async_trait(?Send)]
impl MigrationService for Vendor {
    async fn show(&self, id: &TaskId) -> Result<Option<Task>, UpstreamError> {
        let index = self.index(id);
        let plan = self.scene.lock().unwrap().plan(index, false);
        tokio::time::sleep(plan.there).await;
        let (sight, now) = {
            let mut scene = self.scene.lock().unwrap();
            scene.catch_up();
            if let Some(kind) = plan.fault {
                return Err(scene.error(kind, Sent::No));
            }
            let sight = scene.view(index);
            scene.note(|| format!("process {}: looks at task {index}: {sight:?}", self.process));
            if let (true, Some(round)) = (self.is_engine, tokio::task::try_id()) {
                let seen = sight.map_or(Seen::Gone, Seen::Task);
                scene.world.looks.insert(round, seen);
            }
            (sight, scene.now())
        };
        tokio::time::sleep(plan.back).await;
        let mut scene = self.scene.lock().unwrap();
        if let Some(round) = tokio::task::try_id() {
            scene.world.looked_at.insert(round, this_instant());
        }
        let reference = &scene.world.tasks[index].reference;
        Ok(sight.map(|sight| task(reference, sight, now)))
    }

    /// Newest first, as of the moment at which the page is made: between two pages tasks come, go
    /// and change.
    async fn list(
        &self,
        offset: u64,
        limit: u32,
        _patience: &Patience,
    ) -> Result<TaskPage, UpstreamError> {
        let plan = self.scene.lock().unwrap().plan_list(&self.service);
        tokio::time::sleep(plan.there).await;
        let page = {
            let mut scene = self.scene.lock().unwrap();
            scene.catch_up();
            if let Some(kind) = plan.fault {
                scene.note(|| format!("process {}: a page of the list fails", self.process));
                return Err(scene.error(kind, Sent::No));
            }
            scene.count(if offset > 0 { "later page" } else { "page" });
            scene.page(&self.service, offset, limit)
        };
        tokio::time::sleep(plan.back).await;
        Ok(page)
    }

    async fn pause(&self, id: &TaskId, clearance: &Clearance) -> Result<Receipt, UpstreamError> {
        self.send(id, Change::Pause, clearance).await
    }

    async fn start(
        &self,
        id: &TaskId,
        _request: &StartRequest,
        clearance: &Clearance,
    ) -> Result<Receipt, UpstreamError> {
        self.send(id, Change::Start, clearance).await
    }

    async fn delete(&self, id: &TaskId, clearance: &Clearance) -> Result<Receipt, UpstreamError> {
        self.send(id, Change::Delete, clearance).await
    }
}
