//! What an answer of the vendor means.
//!
//! Every complete answer of a migration service becomes a document, a receipt or an
//! [`UpstreamError`] here. The vendor answers almost every error with 400, so the code in the body
//! decides before the status does; which codes mean what is the service's own [`Codes`]. Nothing
//! here asks anybody anything.

mod code;

use serde::de::IgnoredAny;
use serde_json::Value;

use super::echo::{Names, without_keys};
use crate::{
    domain::{
        service::{Receipt, Sent, ServiceName, UpstreamAnswer, UpstreamError, UpstreamErrorKind},
        task::TaskError,
    },
    transport::{Purpose, Response},
};

use self::code::{CODE_MAX, gateway_number};
pub(super) use self::code::{MESSAGE_MAX, clean};

/// The longest plain text, in bytes, that can be a service's word of acceptance rather than a page
/// of something else.
const PLAIN_TEXT_MAX: usize = 256;
/// What a service's own codes mean. Codes that are in no list are ordinary refusals of the request.
#[derive(Debug)]
pub(crate) struct Codes {
    /// What its codes begin with, the full stop included.
    pub(crate) prefix: &'static str,
    /// There is no such task.
    pub(crate) gone: &'static str,
    /// The task is in progress.
    pub(crate) still_in_progress: &'static [&'static str],
    /// The gateway's identity lacks a permission.
    pub(crate) forbidden: &'static [&'static str],
    /// The gateway's token was refused.
    pub(crate) credentials: &'static [&'static str],
    /// A passing fault of the service, whatever the status.
    pub(crate) transient: &'static [&'static str],
}

/// Reads the answers of one service.
#[derive(Debug)]
pub(crate) struct Answers {
    service: ServiceName,
    codes: &'static Codes,
    names: Names,
}

/// What a body is, regardless of what it says.
enum Form {
    Empty,
    Json(Value),
    /// Short text for people; the documentation types some bodies "String".
    Text,
    /// Markup, cut or broken JSON, bytes that are no text.
    Broken,
}

impl Form {
    fn json(&self) -> Option<&Value> {
        match self {
            Self::Json(document) => Some(document),
            Self::Empty | Self::Text | Self::Broken => None,
        }
    }
}

/// Whose code it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The service's own.
    Service,
    /// The API gateway's, in front of the service.
    Gateway,
    /// Somebody else's.
    Other,
    /// There is none.
    Nobody,
}

impl Answers {
    /// For a service and its codes, with the names that no text for callers may hold.
    pub(in crate::upstream) fn new(
        service: ServiceName,
        codes: &'static Codes,
        names: Names,
    ) -> Self {
        Self {
            service,
            codes,
            names,
        }
    }

    /// The document that a read was answered with. [`UpstreamErrorKind::Gone`] if the service said
    /// that there is no such task.
    pub(crate) fn document(&self, response: &Response) -> Result<Value, UpstreamError> {
        let form = form_of(&response.body);
        if !is_success(response.status) {
            return Err(self.error(Purpose::Read, response, &form));
        }
        match form {
            Form::Json(document) => Ok(document),
            Form::Empty | Form::Text | Form::Broken => {
                Err(self.malformed(response, "which is not the JSON that was asked for"))
            }
        }
    }

    /// The receipt for a change. A 2xx with an empty, well-formed or short plain-text body is one:
    /// the bodies of control calls are not documented.
    pub(crate) fn receipt(&self, response: &Response) -> Result<Receipt, UpstreamError> {
        let form = form_of(&response.body);
        if !is_success(response.status) {
            return Err(self.error(Purpose::Change, response, &form));
        }
        match form {
            Form::Empty | Form::Json(_) | Form::Text => Ok(Receipt {
                request_id: request_id(response),
            }),
            // It may come from something in between, so nobody knows whether the change was made.
            Form::Broken => Err(UpstreamError {
                sent: Sent::Unknown,
                ..self.malformed(response, "which is no receipt for the change")
            }),
        }
    }

    /// The error for an answer to a read that has a wrong form; `defect` ends the sentence "… sent
    /// an answer, …".
    pub(crate) fn malformed(&self, response: &Response, defect: &str) -> UpstreamError {
        UpstreamError {
            kind: UpstreamErrorKind::Malformed,
            sent: Sent::No,
            retry_after: response.retry_after,
            answer: Some(Box::new(self.shown(response, None))),
            detail: format!("The service {} sent an answer, {defect}.", self.service),
        }
    }

