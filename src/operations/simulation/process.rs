//! A process: an engine, the requests of its callers, and everything that they keep in memory. It
//! can die, and it can stand still.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::{
    task::{LocalSet, spawn_local},
    time::Instant,
};

use super::{SharedScene, SimulatedClock, exchange::Vendor, store::Store};
use crate::{
    domain::service::{Binding, BoundService, ServiceName, ServiceTraits, Services},
    operations::{
        Operations, Settings,
        board::Economy,
        engine::Loop,
        metrics::{Look, Metrics},
    },
};

/// Lists serve a few operations already, for callers ask for a few tasks only; and a page is short,
/// so that a reading has several.
const ECONOMY: Economy = Economy {
    from: 2,
    down_to: 2,
    operations_per_page: 1,
};
const PAGE_LIMIT: u32 = 2;

pub(super) struct Process {
    scene: SharedScene,
    pub(super) number: usize,
    pub(super) operations: Operations,
    /// How its callers' requests see the vendor.
    pub(super) services: Rc<Services>,
    memory: Rc<Memory>,
    over_at: Cell<Option<Instant>>,
    thaw_at: Cell<Option<Instant>>,
}

/// All that runs in a process; it is gone in a moment when the process dies.
#[derive(Default)]
struct Memory {
    tasks: RefCell<Option<LocalSet>>,
    is_frozen: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// Runs what is in a process's memory, as long as the process moves.
struct Run(Rc<Memory>);

impl Future for Run {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.waker.replace(Some(context.waker().clone()));
        match &mut *self.0.tasks.borrow_mut() {
            None => Poll::Ready(()),
            Some(_) if self.0.is_frozen.get() => Poll::Pending,
            Some(tasks) => {
                let _idle = Pin::new(tasks).poll(context);
                Poll::Pending
            }
        }
    }
}

impl Process {
    pub(super) fn boot(scene: &SharedScene, settings: &Settings, number: usize) -> Self {
        scene
            .lock()
            .unwrap()
            .note(|| format!("process {number} begins"));
        let operations = Operations::new(
            settings.clone(),
            Arc::new(Store::new(scene, number)),
            None,
            Arc::new(SimulatedClock::new(scene)),
            Metrics::default(),
        );
        let owner = operations.0.owner.clone();
        let memory = Rc::new(Memory::default());
        let tasks = LocalSet::new();
        let engine = Loop::new(
            Arc::clone(&operations.0),
            services(scene, (number, &owner), true),
            ECONOMY,
        );
        tasks.spawn_local(engine.run());
        let others = operations.clone();
        tasks.spawn_local(async move { others.follow_others().await });
        memory.tasks.replace(Some(tasks));
        spawn_local(Run(Rc::clone(&memory)));
        Self {
            scene: Arc::clone(scene),
            number,
            operations,
            services: Rc::new(services(scene, (number, &owner), false)),
            memory,
            over_at: Cell::new(None),
            thaw_at: Cell::new(None),
        }
    }

    /// Lets somebody in the process do something.
    pub(super) fn run(&self, doing: impl Future<Output = ()> + 'static) {
        if let Some(tasks) = &*self.memory.tasks.borrow() {
            tasks.spawn_local(doing);
        }
    }

    pub(super) fn freeze(&self, length: Duration) {
        self.memory.is_frozen.set(true);
        self.thaw_at.set(Some(Instant::now() + length));
    }

    pub(super) fn thaw_if_due(&self) {
        if self.thaw_at.get().is_some_and(|at| at <= Instant::now()) {
            self.thaw();
        }
    }

    pub(super) fn thaw(&self) {
        self.thaw_at.set(None);
        self.memory.is_frozen.set(false);
        self.memory.wake();
    }

    /// Asks it to stop; it is killed after a while.
    pub(super) fn stop(&self, grace: Duration) {
        self.operations.drain();
        self.over_at.set(Some(Instant::now() + grace));
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.over_at.get().is_some()
    }

    pub(super) fn is_over(&self) -> bool {
        self.over_at.get().is_some_and(|at| at <= Instant::now())
    }

    /// What should not be there when everything is at rest.
    pub(super) fn leftovers(&self) -> Option<String> {
        let shared = &self.operations.0;
        let what = if !shared.inline_keys.is_empty() {
            "keeps the keys of an operation that has ended"
        } else if !shared.endings.is_empty() {
            "waits for an end that nobody waits for"
        } else {
            return None;
        };
        Some(format!("process {} {what}", self.number))
    }
}

impl Memory {
    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let looks = &self.operations.0.metrics.looks;
        for service in ["oms", "sms"].map(str::to_owned) {
            let by_rows = looks
                .get_or_create(&Look {
                    service,
                    by: "board",
                })
                .get();
            let mut scene = self.scene.lock().unwrap();
            for _ in 0..by_rows {
                scene.count("wait by a row");
            }
        }
        let tasks = self.memory.tasks.take();
        drop(tasks);
        self.memory.wake();
    }
}

fn services(scene: &SharedScene, (process, owner): (usize, &str), is_engine: bool) -> Services {
    let binding = Binding {
        project_id: "id".to_owned(),
        region: "region".to_owned(),
        endpoint: "endpoint".to_owned(),
    };
    let bound = scene
        .lock()
        .unwrap()
        .world
        .tasks
        .iter()
        .map(|task| {
            let vendor = Vendor {
                scene: Arc::clone(scene),
                service: task.reference.service.clone(),
                process,
                owner: owner.to_owned(),
                is_engine,
            };
            let service = BoundService {
                port: Rc::new(vendor),
                binding: binding.clone(),
            };
            (
                (
                    task.reference.project.clone(),
                    task.reference.service.clone(),
                ),
                service,
            )
        })
        .collect::<HashMap<_, _>>();
    let traits = |name| ServiceTraits {
        name: ServiceName::parse(name).unwrap(),
        owns: |_| true,
        accepts: |_| true,
        page_limit: PAGE_LIMIT,
        offset_limit: u64::MAX,
        start_needs_credentials: false,
    };
    Services::new(["oms", "sms"].map(traits).into(), bound)
}
