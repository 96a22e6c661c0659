mod earlier;
mod random;
mod repeats;
mod rows;

use std::time::Duration;

use jiff::SignedDuration;

use super::*;
use crate::domain::{
    service::{Sent, UpstreamError},
    task::{Stage, TaskState},
};

const PLAIN: Goal = Goal::Absent { force: false };
const FORCE: Goal = Goal::Absent { force: true };
const NOW: Timestamp = Timestamp::constant(1_767_600_000, 0);
/// A change is on its way for so long at most.
const ARRIVAL_MAX: Duration = Duration::from_secs(20);
const LATER: Timestamp = Timestamp::constant(1_767_600_020, 0);

fn sight(stage: Stage, gate: DeleteGate) -> Sight {
    Sight {
        stage,
        gate,
        started_at: None,
    }
}

fn fresh(goal: Goal, stage: Stage, gate: DeleteGate) -> Action {
    decide(
        goal,
        Seen::Task(sight(stage, gate)),
        &History::default(),
        false,
    )
}

fn error(kind: UpstreamErrorKind, sent: Sent) -> UpstreamError {
    UpstreamError {
        kind,
        sent,
        retry_after: None,
        answer: None,
        detail: String::new(),
    }
}

/// The history of an operation with this goal that follows one that sent this and never heard of it
/// again.
fn heir(goal: Goal, change: Change) -> History {
    let mut old = History::default();
    old.intend(change, None, NOW);
    heir_of(&old, goal)
}

fn heir_of(old: &History, goal: Goal) -> History {
    let mut history = History::default();
    history.take_over(old, goal.heeds());
    history
}

/// Every stage with an open gate: plain delete, force delete, pause, start.
#[test]
fn every_goal_and_stage_has_its_action() {
    use Action::{Delete, Fail, Finish, Pause, Start, Wait};
    use Outcome::{AlreadyPaused, AlreadyRunning};
    use Reason::{TaskFinished, TaskInProgress, TaskNotStarted};
    let table = [
        (Stage::Initialising, Fail(TaskInProgress), Wait, Wait, Wait),
        (Stage::Queued, Delete, Delete, Wait, Wait),
        (Stage::Ready, Delete, Delete, Fail(TaskNotStarted), Start),
        (
            Stage::Running,
            Fail(TaskInProgress),
            Pause,
            Pause,
            Finish(AlreadyRunning),
        ),
        (Stage::Busy, Fail(TaskInProgress), Wait, Wait, Wait),
        (Stage::Pausing, Fail(TaskInProgress), Wait, Wait, Wait),
        (Stage::Paused, Delete, Delete, Finish(AlreadyPaused), Start),
        (Stage::Failed, Delete, Delete, Fail(TaskFinished), Start),
        (
            Stage::Succeeded,
            Delete,
            Delete,
            Fail(TaskFinished),
            Fail(TaskFinished),
        ),
        (
            Stage::Deleting,
            Wait,
            Wait,
            Fail(TaskInProgress),
            Fail(TaskInProgress),
        ),
        (Stage::Unknown, Fail(TaskInProgress), Wait, Wait, Wait),
    ];
    assert_eq!(table.map(|row| row.0), Stage::ALL, "every stage has a row");
    for (stage, plain, force, pause, start) in table {
        let expected = [
            (PLAIN, plain),
            (FORCE, force),
            (Goal::Paused, pause),
            (Goal::Running, start),
        ];
        for (goal, action) in expected {
            assert_eq!(
                fresh(goal, stage, DeleteGate::Open),
                action,
                "{goal:?} at {stage:?}"
            );
        }
    }
}

#[test]
fn a_closed_gate_holds_a_delete_back_at_every_stage_of_rest() {
    for stage in Stage::ALL {
        for goal in [PLAIN, FORCE] {
            let closed = fresh(goal, stage, DeleteGate::Closed);
            if stage.is_at_rest() {
                assert_eq!(closed, Action::Wait, "{goal:?} at {stage:?}");
            } else {
                assert_eq!(
                    closed,
                    fresh(goal, stage, DeleteGate::Open),
                    "{goal:?} at {stage:?}"
                );
            }
        }
    }
}

