//! One round of one operation: observe, decide, record the intent, act.
//!
//! A round may be cut off anywhere. Whatever it did to the vendor was recorded as an intent before,
//! and the next round begins with a look, so that running a round twice has the effect of running
//! it once.

mod failed;
mod record;
mod row;
mod waits;

pub(super) use self::waits::{full_wait, longest_rest};

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    Shared,
    board::{Board, Told},
    kill_point::kill_point,
    later,
    phases::{phase_after, waiting_phase},
    send::send,
    sentences,
};
use crate::domain::{
    decide::{self, Action, Seen, Sight},
    history::{Change, History},
    operation::{
        EventKind, Failure, Goal, Operation, OperationEvent, Outcome, Phase, Reason, Status,
    },
    secret,
    service::{BoundService, Clearance, HeldLease, Receipt, Sent, Services, UpstreamErrorKind},
    start::{StartRequest, StorageCredential},
    store::{Hold, Leased},
    task::{Stage, Task, TaskState},
};

/// A look that is older than this is no ground to act. Rounds wait for the store as long as it is
/// away, and changes for the pace of the service; meanwhile others may change the task, or take
/// over when the lease has ended.
pub(super) const LOOK_AGE_MAX: Duration = Duration::from_secs(5);

/// Runs one round. Tells when the operation is to be looked at next; `None` if it has ended or is
/// no longer ours.
pub(super) async fn run(
    (shared, services, board): (&Shared, &Services, &Board),
    leased: Leased,
    lease: HeldLease,
) -> Option<Timestamp> {
    let mut round = Round {
        shared,
        operation: leased.operation,
        lease,
        events: Vec::new(),
        looked_at: Instant::now(),
    };
    // Whoever drove it before did not get to record a result, and nobody will.
    round.operation.history.settle_unknown();
    round
        .operation
        .history
        .forget_unanswered(shared.clock.now(), shared.settings.arrival_max());
    if leased.taken_over {
        round.note(EventKind::Resumed);
    }
    let operation = &round.operation;
    let service = services
        .of(&operation.task)
        .filter(|bound| bound.binding == operation.binding);
    let Some(service) = service else {
        return round.fail(Reason::ProjectChanged, None).await;
    };
    let told = board.ask(shared, services, &round.operation).await;
    match told {
        Told::Row { sight, read_at } if !round.can_never_start() && round.may_wait_by(sight) => {
            return round.wait_by(sight, read_at).await;
        }
        Told::ComeAgain => return round.come_again().await,
        Told::Row { .. } | Told::Check(_) | Told::Nothing => round.count_look("call"),
    }
    kill_point!("round.look.before");
    let shown = service.port.show(&round.operation.task.id).await;
    kill_point!("round.look.after");
    if let (Told::Check(row), Ok(Some(task))) = (told, &shown) {
        round.compare(board, row, task);
    }
    if let Err(error) = &shown
        && error.kind == UpstreamErrorKind::CircuitOpen
    {
        board.spare(shared, &round.operation.task, error.retry_after);
    }
    match shown {
        Ok(task) => round.looked(service, task.as_ref()).await,
        Err(error) => round.failed(&error).await,
    }
}

struct Round<'a> {
    shared: &'a Shared,
    operation: Operation,
    lease: HeldLease,
    /// What happened and is not on record yet.
    events: Vec<OperationEvent>,
    /// When the answer to the look came.
    looked_at: Instant,
}

