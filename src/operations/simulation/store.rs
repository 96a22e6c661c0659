//! The record as one process reaches it: slowly, and with answers that get lost, before or after
//! the commit.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use jiff::Timestamp;

use super::{Mischief, Scene, SharedScene};
use crate::domain::{
    history::Change,
    operation::{Operation, OperationEvent, OperationId, Status},
    service::{CallerName, ProjectName, ServiceName},
    store::{
        Claim, Counts, Creation, Former, Hold, IdempotencyKey, Joining, Lease, NewOperation,
        OperationQuery, OperationStore, Page, Progress, Running, StoreError,
    },
    task::TaskRef,
};

/// How long a call takes at the most.
const SLOW: Duration = Duration::from_secs(9);

/// The record as one process reaches it.
pub(super) struct Store {
    scene: SharedScene,
    process: usize,
}

impl Store {
    pub(super) fn new(scene: &Arc<Mutex<Scene>>, process: usize) -> Self {
        Self {
            scene: Arc::clone(scene),
            process,
        }
    }

    async fn call<T: Send>(
        &self,
        what: &'static str,
        act: impl FnOnce(&mut Scene) -> Result<T, StoreError> + Send,
    ) -> Result<T, StoreError> {
        let (there, back, fault) = self.scene.lock().unwrap().plan_call(what);
        tokio::time::sleep(there).await;
        let done = {
            let mut scene = self.scene.lock().unwrap();
            scene.catch_up();
            if fault == Some(false) {
                scene.note(|| format!("process {}: {what} fails before it is done", self.process));
                return Err(StoreError::Unavailable("it is away".into()));
            }
            act(&mut scene)
        };
        tokio::time::sleep(back).await;
        if fault == Some(true) {
            self.scene
                .lock()
                .unwrap()
                .note(|| format!("process {}: the answer to {what} is lost", self.process));
            return Err(StoreError::Unsure("its answer is lost".into()));
        }
        done
    }
}

impl Scene {
    /// How long a call takes there and back, and whether it fails: before (`false`) or after
    /// (`true`) it is done.
    fn plan_call(&mut self, what: &str) -> (Duration, Duration, Option<bool>) {
        if self.records.slow == Some(what) {
            return (SLOW / 2, SLOW / 2, None);
        }
        if self.records.losing == Some(what) {
            self.records.has_lost = !self.records.has_lost;
            return (
                Duration::ZERO,
                Duration::ZERO,
                self.records.has_lost.then_some(true),
            );
        }
        if self.records.failing == Some(what) {
            return (Duration::ZERO, Duration::ZERO, Some(false));
        }
        let pace = if !self.is_calm && self.rng.u8(..30) == 0 {
            4000
        } else {
            20
        };
        let fault =
            (!self.is_calm && self.rng.f64() < self.records.fault_rate).then(|| self.rng.bool());
        if fault.is_some() || pace > 20 {
            self.disturb();
        }
        let mut part = || Duration::from_millis(self.rng.u64(1..pace));
        (part(), part(), fault)
    }
}

#[async_trait]
impl OperationStore for Store {
    async fn create(&self, fresh: &NewOperation) -> Result<Creation, StoreError> {
        self.call("create", |scene| Ok(scene.create(fresh))).await
    }

    async fn join(
        &self,
        id: OperationId,
        caller: &CallerName,
        key: Option<&IdempotencyKey>,
        at: Timestamp,
    ) -> Result<Joining, StoreError> {
        self.call("join", |scene| Ok(scene.join(id, caller, key, at)))
            .await
    }

    async fn recall(
        &self,
        caller: &CallerName,
        key: &str,
    ) -> Result<Option<(Operation, String)>, StoreError> {
        self.call("recall", |scene| {
            let known = scene.records.keys.get(&(caller.clone(), key.to_owned()));
            Ok(known.and_then(|(id, fingerprint)| {
                let row = scene.records.rows.get(id)?;
                Some((row.operation.clone(), fingerprint.clone()))
            }))
        })
        .await
    }

    async fn find(&self, id: OperationId) -> Result<Option<Operation>, StoreError> {
        self.call("find", |scene| {
            scene.count("find");
            if scene.records.unreadable == Some(id) {
                return Err(StoreError::Unreadable(id.to_string()));
            }
            Ok(scene.records.rows.get(&id).map(|row| row.operation.clone()))
        })
        .await
    }

