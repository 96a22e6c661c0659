//! What became of logins, project by project, for whoever watches the gateway.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;

use crate::domain::service::{ProjectName, UpstreamError, status::CredentialState};

/// The last login and the last failure of every project. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Logins(Arc<Mutex<HashMap<ProjectName, Last>>>);

/// What is remembered of one project.
#[derive(Clone, Default)]
pub(super) struct Last {
    pub(super) login_at: Option<Timestamp>,
    pub(super) error: Option<(Timestamp, UpstreamError)>,
    /// Whether the failure came after the login.
    is_failing: bool,
}

impl Logins {
    pub(super) fn succeeded(&self, project: &ProjectName, now: Timestamp) {
        self.change(project, |last| {
            last.login_at = Some(now);
            last.is_failing = false;
        });
    }

    pub(super) fn failed(&self, project: &ProjectName, error: &UpstreamError, now: Timestamp) {
        self.change(project, |last| {
            last.error = Some((now, error.clone()));
            last.is_failing = true;
        });
    }

    pub(super) fn of(&self, project: &ProjectName) -> Last {
        self.with(|all| all.get(project).cloned().unwrap_or_default())
    }

    fn change(&self, project: &ProjectName, change: impl FnOnce(&mut Last)) {
        self.with(|all| change(all.entry(project.clone()).or_default()));
    }

    fn with<T>(&self, work: impl FnOnce(&mut HashMap<ProjectName, Last>) -> T) -> T {
        // Every entry is whole between two statements, so a panic elsewhere does not spoil it.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Last {
    /// How a project stands that has no credential at hand.
    pub(super) fn state_without(&self) -> CredentialState {
        match &self.error {
            Some((_, error)) if self.is_failing && error.is_permanent() => CredentialState::Refused,
            Some(_) if self.is_failing => CredentialState::Unavailable,
            Some(_) | None => CredentialState::Idle,
        }
    }
}
