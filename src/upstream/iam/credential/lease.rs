//! Credentials as requests use them.

use std::{ops::Deref, sync::Arc, time::Duration};

use tokio::time::timeout;

use super::{
    super::{
        Credentials, Site,
        attempts::{Turn, Urgency},
        login::failure,
    },
    Credential,
};
use crate::domain::service::{ProjectName, UpstreamError, UpstreamErrorKind};

/// The longest that a request waits for its turn to try keys that have not worked yet.
const TURN_PATIENCE: Duration = Duration::from_secs(10);
/// The longest that a request is put off because of what the service refused: meanwhile the keys
/// can be proven right elsewhere, or changed.
const REST_MAX: Duration = Duration::from_mins(1);
/// How often a request looks for other keys, when those that it waited for were refused meanwhile.
const LEASE_ATTEMPTS: usize = 4;

/// A credential for one request, and perhaps the right to try it.
#[derive(Debug)]
pub struct Lease {
    credential: Credential,
    _turn: Option<Turn>,
    /// Keeps others back from a service that refused credentials.
    _probe: Option<Arc<()>>,
}

impl Lease {
    /// Without that right.
    fn of(credential: Credential) -> Self {
        Self {
            credential,
            _turn: None,
            _probe: None,
        }
    }

    fn on_trial(credential: Credential, turn: Turn) -> Self {
        Self {
            _turn: Some(turn),
            ..Self::of(credential)
        }
    }

    /// The same, which keeps others back for as long as it is held.
    pub(in crate::upstream::iam) fn with_probe(self, probe: Arc<()>) -> Self {
        Self {
            _probe: Some(probe),
            ..self
        }
    }
}

impl Deref for Lease {
    type Target = Credential;

    fn deref(&self) -> &Credential {
        &self.credential
    }
}

impl Credentials {
    /// A credential of the project, to be held while it is used once at this site: the one at hand,
    /// or else the result of one login that all who wait share. A failed login is answered from
    /// memory for a while. Never waits longer than a login may take, and for keys that others try.
    pub(crate) async fn lease(
        &self,
        project: &ProjectName,
        site: &Site,
    ) -> Result<Lease, UpstreamError> {
        let clock = &*self.vault.clock;
        for _ in 0..LEASE_ATTEMPTS {
            let credential = self.credential(project).await?;
            if !credential.is_on_trial() {
                return Ok(Lease::of(credential));
            }
            let previous = credential.previous(self.now());
            let urgency = Urgency::beside(previous.as_ref());
            let trials = credential.trials();
            let forbidden = |at| credential.forbidden(clock.uptime(), urgency, at);
            let was_forbidden = forbidden(Some(&site.endpoint)).is_some();
            let turn = if let Some(previous) = previous {
                // While somebody tries the successor, what worked before it still does.
                let Some(turn) = trials.turn_now(&site.endpoint, urgency, clock) else {
                    return Ok(Lease::of(previous));
                };
                turn
            } else {
                let turn = timeout(TURN_PATIENCE, trials.turn(&site.endpoint, urgency, clock));
                let Ok(turn) = turn.await else {
                    break;
                };
                turn
            };
            if !credential.is_on_trial() {
                return Ok(Lease::of(credential));
            }
            if credential.is_refused() {
                continue;
            }
            let Some(error) = forbidden(Some(&site.endpoint)) else {
                return Ok(Lease::on_trial(credential, turn));
            };
            if was_forbidden && forbidden(None).is_none() {
                // There may be other keys in their place, which the next request uses.
                self.refresh(project);
                let retry_after = error.retry_after.map(|left| left.min(REST_MAX));
                return Err(UpstreamError {
                    retry_after,
                    ..error
                });
            }
            // It was obtained, or waited for, just before the last refusal was noted. What worked
            // before it comes back, or else another one is made of other keys or withheld.
            self.vault.remove(&credential).await;
        }
        Err(failure(
            UpstreamErrorKind::Unavailable,
            "Others try the keys of the gateway, which have not worked yet.",
        ))
    }

    /// As [`Credentials::lease`], but `None` if that has to wait: for a login, or for others who
    /// try the keys.
    pub(crate) async fn lease_now(&self, project: &ProjectName, site: &Site) -> Option<Lease> {
        let clock = &*self.vault.clock;
        let credential = self.at_hand(project).await?;
        if !credential.is_on_trial() {
            return Some(Lease::of(credential));
        }
        let previous = credential.previous(self.now());
        let urgency = Urgency::beside(previous.as_ref());
        let Some(turn) = credential.trials().turn_now(&site.endpoint, urgency, clock) else {
            return previous.map(Lease::of);
        };
        let forbidden = credential.forbidden(clock.uptime(), urgency, Some(&site.endpoint));
        let may_be_tried = !credential.is_refused() && forbidden.is_none();
        may_be_tried.then(|| Lease::on_trial(credential, turn))
    }
}
