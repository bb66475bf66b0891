//! The permits of a relay and its memory limit, which limit its claims.

use std::sync::Arc;

use postrider_transport::Transport;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Settings;
use super::shared::Shared;
use crate::store::Store;

/// Permits in addition to the concurrency, for a round of probes.
pub(super) const PROBE_PERMITS: usize = 3;

/// The estimated bytes of memory for each byte of a stored mail while it is sent: the stored text, the decoded mail, its attachments in
/// base64 with line ends, and the rendered message.
const MEMORY_PER_BYTE: u64 = 6;

impl Settings {
    /// The limit for the stored mails in flight, in bytes.
    fn memory_bytes(&self) -> u64 {
        self.memory / MEMORY_PER_BYTE
    }
}

/// A permit for each message in flight, within the memory limit.
pub(super) struct Capacity<S, T> {
    shared: Arc<Shared<S, T>>,
    permits: Arc<Semaphore>,
}

impl<S: Store, T: Transport> Capacity<S, T> {
    pub(super) fn new(shared: &Arc<Shared<S, T>>) -> Self {
        let permits = Arc::new(Semaphore::new(shared.settings.concurrency + PROBE_PERMITS));
        Self { shared: Arc::clone(shared), permits }
    }

    /// The number of free permits. 0 while the mails in flight use all of the memory limit.
    pub(super) fn free(&self) -> usize {
        self.free_for_probe().saturating_sub(PROBE_PERMITS)
    }

    /// As [`free`](Self::free), with the extra permits for a round of probes. Each candidate keeps its permit until the round ends, so a
    /// relay with a concurrency of 1 needs them.
    pub(super) fn free_for_probe(&self) -> usize {
        let bytes = self.shared.in_flight.bytes();
        if bytes > 0 && bytes >= self.shared.settings.memory_bytes() { 0 } else { self.permits.available_permits() }
    }

    /// The size of further stored mail that fits into the memory limit, in bytes.
    pub(super) fn free_bytes(&self) -> u64 {
        self.shared.settings.memory_bytes().saturating_sub(self.shared.in_flight.bytes())
    }

    /// Waits for a free permit. Ignores the memory limit.
    pub(super) async fn wait_for_permit(&self) {
        // An error would mean that the semaphore is closed. It never is.
        let _ = self.permits.acquire().await;
    }

    /// Takes a permit. `None` if none is free.
    pub(super) fn try_acquire(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.permits).try_acquire_owned().ok()
    }

    /// Whether nothing is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.permits.available_permits() == self.shared.settings.concurrency + PROBE_PERMITS
    }
}
