//! What the tasks of one relay share.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use postrider_transport::{Breaker, Change, DeliveryId, Failure, Receipt, Transport};
use tokio::sync::Notify;

use super::outage::Outage;
use super::{Pass, Pause, Settings};
use crate::delivery::LeaseKey;
use crate::observe::Event;
use crate::store::{RelayId, RelayReport, StoreError, StoreErrorKind};

/// How long a call to the store may take at the least. A database that is busy must not be taken for one that is gone.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Shared<S, T> {
    pub(super) id: RelayId,
    pub(super) store: S,
    pub(super) transport: Arc<T>,
    pub(super) settings: Settings,
    pub(super) outage: Outage,
    /// Whether results wait for a database that does not take them. Until it does, nothing is claimed: this relay would take its
    /// own deliveries over.
    pub(super) unsettled: AtomicBool,
    /// Whether results are being written at this moment, after which there is more room.
    pub(super) settling: AtomicBool,
    pub(super) breaker: Breaker,
    /// Rung when the breaker opens or closes, so that the change is reported.
    pub(super) breaker_changed: Notify,
    /// Rung when there is room again for a message.
    pub(super) room_freed: Notify,
    /// What this relay holds: claimed and not yet settled.
    held: Mutex<HashMap<DeliveryId, i64>>,
    pass: Mutex<Pass>,
}

impl<S, T: Transport> Shared<S, T> {
    pub(super) fn new(store: S, transport: Arc<T>, settings: Settings) -> Self {
        Self {
            id: RelayId::new(),
            store,
            transport,
            outage: Outage::default(),
            unsettled: AtomicBool::new(false),
            settling: AtomicBool::new(false),
            breaker: Breaker::new(settings.pause),
            breaker_changed: Notify::new(),
            room_freed: Notify::new(),
            held: Mutex::default(),
            pass: Mutex::default(),
            settings,
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<DeliveryId, i64>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hold(&self, keys: impl Iterator<Item = LeaseKey>) {
        self.held().extend(keys.map(|key| (key.id, key.token)));
    }

    /// Forgets leases, save where this relay has claimed the delivery anew meanwhile.
    pub(super) fn let_go(&self, keys: impl IntoIterator<Item = LeaseKey>) {
        let mut held = self.held();
        for key in keys {
            if let Entry::Occupied(entry) = held.entry(key.id)
                && *entry.get() == key.token
            {
                entry.remove();
            }
        }
    }

    /// How many it holds.
    pub(super) fn in_hand(&self) -> usize {
        self.held().len()
    }

    pub(super) fn holding(&self) -> Vec<LeaseKey> {
        let mut keys: Vec<_> = self.held().iter().map(|(id, token)| LeaseKey { id: *id, token: *token }).collect();
        // In one order everywhere, so that no two transactions wait for each other.
        keys.sort_unstable_by_key(|key| key.id);
        keys
    }

    pub(super) fn count(&self, add: impl FnOnce(&mut Pass)) {
        add(&mut self.pass.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The numbers so far.
    pub(super) fn pass(&self) -> Pass {
        let mut pass = self.pass.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let transport = self.transport.name().to_owned();
        pass.paused = self.breaker.reason().map(|reason| Pause { transport, reason });
        pass
    }

    pub(super) fn report(&self) -> RelayReport {
        let name = self.transport.name();
        let paused = match self.breaker.reason() {
            Some(reason) => Some(format!("{name}: {reason}")),
            None => {
                let within = self.transport.paused();
                let each: Vec<_> = within.iter().map(|(inner, reason)| format!("{name}/{inner}: {reason}")).collect();
                (!each.is_empty()).then(|| each.join("; "))
            }
        };
        RelayReport::new(self.id, self.in_hand(), paused)
    }

    /// Tells the breaker what a call came to, and everybody what the breaker made of it.
    pub(super) fn judge(&self, result: &Result<Receipt, Failure>, began: Instant) {
        let change = self.breaker.judge(result, began);
        let transport = self.transport.name();
        match change {
            Change::None => return,
            Change::Paused(pause) => {
                let reason = self.breaker.reason().unwrap_or_default();
                tracing::warn!(transport, reason, pause_ms = millis(pause), "the transport cannot send; pausing");
                self.tell(&Event::TransportPaused { transport, reason: &reason, pause });
            }
            Change::Resumed => {
                tracing::info!(transport, "the transport works again");
                self.tell(&Event::TransportResumed { transport });
            }
        }
        self.breaker_changed.notify_one();
    }

    /// Waits for an answer of the store, but not for ever: the connection may have gone without a word, as in a network that drops what
    /// it should carry, and it would be many minutes before the system noticed. Half a lease, so that it can still be renewed.
    pub(super) async fn in_time<R>(&self, call: impl Future<Output = Result<R, StoreError>>) -> Result<R, StoreError> {
        let limit = PATIENCE.max(self.settings.lease / 2);
        tokio::time::timeout(limit, call).await.unwrap_or_else(|_| {
            let text = format!("the database has not answered for {} s", limit.as_secs());
            Err(StoreError::new(StoreErrorKind::Unavailable, text))
        })
    }

    pub(super) fn store_failed(&self, error: &StoreError) {
        if self.outage.began(error) {
            self.tell(&Event::StoreUnavailable { error });
        }
    }

    pub(super) fn store_answered(&self) {
        if self.outage.ended() {
            self.tell(&Event::StoreRecovered);
        }
    }

    pub(super) fn tell(&self, event: &Event<'_>) {
        for observer in &self.settings.observers {
            if catch_unwind(AssertUnwindSafe(|| observer.on_event(event))).is_err() {
                tracing::error!("an observer panicked; it goes on being told");
            }
        }
    }
}

/// From -1 to 1, for jitter.
pub(super) fn random() -> f64 {
    rand::random_range(-1.0..=1.0)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
