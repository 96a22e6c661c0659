//! What requests show to say who sends them: a token, or a signature by a pair of keys.

mod lease;
mod proof;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;

pub use self::lease::Lease;
pub(crate) use self::proof::Authentication;
pub(super) use self::proof::{KeyPair, Proof};
use super::{
    attempts::{Identity, Trials, Urgency},
    lifetime::Lifetime,
};
use crate::{
    domain::{
        secret::Mask,
        service::{ProjectName, UpstreamError, status::CredentialKind},
    },
    transport::{Endpoint, Request},
};

/// A credential of one project. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Credential(Arc<Issued>);

#[derive(Debug)]
struct Issued {
    serial: u64,
    project: ProjectName,
    kind: CredentialKind,
    /// Whose it is, whatever the secret is.
    holder: Identity,
    /// What it was obtained with: the password, or the keys themselves.
    identity: Identity,
    /// How all credentials that were obtained with the same fare.
    trials: Arc<Trials>,
    proof: Proof,
    mask: Mask,
    /// `None` if it has no end.
    lifetime: Option<Lifetime>,
    since: Instant,
    worked: AtomicBool,
    refused: AtomicBool,
    /// Whether it was obtained with something else than the present secret.
    former: AtomicBool,
    /// The one that worked before this one, until this one does.
    previous: Mutex<Option<Credential>>,
}

/// What a credential is made of.
pub(super) struct Parts {
    pub(super) serial: u64,
    pub(super) project: ProjectName,
    pub(super) kind: CredentialKind,
    pub(super) holder: Identity,
    pub(super) identity: Identity,
    pub(super) trials: Arc<Trials>,
    pub(super) proof: Proof,
    pub(super) lifetime: Option<Lifetime>,
}

impl Credential {
    pub(super) fn new(parts: Parts) -> Self {
        Self(Arc::new(Issued {
            serial: parts.serial,
            project: parts.project,
            kind: parts.kind,
            holder: parts.holder,
            identity: parts.identity,
            trials: parts.trials,
            mask: Mask::new(parts.proof.secrets()),
            proof: parts.proof,
            lifetime: parts.lifetime,
            since: Instant::now(),
            worked: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            former: AtomicBool::new(false),
            previous: Mutex::new(None),
        }))
    }

    /// The headers that show who sends this request to this address now.
    pub(crate) fn authenticate(
        &self,
        endpoint: &Endpoint,
        request: &Request,
        now: Timestamp,
    ) -> Authentication {
        self.0.proof.authenticate(endpoint, request, now)
    }

    /// What it shows, for another one that is obtained with the same.
    pub(super) fn proof(&self) -> &Proof {
        &self.0.proof
    }

    /// What no answer may repeat.
    pub(crate) fn mask(&self) -> &Mask {
        &self.0.mask
    }

    /// Whether it signs requests, as opposed to a token.
    pub(crate) fn signs(&self) -> bool {
        matches!(self.0.proof, Proof::Keys(_))
    }

    /// Whether they are clones of one.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether it was obtained after the other one.
    pub(crate) fn is_later_than(&self, other: &Self) -> bool {
        self.serial() > other.serial()
    }

    pub(super) fn serial(&self) -> u64 {
        self.0.serial
    }

    pub(super) fn project(&self) -> &ProjectName {
        &self.0.project
    }

    pub(super) fn kind(&self) -> CredentialKind {
        self.0.kind
    }

    /// Whose it is: several projects may have the same user, or the same files of keys.
    pub(super) fn holder(&self) -> Identity {
        self.0.holder
    }

    pub(super) fn identity(&self) -> Identity {
        self.0.identity
    }

    /// What somebody chose for it to be obtained with, as opposed to temporary keys, which change
    /// by themselves.
    pub(super) fn chosen(&self) -> Option<Identity> {
        (self.kind() != CredentialKind::EcsAgency).then(|| self.identity())
    }

    /// How long it has been there.
    pub(super) fn age(&self, now: Timestamp) -> Duration {
        let by_lifetime = self.0.lifetime.as_ref().map(|lifetime| lifetime.age(now));
        by_lifetime.unwrap_or_else(|| self.0.since.elapsed())
    }

    pub(super) fn has_worked(&self) -> bool {
        self.0.worked.load(Ordering::Relaxed)
    }

