//! The line in the log and the number in the metrics of each request.

use std::time::Instant;

use actix_web::{
    dev::{ServiceRequest, ServiceResponse},
    http::Method,
    web,
};

use super::RequestId;
use crate::api::State;

/// The label of whatever no route answered.
const NO_ROUTE: &str = "none";
/// What a request is counted and logged under whose caller reset the connection before the answer.
/// It is no status of HTTP, and never sent. A caller who merely closes it cannot be told from one
/// who has no more to say and waits.
const BROKEN_OFF: u16 = 499;

/// The line in the log and the number in the metrics that every request gets, also one that is
/// broken off.
pub(super) struct Entry {
    began: Instant,
    method: Method,
    route: Option<String>,
    id: RequestId,
    state: Option<web::Data<State>>,
    has_ended: bool,
}

impl Entry {
    pub(super) fn begin(
        request: &ServiceRequest,
        id: RequestId,
        state: Option<web::Data<State>>,
    ) -> Self {
        Self {
            began: Instant::now(),
            method: request.method().clone(),
            route: request.match_pattern(),
            id,
            state,
            has_ended: false,
        }
    }

    pub(super) fn end(&mut self, status: u16) {
        self.has_ended = true;
        let took = self.began.elapsed();
        let route = self.route.as_deref().unwrap_or(NO_ROUTE);
        let message = if status == BROKEN_OFF {
            "request broken off by its caller"
        } else {
            "request answered"
        };
        tracing::info!(
            http.method = %self.method,
            http.route = route,
            http.status_code = status,
            duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            request_id = self.id.0,
            "{message}"
        );
        if let Some(state) = &self.state {
            state
                .insight
                .metrics
                .count(self.method.as_str(), route, status, took);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if !self.has_ended {
            self.end(BROKEN_OFF);
        }
    }
}

/// The template of the route that answered; one word for everything that no route answered.
pub(super) fn route<B>(response: &ServiceResponse<B>) -> String {
    response
        .request()
        .match_pattern()
        .unwrap_or_else(|| NO_ROUTE.to_owned())
}
