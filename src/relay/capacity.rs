//! The permits of a relay and its memory limit: how much more it may claim.

use std::sync::Arc;

use postrider_transport::Transport;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Settings;
use super::shared::Shared;
use crate::store::Store;

/// Extra permits for a round of probes.
pub(super) const RESERVE: usize = 3;

/// What an octet of a stored mail takes in memory while it is sent: the stored text, what is read from it, its attachments in base64 with
/// line ends, and the whole as it goes out.
const MEMORY_OF_AN_OCTET: u64 = 6;

impl Settings {
    /// How many octets of stored mail may be in hand.
    fn memory_octets(&self) -> u64 {
        self.memory / MEMORY_OF_AN_OCTET
    }
}

/// A permit for each message in flight, within the memory limit.
pub(super) struct Capacity<S, T> {
    shared: Arc<Shared<S, T>>,
    permits: Arc<Semaphore>,
}

impl<S: Store, T: Transport> Capacity<S, T> {
    pub(super) fn new(shared: &Arc<Shared<S, T>>) -> Self {
        let permits = Arc::new(Semaphore::new(shared.settings.concurrency + RESERVE));
        Self { shared: Arc::clone(shared), permits }
    }

    /// The number of free permits; 0 while the mails in flight use all the memory they may.
    pub(super) fn free(&self) -> usize {
        self.free_for_probe().saturating_sub(RESERVE)
    }

    /// As [`free`](Self::free), with the extra permits for a probe. A tried message keeps its permit until the round is over, and a relay
    /// with a concurrency of 1 must be able to try others.
    pub(super) fn free_for_probe(&self) -> usize {
        let octets = self.shared.in_flight.octets();
        if octets > 0 && octets >= self.shared.settings.memory_octets() { 0 } else { self.permits.available_permits() }
    }

    /// The octets of stored mail that fit into the memory limit.
    pub(super) fn free_octets(&self) -> u64 {
        self.shared.settings.memory_octets().saturating_sub(self.shared.in_flight.octets())
    }

    /// Waits for a free permit. It does not look at the memory.
    pub(super) async fn wait_for_permit(&self) {
        // It is never closed.
        let _ = self.permits.acquire().await;
    }

    /// Takes a permit. `None` if none is free.
    pub(super) fn try_acquire(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).try_acquire_owned().ok()
    }

    /// Whether nothing is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.permits.available_permits() == self.shared.settings.concurrency + RESERVE
    }
}
