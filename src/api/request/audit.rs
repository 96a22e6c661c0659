//! Decisions on requests for changes, for those who audit them: taken by the guards, noted down
//! here before the answer.

use actix_web::{
    Error, HttpMessage as _, HttpRequest,
    body::MessageBody,
    dev::{ServiceRequest, ServiceResponse},
    http::Method,
    middleware::Next,
};

use super::guard::Known;
use crate::{
    api::{State, peer, problem::Problem, trace},
    domain::{
        audit::{Attempt, Auditor, Decision, Recording},
        task::TaskId,
    },
    identity::{self, Identity},
};

/// A note on what a guard has denied, on its way; left with the request, since guards cannot wait.
struct Denial(Recording);

impl Known {
    /// Who notes down what is decided on a request for this change; `None` if nobody does.
    pub(in crate::api) fn auditor(
        &self,
        request: &HttpRequest,
        action: &'static str,
    ) -> Option<Auditor> {
        let log = self.state.operations.audit()?;
        Some(Auditor {
            log: log.clone(),
            attempt: Attempt {
                request_id: trace::request_id(request),
                caller: Some(self.caller().name.clone()),
                method: self.identity.method.as_str(),
                peer: peer::of(request, &self.state.settings.trusted_proxies),
                action,
                project: None,
                service: None,
                task: None,
            },
            granted_by: String::new(),
        })
    }
}

/// Notes a denial, and leaves the word on whether that was written with the request. It is noted
/// also if the caller hangs up.
pub(super) fn deny(request: &HttpRequest, auditor: &Auditor, rule: &'static str) {
    let noted = auditor.turned_down(Decision::Denied, rule, None);
    request.extensions_mut().insert(Denial(noted));
}

/// Notes a request for a change that is denied by its head alone; without an identity, because its
/// caller is not known.
pub(super) fn deny_early(
    request: &ServiceRequest,
    state: &State,
    identity: Option<&Identity>,
    rule: &'static str,
) {
    let Some(log) = state.operations.audit() else {
        return;
    };
    let pattern = request.match_pattern();
    let action = match (request.method(), pattern.as_deref()) {
        (&Method::DELETE, Some("/tasks/{id}")) => "delete",
        (&Method::POST, Some("/tasks/{id}/pause")) => "pause",
        (&Method::POST, Some("/tasks/{id}/start")) => "start",
        (&Method::POST, Some("/operations/{id}/cancel")) => "cancel",
        _ => return,
    };
    let id = request.path().split('/').nth(2).unwrap_or_default();
    let auditor = Auditor {
        log: log.clone(),
        attempt: Attempt {
            request_id: trace::request_id(request.request()),
            caller: identity.map(|identity| identity.caller.name.clone()),
            method: identity
                .map_or(identity::Method::Anonymous, |identity| identity.method)
                .as_str(),
            peer: peer::of(request.request(), &state.settings.trusted_proxies),
            action,
            project: None,
            service: None,
            task: TaskId::parse(id).filter(|_| action != "cancel"),
        },
        granted_by: String::new(),
    };
    deny(request.request(), &auditor, rule);
}

/// Waits until it is noted down what a guard has denied before its caller is told.
pub(in crate::api) async fn note_denials(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let response = next.call(request).await?;
    let denial = response.request().extensions_mut().remove::<Denial>();
    if let Some(Denial(noted)) = denial
        && let Err(error) = noted.await
    {
        let request = response.request().clone();
        let response = ServiceResponse::from_err(Problem::from(error), request);
        return Ok(response.map_into_right_body());
    }
    Ok(response.map_into_left_body())
}
