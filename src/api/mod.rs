//! The HTTP side: from a request to an answer.
//!
//! `routes` is the one table of routes; the OpenAPI document is made of it. A request passes, in
//! this order: the outermost layer (`trace`: id, log line, problem documents), the span, the notes
//! on what is denied (`request::audit`), authentication (`request::auth`, before the body is
//! touched), the route, its guard (`request::guard`: what is asked, body and all, and is it
//! allowed), and only then its handler.

mod answer;
mod docs;
mod events;
mod health;
mod links;
pub mod metrics;
mod openapi;
mod operations;
mod peer;
mod places;
mod plan;
mod problem;
mod request;
mod status;
mod tasks;
mod trace;
mod whoami;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use actix_web::{
    App, Error, HttpRequest, HttpResponse, Resource,
    body::MessageBody,
    dev::{ServiceFactory, ServiceRequest, ServiceResponse},
    guard,
    http::header,
    middleware::from_fn,
    web,
};
use prometheus_client::registry::Registry;
use tracing_actix_web::TracingLogger;
use utoipa_actix_web::service_config::ServiceConfig;

use self::{
    events::places::StreamPlaces, health::StoreHealth, links::Links, metrics::Metrics,
    openapi::Document, places::Places, problem::Problem, problem::kinds::ProblemType,
    request::query::NoQuery, request::rate::Rates, trace::RequestSpan,
};
use crate::{
    domain::{
        access::StorageGrant,
        service::{CredentialName, ProjectName, Services, status::ProjectStatus},
    },
    identity::Identities,
    operations::Operations,
};

pub use self::{
    events::places::StreamLimits,
    peer::Network,
    request::{auth::is_refused_by_head, rate::RateLimit},
};

/// How much may be asked for, of this process: section `limits` of the configuration.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many requests are answered at the same time; those that wait for an operation count.
    pub concurrent_requests: u32,
    /// How many operations of each caller may run.
    pub running_operations: u32,
    /// How many requests each caller may send.
    pub rate: RateLimit,
    /// How many streams of events may be open.
    pub streams: StreamLimits,
}

/// How requests are served: sections `limits` and `server` of the configuration, and what others
/// say about requests.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address to listen on.
    pub listen: SocketAddr,
    /// The base of absolute links; `None` for relative ones.
    pub public_url: Option<String>,
    /// Proxies that are believed when they say where a request comes from.
    pub trusted_proxies: Vec<Network>,
    /// Threads that serve requests.
    pub workers: usize,
    /// How long a request without `Prefer` waits for its operation.
    pub default_wait: Duration,
    /// The longest that a request may wait.
    pub max_wait: Duration,
    /// How long a stop may take.
    pub drain_timeout: Duration,
    /// The largest body of a request, in bytes. That of a start has at most 64 KiB in any case.
    pub max_body: usize,
    /// How much may be asked for.
    pub limits: Limits,
    /// The project that is meant when a request names none.
    pub default_project: Option<ProjectName>,
    /// Who may name which storage credential.
    pub storage_grants: BTreeMap<CredentialName, StorageGrant>,
}

impl Settings {
    /// The largest body that is read: only a start has one.
    fn body_max(&self) -> usize {
        self.max_body.min(request::body::START_MAX)
    }
}

/// What all threads that serve requests share.
pub struct State {
    settings: Settings,
    projects: BTreeSet<ProjectName>,
    identities: Identities,
    operations: Operations,
    links: Links,
    document: Document,
    insight: Insight,
    store_health: StoreHealth,
    places: Places,
    stream_places: StreamPlaces,
    rates: Rates,
}

/// What shows how the gateway does.
pub struct Insight {
    /// Everything that is counted, for `GET /metrics`.
    pub registry: Arc<Registry>,
    /// What is counted about requests.
    pub metrics: Metrics,
    /// Tells how the projects of the cloud stand, in their order, without asking the cloud.
    pub status: Box<dyn Fn() -> Vec<ProjectStatus> + Send + Sync>,
}

