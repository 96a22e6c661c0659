//! The Server Migration Service, version 3 of its API.
//!
//! Its tasks belong to the account: no project is part of a path. A task is worked on by an agent
//! on the source server, so a stop takes effect when that agent asks for commands the next time.

mod wire;

use std::rc::Rc;

use async_trait::async_trait;

use crate::{
    domain::{
        service::{Clearance, MigrationService, Patience, Receipt, TaskPage, UpstreamError},
        start::StartRequest,
        task::{Task, TaskId},
    },
    transport::{Method, Request, Response},
};

use self::wire::Action;
use super::{
    Entry, Parts,
    reader::{Dialect, Reader},
    session::Session,
};

/// How SMS speaks.
pub(super) const DIALECT: Dialect = Dialect {
    codes: &wire::CODES,
    task: wire::task,
};

/// The catalogue's line.
pub(super) const ENTRY: Entry = Entry {
    name: "sms",
    owns,
    // When the service is named, whatever can stand in a path is left to the vendor to know or not.
    accepts: |_| true,
    page_limit: PAGE_LIMIT,
    offset_limit: OFFSET_LIMIT,
    start_needs_credentials: false,
    codes: &wire::CODES,
    default_endpoint,
    build: |parts| Rc::new(Sms::new(parts)),
};

/// The most tasks that a page may hold, by the page "Querying Migration Tasks". What 0 means is not
/// documented.
const PAGE_LIMIT: u32 = 200;
/// The largest offset, by the same page.
const OFFSET_LIMIT: u64 = 65_535;
/// The path of the list of tasks.
const TASKS: &str = "/v3/tasks";

/// Ids are usually UUIDs, and never documented to be all digits.
fn owns(id: &TaskId) -> bool {
    !id.as_str().bytes().all(|byte| byte.is_ascii_digit())
}

/// One endpoint serves a whole site, wherever the target of a migration is. Sites without a
/// documented endpoint, and those where it does not follow from the region, have no default.
fn default_endpoint(region: &str) -> Option<String> {
    let site = region.split('-').next().unwrap_or_default();
    let home = match site {
        "cn" => "cn-north-4",
        "eu" | "ru" | "my" | "ae" => return None,
        _ => "ap-southeast-3",
    };
    Some(format!("https://sms.{home}.myhuaweicloud.com"))
}

/// SMS, seen through one project.
struct Sms {
    session: Session,
    reader: Reader,
}

impl Sms {
    fn new(parts: Parts) -> Self {
        Self {
            reader: parts.reader(&DIALECT),
            session: parts.session,
        }
    }

    async fn act(
        &self,
        operation: &'static str,
        id: &TaskId,
        action: Action,
        clearance: &Clearance,
    ) -> Result<Receipt, UpstreamError> {
        self.change(operation, &action_request(id, action), clearance)
            .await
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

/// A request about one task. An id has no character with a meaning in a URL.
fn about(method: Method, id: &TaskId) -> Request {
    Request {
        method,
        path: format!("{TASKS}/{id}"),
        body: None,
    }
}

fn action_request(id: &TaskId, action: Action) -> Request {
    Request {
        method: Method::Post,
        path: format!("{TASKS}/{id}/action"),
        body: Some(wire::action_body(action)),
    }
}

fn list_request(offset: u64, limit: u32) -> Request {
    let limit = limit.clamp(1, PAGE_LIMIT);
    Request {
        method: Method::Get,
        path: format!("{TASKS}?limit={limit}&offset={offset}"),
        body: None,
    }
}

#[async_trait(?Send)]
impl MigrationService for Sms {
    async fn show(&self, id: &TaskId) -> Result<Option<Task>, UpstreamError> {
        let request = about(Method::Get, id);
        let read = |response: &Response| self.reader.task(response, id);
        self.session.show(&request, read).await
    }

    async fn list(
        &self,
        offset: u64,
        limit: u32,
        patience: &Patience,
    ) -> Result<TaskPage, UpstreamError> {
        let request = list_request(offset, limit);
        let response = self.session.read("list", &request, patience).await?;
        self.session.judged(self.reader.page(&response))
    }

    async fn pause(&self, id: &TaskId, clearance: &Clearance) -> Result<Receipt, UpstreamError> {
        self.act("pause", id, Action::Stop, clearance).await
    }

    /// The agent has all it needs, so nothing of the request is sent.
    async fn start(
        &self,
        id: &TaskId,
        _request: &StartRequest,
        clearance: &Clearance,
    ) -> Result<Receipt, UpstreamError> {
        self.act("start", id, Action::Start, clearance).await
    }

    async fn delete(&self, id: &TaskId, clearance: &Clearance) -> Result<Receipt, UpstreamError> {
        self.change("delete", &about(Method::Delete, id), clearance)
            .await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn id(text: &str) -> TaskId {
        TaskId::parse(text).unwrap()
    }

    #[test]
    fn requests_are_those_of_the_documentation() {
        let task = id("7a9a9540-ff28-4869-b9e4-855fbe120001");
        let path = "/v3/tasks/7a9a9540-ff28-4869-b9e4-855fbe120001";
        let show = about(Method::Get, &task);
        assert_eq!((show.method, show.path.as_str()), (Method::Get, path));
        assert_eq!(show.body, None);
        let delete = about(Method::Delete, &task);
        assert_eq!(
            (delete.method, delete.path.as_str()),
            (Method::Delete, path)
        );
        assert_eq!(delete.body, None);
        for (action, body) in [
            (Action::Stop, json!({"operation": "stop"})),
            (Action::Start, json!({"operation": "start"})),
        ] {
            let request = action_request(&task, action);
            assert_eq!(request.method, Method::Post);
            assert_eq!(request.path, format!("{path}/action"));
            assert_eq!(request.body, Some(body));
        }
    }

    #[test]
    fn a_page_is_never_empty_and_never_too_long() {
        for (limit, sent) in [
            (0, 1),
            (1, 1),
            (50, 50),
            (200, 200),
            (201, 200),
            (u32::MAX, 200),
        ] {
            let request = list_request(7, limit);
            assert_eq!(request.path, format!("/v3/tasks?limit={sent}&offset=7"));
            assert_eq!(request.method, Method::Get);
        }
    }

    #[test]
    fn ids_of_digits_only_are_not_its_own() {
        for own in ["7a9a9540-ff28-4869-b9e4-855fbe120001", "a", "1-2", "0x1"] {
            assert!(owns(&id(own)), "{own}");
        }
        for foreign in ["0", "191297407830872", "1234567890123456", "007"] {
            assert!(!owns(&id(foreign)), "{foreign}");
        }
    }

    #[test]
    fn the_endpoint_is_the_one_of_the_site() {
        let china = Some("https://sms.cn-north-4.myhuaweicloud.com".to_owned());
        let international = Some("https://sms.ap-southeast-3.myhuaweicloud.com".to_owned());
        for (region, endpoint) in [
            ("cn-north-4", &china),
            ("cn-southwest-2", &china),
            ("ap-southeast-1", &international),
            ("la-south-2", &international),
            ("tr-west-1", &international),
            ("eu-west-101", &None),
            ("ru-moscow-1", &None),
            ("my-kualalumpur-1", &None),
            ("ae-ad-1", &None),
        ] {
            assert_eq!(default_endpoint(region), *endpoint, "{region}");
        }
    }
}
