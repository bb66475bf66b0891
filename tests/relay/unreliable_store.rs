//! A store that fails on demand.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use postrider::store::{
    AuditContext, Claim, ClaimId, Lease, LeaseKey, MemoryTransaction, NewRow, RelayId, RelayReport, Settled,
    Settlement, TestClock,
};
use postrider::transport::{Encoded, Recipient};
use postrider::{
    Action, AdminStore, AuditEntry, AuditFilter, Change, Controls, Delivery, DeliveryId, DeliverySummary, Filter,
    HourlyCount, MemoryStore, PauseTarget, Prune, PruneStep, State, Stats, Store, StoreError, StoreErrorKind,
    UpdateOutcome,
};

/// The store in memory, with failures, hangs and delays that a test sets.
#[derive(Clone, Default)]
pub(crate) struct UnreliableStore {
    store: MemoryStore,
    /// Whether each call fails as unavailable.
    down: Arc<AtomicBool>,
    /// How many of the next calls never return, as on a connection that the network drops.
    hanging: Arc<AtomicUsize>,
    /// How many of the next calls fail with a conflict.
    conflicts: Arc<AtomicUsize>,
    /// Whether each call of `prune_step` is refused.
    refuses_deletion: Arc<AtomicBool>,
    /// How many calls have failed.
    failures: Arc<AtomicUsize>,
    /// How many calls of `settle` were made.
    settle_calls: Arc<AtomicUsize>,
    /// How long `settle` takes.
    settle_time: Duration,
    /// How long the next calls of `claim` and of `renew` wait before they reach the store.
    waits: Arc<Mutex<(Duration, Duration)>>,
}

impl UnreliableStore {
    /// A store whose clock is that of the runtime, for tests on paused time.
    pub(crate) fn on_runtime_time() -> Self {
        Self { store: MemoryStore::with_test_clock(TestClock::following_tokio()), ..Self::default() }
    }

    /// The inner store, which always works.
    pub(crate) fn inner(&self) -> MemoryStore {
        self.store.clone()
    }

    /// Makes the next `calls` calls hang.
    pub(crate) fn hang(&self, calls: usize) {
        self.hanging.store(calls, Ordering::SeqCst);
    }

    /// Makes the next `calls` calls fail with a conflict.
    pub(crate) fn conflict(&self, calls: usize) {
        self.conflicts.store(calls, Ordering::SeqCst);
    }

    /// Makes the next calls of `claim` and of `renew` wait before they reach the store, as for a connection of a pool.
    pub(crate) fn delay(&self, claim: Duration, renew: Duration) {
        *self.waits.lock().unwrap() = (claim, renew);
    }

    pub(crate) fn take_down(&self) {
        self.down.store(true, Ordering::SeqCst);
    }

    pub(crate) fn bring_up(&self) {
        self.down.store(false, Ordering::SeqCst);
    }

    /// Sets whether deletions are refused, as for a user without the right to delete.
    pub(crate) fn refuse_deletion(&self, refuse: bool) {
        self.refuses_deletion.store(refuse, Ordering::SeqCst);
    }

    pub(crate) fn failures(&self) -> usize {
        self.failures.load(Ordering::SeqCst)
    }

    /// The same store with a slow `settle`.
    pub(crate) fn with_settle_time(self, settle_time: Duration) -> Self {
        Self { settle_time, ..self }
    }

    pub(crate) fn settle_calls(&self) -> usize {
        self.settle_calls.load(Ordering::SeqCst)
    }

    async fn check(&self) -> Result<(), StoreError> {
        let one_less = |left: usize| left.checked_sub(1);
        if self.hanging.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
            std::future::pending::<()>().await;
        }
        if self.conflicts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
            self.failures.fetch_add(1, Ordering::SeqCst);
            return Err(StoreError::new(StoreErrorKind::Conflict, "deadlock detected"));
        }
        if self.down.load(Ordering::SeqCst) {
            self.failures.fetch_add(1, Ordering::SeqCst);
            return Err(StoreError::new(StoreErrorKind::Unavailable, "connection refused"));
        }
        Ok(())
    }
}

impl Store for UnreliableStore {
    type Connection = MemoryTransaction;

