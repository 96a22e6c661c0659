//! The one thread that writes. Whoever waits while the disk is busy is served by the next write
//! together with all others.

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{content::Content, metrics::Metrics, sink::Sink, strangers::Strangers};
use crate::domain::audit::AuditUnavailable;

/// How often the place is looked at while nobody writes, and how long one that failed is left
/// alone.
const TICK: Duration = Duration::from_secs(1);
/// The most that is written at once.
const TOGETHER: usize = 256;

/// What becomes of entries.
pub(super) type Written = Result<(), AuditUnavailable>;

/// What the thread is asked for.
pub(super) enum Job {
    /// Write these, and say when they are on the disk.
    Record {
        contents: Vec<Content>,
        /// Whether they are written if nobody waits any more.
        is_owed: bool,
        reply: oneshot::Sender<Written>,
    },
    /// Write this.
    Stranger(Content),
    /// Write what is left, and end.
    Close(oneshot::Sender<Written>),
}

/// What the thread and those who ask it share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) strangers: Strangers,
    pub(super) metrics: Metrics,
    is_available: AtomicBool,
    /// Whether the log of the process has the reason why it is not available.
    is_reported: AtomicBool,
}

impl Shared {
    pub(super) fn is_available(&self) -> bool {
        self.is_available.load(Ordering::Acquire)
    }

    fn succeeded(&self) {
        self.metrics.available.set(1);
        self.is_available.store(true, Ordering::Release);
        if self.is_reported.swap(false, Ordering::AcqRel) {
            tracing::info!("the audit log can be written again; writes are taken");
        }
    }

    /// Entries could not be written, or whoever waits for them gave up: a place that hangs gives no
    /// answer at all.
    pub(super) fn failed(&self, error: &dyn fmt::Display) {
        self.metrics.failures.inc();
        self.metrics.available.set(0);
        self.is_available.store(false, Ordering::Release);
        if !self.is_reported.swap(true, Ordering::AcqRel) {
            tracing::error!(%error, "the audit log cannot be written; writes are refused until it can be");
        }
    }
}

/// The thread's own state.
pub(super) struct Writer {
    sink: Sink,
    shared: Arc<Shared>,
    /// When the place failed, if it did the last time.
    failed_at: Option<Instant>,
}

/// What is written at once.
#[derive(Default)]
struct Together {
    contents: Vec<Content>,
    replies: Vec<oneshot::Sender<Written>>,
    strangers: u64,
    is_last: bool,
}

impl Together {
    fn add(&mut self, job: Job) {
        match job {
            // Whoever has given up does nothing.
            Job::Record {
                is_owed: false,
                reply,
                ..
            } if reply.is_closed() => {}
            Job::Record {
                contents, reply, ..
            } => {
                self.contents.extend(contents);
                self.replies.push(reply);
            }
            Job::Stranger(content) => {
                self.contents.push(content);
                self.strangers += 1;
            }
            Job::Close(reply) => {
                self.replies.push(reply);
                self.is_last = true;
            }
        }
    }
}

impl Writer {
    pub(super) fn new(sink: Sink, shared: Arc<Shared>) -> Self {
        Self {
            sink,
            shared,
            failed_at: None,
        }
    }

    /// Writes until it is told to end, or until nobody can ask any more.
    pub(super) fn run(mut self, jobs: &Receiver<Job>) {
        // What came of it is in the state, for whoever asks.
        let _ready = self.settle(Sink::make_ready);
        loop {
            let mut together = Together::default();
            match jobs.recv_timeout(TICK) {
                Ok(job) => together.add(job),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => together.is_last = true,
            }
            while together.contents.len() < TOGETHER && !together.is_last {
                match jobs.try_recv() {
                    Ok(job) => together.add(job),
                    Err(_) => break,
                }
            }
            let is_last = together.is_last;
            self.serve(together);
            if is_last {
                return;
            }
        }
    }

    fn serve(&mut self, mut together: Together) {
        let now = Instant::now();
        let counted = self.shared.strangers.summary(now, together.is_last);
        let mut uncounted = together.strangers;
        if let Some(Content::Strangers { count, .. }) = &counted {
            uncounted += count;
        }
        together.contents.extend(counted);
        let contents = &together.contents;
        let written = if self.rests(now) && !together.is_last {
            Err(AuditUnavailable)
        } else if contents.is_empty() {
            self.settle(Sink::make_ready)
        } else {
            self.settle(|sink| sink.add(contents))
        };
        match written {
            Ok(()) => {
                let lines = contents.len() as u64;
                self.shared.metrics.lines.inc_by(lines);
            }
            Err(_) if uncounted > 0 => self.shared.strangers.count(uncounted, now),
            Err(_) => {}
        }
        if together.is_last {
            self.sink.close();
        }
        for reply in together.replies {
            // Whoever asked may have left.
            let _ = reply.send(written);
        }
    }

    /// Whether the place has failed a moment ago.
    fn rests(&self, now: Instant) -> bool {
        self.failed_at
            .is_some_and(|at| now.duration_since(at) < TICK)
    }

    /// Tries something, and tells of a change.
    fn settle(&mut self, attempt: impl FnOnce(&mut Sink) -> io::Result<()>) -> Written {
        match attempt(&mut self.sink) {
            Ok(()) => {
                self.failed_at = None;
                self.shared.succeeded();
                Ok(())
            }
            Err(error) => {
                self.failed_at = Some(Instant::now());
                self.shared.failed(&error);
                Err(AuditUnavailable)
            }
        }
    }
}
