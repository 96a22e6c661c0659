//! The credentials at hand, one for each project, for all threads, and what became of the logins
//! for them.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use moka::{
    Expiry,
    future::Cache,
    ops::compute::{CompResult, Op},
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, gauge::ConstGauge},
    registry::Unit,
};

use super::{attempts::Identity, credential::Credential, login::failure};
use crate::{
    domain::{
        clock::Clock,
        service::{ProjectName, UpstreamError, UpstreamErrorKind, status::CredentialState},
    },
    upstream::metrics::Metrics,
};

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
    /// Whether a service refuses what the logins yield.
    is_refused: bool,
}

impl Logins {
    /// The vendor let the gateway in: by a token, or by the first acceptance of a signature, since
    /// keys by themselves promise nothing.
    pub(super) fn logged_in(&self, project: &ProjectName, now: Timestamp) {
        self.change(project, |last| last.login_at = Some(now));
    }

    /// There is another credential.
    pub(super) fn obtained(&self, project: &ProjectName) {
        self.change(project, |last| {
            last.is_failing = false;
            last.is_refused = false;
        });
    }

    pub(super) fn failed(&self, project: &ProjectName, error: &UpstreamError, now: Timestamp) {
        self.change(project, |last| {
            last.error = Some((now, error.clone()));
            last.is_failing = true;
        });
    }

    fn noted(&self, project: &ProjectName, error: &UpstreamError, now: Timestamp) {
        self.change(project, |last| last.error = Some((now, error.clone())));
    }

    /// A service refused a credential that no login can mend.
    pub(super) fn refused(&self, project: &ProjectName, error: &UpstreamError, now: Timestamp) {
        self.failed(project, error, now);
        self.change(project, |last| last.is_refused = true);
    }

