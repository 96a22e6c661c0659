//! The OpenAPI document: made of the table of routes, and refined by what the types of handlers
//! cannot say.

mod errors;
mod events;
mod examples;
mod links;
mod narrow;
mod refine;

use actix_web::web::Bytes;
use serde_json::Value;
use utoipa::{
    Modify, OpenApi,
    openapi::{
        self, Contact, Info, License, Server, Tag,
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};
use utoipa_actix_web::service_config::ServiceConfig;

use super::{operations::watch::OperationUpdate, problem::ProblemDocument, tasks::watch::TaskEnd};

/// The document, and what can be read from it.
pub(super) struct Document {
    json: Value,
    compact: Bytes,
    /// The segments of each path, `None` for a parameter, and the methods that it knows.
    methods: Vec<(Vec<Option<String>>, String)>,
}

#[derive(OpenApi)]
#[openapi(
    components(schemas(ProblemDocument, OperationUpdate, TaskEnd)),
    modifiers(&Security)
)]
struct Base;

struct Security;

impl Modify for Security {
    fn modify(&self, api: &mut openapi::OpenApi) {
        let components = api.components.get_or_insert_default();
        let mut add = |name, format: Option<&str>, description: &str| {
            let mut scheme = HttpBuilder::new()
                .scheme(HttpAuthScheme::Bearer)
                .description(Some(description));
            if let Some(format) = format {
                scheme = scheme.bearer_format(format);
            }
            components.add_security_scheme(name, SecurityScheme::Http(scheme.build()));
        };
        let key = "A key that the gateway's configuration knows by its SHA-256.";
        add("key", None, key);
        let token = "A token of an issuer that the gateway's configuration knows, signed with one of the issuer's keys.";
        add("token", Some("JWT"), token);
        let certificate = "A client certificate with an alternative name (DNS or URI) that the gateway's configuration knows, \
                           where the gateway's own listener is encrypted and asks for one.";
        let certificate = SecurityScheme::MutualTls {
            description: Some(certificate.to_owned()),
            deprecated: None,
            extensions: None,
        };
        components.add_security_scheme("certificate", certificate);
        // One of them, or nothing where the configuration lets requests without credentials in.
        api.security = Some(vec![
            SecurityRequirement::new("key", Vec::<String>::new()),
            SecurityRequirement::new("token", Vec::<String>::new()),
            SecurityRequirement::new("certificate", Vec::<String>::new()),
            SecurityRequirement::default(),
        ]);
    }
}

impl Document {
    /// Makes the document for these services.
    pub(super) fn generate(services: &[&str]) -> Self {
        let mut api = Base::openapi();
        let mut info = Info::new("Migration Gateway", env!("CARGO_PKG_VERSION"));
        info.description = Some(
            "Pause, start, delete and watch migration tasks of OMS and SMS, without cloud credentials.\n\n\
             Every error is a problem document (RFC 9457); its `type` says which, and `sent` whether a request that would \
             change something reached the cloud."
                .to_owned(),
        );
        let mut license = License::new("Apache-2.0");
        license.identifier = Some("Apache-2.0".to_owned());
        info.license = Some(license);
        // Whom to ask about a running gateway is known to those who run it.
        let mut contact = Contact::new();
        contact.name = Some("The maintainers of Migration Gateway".to_owned());
        info.contact = Some(contact);
        api.info = info;
        api.servers = Some(vec![server()]);
        api.tags = Some(vec![
            tag("tasks", "Migration tasks of all services"),
            tag("operations", "What was asked for, and what became of it"),
            tag("callers", "Who asks, and what they may do"),
            tag("status", "How the gateway stands with the cloud"),
            tag("problems", "What errors mean, for people"),
            tag("health", "For machines that watch the gateway"),
        ]);
        collect_routes(&mut api);
        let methods = methods(&api);
        // A document of our own types always serialises.
        let mut document = serde_json::to_value(&api).unwrap_or_default();
        refine::refine(&mut document);
        narrow::narrow(&mut document, services);
        links::add(&mut document);
        Self {
            compact: document.to_string().into(),
            json: document,
            methods,
        }
    }

    /// The document as JSON.
    pub(super) fn compact(&self) -> Bytes {
        self.compact.clone()
    }

    /// The document as JSON for people, with a newline at its end.
    pub(super) fn indented(&self) -> String {
        let mut text = serde_json::to_string_pretty(&self.json).unwrap_or_default();
        text.push('\n');
        text
    }

    /// The methods that a path knows, as `Allow` lists them; `None` if there is no such path.
    pub(super) fn methods_of(&self, path: &str) -> Option<String> {
        let segments: Vec<&str> = path.split('/').collect();
        let matches = |template: &[Option<String>]| {
            template.len() == segments.len()
                && template
                    .iter()
                    .zip(&segments)
                    .all(|(expected, segment)| match expected {
                        Some(expected) => expected == segment,
                        None => !segment.is_empty(),
                    })
        };
        self.methods
            .iter()
            .find(|(template, _)| matches(template))
            .map(|(_, methods)| methods.clone())
    }
}

/// The document is fetched from the gateway it describes, so that a relative address is the right
/// one everywhere.
fn server() -> Server {
    let mut server = Server::new("/");
    server.description = Some("The gateway that this document comes from".to_owned());
    server
}

fn tag(name: &str, description: &str) -> Tag {
    let mut tag = Tag::new(name);
    tag.description = Some(description.to_owned());
    tag
}

/// Reads the table of routes into the document.
fn collect_routes(api: &mut openapi::OpenApi) {
    use utoipa_actix_web::AppExt as _;
    let (_app, collected) = actix_web::App::new()
        .into_utoipa_app()
        .configure(|config: &mut ServiceConfig<'_>| super::routes(config))
        .split_for_parts();
    let info = api.info.clone();
    let (tags, security, servers) = (api.tags.clone(), api.security.clone(), api.servers.clone());
    api.merge(collected);
    api.info = info;
    api.tags = tags;
    api.security = security;
    api.servers = servers;
}

fn methods(api: &openapi::OpenApi) -> Vec<(Vec<Option<String>>, String)> {
    let segments = |path: &str| {
        path.split('/')
            .map(|segment| (!segment.starts_with('{')).then(|| segment.to_owned()))
            .collect()
    };
    let mut table: Vec<(Vec<Option<String>>, String)> = api
        .paths
        .paths
        .iter()
        .map(|(path, item)| {
            let mut methods = Vec::new();
            if item.get.is_some() {
                methods.extend(["GET", "HEAD"]);
            }
            if item.post.is_some() {
                methods.push("POST");
            }
            if item.delete.is_some() {
                methods.push("DELETE");
            }
            (segments(path), methods.join(", "))
        })
        .collect();
    for page in ["/openapi.json", "/docs", "/docs/"] {
        table.push((segments(page), "GET, HEAD".to_owned()));
    }
    table
}