impl Round<'_> {
    async fn looked(&mut self, service: &BoundService, task: Option<&Task>) -> Option<Timestamp> {
        let seen = task.map_or(Seen::Gone, |task| Seen::Task(Sight::from(task)));
        self.looked_at = Instant::now();
        self.observe(seen);
        let overdue = self.is_overdue();
        match (
            decide::decide(self.operation.goal, seen, &self.operation.history, overdue),
            seen,
        ) {
            (Action::Finish(outcome), _) => self.finish(outcome).await,
            (Action::Fail(Reason::TaskFailed), _) => {
                let error = task.and_then(|task| task.error.as_ref());
                let detail = sentences::task_failed(&self.operation, error);
                let detail = self.without_keys(&detail);
                self.fail(Reason::TaskFailed, Some(detail)).await
            }
            (Action::Fail(reason), _) => self.fail(reason, None).await,
            (Action::Wait, Seen::Task(at))
                if at.stage != Stage::Running && self.can_never_start() =>
            {
                self.fail(Reason::CredentialsLost, None).await
            }
            (Action::Pause, Seen::Task(at)) => self.act(Change::Pause, service, at).await,
            (Action::Start, Seen::Task(at)) => self.act(Change::Start, service, at).await,
            (Action::Delete, Seen::Task(at)) => self.act(Change::Delete, service, at).await,
            (Action::Wait, _) | (Action::Pause | Action::Start | Action::Delete, Seen::Gone) => {
                self.operation.history.round_ended(None);
                self.operation.phase = Some(waiting_phase(&self.operation, seen));
                let wait = self.next_wait(None);
                self.rest_until(later(self.shared.clock.now(), wait)).await
            }
        }
    }

    fn observe(&mut self, seen: Seen) {
        let state = match seen {
            Seen::Gone => None,
            Seen::Task(sight) => Some(sight.stage.state()),
        };
        let was_gone = self.operation.history.gone_looks > 0;
        let changed = match state {
            None => !was_gone,
            Some(_) => was_gone || state != self.operation.last_seen,
        };
        self.operation.history.observe(&seen, changed);
        self.operation.last_seen = state;
        if changed {
            self.note(EventKind::Observed(state));
        }
        if state == Some(TaskState::Unknown) && changed {
            tracing::warn!(
                operation.id = %self.operation.id,
                task.service = %self.operation.task.service,
                "the task is in a state that this program does not know; it is not acted on"
            );
        }
    }

    async fn act(
        &mut self,
        change: Change,
        service: &BoundService,
        sight: Sight,
    ) -> Option<Timestamp> {
        let start = match change {
            Change::Start => match self.start_request() {
                Some(request) => Some(request),
                None => return self.fail(Reason::CredentialsLost, None).await,
            },
            Change::Pause | Change::Delete => None,
        };
        let before = self.operation.history.clone();
        let now = self.shared.clock.now();
        self.operation.history.intend(change, sight.started_at, now);
        self.operation.phase = Some(match change {
            Change::Pause => Phase::Pausing,
            Change::Start => Phase::Starting,
            Change::Delete => Phase::Deleting,
        });
        // The intent must be on disk before anything is sent. If somebody else wrote meanwhile, it
        // is theirs to act.
        kill_point!("round.intent.before");
        if !self.save(Hold::Keep).await {
            return None;
        }
        kill_point!("round.intent.saved");
        let clearance = Clearance {
            by: (self.looked_at + LOOK_AGE_MAX).into_std(),
            lease: self.lease.clone(),
        };
        if !clearance.is_good(Instant::now().into_std()) {
            return self.withdraw(before).await;
        }
        let id = &self.operation.task.id;
        match send(service, id, change, start.as_ref(), &clearance).await {
            Ok(receipt) => self.accepted(change, receipt).await,
            Err(error) if error.sent == Sent::No && !self.lease.holds() => {
                self.withdraw(before).await
            }
            Err(error) => {
                self.operation.history.failed(change, &error, sight.stage);
                self.operation.phase = Some(phase_after(change, false));
                self.failed(&error).await
            }
        }
    }

    /// Nothing was sent, since the look became too old or the lease ended. Somebody else may drive
    /// by now; if not, this round begins again.
    async fn withdraw(&mut self, before: History) -> Option<Timestamp> {
        self.operation.history = before;
        kill_point!("round.late.before");
        let next = self.pause_for(Duration::ZERO).await;
        kill_point!("round.late.saved");
        next
    }

    async fn accepted(&mut self, change: Change, receipt: Receipt) -> Option<Timestamp> {
        self.operation.history.accepted(change);
        self.operation.phase = Some(phase_after(change, true));
        self.note(match change {
            Change::Pause => EventKind::PauseSent(receipt.request_id),
            Change::Start => EventKind::StartSent(receipt.request_id),
            Change::Delete => EventKind::DeleteSent(receipt.request_id),
        });
        let wait = match change {
            // A deletion is complete at once at one of the services: look without waiting.
            Change::Delete => Duration::ZERO,
            Change::Pause | Change::Start => self.next_wait(None),
        };
        kill_point!("round.accepted.before");
        let next = self.pause_for(wait).await;
        kill_point!("round.accepted.saved");
        next
    }

    async fn finish(&mut self, outcome: Outcome) -> Option<Timestamp> {
        self.operation.outcome = Some(outcome);
        self.end(Status::Succeeded).await
    }

    async fn fail(&mut self, reason: Reason, detail: Option<String>) -> Option<Timestamp> {
        let history = &self.operation.history;
        let answer = history
            .last_fault
            .as_ref()
            .and_then(|fault| fault.answer.clone());
        let sent = history.sent();
        let detail = detail.unwrap_or_else(|| sentences::failed(reason, &self.operation));
        self.operation.failure = Some(Failure {
            reason,
            detail,
            sent,
            answer,
        });
        self.end(Status::Failed).await
    }

    async fn end(&mut self, status: Status) -> Option<Timestamp> {
        self.operation.status = status;
        self.operation.phase = None;
        self.operation.finished_at = Some(self.shared.clock.now());
        self.note(EventKind::Ended);
        kill_point!("round.end.before");
        if self.save(Hold::Release).await {
            kill_point!("round.end.saved");
            self.shared.ended(&self.operation);
            kill_point!("round.end.announced");
        }
        None
    }

    /// Nothing is to be done but to wait.
    async fn rest_until(&mut self, next: Timestamp) -> Option<Timestamp> {
        kill_point!("round.rest.before");
        let next = self.pause_until(next).await;
        kill_point!("round.rest.saved");
        next
    }

    /// Records the round and lets go of the operation until its next look.
    async fn pause_for(&mut self, wait: Duration) -> Option<Timestamp> {
        self.pause_until(later(self.shared.clock.now(), wait)).await
    }

    async fn pause_until(&mut self, next: Timestamp) -> Option<Timestamp> {
        let now = self.shared.clock.now();
        // A look at the deadline itself tells whether the goal holds after all.
        let deadline = self.operation.deadline_at;
        self.operation.next_look_at = if now < deadline {
            next.min(deadline)
        } else {
            next
        };
        let next_look_at = self.operation.next_look_at;
        self.save(Hold::Release).await.then_some(next_look_at)
    }

    /// The keys for a start. `None`: they came with the request and were lost with the process that
    /// accepted it.
    fn start_request(&self) -> Option<StartRequest> {
        let record = &self.operation.start;
        if record.inline {
            return self.shared.inline_keys.get(self.operation.id);
        }
        Some(StartRequest {
            source: record.source.clone().map(StorageCredential::Named),
            destination: record.destination.clone().map(StorageCredential::Named),
            migrate_failed_objects: record.migrate_failed_objects,
        })
    }

    /// Whether what is waited for is the moment of a start whose keys were lost.
    fn can_never_start(&self) -> bool {
        let Operation { goal, history, .. } = &self.operation;
        *goal == Goal::Running && !history.was_sent(Change::Start) && self.start_request().is_none()
    }

    /// A text of the service's without the keys that came with the request.
    pub(super) fn without_keys(&self, text: &str) -> String {
        let request = self.shared.inline_keys.get(self.operation.id);
        secret::masked(text, request.iter().flat_map(StartRequest::inline_keys))
    }

    fn is_overdue(&self) -> bool {
        self.shared.clock.now() >= self.operation.deadline_at
    }

    fn note(&mut self, kind: EventKind) {
        self.events.push(OperationEvent {
            at: self.shared.clock.now(),
            kind,
        });
    }

    /// Notes something unless it is what happened last: an outage is one event, not hundreds.
    fn note_once(&mut self, kind: EventKind) {
        let last = self.events.last().or(self.operation.events.last());
        if last.is_none_or(|event| event.kind != kind) {
            self.note(kind);
        }
    }
}
