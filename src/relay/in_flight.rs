//! What this relay holds: claimed and not yet settled.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use postrider_transport::DeliveryId;
use tokio::sync::Notify;

use crate::store::{Lease, LeaseKey, Settlement};

/// The deliveries in hand, and how large they are.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    inner: Mutex<Inner>,
    /// Notified when leases are found lost, so that calls which only wait can end.
    lost: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    held: HashMap<DeliveryId, Held>,
    octets: u64,
}

#[derive(Debug)]
struct Held {
    token: i64,
    attempts: u32,
    charged_attempts: u32,
    octets: u64,
    /// Its result is being written. What is claimed meanwhile has been given back, and is a new lease.
    settling: bool,
    lost: bool,
}

impl InFlight {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes leases in hand. `false` stands for one that must not be sent: this relay is sending the delivery already, and its lease ran
    /// out meanwhile. The new lease then serves to settle that call.
    pub(super) fn add<'a>(&self, leases: impl Iterator<Item = &'a Lease>) -> Vec<bool> {
        let mut inner = self.inner();
        let mut fresh = Vec::new();
        for lease in leases {
            let octets = lease.message.body.len() as u64;
            let held = Held {
                token: lease.key.token,
                attempts: lease.attempts,
                charged_attempts: lease.charged_attempts,
                octets,
                settling: false,
                lost: false,
            };
            let added = match inner.held.entry(lease.key.id) {
                Entry::Vacant(entry) => {
                    entry.insert(held);
                    octets
                }
                Entry::Occupied(mut entry) if entry.get().settling => {
                    let before = entry.insert(held);
                    inner.octets = inner.octets.saturating_sub(before.octets);
                    octets
                }
                Entry::Occupied(mut entry) => {
                    let before = entry.get_mut();
                    (before.token, before.attempts, before.charged_attempts) =
                        (held.token, held.attempts, held.charged_attempts);
                    before.lost = false;
                    fresh.push(false);
                    continue;
                }
            };
            inner.octets += added;
            fresh.push(true);
        }
        fresh
    }

    /// Forgets leases, save where this relay has claimed the delivery anew meanwhile.
    pub(super) fn remove(&self, keys: impl IntoIterator<Item = LeaseKey>) {
        let mut inner = self.inner();
        for key in keys {
            if let Entry::Occupied(entry) = inner.held.entry(key.id)
                && entry.get().token == key.token
            {
                let held = entry.remove();
                inner.octets = inner.octets.saturating_sub(held.octets);
            }
        }
    }

    /// Says that a result is going to be written, under the lease that holds now.
    pub(super) fn begin_settling(&self, settlement: &mut Settlement, attempts: u32, charged_attempts: u32) {
        let mut inner = self.inner();
        let Some(held) = inner.held.get_mut(&settlement.key.id) else {
            return;
        };
        held.settling = true;
        if held.token != settlement.key.token {
            // A lost attempt was recorded in between.
            settlement.key.token = held.token;
            if let Some(attempt) = &mut settlement.attempt {
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

    /// How many octets of stored mail are in hand.
    pub(super) fn octets(&self) -> u64 {
        self.inner().octets
    }

    /// In one order everywhere, so that no two transactions wait for each other.
    pub(super) fn keys(&self) -> Vec<LeaseKey> {
        let inner = self.inner();
        let mut keys: Vec<_> = inner.held.iter().map(|(id, held)| LeaseKey { id: *id, token: held.token }).collect();
        keys.sort_unstable_by_key(|key| key.id);
        keys
    }

    /// Notes leases that could not be renewed.
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

    /// Returns when some lease is found lost after this was first polled.
    pub(super) async fn some_lost(&self) {
        self.lost.notified().await;
    }
}
