//! Probes and metrics: for machines that watch the gateway, without credentials.

mod store;

use actix_web::{HttpResponse, get, web};
use serde::Serialize;
use utoipa::ToSchema;

pub(super) use self::store::StoreHealth;
use super::{State, problem::Problem, request::query::NoQuery};

/// Whether the gateway may be sent requests.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    /// `ok`, or `failing`.
    #[schema(example = "ok")]
    status: &'static str,
    /// What fails, of `store`, `engine` and `draining`.
    failing: Vec<&'static str>,
    /// What fails though the gateway may be sent requests: `audit`, while it refuses whatever
    /// changes something.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    degraded: Vec<&'static str>,
}

impl Health {
    fn of(failing: Vec<&'static str>, degraded: Vec<&'static str>) -> HttpResponse {
        let status = if failing.is_empty() { "ok" } else { "failing" };
        let mut response = if failing.is_empty() {
            HttpResponse::Ok()
        } else {
            HttpResponse::ServiceUnavailable()
        };
        response.json(Self {
            status,
            failing,
            degraded,
        })
    }
}

/// Say that the process lives.
///
/// Nothing else is looked at: while this answers, a restart would not help.
#[utoipa::path(
    tag = "health",
    security(()),
    responses((status = 200, description = "The process answers requests.", body = Health)),
)]
#[get("/livez")]
pub(crate) async fn livez(_query: NoQuery) -> HttpResponse {
    Health::of(Vec::new(), Vec::new())
}

/// Say whether requests may be sent here.
///
/// The record can be written, the engine is alive and the process is not stopping. The cloud's
/// health has no part in it. While the audit log cannot be written the gateway is ready, since it
/// can be read from, and says so in `degraded`.
#[utoipa::path(
    tag = "health",
    security(()),
    responses(
        (status = 200, description = "Ready.", body = Health),
        (status = 503, description = "Not ready.", body = Health),
    ),
)]
#[get("/readyz")]
pub(crate) async fn readyz(_query: NoQuery, state: web::Data<State>) -> HttpResponse {
    let mut failing = Vec::new();
    if !state.store_health.is_well(&state.operations).await {
        failing.push("store");
    }
    if !state.operations.is_driven() {
        failing.push("engine");
    }
    if state.operations.is_draining() {
        failing.push("draining");
    }
    let audit = state.operations.audit();
    let is_audited = audit.is_none_or(|log| log.is_available());
    let degraded = if is_audited { vec![] } else { vec!["audit"] };
    Health::of(failing, degraded)
}

/// Give the numbers of this process.
///
/// Requests, ends of operations and exchanges with the cloud are counted from the start of the
/// process; operations that run, and those that cannot be read, on the record, which gateways may
/// share.
#[utoipa::path(
    tag = "health",
    security(()),
    responses((
        status = 200,
        description = "Metrics in the OpenMetrics text format.",
        body = String,
        content_type = "application/openmetrics-text",
    )),
)]
#[get("/metrics")]
pub(crate) async fn metrics(
    _query: NoQuery,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    state.operations.count().await;
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &state.insight.registry)
        .map_err(|_| Problem::internal())?;
    Ok(HttpResponse::Ok()
        .content_type("application/openmetrics-text; version=1.0.0; charset=utf-8")
        .body(text))
}
