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

/// At most this many claims without an answer are kept, to be taken back.
const MOST_UNHEARD: usize = 64;

/// Claims deliveries for all tasks of a relay.
pub(super) struct Claimer<S, T> {
    shared: Arc<Shared<S, T>>,
    pub(super) capacity: Capacity<S, T>,
    /// When a pass began, by the database's clock; `None` until it is known, and for a relay that runs on.
    cutoff: Mutex<Option<SystemTime>>,
    /// Claims without an answer, and when each was given up.
    unheard: Mutex<VecDeque<(ClaimId, Instant)>>,
}

impl<S: Store, T: Transport> Claimer<S, T> {
    pub(super) fn new(shared: &Arc<Shared<S, T>>) -> Self {
        Self {
            shared: Arc::clone(shared),
            capacity: Capacity::new(shared),
            cutoff: Mutex::new(None),
            unheard: Mutex::default(),
        }
    }

    /// Claims up to `limit` deliveries, within the memory limit. Returns how many leases came, and those that are to be sent: without
    /// deliveries that this relay is already sending.
    pub(super) async fn claim(&self, limit: usize) -> Result<(usize, Vec<ClaimedDelivery>), StoreError> {
        let shared = &self.shared;
        self.release_claims().await?;
        if shared.must_renew() {
            shared.renew().await?;
        }
        let mut claim = Claim::new(limit, shared.settings.lease).max_bytes(self.capacity.free_octets());
        if shared.ends_by_itself {
            claim = claim.due_by(self.cutoff().await?);
        }
        let asked = Instant::now();
        let leases = match shared.ask(|| shared.store.claim(claim)).await {
            Ok(leases) => leases,
            Err(error) => {
                self.unheard(claim.id);
                return Err(error);
            }
        };
        let answered = Instant::now();
        let count = leases.len();
        if count == 0 {
            return Ok((0, Vec::new()));
        }
        let fresh = shared.in_flight.add(leases.iter());
        shared.tell(&Event::Claimed { count });
        let mut claimed = Vec::with_capacity(count);
        for (lease, fresh) in leases.into_iter().zip(fresh) {
            if !fresh {
                tracing::warn!(id = %lease.key.id, "the lease of a message that is being sent had run out; it goes on under a new one");
                continue;
            }
            match self.capacity.try_acquire() {
                Some(permit) => claimed.push(ClaimedDelivery { lease, asked, answered, permit }),
                // A store that hands out more than was asked for; what is too much runs out.
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
        let now = self.shared.ask(|| self.shared.store.now()).await?;
        Ok(*self.cutoff.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(now))
    }

    /// A claim that failed may have been committed all the same.
    fn unheard(&self, id: ClaimId) {
        let mut unheard = self.unheard.lock().unwrap_or_else(PoisonError::into_inner);
        if unheard.len() == MOST_UNHEARD {
            unheard.pop_front();
        }
        unheard.push_back((id, Instant::now()));
    }

    /// Gives back what such claims leased: at each claim, since a lease may be short, until none of them can commit any more.
    async fn release_claims(&self) -> Result<(), StoreError> {
        let limit = self.shared.settings.call_limit();
        let claims: Vec<_> = self.unheard.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        if claims.is_empty() {
            return Ok(());
        }
        let all: Vec<_> = claims.iter().map(|(id, _)| *id).collect();
        let over: Vec<_> = claims.iter().filter(|(_, since)| since.elapsed() >= limit).map(|(id, _)| *id).collect();
        let count = self.shared.ask(|| self.shared.store.release_claims(&all)).await?;
        if count > 0 {
            tracing::info!(count, "took back what a claim had leased whose answer never came");
        }
        let mut unheard = self.unheard.lock().unwrap_or_else(PoisonError::into_inner);
        unheard.retain(|(id, _)| !over.contains(id));
        Ok(())
    }
}
