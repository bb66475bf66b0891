//! Claims deliveries from the store, within the relay's permits and memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use postrider_transport::Transport;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::executor::ClaimedDelivery;
use super::probe::TRIED;
use super::shared::{Shared, call_limit};
use crate::observe::Event;
use crate::store::{Claim, ClaimId, Store, StoreError};

/// Extra permits for a round of probes.
const RESERVE: usize = TRIED - 1;

/// At most this many claims without an answer are kept, to be taken back.
const MOST_UNHEARD: usize = 64;

/// The state that all claims of a relay share.
pub(super) struct Claims<S, T> {
    shared: Arc<Shared<S, T>>,
    permits: Arc<Semaphore>,
    /// When a pass began, by the database's clock; `None` until it is known, and for a relay that runs on.
    cutoff: Mutex<Option<SystemTime>>,
    /// Claims without an answer, and when each was given up.
    unheard: Mutex<VecDeque<(ClaimId, Instant)>>,
}

impl<S: Store, T: Transport> Claims<S, T> {
    pub(super) fn new(shared: &Arc<Shared<S, T>>) -> Self {
        Self {
            shared: Arc::clone(shared),
            permits: Arc::new(Semaphore::new(shared.settings.concurrency + RESERVE)),
            cutoff: Mutex::new(None),
            unheard: Mutex::default(),
        }
    }

    /// The number of free permits; 0 while the mails in flight use all the memory they may.
    pub(super) fn room(&self) -> usize {
        self.room_to_probe().saturating_sub(RESERVE)
    }

    /// As [`room`](Self::room), with the extra permits for a probe. A tried message keeps its permit until the round is over, and a relay
    /// with a concurrency of 1 must be able to try others.
    pub(super) fn room_to_probe(&self) -> usize {
        let octets = self.shared.in_flight.octets();
        if octets > 0 && octets >= self.shared.settings.memory_octets() { 0 } else { self.permits.available_permits() }
    }

    /// Waits for a free permit. It does not look at the memory.
    pub(super) async fn some_room(&self) {
        // It is never closed.
        let _ = self.permits.acquire().await;
    }

    /// Whether nothing is in flight.
    pub(super) fn is_idle(&self) -> bool {
        self.permits.available_permits() == self.shared.settings.concurrency + RESERVE
    }

    /// Claims up to `limit` deliveries, within the memory limit. Returns how many leases came, and those that are to be sent: without
    /// deliveries that this relay is already sending.
    pub(super) async fn claim(&self, limit: usize) -> Result<(usize, Vec<ClaimedDelivery>), StoreError> {
        let shared = &self.shared;
        self.release_claims().await?;
        if shared.must_renew() {
            shared.renew().await?;
        }
        let mut claim = Claim::new(limit, shared.settings.lease)
            .max_bytes(shared.settings.memory_octets().saturating_sub(shared.in_flight.octets()));
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
            match Arc::clone(&self.permits).try_acquire_owned() {
                Ok(permit) => claimed.push(ClaimedDelivery { lease, asked, answered, permit }),
                // A store that hands out more than was asked for; what is too much runs out.
                Err(_) => shared.in_flight.remove([lease.key]),
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
        let limit = call_limit(&self.shared.settings);
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
