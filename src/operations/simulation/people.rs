//! Callers: they ask, wait, repeat, and change their minds.

use std::{rc::Rc, sync::Arc, time::Duration};

use super::{Scene, SharedScene, process::Process, world::TASKS_OF_INTEREST};
use crate::{
    domain::{
        access::TaskNames,
        decide::Sight,
        history::Change,
        operation::{Goal, OperationId, Status},
        secret::Secret,
        service::{CallerName, CredentialName},
        start::{StartRequest, StorageCredential, StorageKeys},
        store::IdempotencyKey,
    },
    operations::{Accepted, Ask, AskError, Cancellation},
};

/// Somebody asks for something in a process that takes requests.
pub(super) fn ask(scene: &SharedScene, process: &Process) {
    if process.is_stopping() {
        return;
    }
    let ask = scene.lock().unwrap().wish();
    let (operations, services) = (process.operations.clone(), Rc::clone(&process.services));
    let scene = Arc::clone(scene);
    process.run(async move {
        let answer = operations.start(&services, &ask).await;
        let wait = scene.lock().unwrap().check_answer(&ask, &answer);
        if let (Ok(accepted), Some(wait)) = (answer, wait) {
            // What is answered here is what is on record, which is checked there.
            let _shown = operations.wait(accepted.operation.id, wait).await;
        }
    });
}

/// Somebody asks for something, thinks better of it when it is on its way, and wants the opposite.
pub(super) fn change_mind(scene: &SharedScene, process: &Process) {
    if process.is_stopping() {
        return;
    }
    let (first, then, cancels) = {
        let mut scene = scene.lock().unwrap();
        let goals = if scene.rng.bool() {
            [Goal::Running, Goal::Paused]
        } else {
            [false, true].map(|force| Goal::Absent { force })
        };
        let index = scene.a_task_at_rest();
        let [first, then] = goals.map(|goal| scene.wish_of(index, goal));
        (first, then, scene.rng.bool())
    };
    let (operations, services) = (process.operations.clone(), Rc::clone(&process.services));
    let scene = Arc::clone(scene);
    process.run(async move {
        let answer = operations.start(&services, &first).await;
        let Ok(accepted) = &answer else { return };
        scene.lock().unwrap().check_answer(&first, &answer);
        for _ in 0..50 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            if scene.lock().unwrap().is_sending(&first) {
                break;
            }
        }
        if cancels {
            // Whether it came too late is nothing to whoever wants something else.
            let _ended = operations.cancel(accepted.operation.id).await;
        }
        let answer = operations.start(&services, &then).await;
        scene.lock().unwrap().check_answer(&then, &answer);
    });
}

/// Somebody cancels something.
pub(super) fn cancel(scene: &SharedScene, process: &Process) {
    let id = {
        let mut scene = scene.lock().unwrap();
        let running: Vec<OperationId> = scene
            .records
            .all()
            .filter(|one| one.status == Status::Running)
            .map(|one| one.id)
            .collect();
        let Some(id) = scene.rng.choice(running) else {
            return;
        };
        id
    };
    let operations = process.operations.clone();
    let scene = Arc::clone(scene);
    process.run(async move {
        let answer = operations.cancel(id).await;
        let mut scene = scene.lock().unwrap();
        match answer {
            Ok(Cancellation::Ended(operation)) => {
                if operation.status == Status::Running || scene.records.is_running(id) {
                    scene.blame(format!("{id} runs on though it was said to have ended"));
                }
            }
            Ok(Cancellation::TooLate(operation)) => {
                if !operation.history.was_sent(Change::Delete) {
                    scene.blame(format!("{id} cannot be cancelled though it sent no delete"));
                }
            }
            Ok(Cancellation::Unknown) | Err(_) => {}
        }
    });
}

impl Scene {
    fn a_task(&mut self) -> usize {
        let latest = self.world.tasks.len().saturating_sub(TASKS_OF_INTEREST);
        self.rng.usize(latest..self.world.tasks.len())
    }

    pub(super) fn a_task_at_rest(&mut self) -> usize {
        let tasks = self.world.tasks.iter().enumerate();
        let is_at_rest = |sight: Sight| sight.stage.is_at_rest();
        let at_rest: Vec<usize> = tasks
            .filter(|(_, task)| task.sight.is_some_and(is_at_rest))
            .map(|(index, _)| index)
            .collect();
        self.rng.choice(at_rest).unwrap_or_else(|| self.a_task())
    }

