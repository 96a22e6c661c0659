//! Whatever happens, in any order.

use proptest::prelude::*;

use super::*;

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
