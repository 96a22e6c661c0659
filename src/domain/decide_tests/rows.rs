//! What rows of a list say.

use super::*;

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
fn a_row_is_not_asked_while_a_change_may_be_on_its_way() {
    let paused = sight(Stage::Paused, DeleteGate::Open);
    let history = heir(PLAIN, Change::Delete);
    let seen = Some(TaskState::Paused);
    assert!(!waits_by_row(PLAIN, paused, seen, &history));
}
