//! What must always hold. Every commit of the store and every request that sets out is held against
//! what was on record and what was shown before it.

use jiff::Timestamp;
use tokio::task::{Id, try_id};

use super::{Scene, world::Sending};
use crate::domain::{
    decide::{PAUSES_MAX, Seen, Sight},
    history::Change,
    operation::{Goal, Operation, OperationId, Status},
    store::Hold,
    task::{DeleteGate, Stage},
};

/// What an operation did, as far as it can be told from outside.
pub(super) struct Deeds {
    task: usize,
    goal: Goal,
    /// What was sent for operations before it, and may have an effect for all that it knows.
    inherited: Vec<Change>,
    pub(super) intents: Vec<Intent>,
    /// How often a lease on it ended without having been given back.
    lapses: usize,
    sent_after_end: usize,
    /// Whether a look that is on record has shown that its delete had an effect.
    has_seen_it_leave: bool,
    pub(super) deadline_at: Timestamp,
    pub(super) ended_at: Option<Timestamp>,
}

/// A change that was about to be sent.
pub(super) struct Intent {
    change: Change,
    round: Option<Id>,
    pub(super) sending: Option<usize>,
    /// Whether its round wrote again, so that the result is on record.
    is_settled: bool,
}

impl Deeds {
    fn may_have_sent(&self, change: Change, sendings: &[Sending]) -> bool {
        self.intents.iter().any(|intent| {
            let is_refused = intent
                .sending
                .is_some_and(|number| sendings[number].is_refused());
            // A round that wrote again without having sent anything has withdrawn its intent.
            let is_withdrawn = intent.sending.is_none();
            intent.change == change && !(intent.is_settled && (is_refused || is_withdrawn))
        })
    }
}

impl Scene {
    /// Something broke a rule. The first is reported.
    pub(super) fn blame(&mut self, what: String) {
        self.note(|| format!("BROKEN: {what}"));
        self.violation.get_or_insert(what);
    }

    pub(super) fn check_creation(&mut self, operation: &Operation, replaced: Option<OperationId>) {
        let Some(task) = self.index_of(operation) else {
            return;
        };
        self.note(|| {
            format!(
                "store: {} is to make task {task} {:?}",
                operation.id, operation.goal
            )
        });
        self.count("accepted");
        let inherited = [Change::Pause, Change::Start, Change::Delete]
            .into_iter()
            .filter(|change| operation.history.was_sent(*change))
            .collect();
        self.check_inheritance(operation, task, replaced);
        let deeds = Deeds {
            task,
            goal: operation.goal,
            inherited,
            intents: Vec::new(),
            lapses: 0,
            sent_after_end: 0,
            has_seen_it_leave: false,
            deadline_at: operation.deadline_at,
            ended_at: None,
        };
        if self.deeds.insert(operation.id, deeds).is_some() {
            self.blame(format!("{} is recorded twice", operation.id));
        }
        let busy = self
            .deeds
            .values()
            .filter(|deeds| deeds.task == task && deeds.ended_at.is_none());
        if busy.count() > 1 {
            self.blame(format!("two operations run on task {task}"));
        }
    }

    /// It inherits nothing that was not sent, and all that matters of an operation that it takes
    /// over from.
    fn check_inheritance(
        &mut self,
        operation: &Operation,
        task: usize,
        replaced: Option<OperationId>,
    ) {
        for change in [Change::Pause, Change::Start, Change::Delete] {
            let has = operation.history.was_sent(change);
            let mut before = self.deeds.iter().filter(|(_, deeds)| deeds.task == task);
            let was_sent = before.any(|(id, _)| self.may_have_sent(*id, change));
            let of_replaced = replaced.is_some_and(|old| self.may_have_sent(old, change))
                && operation.goal.heeds().contains(&change);
            if has {
                self.count("inherited");
            }
            if has && !was_sent || of_replaced && !has {
                self.blame(format!("{} has inherited {change:?}: {has}", operation.id));
            }
        }
    }

