//! `POST /tasks/{id}/start`.

use actix_web::{HttpRequest, HttpResponse, post};
use serde::Deserialize;
use utoipa::ToSchema;

use super::parameters;
use crate::{
    api::{
        answer::{self, Change, Terms},
        operations::view::OperationView,
        plan::ChangeView,
        problem::Problem,
        problem::kinds::ProblemType,
        request::body::{JsonReader, StartBytes},
        request::guard::{Action, Head, On},
        request::target::NamedTask,
    },
    domain::{
        access::Permission,
        audit::{Decision, Rule},
        operation::Goal,
        service::{CredentialName, Sent},
        start::{StartRequest, StorageCredential, StorageKeys},
    },
};

/// What stands for keys.
const CREDENTIAL: &str =
    "the name of a storage credential, or an object with access_key and secret_key";

/// A start.
pub(crate) struct Start {
    terms: Terms,
    /// What the service needs for it, once the body is read.
    request: Option<StartRequest>,
}

impl Action for Start {
    type Target = NamedTask;
    type Body = StartBytes;

    fn read(head: &mut Head<'_>) -> Self {
        Self {
            terms: Terms::read(head),
            request: None,
        }
    }

    fn read_body(&mut self, body: StartBytes, target: &NamedTask) -> Result<(), Problem> {
        if target.traits.start_needs_credentials {
            if body.is_empty() {
                // It is the keys that are missed, rather than the JSON around them.
                let detail = format!("A body is needed: destination is {CREDENTIAL}.");
                return Err(Problem::fault("body", "destination", detail));
            }
            self.request = Some(read(&body)?);
        } else if !body.is_empty() {
            let name = &target.traits.name;
            let detail = format!("A start of a task of {name} takes no body.");
            return Err(Problem::fault("body", "", detail));
        }
        Ok(())
    }

    fn change(&self) -> Option<&'static str> {
        (!self.terms.is_dry_run).then(|| Goal::Running.action())
    }

    fn permissions(&self) -> &'static [Permission] {
        &[Permission::TasksStart]
    }
}

/// What a start of an OMS task needs: the cloud does not keep bucket keys between runs.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    dead_code,
    reason = "it describes the body; JsonReader reads it, so that no fault quotes a key"
)]
pub(crate) struct StartBody {
    /// Keys to the source bucket; left out for tasks that read a list of URLs.
    #[schema(required = false)]
    source: Option<StorageCredentialBody>,
    /// Keys to the destination bucket.
    destination: StorageCredentialBody,
    /// Copy only the objects that failed before.
    #[serde(default)]
    #[schema(default = false)]
    migrate_failed_objects: bool,
}

/// Keys to a bucket: the name of an entry of the gateway's `storage_credentials`, or the keys
/// themselves.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(untagged)]
#[schema(as = StorageCredential)]
#[expect(dead_code, reason = "see StartBody")]
pub(crate) enum StorageCredentialBody {
    /// The name of an entry of the configuration.
    #[schema(example = "archive")]
    Name(String),
    /// The keys themselves. They are kept in memory only.
    Keys(StorageKeysBody),
}

/// Keys to a bucket.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = StorageKeys)]
#[expect(dead_code, reason = "see StartBody")]
pub(crate) struct StorageKeysBody {
    /// The access key.
    #[schema(min_length = 1, max_length = 100, pattern = "^[!-~]+$")]
    access_key: String,
    /// The secret key.
    #[schema(min_length = 1, max_length = 100, pattern = "^[!-~]+$", format = Password)]
    secret_key: String,
    /// The token that belongs to temporary keys.
    #[schema(min_length = 1, max_length = 16384, pattern = "^[!-~]+$", format = Password)]
    security_token: Option<String>,
}

/// Start a task.
///
/// Starts a task that is ready, paused or failed, and waits until it runs. OMS needs bucket keys
/// each time, by name or as they are; SMS takes no body.
#[utoipa::path(
    tag = "tasks",
    params(
        parameters::InPath,
        parameters::Trial,
        parameters::Place,
        parameters::Answering,
    ),
    request_body(
        content = StartBody,
        description = "Needed for OMS, not allowed for SMS.",
        example = json!({"source": "archive", "destination": "archive", "migrate_failed_objects": false}),
    ),
    responses(
        (status = 200, description = "The task runs; or, with `dry_run`, the plan.", body = ChangeView),
        (status = 202, description = "The operation goes on.", body = OperationView),
    ),
)]
#[post("/tasks/{id}/start")]
pub(crate) async fn start_task(
    on: On<Start>,
    request: HttpRequest,
) -> Result<HttpResponse, Problem> {
    let start = &on.action.request;
    for credential in start
        .iter()
        .flat_map(|start| [&start.source, &start.destination])
        .flatten()
    {
        if let StorageCredential::Named(name) = credential {
            check_grant(&on, name).await?;
        }
    }
    let change = Change {
        goal: Goal::Running,
        start: on.action.request,
        terms: on.action.terms,
    };
    answer::to_change(&request, &on.known, on.target, change).await
}

fn read(body: &StartBytes) -> Result<StartRequest, Problem> {
    let mut reader = JsonReader::of(body)?;
    let source = credential(&mut reader, "source", false);
    let destination = credential(&mut reader, "destination", true);
    let migrate_failed_objects = reader.boolean("migrate_failed_objects").unwrap_or(false);
    reader.end()?;
    Ok(StartRequest {
        source,
        destination,
        migrate_failed_objects,
    })
}

fn credential(
    reader: &mut JsonReader,
    member: &'static str,
    is_required: bool,
) -> Option<StorageCredential> {
    match reader.take(member) {
        None | Some(serde_json::Value::Null) if !is_required => None,
        Some(serde_json::Value::String(text)) => {
            let name = CredentialName::parse(&text);
            if name.is_none() {
                reader.fault(member, format!("{member} must be {CREDENTIAL}."));
            }
            name.map(StorageCredential::Named)
        }
        Some(serde_json::Value::Object(members)) => {
            let mut keys = reader.nested(member, members);
            let access_key = keys.secret("access_key", 100, true);
            let secret_key = keys.secret("secret_key", 100, true);
            let security_token = keys.secret("security_token", 16_384, false);
            keys.end_into(reader);
            let (access_key, secret_key) = (access_key?, secret_key?);
            Some(StorageCredential::Inline(StorageKeys {
                access_key,
                secret_key,
                security_token,
            }))
        }
        Some(_) => {
            reader.fault(member, format!("{member} must be {CREDENTIAL}."));
            None
        }
        None => {
            reader.fault(member, format!("{member} is needed: {CREDENTIAL}."));
            None
        }
    }
}

/// The same answer for an entry that does not exist and for one that others may name: names are
/// nobody's business.
async fn check_grant(on: &On<Start>, name: &CredentialName) -> Result<(), Problem> {
    let grants = &on.known.state.settings.storage_grants;
    let covered = grants
        .get(name)
        .is_some_and(|grant| grant.covers(&on.known.caller().name, &on.target.task.project));
    if covered {
        return Ok(());
    }
    if let Some(auditor) = &on.target.auditor {
        let rule = Rule::StorageCredential.as_str();
        auditor.turned_down(Decision::Denied, rule, None).await?;
    }
    // The name is not repeated: it can be a key in the wrong place.
    let detail = "The caller may not use a storage credential of that name here.";
    Err(Problem::new(ProblemType::Forbidden, detail).sent(Sent::No))
}
