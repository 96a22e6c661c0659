//! The OpenAPI document: made of the routes, with the errors that each of them can answer with.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::{
    Modify, OpenApi, ToSchema,
    openapi::{
        self, Content, Info, License, Ref, ResponseBuilder, Tag,
        path::Operation,
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};
use utoipa_actix_web::service_config::ServiceConfig;

use super::{problem::ProblemDocument, problem::kinds::ProblemType};

/// The document, and what can be read from it.
pub(super) struct Document {
    api: openapi::OpenApi,
    compact: String,
    /// The segments of each path, `None` for a parameter, and the methods that it knows.
    methods: Vec<(Vec<Option<String>>, String)>,
}

/// What every guarded route can answer with.
const GUARDED: [ProblemType; 5] = [
    ProblemType::InvalidRequest,
    ProblemType::Unauthenticated,
    ProblemType::Forbidden,
    ProblemType::Overloaded,
    ProblemType::StoreUnavailable,
];

/// What every look at the cloud can answer with.
const LOOK: [ProblemType; 7] = [
    ProblemType::CredentialsRefused,
    ProblemType::UpstreamForbidden,
    ProblemType::UpstreamRejected,
    ProblemType::UpstreamUnavailable,
    ProblemType::UpstreamMalformed,
    ProblemType::UpstreamThrottled,
    ProblemType::UpstreamTimeout,
];

/// What every operation can end with, or be refused with.
const CHANGE: [ProblemType; 11] = [
    ProblemType::TaskNotFound,
    ProblemType::TaskInProgress,
    ProblemType::OperationConflict,
    ProblemType::OperationSuperseded,
    ProblemType::OperationCancelled,
    ProblemType::CredentialsRefused,
    ProblemType::UpstreamForbidden,
    ProblemType::UpstreamRejected,
    ProblemType::ProjectChanged,
    ProblemType::DeadlineExceeded,
    ProblemType::StoreUnavailable,
];

/// The kinds of problem that an operation of the document can answer with, beside `internal`.
fn problems_of(operation_id: &str) -> Vec<ProblemType> {
    use ProblemType as P;
    let (groups, own): (&[&[P]], &[P]) = match operation_id {
        "list_tasks" => (&[&GUARDED, &LOOK], &[]),
        "show_task" => (&[&GUARDED, &LOOK], &[P::TaskNotFound]),
        "pause_task" => (&[&GUARDED, &CHANGE], &[P::TaskFinished, P::TaskNotStarted]),
        "start_task" => (
            &[&GUARDED, &CHANGE],
            &[
                P::TaskFinished,
                P::TaskFailed,
                P::CredentialsLost,
                P::PayloadTooLarge,
            ],
        ),
        "delete_task" => (&[&GUARDED, &CHANGE], &[]),
        "list_operations" => (&[&GUARDED], &[]),
        "show_operation" => (&[&GUARDED], &[P::OperationNotFound]),
        _ => (&[], &[]),
    };
    let wanted = |kind: &P| {
        *kind == P::Internal
            || own.contains(kind)
            || groups.iter().any(|group| group.contains(kind))
    };
    ProblemType::ALL.iter().copied().filter(wanted).collect()
}

#[derive(OpenApi)]
#[openapi(components(schemas(ProblemDocument)), modifiers(&Security))]
struct Base;

struct Security;

impl Modify for Security {
    fn modify(&self, api: &mut openapi::OpenApi) {
        let key = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(
                "A key that the gateway's configuration knows by its SHA-256.",
            ))
            .build();
        api.components
            .get_or_insert_default()
            .add_security_scheme("key", SecurityScheme::Http(key));
        // Either a key, or nothing, where the configuration lets requests without credentials in.
        api.security = Some(vec![
            SecurityRequirement::new("key", Vec::<String>::new()),
            SecurityRequirement::default(),
        ]);
    }
}

impl Document {
    /// Makes the document.
    pub(super) fn generate() -> Self {
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
        api.info = info;
        api.tags = Some(vec![
            tag("tasks", "Migration tasks of all services"),
            tag("operations", "What was asked for, and what became of it"),
            tag("health", "For machines that watch the gateway"),
        ]);
        collect_routes(&mut api);
        for item in api.paths.paths.values_mut() {
            let operations = [&mut item.get, &mut item.post, &mut item.delete]
                .into_iter()
                .flatten();
            for operation in operations {
                add_problems(operation);
            }
        }
        // A document of our own types always serialises.
        let compact = serde_json::to_string(&api).unwrap_or_default();
        let methods = methods(&api);
        Self {
            api,
            compact,
            methods,
        }
    }

    /// The document as JSON.
    pub(super) fn compact(&self) -> &str {
        &self.compact
    }

    /// The document as JSON for people, with a newline at its end.
    pub(super) fn indented(&self) -> String {
        let mut text = serde_json::to_string_pretty(&self.api).unwrap_or_default();
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
    let (tags, security) = (api.tags.clone(), api.security.clone());
    api.merge(collected);
    api.info = info;
    api.tags = tags;
    api.security = security;
}

fn add_problems(operation: &mut Operation) {
    let Some(id) = operation.operation_id.clone() else {
        return;
    };
    let mut by_status: BTreeMap<u16, Vec<ProblemType>> = BTreeMap::new();
    for kind in problems_of(&id) {
        by_status.entry(kind.status()).or_default().push(kind);
    }
    for (status, kinds) in by_status {
        let titles: Vec<String> = kinds
            .iter()
            .map(|kind| format!("`{}`: {}.", kind.slug(), kind.title()))
            .collect();
        let mut content = Content::new(Some(Ref::from_schema_name(ProblemDocument::name())));
        content.example = kinds.first().map(|kind| example(*kind));
        let response = ResponseBuilder::new()
            .description(titles.join("\n"))
            .content("application/problem+json", content)
            .build();
        operation
            .responses
            .responses
            .insert(status.to_string(), response.into());
    }
}

fn example(kind: ProblemType) -> Value {
    json!({
        "type": format!("/problems/{}", kind.slug()),
        "title": kind.title(),
        "status": kind.status(),
        "detail": format!("{}.", kind.title()),
        "request_id": "01JGZ4K8W3M5N7P9R1T3V5X7Z9",
    })
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