    pub(super) fn check_superseding(&mut self, operation: &Operation, old: &Operation) {
        let may = match operation.goal {
            Goal::Absent { force } => force,
            Goal::Paused => old.goal == Goal::Running,
            Goal::Running => false,
        };
        if !may || old.superseded_by != Some(operation.id) || old.task != operation.task {
            self.blame(format!("{} took over from {}", operation.id, old.id));
        }
    }

    pub(super) fn check_claim(&mut self, id: OperationId, has_lapsed: bool) {
        if let Some(deeds) = self.deeds.get_mut(&id) {
            deeds.lapses += usize::from(has_lapsed);
        }
    }

    /// Before a write takes effect.
    pub(super) fn check_commit(&mut self, operation: &Operation, hold: Hold) {
        let (id, round) = (operation.id, try_id());
        self.note(|| {
            format!(
                "store: {id} is {} {:?} {:?} {}",
                operation.status.as_str(),
                operation.outcome,
                operation.failure.as_ref().map(|failure| failure.reason),
                operation.history.intent.map_or("", |_| "with an intent"),
            )
        });
        let look = self.look_of(round);
        let Some(deeds) = self.deeds.get_mut(&id) else {
            return self.blame(format!("{id} was never recorded"));
        };
        for intent in deeds
            .intents
            .iter_mut()
            .filter(|intent| intent.round == round)
        {
            intent.is_settled = true;
        }
        let leaves = match look {
            Some(Seen::Gone) => true,
            Some(Seen::Task(sight)) => sight.stage == Stage::Deleting,
            None => false,
        };
        if deeds.ended_at.is_some() {
            return self.blame(format!("{id} is written to after its end"));
        }
        if hold == Hold::Keep {
            self.check_intent(operation, round);
        }
        if leaves && self.may_have_sent(id, Change::Delete) {
            self.change_deeds(id, |deeds| deeds.has_seen_it_leave = true);
        }
        if operation.status != Status::Running {
            let now = self.now();
            self.change_deeds(id, |deeds| deeds.ended_at = Some(now));
            self.check_end(operation, look);
        }
    }

    fn change_deeds(&mut self, id: OperationId, change: impl FnOnce(&mut Deeds)) {
        if let Some(deeds) = self.deeds.get_mut(&id) {
            change(deeds);
        }
    }

    fn check_intent(&mut self, operation: &Operation, round: Option<Id>) {
        let id = operation.id;
        let Some(change) = operation.history.intent else {
            return self.blame(format!("{id} is kept without an intent"));
        };
        let starts = self.accepted(id, Change::Start);
        let pauses = self.accepted(id, Change::Pause);
        if change == Change::Start && starts > 0 {
            self.blame(format!("{id} starts again after an accepted start"));
        }
        if change == Change::Pause && pauses >= PAUSES_MAX as usize {
            self.blame(format!("{id} pauses again after {pauses} accepted pauses"));
        }
        let Some(deeds) = self.deeds.get_mut(&id) else {
            return;
        };
        let is_late = change == Change::Delete && deeds.has_seen_it_leave;
        deeds.intents.push(Intent {
            change,
            round,
            sending: None,
            is_settled: false,
        });
        if is_late {
            self.blame(format!("{id} deletes again what it saw leave"));
        }
    }

    /// How many changes of one kind were accepted, and are on record as accepted.
    pub(super) fn accepted(&self, id: OperationId, change: Change) -> usize {
        let intents = self.deeds.get(&id).map_or(&[][..], |deeds| &deeds.intents);
        intents
            .iter()
            .filter(|intent| intent.change == change && intent.is_settled)
            .filter(|intent| {
                intent
                    .sending
                    .is_some_and(|number| self.world.sendings[number].is_accepted())
            })
            .count()
    }

    /// Whether, for all that is on record, a change of this kind may have had an effect: one that
    /// it sent, or that was sent for an operation that it took over from.
    pub(super) fn may_have_sent(&self, id: OperationId, change: Change) -> bool {
        let Some(deeds) = self.deeds.get(&id) else {
            return false;
        };
        deeds.inherited.contains(&change) || deeds.may_have_sent(change, &self.world.sendings)
    }

