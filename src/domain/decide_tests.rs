use std::time::Duration;

use jiff::SignedDuration;
use proptest::prelude::*;

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

/// After this many looks at the task in this state, none of which was news.
fn waiting(waits: u32) -> History {
    History {
        waits,
        looks_since_accepted: 2,
        ..History::default()
    }
}

fn by_row(goal: Goal, stage: Stage, gate: DeleteGate, history: &History) -> bool {
    waits_by_row(goal, sight(stage, gate), Some(stage.state()), history)
}

#[test]
fn a_row_says_to_wait_on_where_the_state_alone_says_so_and_to_look_everywhere_else() {
    let wait = |goal, stage| match goal {
        Goal::Absent { force: true } => matches!(
            stage,
            Stage::Initialising | Stage::Busy | Stage::Pausing | Stage::Deleting
        ),
        Goal::Absent { force: false } => stage == Stage::Deleting,
        Goal::Paused | Goal::Running => matches!(
            stage,
            Stage::Initialising | Stage::Queued | Stage::Busy | Stage::Pausing
        ),
    };
    for goal in [PLAIN, FORCE, Goal::Paused, Goal::Running] {
        for stage in Stage::ALL {
            let says_wait = by_row(goal, stage, DeleteGate::Open, &waiting(3));
            assert_eq!(says_wait, wait(goal, stage), "{goal:?} {stage:?}");
        }
    }
}

#[test]
fn a_row_has_no_say_while_looks_are_counted() {
    let mut paused = waiting(1);
    paused.pause.is_fresh = true;
    paused.pause.accepted = 1;
    let running = sight(Stage::Running, DeleteGate::Open);
    let look = decide(FORCE, Seen::Task(running), &paused, false);
    assert_eq!(look, Action::Wait, "the pause is believed");
    assert!(!by_row(FORCE, Stage::Running, DeleteGate::Open, &paused));
    let mut deleted = waiting(1);
    deleted.delete.is_fresh = true;
    assert!(!by_row(FORCE, Stage::Paused, DeleteGate::Open, &deleted));
    assert!(by_row(FORCE, Stage::Deleting, DeleteGate::Open, &deleted));
    let mut started = waiting(1);
    started.start.is_fresh = true;
    started.start.accepted = 1;
    assert!(!by_row(
        Goal::Running,
        Stage::Failed,
        DeleteGate::Open,
        &started
    ));
    assert!(by_row(
        Goal::Running,
        Stage::Queued,
        DeleteGate::Open,
        &started
    ));
}

#[test]
fn a_row_that_is_news_leads_to_a_look() {
    let history = waiting(3);
    let pausing = sight(Stage::Pausing, DeleteGate::Open);
    for seen in [None, Some(TaskState::Running), Some(TaskState::Unknown)] {
        assert!(!waits_by_row(FORCE, pausing, seen, &history), "{seen:?}");
    }
}

