//! What is sent again, and when that ends.

use super::*;

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
