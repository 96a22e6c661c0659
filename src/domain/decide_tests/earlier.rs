//! What was sent for earlier operations.

use super::*;

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
