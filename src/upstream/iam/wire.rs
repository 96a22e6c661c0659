//! The token service's documents.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::domain::secret::Secret;

/// Where a login is sent. The list of the vendor's services, which nobody reads here, is left out of the answer.
pub(super) const PATH: &str = "/v3/auth/tokens?nocatalog=true";

/// The document of a login by password, for a token of one project.
pub(super) fn password_login(
    domain: &str,
    user: &str,
    password: &Secret,
    project_id: &str,
) -> Value {
    json!({"auth": {
        "identity": {
            "methods": ["password"],
            "password": {"user": {
                "name": user,
                "password": password.expose(),
                "domain": {"name": domain},
            }},
        },
        "scope": {"project": {"id": project_id}},
    }})
}

/// What a token is good for. The token itself is in a header.
#[derive(Debug, Deserialize)]
pub(super) struct IssuedWire {
    pub(super) token: TokenWire,
}

#[derive(Debug, Deserialize)]
pub(super) struct TokenWire {
    pub(super) issued_at: Option<Timestamp>,
    pub(super) expires_at: Timestamp,
    pub(super) project: Option<ProjectWire>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ProjectWire {
    pub(super) id: String,
}
