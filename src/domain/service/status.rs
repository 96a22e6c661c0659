//! How the gateway stands with the cloud just now, for whoever watches it. Nothing here is a
//! secret, an address or a name of the cloud's users.

use jiff::Timestamp;

use super::{ProjectName, ServiceName, UpstreamError};
use crate::domain::words::words;

/// One project of the cloud.
#[derive(Clone, Debug)]
pub struct ProjectStatus {
    /// The project.
    pub project: ProjectName,
    /// Whether the gateway can prove its identity there.
    pub credential: CredentialStatus,
    /// The services that are offered for it, in the order in which lists show them.
    pub services: Vec<ServiceStatus>,
}

/// How the gateway proves its identity in a project, and how well that went.
#[derive(Clone, Debug)]
pub struct CredentialStatus {
    /// What it is proved with.
    pub kind: CredentialKind,
    /// How it stands.
    pub state: CredentialState,
    /// Until when it serves without being renewed; `None` if there is none, or if it has no end.
    pub usable_until: Option<Timestamp>,
    /// When the cloud last gave one, or first accepted another pair of keys.
    pub last_login_at: Option<Timestamp>,
    /// When and why one could last not be had or was refused, even if another was had since.
    pub last_error: Option<(Timestamp, UpstreamError)>,
}

words! {
    /// What the gateway proves its identity with.
    CredentialKind {
        /// An IAM user with a password, exchanged for a token.
        Password = "password",
        /// An access key, by which every request is signed.
        AccessKey = "access-key",
        /// Temporary keys of the ECS that the gateway runs on.
        EcsAgency = "ecs-agency",
    }
}

words! {
    /// How the gateway's credential for a project stands.
    CredentialState {
        /// It serves.
        Ok = "ok",
        /// There is none, because nobody has needed it lately; the next request fetches one.
        Idle = "idle",
        /// There is none, or a service refuses it: the cloud lets the gateway in no more, and
        /// somebody has to change something.
        Refused = "refused",
        /// There is none: it cannot be fetched just now, and is tried again.
        Unavailable = "unavailable",
    }
}

/// How the gateway stands with one service of one project.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceStatus {
    /// The project.
    pub project: ProjectName,
    /// The service.
    pub service: ServiceName,
    /// Whether its endpoint is asked at all. Projects with the same endpoint share this.
    pub breaker: BreakerStatus,
    /// How fast it is asked.
    pub pacer: PacerStatus,
}

/// Whether an endpoint is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerStatus {
    /// It is asked.
    Closed,
    /// It has failed often and is left alone.
    Open {
        /// Until this moment.
        until: Timestamp,
    },
    /// One request is let through to find out whether it is well again.
    Probing,
}

impl BreakerStatus {
    /// The word used in logs, metrics and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open { .. } => "open",
            Self::Probing => "probing",
        }
    }
}

/// How fast a service is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PacerStatus {
    /// Requests a second, at present.
    pub requests_per_second: f64,
    /// Requests a second as long as the vendor does not ask to slow down.
    pub requests_per_second_max: f64,
    /// Nothing is sent before this moment, by the vendor's wish. `None` if it has passed.
    pub paused_until: Option<Timestamp>,
    /// Requests that wait for their turn.
    pub waiting: usize,
}
