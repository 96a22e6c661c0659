//! Who goes next.
//!
//! There are two lanes. As long as both have somebody waiting they take turns, so that neither
//! starves the other. Within a lane changes go before reads, which cannot starve the reads: every
//! change is preceded by a look of the same lane. Within both, whoever came first goes first.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::Notify;

use crate::transport::Purpose;

/// Who asks the cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Requests of callers.
    Callers,
    /// Rounds of operations.
    Rounds,
}

impl Lane {
    /// The word used in metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Callers => "callers",
            Self::Rounds => "rounds",
        }
    }
}

/// The place of one who waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    lane: Lane,
    purpose: Purpose,
    number: u64,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    wake: Arc<Notify>,
}

/// All who wait.
#[derive(Debug)]
pub(super) struct Queue {
    callers: Line,
    rounds: Line,
    /// Whose turn it is when both lanes wait.
    turn: Lane,
    next_number: u64,
}

/// One lane.
#[derive(Debug, Default)]
struct Line {
    changes: VecDeque<Waiter>,
    reads: VecDeque<Waiter>,
}

impl Line {
    fn of(&self, purpose: Purpose) -> &VecDeque<Waiter> {
        match purpose {
            Purpose::Change => &self.changes,
            Purpose::Read => &self.reads,
        }
    }

    fn of_mut(&mut self, purpose: Purpose) -> &mut VecDeque<Waiter> {
        match purpose {
            Purpose::Change => &mut self.changes,
            Purpose::Read => &mut self.reads,
        }
    }

    fn len(&self) -> usize {
        self.changes.len() + self.reads.len()
    }
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            callers: Line::default(),
            rounds: Line::default(),
            turn: Lane::Callers,
            next_number: 0,
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.callers.len() + self.rounds.len()
    }

    /// How many go before one who comes now, if nobody else comes.
    pub(super) fn ahead_of_next(&self, lane: Lane, purpose: Purpose) -> usize {
        let own = self.line(lane);
        let before = match purpose {
            Purpose::Change => own.changes.len(),
            Purpose::Read => own.len(),
        };
        self.with_other_lane(lane, before)
    }

    /// How many go before one who waits, if nobody else comes. `None`: it does not wait any more.
    pub(super) fn ahead_of(&self, ticket: Ticket) -> Option<usize> {
        let line = self.line(ticket.lane);
        let place = line
            .of(ticket.purpose)
            .binary_search_by_key(&ticket.number, |waiter| waiter.number)
            .ok()?;
        let before = match ticket.purpose {
            Purpose::Change => place,
            Purpose::Read => line.changes.len() + place,
        };
        Some(self.with_other_lane(ticket.lane, before))
    }

    /// Joins the end of a line; `wake` is told when it is one's turn.
    pub(super) fn push(&mut self, lane: Lane, purpose: Purpose, wake: Arc<Notify>) -> Ticket {
        let number = self.next_number;
        self.next_number += 1;
        let waiter = Waiter { number, wake };
        self.line_mut(lane).of_mut(purpose).push_back(waiter);
        Ticket {
            lane,
            purpose,
            number,
        }
    }

    /// Whoever goes next.
    pub(super) fn head(&self) -> Option<&Notify> {
        let line = self.line(self.next_lane());
        let waiter = line.changes.front().or(line.reads.front())?;
        Some(&waiter.wake)
    }

    /// Lets the next one go.
    pub(super) fn pop(&mut self) -> Option<Arc<Notify>> {
        let lane = self.next_lane();
        let next = self.line_mut(lane);
        let waiter = next
            .changes
            .pop_front()
            .or_else(|| next.reads.pop_front())?;
        self.turn = other(lane);
        Some(waiter.wake)
    }

    /// Gives up a place. Tells whether it was still held.
    pub(super) fn remove(&mut self, ticket: Ticket) -> bool {
        let waiters = self.line_mut(ticket.lane).of_mut(ticket.purpose);
        let place = waiters.binary_search_by_key(&ticket.number, |waiter| waiter.number);
        place.is_ok_and(|place| waiters.remove(place).is_some())
    }

    fn next_lane(&self) -> Lane {
        if self.line(self.turn).len() > 0 {
            self.turn
        } else {
            other(self.turn)
        }
    }

    /// `before` of the same lane, and those of the other lane that take turns with them.
    fn with_other_lane(&self, lane: Lane, before: usize) -> usize {
        let turns = before + usize::from(self.turn != lane);
        before + turns.min(self.line(other(lane)).len())
    }

    fn line(&self, lane: Lane) -> &Line {
        match lane {
            Lane::Callers => &self.callers,
            Lane::Rounds => &self.rounds,
        }
    }

    fn line_mut(&mut self, lane: Lane) -> &mut Line {
        match lane {
            Lane::Callers => &mut self.callers,
            Lane::Rounds => &mut self.rounds,
        }
    }
}

