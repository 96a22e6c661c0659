//! One reading of a service's list.

use std::collections::HashMap;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::domain::{
    clock::Clock,
    decide::Sight,
    service::{MigrationService, Patience, UpstreamError},
    task::TaskId,
};

/// How the tasks of a service stood in its list, page after page.
pub(super) struct Reading {
    /// When it began, before the first page was asked for.
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
    /// Reads the whole list, or as much as is in `pages_max` pages if it grows meanwhile. Tasks can come and go between two
    /// pages, so that one may be missing or be there twice; of two rows the later one counts.
    pub(super) async fn of(
        port: &dyn MigrationService,
        clock: &dyn Clock,
        page_limit: u32,
        pages_max: u64,
    ) -> Result<Result<Self, TooLong>, UpstreamError> {
        let mut reading = Self {
            began_at: clock.now(),
            began: Instant::now(),
            pages: 0,
            rows: HashMap::new(),
        };
        let mut offset = 0_u64;
        while reading.pages < pages_max {
            let page = port.list(offset, page_limit, &Patience::default()).await?;
            reading.pages += 1;
            if page.total.div_ceil(u64::from(page_limit.max(1))) > pages_max && offset == 0 {
                return Ok(Err(TooLong { tasks: page.total }));
            }
            let rows = u64::try_from(page.rows.len()).unwrap_or(u64::MAX);
            offset = offset.saturating_add(rows);
            let readable = page.rows.into_iter().flatten();
            reading
                .rows
                .extend(readable.map(|task| (task.reference.id.clone(), Sight::from(&task))));
            if rows == 0 || offset >= page.total {
                break;
            }
        }
        Ok(Ok(reading))
    }

    /// The row of a task, if there is one that can be read.
    pub(super) fn row(&self, id: &TaskId) -> Option<Sight> {
        self.rows.get(id).copied()
    }
}