#[test]
fn rows_that_do_not_tell_whether_the_source_is_offline_are_interrupted_by_looks() {
    let looks = (1..=12)
        .filter(|waits| !by_row(FORCE, Stage::Pausing, DeleteGate::Untold, &waiting(*waits)))
        .collect::<Vec<_>>();
    assert_eq!(looks, [6, 12]);
    // To a pause it makes no difference.
    assert!((1..=12).all(|waits| by_row(
        Goal::Paused,
        Stage::Pausing,
        DeleteGate::Untold,
        &waiting(waits)
    )));
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
fn an_accepted_pause_is_believed_for_three_looks_and_then_sent_again_five_times_in_all() {
    let running = Seen::Task(sight(Stage::Running, DeleteGate::Open));
    for goal in [FORCE, Goal::Paused] {
        let mut history = History::default();
        for _ in 0..PAUSES_MAX {
            assert_eq!(decide(goal, running, &history, false), Action::Pause);
            history.intend(Change::Pause, None, NOW);
            history.accepted(Change::Pause);
            for _ in 0..BELIEVED_LOOKS {
                history.observe(&running, false);
                assert_eq!(decide(goal, running, &history, false), Action::Wait);
            }
            history.observe(&running, false);
        }
        assert_eq!(
            decide(goal, running, &history, false),
            Action::Fail(Reason::TaskInProgress)
        );
    }
}

#[test]
fn a_pause_of_unknown_outcome_that_is_seen_to_have_had_effect_counts_as_accepted() {
    let running = Seen::Task(sight(Stage::Running, DeleteGate::Open));
    let lost = error(UpstreamErrorKind::Timeout, Sent::Unknown);
    let forget: [fn(&mut History, &UpstreamError); 2] = [
        |history, lost| history.failed(Change::Pause, lost, Stage::Running),
        |history, _| history.settle_unknown(),
    ];
    for goal in [FORCE, Goal::Paused] {
        for (end, stage) in forget.into_iter().zip([Stage::Pausing, Stage::Paused]) {
            let mut history = History::default();
            for pauses in 1..=PAUSES_MAX {
                assert_eq!(decide(goal, running, &history, false), Action::Pause);
                history.intend(Change::Pause, None, NOW);
                end(&mut history, &lost);
                let seen = Seen::Task(sight(stage, DeleteGate::Closed));
                for _ in 0..3 {
                    history.observe(&seen, false);
                }
                assert_eq!(history.pause.accepted, pauses, "counted once");
                // Somebody starts it again.
                for _ in 0..=BELIEVED_LOOKS {
                    history.observe(&running, false);
                }
            }
            assert_eq!(
                decide(goal, running, &history, false),
                Action::Fail(Reason::TaskInProgress)
            );
        }
    }
}

#[test]
fn a_pause_that_visibly_had_no_effect_is_sent_until_the_deadline() {
    let running = Seen::Task(sight(Stage::Running, DeleteGate::Open));
    let pausing = Seen::Task(sight(Stage::Pausing, DeleteGate::Open));
    let lost = error(UpstreamErrorKind::Timeout, Sent::Unknown);
    let mut history = History::default();
    for _ in 0..100 {
        assert_eq!(decide(FORCE, running, &history, false), Action::Pause);
        history.intend(Change::Pause, None, NOW);
        history.failed(Change::Pause, &lost, Stage::Running);
        history.observe(&running, false);
    }
    // The last one was refused, so that whoever pauses the task now is somebody else.
    history.intend(Change::Pause, None, NOW);
    let refused = error(UpstreamErrorKind::Refused, Sent::Yes);
    history.failed(Change::Pause, &refused, Stage::Running);
    history.observe(&pausing, true);
    assert_eq!(history.pause.accepted, 0);
    assert_eq!(
        decide(FORCE, running, &history, true),
        Action::Fail(Reason::DeadlineExceeded)
    );
}

#[test]
fn a_lost_pause_counts_if_the_task_was_started_again_since() {
    let lost = error(UpstreamErrorKind::Timeout, Sent::Unknown);
    let at = |started_at| Sight {
        started_at,
        ..sight(Stage::Running, DeleteGate::Open)
    };
    let hour = |number| NOW + SignedDuration::from_hours(number);
    let after = |before: Option<Timestamp>, started: Option<Timestamp>| {
        let mut history = History::default();
        history.intend(Change::Pause, before, NOW);
        history.failed(Change::Pause, &lost, Stage::Running);
        history.observe(&Seen::Task(at(started)), false);
        history.observe(&Seen::Task(at(started)), false);
        history.pause.accepted
    };
    assert_eq!(after(Some(NOW), Some(hour(1))), 1);
    for (before, started) in [(Some(NOW), Some(NOW)), (None, Some(NOW)), (Some(NOW), None)] {
        assert_eq!(after(before, started), 0);
    }

    let mut history = History::default();
    for number in 0..i64::from(PAUSES_MAX) {
        let running = Seen::Task(at(Some(hour(number))));
        history.observe(&running, false);
        assert_eq!(decide(FORCE, running, &history, false), Action::Pause);
        history.intend(Change::Pause, Some(hour(number)), NOW);
        history.failed(Change::Pause, &lost, Stage::Running);
    }
    let running = Seen::Task(at(Some(hour(5))));
    history.observe(&running, false);
    assert_eq!(
        decide(FORCE, running, &history, false),
        Action::Fail(Reason::TaskInProgress)
    );
}

/// The history of an operation with this goal that follows one that sent this and never heard of it again.
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

#[test]
fn what_another_operation_sent_may_still_take_effect() {
    use Action::{Delete, Fail, Finish, Pause, Wait};
    use Change::Start;
    let table = [
        (
            Goal::Paused,
            Start,
            Stage::Paused,
            Finish(Outcome::AlreadyPaused),
        ),
        (
            Goal::Paused,
            Start,
            Stage::Ready,
            Fail(Reason::TaskNotStarted),
        ),
        (
            Goal::Paused,
            Start,
            Stage::Failed,
            Fail(Reason::TaskFinished),
        ),
        (
            Goal::Running,
            Change::Pause,
            Stage::Running,
            Finish(Outcome::AlreadyRunning),
        ),
        (FORCE, Change::Pause, Stage::Running, Pause),
        (FORCE, Change::Delete, Stage::Paused, Delete),
    ];
    for (goal, sent, stage, then) in table {
        let seen = sight(stage, DeleteGate::Open);
        let mut history = heir(goal, sent);
        assert_eq!(refusal(goal, seen, &history), None, "{goal:?} at {stage:?}");
        for _ in 0..10 {
            let just_before = LATER - SignedDuration::from_secs(1);
            history.forget_unanswered(just_before, ARRIVAL_MAX);
            // A pause that is sent twice does no harm.
            if (goal, sent) != (FORCE, Change::Pause) {
                history.observe(&Seen::Task(seen), false);
                let action = decide(goal, Seen::Task(seen), &history, false);
                assert_eq!(action, Wait, "{goal:?} at {stage:?}");
            }
        }
        history.forget_unanswered(LATER, ARRIVAL_MAX);
        for _ in 0..BELIEVED_LOOKS {
            history.observe(&Seen::Task(seen), false);
            let action = decide(goal, Seen::Task(seen), &history, false);
            assert_eq!(action, Wait, "{goal:?} at {stage:?}");
        }
        history.observe(&Seen::Task(seen), false);
        let action = decide(goal, Seen::Task(seen), &history, false);
        assert_eq!(action, then, "{goal:?} at {stage:?}");
    }
}

#[test]
fn what_shows_that_nothing_is_on_its_way_is_acted_on_at_once() {
    use Action::{Delete, Fail, Pause};
    use Change::Start;
    for (goal, sent, stage, at_once) in [
        (Goal::Paused, Start, Stage::Running, Pause),
        (
            Goal::Paused,
            Start,
            Stage::Succeeded,
            Fail(Reason::TaskFinished),
        ),
        (Goal::Running, Change::Pause, Stage::Paused, Action::Start),
        (FORCE, Start, Stage::Paused, Delete),
        (FORCE, Change::Pause, Stage::Paused, Delete),
    ] {
        let seen = Seen::Task(sight(stage, DeleteGate::Open));
        let mut history = heir(goal, sent);
        history.observe(&seen, false);
        assert_eq!(
            decide(goal, seen, &history, false),
            at_once,
            "{goal:?} at {stage:?}"
        );
    }
}

#[test]
fn a_delete_of_the_operation_before_is_the_doing_of_the_one_that_took_over() {
    let mut history = heir(FORCE, Change::Delete);
    assert!(history.was_sent(Change::Delete));
    assert_eq!(history.sent(), Sent::Unknown);
    history.observe(&Seen::Gone, true);
    let action = decide(FORCE, Seen::Gone, &history, false);
    assert_eq!(action, Action::Finish(Outcome::Deleted));

    let mut old = History::default();
    old.intend(Change::Delete, None, NOW);
    let refused = error(UpstreamErrorKind::Refused, Sent::Yes);
    old.failed(Change::Delete, &refused, Stage::Paused);
    assert_eq!(heir_of(&old, FORCE), History::default());
}

#[test]
fn what_was_sent_for_earlier_operations_matters_as_far_as_it_stands_in_the_way() {
    for (goal, sent, matters) in [
        (PLAIN, Change::Delete, true),
        (FORCE, Change::Pause, true),
        (Goal::Paused, Change::Start, true),
        // A pause is not the doing of a delete that had no effect.
        (Goal::Paused, Change::Delete, false),
        (Goal::Running, Change::Start, false),
        (Goal::Running, Change::Pause, true),
    ] {
        let history = heir(goal, sent);
        assert_eq!(history != History::default(), matters, "{goal:?} {sent:?}");
        assert_eq!(history.was_sent(sent), matters, "{goal:?} {sent:?}");
    }
}

#[test]
fn what_an_operation_inherits_is_inherited_from_it() {
    let first = heir(FORCE, Change::Start);
    let mut second = first.clone();
    second.intend(Change::Pause, None, LATER);
    second.accepted(Change::Pause);
    let third = heir_of(&second, Goal::Paused);
    assert!(third.was_sent(Change::Start) && third.is_unanswered(Change::Start));
    assert_eq!(third.sent_at, Some(LATER));
    let paused = Seen::Task(sight(Stage::Paused, DeleteGate::Open));
    assert_eq!(decide(Goal::Paused, paused, &third, false), Action::Wait);
}

#[test]
fn what_was_sent_later_does_not_hide_what_may_still_be_on_its_way() {
    let paused = Seen::Task(sight(Stage::Paused, DeleteGate::Open));
    let mut history = heir(FORCE, Change::Delete);
    history.inherit(&heir(FORCE, Change::Start), FORCE.heeds());
    assert_eq!(decide(FORCE, paused, &history, false), Action::Wait);
    // It has arrived or never will, but the next looks may lag behind.
    history.forget_unanswered(LATER, ARRIVAL_MAX);
    for _ in 0..BELIEVED_LOOKS {
        history.observe(&paused, false);
        assert_eq!(decide(FORCE, paused, &history, false), Action::Wait);
    }
    history.observe(&paused, false);
    assert_eq!(decide(FORCE, paused, &history, false), Action::Delete);
}

#[test]
fn a_delete_is_not_sent_again_while_the_first_may_be_on_its_way() {
    let paused = Seen::Task(sight(Stage::Paused, DeleteGate::Open));
    let mut history = History::default();
    history.intend(Change::Delete, None, NOW);
    // The process that sent it died.
    history.settle_unknown();
    history.forget_unanswered(NOW, ARRIVAL_MAX);
    assert_eq!(decide(PLAIN, paused, &history, false), Action::Wait);
    let gone = decide(PLAIN, Seen::Gone, &history, false);
    assert_eq!(gone, Action::Finish(Outcome::Deleted));
    for clock in [LATER, NOW - SignedDuration::from_hours(1)] {
        let mut history = history.clone();
        history.forget_unanswered(clock, ARRIVAL_MAX);
        assert_eq!(decide(PLAIN, paused, &history, false), Action::Delete);
    }
}

#[test]
fn a_row_is_not_asked_while_a_change_may_be_on_its_way() {
    let paused = sight(Stage::Paused, DeleteGate::Open);
    let history = heir(PLAIN, Change::Delete);
    let seen = Some(TaskState::Paused);
    assert!(!waits_by_row(PLAIN, paused, seen, &history));
}

#[test]
fn limits_are_those_of_one_operation() {
    let mut old = History::default();
    for _ in 0..PAUSES_MAX {
        old.intend(Change::Pause, None, NOW);
        old.accepted(Change::Pause);
    }
    let history = heir_of(&old, FORCE);
    assert_eq!(history.pause.accepted, 0);
    assert_eq!(history.sent(), Sent::Yes);
}

#[test]
fn an_accepted_delete_is_believed_for_three_looks_and_then_sent_again() {
    let paused = Seen::Task(sight(Stage::Paused, DeleteGate::Open));
    let mut history = History::default();
    history.intend(Change::Delete, None, NOW);
    history.accepted(Change::Delete);
    for _ in 0..BELIEVED_LOOKS {
        history.observe(&paused, false);
        assert_eq!(decide(PLAIN, paused, &history, false), Action::Wait);
    }
    history.observe(&paused, false);
    assert_eq!(decide(PLAIN, paused, &history, false), Action::Delete);
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
fn a_start_is_never_repeated_after_it_was_accepted() {
    let mut history = History::default();
    history.intend(Change::Start, None, NOW);
    history.accepted(Change::Start);
    for stage in [Stage::Ready, Stage::Paused] {
        let seen = Seen::Task(sight(stage, DeleteGate::Open));
        for _ in 0..20 {
            history.observe(&seen, false);
            assert_eq!(decide(Goal::Running, seen, &history, false), Action::Wait);
        }
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

#[test]
fn refusals_end_an_operation_after_ten_without_a_change_of_state() {
    let running = Seen::Task(sight(Stage::Running, DeleteGate::Open));
    let refused = error(UpstreamErrorKind::Refused, Sent::Yes);
    let mut history = History::default();
    for _ in 0..REFUSALS_MAX {
        assert_eq!(decide(FORCE, running, &history, false), Action::Pause);
        history.intend(Change::Pause, None, NOW);
        history.failed(Change::Pause, &refused, Stage::Running);
    }
    assert_eq!(
        decide(FORCE, running, &history, false),
        Action::Fail(Reason::UpstreamRejected)
    );
    history.observe(&running, true);
    assert_eq!(decide(FORCE, running, &history, false), Action::Pause);
}

#[test]
fn gone_in_answer_to_a_change_and_in_progress_in_answer_to_a_start_are_refusals() {
    for (goal, change, kind, stage) in [
        (
            FORCE,
            Change::Pause,
            UpstreamErrorKind::Gone,
            Stage::Running,
        ),
        (
            FORCE,
            Change::Delete,
            UpstreamErrorKind::Gone,
            Stage::Paused,
        ),
        (
            Goal::Running,
            Change::Start,
            UpstreamErrorKind::StillInProgress,
            Stage::Paused,
        ),
    ] {
        let seen = Seen::Task(sight(stage, DeleteGate::Open));
        let refused = error(kind, Sent::Yes);
        let mut history = History::default();
        for _ in 0..REFUSALS_MAX {
            assert!(!matches!(
                decide(goal, seen, &history, false),
                Action::Fail(_)
            ));
            history.intend(change, None, NOW);
            history.failed(change, &refused, stage);
        }
        assert_eq!(
            decide(goal, seen, &history, false),
            Action::Fail(Reason::UpstreamRejected)
        );
    }
}

#[test]
fn still_in_progress_at_rest_is_waited_out_until_the_deadline() {
    let paused = Seen::Task(sight(Stage::Paused, DeleteGate::Open));
    let not_yet = error(UpstreamErrorKind::StillInProgress, Sent::Yes);
    let mut history = History::default();
    for _ in 0..100 {
        history.intend(Change::Delete, None, NOW);
        history.failed(Change::Delete, &not_yet, Stage::Paused);
    }
    assert_eq!(decide(FORCE, paused, &history, false), Action::Delete);
    assert_eq!(
        decide(FORCE, paused, &history, true),
        Action::Fail(Reason::DeadlineExceeded)
    );

    let queued = Seen::Task(sight(Stage::Queued, DeleteGate::Open));
    for _ in 0..REFUSALS_MAX {
        history.intend(Change::Delete, None, NOW);
        history.failed(Change::Delete, &not_yet, Stage::Queued);
    }
    assert_eq!(
        decide(PLAIN, queued, &history, false),
        Action::Fail(Reason::UpstreamRejected)
    );
    assert_eq!(
        decide(FORCE, queued, &history, false),
        Action::Wait,
        "it will run, and be paused"
    );
}

#[test]
fn the_deadline_ends_everything_but_a_goal_that_holds() {
    for stage in Stage::ALL {
        for goal in [PLAIN, FORCE, Goal::Paused, Goal::Running] {
            let seen = Seen::Task(sight(stage, DeleteGate::Open));
            match decide(goal, seen, &History::default(), true) {
                Action::Finish(_) | Action::Fail(_) => {}
                action @ (Action::Pause | Action::Start | Action::Delete | Action::Wait) => {
                    panic!("{goal:?} at {stage:?} goes on with {action:?}")
                }
            }
        }
    }
}

#[test]
fn permanent_faults_end_an_operation_after_five_rounds_in_a_row() {
    for (kind, reason) in [
        (
            UpstreamErrorKind::CredentialsRefused,
            Reason::CredentialsRefused,
        ),
        (UpstreamErrorKind::Forbidden, Reason::UpstreamForbidden),
        (UpstreamErrorKind::Rejected, Reason::UpstreamRejected),
    ] {
        let mut history = History::default();
        for _ in 1..PERMANENT_FAULTS_MAX {
            history.round_ended(Some(&error(kind, Sent::No)));
            assert_eq!(after_fault(kind, &history, false), Action::Wait);
        }
        history.round_ended(Some(&error(kind, Sent::No)));
        assert_eq!(after_fault(kind, &history, false), Action::Fail(reason));
    }
    for kind in [
        UpstreamErrorKind::Throttled,
        UpstreamErrorKind::Unavailable,
        UpstreamErrorKind::Timeout,
        UpstreamErrorKind::Malformed,
    ] {
        let mut history = History::default();
        for _ in 0..100 {
            history.round_ended(Some(&error(kind, Sent::No)));
            assert_eq!(after_fault(kind, &history, false), Action::Wait);
        }
        assert_eq!(
            after_fault(kind, &history, true),
            Action::Fail(Reason::DeadlineExceeded)
        );
    }
}

/// A vendor small enough to be driven at random: `None` is a task that is gone.
#[derive(Clone, Copy, Debug)]
struct World {
    task: Option<(Stage, DeleteGate)>,
}

impl World {
    /// Carries a change out, and says whether it was accepted.
    fn change(&mut self, change: Change) -> bool {
        let Some((stage, gate)) = self.task else {
            return false;
        };
        match change {
            Change::Pause if stage == Stage::Running => {
                self.task = Some((Stage::Pausing, gate));
            }
            Change::Start if matches!(stage, Stage::Paused | Stage::Failed | Stage::Ready) => {
                self.task = Some((Stage::Queued, gate));
            }
            Change::Delete if stage.is_at_rest() && gate != DeleteGate::Closed => {
                self.task = None;
            }
            Change::Delete if gate == DeleteGate::Offline => self.task = None,
            Change::Pause | Change::Start | Change::Delete => return false,
        }
        true
    }

    /// Time passes.
    fn step(&mut self) {
        if let Some((stage, gate)) = self.task {
            let next = match stage {
                Stage::Initialising => Stage::Queued,
                Stage::Queued | Stage::Busy => Stage::Running,
                Stage::Pausing => Stage::Paused,
                Stage::Ready
                | Stage::Running
                | Stage::Paused
                | Stage::Failed
                | Stage::Succeeded
                | Stage::Deleting
                | Stage::Unknown => stage,
            };
            let gate = if gate == DeleteGate::Closed {
                DeleteGate::Open
            } else {
                gate
            };
            self.task = (next != Stage::Deleting).then_some((next, gate));
        }
    }
}

/// What befalls one round.
#[derive(Clone, Copy, Debug)]
enum Luck {
    Fine,
    LookFails,
    CrashBeforeSending,
    CrashAfterSending,
    ReplyLost,
    RequestLost,
    SomebodySets(Stage, DeleteGate),
    SomebodyDeletes,
}

fn any_gate() -> impl Strategy<Value = DeleteGate> {
    prop_oneof![
        Just(DeleteGate::Open),
        Just(DeleteGate::Untold),
        Just(DeleteGate::Closed),
        Just(DeleteGate::Offline)
    ]
}

fn any_luck() -> impl Strategy<Value = Luck> {
    prop_oneof![
        6 => Just(Luck::Fine),
        1 => Just(Luck::LookFails),
        1 => Just(Luck::CrashBeforeSending),
        1 => Just(Luck::CrashAfterSending),
        1 => Just(Luck::ReplyLost),
        1 => Just(Luck::RequestLost),
        1 => (prop::sample::select(&Stage::ALL[..]), any_gate())
            .prop_map(|(stage, gate)| Luck::SomebodySets(stage, gate)),
        1 => Just(Luck::SomebodyDeletes),
    ]
}

/// One round of a driver that is as faithful as the engine, in a world that is as unlucky as told.
fn round(
    goal: Goal,
    world: &mut World,
    history: &mut History,
    luck: Luck,
    overdue: bool,
) -> Action {
    match luck {
        Luck::SomebodySets(stage, gate) => {
            world.task = world.task.map(|_| (stage, gate));
        }
        Luck::SomebodyDeletes => world.task = None,
        Luck::LookFails => {
            return after_fault(UpstreamErrorKind::Timeout, history, overdue);
        }
        Luck::Fine
        | Luck::CrashBeforeSending
        | Luck::CrashAfterSending
        | Luck::ReplyLost
        | Luck::RequestLost => {}
    }
    history.settle_unknown();
    history.forget_unanswered(LATER, ARRIVAL_MAX);
    let seen = world
        .task
        .map_or(Seen::Gone, |(stage, gate)| Seen::Task(sight(stage, gate)));
    history.observe(&seen, false);
    let action = decide(goal, seen, history, overdue);
    let change = match action {
        Action::Pause => Change::Pause,
        Action::Start => Change::Start,
        Action::Delete => Change::Delete,
        Action::Wait | Action::Finish(_) | Action::Fail(_) => return action,
    };
    let Seen::Task(at) = seen else {
        panic!("{change:?} of a task that is gone")
    };
    assert_ne!(at.stage, Stage::Unknown, "acting on an unknown state");
    if change == Change::Delete {
        let hanging = at.stage == Stage::Pausing && at.gate == DeleteGate::Offline;
        let allowed = at.stage == Stage::Queued
            || (at.stage.is_at_rest() && at.gate != DeleteGate::Closed)
            || (hanging && goal == FORCE);
        assert!(allowed, "a delete from {at:?}");
    }
    history.intend(change, at.started_at, NOW);
    let lost = error(UpstreamErrorKind::Timeout, Sent::Unknown);
    match luck {
        Luck::CrashBeforeSending => {}
        Luck::CrashAfterSending => _ = world.change(change),
        Luck::RequestLost => history.failed(change, &lost, at.stage),
        Luck::ReplyLost => {
            world.change(change);
            history.failed(change, &lost, at.stage);
        }
        Luck::Fine | Luck::LookFails | Luck::SomebodySets(..) | Luck::SomebodyDeletes => {
            if world.change(change) {
                history.accepted(change);
            } else {
                let refused = error(UpstreamErrorKind::Refused, Sent::Yes);
                history.failed(change, &refused, at.stage);
            }
        }
    }
    action
}

proptest! {
    #[test]
    fn whatever_happens_an_operation_ends_and_says_the_truth(
        goal in prop::sample::select(&[PLAIN, FORCE, Goal::Paused, Goal::Running][..]),
        stage in prop::sample::select(&Stage::ALL[..]),
        gate in any_gate(),
        lucks in prop::collection::vec(any_luck(), 1..60),
    ) {
        let mut world = World { task: Some((stage, gate)) };
        let mut history = History::default();
        let rounds = lucks.len();
        for (number, luck) in lucks.into_iter().chain([Luck::Fine]).enumerate() {
            let overdue = number == rounds;
            let action = round(goal, &mut world, &mut history, luck, overdue);
            prop_assert!(history.start.accepted <= 1, "started again after an accepted start");
            prop_assert!(history.pause.accepted <= PAUSES_MAX);
            match action {
                Action::Finish(Outcome::Deleted | Outcome::AlreadyGone) => {
                    prop_assert!(world.task.is_none(), "the task is still there");
                    return Ok(());
                }
                Action::Finish(Outcome::Paused | Outcome::AlreadyPaused) => {
                    prop_assert_eq!(world.task.map(|task| task.0), Some(Stage::Paused));
                    return Ok(());
                }
                Action::Finish(Outcome::Started | Outcome::AlreadyRunning) => {
                    let at = world.task.map(|task| task.0);
                    prop_assert!(matches!(at, Some(Stage::Running | Stage::Succeeded)));
                    return Ok(());
                }
                Action::Fail(_) => return Ok(()),
                Action::Pause | Action::Start | Action::Delete | Action::Wait => {}
            }
            world.step();
        }
        prop_assert!(false, "an operation past its deadline goes on");
    }

    #[test]
    fn a_pause_outlives_the_start_that_it_took_over_from(
        stage in prop::sample::select(&[Stage::Ready, Stage::Paused, Stage::Failed][..]),
        lands_after in 0..=BELIEVED_LOOKS,
        is_accepted: bool,
    ) {
        let mut world = World { task: Some((stage, DeleteGate::Open)) };
        let mut old = History::default();
        old.intend(Change::Start, None, NOW);
        if is_accepted {
            old.accepted(Change::Start);
        }
        let mut history = heir_of(&old, Goal::Paused);
        for number in 0..20 {
            if number == lands_after {
                history.forget_unanswered(LATER, ARRIVAL_MAX);
            }
            if number == lands_after {
                prop_assert!(world.change(Change::Start));
            }
            match round(Goal::Paused, &mut world, &mut history, Luck::Fine, false) {
                Action::Wait | Action::Pause => world.step(),
                end @ (Action::Start | Action::Delete | Action::Finish(_) | Action::Fail(_)) => {
                    prop_assert!(number >= lands_after, "it ends before the start lands");
                    prop_assert_eq!(end, Action::Finish(Outcome::Paused));
                    prop_assert_eq!(world.task.map(|task| task.0), Some(Stage::Paused));
                    return Ok(());
                }
            }
        }
        prop_assert!(false, "it does not end");
    }

    #[test]
    fn without_faults_a_force_delete_always_gets_there(
        stage in prop::sample::select(&Stage::ALL[..10]),
        gate in any_gate(),
    ) {
        let mut world = World { task: Some((stage, gate)) };
        let mut history = History::default();
        for _ in 0..20 {
            if let Action::Finish(outcome) =
                round(FORCE, &mut world, &mut history, Luck::Fine, false)
            {
                prop_assert!(matches!(outcome, Outcome::Deleted | Outcome::AlreadyGone));
                return Ok(());
            }
            world.step();
        }
        prop_assert!(false, "not gone after twenty rounds");
    }
}
