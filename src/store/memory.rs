//! A store in memory: for tests, and for mail that may be lost with the process.

mod admin;
mod rows;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use postrider_transport::DeliveryId;
use tokio::sync::Notify;

use rows::Rows;

use crate::admin::UpdateOutcome;
use crate::clock::{Clock, TestClock, from_millis, millis, to_millis};
use crate::operator::Change;
use crate::pause::Controls;
use crate::state::State;
use crate::store::{
    Claim, ClaimId, HEARTBEAT_TTL, Lease, LeaseKey, NewRow, RelayId, RelayReport, Settled, Settlement, Store,
    StoreError, notify,
};

/// A store in memory, with all rules of a database but without durability. Clones share the deliveries.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use postrider::{Email, MemoryStore, Outbox};
///
/// let outbox = Outbox::enqueue_only(MemoryStore::new());
/// let email = Email::builder().from("hello@example.com").to("ada@example.com").text("Welcome!").build()?;
///
/// let mut tx = outbox.store().begin();
/// outbox.enqueue_in(&mut tx, email).await?;
/// drop(tx); // rolled back
/// assert_eq!(outbox.stats().await?.pending, 0);
/// # Ok(()) }
/// ```
#[derive(Clone, Default)]
pub struct MemoryStore {
    rows: Arc<Mutex<Rows>>,
    notifier: Arc<Notify>,
    clock: Clock,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store with a test clock.
    pub fn with_test_clock(clock: TestClock) -> Self {
        Self { clock: Clock::test(clock), ..Self::default() }
    }

    /// Begins a transaction to enqueue in. It rolls back if it is dropped without [`commit`](MemoryTransaction::commit).
    pub fn begin(&self) -> MemoryTransaction {
        MemoryTransaction { store: self.clone(), staged: Vec::new(), cancelled: Vec::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Rows> {
        // A poisoned lock is safe to use: no code that changes the rows panics half-way.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

/// An open transaction of a [`MemoryStore`].
#[must_use = "a transaction that is dropped rolls back"]
pub struct MemoryTransaction {
    store: MemoryStore,
    staged: Vec<NewRow>,
    /// The deliveries to cancel, which are locked or among the staged ones.
    cancelled: Vec<DeliveryId>,
}

impl MemoryTransaction {
    /// Commits the enqueued and the cancelled deliveries all at once, and wakes relays.
    pub fn commit(mut self) {
        let staged = std::mem::take(&mut self.staged);
        let now = self.store.clock.now_millis();
        let mut rows = self.store.lock();
        for row in staged {
            rows.add(row, now);
        }
        for id in std::mem::take(&mut self.cancelled) {
            rows.unlock(id);
            let _ = rows.change(Change::Cancel, None, id, now);
        }
        drop(rows);
        notify(&self.store.notifier);
    }

    fn cancel(&mut self, id: DeliveryId) -> UpdateOutcome {
        if self.cancelled.contains(&id) {
            return UpdateOutcome::Unchanged(State::Cancelled);
        }
        let is_staged = self.staged.iter().any(|row| row.id == id);
        let outcome = if is_staged { UpdateOutcome::Updated } else { self.store.lock().lock_to_cancel(id) };
        if outcome == UpdateOutcome::Updated {
            self.cancelled.push(id);
        }
        outcome
    }

    fn find_key(&self, key: &str) -> Option<DeliveryId> {
        let staged = self.staged.iter().find(|row| row.key.as_deref() == Some(key)).map(|row| row.id);
        staged.or_else(|| self.store.lock().find_key(key))
    }

    /// Drops the enqueued deliveries, and leaves the cancelled ones pending.
    pub fn rollback(self) {
        drop(self);
    }
}

impl Drop for MemoryTransaction {
    fn drop(&mut self) {
        let mut rows = self.store.lock();
        for key in self.staged.iter().filter_map(|row| row.key.as_deref()) {
            rows.release_key(key);
        }
        for id in &self.cancelled {
            rows.unlock(*id);
        }
    }
}

impl fmt::Debug for MemoryTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryTransaction({} staged)", self.staged.len())
    }
}

impl Store for MemoryStore {
    type Connection = MemoryTransaction;

    async fn insert(&self, rows: Vec<NewRow>) -> Result<Vec<DeliveryId>, StoreError> {
        let mut tx = self.begin();
        let ids = self.insert_in(&mut tx, rows).await?;
        tx.commit();
        Ok(ids)
    }

    async fn insert_in(&self, tx: &mut MemoryTransaction, rows: Vec<NewRow>) -> Result<Vec<DeliveryId>, StoreError> {
        let mut inner = self.lock();
        let mut ids = Vec::with_capacity(rows.len());
        for row in rows {
            let staged = row
                .key
                .as_deref()
                .and_then(|key| tx.staged.iter().find(|other| other.key.as_deref() == Some(key)).map(|other| other.id));
            let first = match (staged, row.key.as_deref()) {
                (Some(id), _) => Some(id),
                (None, Some(key)) => inner.reserve_key(key)?,
                (None, None) => None,
            };
            ids.push(first.unwrap_or(row.id));
            if first.is_none() {
                tx.staged.push(row);
            }
        }
        Ok(ids)
    }

    async fn claim(&self, claim: Claim) -> Result<Vec<Lease>, StoreError> {
        let now = self.clock.now_millis();
        let due_by = claim.due_by.map_or(now, |time| to_millis(time).min(now));
        Ok(self.lock().claim(claim, now, due_by))
    }

    async fn release_claims(&self, claims: &[ClaimId]) -> Result<u64, StoreError> {
        let now = self.clock.now_millis();
        Ok(self.lock().release_claims(claims, now))
    }

    async fn settle(&self, settlements: &[Settlement]) -> Result<Vec<Settled>, StoreError> {
        let now = self.clock.now_millis();
        let mut rows = self.lock();
        Ok(settlements.iter().map(|settlement| rows.settle(settlement, now)).collect())
    }

    async fn renew(&self, keys: &[LeaseKey], lease: Duration) -> Result<Vec<Settled>, StoreError> {
        let until = self.clock.now_millis().saturating_add(millis(lease));
        let mut rows = self.lock();
        Ok(keys.iter().map(|key| rows.renew(*key, until)).collect())
    }

    async fn next_due(&self) -> Result<Option<Duration>, StoreError> {
        let now = self.clock.now_millis();
        let due = self.lock().first_due();
        Ok(due.map(|due| Duration::from_millis(u64::try_from(due.saturating_sub(now)).unwrap_or(0))))
    }

    async fn now(&self) -> Result<SystemTime, StoreError> {
        Ok(from_millis(self.clock.now_millis()))
    }

    async fn report(&self, report: &RelayReport) -> Result<(), StoreError> {
        let now = self.clock.now_millis();
        let mut rows = self.lock();
        rows.relays.retain(|_, (seen, _)| *seen >= now.saturating_sub(millis(HEARTBEAT_TTL)));
        rows.relays.insert(report.id, (now, report.clone()));
        Ok(())
    }

    async fn controls(&self) -> Result<Controls, StoreError> {
        Ok(self.lock().controls.clone())
    }

    async fn retire(&self, id: RelayId) -> Result<(), StoreError> {
        self.lock().relays.remove(&id);
        Ok(())
    }

    fn wake(&self) {
        notify(&self.notifier);
    }

    async fn notified(&self) {
        self.notifier.notified().await;
    }
}