    /// Notes that a service of the vendor has accepted it. Tells whether it is the first time that
    /// one did.
    pub(super) fn set_worked(&self) -> bool {
        let is_first = !self.0.worked.swap(true, Ordering::Relaxed);
        if is_first {
            *self.previous_slot() = None;
        }
        if self.signs() {
            self.0.trials.refusals().proven();
        }
        is_first
    }

    /// Notes that it was obtained with something else than the present secret.
    pub(super) fn set_former(&self) {
        self.0.former.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_former(&self) -> bool {
        self.0.former.load(Ordering::Relaxed)
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// Notes that a service at this address refused it. Of many who used it at the same time, the
    /// first one counts, unless it never worked: those who tried it are few, and the vendor counts
    /// them all. Tells whether it is the first one.
    pub(super) fn set_refused(
        &self,
        error: &UpstreamError,
        uptime: Duration,
        endpoint: &Endpoint,
    ) -> bool {
        let is_tried = !self.has_worked();
        let mut refusals = self.0.trials.refusals();
        let is_first = !self.0.refused.swap(true, Ordering::Relaxed);
        if self.signs() && (is_tried || is_first) {
            refusals.refused(error, uptime, Some(endpoint));
        }
        is_first
    }

    /// The last refusal of what it was obtained with, if that was refused too often to be tried at
    /// this address, or at any.
    pub(super) fn forbidden(
        &self,
        uptime: Duration,
        urgency: Urgency,
        at: Option<&Endpoint>,
    ) -> Option<UpstreamError> {
        self.0.trials.refusals().forbid(uptime, urgency, at)
    }

    /// The one before it that worked, if this one has not worked yet and that one is still good.
    pub(super) fn previous(&self, now: Timestamp) -> Option<Self> {
        let previous = self.previous_slot().clone();
        previous.filter(|previous| !previous.is_refused() && previous.is_usable(now))
    }

    /// Takes the place of another one, which comes back if this one turns out to be of no use.
    pub(super) fn follow(&self, before: &Self) {
        let previous = if before.has_worked() {
            Some(before.clone())
        } else {
            before.previous_slot().take()
        };
        *self.previous_slot() = previous;
    }

    fn previous_slot(&self) -> std::sync::MutexGuard<'_, Option<Self>> {
        // The slot is whole at any moment.
        self.0
            .previous
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it may be sent: no service has called it dead, and it has not come to its end.
    pub(crate) fn is_good(&self, now: Timestamp) -> bool {
        !self.is_refused() && self.is_usable(now)
    }

    pub(super) fn is_usable(&self, now: Timestamp) -> bool {
        self.0
            .lifetime
            .as_ref()
            .is_none_or(|lifetime| lifetime.is_usable(now))
    }

    /// Until when it is used, by the clock that can be set; `None` if it has no end.
    pub(super) fn usable_until(&self) -> Option<Timestamp> {
        self.0.lifetime.as_ref().and_then(Lifetime::usable_until)
    }

    /// What is left of it by the clock that cannot be set; `None` if it has no end.
    pub(super) fn left(&self) -> Option<Duration> {
        self.0.lifetime.as_ref().map(Lifetime::left)
    }

    /// Whether there should be a replacement.
    pub(super) fn is_late(&self, now: Timestamp) -> bool {
        let lifetime = self.0.lifetime.as_ref();
        lifetime.is_some_and(|lifetime| lifetime.is_late(now))
    }

    /// Whether the caller is to ask for a replacement.
    pub(super) fn asks_for_replacement(&self, now: Timestamp) -> bool {
        self.0
            .lifetime
            .as_ref()
            .is_some_and(|lifetime| lifetime.asks_for_replacement(now))
    }

    /// Whether it is tried by few requests at a time: the vendor locks keys after a few wrong
    /// signatures, so that those that have worked are tried again after a refusal of the same ones,
    /// be it in another project. Many may try a token at the same time.
    pub(crate) fn is_on_trial(&self) -> bool {
        self.signs() && (!self.has_worked() || self.was_refused())
    }

    /// Whether a service refused what it was obtained with since one last accepted that.
    pub(super) fn was_refused(&self) -> bool {
        self.0.trials.refusals().are_there()
    }

    pub(super) fn trials(&self) -> &Trials {
        &self.0.trials
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use jiff::Timestamp;

    use super::{Credential, KeyPair, Parts, Proof, Trials, Urgency::Needed};
    use crate::{
        domain::{
            secret::Secret,
            service::{
                ProjectName, Sent, UpstreamError, UpstreamErrorKind, status::CredentialKind,
            },
        },
        transport::{Endpoint, Method, Request},
    };

    fn keys(serial: u64) -> Credential {
        tried(serial, Arc::default())
    }

    fn tried(serial: u64, trials: Arc<Trials>) -> Credential {
        let keys = KeyPair {
            access_key: Secret::new(format!("hidden-access-{serial}")),
            secret_key: Secret::new("hidden-secret"),
            security_token: Some(Secret::new("hidden-token")),
            project_id: "2c0689c860ad4728a497c91ec0844383".to_owned(),
        };
        Credential::new(Parts {
            serial,
            project: ProjectName::parse("p").unwrap(),
            kind: CredentialKind::EcsAgency,
            holder: keys.identity(),
            identity: keys.identity(),
            trials,
            proof: Proof::Keys(keys),
            lifetime: None,
        })
    }

    fn oms() -> Endpoint {
        Endpoint::parse("https://oms.example").unwrap()
    }

    fn refusal() -> UpstreamError {
        UpstreamError {
            kind: UpstreamErrorKind::CredentialsRefused,
            sent: Sent::No,
            retry_after: None,
            answer: None,
            detail: "x".to_owned(),
        }
    }

    #[test]
    fn a_signed_request_names_project_date_and_token_and_hides_them_all() {
        let endpoint = Endpoint::parse("https://oms.example.com:8443").unwrap();
        let request = Request {
            method: Method::Get,
            path: "/v2/x/tasks?limit=1".to_owned(),
            body: None,
        };
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let signed = keys(1).authenticate(&endpoint, &request, now);
        let value = |name: &str| {
            let found = signed.headers.iter().find(|header| header.name == name);
            found.unwrap().value.expose()
        };
        assert_eq!(value("x-project-id"), "2c0689c860ad4728a497c91ec0844383");
        assert_eq!(value("x-sdk-date"), "20260101T000000Z");
        assert_eq!(value("x-security-token"), "hidden-token");
        let names = "SignedHeaders=content-type;host;x-project-id;x-sdk-date;x-security-token";
        assert!(value("authorization").contains(names));
        assert_eq!(signed.headers.len(), 4);
        assert!(signed.signature.is_some());
        let told = "hidden-access-1, hidden-secret and hidden-token";
        assert_eq!(keys(1).mask().masked(told), "***, *** and ***");
        assert!(!format!("{:?}", signed.headers).contains("hidden"));
        assert!(!format!("{:?}", keys(1)).contains("hidden"));
    }

    #[test]
    fn what_worked_before_comes_back_until_its_successor_has_worked() {
        let now = Timestamp::UNIX_EPOCH;
        let [first, second, third] = [keys(1), keys(2), keys(3)];
        let serial = |of: &Credential| of.previous(now).map(|previous| previous.serial());
        second.follow(&first);
        assert_eq!(serial(&second), None, "the first never worked");
        first.set_worked();
        second.follow(&first);
        third.follow(&second);
        assert_eq!((serial(&second), serial(&third)), (None, Some(1)));
        first.set_refused(&refusal(), Duration::ZERO, &oms());
        assert_eq!(serial(&third), None);
        let fourth = keys(4);
        third.set_worked();
        fourth.follow(&third);
        assert_eq!(serial(&fourth), Some(3));
        fourth.set_worked();
        assert_eq!(serial(&fourth), None);
    }

    #[test]
    fn a_refusal_counts_once_for_all_who_used_the_credential_and_for_each_who_tried_it() {
        let now = Duration::from_hours(1);
        let trials = Arc::default();
        let [first, second, third] = [1, 2, 3].map(|serial| tried(serial, Arc::clone(&trials)));
        first.set_worked();
        assert!(first.set_refused(&refusal(), now, &oms()));
        assert!(!first.clone().set_refused(&refusal(), now, &oms()));
        let forbidden = |of: &Credential| of.forbidden(now, Needed, Some(&oms())).is_some();
        assert!(!forbidden(&second));
        assert!(second.set_refused(&refusal(), now, &oms()));
        assert!(forbidden(&third));
        second.set_worked();
        assert!(!forbidden(&third));
        assert!(third.set_refused(&refusal(), now, &oms()));
        assert!(!third.clone().set_refused(&refusal(), now, &oms()));
        assert!(forbidden(&tried(4, trials)));
    }
}