fn other(lane: Lane) -> Lane {
    match lane {
        Lane::Callers => Lane::Rounds,
        Lane::Rounds => Lane::Callers,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Notify;

    use super::{Lane, Queue, Ticket};
    use crate::transport::Purpose;

    /// A queue with these, and their names and tickets.
    fn filled(who: &[(&'static str, Lane, Purpose)]) -> (Queue, Vec<(&'static str, Ticket)>) {
        let mut queue = Queue::new();
        let tickets = who
            .iter()
            .map(|(name, lane, purpose)| (*name, queue.push(*lane, *purpose, Arc::default())))
            .collect();
        (queue, tickets)
    }

    /// Lets all go, and tells in which order they did. Checks what was foretold before each.
    fn order(mut queue: Queue, mut tickets: Vec<(&'static str, Ticket)>) -> Vec<&'static str> {
        let mut order = Vec::new();
        while queue.len() > 0 {
            let next: Vec<usize> = (0..tickets.len())
                .filter(|at| queue.ahead_of(tickets[*at].1) == Some(0))
                .collect();
            assert_eq!(next.len(), 1, "one is next");
            queue.pop().unwrap();
            let (name, ticket) = tickets.remove(next[0]);
            assert_eq!(queue.ahead_of(ticket), None, "{name} went");
            order.push(name);
        }
        order
    }

    use Lane::{Callers, Rounds};
    use Purpose::{Change, Read};

    #[test]
    fn lanes_take_turns_and_changes_go_first_in_theirs() {
        let (queue, tickets) = filled(&[
            ("a1", Callers, Read),
            ("a2", Callers, Read),
            ("a3", Callers, Read),
            ("b1", Rounds, Read),
            ("b2", Rounds, Read),
            ("b3", Rounds, Change),
            ("b4", Rounds, Change),
            ("b5", Rounds, Read),
        ]);
        assert_eq!(
            order(queue, tickets),
            ["a1", "b3", "a2", "b4", "a3", "b1", "b2", "b5"]
        );
    }

    #[test]
    fn a_lane_that_was_empty_does_not_make_up_for_it() {
        let (mut queue, _) = filled(&[("a1", Callers, Read), ("a2", Callers, Read)]);
        queue.pop();
        queue.pop();
        let (a3, b1) = (
            queue.push(Callers, Read, Arc::default()),
            queue.push(Rounds, Read, Arc::default()),
        );
        let b2 = queue.push(Rounds, Read, Arc::default());
        assert_eq!(
            order(queue, vec![("a3", a3), ("b1", b1), ("b2", b2)]),
            ["b1", "a3", "b2"]
        );
    }

    #[test]
    fn a_newcomer_is_told_how_many_go_before() {
        let (queue, _) = filled(&[
            ("a1", Callers, Read),
            ("b1", Rounds, Read),
            ("b2", Rounds, Read),
            ("b3", Rounds, Read),
        ]);
        assert_eq!(queue.ahead_of_next(Callers, Read), 2);
        assert_eq!(queue.ahead_of_next(Callers, Change), 0);
        assert_eq!(queue.ahead_of_next(Rounds, Read), 4);
        assert_eq!(queue.ahead_of_next(Rounds, Change), 1);
    }

    #[test]
    fn a_place_that_is_given_up_is_taken_by_the_next() {
        let wake = Arc::new(Notify::new());
        let mut queue = Queue::new();
        let first = queue.push(Callers, Read, Arc::default());
        let second = queue.push(Callers, Read, Arc::clone(&wake));
        assert!(queue.remove(first));
        assert!(!queue.remove(first));
        assert_eq!(queue.ahead_of(second), Some(0));
        assert!(std::ptr::eq(queue.head().unwrap(), Arc::as_ptr(&wake)));
        assert!(Arc::ptr_eq(&queue.pop().unwrap(), &wake));
        assert!(queue.head().is_none() && queue.pop().is_none());
    }
}
