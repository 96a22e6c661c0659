//! The list of one service of one project: what it said last, and when it is read again.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, timeout};

use super::{
    Economy, Shared, Told,
    reading::{Reading, TooLong},
};
use crate::{
    domain::{
        operation::Operation,
        service::{MigrationService, ProjectName, ServiceName, UpstreamErrorKind},
        task::TaskRef,
    },
    operations::{kill_point::kill_point, later, round},
};

/// The most pages of a reading, whoever waits.
const PAGES_MAX: u64 = 100;
/// The longest that a reading may take, for those who wait for it hold places that others could
/// use.
const READING_MAX: Duration = Duration::from_secs(10);
/// How often running operations are counted at most.
const COUNT_EVERY: Duration = Duration::from_secs(1);
/// How long a list is left alone that could not be read, the first times in a row; then for long.
const SHORT_RESTS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];
/// How long a list is left alone that is too long or cannot be read again and again.
const LONG_REST: Duration = Duration::from_mins(1);

/// Who asks.
pub(super) struct Asker<'a> {
    pub(super) shared: &'a Shared,
    pub(super) port: &'a dyn MigrationService,
    pub(super) page_limit: u32,
    pub(super) economy: Economy,
    pub(super) operation: &'a Operation,
}

/// Reads the list of one service of one project for all who wait for its tasks, as long as that is
/// worth it.
#[derive(Default)]
pub(super) struct ListReader {
    /// Whether it is said in the log that the list serves.
    serves: bool,
    asked_at: Option<Instant>,
    /// Operations that run on its tasks, in all processes.
    running: u64,
    counted_at: Option<Instant>,
    reading: Option<Reading>,
    /// How many looked for themselves since, because it was no news to them.
    missed: u64,
    /// Readings in a row that failed, and when the last of them did.
    failures: usize,
    failed_at: Option<Timestamp>,
    /// Whether the last list was too long to be read.
    is_too_long: bool,
    rests_until: Option<Instant>,
}

impl ListReader {
    pub(super) async fn ask(&mut self, asker: &Asker<'_>) -> Told {
        self.asked_at = Some(Instant::now());
        self.count(asker).await;
        let task = &asker.operation.task;
        let least = if self.serves {
            asker.economy.down_to
        } else {
            asker.economy.from
        };
        if self.running < least {
            self.stop(&task.project, &task.service, "few operations are left");
            return Told::Nothing;
        }
        if let Some(told) = self.tell(asker) {
            return told;
        }
        if self.rests_until.is_some_and(|until| Instant::now() < until) {
            return self.send_away(asker);
        }
        if !self.is_worth_reading(asker) {
            self.missed += 1;
            return Told::Nothing;
        }
        self.read(asker).await;
        match self.tell(asker) {
            Some(Told::Row { sight, .. }) => Told::Check(sight),
            Some(told) => told,
            None => self.send_away(asker),
        }
    }

    /// What the reading says, if it is news.
    fn tell(&self, asker: &Asker<'_>) -> Option<Told> {
        let (operation, settings) = (asker.operation, &asker.shared.settings);
        let reading = self.reading.as_ref()?;
        // The next round is due at most one wait after the last news: exactly that after a row.
        let waited = round::full_wait(settings, operation.history.waits.saturating_sub(1));
        let is_news = later(reading.began_at, waited) > operation.next_look_at;
        if reading.began.elapsed() >= settings.poll_max || !is_news {
            return None;
        }
        let row = reading.row(&operation.task.id);
        Some(row.map_or(Told::Nothing, |sight| Told::Row {
            sight,
            read_at: reading.began_at,
        }))
    }

    /// Nobody reads just now. If the list is tried again soon, all come again; if not, all who have
    /// not been sent away since it failed, so that those who would have been served do not look all
    /// at once.
    fn send_away(&self, asker: &Asker<'_>) -> Told {
        let comes_again = self.failed_at.is_some_and(|at| {
            self.failures <= SHORT_RESTS.len() || asker.operation.updated_at <= at
        });
        if comes_again {
            Told::ComeAgain
        } else {
            Told::Nothing
        }
    }

    /// Whether the list is read again: the reading is as old as the longest wait; or so many whose
    /// waits are shorter looked for themselves meanwhile that a reading would have been cheaper.
    fn is_worth_reading(&self, asker: &Asker<'_>) -> bool {
        let Some(reading) = &self.reading else {
            return true;
        };
        self.failures > 0
            || reading.began.elapsed() >= asker.shared.settings.poll_max
            || self.missed >= reading.pages
    }