    fn error(&self, purpose: Purpose, response: &Response, form: &Form) -> UpstreamError {
        let found = error_code(&response.body);
        let code = found.as_ref().map(|(code, _)| code.as_str());
        let origin = self.origin(code);
        let kind = self.kind(purpose, response.status, form, code);
        UpstreamError {
            kind,
            sent: match purpose {
                Purpose::Read => Sent::No,
                Purpose::Change => sent(kind, origin, response.status),
            },
            retry_after: response.retry_after,
            detail: sentence(kind, &self.service, response.status),
            answer: Some(Box::new(self.shown(response, found))),
        }
    }

    fn kind(
        &self,
        purpose: Purpose,
        status: u16,
        form: &Form,
        code: Option<&str>,
    ) -> UpstreamErrorKind {
        if throttles(status, code) {
            return UpstreamErrorKind::Throttled;
        }
        if !(400..500).contains(&status) {
            // Everything from 500 on is a fault of the vendor's; below 400 are redirects, which
            // nothing here follows.
            return if status >= 500 {
                UpstreamErrorKind::Unavailable
            } else {
                UpstreamErrorKind::Malformed
            };
        }
        let meaning = code.and_then(|code| self.meaning(code));
        match meaning {
            // Whatever names the API gateway may be its word and not the service's.
            Some(UpstreamErrorKind::Gone) if form.json().is_some_and(code::names_gateway) => {}
            Some(kind) => return kind,
            None if status == 404 && self.says_gone_by_404(form) => return UpstreamErrorKind::Gone,
            None => {}
        }
        let origin = self.origin(code);
        match (status, origin) {
            (403, _) => UpstreamErrorKind::Forbidden,
            // A service sends 401 for plain mistakes in a request too (`SMS.2005`), so its own
            // codes fall through.
            (401, Origin::Gateway | Origin::Other | Origin::Nobody) => {
                UpstreamErrorKind::CredentialsRefused
            }
            (_, Origin::Service) if purpose == Purpose::Change => UpstreamErrorKind::Refused,
            (_, Origin::Service | Origin::Gateway | Origin::Other) => UpstreamErrorKind::Rejected,
            (_, Origin::Nobody) => match form {
                Form::Json(_) => UpstreamErrorKind::Rejected,
                Form::Empty | Form::Text | Form::Broken => UpstreamErrorKind::Malformed,
            },
        }
    }

    /// What one of the service's own codes means by itself, with any 4xx.
    fn meaning(&self, code: &str) -> Option<UpstreamErrorKind> {
        let codes = self.codes;
        if code == codes.gone {
            Some(UpstreamErrorKind::Gone)
        } else if codes.still_in_progress.contains(&code) {
            Some(UpstreamErrorKind::StillInProgress)
        } else if codes.forbidden.contains(&code) {
            Some(UpstreamErrorKind::Forbidden)
        } else if codes.credentials.contains(&code) {
            Some(UpstreamErrorKind::CredentialsRefused)
        } else if codes.transient.contains(&code) {
            Some(UpstreamErrorKind::Unavailable)
        } else {
            None
        }
    }

    /// Whether a 404 without a code of the service can only mean the task: a wrong address is a 404
    /// too, with the code of whoever says so.
    fn says_gone_by_404(&self, form: &Form) -> bool {
        match form {
            Form::Empty => true,
            Form::Json(document) => {
                !code::names_gateway(document) && !code::names_other_than(self.codes.gone, document)
            }
            Form::Text | Form::Broken => false,
        }
    }

    fn origin(&self, code: Option<&str>) -> Origin {
        match code {
            None => Origin::Nobody,
            Some(code) if code.starts_with(self.codes.prefix) => Origin::Service,
            Some(code) if gateway_number(code).is_some() => Origin::Gateway,
            Some(_) => Origin::Other,
        }
    }

    /// What of an answer may be shown.
    fn shown(&self, response: &Response, found: Option<(String, String)>) -> UpstreamAnswer {
        let (error_code, message) = found.unzip();
        // Texts of IAM and of the API gateway can name users and keys.
        let own = self.origin(error_code.as_deref()) == Origin::Service;
        UpstreamAnswer {
            service: self.service.to_string(),
            status: response.status,
            error_code: error_code.map(|code| self.shown_code(code)),
            error_msg: message
                .filter(|message| own && !message.is_empty())
                .map(|message| self.shown_text(&message)),
            request_id: request_id(response),
        }
    }

