//! A login by password: for a token.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    attempts::Urgency,
    clerk::{Account, Clerk, Failure},
    credential::{Credential, Proof},
    lifetime::{Begun, Lifetime},
};
use crate::{
    domain::{
        secret::Secret,
        service::{Sent, UpstreamAnswer, UpstreamError, UpstreamErrorKind},
    },
    transport::{LoginResponse, Method, Request, Response, TransportError},
    upstream::{answer, fault},
};

/// The token service, as answers are named after it.
const SERVICE: &str = "iam";

/// Where a login is sent. The list of the vendor's services, which nobody reads here, is left out
/// of the answer.
const PATH: &str = "/v3/auth/tokens?nocatalog=true";
/// The status that counts towards the lock of the user, whoever's body it has ("401 Authentication
/// failed" of the page on obtaining a token).
const WRONG_PASSWORD: u16 = 401;

impl Clerk {
    /// Exchanges a password of the account for a token. One that was refused is tried again after
    /// some seconds, for which whoever asks waits.
    pub(super) async fn log_in(
        &self,
        account: &Account,
        [domain, user]: [&str; 2],
        secret: Secret,
        urgency: Urgency,
    ) -> Result<Credential, Failure> {
        let identity = Self::user(domain, user, &secret);
        let trials = self.attempts.borrow_mut().of(identity, self.clock.uptime());
        let _turn = trials.turn(&account.endpoint, urgency, &*self.clock).await;
        self.may_try(&trials, urgency)?;
        let of_user = self
            .attempts
            .borrow_mut()
            .of(account.holder(), self.clock.uptime());
        let is_repeat = trials.refusals().are_there();
        if is_repeat || urgency == Urgency::Former {
            let forbidden = of_user.refusals().forbid_repeat(self.clock.uptime());
            forbidden.map_or(Ok(()), |error| Err(Failure::Withheld(error)))?;
        }
        if is_repeat {
            let hold = of_user.refusals().hold(self.clock.uptime());
            sleep(hold).await;
        }
        // Whoever else logs in as this user waits behind it.
        sleep(trials.login_begins(self.clock.uptime())).await;
        let request = Request {
            method: Method::Post,
            path: PATH.to_owned(),
            body: Some(password_login(domain, user, &secret, &account.project_id)),
        };
        let begun = self.begun();
        // Also if no more than the head of a refusal came whole.
        let mut is_refused = false;
        let result = match self.transport.login(&account.endpoint, &request).await {
            Ok(login) => token(account, begun, login),
            Err(error) => {
                is_refused = error.status == Some(WRONG_PASSWORD);
                Err(of_transport(error))
            }
        };
        match &result {
            Ok(_) => {
                trials.refusals().proven();
                of_user.refusals().proven();
            }
            Err(error) if is_refused || is_wrong_secret(error) => {
                let uptime = self.clock.uptime();
                trials.refusals().refused(error, uptime, None);
                of_user.refusals().refused(error, uptime, None);
            }
            Err(_) => {}
        }
        self.metrics.login(match &result {
            Ok(_) => "ok",
            Err(error) => error.kind.as_str(),
        });
        let (text, lifetime) = result.map_err(|error| {
            if error.kind == UpstreamErrorKind::CredentialsRefused {
                Failure::Refused(error, identity)
            } else {
                Failure::Fault(error)
            }
        })?;
        let proof = Proof::Token {
            text,
            password: secret,
        };
        Ok(self.credential(account, (identity, trials), proof, Some(lifetime)))
    }
}

/// The document of a login by password, for a token of one project.
fn password_login(domain: &str, user: &str, password: &Secret, project_id: &str) -> Value {
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
struct IssuedWire {
    token: TokenWire,
}

#[derive(Debug, Deserialize)]
struct TokenWire {
    issued_at: Option<Timestamp>,
    expires_at: Timestamp,
    project: Option<ProjectWire>,
}

#[derive(Debug, Deserialize)]
struct ProjectWire {
    id: String,
}

/// The token of an answer: only a 201 with one sane header and a document about this project is
/// one.
fn token(
    account: &Account,
    begun: Begun,
    login: LoginResponse,
) -> Result<(Secret, Lifetime), UpstreamError> {
    let response = login.response;
    if response.status != 201 {
        return Err(refusal(&response));
    }
    let malformed = |detail| {
        of_answer(
            SERVICE,
            &response,
            UpstreamErrorKind::Malformed,
            detail,
            None,
        )
    };
    let text = login
        .token
        .ok_or_else(|| malformed("The token service answered without one well-formed token."))?;
    let issued: IssuedWire = serde_json::from_slice(&response.body)
        .map_err(|_| malformed("The token service's document could not be read."))?;
    let project = issued
        .token
        .project
        .ok_or_else(|| malformed("The token service issued a token that is for no project."))?;
    if project.id != account.project_id {
        return Err(malformed(
            "The token service issued a token for another project.",
        ));
    }
    let lifetime = Lifetime::of_token(begun, issued.token.issued_at, issued.token.expires_at)
        .ok_or_else(|| {
            malformed(
                "The token service issued a token with an impossible lifetime, or the clock of this machine is wrong.",
            )
        })?;
    Ok((text, lifetime))
}

/// Whether the vendor counts this as a wrong attempt, and may lock the account after some more.
fn is_wrong_secret(error: &UpstreamError) -> bool {
    let status = error.answer.as_ref().map(|answer| answer.status);
    match status {
        Some(WRONG_PASSWORD) => true,
        // Whatever is in between forbids as well, and counts nothing.
        Some(403) => error.kind == UpstreamErrorKind::CredentialsRefused,
        Some(_) | None => false,
    }
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
    let code = code.filter(|code| is_code(code));
    of_answer(SERVICE, response, kind, detail, code)
}

/// Whether a text can be a code of the vendor: a number, or letters, a full stop and a number.
/// Codes are logged and shown, so whatever else a document holds in their place stays out.
fn is_code(text: &str) -> bool {
    let (prefix, number) = text.split_once('.').unwrap_or(("", text));
    text.len() <= 32
        && prefix.bytes().all(|byte| byte.is_ascii_alphabetic())
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether a text can be the vendor's id of a request: hexadecimal digits and dashes. It is shown
/// to callers, so a header that repeats something of the login stays out.
fn is_request_id(text: &str) -> bool {
    let clean = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    text.len() <= 64 && text.bytes().all(clean)
}

/// A failure by an answer of this service.
pub(super) fn of_answer(
    service: &str,
    response: &Response,
    kind: UpstreamErrorKind,
    detail: &str,
    error_code: Option<String>,
) -> UpstreamError {
    UpstreamError {
        retry_after: response.retry_after,
        answer: Some(Box::new(UpstreamAnswer {
            service: service.to_owned(),
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
