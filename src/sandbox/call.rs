//! A request as it came in, and what it asks for.

use serde_json::Value;

/// One of the three simulated services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// Identity and Access Management: tokens. The metadata service of a simulated ECS answers at
    /// the same address.
    Iam,
    /// Object Storage Migration Service, version 2.
    Oms,
    /// Server Migration Service, version 3.
    Sms,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Fetch a token.
    Login,
    /// Fetch a token of the metadata service.
    MetadataToken,
    /// Fetch temporary keys from the metadata service.
    TemporaryKeys,
    /// List tasks.
    List,
    /// Show one task.
    Show,
    /// Stop a task, which the services use for pausing.
    Pause,
    /// Start, resume or restart a task.
    Start,
    /// Delete a task.
    Delete,
    /// Anything else, among it paths that do not exist.
    Other,
}

/// A request that was read completely.
pub(super) struct Call {
    pub(super) service: Service,
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    /// Names in lower case, in the order in which they came.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    pub(super) route: Route,
    /// Names this request in answers.
    pub(super) request_id: String,
}

impl Call {
    /// The value of a header; `name` in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The decoded value of a query parameter.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        let mut pairs = self
            .query
            .split('&')
            .filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(known, _)| *known == name)?;
        Some(decode(value))
    }

    /// A numeric query parameter; `Err` if it is there and no number in the range.
    pub(super) fn number(
        &self,
        name: &str,
        default: usize,
        range: std::ops::RangeInclusive<usize>,
    ) -> Result<usize, ()> {
        let Some(text) = self.parameter(name) else {
            return Ok(default);
        };
        let number = text.parse().map_err(|_| ())?;
        if range.contains(&number) {
            Ok(number)
        } else {
            Err(())
        }
    }
}

/// Undoes the escaping of a query value.
pub(super) fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = (first == b'%')
            .then(|| after.get(..2))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let plain = if first == b'+' { b' ' } else { first };
        bytes.push(escaped.unwrap_or(plain));
        rest = if escaped.is_some() {
            &after[2..]
        } else {
            after
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What a method and a path mean for a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) operation: Operation,
    pub(super) project: Option<String>,
    pub(super) task: Option<String>,
}

impl Route {
    /// Finds the operation. SMS names it in the body, hence the last argument.
    pub(super) fn find(service: Service, method: &str, path: &str, body: &[u8]) -> Self {
        let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match service {
            Service::Iam => Self::iam(method, &segments),
            Service::Oms => Self::oms(method, &segments),
            Service::Sms => Self::sms(method, &segments, body),
        }
    }

    fn iam(method: &str, segments: &[&str]) -> Self {
        match (method, segments) {
            ("POST", ["v3", "auth", "tokens"]) => Self::new(Operation::Login, None, None),
            ("PUT", ["meta-data", "latest", "api", "token"]) => {
                Self::new(Operation::MetadataToken, None, None)
            }
            ("GET", ["openstack", "latest", "securitykey"]) => {
                Self::new(Operation::TemporaryKeys, None, None)
            }
            _ => Self::new(Operation::Other, None, None),
        }
    }

    fn oms(method: &str, segments: &[&str]) -> Self {
        let ["v2", project, "tasks", rest @ ..] = segments else {
            return Self::new(Operation::Other, None, None);
        };
        let (operation, task) = match (method, rest) {
            ("GET", []) => (Operation::List, None),
            ("GET", [task]) => (Operation::Show, Some(*task)),
            ("DELETE", [task]) => (Operation::Delete, Some(*task)),
            ("POST", [task, "stop"]) => (Operation::Pause, Some(*task)),
            ("POST", [task, "start"]) => (Operation::Start, Some(*task)),
            _ => (Operation::Other, None),
        };
        Self::new(operation, Some(*project), task)
    }

    fn sms(method: &str, segments: &[&str], body: &[u8]) -> Self {
        let ["v3", "tasks", rest @ ..] = segments else {
            return Self::new(Operation::Other, None, None);
        };
        let (operation, task) = match (method, rest) {
            ("GET", []) => (Operation::List, None),
            ("GET", [task]) => (Operation::Show, Some(*task)),
            ("DELETE", [task]) => (Operation::Delete, Some(*task)),
            ("POST", [task, "action"]) => (action(body), Some(*task)),
            _ => (Operation::Other, None),
        };
        Self::new(operation, None, task)
    }

    fn new(operation: Operation, project: Option<&str>, task: Option<&str>) -> Self {
        Self {
            operation,
            project: project.map(str::to_owned),
            task: task.map(str::to_owned),
        }
    }
}

/// Which operation the body of an SMS action asks for.
fn action(body: &[u8]) -> Operation {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    match body["operation"].as_str() {
        Some("stop") => Operation::Pause,
        Some("start" | "restart") => Operation::Start,
        _ => Operation::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::{Operation, Route, Service, decode};

    #[test]
    fn a_query_value_is_decoded_once() {
        assert_eq!(decode("%E6%97%A5+a%2fb%"), "日 a/b%");
        assert_eq!(decode("%2541"), "%41");
    }

    #[test]
    fn stop_and_start_of_sms_are_told_apart_by_the_body() {
        let operation = |body: &str| {
            Route::find(Service::Sms, "POST", "/v3/tasks/a/action", body.as_bytes()).operation
        };
        assert_eq!(operation(r#"{"operation":"stop"}"#), Operation::Pause);
        assert_eq!(operation(r#"{"operation":"restart"}"#), Operation::Start);
        assert_eq!(operation(r#"{"operation":"pause"}"#), Operation::Other);
        assert_eq!(operation("stop"), Operation::Other);
    }

    #[test]
    fn the_stop_of_an_oms_task_has_its_suffix() {
        let route = Route::find(Service::Oms, "POST", "/v2/p/tasks/7/stop", b"");
        assert_eq!(route.operation, Operation::Pause);
        assert_eq!(route.project.as_deref(), Some("p"));
        assert_eq!(route.task.as_deref(), Some("7"));
        let bare = Route::find(Service::Oms, "POST", "/v2/p/tasks/7", b"");
        assert_eq!(bare.operation, Operation::Other);
    }
}
