//! The query string, read strictly: a key that is unknown or repeated is a fault of the request,
//! never ignored.

use std::future::{Ready, ready};

use actix_web::{
    Error, FromRequest, HttpRequest,
    body::MessageBody,
    dev::{Payload, ServiceRequest, ServiceResponse},
    middleware::Next,
    web,
};

use crate::api::{
    problem::{Problem, RequestFault},
    request::is_plain_name,
};

/// A request without parameters: whatever stands in its query is a fault.
pub(in crate::api) struct NoQuery;

impl FromRequest for NoQuery {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _body: &mut Payload) -> Self::Future {
        ready(Query::of(request).end().map(|()| Self))
    }
}

/// Refuses a request with parameters, in front of handlers of others.
pub(in crate::api) async fn refuse(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    Query::of(request.request()).end()?;
    next.call(request).await
}

/// The query of a request. Values are taken out one by one; whatever is left at the end is a fault.
pub(in crate::api) struct Query {
    pairs: Vec<(String, String)>,
    faults: Vec<RequestFault>,
}

impl Query {
    /// Reads the query string.
    pub(in crate::api) fn of(request: &HttpRequest) -> Self {
        let pairs = web::Query::<Vec<(String, String)>>::from_query(request.query_string());
        // What is not UTF-8 or not properly encoded arrives as replacement characters.
        let is_readable = pairs.as_ref().is_ok_and(|pairs| {
            let broken = |text: &str| text.contains(char::REPLACEMENT_CHARACTER);
            !pairs
                .iter()
                .any(|(key, value)| broken(key) || broken(value))
        });
        let pairs = pairs.map(web::Query::into_inner).unwrap_or_default();
        let mut query = Self {
            pairs,
            faults: Vec::new(),
        };
        if !is_readable {
            query.fault("", "The query string cannot be read.");
        }
        query
    }

    /// The value of a key as it stands.
    pub(in crate::api) fn text(&mut self, key: &str) -> Option<String> {
        let mut values = Vec::new();
        self.pairs.retain_mut(|(name, value)| {
            let matches = name == key;
            if matches {
                values.push(std::mem::take(value));
            }
            !matches
        });
        if values.len() > 1 {
            self.fault(key, format!("{key} may be given once only."));
        }
        values.pop()
    }

    /// The value of a key, if `parse` can read it; else it is a fault, and `expected` says what
    /// would be right.
    pub(in crate::api) fn parsed<T>(
        &mut self,
        key: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(key)?;
        let value = parse(&text);
        if value.is_none() {
            self.fault(key, format!("{key} must be {expected}."));
        }
        value
    }

    /// Whether the request is for a dry run only.
    pub(in crate::api) fn dry_run(&mut self) -> bool {
        self.parsed("dry_run", "true or false", |text| text.parse().ok())
            .unwrap_or(false)
    }

    /// Adds a fault.
    pub(in crate::api) fn fault(&mut self, key: &str, detail: impl Into<String>) {
        self.faults.push(RequestFault {
            location: "query",
            pointer: format!("/{key}"),
            detail: detail.into(),
        });
    }

    /// Adds a fault of the path.
    pub(in crate::api) fn path_fault(&mut self, name: &str, detail: impl Into<String>) {
        self.faults.push(RequestFault {
            location: "path",
            pointer: format!("/{name}"),
            detail: detail.into(),
        });
    }

    /// Adds a fault of a header.
    pub(in crate::api) fn header_fault(&mut self, name: &str, detail: impl Into<String>) {
        self.faults.push(RequestFault {
            location: "header",
            pointer: format!("/{name}"),
            detail: detail.into(),
        });
    }

    /// All faults, those of keys that nobody asked for included.
    pub(in crate::api) fn end(mut self) -> Result<(), Problem> {
        let mut unknown: Vec<String> = self.pairs.drain(..).map(|(key, _)| key).collect();
        unknown.dedup();
        for key in unknown {
            if is_plain_name(&key) {
                self.fault(&key, format!("{key} is not a parameter of this request."));
            } else {
                let detail = "A key of the query is not a parameter of this request; it is not repeated here.";
                self.fault("", detail);
            }
        }
        if self.faults.is_empty() {
            Ok(())
        } else {
            Err(Problem::invalid(self.faults))
        }
    }
}
