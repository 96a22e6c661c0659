//! Tokens that a service calls dead in words of its own, as opposed to those of the API gateway in front of it.
//!
//! Such words can be about the task just as well, so that nobody else loses the token for them: it is replaced while it serves, and
//! the request that met them is sent once more.

use std::{collections::HashMap, sync::PoisonError, time::Duration};

use super::{Credential, Credentials, Site};
use crate::domain::service::{ProjectName, ServiceName};

/// How long after a replacement a service has to wait for the next one; twice as long each time that it says the same of the new token.
const PAUSE: Duration = Duration::from_secs(30);
const PAUSE_MAX: Duration = Duration::from_mins(30);

/// What the services of all projects have said.
pub(super) type Suspicions = HashMap<(ProjectName, ServiceName), Suspicion>;

/// What became of the tokens that one service called dead.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    /// The last token that was replaced for it, and the last one that took such a place and was used. Serials begin with 1.
    replaced: u64,
    judged: u64,
    /// How often in a row that was in vain.
    in_vain: u32,
    /// By the uptime of the machine.
    believed_from: Duration,
}

impl Suspicion {
    fn rest(&mut self, uptime: Duration) {
        let growth = 2_u32.saturating_pow(self.in_vain);
        self.believed_from = uptime + PAUSE.saturating_mul(growth).min(PAUSE_MAX);
    }
}

impl Credentials {
    /// Notes that a service called a token dead in its own words, and waits for another one, if the service is to be believed.
    /// Tells whether there is one.
    pub(crate) async fn suspected(&self, token: &Credential, site: &Site) -> bool {
        self.vault.metrics.token_refused(site.service.as_str());
        let (serial, uptime) = (token.serial(), self.vault.clock.uptime());
        let is_believed = self.with_suspicion(token, site, |suspicion| {
            if suspicion.replaced < serial && suspicion.believed_from <= uptime {
                suspicion.replaced = serial;
                suspicion.rest(uptime);
                tracing::warn!(
                    project = %token.project(),
                    service = %site.service,
                    "a service calls a token dead in words of its own: it is replaced, and serves until then"
                );
            }
            suspicion.replaced >= serial
        });
        is_believed && self.successor(token).await.is_ok()
    }

    /// Notes what the service says of the token that took the place of such a one.
    pub(crate) fn judged(&self, successor: &Credential, site: &Site, is_suspected: bool) {
        let uptime = self.vault.clock.uptime();
        self.with_suspicion(successor, site, |suspicion| {
            // Of many who send their requests again the first one counts.
            if suspicion.judged < successor.serial() {
                suspicion.judged = successor.serial();
                suspicion.in_vain = if is_suspected {
                    suspicion.in_vain.saturating_add(1)
                } else {
                    0
                };
                suspicion.rest(uptime);
            }
        });
    }

    fn with_suspicion<T>(
        &self,
        token: &Credential,
        site: &Site,
        work: impl FnOnce(&mut Suspicion) -> T,
    ) -> T {
        let key = (token.project().clone(), site.service.clone());
        // Each is whole between any two statements, so a panic elsewhere does not spoil it.
        let mut suspicions = self
            .suspicions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        work(suspicions.entry(key).or_default())
    }
}
