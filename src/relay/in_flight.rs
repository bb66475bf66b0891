//! The deliveries that this relay has claimed and not yet settled.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use postrider_transport::DeliveryId;
use tokio::sync::Notify;

use crate::store::{Lease, LeaseKey, Settlement};

/// The deliveries in flight, and the size of their stored mails.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    inner: Mutex<Inner>,
    /// Notified when leases are lost. Calls whose messages only wait then end.
    lost: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    held: HashMap<DeliveryId, Held>,
    bytes: u64,
}

#[derive(Debug)]
struct Held {
    token: i64,
    claimed_at: SystemTime,
    attempts: u32,
    charged_attempts: u32,
    bytes: u64,
    /// Whether its result is being written. A claim that returns the delivery now returns a new lease, which is sent.
    settling: bool,
    lost: bool,
}

impl InFlight {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds leases. Returns for each whether the delivery must be sent. `false`: this relay is already sending it under a lease that has
    /// expired, and the call under way is settled under the new lease.
    pub(super) fn add<'a>(&self, leases: impl Iterator<Item = &'a Lease>) -> Vec<bool> {
        let mut inner = self.inner();
        let mut fresh = Vec::new();
        for lease in leases {
            let bytes = u64::try_from(lease.message.size()).unwrap_or(u64::MAX);
            let held = Held {
                token: lease.key.token,
                claimed_at: lease.claimed_at,
                attempts: lease.attempts,
                charged_attempts: lease.charged_attempts,
                bytes,
                settling: false,
                lost: false,
            };
            let added = match inner.held.entry(lease.key.id) {
                Entry::Vacant(entry) => {
                    entry.insert(held);
                    bytes
                }
                Entry::Occupied(mut entry) if entry.get().settling => {
                    let before = entry.insert(held);
                    inner.bytes = inner.bytes.saturating_sub(before.bytes);
                    bytes
                }
                Entry::Occupied(mut entry) => {
                    let before = entry.get_mut();
                    *before = Held { bytes: before.bytes, ..held };
                    fresh.push(false);
                    continue;
                }
            };
            inner.bytes += added;
            fresh.push(true);
        }
        fresh
    }

    /// Removes leases, except where this relay has claimed the delivery again.
    pub(super) fn remove(&self, keys: impl IntoIterator<Item = LeaseKey>) {
        let mut inner = self.inner();
        for key in keys {
            if let Entry::Occupied(entry) = inner.held.entry(key.id)
                && entry.get().token == key.token
            {
                let held = entry.remove();
                inner.bytes = inner.bytes.saturating_sub(held.bytes);
            }
        }
    }

    /// Marks a delivery as being settled, and gives the settlement the token of its newest lease.
    pub(super) fn begin_settling(&self, settlement: &mut Settlement, attempts: u32, charged_attempts: u32) {
        let mut inner = self.inner();
        let Some(held) = inner.held.get_mut(&settlement.key.id) else {
            return;
        };
        held.settling = true;
        if held.token != settlement.key.token {
            // The new claim recorded a lost attempt that ended when this lease began. Attempts of a delivery must not overlap.
            settlement.key.token = held.token;
            if let Some(attempt) = &mut settlement.attempt {
                attempt.started_at = attempt.started_at.max(held.claimed_at);
                attempt.finished_at = attempt.finished_at.max(attempt.started_at);
                attempt.number = attempt.number.saturating_add(held.attempts.saturating_sub(attempts));
            }
            if settlement.charged_attempts > 0 {
                settlement.charged_attempts =
                    settlement.charged_attempts.saturating_add(held.charged_attempts.saturating_sub(charged_attempts));
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.inner().held.len()
    }

    /// The size of all stored mails in flight, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.inner().bytes
    }

    /// The keys of all leases, ordered by id. All transactions then lock rows in the same order.
    pub(super) fn keys(&self) -> Vec<LeaseKey> {
        let inner = self.inner();
        let mut keys: Vec<_> = inner.held.iter().map(|(id, held)| LeaseKey { id: *id, token: held.token }).collect();
        keys.sort_unstable_by_key(|key| key.id);
        keys
    }

    /// Marks leases that could not be renewed as lost.
    pub(super) fn mark_lost(&self, keys: impl Iterator<Item = LeaseKey>) {
        let mut inner = self.inner();
        let mut any = false;
        for key in keys {
            if let Some(held) = inner.held.get_mut(&key.id)
                && held.token == key.token
                && !held.settling
            {
                (held.lost, any) = (true, true);
            }
        }
        drop(inner);
        if any {
            self.lost.notify_waiters();
        }
    }

    pub(super) fn is_lost(&self, id: DeliveryId) -> bool {
        self.inner().held.get(&id).is_some_and(|held| held.lost)
    }

    /// Waits until a lease is lost. Losses before the first poll do not count.
    pub(super) async fn some_lost(&self) {
        self.lost.notified().await;
    }
}
