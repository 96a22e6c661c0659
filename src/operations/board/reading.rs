//! One reading of a service's list.

use std::collections::HashMap;

use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::{
    domain::{
        clock::Clock,
        decide::Sight,
        service::{MigrationService, Patience, TaskPage, UpstreamError},
        task::TaskId,
    },
    operations::kill_point::kill_point,
};

/// How many pages are asked for at the same time: a long list would take too long one by one, and
/// more would crowd out others.
const PAGES_AT_ONCE: usize = 4;

/// How the tasks of a service stood in its list, page after page.
pub(super) struct Reading {
    /// When it began, before the first page was asked for, as exactly as the record keeps times.
    pub(super) began_at: Timestamp,
    pub(super) began: Instant,
    /// The pages that were read.
    pub(super) pages: u64,
    rows: HashMap<TaskId, Sight>,
}

/// The list is longer than a reading may be.
pub(super) struct TooLong {
    /// How many tasks are in it.
    pub(super) tasks: u64,
}

impl Reading {
    /// Reads the whole list as long as its first page says that it is, unless that is more than
    /// `pages_max` pages. Tasks can come and go between two pages, so that one may be missing or be
    /// there twice; of two rows the later one counts.
    pub(super) async fn of(
        port: &dyn MigrationService,
        clock: &dyn Clock,
        page_limit: u32,
        pages_max: u64,
    ) -> Result<Result<Self, TooLong>, UpstreamError> {
        // Before the other, so that it is older than the longest wait when a round is due that
        // waited so long for it.
        let began = Instant::now();
        let mut reading = Self {
            began_at: to_the_microsecond(clock.now()),
            began,
            pages: 0,
            rows: HashMap::new(),
        };
        let first = page(port, 0, page_limit).await?;
        let total = first.total;
        // A service may give fewer rows than it was asked for.
        let step = u64::try_from(first.rows.len()).unwrap_or(u64::MAX);
        let pages = total.checked_div(step).map_or(1, |_| total.div_ceil(step));
        if pages > pages_max {
            return Ok(Err(TooLong { tasks: total }));
        }
        reading.add(first);
        let others = (1..pages).map(|number| page(port, number.saturating_mul(step), page_limit));
        let mut others = stream::iter(others).buffered(PAGES_AT_ONCE);
        while let Some(page) = others.next().await {
            reading.add(page?);
        }
        Ok(Ok(reading))
    }

    fn add(&mut self, page: TaskPage) {
        self.pages += 1;
        let readable = page.rows.into_iter().flatten();
        let rows = readable.map(|task| (task.reference.id.clone(), Sight::from(&task)));
        self.rows.extend(rows);
    }

    /// The row of a task, if there is one that can be read.
    pub(super) fn row(&self, id: &TaskId) -> Option<Sight> {
        self.rows.get(id).copied()
    }
}

fn to_the_microsecond(moment: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(moment.as_microsecond()).unwrap_or(moment)
}

async fn page(
    port: &dyn MigrationService,
    offset: u64,
    limit: u32,
) -> Result<TaskPage, UpstreamError> {
    kill_point!("board.page.before");
    let page = port.list(offset, limit, &Patience::default()).await;
    kill_point!("board.page.after");
    page
}