impl State {
    /// Puts together what requests need. `projects`: all that are configured; `services`: all that
    /// there are; `registry`: all numbers of this process, those of `metrics` too.
    pub fn new(
        settings: Settings,
        (projects, services): (BTreeSet<ProjectName>, &[&str]),
        identities: Identities,
        operations: Operations,
        insight: Insight,
    ) -> Self {
        let links = Links::new(
            settings.public_url.clone(),
            settings.default_project.clone(),
        );
        Self {
            places: Places::new(settings.limits.concurrent_requests),
            stream_places: StreamPlaces::new(
                settings.limits.streams,
                insight.metrics.streams.clone(),
            ),
            rates: Rates::new(settings.limits.rate),
            settings,
            projects,
            identities,
            operations,
            links,
            document: Document::generate(services),
            insight,
            store_health: StoreHealth::default(),
        }
    }

    /// Returns once every request has its answer, probes aside. After [`Operations::drain`] no
    /// others come in.
    pub async fn all_answered(&self) {
        self.places.all_free().await;
    }
}

/// The OpenAPI document of this program for these services, as indented JSON.
pub fn openapi(services: &[&str]) -> String {
    Document::generate(services).indented()
}

/// The application of one thread: its routes, and the layers around them.
pub fn app(
    state: web::Data<State>,
    services: Rc<Services>,
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<impl MessageBody>,
        Error = Error,
        InitError = (),
    >,
> {
    let max_body = state.settings.body_max();
    App::new()
        .app_data(state)
        .app_data(services)
        .app_data(web::PayloadConfig::new(max_body))
        .configure(|config| routes(&mut ServiceConfig::new(config)))
        // Guarded as a whole, like the routes of the document: a resource whose routes do not match
        // answers for itself, with neither a body nor `Allow`.
        .service(page("/openapi.json").to(openapi_json))
        .service(page("/docs").to(|_: NoQuery| async { web::Redirect::to("/docs/") }))
        .service(
            web::scope("/docs")
                .wrap(from_fn(request::query::refuse))
                .service(docs::browser()),
        )
        .default_service(web::to(no_route))
        // The last layer that is added is the first that a request meets.
        .wrap(from_fn(request::auth::authenticate))
        .wrap(from_fn(request::audit::note_denials))
        .wrap(TracingLogger::<RequestSpan>::new())
        .wrap(from_fn(trace::finish))
}

/// Every route that stands in the document.
fn routes(config: &mut ServiceConfig<'_>) {
    config
        .service(tasks::list::list_tasks)
        .service(tasks::show::show_task)
        .service(tasks::watch::watch_task)
        .service(tasks::pause::pause_task)
        .service(tasks::start::start_task)
        .service(tasks::delete::delete_task)
        .service(operations::list::list_operations)
        .service(operations::show::show_operation)
        .service(operations::watch::watch_operation)
        .service(operations::cancel::cancel_operation)
        .service(whoami::whoami)
        .service(status::show_status)
        .service(problem::pages::show_problem)
        .service(health::livez)
        .service(health::readyz)
        .service(health::metrics);
}

/// A resource that knows no method but GET.
fn page(path: &str) -> Resource {
    web::resource(path).guard(guard::Get())
}

async fn openapi_json(_query: NoQuery, state: web::Data<State>) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/json")
        .insert_header((header::CACHE_CONTROL, "max-age=300"))
        .body(state.document.compact())
}

/// Whatever no route answers: a path that is not there, or a method that the path does not know.
async fn no_route(request: HttpRequest, state: web::Data<State>) -> Result<HttpResponse, Problem> {
    match state.document.methods_of(request.path()) {
        Some(methods) => Err(Problem::new(
            ProblemType::MethodNotAllowed,
            format!("This resource knows {methods} only."),
        )
        .header("Allow", methods)),
        None => Err(Problem::not_found()),
    }
}
