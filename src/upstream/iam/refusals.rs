//! What services say of credentials: which are not given out any more, and which services are left
//! alone.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, PoisonError, Weak},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    Credential, Credentials, Lease, Site, attempts::Identity, backoff::Backoff, keeper::Command,
};
use crate::domain::service::{ProjectName, ServiceName, UpstreamError, UpstreamErrorKind};

/// A credential that a service refuses along with the one before it is not replaced until it is
/// this old: it is the service that refuses, for instance because it belongs to another region.
const REPLACED_AGAIN_AFTER: Duration = Duration::from_mins(15);
/// How often in a row a service that has accepted other tokens is left alone for a while and then
/// asked again: with the same one, which it may not have known yet, and if it refuses that once
/// more, with another one. After that it is the service that refuses, whatever it is sent.
const LEFT_ALONE_IN_A_ROW: u32 = 6;
/// How many credentials in a row are replaced at once, and how many if there are others: tokens of
/// a service that has accepted some, of which one may be refused by chance, or the keys that worked
/// before those in the file.
const REPLACED_IN_A_ROW: u32 = 1;
const REPLACED_IN_A_ROW_IF_OTHERS: u32 = 2;

type Key = (ProjectName, ServiceName);

/// What the services say of credentials, in this run of the program.
#[derive(Default)]
pub(super) struct Refusals {
    standing: HashMap<Key, Refusal>,
    /// Those that have accepted one, so that they belong to the region of their project.
    accepting: HashSet<Key>,
}

/// What a service has refused since it last accepted a credential.
#[derive(Default)]
struct Refusal {
    /// The last credential that was replaced at once for it, and how many were. Serials begin with
    /// 1.
    replaced: u64,
    replacements: u32,
    /// The last credential that was refused in spite of that.
    doubted: u64,
    /// The credential for which the service is left alone, and what that was obtained with.
    given_up: u64,
    identity: Option<Identity>,
    /// How often it was left alone.
    count: u32,
    backoff: Backoff,
    /// Lives as long as a request that finds out whether the service accepts credentials again.
    probe: Weak<()>,
}

impl Credentials {
    /// Notes that a service accepted the credential.
    pub(crate) fn worked(&self, credential: &Credential, site: &Site) {
        if credential.set_worked() && credential.signs() {
            self.vault.prove(credential);
            let logins = &self.vault.logins;
            logins.logged_in(credential.project(), self.now());
            logins.accepted(credential.project());
        }
        let refusal = self.with_refusals(|refusals| {
            let key = (credential.project().clone(), site.service.clone());
            // A late answer to a token that is dead by now says nothing of those that follow it.
            let refusal = if credential.signs() || !credential.is_refused() {
                refusals.standing.remove(&key)
            } else {
                None
            };
            refusals.accepting.insert(key);
            refusal
        });
        if let Some(refusal) = refusal {
            self.vault.logins.accepted(credential.project());
            if refusal.given_up != 0 {
                tracing::info!(
                    project = %credential.project(),
                    service = %site.service,
                    "the service accepts the gateway's credentials again"
                );
            }
        }
    }

    /// Notes that a service refused the credential with this error, and tells whether the request
    /// may be tried with another one at once: the one that worked before it, if it never did, or
    /// else a new one. Otherwise the service is to be left alone for a while, see
    /// [`Credentials::give_up`]. Nobody is given this one any more, unless it is a token and the
    /// fault is rather the service's.
    pub(crate) fn refused(
        &self,
        credential: &Credential,
        site: &Site,
        error: &UpstreamError,
    ) -> bool {
        let service = &site.service;
        self.vault.metrics.token_refused(service.as_str());
        let nothing_serves = || credential.previous(self.now()).is_none();
        if credential.signs() && !credential.has_worked() && nothing_serves() {
            self.vault
                .logins
                .refused(credential.project(), error, self.now());
        }
        let (is_replaced, is_dead) = match self.judge(credential, service) {
            Verdict::Replaced => (true, true),
            // Keys are not given out in any case, since the vendor counts wrong signatures.
            Verdict::Dead => (false, true),
            Verdict::Doubted => (false, credential.signs()),
        };
        if !is_dead {
            return false;
        }
        if credential.set_refused(error, self.vault.clock.uptime(), &site.endpoint) {
            // Lost only if the thread is busy beyond measure. Nobody is given it then either, and
            // whoever needs another one asks for that.
            let _ = self.commands.try_send(Command::Refused {
                credential: credential.clone(),
                service: service.clone(),
                error: error.clone(),
            });
        }
        is_replaced
    }

