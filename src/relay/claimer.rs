//! Claims deliveries from the store, within the relay's permits and memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use postrider_transport::Transport;
use tokio::time::Instant;

use super::capacity::Capacity;
use super::executor::ClaimedDelivery;
use super::shared::Shared;
use crate::observe::Event;
use crate::store::{Claim, ClaimId, Store, StoreError};

/// The largest number of unanswered claims to remember. The oldest is forgotten first, and its leases expire.
const MAX_UNANSWERED: usize = 64;

/// Claims deliveries for all tasks of a relay.
pub(super) struct Claimer<S, T> {
    shared: Arc<Shared<S, T>>,
    pub(super) capacity: Capacity<S, T>,
    /// The start of a pass by the database's clock. `None` before it is known, and for a relay that does not end by itself.
    cutoff: Mutex<Option<SystemTime>>,
    /// Claims without an answer, each with the time when the relay stopped waiting for it.
    unanswered: Mutex<VecDeque<(ClaimId, Instant)>>,
}

impl<S: Store, T: Transport> Claimer<S, T> {
    pub(super) fn new(shared: &Arc<Shared<S, T>>) -> Self {
        Self {
            shared: Arc::clone(shared),
            capacity: Capacity::new(shared),
            cutoff: Mutex::new(None),
            unanswered: Mutex::default(),
        }
    }

    /// Claims up to `limit` deliveries, within the memory limit. Returns the number of leases, and the deliveries to send. Deliveries that
    /// this relay is already sending are not among them.
    pub(super) async fn claim(&self, limit: usize) -> Result<(usize, Vec<ClaimedDelivery>), StoreError> {
        let shared = &self.shared;
        self.release_claims().await?;
        if shared.must_renew() {
            shared.renew().await?;
        }
        let mut claim = Claim::new(limit, shared.settings.lease).by(shared.id);
        claim = claim.max_bytes(self.capacity.free_bytes());
        if shared.ends_by_itself {
            claim = claim.due_by(self.cutoff().await?);
        }
        let claim_sent_at = Instant::now();
        let leases = match shared.call_store(|| shared.store.claim(claim)).await {
            Ok(leases) => leases,
            Err(error) => {
                self.record_unanswered(claim.id);
                return Err(error);
            }
        };
        let claim_answered_at = Instant::now();
        let count = leases.len();
        if count == 0 {
            return Ok((0, Vec::new()));
        }
        let fresh = shared.in_flight.add(leases.iter());
        shared.emit(&Event::Claimed { count });
        let mut claimed = Vec::with_capacity(count);
        for (lease, fresh) in leases.into_iter().zip(fresh) {
            if !fresh {
                tracing::warn!(id = %lease.key.id, "the lease expired while the message was being sent; the call continues under a new lease");
                continue;
            }
            match self.capacity.try_acquire() {
                Some(permit) => claimed.push(ClaimedDelivery { lease, claim_sent_at, claim_answered_at, permit }),
                // The store returned more deliveries than the limit. The leases of the surplus expire.
                None => shared.in_flight.remove([lease.key]),
            }
        }
        Ok((count, claimed))
    }

    async fn cutoff(&self) -> Result<SystemTime, StoreError> {
        let known = *self.cutoff.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cutoff) = known {
            return Ok(cutoff);
        }
        let now = self.shared.call_store(|| self.shared.store.now()).await?;
        Ok(*self.cutoff.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(now))
    }

    /// Remembers a claim that failed. The database may have committed it.
    fn record_unanswered(&self, id: ClaimId) {
        let mut unanswered = self.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
        if unanswered.len() == MAX_UNANSWERED {
            unanswered.pop_front();
        }
        unanswered.push_back((id, Instant::now()));
    }

    /// Releases the deliveries that unanswered claims leased.
    ///
    /// It runs before each claim, because a lease may be short. A claim is forgotten when it can no longer commit.
    async fn release_claims(&self) -> Result<(), StoreError> {
        let limit = self.shared.settings.call_limit();
        let claims: Vec<_> = self.unanswered.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        if claims.is_empty() {
            return Ok(());
        }
        let all: Vec<_> = claims.iter().map(|(id, _)| *id).collect();
        let over: Vec<_> = claims.iter().filter(|(_, since)| since.elapsed() >= limit).map(|(id, _)| *id).collect();
        let count = self.shared.call_store(|| self.shared.store.release_claims(&all)).await?;
        if count > 0 {
            tracing::info!(count, "released deliveries that were leased by a claim without an answer");
        }
        let mut unanswered = self.unanswered.lock().unwrap_or_else(PoisonError::into_inner);
        unanswered.retain(|(id, _)| !over.contains(id));
        Ok(())
    }
}
