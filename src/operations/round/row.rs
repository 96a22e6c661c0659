//! Rounds that go by a row of the list, or that the list leaves without one.

use jiff::Timestamp;

use super::Round;
use crate::{
    domain::{
        decide::{self, Seen, Sight},
        task::Task,
    },
    operations::{board::Board, later, metrics::Look, phases::waiting_phase},
};

impl Round<'_> {
    /// Whether a row of the list says to wait on.
    pub(super) fn may_wait_by(&self, row: Sight) -> bool {
        let operation = &self.operation;
        decide::waits_by_row(operation.goal, row, operation.last_seen, &operation.history)
    }

    /// Waits on by a row of a reading of the list, as after a look at the moment at which that
    /// began: exactly one wait after it, by which the board knows what is news. It shows nothing
    /// that was not seen before, so that nothing is noted.
    pub(super) async fn wait_by(&mut self, row: Sight, read_at: Timestamp) -> Option<Timestamp> {
        self.count_look("board");
        self.operation.phase = Some(waiting_phase(&self.operation, Seen::Task(row)));
        let wait = self.count_wait();
        // The clock may have been set back since.
        let read_at = read_at.min(self.shared.clock.now());
        self.rest_until(later(read_at, wait)).await
    }

    /// Tells the board if a row would have had the operation wait on although its task has moved
    /// on.
    pub(super) fn compare(&self, board: &Board, row: Sight, task: &Task) {
        if self.may_wait_by(row) && row.stage.state() != task.stage.state() {
            board.distrust(self.shared, &task.reference);
        }
    }

    /// The list could not be read, which is no fault of this operation. All who were to be served
    /// by it come again, spread over their wait.
    pub(super) async fn come_again(&mut self) -> Option<Timestamp> {
        let wait = self.next_wait(None);
        let wait = wait.mul_f64(0.2 + 0.8 * fastrand::f64());
        self.rest_until(later(self.shared.clock.now(), wait)).await
    }

    /// Counts what the round goes by: a `call`, or a row of the `board`.
    pub(super) fn count_look(&self, by: &'static str) {
        let service = self.operation.task.service.to_string();
        let looks = &self.shared.metrics.looks;
        looks.get_or_create(&Look { service, by }).inc();
    }
}
