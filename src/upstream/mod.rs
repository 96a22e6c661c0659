//! The cloud: the only code that speaks to the vendor's services and sees the credentials for them.
//!
//! One folder per service turns its verbs and JSON into the port of the domain, and one line in the
//! catalogue makes the service known. What all of them share stands beside: what an answer means
//! (`answer`), how tasks are read out of it (`reader`), and the exchanges themselves (`session`).

mod answer;
mod details;
mod echo;
mod fault;
mod flow;
pub mod iam;
mod keys;
mod looks;
mod loose;
pub mod metrics;
mod oms;
mod reader;
mod secrets;
mod session;
mod settings;
mod sms;
mod unknown;

use std::{collections::HashMap, rc::Rc, sync::Arc};

use prometheus_client::registry::Registry;

use crate::{
    domain::{
        clock::Clock,
        secret::{Secret, SecretError, SecretForm, SecretSource},
        service::{
            Binding, BoundService, MigrationService, Patience, ProjectName, ServiceName,
            ServiceTraits, Services, UpstreamError, status::ProjectStatus,
        },
        task::TaskId,
    },
    transport::{self, Endpoint, EndpointError, Transport, TransportSetupError},
};

use self::{
    flow::Routes,
    iam::{Credentials, CredentialsError, Site},
    keys::StorageSecrets,
    looks::Looks,
    metrics::Metrics,
    reader::{Dialect, Reader},
    secrets::Secrets,
    session::Session,
    unknown::UnknownStates,
};
pub use self::{
    flow::{Lane, Pace},
    settings::{
        AccessKeySource, CredentialSettings, ProjectSettings, Settings, StorageCredentialSettings,
    },
};

/// Every service, in the order in which lists show them.
const CATALOGUE: [Entry; 2] = [oms::ENTRY, sms::ENTRY];

/// What a service says about itself.
struct Entry {
    name: &'static str,
    owns: fn(&TaskId) -> bool,
    accepts: fn(&TaskId) -> bool,
    page_limit: u32,
    offset_limit: u64,
    start_needs_credentials: bool,
    codes: &'static answer::Codes,
    /// The base address that follows from a region, if one does.
    default_endpoint: fn(&str) -> Option<String>,
    build: fn(Parts) -> Rc<dyn MigrationService>,
}

impl Entry {
    fn service(&self) -> ServiceName {
        ServiceName::parse(self.name).expect("names in the catalogue are well formed, by a test")
    }

    fn traits(&self) -> ServiceTraits {
        ServiceTraits {
            name: self.service(),
            owns: self.owns,
            accepts: self.accepts,
            page_limit: self.page_limit,
            offset_limit: self.offset_limit,
            start_needs_credentials: self.start_needs_credentials,
        }
    }
}

/// What one service of one project is built from.
struct Parts {
    session: Session,
    project_id: String,
    settings: Arc<Settings>,
    secrets: Secrets,
    shared: Shared,
}

impl Parts {
    fn reader(&self, dialect: &Dialect) -> Reader {
        Reader::new(
            self.session.project().clone(),
            (self.session.service().clone(), self.session.names().clone()),
            dialect,
            &self.shared,
        )
    }
}

/// What all services share.
#[derive(Clone)]
struct Shared {
    /// Tells when a task was looked at.
    clock: Arc<dyn Clock>,
    unknown_states: UnknownStates,
    storage_secrets: StorageSecrets,
}

/// Every service that this program knows, in the order in which lists show them.
pub fn catalogue() -> Vec<ServiceTraits> {
    CATALOGUE.iter().map(Entry::traits).collect()
}

/// The base address of a service for projects in a region, unless the configuration says another.
/// `None` if the service is unknown, the region is not well formed, or the address does not follow
/// from the region.
pub fn default_endpoint(service: &ServiceName, region: &str) -> Option<String> {
    let entry = CATALOGUE
        .iter()
        .find(|entry| entry.name == service.as_str())?;
    is_region(region)
        .then(|| (entry.default_endpoint)(region))
        .flatten()
}

/// The base address of the token service for projects in a region, unless the configuration says
/// another. `None` if the region is not well formed.
pub fn default_iam_endpoint(region: &str) -> Option<String> {
    is_region(region).then(|| regional_endpoint("iam", region))
}

/// A secret as it is just now, read in the way in which all are. It is not kept.
pub fn read_secret(source: &SecretSource, form: SecretForm) -> Result<Secret, SecretError> {
    secrets::resolve(source, form)
}

/// The cloud as this process uses it: its credentials, and what services are built from on each
/// thread. Cheap to clone.
#[derive(Clone)]
pub struct Upstream {
    settings: Arc<Settings>,
    transport: transport::Settings,
    credentials: Credentials,
    routes: Routes,
    metrics: Metrics,
    secrets: Secrets,
    shared: Shared,
    looks: Looks,
}

/// How the cloud let the gateway in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It issued a token.
    Token,
    /// It answered a signed request.
    Signature,
}

