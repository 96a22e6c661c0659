//! How the gateway stands with each service just now, for whoever watches it.

use jiff::Timestamp;

use super::{ProjectName, ServiceName};

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
    /// One request is under way to find out whether it is well again.
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