    async fn insert(&self, rows: Vec<NewRow>) -> Result<Vec<DeliveryId>, StoreError> {
        self.check().await?;
        self.store.insert(rows).await
    }
    async fn insert_in(&self, tx: &mut MemoryTransaction, rows: Vec<NewRow>) -> Result<Vec<DeliveryId>, StoreError> {
        self.check().await?;
        self.store.insert_in(tx, rows).await
    }
    async fn claim(&self, claim: Claim) -> Result<Vec<Lease>, StoreError> {
        self.check().await?;
        let wait = std::mem::take(&mut self.waits.lock().unwrap().0);
        tokio::time::sleep(wait).await;
        self.store.claim(claim).await
    }
    async fn release_claims(&self, claims: &[ClaimId]) -> Result<u64, StoreError> {
        self.check().await?;
        self.store.release_claims(claims).await
    }
    async fn settle(&self, settlements: &[Settlement]) -> Result<Vec<Settled>, StoreError> {
        self.check().await?;
        self.settle_calls.fetch_add(1, Ordering::SeqCst);
        if !self.settle_time.is_zero() {
            tokio::time::sleep(self.settle_time).await;
        }
        self.store.settle(settlements).await
    }
    async fn renew(&self, keys: &[LeaseKey], lease: Duration) -> Result<Vec<Settled>, StoreError> {
        self.check().await?;
        let wait = std::mem::take(&mut self.waits.lock().unwrap().1);
        tokio::time::sleep(wait).await;
        self.store.renew(keys, lease).await
    }
    async fn next_due(&self) -> Result<Option<Duration>, StoreError> {
        self.check().await?;
        self.store.next_due().await
    }
    async fn now(&self) -> Result<SystemTime, StoreError> {
        self.check().await?;
        self.store.now().await
    }
    async fn report(&self, report: &RelayReport) -> Result<(), StoreError> {
        self.check().await?;
        self.store.report(report).await
    }
    async fn controls(&self) -> Result<Controls, StoreError> {
        self.check().await?;
        self.store.controls().await
    }
    async fn retire(&self, id: RelayId) -> Result<(), StoreError> {
        self.check().await?;
        self.store.retire(id).await
    }
    fn wake(&self) {
        self.store.wake();
    }
    async fn notified(&self) {
        self.store.notified().await;
    }
}

impl AdminStore for UnreliableStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        self.store.migrate().await
    }
    async fn get(&self, id: DeliveryId) -> Result<Option<Delivery>, StoreError> {
        self.store.get(id).await
    }
    async fn message(&self, id: DeliveryId) -> Result<Option<Encoded>, StoreError> {
        self.store.message(id).await
    }
    async fn list(&self, filter: &Filter) -> Result<Vec<DeliverySummary>, StoreError> {
        self.store.list(filter).await
    }
    async fn count(&self, filter: &Filter) -> Result<u64, StoreError> {
        self.store.count(filter).await
    }
    async fn change(
        &self,
        change: Change,
        from: Option<State>,
        ids: &[DeliveryId],
        act: Option<&AuditContext>,
    ) -> Result<Vec<UpdateOutcome>, StoreError> {
        self.store.change(change, from, ids, act).await
    }
    async fn cancel_in(&self, tx: &mut MemoryTransaction, id: DeliveryId) -> Result<UpdateOutcome, StoreError> {
        self.store.cancel_in(tx, id).await
    }
    async fn find_key_in(&self, tx: &mut MemoryTransaction, key: &str) -> Result<Option<DeliveryId>, StoreError> {
        self.store.find_key_in(tx, key).await
    }
    async fn set_pause(&self, target: &PauseTarget, paused: bool, act: &AuditContext) -> Result<bool, StoreError> {
        self.store.set_pause(target, paused, act).await
    }
    async fn request_probe(&self, act: &AuditContext) -> Result<(), StoreError> {
        self.store.request_probe(act).await
    }
    async fn record(&self, action: Action, act: &AuditContext) -> Result<(), StoreError> {
        self.store.record(action, act).await
    }
    async fn audit(&self, filter: &AuditFilter) -> Result<Vec<AuditEntry>, StoreError> {
        self.store.audit(filter).await
    }
    async fn stats(&self) -> Result<Stats, StoreError> {
        self.store.stats().await
    }
    async fn hourly(&self, since: SystemTime) -> Result<Vec<HourlyCount>, StoreError> {
        self.store.hourly(since).await
    }
    async fn prune_step(&self, prune: &Prune, after: Option<DeliveryId>, limit: u32) -> Result<PruneStep, StoreError> {
        self.check().await?;
        if self.refuses_deletion.load(Ordering::SeqCst) {
            return Err(StoreError::new(StoreErrorKind::Rejected, "DELETE command denied"));
        }
        self.store.prune_step(prune, after, limit).await
    }
    async fn sweep_blobs(&self, limit: u32) -> Result<u64, StoreError> {
        self.check().await?;
        self.store.sweep_blobs(limit).await
    }
    async fn erase(&self, id: DeliveryId, recipient: &Recipient) -> Result<UpdateOutcome, StoreError> {
        self.store.erase(id, recipient).await
    }
    async fn lead(&self, task: &str, relay: RelayId, term: Duration) -> Result<bool, StoreError> {
        self.check().await?;
        self.store.lead(task, relay, term).await
    }
}
