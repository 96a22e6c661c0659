//! How many handshakes there may be at the same time, and which of them ends when there are too
//! many.
//!
//! A handshake takes milliseconds, unless its caller stalls. So the oldest one makes room for a new
//! one: whoever fills all places with handshakes that stall keeps nobody out, and whoever shares an
//! address with many loses to them only what is slow.

use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

/// The most handshakes at the same time.
const ALL_MAX: usize = 1024;
/// The most with one address, so that it takes four to get into each other's way.
const PER_PEER_MAX: usize = ALL_MAX / 4;

/// The handshakes that are under way, oldest first.
#[derive(Default)]
pub(super) struct Handshakes(Mutex<VecDeque<UnderWay>>);

struct UnderWay {
    peer: IpAddr,
    is_displaced: Arc<Notify>,
}

/// The place of one handshake, until it is dropped.
pub(super) struct Turn<'a> {
    handshakes: &'a Handshakes,
    is_displaced: Arc<Notify>,
}

impl Handshakes {
    /// A place for a handshake with this address. If it has as many as it may, its oldest loses its
    /// place, and if there are as many as there may be, the oldest of all does.
    pub(super) fn begin(&self, peer: IpAddr) -> Turn<'_> {
        let peer = peer.to_canonical();
        let is_displaced = Arc::new(Notify::new());
        let mut all = self.all();
        let of_peer = || all.iter().filter(|other| other.peer == peer).count();
        let oldest = if all.len() >= PER_PEER_MAX && of_peer() >= PER_PEER_MAX {
            all.iter().position(|other| other.peer == peer)
        } else {
            (all.len() >= ALL_MAX).then_some(0)
        };
        if let Some(oldest) = oldest.and_then(|oldest| all.remove(oldest)) {
            oldest.is_displaced.notify_one();
        }
        all.push_back(UnderWay {
            peer,
            is_displaced: Arc::clone(&is_displaced),
        });
        Turn {
            handshakes: self,
            is_displaced,
        }
    }

    fn all(&self) -> MutexGuard<'_, VecDeque<UnderWay>> {
        // Every change leaves it whole, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Until the place is lost to a newer handshake.
    pub(super) async fn displaced(&self) {
        self.is_displaced.notified().await;
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut all = self.handshakes.all();
        all.retain(|other| !Arc::ptr_eq(&other.is_displaced, &self.is_displaced));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// The places, among these in the order in which they were taken, that are lost.
    fn lost(turns: &[Turn<'_>]) -> Vec<usize> {
        let lost = turns.iter().enumerate();
        lost.filter_map(|(index, turn)| turn.displaced().now_or_never().map(|()| index))
            .collect()
    }

    #[test]
    fn the_oldest_makes_room_that_of_the_same_address_first() {
        let handshakes = Handshakes::default();
        let peer = |last: u8| IpAddr::from([192, 0, 2, last]);
        let take = |peer: IpAddr, count: usize| -> Vec<Turn<'_>> {
            (0..count).map(|_| handshakes.begin(peer)).collect()
        };
        let first = take(peer(1), PER_PEER_MAX - 1);
        let mut second = take(peer(2), PER_PEER_MAX);
        assert!(lost(&first).is_empty() && lost(&second).is_empty());
        // Another name for the same address.
        let mapped = take("::ffff:192.0.2.2".parse().unwrap(), 2);
        assert_eq!(lost(&second), [0, 1]);
        // Places that are given back are free.
        second.truncate(PER_PEER_MAX / 2);
        second.extend(take(peer(2), PER_PEER_MAX / 2));
        assert!(lost(&first).is_empty() && lost(&second).is_empty());
        // One is left, and then none.
        let others = [3, 4].map(|last| take(peer(last), PER_PEER_MAX));
        assert!(lost(&first).is_empty());
        let newest = take(peer(5), 3);
        assert_eq!(lost(&first), [0, 1]);
        for others in [&second, &mapped, &others[0], &others[1], &newest] {
            assert!(lost(others).is_empty());
        }
        drop((first, second, mapped, others, newest));
        assert!(handshakes.all().is_empty());
    }
}
