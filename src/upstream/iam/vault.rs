//! The credentials at hand, one for each project, for all threads.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

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

use super::credential::Credential;
use crate::{
    domain::{clock::Clock, service::ProjectName},
    upstream::metrics::Metrics,
};

/// What callers and the thread that logs in share.
#[derive(Clone)]
pub(super) struct Vault {
    pub(super) cache: Cache<ProjectName, Credential>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Metrics,
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
        }
    }

    pub(super) async fn get(&self, project: &ProjectName) -> Option<Credential> {
        let credential = self.cache.get(project).await?;
        credential.is_usable(self.clock.now()).then_some(credential)
    }

    pub(super) async fn put(&self, credential: Credential) {
        let project = credential.project().clone();
        if let Some(before) = self.get(&project).await {
            credential.follow(&before);
        }
        self.cache.insert(project, credential).await;
    }

    /// Removes a credential, unless another one has taken its place; the one that worked before it comes back. Tells
    /// whether this call did it.
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