/// Why the cloud cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamSetupError {
    /// The credentials cannot be set up.
    #[error("the credentials for the cloud cannot be set up")]
    Credentials(#[from] CredentialsError),
    /// The client cannot be set up.
    #[error("the client for the cloud cannot be set up")]
    Transport(#[from] TransportSetupError),
    /// An address that the configuration should have refused.
    #[error("the address of a service cannot be used")]
    Endpoint(#[from] EndpointError),
}

impl Upstream {
    /// Makes ready to log in; the first login happens with the first call that needs one.
    pub fn start(
        settings: Settings,
        transport: transport::Settings,
        clock: Arc<dyn Clock>,
        registry: &mut Registry,
    ) -> Result<Self, UpstreamSetupError> {
        let (metrics, unknown_states) = (Metrics::default(), UnknownStates::default());
        metrics.register(registry);
        unknown_states.register(registry);
        let routes = Routes::new(ways(&settings)?, settings.pace, transport.request_timeout);
        routes.register(registry);
        let secrets = Secrets::new(metrics.clone());
        let with = (metrics.clone(), secrets.clone());
        let credentials = Credentials::start(&settings, &transport, Arc::clone(&clock), with)?;
        credentials.register(registry);
        let settings = Arc::new(settings);
        let shared = Shared {
            clock,
            unknown_states,
            storage_secrets: StorageSecrets::new(Arc::clone(&settings), secrets.clone()),
        };
        Ok(Self {
            looks: Looks::new(settings.freshness, metrics.clone()),
            settings,
            secrets,
            transport,
            credentials,
            routes,
            metrics,
            shared,
        })
    }

    /// Sees whether the cloud lets the gateway in for a project: by a login, unless a token is at
    /// hand; or, since keys need none, by reading one task of the first service that the project
    /// offers.
    pub async fn log_in(
        &self,
        services: &Services,
        project: &ProjectName,
    ) -> Result<Admission, UpstreamError> {
        let signs = self.credentials.credential(project).await?.signs();
        if !signs {
            return Ok(Admission::Token);
        }
        for traits in services.catalogue() {
            if let Some(service) = services.get(project, &traits.name) {
                service.port.list(0, 1, &Patience::default()).await?;
                break;
            }
        }
        Ok(Admission::Signature)
    }

    /// Returns if the thread that obtains credentials is lost: nobody is let in by the cloud any
    /// more.
    pub async fn lost(&self) {
        self.credentials.lost().await;
    }

    /// Looks at the files of secrets now: one that has changed is used from here on. That is done
    /// every 10 seconds anyhow.
    pub fn look_at_secrets(&self) {
        self.credentials.look_at_secrets();
    }

    /// How every project stands, in the order of their names. Nothing is sent for it.
    pub fn status(&self) -> Vec<ProjectStatus> {
        let services = self.routes.status(self.shared.clock.now());
        let status = |(project, settings): (&ProjectName, &ProjectSettings)| ProjectStatus {
            project: project.clone(),
            credential: self
                .credentials
                .status(project, settings.credentials.kind()),
            services: services
                .iter()
                .filter(|status| status.project == *project)
                .cloned()
                .collect(),
        };
        self.settings.projects.iter().map(status).collect()
    }

    /// Builds every service that the configuration offers, for use on this thread and by those of
    /// one lane. A service without an endpoint is left out; the configuration has refused such a
    /// project before.
    pub fn services(&self, lane: Lane) -> Result<Services, UpstreamSetupError> {
        let transport = Transport::new(&self.transport)?;
        let mut bound = HashMap::new();
        for (project, of_project) in &self.settings.projects {
            for entry in &CATALOGUE {
                let service = entry.service();
                let transport = Rc::new(transport.apart());
                let Some(address) = of_project.endpoint(&service) else {
                    continue;
                };
                let Some(flow) = self.routes.flow(project, &service, lane) else {
                    continue;
                };
                let endpoint = Endpoint::parse(address)?;
                transport.check(&endpoint)?;
                let port = (entry.build)(Parts {
                    session: Session::new(
                        Rc::clone(&transport),
                        self.credentials.clone(),
                        project.clone(),
                        Site {
                            service: service.clone(),
                            endpoint,
                        },
                        entry.codes,
                        of_project.credentials.names(),
                        flow,
                        self.metrics.clone(),
                    ),
                    project_id: of_project.project_id.clone(),
                    settings: Arc::clone(&self.settings),
                    secrets: self.secrets.clone(),
                    shared: self.shared.clone(),
                });
                let port = self.looks.shared_by(port, project.clone(), service.clone());
                let binding = Binding {
                    project_id: of_project.project_id.clone(),
                    region: of_project.region.clone(),
                    endpoint: address.to_owned(),
                };
                bound.insert((project.clone(), service), BoundService { port, binding });
            }
        }
        Ok(Services::new(catalogue(), bound))
    }
}

/// Every service of every project, and where it is.
fn ways(
    settings: &Settings,
) -> Result<Vec<(ProjectName, ServiceName, Endpoint)>, UpstreamSetupError> {
    let mut ways = Vec::new();
    for (project, of_project) in &settings.projects {
        for service in CATALOGUE.iter().map(Entry::service) {
            if let Some(address) = of_project.endpoint(&service) {
                ways.push((project.clone(), service, Endpoint::parse(address)?));
            }
        }
    }
    Ok(ways)
}

/// The pattern that most services follow. The European site has a domain of its own.
fn regional_endpoint(service: &str, region: &str) -> String {
    let top = if region == "eu-west-101" { "eu" } else { "com" };
    format!("https://{service}.{region}.myhuaweicloud.{top}")
}

/// Whether a region is well formed: it becomes part of a host name.
pub fn is_region(text: &str) -> bool {
    let clean = text
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let ends = text.starts_with('-') || text.ends_with('-');
    clean && !ends && (1..=63).contains(&text.len())
}

#[cfg(test)]
mod tests;
