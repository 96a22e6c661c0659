//! `GET /whoami`: who the gateway takes a caller for.

use actix_web::{HttpResponse, get};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::request::{
    body::Unread,
    guard::{Action, Head, On},
};
use crate::{
    domain::access::{Grant, NamePattern, Permission, Scope},
    domain::service::{ProjectName, ServiceName},
    identity::Identity,
};

/// A caller as the gateway knows it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Whoami)]
pub(crate) struct WhoamiView {
    /// The name under which the caller acts: one of the configuration, or the issuer of the token,
    /// a colon and the claim.
    #[schema(example = "team-a")]
    name: String,
    /// How the caller said so: by `key`, `token` or `certificate`, or `anonymous` for requests
    /// without any.
    #[schema(example = "key")]
    authenticated_by: &'static str,
    /// When the credential of this request ends.
    #[schema(required = true, example = "2026-12-31T00:00:00Z")]
    expires_at: Option<Timestamp>,
    /// What the caller may do. Each entry is taken by itself: its permissions hold in its own
    /// projects, with its own services and for its own tasks only.
    grants: Vec<GrantView>,
}

/// What is granted together.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Grant)]
pub(crate) struct GrantView {
    /// What may be done.
    #[schema(example = json!(["tasks:read", "tasks:pause"]))]
    permissions: Vec<&'static str>,
    /// In which projects; `*` for all.
    #[schema(example = json!(["default"]))]
    projects: Vec<String>,
    /// With which services; `*` for all.
    #[schema(example = json!(["*"]))]
    services: Vec<String>,
    /// To tasks of which names, where it changes them: patterns; `*` for all, also those without a
    /// name.
    #[schema(example = json!(["logs-*"]))]
    tasks: Vec<String>,
}

impl From<&Identity> for WhoamiView {
    fn from(identity: &Identity) -> Self {
        Self {
            name: identity.caller.name.to_string(),
            authenticated_by: identity.method.as_str(),
            expires_at: identity.expires_at,
            grants: identity.caller.grants.iter().map(GrantView::from).collect(),
        }
    }
}

impl From<&Grant> for GrantView {
    fn from(grant: &Grant) -> Self {
        let permissions = grant.permissions.iter();
        Self {
            permissions: permissions.map(|one| Permission::as_str(*one)).collect(),
            projects: names(&grant.projects, ProjectName::as_str),
            services: names(&grant.services, ServiceName::as_str),
            tasks: names(&grant.tasks, NamePattern::as_str),
        }
    }
}

fn names<T>(scope: &Scope<T>, text: fn(&T) -> &str) -> Vec<String> {
    match scope {
        Scope::All => vec!["*".to_owned()],
        Scope::Only(names) => names.iter().map(|name| text(name).to_owned()).collect(),
    }
}

/// A question of callers about themselves.
pub(crate) struct Whoami;

impl Action for Whoami {
    type Target = ();
    type Body = Unread;

    fn read(_head: &mut Head<'_>) -> Self {
        Self
    }

    fn permissions(&self) -> &'static [Permission] {
        &[]
    }
}

/// Show who asks.
///
/// Whom the gateway takes the caller for, how it knows, and what the caller may do. For requests
/// without credentials too, where these may do anything. A key or token is never shown.
#[utoipa::path(
    tag = "callers",
    responses((status = 200, description = "The caller.", body = WhoamiView)),
)]
#[get("/whoami")]
pub(crate) async fn whoami(on: On<Whoami>) -> HttpResponse {
    HttpResponse::Ok().json(WhoamiView::from(&on.known.identity))
}
