//! One login.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
    time::Instant,
};

use super::{
    attempts::{Attempts, Identity},
    token::{Begun, Lifetime, Token},
    wire::{self, IssuedWire},
};
use crate::{
    domain::{
        clock::Clock,
        secret::{Secret, SecretSource},
        service::{ProjectName, Sent, UpstreamAnswer, UpstreamError, UpstreamErrorKind},
    },
    transport::{Endpoint, LoginResponse, Method, Request, Response, Transport, TransportError},
    upstream::{CredentialSettings, answer, fault, secrets},
};

/// Who logs in where, and for which project.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) project: ProjectName,
    pub(super) project_id: String,
    pub(super) endpoint: Endpoint,
    pub(super) credentials: CredentialSettings,
}

/// Logs in, for all accounts.
pub(super) struct Clerk {
    pub(super) transport: Transport,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) attempts: RefCell<Attempts>,
    pub(super) serial: Cell<u64>,
}

/// A login without a token.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was tried.
    Tried(UpstreamError),
    /// It was not: the secret could not be read, or it was refused too often a short while ago.
    Withheld(UpstreamError),
}

impl Clerk {
    /// Reads the account's secret and exchanges it for a token.
    pub(super) async fn login(&self, account: &Account) -> Result<Token, Failure> {
        let CredentialSettings::Password {
            domain,
            user,
            password,
        } = &account.credentials;
        let secret = read(&account.project, password)
            .await
            .map_err(Failure::Withheld)?;
        let identity = Identity::of(domain, user, &secret);
        let refusals = self.attempts.borrow_mut().of(identity);
        let mut refusals = refusals.lock().await;
        if let Some(refusal) = refusals.forbid(self.clock.now()) {
            return Err(Failure::Withheld(refusal));
        }
        let request = Request {
            method: Method::Post,
            path: wire::PATH.to_owned(),
            body: Some(wire::password_login(
                domain,
                user,
                &secret,
                &account.project_id,
            )),
        };
        let begun = Begun {
            at: Instant::now(),
            wall: self.clock.now(),
        };
        let result = match self.transport.login(&account.endpoint, &request).await {
            Ok(login) => self.token(account, begun, login, secret),
            Err(error) => Err(of_transport(error)),
        };
        match &result {
            Ok(_) => refusals.accepted(),
            Err(error) if is_wrong_secret(error) => refusals.refused(error, self.clock.now()),
            Err(_) => {}
        }
        result.map_err(Failure::Tried)
    }

    /// The token of an answer: only a 201 with one sane header and a document about this project is one.
    fn token(
        &self,
        account: &Account,
        begun: Begun,
        login: LoginResponse,
        password: Secret,
    ) -> Result<Token, UpstreamError> {
        let response = login.response;
        if response.status != 201 {
            return Err(refusal(&response));
        }
        let malformed = |detail| of_answer(&response, UpstreamErrorKind::Malformed, detail, None);
        let text = login.token.ok_or_else(|| {
            malformed("The token service answered without one well-formed token.")
        })?;
        let issued: IssuedWire = serde_json::from_slice(&response.body)
            .map_err(|_| malformed("The token service's document could not be read."))?;
        if issued
            .token
            .project
            .is_some_and(|project| project.id != account.project_id)
        {
            return Err(malformed(
                "The token service issued a token for another project.",
            ));
        }
        let lifetime = Lifetime::new(begun, issued.token.issued_at, issued.token.expires_at)
            .ok_or_else(|| {
                malformed(
                    "The token service issued a token with an impossible lifetime, or the clock of this machine is wrong.",
                )
            })?;
        let serial = self.serial.get() + 1;
        self.serial.set(serial);
        let secrets = (text, password);
        Ok(Token::new(
            serial,
            account.project.clone(),
            secrets,
            lifetime,
        ))
    }
}

async fn read(project: &ProjectName, source: &SecretSource) -> Result<Secret, UpstreamError> {
    secrets::read(source).await.map_err(|error| {
        // Its place is for operators only, so it is not part of the error that travels to callers.
        tracing::warn!(project = %project, %error, "the password of a project cannot be read");
        let detail = "The gateway's own password for the token service could not be read.";
        failure(UpstreamErrorKind::Unavailable, detail)
    })
}

/// Whether the vendor counts this as a wrong attempt, and may lock the account after some more.
fn is_wrong_secret(error: &UpstreamError) -> bool {
    error
        .answer
        .as_ref()
        .is_some_and(|answer| [401, 403].contains(&answer.status))
}

/// What an answer without a token means.
fn refusal(response: &Response) -> UpstreamError {
    use UpstreamErrorKind as Kind;
    let code = answer::error_code(&response.body).map(|(code, _)| code);
    let (kind, detail) = match (response.status, code.as_deref()) {
        (429, _) | (_, Some("IAM.0012")) => {
            (Kind::Throttled, "The token service asks to slow down.")
        }
        (500.., _) => (
            Kind::Unavailable,
            "The token service has a fault of its own.",
        ),
        // Something in between answered, when the document is none of the token service's.
        (400 | 401 | 403, Some(_)) => (
            Kind::CredentialsRefused,
            "The token service refused the gateway's credentials.",
        ),
        (404, Some(_)) => (
            Kind::Rejected,
            "The token service does not know what was asked for.",
        ),
        (_, _) => (
            Kind::Malformed,
            "The token service gave an answer that makes no sense.",
        ),
    };
    of_answer(response, kind, detail, code.filter(|code| is_code(code)))
}

/// Whether a text can be a code of the vendor: a number, or letters, a full stop and a number. Codes are logged and shown,
/// so whatever else a document holds in their place stays out.
fn is_code(text: &str) -> bool {
    let (prefix, number) = text.split_once('.').unwrap_or(("", text));
    text.len() <= 32
        && prefix.bytes().all(|byte| byte.is_ascii_alphabetic())
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a text can be the vendor's id of a request: hexadecimal digits and dashes. It is shown to callers, so a header that
/// repeats something of the login stays out.
fn is_request_id(text: &str) -> bool {
    let clean = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    text.len() <= 64 && text.bytes().all(clean)
}

fn of_answer(
    response: &Response,
    kind: UpstreamErrorKind,
    detail: &str,
    error_code: Option<String>,
) -> UpstreamError {
    UpstreamError {
        retry_after: response.retry_after,
        answer: Some(Box::new(UpstreamAnswer {
            service: "iam".to_owned(),
            status: response.status,
            error_code,
            error_msg: None,
            request_id: response.request_id.clone().filter(|id| is_request_id(id)),
        })),
        ..failure(kind, detail)
    }
}

fn of_transport(error: TransportError) -> UpstreamError {
    UpstreamError {
        // A login changes nothing at the migration services.
        sent: Sent::No,
        ..fault::of_transport("No token was issued", error)
    }
}

/// A failure of a login, which changes nothing at the migration services.
pub(super) fn failure(kind: UpstreamErrorKind, detail: &str) -> UpstreamError {
    UpstreamError {
        kind,
        sent: Sent::No,
        retry_after: None,
        answer: None,
        detail: detail.to_owned(),
    }
}
