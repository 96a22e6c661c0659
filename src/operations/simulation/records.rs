//! A record of operations in memory: what the processes share and what survives their crashes.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use super::Scene;
use crate::{
    domain::{
        operation::{EVENTS_MAX, EventKind, Operation, OperationEvent, OperationId, Status},
        service::CallerName,
        store::{
            CLOCKS_APART, Claim, Creation, Hold, IdempotencyKey, Joining, Lease, Leased,
            NewOperation,
        },
    },
    operations::later,
};

/// An operation and who drives it.
pub(super) struct Row {
    pub(super) operation: Operation,
    lease: Option<(String, Timestamp)>,
    kept_for: Option<String>,
}

#[derive(Default)]
pub(super) struct Records {
    pub(super) rows: BTreeMap<OperationId, Row>,
    pub(super) keys: HashMap<(CallerName, String), (OperationId, String)>,
    /// One that nobody can read.
    pub(super) unreadable: Option<OperationId>,
    /// What takes nearly as long as anything can.
    pub(super) slow: Option<&'static str>,
    /// What fails.
    pub(super) failing: Option<&'static str>,
    /// What loses every other answer.
    pub(super) losing: Option<&'static str>,
    pub(super) has_lost: bool,
    /// How likely a call fails.
    pub(super) fault_rate: f64,
}

impl Records {
    pub(super) fn all(&self) -> impl Iterator<Item = &Operation> {
        self.rows.values().map(|row| &row.operation)
    }

    pub(super) fn is_running(&self, id: OperationId) -> bool {
        self.rows
            .get(&id)
            .is_some_and(|row| row.operation.status == Status::Running)
    }

    pub(super) fn is_held(&self, id: OperationId, owner: &str, now: Timestamp) -> bool {
        let lease = self.rows.get(&id).and_then(|row| row.lease.as_ref());
        lease.is_some_and(|(holder, until)| holder == owner && *until > now)
    }

    /// Whether somebody drives an operation.
    pub(super) fn is_driven(&self) -> bool {
        self.rows.values().any(|row| row.lease.is_some())
    }

    /// Whether somebody drives an operation whose lease has ended.
    pub(super) fn has_lapsed(&self, now: Timestamp) -> bool {
        let mut leases = self.rows.values().filter_map(|row| row.lease.as_ref());
        leases.any(|(_, until)| *until <= now)
    }

    pub(super) fn is_current(&self, operation: &Operation) -> bool {
        self.rows.get(&operation.id).is_some_and(|row| {
            row.operation.status == Status::Running && row.operation.version == operation.version
        })
    }

    fn is_followed(&self, fresh: &Operation, known: OperationId) -> bool {
        self.all()
            .any(|one| one.task == fresh.task && one.id > known)
    }

    fn key_is_free(&self, caller: &CallerName, key: Option<&IdempotencyKey>) -> bool {
        key.is_none_or(|key| !self.keys.contains_key(&(caller.clone(), key.key.clone())))
    }

    fn keep_key(&mut self, id: OperationId, caller: &CallerName, key: Option<&IdempotencyKey>) {
        if let Some(key) = key {
            let known = (id, key.fingerprint.clone());
            self.keys.insert((caller.clone(), key.key.clone()), known);
        }
    }
}

impl Scene {
    pub(super) fn create(&mut self, fresh: &NewOperation) -> Creation {
        let NewOperation {
            operation,
            key,
            supersedes,
            owes_end: _,
            follows,
            running_max: _,
            kept_for,
        } = fresh;
        if follows.is_some_and(|known| self.records.is_followed(operation, known)) {
            return Creation::Lost;
        }
        let caller = &operation.requested_by;
        if let Some((old, _)) = supersedes
            && !self.records.is_current(old)
        {
            return Creation::Lost;
        }
        let replaced = supersedes.as_ref().map(|(old, _)| old.id);
        let running = self.records.all().find(|other| {
            other.task == operation.task
                && other.status == Status::Running
                && Some(other.id) != replaced
        });
        if let Some(running) = running {
            return Creation::Running(Box::new(running.clone()));
        }
        if !self.records.key_is_free(caller, key.as_ref()) {
            return Creation::Lost;
        }
        if let Some((old, events)) = supersedes {
            self.check_superseding(operation, old);
            self.commit(&mut old.clone(), events, Hold::Release);
        }
        self.check_creation(operation, replaced);
        self.records.keep_key(operation.id, caller, key.as_ref());
        let row = Row {
            operation: operation.clone(),
            lease: None,
            kept_for: kept_for.clone(),
        };
        self.records.rows.insert(operation.id, row);
        Creation::Created
    }

