//! The keys of one issuer as they were last seen, and when they may be looked for again.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jsonwebtoken::{Algorithm, DecodingKey};
use tokio::sync::{Notify, Semaphore, watch};

use super::{KeySource, Refusal, key_set::KeySet, settings::IssuerSettings};
use crate::domain::service::IssuerName;

/// Tokens with unknown keys cause no more than one fetch in this time, however many come and
/// whatever they name.
pub(super) const COOL_DOWN: Duration = Duration::from_secs(30);
/// The most requests that wait for the keys of one issuer at the same time; the others are refused
/// at once.
const WAITING_MAX: usize = 64;

/// The keys of one issuer, shared between those who check tokens and the one who fetches.
pub(super) struct KeyCache {
    pub(super) issuer: IssuerName,
    pub(super) source: KeySource,
    max_age: Duration,
    state: Mutex<State>,
    /// Told when keys are wanted before it is time.
    pub(super) wanted: Notify,
    /// The places of those who wait for a fetch.
    pub(super) waiting: Semaphore,
    /// Counts the fetches that have ended.
    ended: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    keys: Option<(Arc<KeySet>, Instant)>,
    /// From the wish, or the beginning, to the end of a fetch.
    is_fetching: bool,
    last_wanted: Option<Instant>,
}

impl KeyCache {
    /// No keys yet. The first fetch counts as under way, since it begins at once.
    pub(super) fn new(settings: &IssuerSettings) -> Self {
        Self {
            issuer: settings.name.clone(),
            source: settings.keys.clone(),
            max_age: settings.keys_max_age,
            state: Mutex::new(State {
                is_fetching: true,
                ..State::default()
            }),
            wanted: Notify::new(),
            waiting: Semaphore::new(WAITING_MAX),
            ended: watch::Sender::new(0),
        }
    }

    /// Whether the keys of this issuer would be the same.
    pub(super) fn is_for(&self, settings: &IssuerSettings) -> bool {
        self.issuer == settings.name
            && self.source == settings.keys
            && self.max_age == settings.keys_max_age
    }

    /// The keys to check a signature with, at least one: it is good if it is so by any of them.
    pub(super) fn find(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
        now: Instant,
    ) -> Result<Vec<DecodingKey>, Refusal> {
        let keys = match &self.state().keys {
            Some((keys, seen)) if now.saturating_duration_since(*seen) <= self.max_age => {
                Arc::clone(keys)
            }
            _ => return Err(Refusal::IssuerKeys),
        };
        let found: Vec<_> = keys.find(id, algorithm).into_iter().cloned().collect();
        if found.is_empty() {
            return Err(Refusal::TokenKey);
        }
        Ok(found)
    }

    /// Asks for a fetch, unless one is under way or another was asked for a short time ago. The
    /// result changes when the fetch ends; `None` if there is none to wait for.
    pub(super) fn want(&self, now: Instant) -> Option<watch::Receiver<u64>> {
        let mut state = self.state();
        let ended = self.ended.subscribe();
        if state.is_fetching {
            return Some(ended);
        }
        let is_cooling = state
            .last_wanted
            .is_some_and(|last| now.saturating_duration_since(last) < COOL_DOWN);
        if is_cooling {
            return None;
        }
        state.last_wanted = Some(now);
        state.is_fetching = true;
        self.wanted.notify_one();
        Some(ended)
    }

    /// Notes that a fetch begins.
    pub(super) fn begin(&self) {
        self.state().is_fetching = true;
    }

    /// Notes what a fetch brought: keys, or nothing, which leaves those that are there.
    pub(super) fn end(&self, keys: Option<KeySet>, now: Instant) {
        let mut state = self.state();
        if let Some(keys) = keys {
            state.keys = Some((Arc::new(keys), now));
        }
        state.is_fetching = false;
        drop(state);
        self.ended
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Whether there are keys that may be used.
    pub(super) fn is_usable(&self, now: Instant) -> bool {
        let state = self.state();
        let seen = state.keys.as_ref().map(|(_, seen)| *seen);
        seen.is_some_and(|seen| now.saturating_duration_since(seen) <= self.max_age)
    }

    /// The time after which keys are looked for again although nobody asks, so that they never get
    /// too old by themselves.
    pub(super) fn refresh_after(&self) -> Duration {
        let usual = match self.source {
            KeySource::Url(..) => Duration::from_mins(10),
            KeySource::File(_) => Duration::from_secs(10),
        };
        usual.min(self.max_age / 2)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is whole between any two statements, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