#[test]
fn an_offline_source_lets_a_hanging_pause_be_deleted_by_force_only() {
    assert_eq!(
        fresh(FORCE, Stage::Pausing, DeleteGate::Offline),
        Action::Delete
    );
    assert_eq!(
        fresh(PLAIN, Stage::Pausing, DeleteGate::Offline),
        Action::Fail(Reason::TaskInProgress)
    );
    assert_eq!(
        fresh(FORCE, Stage::Running, DeleteGate::Offline),
        Action::Pause
    );
    assert_eq!(
        fresh(PLAIN, Stage::Paused, DeleteGate::Offline),
        Action::Delete
    );
}

#[test]
fn gone_must_be_seen_twice_unless_a_delete_of_ours_explains_it() {
    let mut history = History::default();
    history.observe(&Seen::Gone, true);
    assert_eq!(decide(FORCE, Seen::Gone, &history, false), Action::Wait);
    assert_eq!(
        decide(Goal::Paused, Seen::Gone, &history, false),
        Action::Wait
    );
    history.observe(&Seen::Gone, false);
    assert_eq!(
        decide(FORCE, Seen::Gone, &history, false),
        Action::Finish(Outcome::AlreadyGone)
    );
    assert_eq!(
        decide(Goal::Running, Seen::Gone, &history, false),
        Action::Fail(Reason::TaskNotFound)
    );

    let mut history = History::default();
    history.intend(Change::Delete, None, NOW);
    history.observe(&Seen::Gone, true);
    assert_eq!(
        decide(PLAIN, Seen::Gone, &history, false),
        Action::Finish(Outcome::Deleted)
    );
}

#[test]
fn a_delete_that_was_definitely_refused_does_not_count_as_ours() {
    let mut history = History::default();
    history.intend(Change::Delete, None, NOW);
    let refused = error(UpstreamErrorKind::Refused, Sent::Yes);
    history.failed(Change::Delete, &refused, Stage::Paused);
    history.observe(&Seen::Gone, true);
    history.observe(&Seen::Gone, false);
    assert_eq!(
        decide(FORCE, Seen::Gone, &history, false),
        Action::Finish(Outcome::AlreadyGone)
    );
}

#[test]
fn a_task_that_ends_while_it_is_being_paused_is_deleted_or_reported() {
    let mut history = History::default();
    history.intend(Change::Pause, None, NOW);
    history.accepted(Change::Pause);
    for stage in [Stage::Failed, Stage::Succeeded] {
        let seen = Seen::Task(sight(stage, DeleteGate::Open));
        assert_eq!(decide(FORCE, seen, &history, false), Action::Delete);
        assert_eq!(
            decide(Goal::Paused, seen, &history, false),
            Action::Fail(Reason::TaskFinished)
        );
    }
}

#[test]
fn the_outcome_says_whose_doing_it_was() {
    let mut history = History::default();
    history.intend(Change::Pause, None, NOW);
    let paused = Seen::Task(sight(Stage::Paused, DeleteGate::Open));
    assert_eq!(
        decide(Goal::Paused, paused, &history, false),
        Action::Finish(Outcome::Paused),
        "an intent without a result counts as sent"
    );

    let mut history = History::default();
    history.intend(Change::Start, None, NOW);
    history.accepted(Change::Start);
    for stage in [Stage::Running, Stage::Succeeded] {
        let seen = Seen::Task(sight(stage, DeleteGate::Open));
        assert_eq!(
            decide(Goal::Running, seen, &history, false),
            Action::Finish(Outcome::Started)
        );
    }
}

#[test]
fn a_task_that_fails_after_our_start_is_told_from_one_that_failed_before() {
    let before = "2026-01-05T10:00:00Z".parse().ok();
    let after = "2026-01-05T11:00:00Z".parse().ok();
    let failed = |started_at| {
        Seen::Task(Sight {
            stage: Stage::Failed,
            gate: DeleteGate::Open,
            started_at,
        })
    };
    let mut history = History::default();
    history.observe(&failed(before), false);
    assert_eq!(
        decide(Goal::Running, failed(before), &history, false),
        Action::Start
    );
    history.intend(Change::Start, before, NOW);
    history.accepted(Change::Start);
    history.observe(&failed(before), false);
    assert_eq!(
        decide(Goal::Running, failed(before), &history, false),
        Action::Wait
    );
    assert_eq!(
        decide(Goal::Running, failed(after), &history, false),
        Action::Fail(Reason::TaskFailed),
        "a newer start time says that it ran"
    );
    history.observe(&failed(before), false);
    history.observe(&failed(before), false);
    assert_eq!(
        decide(Goal::Running, failed(before), &history, false),
        Action::Fail(Reason::TaskFailed),
        "three looks"
    );
}