    async fn read(&mut self, asker: &Asker<'_>) {
        let pages_max =
            (self.running / asker.economy.operations_per_page.max(1)).clamp(1, PAGES_MAX);
        let clock = &*asker.shared.clock;
        let reading = Reading::of(asker.port, clock, asker.page_limit, pages_max);
        let task = &asker.operation.task;
        match timeout(READING_MAX, reading).await {
            Ok(Ok(Ok(reading))) => {
                self.begin(task, &reading);
                self.reading = Some(reading);
                (self.missed, self.failures) = (0, 0);
                (self.failed_at, self.rests_until, self.is_too_long) = (None, None, false);
            }
            Ok(Ok(Err(TooLong { tasks }))) => {
                (self.failed_at, self.failures) = (None, 0);
                self.rests_until = Some(Instant::now() + long_rest(asker.shared));
                if !self.is_too_long {
                    self.is_too_long = true;
                    tracing::info!(
                        task.project = %task.project,
                        task.service = %task.service,
                        tasks,
                        operations = self.running,
                        "the list of tasks is too long to serve so few operations; they look for themselves"
                    );
                }
                self.stop(&task.project, &task.service, "the list is too long");
            }
            Ok(Err(error)) if error.kind == UpstreamErrorKind::CircuitOpen => {
                self.spare(asker.shared, error.retry_after);
            }
            Ok(Err(error)) => self.failed(asker, error.kind, &error.detail),
            Err(_) => {
                let detail = "It could not be read within the time limit.";
                self.failed(asker, UpstreamErrorKind::Timeout, detail);
            }
        }
    }

    /// The service is left alone. That says nothing about the list, and looks would fare no better:
    /// all come again.
    pub(super) fn spare(&mut self, shared: &Shared, wait: Option<Duration>) {
        let wait = wait.unwrap_or(SHORT_RESTS[0]).min(long_rest(shared));
        (self.failed_at, self.failures) = (Some(shared.clock.now()), 0);
        self.rests_until = Some(Instant::now() + wait);
    }

    fn failed(&mut self, asker: &Asker<'_>, kind: UpstreamErrorKind, detail: &str) {
        let task = &asker.operation.task;
        let rest = SHORT_RESTS.get(self.failures).copied();
        self.failures += 1;
        // Once nobody is served any more there is nobody to be sent away.
        if self.failures <= SHORT_RESTS.len() + 1 {
            self.failed_at = Some(asker.shared.clock.now());
        }
        self.rests_until = Some(Instant::now() + rest.unwrap_or_else(|| long_rest(asker.shared)));
        tracing::warn!(
            task.project = %task.project,
            task.service = %task.service,
            error.kind = kind.as_str(),
            error = detail,
            "the list of tasks cannot be read for those who wait"
        );
        if rest.is_none() {
            self.stop(&task.project, &task.service, "the list cannot be read");
        }
    }

    /// The list is left alone for a while, for what it says is not what looks show.
    pub(super) fn distrust(&mut self, shared: &Shared, task: &TaskRef) {
        (self.failed_at, self.failures) = (None, 0);
        self.rests_until = Some(Instant::now() + long_rest(shared));
        self.stop(
            &task.project,
            &task.service,
            "a look shows what the list does not",
        );
    }

    fn begin(&mut self, task: &TaskRef, reading: &Reading) {
        if !self.serves {
            tracing::info!(
                task.project = %task.project,
                task.service = %task.service,
                operations = self.running,
                pages = reading.pages,
                "the list of tasks serves operations that wait"
            );
        }
        self.serves = true;
    }

    fn stop(&mut self, project: &ProjectName, service: &ServiceName, why: &'static str) {
        if self.serves {
            tracing::info!(
                task.project = %project,
                task.service = %service,
                why,
                "the list of tasks serves no more; operations look for themselves"
            );
        }
        self.serves = false;
        self.reading = None;
    }

    /// Lets go of what nobody has asked for in a while.
    pub(super) fn retire(
        &mut self,
        project: &ProjectName,
        service: &ServiceName,
        poll_max: Duration,
    ) {
        let patience = LONG_REST.max(poll_max.saturating_mul(2));
        if self.asked_at.is_some_and(|at| at.elapsed() > patience) {
            self.stop(project, service, "nobody waits");
        }
    }

    async fn count(&mut self, asker: &Asker<'_>) {
        if self.counted_at.is_some_and(|at| at.elapsed() < COUNT_EVERY) {
            return;
        }
        self.counted_at = Some(Instant::now());
        let task = &asker.operation.task;
        let store = &asker.shared.store;
        kill_point!("board.count.before");
        let counted = store.count_running(&task.project, &task.service).await;
        kill_point!("board.count.after");
        match counted {
            Ok(running) => self.running = running,
            Err(error) => {
                asker.shared.metrics.store_faults.inc();
                tracing::warn!(
                    error = error.with_causes(),
                    "running operations cannot be counted; the last number is taken"
                );
            }
        }
    }
}

/// Longer than the longest wait, so that everybody who is sent away has a look of its own before
/// the list is tried again.
fn long_rest(shared: &Shared) -> Duration {
    LONG_REST.max(shared.settings.poll_max.saturating_mul(2))
}
