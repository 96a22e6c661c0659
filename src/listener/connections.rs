//! How many connections there may be.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// The most connections at the same time.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// From all peers.
    pub all: u32,
    /// From one address.
    pub per_peer: u32,
}

/// Who may connect. Clones count together.
#[derive(Clone)]
pub struct Connections(Arc<Shared>);

struct Shared {
    limits: ConnectionLimits,
    peers: Mutex<Peers>,
    open: Gauge,
    refused: Family<Labels, Counter>,
}

#[derive(Default)]
struct Peers {
    all: u32,
    each: HashMap<IpAddr, u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    limit: &'static str,
}

/// The place of one connection, until it is dropped.
pub struct Place {
    connections: Connections,
    peer: IpAddr,
}

impl Connections {
    /// Nobody is connected yet.
    pub fn new(limits: ConnectionLimits, registry: &mut Registry) -> Self {
        let shared = Shared {
            limits,
            peers: Mutex::default(),
            open: Gauge::default(),
            refused: Family::default(),
        };
        registry.register("connections", "Connections of callers", shared.open.clone());
        registry.register(
            "connections_refused",
            "Connections that were closed at once, by the limit that was reached: all or peer",
            shared.refused.clone(),
        );
        Self(Arc::new(shared))
    }

    /// A place for a connection from this address, if there is one.
    pub fn admit(&self, peer: IpAddr) -> Option<Place> {
        let Shared {
            limits,
            open,
            refused,
            ..
        } = &*self.0;
        // Callers on one machine are one peer, whichever of its names for itself they use.
        let peer = peer.to_canonical();
        let mut peers = self.peers();
        let of_peer = peers.each.get(&peer).copied().unwrap_or_default();
        let limit = match () {
            () if peers.all >= limits.all => Some("all"),
            () if of_peer >= limits.per_peer => Some("peer"),
            () => None,
        };
        if let Some(limit) = limit {
            refused.get_or_create(&Labels { limit }).inc();
            return None;
        }
        peers.all += 1;
        peers.each.insert(peer, of_peer + 1);
        open.set(peers.all.into());
        Some(Place {
            connections: self.clone(),
            peer,
        })
    }

    fn peers(&self) -> std::sync::MutexGuard<'_, Peers> {
        // The numbers belong together again after every change, so a panic elsewhere does not spoil
        // them.
        self.0.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut peers = self.connections.peers();
        peers.all = peers.all.saturating_sub(1);
        let left = peers.each.get(&self.peer).copied().unwrap_or_default();
        if left > 1 {
            peers.each.insert(self.peer, left - 1);
        } else {
            peers.each.remove(&self.peer);
        }
        self.connections.0.open.set(peers.all.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_by_peer_and_in_all_and_given_back() {
        let limits = ConnectionLimits {
            all: 3,
            per_peer: 2,
        };
        let connections = Connections::new(limits, &mut Registry::default());
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let first = connections.admit(address("192.0.2.1"));
        let second = connections.admit(address("::ffff:192.0.2.1"));
        assert!(first.is_some() && second.is_some());
        assert!(connections.admit(address("192.0.2.1")).is_none(), "its own");
        let other = connections.admit(address("192.0.2.2"));
        assert!(other.is_some());
        assert!(connections.admit(address("192.0.2.3")).is_none(), "of all");
        drop(first);
        assert!(connections.admit(address("192.0.2.1")).is_some());
        drop((second, other));
        assert!(connections.peers().each.is_empty() && connections.peers().all == 0);
    }
}