    pub(super) fn join(
        &mut self,
        id: OperationId,
        caller: &CallerName,
        key: Option<&IdempotencyKey>,
        at: Timestamp,
    ) -> Joining {
        if !self.records.is_running(id) || !self.records.key_is_free(caller, key) {
            return Joining::Lost;
        }
        self.records.keep_key(id, caller, key);
        if let Some(row) = self.records.rows.get_mut(&id)
            && !row.operation.callers.contains(caller)
        {
            row.operation.callers.push(caller.clone());
            append(
                &mut row.operation,
                &[OperationEvent {
                    at,
                    kind: EventKind::Joined,
                }],
            );
        }
        Joining::Joined
    }

    /// Leases, lowest look first, as the SQL does.
    pub(super) fn claim(&mut self, lease: &Lease, limit: u32) -> Claim {
        let now = lease.now;
        for row in self.records.rows.values_mut() {
            if row.operation.next_look_at > later(now, lease.longest_rest) {
                row.operation.next_look_at = now;
            }
        }
        let holder = |row: &Row| row.lease.clone().filter(|(_, until)| *until > now);
        let is_kept_for_another = |row: &Row| {
            let mut keeper = row.kept_for.iter();
            keeper.any(|keeper| *keeper != lease.owner)
                && now < later(row.operation.next_look_at, lease.duration + CLOCKS_APART)
        };
        let mut due: Vec<_> = self
            .records
            .rows
            .iter()
            .filter(|(_, row)| {
                let operation = &row.operation;
                operation.status == Status::Running
                    && operation.next_look_at <= now
                    && holder(row).is_none()
                    && !is_kept_for_another(row)
            })
            .map(|(id, row)| (row.operation.next_look_at, *id))
            .collect();
        due.sort();
        let mut claim = Claim::default();
        for (at, id) in due {
            if claim.operations.len() >= limit as usize {
                claim.next_due_at = Some(at);
                return claim;
            }
            let Some(row) = self.records.rows.get_mut(&id) else {
                continue;
            };
            let before = row
                .lease
                .replace((lease.owner.clone(), later(now, lease.duration)));
            row.operation.version += 1;
            let leased = Leased {
                operation: row.operation.clone(),
                taken_over: before
                    .as_ref()
                    .is_some_and(|(owner, _)| *owner != lease.owner),
            };
            self.check_claim(id, before.is_some());
            claim.operations.push(leased);
        }
        claim.next_due_at = self
            .records
            .rows
            .values()
            .filter(|row| row.operation.status == Status::Running)
            .filter_map(|row| match holder(row) {
                Some((owner, _)) if owner == lease.owner => None,
                Some((_, until)) => Some(until.max(row.operation.next_look_at)),
                None => Some(row.operation.next_look_at),
            })
            .filter(|at| *at > now)
            .min();
        claim
    }

    pub(super) fn renew(&mut self, lease: &Lease, held: &[OperationId]) -> Vec<OperationId> {
        let mut renewed = Vec::new();
        for id in held {
            if let Some(Row {
                lease: Some((owner, until)),
                ..
            }) = self.records.rows.get_mut(id)
                && *owner == lease.owner
            {
                *until = later(lease.now, lease.duration);
                renewed.push(*id);
            }
        }
        renewed
    }

    /// Writes an operation that is known to be current, and makes `operation` what is on record.
    pub(super) fn commit(
        &mut self,
        operation: &mut Operation,
        events: &[OperationEvent],
        hold: Hold,
    ) {
        self.check_commit(operation, hold);
        let Some(row) = self.records.rows.get_mut(&operation.id) else {
            return;
        };
        let callers = row.operation.callers.clone();
        let mut written = Operation {
            callers,
            events: row.operation.events.clone(),
            ..operation.clone()
        };
        written.version += 1;
        append(&mut written, events);
        if hold == Hold::Release || written.status != Status::Running {
            row.lease = None;
        }
        row.operation = written.clone();
        operation.version = written.version;
        operation.events = written.events;
    }

    pub(super) fn remove(&mut self, before: Timestamp, limit: u32) -> u64 {
        let mut over: Vec<_> = self
            .records
            .all()
            .filter(|operation| operation.status != Status::Running)
            .filter_map(|operation| {
                Some((
                    operation.finished_at.filter(|at| *at < before)?,
                    operation.id,
                ))
            })
            .collect();
        over.sort();
        over.truncate(limit as usize);
        for (_, id) in &over {
            self.records.rows.remove(id);
            self.records.keys.retain(|_, (of, _)| of != id);
        }
        over.len() as u64
    }
}

fn append(operation: &mut Operation, events: &[OperationEvent]) {
    for event in events {
        if operation.events.len() + 1 < EVENTS_MAX || event.kind == EventKind::Ended {
            operation.events.push(event.clone());
        }
    }
}
