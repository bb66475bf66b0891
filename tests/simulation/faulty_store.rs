//! The store in memory, with the faults of the plan.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use postrider::store::{
    Claim, ClaimId, Lease, LeaseKey, MemoryTransaction, NewRow, RelayId, RelayReport, Settled, Settlement,
};
use postrider::{Controls, DeliveryId, MemoryStore, Store, StoreError, StoreErrorKind};

use crate::next_hop::World;
use crate::plan::FaultKind;
use crate::random::Random;

#[derive(Clone)]
pub(crate) struct FaultyStore {
    pub(crate) store: MemoryStore,
    pub(crate) world: Arc<World>,
    pub(crate) relay: usize,
    pub(crate) calls: Arc<AtomicU64>,
}

fn down() -> StoreError {
    StoreError::new(StoreErrorKind::Unavailable, "the store is down")
}

impl FaultyStore {
    async fn through<R: Send + 'static>(
        &self,
        call: impl Future<Output = Result<R, StoreError>> + Send + 'static,
    ) -> Result<R, StoreError> {
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        let now = self.world.now();
        let mut random = Random::new(self.world.plan.seed ^ number << 24 ^ (self.relay as u64) << 56);
        let concerns = |relay: Option<usize>| relay.is_none_or(|relay| relay == self.relay);
        let mut faults = self.world.plan.faults.iter();
        let fault = faults.find(|fault| concerns(fault.relay) && fault.from <= now && now < fault.until);
        let Some(fault) = fault else {
            // A call of a database takes time.
            tokio::time::sleep(random.millis(0, 3)).await;
            return call.await;
        };
        match fault.kind {
            FaultKind::Down => Err(down()),
            FaultKind::Flaky(chance) if random.percent(chance) => {
                let kind = random.one_of(&[StoreErrorKind::Unavailable, StoreErrorKind::Conflict]);
                Err(StoreError::new(kind, "flaky"))
            }
            FaultKind::AnswerLost(chance) if random.percent(chance) => {
                call.await?;
                Err(down())
            }
            FaultKind::Late(late) => {
                tokio::time::sleep(late).await;
                call.await
            }
            FaultKind::LateEvenIfDropped(late) => {
                let late = async move {
                    tokio::time::sleep(late).await;
                    call.await
                };
                tokio::spawn(late).await.unwrap()
            }
            FaultKind::Silent => {
                tokio::time::sleep(fault.until - now).await;
                Err(down())
            }
            FaultKind::Flaky(_) | FaultKind::AnswerLost(_) => call.await,
        }
    }
}

impl Store for FaultyStore {
    type Connection = MemoryTransaction;

    async fn insert(&self, rows: Vec<NewRow>) -> Result<Vec<DeliveryId>, StoreError> {
        self.store.insert(rows).await
    }
    async fn insert_in(&self, tx: &mut MemoryTransaction, rows: Vec<NewRow>) -> Result<Vec<DeliveryId>, StoreError> {
        self.store.insert_in(tx, rows).await
    }
    async fn claim(&self, claim: Claim) -> Result<Vec<Lease>, StoreError> {
        let store = self.store.clone();
        self.through(async move { store.claim(claim).await }).await
    }
    async fn release_claims(&self, claims: &[ClaimId]) -> Result<u64, StoreError> {
        let (store, claims) = (self.store.clone(), claims.to_vec());
        self.through(async move { store.release_claims(&claims).await }).await
    }
    async fn settle(&self, settlements: &[Settlement]) -> Result<Vec<Settled>, StoreError> {
        let (store, settlements) = (self.store.clone(), settlements.to_vec());
        self.through(async move { store.settle(&settlements).await }).await
    }
    async fn renew(&self, keys: &[LeaseKey], lease: Duration) -> Result<Vec<Settled>, StoreError> {
        let (store, keys) = (self.store.clone(), keys.to_vec());
        self.through(async move { store.renew(&keys, lease).await }).await
    }
    async fn next_due(&self) -> Result<Option<Duration>, StoreError> {
        let store = self.store.clone();
        self.through(async move { store.next_due().await }).await
    }
    async fn now(&self) -> Result<SystemTime, StoreError> {
        let store = self.store.clone();
        self.through(async move { store.now().await }).await
    }
    async fn report(&self, report: &RelayReport) -> Result<(), StoreError> {
        self.store.report(report).await
    }
    async fn controls(&self) -> Result<Controls, StoreError> {
        self.store.controls().await
    }
    async fn retire(&self, id: RelayId) -> Result<(), StoreError> {
        self.store.retire(id).await
    }
    fn wake(&self) {
        self.store.wake();
    }
    async fn notified(&self) {
        self.store.notified().await;
    }
}