    /// Whether what is asked for is on its way to the vendor.
    fn is_sending(&mut self, ask: &Ask) -> bool {
        let change = match ask.goal {
            Goal::Running => Change::Start,
            Goal::Paused => Change::Pause,
            Goal::Absent { .. } => Change::Delete,
        };
        let mut tasks = self.world.tasks.iter();
        let index = tasks.position(|task| task.reference == ask.task);
        let number = self.world.sendings.len();
        let is_sending = index.is_some_and(|index| self.is_on_its_way(index, change, number));
        if is_sending {
            self.count("change of mind");
        }
        is_sending
    }

    fn wish(&mut self) -> Ask {
        let index = self.a_task();
        let goal = match self.rng.u8(..10) {
            0..4 => Goal::Absent { force: true },
            4..6 => Goal::Absent { force: false },
            6..8 => Goal::Paused,
            _ => Goal::Running,
        };
        self.wish_of(index, goal)
    }

    pub(super) fn wish_of(&mut self, index: usize, goal: Goal) -> Ask {
        let task = self.world.tasks[index].reference.clone();
        let is_inline = self.rng.bool();
        let start = (goal == Goal::Running && task.service.as_str() == "oms").then(|| {
            let credential = if is_inline {
                StorageCredential::Inline(StorageKeys {
                    access_key: Secret::new("access"),
                    secret_key: Secret::new("secret"),
                    security_token: None,
                })
            } else {
                StorageCredential::Named(CredentialName::parse("bucket").unwrap())
            };
            StartRequest {
                source: None,
                destination: Some(credential),
                migrate_failed_objects: false,
            }
        });
        let key = (self.rng.u8(..3) == 0).then(|| IdempotencyKey {
            key: format!("key-{}-{}", task.id, self.rng.u8(..6)),
            fingerprint: format!("{goal:?} {}", start.is_some() && is_inline),
        });
        let caller = ["ann", "bob", "eve"][self.rng.usize(..3)];
        self.note(|| {
            format!(
                "{caller} wants task {} to be {goal:?}, key {key:?}",
                task.id
            )
        });
        Ask {
            caller: CallerName::parse(caller).unwrap(),
            names: TaskNames::all(),
            task,
            goal,
            start,
            key,
            running_max: u32::MAX,
            auditor: None,
        }
    }

    /// How long the caller waits for the end, if at all.
    fn check_answer(&mut self, ask: &Ask, answer: &Result<Accepted, AskError>) -> Option<Duration> {
        match answer {
            Ok(accepted) => {
                self.check_accepted(ask, accepted);
                let wait = self.rng.u64(..60);
                (wait < 30).then(|| Duration::from_secs(wait))
            }
            Err(AskError::Conflict(running)) => {
                if running.task != ask.task {
                    self.blame(format!("{} is in the way of another task", running.id));
                }
                None
            }
            Err(AskError::NotOffered) => {
                self.blame("the service is offered".to_owned());
                None
            }
            Err(error) => {
                self.note(|| format!("{} is told: {error}", ask.caller));
                None
            }
        }
    }

    fn check_accepted(&mut self, ask: &Ask, accepted: &Accepted) {
        let operation = &accepted.operation;
        let id = operation.id;
        let serves = operation.goal == ask.goal
            || (operation.goal == Goal::Absent { force: true }
                && ask.goal == Goal::Absent { force: false });
        if !serves || operation.task != ask.task {
            self.blame(format!("{id} is not what was asked for"));
        }
        if !self.deeds.contains_key(&id) {
            self.blame(format!("{id} is not on record"));
        }
        let knows = |caller| {
            operation.callers.contains(caller)
                || self
                    .records
                    .all()
                    .any(|one| one.id == id && one.callers.contains(caller))
        };
        if !accepted.is_replayed && self.records.is_running(id) && !knows(&ask.caller) {
            self.blame(format!("{} is not among the callers of {id}", ask.caller));
        }
        if accepted.is_replayed {
            self.count("replayed");
        } else if operation.version > 1 || operation.requested_by != ask.caller {
            self.count("joined");
        }
        let Some(key) = &ask.key else { return };
        let before = self.keys.insert((ask.caller.clone(), key.key.clone()), id);
        let is_on_record =
            before.is_some_and(|known| self.records.all().any(|one| one.id == known));
        if before != Some(id) && is_on_record {
            self.blame(format!(
                "key {} stands for {id} and for {before:?}",
                key.key
            ));
        }
    }
}
