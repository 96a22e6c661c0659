//! Processes that end with the benchmark, and what they use.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::Outcome;

/// The longest that a process may take to end when it is asked to.
const END: Duration = Duration::from_secs(10);
/// How the kernel counts time for `/proc`: 100 ticks a second, on every architecture that Rust's
/// standard library knows.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process that was started here. It is asked to end when this is dropped, so that it can end its
/// own children, and killed if it does not.
pub(crate) struct Process(Child);

/// The memory of a process, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// All pages in memory.
    pub(crate) resident: f64,
    /// Its share of them.
    pub(crate) proportional: f64,
}

impl Process {
    /// Starts a program. What it writes goes to a file.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Outcome<Self> {
        let log = File::create(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Self(child))
    }

    /// Whether it ended by itself.
    pub(crate) fn has_ended(&mut self) -> Outcome<bool> {
        Ok(self.0.try_wait()?.is_some())
    }

    pub(crate) fn memory(&self) -> Outcome<Memory> {
        let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.0.id()))?;
        let of = |name: &str| -> Option<f64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            let kibibytes: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
            Some(kibibytes * 1024.0)
        };
        let memory = of("Rss:").zip(of("Pss:"));
        let (resident, proportional) = memory.ok_or("the memory of a process is not told")?;
        Ok(Memory {
            resident,
            proportional,
        })
    }

    /// The CPU time that it has used so far, in seconds.
    pub(crate) fn cpu_seconds(&self) -> Outcome<f64> {
        let text = fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        // The name of the program stands in parentheses and may hold anything; utime and stime are
        // fields 14 and 15.
        let (_, fields) = text.rsplit_once(')').ok_or("a strange /proc")?;
        let ticks: Vec<f64> = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse().ok())
            .collect();
        Ok(ticks.iter().sum::<f64>() / TICKS_PER_SECOND)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let asked = Command::new("kill")
            .args(["-TERM", &self.0.id().to_string()])
            .status();
        let began = Instant::now();
        while asked.is_ok() && began.elapsed() < END {
            match self.0.try_wait() {
                Ok(None) => thread::sleep(Duration::from_millis(10)),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        // It may have ended meanwhile, and there is nobody to tell.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