    async fn progress(
        &self,
        ids: &[OperationId],
    ) -> Result<HashMap<OperationId, Progress>, StoreError> {
        self.call("progress", |scene| {
            let rows = &scene.records.rows;
            let found = ids.iter().filter_map(|id| {
                let one = &rows.get(id)?.operation;
                let progress = Progress {
                    version: one.version,
                    events: i64::try_from(one.events.len()).unwrap(),
                    has_ended: one.status != Status::Running,
                };
                Some((*id, progress))
            });
            Ok(found.collect())
        })
        .await
    }

    async fn running(&self, task: &TaskRef) -> Result<Option<Running>, StoreError> {
        self.call("running", |scene| {
            let mut all = scene.records.all();
            let found = all.find(|one| one.task == *task && one.status == Status::Running);
            Ok(found.map(|one| Running {
                id: one.id,
                callers: one.callers.clone(),
            }))
        })
        .await
    }

    async fn former(&self, task: &TaskRef, limit: u32) -> Result<Vec<Former>, StoreError> {
        self.call("former", |scene| {
            let of_task = scene.records.all().filter(|one| one.task == *task);
            let mut former: Vec<_> = of_task
                .map(|one| Former {
                    id: one.id,
                    record: Some((one.status, one.history.clone())),
                })
                .collect();
            former.reverse();
            former.truncate(limit as usize);
            Ok(former)
        })
        .await
    }

    async fn list(&self, query: &OperationQuery) -> Result<Page, StoreError> {
        self.call("list", |scene| {
            let fits = |one: &&Operation| {
                query.task.as_ref().is_none_or(|task| one.task == *task)
                    && query.status.is_none_or(|status| one.status == status)
                    && (!query.sent_delete || one.history.was_sent(Change::Delete))
            };
            let mut found: Vec<_> = scene.records.all().filter(fits).cloned().collect();
            found.reverse();
            found.truncate(query.limit as usize);
            Ok(Page {
                operations: found,
                next: None,
            })
        })
        .await
    }

    async fn claim(&self, lease: &Lease, limit: u32) -> Result<Claim, StoreError> {
        self.call("claim", |scene| Ok(scene.claim(lease, limit)))
            .await
    }

    async fn renew(
        &self,
        lease: &Lease,
        held: &[OperationId],
    ) -> Result<Vec<OperationId>, StoreError> {
        self.call("renew", |scene| Ok(scene.renew(lease, held)))
            .await
    }

    async fn save(
        &self,
        operation: &mut Operation,
        events: &[OperationEvent],
        hold: Hold,
    ) -> Result<(), StoreError> {
        let mut written = operation.clone();
        let saved = self
            .call("save", |scene| {
                if !scene.records.is_current(&written) {
                    scene.note(|| {
                        format!("process {}: save of {} is stale", self.process, written.id)
                    });
                    return Err(StoreError::Stale);
                }
                scene.commit(&mut written, events, hold);
                if hold == Hold::Keep && !scene.is_calm {
                    match scene.rng.u8(..40) {
                        0 => scene.make_mischief(Mischief::Crash(self.process)),
                        1 => scene.make_mischief(Mischief::Freeze(self.process)),
                        _ => {}
                    }
                }
                Ok(written)
            })
            .await?;
        *operation = saved;
        Ok(())
    }

    async fn remove_ended(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        self.call("remove", |scene| {
            scene.count("removal");
            Ok(scene.remove(before, limit))
        })
        .await
    }

    async fn owed_ends(&self, _limit: u32) -> Result<Vec<Operation>, StoreError> {
        Ok(Vec::new())
    }

    async fn ends_told(&self, _ids: &[OperationId]) -> Result<(), StoreError> {
        Ok(())
    }

    async fn count_running(
        &self,
        project: &ProjectName,
        service: &ServiceName,
    ) -> Result<u64, StoreError> {
        self.call("count", |scene| {
            let is_one = |one: &&Operation| {
                one.status == Status::Running
                    && one.task.project == *project
                    && one.task.service == *service
            };
            Ok(scene.records.all().filter(is_one).count() as u64)
        })
        .await
    }

    async fn count_running_of(&self, caller: &CallerName) -> Result<u64, StoreError> {
        self.call("count", |scene| {
            let is_one =
                |one: &&Operation| one.status == Status::Running && one.requested_by == *caller;
            Ok(scene.records.all().filter(is_one).count() as u64)
        })
        .await
    }

    async fn look_again(&self) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        Ok(Counts::default())
    }

    async fn check(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
