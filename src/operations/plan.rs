//! What a request would lead to: everything that accepting it looks at, and nothing that it does.

use super::{
    Operations,
    accept::{Ask, AskError, LookResult, Standing, refuse},
    sentences,
};
use crate::domain::{
    access::TaskNames,
    decide::{self, Action, Seen, Sight},
    history::History,
    operation::{Goal, Operation},
    service::Services,
    start::StartRecord,
    task::TaskState,
    words::words,
};

words! {
    /// What would become of a request.
    Course {
        /// An operation would be recorded.
        Begin = "begin",
        /// It would join the operation that runs.
        Join = "join",
        /// An operation would be recorded, and take over from the one that runs.
        Supersede = "supersede",
        /// It would be answered with the operation that its key stands for.
        Replay = "replay",
    }
}

/// What a request would lead to, as things stood a moment ago.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What would become of the request.
    pub course: Course,
    /// The operation that it would join, take over from, or be answered with.
    pub operation: Option<Operation>,
    /// Where the task stands; `None` if it was not seen.
    pub state: Option<TaskState>,
    /// What would be done next; `None` if the task was not seen.
    pub next: Option<Action>,
    /// The same for people, with the reason.
    pub why: String,
}

impl Operations {
    /// What [`Operations::start`] would do. Refuses what it would refuse. Nothing is recorded, and
    /// nothing but the look at the task is sent.
    pub async fn plan(&self, services: &Services, ask: &Ask) -> Result<Plan, AskError> {
        let record = StartRecord::of(ask.start.as_ref());
        match self.standing(ask, &record).await? {
            Standing::Known(known) => Ok(Plan::new(ask, Course::Replay, Some(known), None)),
            Standing::Free => {
                self.plan_of_its_own(services, ask, Course::Begin, None)
                    .await
            }
            Standing::Same(running) => self.plan_to_join(services, ask, running).await,
            Standing::Lesser(running) => {
                self.plan_of_its_own(services, ask, Course::Supersede, Some(running))
                    .await
            }
            Standing::Other(running) => {
                self.admit(services, ask, &running).await?;
                Err(AskError::Conflict(Box::new(running)))
            }
        }
    }

    async fn plan_of_its_own(
        &self,
        services: &Services,
        ask: &Ask,
        course: Course,
        running: Option<Operation>,
    ) -> Result<Plan, AskError> {
        let inherited = self
            .inheritance(ask.goal, &ask.task, running.as_ref())
            .await?
            .history;
        let seen = refuse(ask, self.look(services, ask).await?, &inherited)?;
        let seen = seen.map(|task| Seen::Task(Sight::from(&*task)));
        let step = seen.map(|seen| Step::of(ask.goal, seen, &inherited));
        self.has_room(ask, running.as_ref()).await?;
        Ok(Plan::new(ask, course, running, step))
    }

    /// Whether one more operation of the caller may run, which takes over from this one.
    async fn has_room(&self, ask: &Ask, supersedes: Option<&Operation>) -> Result<(), AskError> {
        let ends = supersedes.is_some_and(|running| running.requested_by == ask.caller);
        let count = self.0.store.count_running_of(&ask.caller).await?;
        if count.saturating_sub(u64::from(ends)) < u64::from(ask.running_max) {
            Ok(())
        } else {
            Err(AskError::TooMany(ask.running_max))
        }
    }

    /// What runs goes on from where it is.
    async fn plan_to_join(
        &self,
        services: &Services,
        ask: &Ask,
        running: Operation,
    ) -> Result<Plan, AskError> {
        let mut ask = ask.clone();
        if running.callers.contains(&ask.caller) {
            // They were found to be admitted before.
            ask.names = TaskNames::all();
        }
        let seen = match self.look(services, &ask).await? {
            LookResult::Failed => None,
            LookResult::Seen(None) => Some(Seen::Gone),
            LookResult::Seen(Some(task)) => Some(Seen::Task(Sight::from(&*task))),
        };
        let step = seen.map(|seen| {
            let mut history = running.history.clone();
            history.observe(&seen, false);
            Step::of(running.goal, seen, &history)
        });
        Ok(Plan::new(&ask, Course::Join, Some(running), step))
    }
}

/// What would be done next, and in view of what.
#[derive(Clone, Copy)]
pub(super) struct Step {
    /// `None`: there is no such task.
    pub(super) state: Option<TaskState>,
    pub(super) action: Action,
}

impl Step {
    fn of(goal: Goal, seen: Seen, history: &History) -> Self {
        Self {
            state: match seen {
                Seen::Gone => None,
                Seen::Task(sight) => Some(sight.stage.state()),
            },
            action: decide::decide(goal, seen, history, false),
        }
    }
}

impl Plan {
    fn new(ask: &Ask, course: Course, operation: Option<Operation>, step: Option<Step>) -> Self {
        Self {
            why: sentences::planned(ask, course, step),
            course,
            operation,
            state: step.and_then(|step| step.state),
            next: step.map(|step| step.action),
        }
    }
}
