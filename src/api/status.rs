//! `GET /status`: how the gateway stands with the cloud, for whoever operates it.

use actix_web::{HttpResponse, get};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    problem::{Problem, UpstreamView},
    request::{
        body::Unread,
        guard::{Action, Head, On},
    },
};
use crate::domain::{
    access::{self, Caller, Permission},
    service::{
        UpstreamError,
        status::{BreakerStatus, CredentialStatus, PacerStatus, ProjectStatus, ServiceStatus},
    },
};

/// How the gateway stands with the cloud.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Status)]
pub(crate) struct StatusView {
    /// The projects that the caller may use, in the order of their names.
    projects: Vec<ProjectStatusView>,
}

/// How the gateway stands with one project of the cloud.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ProjectStatus)]
pub(crate) struct ProjectStatusView {
    /// The configured project.
    #[schema(example = "default")]
    project: String,
    /// What the gateway proves its identity with.
    credential: CredentialStatusView,
    /// The services that the project offers and the caller may use.
    services: Vec<ServiceStatusView>,
}

/// How the gateway proves its identity in a project, and how well that went.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CredentialStatus)]
pub(crate) struct CredentialStatusView {
    /// What it is proved with: `password`, `access-key` or `ecs-agency`.
    #[schema(example = "password")]
    kind: &'static str,
    /// `ok`: it serves. `idle`: there is none, for nobody has needed it lately. `refused`: the
    /// cloud refuses it, and somebody has to change something. `unavailable`: it cannot be had just
    /// now, and is tried again.
    #[schema(example = "ok")]
    state: &'static str,
    /// Until when it serves without being renewed.
    #[schema(required = true, example = "2026-01-06T10:14:29Z")]
    usable_until: Option<Timestamp>,
    /// When the cloud last gave one, or first accepted another pair of keys.
    #[schema(required = true, example = "2026-01-05T10:15:29Z")]
    last_login_at: Option<Timestamp>,
    /// Why one could last not be had or was refused, even if another was had since.
    #[schema(required = true)]
    last_error: Option<CredentialErrorView>,
}

/// A credential that could not be had, or that was refused.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CredentialError)]
pub(crate) struct CredentialErrorView {
    /// When.
    #[schema(example = "2026-01-05T10:15:21Z")]
    at: Timestamp,
    /// The kind of problem, as callers are answered with it.
    #[serde(rename = "type")]
    #[schema(example = "/problems/credentials-refused")]
    kind: String,
    /// What went wrong.
    #[schema(example = "The token service refused the gateway's credentials.")]
    detail: String,
    /// What the cloud answered, when it did.
    #[schema(required = true)]
    upstream: Option<UpstreamView>,
}

/// How the gateway stands with one service of a project.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ServiceStatus)]
pub(crate) struct ServiceStatusView {
    /// The service.
    #[schema(example = "oms")]
    service: String,
    /// Whether it is asked at all. Projects with the same endpoint share this.
    breaker: BreakerStatusView,
    /// How fast it is asked.
    pacer: PacerStatusView,
}

/// Whether a service is asked.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BreakerStatus)]
pub(crate) struct BreakerStatusView {
    /// `closed`: it is asked. `open`: it has failed often and is left alone. `probing`: one request
    /// is let through to find out whether it is well again.
    #[schema(example = "closed")]
    state: &'static str,
    /// Until when it is left alone; the first request after that finds out whether it is well
    /// again.
    #[schema(required = true)]
    open_until: Option<Timestamp>,
}

/// How fast a service is asked.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PacerStatus)]
pub(crate) struct PacerStatusView {
    /// Requests a second, at present.
    #[schema(minimum = 0, example = 50.0)]
    requests_per_second: f64,
    /// Requests a second as long as the cloud does not ask to slow down.
    #[schema(minimum = 0, example = 50.0)]
    requests_per_second_max: f64,
    /// Nothing is sent before this moment, by the cloud's wish.
    #[schema(required = true)]
    paused_until: Option<Timestamp>,
    /// Requests that wait for their turn.
    #[schema(example = 0)]
    waiting: usize,
}

impl StatusView {
    /// What of these projects is a caller's business.
    fn new(projects: Vec<ProjectStatus>, caller: &Caller) -> Self {
        let may = |status: &ServiceStatus| {
            let wanted = [Permission::StatusRead];
            access::authorise(caller, &wanted, &status.project, &status.service).is_ok()
        };
        let of_caller = projects
            .into_iter()
            .map(|mut status| {
                status.services.retain(may);
                status
            })
            .filter(|status| !status.services.is_empty());
        Self {
            projects: of_caller.map(ProjectStatusView::from).collect(),
        }
    }
}

impl From<ProjectStatus> for ProjectStatusView {
    fn from(status: ProjectStatus) -> Self {
        Self {
            project: status.project.to_string(),
            credential: status.credential.into(),
            services: status.services.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<CredentialStatus> for CredentialStatusView {
    fn from(status: CredentialStatus) -> Self {
        Self {
            kind: status.kind.as_str(),
            state: status.state.as_str(),
            usable_until: status.usable_until,
            last_login_at: status.last_login_at,
            last_error: status
                .last_error
                .map(|(at, error)| CredentialErrorView::new(at, error)),
        }
    }
}

impl CredentialErrorView {
    fn new(at: Timestamp, error: UpstreamError) -> Self {
        let document = Problem::from(error).document().clone();
        Self {
            at,
            kind: document.kind,
            detail: document.detail,
            upstream: document.upstream,
        }
    }
}

impl From<ServiceStatus> for ServiceStatusView {
    fn from(status: ServiceStatus) -> Self {
        Self {
            service: status.service.to_string(),
            breaker: status.breaker.into(),
            pacer: status.pacer.into(),
        }
    }
}

impl From<BreakerStatus> for BreakerStatusView {
    fn from(status: BreakerStatus) -> Self {
        Self {
            state: status.as_str(),
            open_until: match status {
                BreakerStatus::Open { until } => Some(until),
                BreakerStatus::Closed | BreakerStatus::Probing => None,
            },
        }
    }
}

impl From<PacerStatus> for PacerStatusView {
    fn from(status: PacerStatus) -> Self {
        Self {
            requests_per_second: status.requests_per_second,
            requests_per_second_max: status.requests_per_second_max,
            paused_until: status.paused_until,
            waiting: status.waiting,
        }
    }
}

/// A look at how the gateway stands.
pub(crate) struct Show;

impl Action for Show {
    type Target = ();
    type Body = Unread;

    fn read(_head: &mut Head<'_>) -> Self {
        Self
    }

    fn permissions(&self) -> &'static [Permission] {
        &[Permission::StatusRead]
    }
}

/// Show how the gateway stands with the cloud.
///
/// The cloud is not asked. Only projects and services that the caller may use are shown.
#[utoipa::path(
    tag = "status",
    responses((status = 200, description = "How it stands just now.", body = StatusView)),
)]
#[get("/status")]
pub(crate) async fn show_status(on: On<Show>) -> HttpResponse {
    let projects = (on.known.state.insight.status)();
    HttpResponse::Ok().json(StatusView::new(projects, on.known.caller()))
}
