//! The leases that this process holds, and how it keeps them.

use std::{collections::HashMap, pin::pin, sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    task::{Id, JoinSet},
    time::{Interval, MissedTickBehavior, interval},
};

use crate::{
    domain::{operation::OperationId, service::HeldLease, store::Lease},
    operations::{Shared, kill_point::kill_point, round},
};

/// How long a lease holds without being renewed. An operation whose driver died is taken over after
/// this and at most the longest sleep of another process: within ten seconds, with one to spare.
const LEASE: Duration = Duration::from_secs(8);
/// How long something may be sent under a lease. It is shorter, so that what is sent arrives while
/// the lease holds.
const LEASE_FOR_SENDING: Duration = Duration::from_secs(7);
/// How often leases are renewed: three tries before one runs out.
const RENEWAL: Duration = Duration::from_secs(2);

/// The leases of rounds, by the tasks that run them.
pub(super) struct Leases {
    shared: Arc<Shared>,
    held: HashMap<Id, Held>,
    /// When they are to be renewed.
    renewal: Interval,
    /// The renewal that is under way, if one is.
    renewing: JoinSet<()>,
}

struct Held {
    operation: OperationId,
    lease: HeldLease,
}

impl Leases {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let mut renewal = interval(RENEWAL);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            shared,
            held: HashMap::new(),
            renewal,
            renewing: JoinSet::new(),
        }
    }

    /// What is asked of the record at this moment.
    pub(super) fn terms(&self, now: Timestamp) -> Lease {
        Lease {
            owner: self.shared.owner.clone(),
            duration: LEASE,
            now,
            longest_rest: round::longest_rest(&self.shared.settings),
        }
    }

    /// Until when something may be sent under a lease that is about to be asked for, on the clock's
    /// uptime. The lease itself begins later than this moment.
    pub(super) fn until(&self) -> Duration {
        self.shared.clock.uptime() + LEASE_FOR_SENDING
    }

    /// The lease on an operation that was claimed. A round of this process can have outlived its
    /// own: it must not take this one for that.
    pub(super) fn take(&mut self, operation: OperationId, until: Duration) -> HeldLease {
        self.held.retain(|_, held| {
            let is_another = held.operation != operation;
            if !is_another {
                held.lease.end();
            }
            is_another
        });
        HeldLease::new(Arc::clone(&self.shared.clock), until)
    }

    /// Keeps a lease for the round that this task runs.
    pub(super) fn keep(&mut self, task: Id, operation: OperationId, lease: HeldLease) {
        self.held.insert(task, Held { operation, lease });
    }

    /// Keeps the lease of this task's round no longer, and tells what it was on.
    pub(super) fn give_up(&mut self, task: Id) -> Option<OperationId> {
        self.held.remove(&task).map(|held| held.operation)
    }

    /// Renews all of them in time while this is done.
    pub(super) async fn keep_up_during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                () = self.keep_up() => {}
                done = &mut work => return done,
            }
        }
    }

    /// Returns when a renewal has begun or is over. Whoever breaks this off and asks again misses
    /// nothing.
    pub(super) async fn keep_up(&mut self) {
        tokio::select! {
            biased;
            _ = self.renewal.tick() => self.renew(),
            () = renewed(&mut self.renewing) => {}
        }
    }

    /// Begins to renew all of them, unless that is still under way.
    fn renew(&mut self) {
        if self.held.is_empty() || !self.renewing.is_empty() {
            return;
        }
        let held: HashMap<OperationId, HeldLease> = self
            .held
            .values()
            .map(|held| (held.operation, held.lease.clone()))
            .collect();
        let shared = Arc::clone(&self.shared);
        let terms = self.terms(shared.clock.now());
        let until = self.until();
        self.renewing
            .spawn_local(async move { renew(&shared, &terms, held, until).await });
    }
}

/// Returns when a renewal is over. If none is under way it never does.
async fn renewed(renewing: &mut JoinSet<()>) {
    match renewing.join_next().await {
        Some(Ok(())) => {}
        // The leases run out.
        Some(Err(_)) => tracing::error!("the renewal of leases panicked"),
        None => std::future::pending().await,
    }
}

async fn renew(
    shared: &Shared,
    terms: &Lease,
    held: HashMap<OperationId, HeldLease>,
    until: Duration,
) {
    let ids: Vec<OperationId> = held.keys().copied().collect();
    kill_point!("engine.renew.before");
    let renewed = shared.store.renew(terms, &ids).await;
    kill_point!("engine.renew.after");
    match renewed {
        Ok(renewed) => {
            for lease in renewed.iter().filter_map(|id| held.get(id)) {
                lease.extend(until);
            }
        }
        Err(error) => {
            shared.metrics.store_faults.inc();
            tracing::error!(
                error = error.with_causes(),
                "leases cannot be renewed; trying again"
            );
            kill_point!("engine.renew.failed");
        }
    }
}
