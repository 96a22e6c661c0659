//! Looks at a task that callers share.
//!
//! Callers who want to know at the same moment how a task stands share one look, on whatever thread
//! they are served, and what it showed serves those who come within `upstream.freshness` from when
//! it began. A failure serves nobody but those who waited for it.
//!
//! A look is a task of its own on the thread of the caller who came first, so that it ends as it
//! would have whoever leaves. It is known from its beginning on, and what this process does to a
//! task, or sees of it with a fresh look, makes it forgotten: whatever began before then serves
//! nobody who comes later.

use std::{
    collections::HashMap,
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use tokio::{
    sync::watch,
    task::spawn_local,
    time::{Instant, timeout_at},
};
use tracing::Instrument as _;

use super::metrics::Metrics;
use crate::domain::{
    service::{
        Clearance, MigrationService, Patience, ProjectName, Receipt, ServiceName, TaskPage,
        UpstreamError,
    },
    start::StartRequest,
    task::{Task, TaskId, TaskRef},
};

/// The most looks that are known at a time, unless more are under way: those are as many as the
/// requests that are answered.
const LOOKS_MAX: usize = 1000;

type Answer = Result<Option<Arc<Task>>, UpstreamError>;

/// The looks of this process, on whatever thread. Clones are the same.
#[derive(Clone)]
pub(super) struct Looks(Arc<Shared>);

struct Shared {
    freshness: Duration,
    known: Mutex<HashMap<TaskRef, Look>>,
    metrics: Metrics,
}

/// A look that is under way, or that has shown something a short while ago.
struct Look {
    /// Before anything was sent.
    begun: Instant,
    /// `None` as long as there is no answer.
    answer: watch::Receiver<Option<Answer>>,
}

impl Look {
    fn serves(&self, freshness: Duration) -> bool {
        match &*self.answer.borrow() {
            None => true,
            Some(Ok(_)) => self.begun.elapsed() < freshness,
            Some(Err(_)) => false,
        }
    }
}

impl Looks {
    /// `freshness`: how old an answer may be that serves again.
    pub(super) fn new(freshness: Duration, metrics: Metrics) -> Self {
        Self(Arc::new(Shared {
            freshness,
            known: Mutex::default(),
            metrics,
        }))
    }

    /// Lets callers of a service share their looks.
    pub(super) fn shared_by(
        &self,
        service: Rc<dyn MigrationService>,
        project: ProjectName,
        name: ServiceName,
    ) -> Rc<dyn MigrationService> {
        Rc::new(Sharing {
            service,
            project,
            name,
            looks: self.clone(),
        })
    }

    /// A look that serves whoever comes at this moment, and what is to be done for it if it is to
    /// begin.
    fn join(&self, task: &TaskRef) -> (watch::Receiver<Option<Answer>>, Option<Beginning>) {
        let mut known = self.known();
        let look = known.get(task).filter(|look| look.serves(self.0.freshness));
        if let Some(look) = look {
            return (look.answer.clone(), None);
        }
        let (sender, answer) = watch::channel(None);
        let begun = Instant::now();
        if known.len() >= LOOKS_MAX {
            forget_oldest_answer(&mut known);
        }
        let look = Look {
            begun,
            answer: answer.clone(),
        };
        known.insert(task.clone(), look);
        let beginning = Beginning {
            looks: self.clone(),
            task: task.clone(),
            fresh_until: begun + self.0.freshness,
            sender,
        };
        (answer, Some(beginning))
    }

    /// Whoever comes later is not served by what began before.
    fn forget(&self, task: &TaskRef) {
        self.known().remove(task);
    }

    fn known(&self) -> MutexGuard<'_, HashMap<TaskRef, Look>> {
        // Every change of the map is complete in itself.
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes room for a look. They are searched through one by one, which takes far less than the look.
fn forget_oldest_answer(known: &mut HashMap<TaskRef, Look>) {
    let answered = known
        .iter()
        .filter(|(_, look)| look.answer.borrow().is_some());
    let oldest = answered.min_by_key(|(_, look)| look.begun);
    if let Some(task) = oldest.map(|(task, _)| task.clone()) {
        known.remove(&task);
    }
}

/// A look that is to be made. It is known until this is dropped.
struct Beginning {
    looks: Looks,
    task: TaskRef,
    /// Until when it can serve.
    fresh_until: Instant,
    sender: watch::Sender<Option<Answer>>,
}

impl Beginning {
    /// Looks, tells those who wait, and stays for as long as the answer is fresh and known.
    async fn look(self, service: Rc<dyn MigrationService>) {
        let seen = service.show(&self.task.id).await;
        let is_kept = seen.is_ok();
        let answer = seen.map(|task| task.map(Arc::new));
        self.sender.send_replace(Some(answer));
        if is_kept {
            // Nobody has it any more once it is forgotten.
            _ = timeout_at(self.fresh_until, self.sender.closed()).await;
        }
    }
}

impl Drop for Beginning {
    fn drop(&mut self) {
        let own = self.sender.subscribe();
        let mut known = self.looks.known();
        // Another look may have taken its place.
        let is_own = |look: &Look| look.answer.same_channel(&own);
        if known.get(&self.task).is_some_and(is_own) {
            known.remove(&self.task);
        }
    }
}

/// A service whose callers share their looks.
struct Sharing {
    service: Rc<dyn MigrationService>,
    project: ProjectName,
    name: ServiceName,
    looks: Looks,
}

impl Sharing {
    fn task(&self, id: &TaskId) -> TaskRef {
        TaskRef {
            project: self.project.clone(),
            service: self.name.clone(),
            id: id.clone(),
        }
    }

    /// After a change that may have had an effect: those who see its answer must not be shown what
    /// was before.
    fn changed(
        &self,
        id: &TaskId,
        result: Result<Receipt, UpstreamError>,
    ) -> Result<Receipt, UpstreamError> {
        self.looks.forget(&self.task(id));
        result
    }
}

#[async_trait(?Send)]
impl MigrationService for Sharing {
    async fn show(&self, id: &TaskId) -> Result<Option<Task>, UpstreamError> {
        let seen = self.service.show(id).await;
        // Callers are told what follows from this, so that they must not see anything older.
        self.looks.forget(&self.task(id));
        seen
    }

    async fn glance(&self, id: &TaskId) -> Answer {
        let (mut answer, beginning) = self.looks.join(&self.task(id));
        let by = if beginning.is_some() {
            "call"
        } else {
            "shared-answer"
        };
        self.looks.0.metrics.look(self.name.as_str(), by);
        if let Some(beginning) = beginning {
            // Nobody holds on to it, since it is not one caller's: it ends with the time limit of
            // an exchange and with what is fresh, or with its thread.
            let look = beginning.look(Rc::clone(&self.service));
            spawn_local(look.in_current_span());
        }
        let told = answer.wait_for(Option::is_some).await;
        let told = told.ok().and_then(|told| (*told).clone());
        match told {
            Some(seen) => seen,
            // The thread that looked is gone.
            None => self.service.glance(id).await,
        }
    }

    async fn list(
        &self,
        offset: u64,
        limit: u32,
        patience: &Patience,
    ) -> Result<TaskPage, UpstreamError> {
        self.service.list(offset, limit, patience).await
    }

    async fn pause(&self, id: &TaskId, clearance: &Clearance) -> Result<Receipt, UpstreamError> {
        let result = self.service.pause(id, clearance).await;
        self.changed(id, result)
    }

    async fn start(
        &self,
        id: &TaskId,
        request: &StartRequest,
        clearance: &Clearance,
    ) -> Result<Receipt, UpstreamError> {
        let result = self.service.start(id, request, clearance).await;
        self.changed(id, result)
    }

    async fn delete(&self, id: &TaskId, clearance: &Clearance) -> Result<Receipt, UpstreamError> {
        let result = self.service.delete(id, clearance).await;
        self.changed(id, result)
    }
}
