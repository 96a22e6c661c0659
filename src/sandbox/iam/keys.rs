//! Access keys: those of the user, and temporary ones.

use std::{collections::HashMap, iter};

/// So many wrong signatures on end are let pass; the next one locks the key.
const WRONG_BEFORE_LOCK: u32 = 5;
/// How long a locked key stays locked, in milliseconds.
const LOCK_MILLIS: i64 = 5 * 60 * 1000;
/// Temporary keys that are remembered; those that ended first go first.
const TEMPORARY_KEPT: usize = 10_000;

/// A key that requests can be signed with.
#[derive(Clone)]
pub(super) struct AccessKey {
    pub(super) secret_key: String,
    /// What belongs to a temporary key.
    pub(super) temporary: Option<Temporary>,
    wrong: u32,
    locked_until: i64,
}

#[derive(Clone)]
pub(super) struct Temporary {
    pub(super) security_token: String,
    pub(super) expires_at: i64,
}

/// Temporary keys, as they are handed out.
pub struct TemporaryKeys {
    /// The access key.
    pub access_key: String,
    /// The secret key that belongs to it.
    pub secret_key: String,
    /// The security token, which goes with every request that is signed by them.
    pub security_token: String,
    /// When they end, in milliseconds since 1970.
    pub(super) expires_at: i64,
}

/// All keys, by their public part.
#[derive(Default)]
pub(super) struct Keys {
    known: HashMap<String, AccessKey>,
    issued: usize,
}

impl Keys {
    pub(super) fn get(&self, access_key: &str) -> Option<&AccessKey> {
        self.known.get(access_key)
    }

    pub(super) fn add(&mut self, access_key: &str, secret_key: &str) {
        let key = AccessKey {
            secret_key: secret_key.to_owned(),
            temporary: None,
            wrong: 0,
            locked_until: 0,
        };
        self.known.insert(access_key.to_owned(), key);
    }

    /// Whether there was such a key.
    pub(super) fn remove(&mut self, access_key: &str) -> bool {
        self.known.remove(access_key).is_some()
    }

    /// Ends every temporary key.
    pub(super) fn revoke_temporary(&mut self) {
        self.known.retain(|_, key| key.temporary.is_none());
    }

    /// How many temporary keys were issued.
    pub(super) fn issued(&self) -> usize {
        self.issued
    }

    pub(super) fn issue(&mut self, expires_at: i64) -> TemporaryKeys {
        let temporary = |(access_key, key): (&String, &AccessKey)| {
            let temporary = key.temporary.as_ref()?;
            Some((temporary.expires_at, access_key.clone()))
        };
        let temporary: Vec<_> = self.known.iter().filter_map(temporary).collect();
        if temporary.len() >= TEMPORARY_KEPT
            && let Some((_, first)) = temporary.iter().min()
        {
            self.known.remove(first);
        }
        let text = |prefix: &str, length| {
            let random = iter::repeat_with(fastrand::alphanumeric);
            prefix.chars().chain(random).take(length).collect()
        };
        let issued = TemporaryKeys {
            access_key: text("HSTA", 20),
            secret_key: text("", 40),
            security_token: text("ggpjbi1ub3J0aC00", 800),
            expires_at,
        };
        let key = AccessKey {
            secret_key: issued.secret_key.clone(),
            temporary: Some(Temporary {
                security_token: issued.security_token.clone(),
                expires_at,
            }),
            wrong: 0,
            locked_until: 0,
        };
        self.known.insert(issued.access_key.clone(), key);
        self.issued += 1;
        issued
    }

    pub(super) fn is_locked(&self, access_key: &str, now: i64) -> bool {
        self.get(access_key)
            .is_some_and(|key| now < key.locked_until)
    }

    /// Counts a signature. That a right one ends the row of wrong ones is our reading of
    /// "consecutive".
    pub(super) fn count(&mut self, access_key: &str, is_right: bool, now: i64) {
        let Some(key) = self.known.get_mut(access_key) else {
            return;
        };
        if is_right {
            key.wrong = 0;
            return;
        }
        key.wrong += 1;
        if key.wrong > WRONG_BEFORE_LOCK {
            key.wrong = 0;
            key.locked_until = now + LOCK_MILLIS;
        }
    }
}
