//! The board: readings of a service's list that stand in for looks at single tasks.
//!
//! Many operations that wait for tasks of one service would ask it the same thing one after the
//! other. Where enough of them run, one reading of the list answers them all. What a row can lead
//! to is decided by [`waits_by_row`](crate::domain::decide::waits_by_row): to wait on, or to a look
//! at the task itself; never to a change and never to an end.
//!
//! A reading serves for the longest wait between two looks (`poll_max`), everybody to whom it is
//! news: who was told of no reading since it began, as the moment says at which the round is due.
//! The next round is then due one wait after the reading *began*, and not a moment sooner or later:
//! between two pieces of news no more time passes than between two looks, and of those who have
//! come to the longest wait each is served by every reading, whichever process made the last one.
//! They come back for the next one together. The first of them reads, and the others wait for it.
//!
//! Lists can lag behind looks. Whoever has a reading made looks at its own task as well, so that
//! each reading is compared with one look; if they differ, all look for themselves for a while.
//!
//! A list that cannot be read sends everybody away, for a time that is different for each, and is
//! tried again soon. If it fails again and again they look for themselves for a while, but not all
//! at the same moment.
//!
//! All this is in memory and may be lost: the record says when who is to look, and a look is as
//! good as a row.

mod list_reader;
mod reading;

use std::{cell::RefCell, collections::HashMap, rc::Rc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Mutex;

use self::list_reader::{Asker, ListReader};
use super::{Shared, kill_point::kill_point};
use crate::domain::{
    decide::Sight,
    operation::Operation,
    service::{ProjectName, ServiceName, Services},
    task::TaskRef,
};

/// So many looks of its own, at least, an operation has before its deadline.
const LAST_LOOKS: u32 = 6;

/// What makes a reading of the list cheaper than looks at single tasks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Economy {
    /// So many operations run on tasks of a service of a project, and its list begins to be read.
    pub(super) from: u64,
    /// Fewer run, and it is read no longer.
    pub(super) down_to: u64,
    /// A reading may have one page for so many of them.
    pub(super) operations_per_page: u64,
}

impl Economy {
    /// How the engine reckons. An account can have more tasks than anybody waits for: at worst a
    /// reading costs half of the looks that it stands in for.
    pub(super) const ENGINE: Self = Self {
        from: 20,
        down_to: 15,
        operations_per_page: 2,
    };
}

/// What an operation is told instead of looking.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Told {
    /// Nothing: it is to look for itself.
    Nothing,
    /// How its task stood in a reading.
    Row {
        /// The parts of the row that decisions rest on.
        sight: Sight,
        /// When the reading began.
        read_at: Timestamp,
    },
    /// How its task stood in a reading that was just made: it is to look for itself all the same,
    /// and to tell the board if that showed another state.
    Check(Sight),
    /// The list could not be read: it is to come again after its wait.
    ComeAgain,
}

/// A service of a project.
type Key = (ProjectName, ServiceName);

/// The board of an engine, on its thread.
pub(super) struct Board {
    economy: Economy,
    /// One for each service of a project that was asked about.
    readers: RefCell<HashMap<Key, Rc<Mutex<ListReader>>>>,
}

impl Board {
    pub(super) fn new(economy: Economy) -> Self {
        Self {
            economy,
            readers: RefCell::default(),
        }
    }

    /// What there is to know about an operation's task. Whoever asks first reads the list if that
    /// is worth it, and those who ask meanwhile wait for it.
    pub(super) async fn ask(
        &self,
        shared: &Shared,
        services: &Services,
        operation: &Operation,
    ) -> Told {
        let task = &operation.task;
        // A first look mostly leads to a change, which rests on a look in any case.
        if operation.history.waits == 0 || is_late(operation, shared) {
            return Told::Nothing;
        }
        let traits = services.named(task.service.as_str());
        let (Some(service), Some(traits)) = (services.of(task), traits) else {
            return Told::Nothing;
        };
        let reader = Rc::clone(
            self.readers
                .borrow_mut()
                .entry((task.project.clone(), task.service.clone()))
                .or_default(),
        );
        let asker = Asker {
            shared,
            port: &*service.port,
            page_limit: traits.page_limit,
            economy: self.economy,
            operation,
        };
        // Whoever reads holds the lock.
        kill_point!("board.lock.before");
        let mut reader = reader.lock().await;
        kill_point!("board.lock.after");
        reader.ask(&asker).await
    }

    /// A look showed a task in another state than the reading that was made just before it, by
    /// which its operation would have waited on. Whoever waits for such a change would wait for as
    /// long as the list lags behind, so operations look for themselves for a while.
    ///
    /// Never waits, since the look grows old: a reading that is under way is compared with a look
    /// of its own.
    pub(super) fn distrust(&self, shared: &Shared, task: &TaskRef) {
        let key = (task.project.clone(), task.service.clone());
        let readers = self.readers.borrow();
        if let Some(Ok(mut reader)) = readers.get(&key).map(|reader| reader.try_lock()) {
            reader.distrust(shared, task);
        }
    }

    /// A service is left alone for this long, as a look was told. If its list could not be read
    /// before, that was not for the list's sake: it is read again as soon as anything is, so that
    /// those who wait do not all look then.
    pub(super) fn spare(&self, shared: &Shared, task: &TaskRef, wait: Option<Duration>) {
        let key = (task.project.clone(), task.service.clone());
        let readers = self.readers.borrow();
        if let Some(Ok(mut reader)) = readers.get(&key).map(|reader| reader.try_lock()) {
            reader.spare(shared, wait);
        }
    }

    /// Forgets readings that nobody asks for any more.
    pub(super) fn keep_house(&self, shared: &Shared) {
        for ((project, service), reader) in &*self.readers.borrow() {
            if let Ok(mut reader) = reader.try_lock() {
                reader.retire(project, service, shared.settings.poll_max);
            }
        }
    }
}

/// Whether so little is left until the deadline that an operation is to see for itself: a row that
/// does not change with its task must not be why it fails. A tenth of its time, but some looks at
/// least.
fn is_late(operation: &Operation, shared: &Shared) -> bool {
    let whole = operation.deadline_at.duration_since(operation.created_at);
    let looks = shared.settings.poll_max.saturating_mul(LAST_LOOKS);
    let looks = SignedDuration::try_from(looks).unwrap_or(SignedDuration::MAX);
    let last = (whole / 10).max(looks).min(whole / 2);
    operation.deadline_at.duration_since(shared.clock.now()) <= last
}
