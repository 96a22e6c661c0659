//! The Object Storage Migration Service, version 2 of its API.
//!
//! Its tasks belong to a project, which is part of every path. A stop, a start and a delete are
//! answered before they are done; what became of them is seen by looking at the task again.

mod requests;
mod wire;

use std::rc::Rc;

use async_trait::async_trait;

use crate::domain::{
    service::{Clearance, MigrationService, Patience, Receipt, TaskPage, UpstreamError},
    start::StartRequest,
    task::{Task, TaskId},
};
use crate::transport::{Request, Response};

use self::requests::Requests;
use super::{
    Entry, Parts, echo,
    reader::{Dialect, Reader},
    regional_endpoint,
    session::Session,
};

/// How OMS speaks.
pub(super) const DIALECT: Dialect = Dialect {
    codes: &wire::CODES,
    task: wire::task,
};

/// The catalogue's line.
pub(super) const ENTRY: Entry = Entry {
    name: "oms",
    owns,
    accepts: owns,
    page_limit: PAGE_LIMIT,
    offset_limit: OFFSET_LIMIT,
    start_needs_credentials: true,
    codes: &wire::CODES,
    default_endpoint: |region| Some(regional_endpoint("oms", region)),
    build: |parts| Rc::new(Oms::new(parts)),
};

/// The most tasks that a page may hold, by the page "Querying Migration Tasks".
const PAGE_LIMIT: u32 = 100;
/// The largest offset, by the same page.
const OFFSET_LIMIT: u64 = 2_147_483_647;

/// Ids are numbers of at most 15 digits.
fn owns(id: &TaskId) -> bool {
    let text = id.as_str();
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits && text.len() <= 15 && (text == "0" || !text.starts_with('0'))
}

/// OMS, seen through one project.
struct Oms {
    session: Session,
    reader: Reader,
    requests: Requests,
}

impl Oms {
    fn new(parts: Parts) -> Self {
        let reader = parts.reader(&DIALECT);
        let requests = Requests::new(
            &parts.project_id,
            parts.session.project().clone(),
            parts.settings,
            parts.secrets,
        );
        let session = parts.session.checking_by(requests.list(0, 1));
        Self {
            session,
            reader,
            requests,
        }
    }

    async fn change(
        &self,
        operation: &'static str,
        request: &Request,
        clearance: &Clearance,
    ) -> Result<Receipt, UpstreamError> {
        let response = self
            .session
            .exchange(operation, request, Some(clearance))
            .await?;
        self.reader.receipt(&response)
    }
}

#[async_trait(?Send)]
impl MigrationService for Oms {
    async fn show(&self, id: &TaskId) -> Result<Option<Task>, UpstreamError> {
        let request = self.requests.show(id);
        let read = |response: &Response| self.reader.task(response, id);
        self.session.show(&request, read).await
    }

    async fn list(
        &self,
        offset: u64,
        limit: u32,
        patience: &Patience,
    ) -> Result<TaskPage, UpstreamError> {
        let request = self.requests.list(offset, limit);
        let response = self.session.read("list", &request, patience).await?;
        self.session.judged(self.reader.page(&response))
    }

    async fn pause(&self, id: &TaskId, clearance: &Clearance) -> Result<Receipt, UpstreamError> {
        self.change("pause", &self.requests.stop(id), clearance)
            .await
    }

    async fn start(
        &self,
        id: &TaskId,
        request: &StartRequest,
        clearance: &Clearance,
    ) -> Result<Receipt, UpstreamError> {
        let request = self.requests.start(id, request).await?;
        // Every text in the body of a start is a key.
        self.reader.hide_texts(id, request.body.as_ref());
        let started = self.change("start", &request, clearance).await;
        started.map_err(|error| echo::without_texts(error, request.body.as_ref()))
    }

    async fn delete(&self, id: &TaskId, clearance: &Clearance) -> Result<Receipt, UpstreamError> {
        self.change("delete", &self.requests.delete(id), clearance)
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_numbers_of_at_most_fifteen_digits_without_leading_zeros() {
        for own in ["0", "7", "191297407830872", "999999999999999"] {
            assert!(owns(&TaskId::parse(own).unwrap()), "{own}");
        }
        for foreign in [
            "00",
            "07",
            "1000000000000000",
            "1-2",
            "-1",
            "a",
            "7a9a9540-ff28",
        ] {
            assert!(!owns(&TaskId::parse(foreign).unwrap()), "{foreign}");
        }
    }
}
