//! The keys to buckets that this process knows, so that no task shows them: one can fail because of
//! the keys of its start, and say so.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use super::{Settings, secrets::Secrets};
use crate::domain::{
    secret::{Mask, Secret},
    task::TaskRef,
};

/// The most starts whose keys are remembered, the latest. Those of earlier ones are known by their
/// looks only.
const STARTS_MAX: usize = 1_000;

/// Those of the configuration, and those of the last starts. Clones share them.
#[derive(Clone)]
pub(super) struct StorageSecrets {
    settings: Arc<Settings>,
    secrets: Secrets,
    sent: Arc<Mutex<VecDeque<Sent>>>,
}

/// The keys of one start.
struct Sent {
    task: TaskRef,
    keys: Vec<Secret>,
}

impl StorageSecrets {
    /// Those of the configuration, as the files of secrets were last read.
    pub(super) fn new(settings: Arc<Settings>, secrets: Secrets) -> Self {
        Self {
            settings,
            secrets,
            sent: Arc::default(),
        }
    }

    /// Notes the keys that a start is about to bring to the vendor.
    pub(super) fn remember(&self, task: &TaskRef, keys: Vec<Secret>) {
        // Whole between any two statements.
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        // A start that is sent again brings the same ones.
        sent.retain(|before| before.task != *task || !are_same(&before.keys, &keys));
        if sent.len() == STARTS_MAX {
            sent.pop_front();
        }
        sent.push_back(Sent {
            task: task.clone(),
            keys,
        });
    }

    /// What puts another text in the place of each of the keys that a task can show. It waits for
    /// no file.
    pub(super) fn mask(&self, task: &TaskRef) -> Mask {
        let mut keys = Vec::new();
        for entry in self.settings.storage_credentials.values() {
            keys.push(Secret::new(entry.access_key.as_str()));
            keys.extend(self.secrets.known(&entry.secret_key));
        }
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let of_task = sent.iter().filter(|start| start.task == *task);
        keys.extend(of_task.flat_map(|start| start.keys.iter().cloned()));
        Mask::new(&keys)
    }
}

fn are_same(some: &[Secret], others: &[Secret]) -> bool {
    let others = others.iter().map(Secret::expose);
    some.iter().map(Secret::expose).eq(others)
}

#[cfg(test)]
pub(super) mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use super::*;
    use crate::{
        domain::{
            service::{ProjectName, ServiceName},
            task::TaskId,
        },
        upstream::{flow::tests::PACE, metrics::Metrics},
    };

    fn task(id: usize) -> TaskRef {
        TaskRef {
            project: ProjectName::parse("prod").unwrap(),
            service: ServiceName::parse("oms").unwrap(),
            id: TaskId::parse(&id.to_string()).unwrap(),
        }
    }

    pub(in crate::upstream) fn without_configured() -> StorageSecrets {
        let settings = Settings {
            freshness: Duration::ZERO,
            projects: BTreeMap::new(),
            storage_credentials: BTreeMap::new(),
            pace: PACE,
        };
        StorageSecrets::new(Arc::new(settings), Secrets::new(Metrics::default()))
    }

    #[test]
    fn the_keys_of_the_last_starts_are_remembered_for_their_tasks() {
        let keys = without_configured();
        let text = "first-key second-key another-key";
        let send = |id, key: &str| keys.remember(&task(id), vec![Secret::new(key)]);
        send(0, "first-key");
        send(0, "second-key");
        assert_eq!(keys.mask(&task(0)).masked(text), "*** *** another-key");
        assert_eq!(keys.mask(&task(1)).masked(text), text);
        for id in 1..STARTS_MAX - 1 {
            send(id, "another-key");
            // Sent again, they take no other place.
            send(id, "another-key");
        }
        assert_eq!(keys.mask(&task(0)).masked(text), "*** *** another-key");
        send(STARTS_MAX, "another-key");
        assert_eq!(
            keys.mask(&task(0)).masked(text),
            "first-key *** another-key"
        );
    }
}