    /// What becomes of a refused credential. It is not replaced at once if it has itself replaced
    /// one that was refused, and no service has accepted one since.
    fn judge(&self, credential: &Credential, service: &ServiceName) -> Verdict {
        let (project, serial) = (credential.project(), credential.serial());
        let now = self.now();
        let is_old = credential.age(now) >= REPLACED_AGAIN_AFTER;
        if credential.signs() && credential.previous(now).is_some() {
            // Those that work take their place, whatever comes of that.
            return Verdict::Replaced;
        }
        let key = (project.clone(), service.clone());
        self.with_refusals(|refusals| {
            let refusal = refusals.standing.get(&key);
            // Others have told of it, and what follows it is at hand or under way.
            if !credential.signs()
                && credential.is_refused()
                && refusal.is_none_or(|refusal| refusal.doubted != serial)
            {
                return Verdict::Replaced;
            }
            let takes_others = refusals.takes_others(&key, credential);
            let are_others = self.vault.has_others(credential);
            let most = if takes_others || are_others {
                REPLACED_IN_A_ROW_IF_OTHERS
            } else {
                REPLACED_IN_A_ROW
            };
            let is_doubted = if let Some(refusal) = refusal {
                refusal.replaced != serial && refusal.replacements >= most
            } else {
                // Nobody has accepted it, and it has replaced one that another service refused.
                let mut others = refusals
                    .standing
                    .iter()
                    .filter(|((other, _), _)| other == project);
                !are_others
                    && !credential.has_worked()
                    && others.any(|(_, refusal)| ![0, serial].contains(&refusal.replaced))
            };
            let refusal = refusals.standing.entry(key).or_default();
            if !is_doubted || is_old {
                if refusal.replaced != serial {
                    refusal.replacements = refusal.replacements.saturating_add(1);
                }
                refusal.replaced = serial;
                return Verdict::Replaced;
            }
            let is_asked_again =
                refusal.given_up == serial && refusal.backoff.remembered(now).is_none();
            refusal.doubted = serial;
            // None after it is replaced at once either, until one is accepted.
            refusal.replacements = refusal.replacements.max(most);
            if takes_others && (is_asked_again || credential.is_refused()) {
                Verdict::Dead
            } else {
                Verdict::Doubted
            }
        })
    }

    /// Notes that a credential was refused which cannot be replaced by a better one at once, so
    /// that the service is left alone for a while: either it is dead from the beginning, or the
    /// service belongs to another region, and further logins mend neither. The error comes back
    /// with the time until then; it is one that passes, if the service has accepted others.
    pub(crate) fn give_up(
        &self,
        credential: &Credential,
        Site { service, .. }: &Site,
        error: UpstreamError,
    ) -> UpstreamError {
        let now = self.now();
        let key = (credential.project().clone(), service.clone());
        self.with_refusals(|refusals| {
            let takes_others = refusals.takes_others(&key, credential);
            let refusal = refusals.standing.entry(key).or_default();
            // Many may have used the same one at the same time, and some of them an older one.
            if credential.serial() <= refusal.given_up
                && let Some(error) = refusal.backoff.remembered(now)
            {
                return error;
            }
            let is_news = refusal.given_up == 0;
            refusal.given_up = credential.serial();
            refusal.identity = credential.chosen();
            refusal.count = refusal.count.saturating_add(1);
            let logins = &self.vault.logins;
            let error = if takes_others {
                let error = passing(service, error);
                logins.failed(credential.project(), &error, now);
                error
            } else {
                logins.refused(credential.project(), &error, now);
                error
            };
            if is_news {
                let answer = error.answer.as_ref();
                tracing::warn!(
                    project = %credential.project(),
                    service = %service,
                    status = answer.map(|answer| answer.status),
                    code = answer.and_then(|answer| answer.error_code.clone()),
                    %error,
                    "the service refuses the gateway's credentials, fresh ones too: it is left alone for a while"
                );
            }
            refusal.backoff.failed(error, now)
        })
    }