    /// The service that refused one accepts it after all.
    pub(super) fn accepted(&self, project: &ProjectName) {
        self.change(project, |last| {
            (last.is_failing, last.is_refused) = (false, false);
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
    /// How a project stands, with or without a credential at hand.
    pub(super) fn state(&self, is_at_hand: bool) -> CredentialState {
        if is_at_hand && !self.is_refused {
            return CredentialState::Ok;
        }
        match &self.error {
            Some((_, error)) if self.is_failing && error.is_permanent() => CredentialState::Refused,
            Some(_) if self.is_failing => CredentialState::Unavailable,
            Some(_) | None => CredentialState::Idle,
        }
    }
}

/// What callers and the thread that logs in share.
#[derive(Clone)]
pub(super) struct Vault {
    pub(super) cache: Cache<ProjectName, Credential>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Metrics,
    pub(super) logins: Logins,
    /// The last ones of each project, the latest at the end, whatever became of them.
    recent: Arc<Mutex<HashMap<ProjectName, VecDeque<Credential>>>>,
    /// The last ones of each holder that were obtained with what the vendor accepted.
    proven: Arc<Mutex<HashMap<Identity, Proven>>>,
}

/// How many credentials of a project are remembered, the latest among them, so that no answer
/// repeats them.
const RECENT: usize = 3;

/// What was proven right, in whichever project.
#[derive(Clone)]
pub(super) struct Proven {
    /// One that was obtained with the secret that was proven last, whatever became of it.
    pub(super) last: Credential,
    /// The same of the keys before these, which some service may know sooner than these.
    pub(super) before: Option<Credential>,
}

impl Proven {
    fn then(&mut self, next: Credential) {
        if next.identity() != self.last.identity() {
            self.before = next.signs().then(|| self.last.clone());
        }
        self.last = next;
    }
}

/// Each credential goes at its own end.
struct AtItsEnd;

impl Expiry<ProjectName, Credential> for AtItsEnd {
    fn expire_after_create(
        &self,
        _: &ProjectName,
        credential: &Credential,
        _: Instant,
    ) -> Option<Duration> {
        credential.left()
    }

    // The default keeps the end of the credential that was there before.
    fn expire_after_update(
        &self,
        _: &ProjectName,
        credential: &Credential,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        credential.left()
    }
}

impl Vault {
    pub(super) fn new(clock: Arc<dyn Clock>, metrics: Metrics) -> Self {
        Self {
            cache: Cache::builder().expire_after(AtItsEnd).build(),
            clock,
            metrics,
            logins: Logins::default(),
            recent: Arc::default(),
            proven: Arc::default(),
        }
    }

    /// Notes that a file of the project's secrets is of no use. Nothing has failed for it yet.
    pub(super) fn secret_is_unusable(&self, project: &ProjectName) {
        let error = failure(
            UpstreamErrorKind::Unavailable,
            "A file of the gateway's own credentials cannot be used; what it held before serves.",
        );
        self.logins.noted(project, &error, self.clock.now());
    }

    /// The last credentials of a project, of whatever use they are.
    pub(super) fn recent(&self, project: &ProjectName) -> VecDeque<Credential> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.get(project).cloned().unwrap_or_default()
    }

    /// Those that a service may know that was shown this one: the last ones of its project, and
    /// those that were proven right.
    pub(super) fn shown_beside(&self, credential: &Credential) -> Vec<Credential> {
        let proven = self.proven(credential.holder());
        let proven = proven.map(|proven| [Some(proven.last), proven.before]);
        let mut beside: Vec<_> = self.recent(credential.project()).into();
        beside.extend(proven.into_iter().flatten().flatten());
        beside.retain(|other| !other.is(credential));
        beside
    }

    fn remember(&self, credential: &Credential) {
        // Whole between any two statements.
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let recent = recent.entry(credential.project().clone()).or_default();
        // Keys that are used once more are the same.
        recent.retain(|other| !other.signs() || other.identity() != credential.identity());
        recent.push_back(credential.clone());
        if recent.len() > RECENT {
            recent.pop_front();
        }
    }

    /// Notes that the vendor has accepted what this was obtained with.
    pub(super) fn prove(&self, credential: &Credential) {
        if credential.chosen().is_none() {
            return;
        }
        let proven = || Proven {
            last: credential.clone(),
            before: None,
        };
        self.proven_slots()
            .entry(credential.holder())
            .and_modify(|proven| proven.then(credential.clone()))
            .or_insert_with(proven);
    }

    /// What was proven right of this holder.
    pub(super) fn proven(&self, holder: Identity) -> Option<Proven> {
        self.proven_slots().get(&holder).cloned()
    }

    /// Whether there is something else that the gateway may be let in with: these keys are the
    /// former ones, or others worked before them.
    pub(super) fn has_others(&self, credential: &Credential) -> bool {
        let proven = self.proven(credential.holder());
        let are_others = |proven: Proven| {
            proven.last.identity() != credential.identity()
                || proven.before.is_some_and(|before| !before.was_refused())
        };
        credential.signs() && (credential.is_former() || proven.is_some_and(are_others))
    }

    fn proven_slots(&self) -> MutexGuard<'_, HashMap<Identity, Proven>> {
        // Whole between any two statements.
        self.proven.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What may be sent. A refused one can be there for a moment: until it is removed, or because
    /// it was brought back as the one that had worked when it was refused too.
    pub(super) async fn get(&self, project: &ProjectName) -> Option<Credential> {
        let credential = self.cache.get(project).await?;
        credential.is_good(self.clock.now()).then_some(credential)
    }

    /// As [`Vault::get`], without waiting and without counting as a use.
    pub(super) fn at_hand(&self, project: &ProjectName) -> Option<Credential> {
        let (_, credential) = self.cache.iter().find(|(name, _)| **name == *project)?;
        credential.is_good(self.clock.now()).then_some(credential)
    }

    pub(super) async fn put(&self, credential: Credential) {
        let project = credential.project().clone();
        self.remember(&credential);
        if let Some(before) = self.cache.get(&project).await {
            credential.follow(&before);
        }
        self.cache.insert(project, credential).await;
    }

    /// Removes a credential, unless another one has taken its place; the one that worked before it
    /// comes back. Tells whether this call did it.
    pub(super) async fn remove(&self, credential: &Credential) -> bool {
        let serial = credential.serial();
        let previous = credential.previous(self.clock.now());
        let result = self
            .cache
            .entry_by_ref(credential.project())
            .and_compute_with(async |cached| match (cached, previous) {
                (Some(cached), previous) if cached.value().serial() == serial => {
                    previous.map_or(Op::Remove, Op::Put)
                }
                (Some(_) | None, _) => Op::Nop,
            })
            .await;
        matches!(result, CompResult::Removed(_) | CompResult::ReplacedWith(_))
    }
}

/// Shows how old the oldest credential of each kind is.
pub(super) struct Ages(pub(super) Vault);

impl fmt::Debug for Ages {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Ages")
    }
}

impl Collector for Ages {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut oldest = BTreeMap::new();
        let now = self.0.clock.now();
        for (_, credential) in &self.0.cache {
            let age = oldest.entry(credential.kind()).or_insert(Duration::ZERO);
            *age = credential.age(now).max(*age);
        }
        let mut family = encoder.encode_descriptor(
            "upstream_credential_age",
            "Age of the oldest credential in use, by kind",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        for (kind, age) in oldest {
            let labels = [("kind", kind.as_str())];
            let encoder = family.encode_family(&labels)?;
            ConstGauge::new(age.as_secs_f64()).encode(encoder)?;
        }
        Ok(())
    }
}