    pub(super) fn a_delete_is_on_record(&self, task: usize) -> bool {
        self.deeds
            .iter()
            .any(|(id, deeds)| deeds.task == task && self.may_have_sent(*id, Change::Delete))
    }

    /// A request sets out, of the engine with this name if it is one's: the intent to send it must
    /// be on record, and what its round saw must allow it.
    pub(super) fn check_sending(
        &mut self,
        task: usize,
        change: Change,
        number: usize,
        engine: Option<&String>,
    ) {
        let round = try_id();
        self.note(|| format!("{change:?} of task {task} sets out"));
        self.count(match change {
            Change::Pause => "pause",
            Change::Start => "start",
            Change::Delete => "delete",
        });
        if change == Change::Delete && self.is_on_its_way(task, change, number) {
            self.blame(format!(
                "a second delete of task {task} sets out before the first is answered"
            ));
        }
        let owner = self.deeds.iter_mut().find_map(|(id, deeds)| {
            let intent = deeds.intents.iter_mut().find(|intent| {
                intent.round == round && intent.change == change && intent.sending.is_none()
            })?;
            intent.sending = Some(number);
            (deeds.task == task).then_some((*id, deeds.goal))
        });
        let Some(((id, goal), engine)) = owner.zip(engine) else {
            return self.blame(format!(
                "{change:?} of task {task} is sent without an intent on record"
            ));
        };
        // An end by somebody else comes at any moment; whoever drives has to hold the lease.
        if self.records.is_running(id) && !self.records.is_held(id, engine, self.now()) {
            self.blame(format!("{id} sends {change:?} without a lease"));
        }
        let Some(deeds) = self.deeds.get_mut(&id) else {
            return;
        };
        if deeds.ended_at.is_some() {
            deeds.sent_after_end += 1;
            if deeds.sent_after_end > 1 {
                self.blame(format!("{id} goes on sending after its end"));
            }
        }
        let look = shown(self.look_of(round));
        let force = goal == Goal::Absent { force: true };
        let may = match (change, goal) {
            (Change::Pause, Goal::Paused | Goal::Absent { force: true }) => {
                look.is_some_and(|sight| sight.stage == Stage::Running)
            }
            (Change::Start, Goal::Running) => look.is_some_and(|sight| {
                matches!(sight.stage, Stage::Ready | Stage::Paused | Stage::Failed)
            }),
            (Change::Delete, Goal::Absent { .. }) => {
                look.is_some_and(|sight| row_allows_delete(sight, force))
            }
            (Change::Pause | Change::Start | Change::Delete, _) => false,
        };
        if !may {
            self.blame(format!(
                "{id} ({goal:?}) sends {change:?} having seen {look:?}"
            ));
        }
    }

    /// Whether a change was sent before this one that is neither answered nor given up yet.
    pub(super) fn is_on_its_way(&self, task: usize, change: Change, before: usize) -> bool {
        let now = self.now();
        self.world.sendings[..before]
            .iter()
            .any(|one| one.task == task && one.change == change && now < one.over_at)
    }

    fn look_of(&self, round: Option<Id>) -> Option<Seen> {
        self.world.looks.get(&round?).copied()
    }

    pub(super) fn index_of(&self, operation: &Operation) -> Option<usize> {
        let mut tasks = self.world.tasks.iter();
        tasks.position(|task| task.reference == operation.task)
    }
}

/// Where a look showed the task, if it showed it.
pub(super) fn shown(look: Option<Seen>) -> Option<Sight> {
    match look? {
        Seen::Gone => None,
        Seen::Task(sight) => Some(sight),
    }
}

/// Whether the row of the table of states says "delete", "try" or, with the gate not closed,
/// "gate".
pub(super) fn row_allows_delete(sight: Sight, force: bool) -> bool {
    match sight.stage {
        Stage::Queued => true,
        Stage::Ready | Stage::Paused | Stage::Failed | Stage::Succeeded => {
            sight.gate != DeleteGate::Closed
        }
        Stage::Pausing => force && sight.gate == DeleteGate::Offline,
        Stage::Initialising | Stage::Running | Stage::Busy | Stage::Deleting | Stage::Unknown => {
            false
        }
    }
}