    /// The error that stands in for a request, while a service is left alone, or another request
    /// finds out whether it accepts credentials again.
    pub(crate) fn given_up(&self, project: &ProjectName, site: &Site) -> Option<UpstreamError> {
        let now = self.now();
        self.with_refusals(|refusals| {
            let refusal = refusals
                .standing
                .get(&(project.clone(), site.service.clone()))?;
            let at_hand = || {
                self.vault
                    .at_hand(project)
                    .and_then(|at_hand| at_hand.chosen())
            };
            refusal.stands_in(now, at_hand)
        })
    }

    /// As [`Credentials::given_up`], just before a request is sent with this. If the service was
    /// left alone until now, others are kept back until the lease ends.
    pub(crate) fn admit(&self, lease: Lease, site: &Site) -> Result<Lease, UpstreamError> {
        let now = self.now();
        self.with_refusals(|refusals| {
            let key = (lease.project().clone(), site.service.clone());
            let Some(refusal) = refusals.standing.get_mut(&key) else {
                return Ok(lease);
            };
            if refusal.given_up == 0 {
                return Ok(lease);
            }
            if let Some(error) = refusal.stands_in(now, || lease.chosen()) {
                return Err(error);
            }
            let probe = Arc::new(());
            refusal.probe = Arc::downgrade(&probe);
            Ok(lease.with_probe(probe))
        })
    }

    fn with_refusals<T>(&self, work: impl FnOnce(&mut Refusals) -> T) -> T {
        // All is whole between any two statements, so a panic elsewhere does not spoil it.
        work(&mut self.refusals.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What becomes of a credential that a service refused.
enum Verdict {
    /// Another one takes its place at once.
    Replaced,
    /// Another one takes its place after a while.
    Dead,
    /// It stays, since others would be refused too.
    Doubted,
}

impl Refusals {
    /// Whether another token is worth a login, since the service has accepted some and not refused
    /// too many since.
    fn takes_others(&self, key: &Key, credential: &Credential) -> bool {
        let count = self.standing.get(key).map_or(0, |refusal| refusal.count);
        !credential.signs() && self.accepting.contains(key) && count < LEFT_ALONE_IN_A_ROW
    }
}

impl Refusal {
    /// The error that stands in for a request with a credential that was obtained with this.
    fn stands_in(
        &self,
        now: Timestamp,
        identity: impl FnOnce() -> Option<Identity>,
    ) -> Option<UpstreamError> {
        if self.probe.strong_count() > 0 {
            return self.backoff.next(now);
        }
        let error = self.backoff.remembered(now)?;
        // Another secret is another matter.
        identity()
            .is_none_or(|identity| Some(identity) == self.identity)
            .then_some(error)
    }
}

/// The refusal of a credential by a service that has accepted others: the next one is due in a
/// moment.
pub(crate) fn passing(service: &ServiceName, error: UpstreamError) -> UpstreamError {
    UpstreamError {
        kind: UpstreamErrorKind::Unavailable,
        detail: format!(
            "The service {service} refused fresh credentials of the gateway, although it has accepted others; the gateway tries others in a moment."
        ),
        ..error
    }
}
