//! The header `Prefer` (RFC 7240), as far as it is about waiting.

use std::time::Duration;

use actix_web::HttpRequest;

use crate::api::{Settings, problem::Problem};

/// How long a request is willing to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::api) enum Preference {
    /// Nothing was said: the default.
    Default(Duration),
    /// So long; already cut to what is allowed.
    Wait(Duration),
    /// Not at all.
    RespondAsync,
}

impl Preference {
    /// Reads the header. Preferences about other things are ignored, as the RFC wants it. With `respond-async` beside
    /// `wait`, the wait says how long the answer may take before it is asynchronous.
    pub(in crate::api) fn of(request: &HttpRequest, settings: &Settings) -> Result<Self, Problem> {
        let mut preference = Self::Default(settings.default_wait);
        for value in request.headers().get_all("prefer") {
            let text = value.to_str().map_err(|_| fault())?;
            for one in text.split(',') {
                let (name, value) = one
                    .split(';')
                    .next()
                    .unwrap_or_default()
                    .split_once('=')
                    .map_or_else(
                        || (one.split(';').next().unwrap_or_default(), None),
                        |(name, value)| (name, Some(value)),
                    );
                match (name.trim().to_ascii_lowercase().as_str(), value, preference) {
                    // The first of several is the one that counts (RFC 7240, section 2).
                    ("wait", _, Self::Wait(_)) | ("respond-async", None, Self::Wait(_)) => {}
                    ("wait", Some(value), _) => {
                        let wait = seconds(value).ok_or_else(fault)?;
                        preference = Self::Wait(wait.min(settings.max_wait));
                    }
                    ("wait", None, _) => return Err(fault()),
                    ("respond-async", None, _) => preference = Self::RespondAsync,
                    _ => {}
                }
            }
        }
        Ok(preference)
    }

    /// How long to wait.
    pub(in crate::api) fn wait(self) -> Duration {
        match self {
            Self::Default(wait) | Self::Wait(wait) => wait,
            Self::RespondAsync => Duration::ZERO,
        }
    }

    /// The value of `Preference-Applied`, if something was preferred.
    pub(in crate::api) fn applied(self) -> Option<String> {
        match self {
            Self::Default(_) => None,
            Self::Wait(wait) => Some(format!("wait={}", wait.as_secs())),
            Self::RespondAsync => Some("respond-async".to_owned()),
        }
    }
}

/// A number of seconds. One that no machine can hold is no fault: it is cut to the longest wait like any other.
fn seconds(value: &str) -> Option<Duration> {
    let digits = value.trim().trim_matches('"');
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| Duration::from_secs(digits.parse().unwrap_or(u64::MAX)))
}

fn fault() -> Problem {
    Problem::fault(
        "header",
        "Prefer",
        "Prefer must be wait= and a whole number of seconds, or respond-async.",
    )
}
