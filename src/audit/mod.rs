//! The audit log: who asked for which change, what was decided by which rule, and how it ended.
//!
//! One JSON object a line, numbered, each sealed by an HMAC over itself and the seal of the line
//! before, so that [`verify()`] finds the first line that was changed, removed or inserted by
//! anybody who has not the key. What is missing at the end can only be found by whoever noted the
//! head of the log elsewhere.
//!
//! A line is on the disk before what it tells of is done. One thread writes, many lines with one
//! write to the disk; nobody waits longer than five seconds for it. It never decides anything:
//! whoever cannot note down a change must not make it.

mod aside;
mod content;
mod file;
mod line;
mod metrics;
mod sink;
mod strangers;
mod verify;
mod writer;

#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    sync::{
        Arc,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use prometheus_client::registry::Registry;
use tokio::{sync::oneshot, time::timeout};

use self::{
    content::Content,
    sink::Sink,
    writer::{Job, Shared, Writer, Written},
};
pub use self::{
    line::{Head, KEY_MIN, Key},
    sink::Target,
    verify::{Stretch, Tampered, Verified, VerifyError, Wrong, verify},
};
use crate::domain::audit::{AuditLog, AuditUnavailable, Decided, Decision, Entry, Recording};

/// The most that waits to be written; whoever comes then is refused at once.
const WAITING_MAX: usize = 1024;
/// The longest that anybody waits for the disk.
const PATIENCE: Duration = Duration::from_secs(5);
/// Why nothing can be written any more.
const ENDED: &str = "the thread that writes it has ended";

/// Section `audit` of the configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the log is.
    pub target: Target,
    /// What its lines are sealed with.
    pub key: Key,
}

/// The audit log of this process. The thread that writes ends with it.
pub struct Audit {
    jobs: SyncSender<Job>,
    shared: Arc<Shared>,
}

impl Audit {
    /// Starts the thread that writes. A log that cannot be written just then is no error: it is
    /// tried again.
    pub fn start(settings: &Settings, registry: &mut Registry) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        shared.metrics.register(registry);
        let (jobs, queue) = sync_channel(WAITING_MAX);
        let sink = Sink::new(&settings.target, settings.key.clone());
        let writer = Writer::new(sink, Arc::clone(&shared));
        thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writer.run(&queue))?;
        Ok(Self { jobs, shared })
    }

    /// Writes what is left. Whatever is to be recorded afterwards is [`AuditUnavailable`].
    pub async fn close(&self) -> Result<(), AuditUnavailable> {
        self.ask(Job::Close).await
    }

    fn ask(&self, job: impl FnOnce(oneshot::Sender<Written>) -> Job) -> Recording {
        let (reply, written) = oneshot::channel();
        let taken = self.jobs.try_send(job(reply));
        let shared = Arc::clone(&self.shared);
        match &taken {
            Ok(()) => {}
            // Those before it are told of in time, if it is the place that is too slow.
            Err(TrySendError::Full(_)) => _ = shared.metrics.failures.inc(),
            Err(TrySendError::Disconnected(_)) => shared.failed(&ENDED),
        }
        let is_taken = taken.is_ok();
        Box::pin(async move {
            if !is_taken {
                return Err(AuditUnavailable);
            }
            match timeout(PATIENCE, written).await {
                Ok(Ok(written)) => return written,
                Ok(Err(_)) => shared.failed(&ENDED),
                Err(elapsed) => shared.failed(&elapsed),
            }
            Err(AuditUnavailable)
        })
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Audit").finish_non_exhaustive()
    }
}

impl AuditLog for Audit {
    fn record(&self, entries: Vec<Entry>) -> Recording {
        let is_turned_down = |entry: &Entry| matches!(entry, Entry::Decided(decided) if decided.decision != Decision::Allowed);
        let is_owed = entries.iter().any(is_turned_down);
        let contents = entries.into_iter().map(Content::from).collect();
        self.ask(|reply| Job::Record {
            contents,
            is_owed,
            reply,
        })
    }

    fn note_stranger(&self, denial: Decided) {
        self.shared.metrics.strangers.inc();
        let now = Instant::now();
        if !self.shared.strangers.admit(now) {
            return;
        }
        let content = Content::from(Entry::Decided(denial));
        if self.jobs.try_send(Job::Stranger(content)).is_err() {
            self.shared.strangers.count(1, now);
        }
    }

    fn is_available(&self) -> bool {
        self.shared.is_available()
    }
}
