//! The API gateway in front of OMS and SMS: paths, tokens and signatures, and how many requests may
//! come.

use super::{
    super::{
        answer::Answer,
        call::{Call, Operation, Service},
        options::{CloudOptions, DomainTokens},
        record::Visitor,
    },
    Iam, Scope, signature,
};

/// Requests of the present second, for each service.
#[derive(Default)]
pub(in crate::sandbox) struct Throttle {
    second: i64,
    oms: u32,
    sms: u32,
}

impl Throttle {
    /// Whether one more request of this service is too many.
    pub(in crate::sandbox) fn is_over(
        &mut self,
        service: Service,
        limit: Option<u32>,
        now: i64,
    ) -> bool {
        let second = now.div_euclid(1000);
        if self.second != second {
            *self = Self {
                second,
                ..Self::default()
            };
        }
        let seen = match service {
            Service::Iam => return false,
            Service::Oms => &mut self.oms,
            Service::Sms => &mut self.sms,
        };
        *seen = seen.saturating_add(1);
        limit.is_some_and(|limit| *seen > limit)
    }
}

/// Who sends a request, as far as it shows that.
pub(in crate::sandbox) fn visitor(iam: &Iam, call: &Call, now: i64) -> Visitor {
    let token = call.header("x-auth-token").and_then(|text| iam.token(text));
    let is_alive = token.is_some_and(|token| token.is_alive(now));
    let access_key = match signature::signer(call, &iam.keys, now) {
        Some(Ok(access_key)) if call.header("x-auth-token").is_none() => Some(access_key),
        Some(_) | None => None,
    };
    let scope = match (token, access_key) {
        (Some(token), _) if is_alive => Some(token.scope.clone()),
        (_, Some(_)) => Some(signed_scope(iam, call)),
        _ => None,
    };
    Visitor {
        token: token.map(|token| token.index),
        token_valid: is_alive,
        access_key: access_key.map(str::to_owned),
        project: scope.and_then(|scope| match scope {
            Scope::Project(id) => Some(id),
            Scope::Domain => None,
        }),
    }
}

/// What a signature is good for: the project that a header names, or else the account's first one.
fn signed_scope(iam: &Iam, call: &Call) -> Scope {
    let named = call.header("x-project-id");
    let project = named.unwrap_or(&iam.account().project_id);
    Scope::Project(project.to_owned())
}

/// The refusal of the gateway, if it has one. What passes reaches the service.
pub(in crate::sandbox) fn refusal(
    call: &Call,
    iam: &mut Iam,
    options: &CloudOptions,
    over: bool,
    now: i64,
) -> Option<Answer> {
    let refuse = |status, code, message: &str| {
        Some(Answer::gateway(status, code, message, &call.request_id))
    };
    let has_path = call.route.operation != Operation::Other || call.route.task.is_some();
    if !has_path {
        let message = "The API does not exist or has not been published in the environment.";
        return refuse(404, "APIGW.0101", message);
    }
    let scope = match identify(call, iam, now) {
        Ok(scope) => scope,
        Err(Stranger::Dead) => return refuse(401, "APIGW.0307", "The token must be updated."),
        Err(Stranger::Unknown(reason)) => {
            let message = format!("Incorrect IAM authentication information: {reason}");
            return refuse(401, "APIGW.0301", &message);
        }
    };
    if over {
        let limit = options.requests_per_second.unwrap_or_default();
        let message = format!(
            "The throttling threshold has been reached: policy user over ratelimit,limit:{limit},time:1 second"
        );
        return refuse(429, "APIGW.0308", &message);
    }
    match scope_problem(call, iam, &scope, options) {
        None => None,
        Some((code, message)) => refuse(403, code, message),
    }
}

/// Why it is not known who asks.
enum Stranger {
    /// The token was good once.
    Dead,
    /// For this reason, in the gateway's words.
    Unknown(String),
}

/// Who asks: by a token, which has its scope, or by a signature.
fn identify(call: &Call, iam: &mut Iam, now: i64) -> Result<Scope, Stranger> {
    let unknown = |reason: &str| Err(Stranger::Unknown(reason.to_owned()));
    if let Some(text) = call.header("x-auth-token").filter(|text| !text.is_empty()) {
        return match iam.token(text) {
            None => unknown("decrypt token fail"),
            Some(token) if !token.is_alive(now) => Err(Stranger::Dead),
            Some(token) => Ok(token.scope.clone()),
        };
    }
    match signature::check(call, &mut iam.keys, now) {
        None => unknown("x-auth-token not found"),
        Some(Err(reason)) => Err(Stranger::Unknown(reason)),
        Some(Ok(_)) => Ok(signed_scope(iam, call)),
    }
}

/// A project is good for its own tasks, if it is there; the account as a whole for nothing here, or
/// for SMS.
fn scope_problem(
    call: &Call,
    iam: &Iam,
    scope: &Scope,
    options: &CloudOptions,
) -> Option<(&'static str, &'static str)> {
    let unauthorized = (
        "APIGW.0302",
        "The IAM user is not authorized to access the API",
    );
    let unavailable = ("APIGW.0310", "The project is unavailable.");
    match (call.service, scope) {
        (Service::Iam, _) => None,
        (_, Scope::Project(project)) if !iam.has_project(project) => Some(unavailable),
        (Service::Sms, Scope::Project(_)) => None,
        (Service::Oms, Scope::Project(project)) => {
            (call.route.project.as_ref() != Some(project)).then_some(unavailable)
        }
        (Service::Oms, Scope::Domain) => Some(unauthorized),
        (Service::Sms, Scope::Domain) => match options.domain_tokens {
            DomainTokens::Refused => Some(unauthorized),
            DomainTokens::GoodForSms => None,
        },
    }
}
