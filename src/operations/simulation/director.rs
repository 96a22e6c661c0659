//! Makes things happen: processes begin, die, freeze and stop, callers ask, the weather changes; in
//! the end all is calm.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Mischief, SharedScene, exchange::EXCHANGE_MAX, people, process::Process};
use crate::{domain::task::DeleteGate, operations::Settings};

/// All is at rest after so many seconds without a running operation.
const REST: u64 = 150;

/// The one who makes things happen.
pub(super) struct Director {
    scene: SharedScene,
    settings: Settings,
    processes: Vec<Process>,
    booted: usize,
}

impl Director {
    pub(super) fn new(scene: SharedScene) -> Self {
        let settings = {
            let rng = &mut scene.lock().unwrap().rng;
            Settings {
                deadline: Duration::from_secs(rng.u64(120..720)),
                poll_min: Duration::from_millis(20 << rng.u8(..7)),
                poll_max: Duration::from_secs(rng.u64(3..15)),
                exchange_max: EXCHANGE_MAX,
                concurrency: rng.usize(3..8),
                history: Duration::from_secs(if rng.u8(..4) == 0 { 180 } else { 604_800 }),
            }
        };
        Self {
            scene,
            settings,
            processes: Vec::new(),
            booted: 0,
        }
    }

    fn random(&self, below: u64) -> u64 {
        self.scene.lock().unwrap().rng.u64(..below)
    }

    fn boot(&mut self) {
        self.booted += 1;
        let process = Process::boot(&self.scene, &self.settings, self.booted);
        self.processes.push(process);
    }

    pub(super) async fn play(&mut self) {
        self.boot();
        let length = Duration::from_secs(240 + self.random(720));
        let end = Instant::now() + length;
        let made = Arc::clone(&self.scene.lock().unwrap().mischief_made);
        while Instant::now() < end && self.scene.lock().unwrap().violation.is_none() {
            let wait = Duration::from_millis(self.random(12_000));
            tokio::select! {
                biased;
                () = made.notified() => {}
                () = tokio::time::sleep(wait) => self.step(),
            }
            self.make_mischief();
        }
        self.come_to_rest().await;
    }

    fn step(&mut self) {
        self.processes.retain(|process| !process.is_over());
        for process in &self.processes {
            process.thaw_if_due();
        }
        if self.processes.is_empty() {
            self.scene.lock().unwrap().disturb();
            if self.random(3) == 0 {
                self.boot();
            }
            return;
        }
        self.change_weather();
        let which = usize::try_from(self.random(self.processes.len() as u64)).unwrap();
        match self.random(100) {
            0..46 => people::ask(&self.scene, &self.processes[which]),
            46..54 => people::cancel(&self.scene, &self.processes[which]),
            54..57 => self
                .scene
                .lock()
                .unwrap()
                .mischief
                .push(Mischief::Crash(self.processes[which].number)),
            57..61 => self
                .scene
                .lock()
                .unwrap()
                .mischief
                .push(Mischief::Freeze(self.processes[which].number)),
            61..64 if self.processes.len() < 2 => self.boot(),
            64..66 => {
                let grace = Duration::from_secs(1 + self.random(40));
                self.processes[which].stop(grace);
                let number = self.processes[which].number;
                let mut scene = self.scene.lock().unwrap();
                scene.note(|| format!("process {number} is to stop"));
            }

            66..70 => self.scene.lock().unwrap().replace_a_task(),
            70..78 => people::change_mind(&self.scene, &self.processes[which]),
            _ => {}
        }
    }

    fn change_weather(&self) {
        let mut scene = self.scene.lock().unwrap();
        let rates = [0.0, 0.0, 0.03, 0.3, 0.8];
        if scene.rng.u8(..20) == 0 {
            scene.world.fault_rate = rates[scene.rng.usize(..5)];
            scene.pick_fault();
        }
        let is_bad = scene.records.fault_rate > 0.0;
        if scene.rng.u8(..if is_bad { 5 } else { 40 }) == 0 {
            let rates = [0.0, 0.05, 0.4, 1.0];
            scene.records.fault_rate = rates[scene.rng.usize(..4)];
        }
    }

    fn make_mischief(&mut self) {
        let made = std::mem::take(&mut self.scene.lock().unwrap().mischief);
        for mischief in made {
            self.scene.lock().unwrap().disturb();
            match mischief {
                Mischief::Crash(number) => {
                    self.scene
                        .lock()
                        .unwrap()
                        .note(|| format!("process {number} crashes"));
                    self.scene.lock().unwrap().count("crash");
                    self.processes.retain(|process| process.number != number);
                    if self.random(3) > 0 {
                        self.boot();
                    }
                }
                Mischief::Freeze(number) => {
                    let length = Duration::from_secs(1 + self.random(45));
                    self.scene
                        .lock()
                        .unwrap()
                        .note(|| format!("process {number} freezes for {length:?}"));
                    self.scene.lock().unwrap().count("freeze");
                    if let Some(process) = self.processes.iter().find(|one| one.number == number) {
                        process.freeze(length);
                    }
                    if self.processes.len() < 2 && self.random(2) > 0 {
                        self.boot();
                    }
                }
            }
        }
    }

    /// Nothing fails any more: everything ends, and nothing is left behind.
    async fn come_to_rest(&mut self) {
        {
            let mut scene = self.scene.lock().unwrap();
            scene.note(|| "all is calm".to_owned());
            scene.disturb();
            scene.is_calm = true;
            if scene.rng.bool() {
                for sight in scene
                    .world
                    .tasks
                    .iter_mut()
                    .filter_map(|task| task.sight.as_mut())
                {
                    sight.gate = DeleteGate::Open;
                }
            }
        }
        self.processes.retain(|process| !process.is_stopping());
        for process in &self.processes {
            process.thaw();
        }
        if self.processes.is_empty() {
            self.boot();
        }
        // Callers leave and the house is kept before all is at rest; whoever was slow may ask for
        // something until then.
        let mut at_rest = 0;
        while at_rest < REST {
            tokio::time::sleep(Duration::from_secs(5)).await;
            let mut scene = self.scene.lock().unwrap();
            let is_any = scene.check_deadlines();
            if scene.violation.is_some() {
                return;
            }
            at_rest = if is_any { 0 } else { at_rest + 5 };
        }
        for process in &self.processes {
            if let Some(left) = process.leftovers() {
                self.scene.lock().unwrap().blame(left);
            }
        }
    }
}