    /// What may be shown of why a task failed.
    pub(super) fn reason(&self, error: TaskError) -> TaskError {
        TaskError {
            code: self.shown_code(error.code),
            message: self.shown_text(&error.message),
        }
    }

    /// A text of the vendor's without names, and without what looks like a key.
    pub(super) fn shown_text(&self, text: &str) -> String {
        without_keys(&self.names.masked(text))
    }

    /// A code is no name, whatever the account is called.
    fn shown_code(&self, code: String) -> String {
        if code::is_code(&code) {
            code
        } else {
            self.names.masked(&code)
        }
    }
}

/// Whether a change that was answered like this reached the service.
fn sent(kind: UpstreamErrorKind, origin: Origin, status: u16) -> Sent {
    match (origin, kind) {
        (_, UpstreamErrorKind::Malformed) => Sent::Unknown,
        (Origin::Service, _) | (_, UpstreamErrorKind::Gone) => Sent::Yes,
        (_, UpstreamErrorKind::Throttled | UpstreamErrorKind::CredentialsRefused) => Sent::No,
        // The API gateway passes on what it does not refuse; its 5xx are faults on the way.
        (Origin::Gateway, _) if status < 500 => Sent::No,
        _ => Sent::Unknown,
    }
}

fn sentence(kind: UpstreamErrorKind, service: &ServiceName, status: u16) -> String {
    match kind {
        UpstreamErrorKind::CredentialsRefused | UpstreamErrorKind::CredentialsResting => {
            format!("The service {service} refused the gateway's credentials.")
        }
        UpstreamErrorKind::Forbidden => {
            format!("The gateway's identity lacks a permission at the service {service}.")
        }
        UpstreamErrorKind::Refused => {
            format!("The service {service} refused to change the task in its present state.")
        }
        UpstreamErrorKind::StillInProgress => {
            format!("The service {service} says that the task is still in progress.")
        }
        UpstreamErrorKind::Gone => {
            format!("The service {service} says that there is no such task.")
        }
        UpstreamErrorKind::Rejected => format!("The service {service} rejected the request."),
        UpstreamErrorKind::Throttled => format!("The service {service} asks to slow down."),
        UpstreamErrorKind::CircuitOpen => {
            format!("The service {service} is left alone for a while.")
        }
        UpstreamErrorKind::Unavailable => {
            format!("The service {service} answered with a fault of its own (status {status}).")
        }
        UpstreamErrorKind::Timeout => format!("The service {service} did not answer in time."),
        UpstreamErrorKind::Malformed => {
            format!("The service {service} sent an answer of a wrong form (status {status}).")
        }
    }
}

fn is_success(status: u16) -> bool {
    (200..300).contains(&status)
}

/// Whether an answer asks to slow down.
pub(super) fn is_throttled(response: &Response) -> bool {
    // What is no error holds tasks, which need not be searched for a code.
    if response.status < 400 {
        return false;
    }
    let code = error_code(&response.body);
    throttles(
        response.status,
        code.as_ref().map(|(code, _)| code.as_str()),
    )
}

fn throttles(status: u16, code: Option<&str>) -> bool {
    status == 429 || code.and_then(gateway_number) == Some("0308")
}

fn request_id(response: &Response) -> Option<String> {
    let id = clean(response.request_id.as_deref()?, CODE_MAX);
    (!id.is_empty()).then_some(id)
}

/// The vendor's code and its text in the body of an error, as [`code::first`] reads them.
pub(crate) fn error_code(body: &[u8]) -> Option<(String, String)> {
    code::first(form_of(body).json()?)
}

/// Whether a body is JSON, as those of services are, and no page or text of something in between.
pub(in crate::upstream) fn is_json(body: &[u8]) -> bool {
    text_of(body).is_some_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

fn text_of(body: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(body).ok()?;
    Some(text.trim_start_matches('\u{feff}').trim())
}

fn form_of(body: &[u8]) -> Form {
    let Some(text) = text_of(body) else {
        return Form::Broken;
    };
    if text.is_empty() {
        return Form::Empty;
    }
    if let Ok(document) = serde_json::from_str(text) {
        return Form::Json(document);
    }
    // What begins like JSON and does not parse was cut; angle brackets are markup of a proxy or a
    // login page.
    let plain = text.len() <= PLAIN_TEXT_MAX
        && !text.starts_with(['{', '[', '"'])
        && !text.contains(['<', '>'])
        && !text.contains(|character: char| character.is_control() && !character.is_whitespace());
    if plain { Form::Text } else { Form::Broken }
}

#[cfg(test)]
mod tests;
