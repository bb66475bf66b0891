//! Random steps on the store under test and on the store in memory, which must behave the same.

use std::collections::BTreeSet;
use std::time::Duration;

use postrider_transport::DeliveryId;

use super::{LEASE, SECOND, StoreUnderTest, recipient_outcome, row_for, settlement, traceparent};
use crate::state::{Outcome, Priority, RecipientState};
use crate::store::{AuditContext, Claim, Lease, LeaseKey, NewRow, Next, Settlement, TestClock, When};
use crate::{AdminStore, AuditFilter, Change, Filter, MemoryStore, State, Store};

/// A seeded random generator (splitmix64), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let index = self.below(u64::try_from(from.len().max(1)).unwrap_or(1));
        from.get(usize::try_from(index).unwrap_or(0))
    }
}

/// In several hundred random steps, the store under test and the store in memory return the same. After every fifth step, they also hold
/// the same.
pub async fn it_behaves_like_the_memory_store<F: StoreUnderTest>(fixture: &F) {
    for seed in 1..=3 {
        walk(fixture, seed).await;
    }
}

async fn walk<F: StoreUnderTest>(fixture: &F, seed: u64) {
    let clock = TestClock::new();
    let mut walk = Walk {
        store: fixture.fresh(clock.clone()).await,
        model: MemoryStore::with_test_clock(clock.clone()),
        clock,
        random: Random(seed),
        ids: Vec::new(),
        leases: Vec::new(),
    };
    for step in 0..250 {
        let action = walk.step().await;
        if step % 5 > 0 {
            continue;
        }
        if let Some(difference) = walk.difference().await {
            panic!("seed {seed}, step {step} ({action}): {difference}");
        }
    }
}

struct Walk<S> {
    store: S,
    model: MemoryStore,
    clock: TestClock,
    random: Random,
    ids: Vec<DeliveryId>,
    /// All leases so far, most of them stale.
    leases: Vec<Lease>,
}

/// Asserts that both stores returned the same, and returns it.
fn assert_same<T: std::fmt::Debug>(actual: Result<T, crate::StoreError>, expected: Result<T, crate::StoreError>) -> T {
    let (actual, expected) = (actual.expect("the store works"), expected.expect("the model works"));
    assert_eq!(format!("{actual:?}"), format!("{expected:?}"), "the stores differ");
    actual
}

impl<S: AdminStore> Walk<S> {
    async fn step(&mut self) -> &'static str {
        match self.random.below(10) {
            0..=2 => {
                let row = self.row();
                let ids = assert_same(self.store.insert(vec![row.clone()]).await, self.model.insert(vec![row]).await);
                self.ids.extend(ids);
                "insert"
            }
            3..=4 => {
                // Claims all due deliveries, since stores may choose differently among equal ones.
                let claim = Claim::new(1_000, LEASE);
                let (mut actual, mut expected) = (
                    self.store.claim(claim).await.expect("claiming works"),
                    self.model.claim(claim).await.expect("claiming works"),
                );
                actual.sort_by_key(|lease| lease.key.id);
                expected.sort_by_key(|lease| lease.key.id);
                assert_eq!(format!("{actual:?}"), format!("{expected:?}"), "different leases");
                self.leases.extend(actual);
                "claim"
            }
            5..=6 => {
                if let Some(settlement) = self.settlement() {
                    assert_same(
                        self.store.settle(std::slice::from_ref(&settlement)).await,
                        self.model.settle(&[settlement]).await,
                    );
                }
                "settle"
            }
            7 => {
                let keys: Vec<LeaseKey> = self.leases.iter().rev().take(3).map(|lease| lease.key).collect();
                assert_same(self.store.renew(&keys, LEASE).await, self.model.renew(&keys, LEASE).await);
                "renew"
            }
            8 => {
                let changes = [Change::Resend, Change::Cancel, Change::Dismiss];
                let change = self.random.pick(&changes).copied().unwrap_or(Change::Resend);
                let ids: Vec<DeliveryId> =
                    (0..=self.random.below(3)).filter_map(|_| self.random.pick(&self.ids).copied()).collect();
                // A delivery is changed once in a call.
                let ids: Vec<DeliveryId> = ids.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
                let context = AuditContext::by("ada");
                assert_same(
                    self.store.change(change, None, &ids, Some(&context)).await,
                    self.model.change(change, None, &ids, Some(&context)).await,
                );
                "change"
            }
            _ => {
                self.clock.advance(Duration::from_secs(self.random.below(90)));
                "wait"
            }
        }
    }

    fn row(&mut self) -> NewRow {
        let recipients = ["a@example.com", "b@example.com", "c@example.com"];
        let many = usize::try_from(self.random.below(3)).unwrap_or(0) + 1;
        let key = self.random.below(12);
        NewRow {
            priority: u8::try_from(self.random.below(10)).ok().and_then(Priority::new).unwrap_or_default(),
            due: (self.random.below(3) == 0).then(|| When::After(Duration::from_secs(self.random.below(200)))),
            expires: (self.random.below(3) == 0).then(|| When::After(Duration::from_secs(self.random.below(400)))),
            key: (key < 6).then(|| format!("key-{key}")),
            traceparent: traceparent().filter(|_| key.is_multiple_of(2)),
            ..row_for(&recipients[..many])
        }
    }

    fn settlement(&mut self) -> Option<Settlement> {
        let lease = self.random.pick(&self.leases)?.clone();
        let (outcome, next) = match self.random.below(5) {
            0 => (Outcome::Sent, Next::Sent),
            1 => (Outcome::Permanent, Next::Dead { reason: "permanent: no".to_owned() }),
            2 => (Outcome::InDoubt, Next::InDoubt { reason: "in doubt: no answer".to_owned() }),
            _ => (
                Outcome::Transient,
                Next::Pending { after: SECOND * u32::try_from(self.random.below(60)).unwrap_or(0) },
            ),
        };
        let mut settlement = settlement(&lease, outcome, next);
        settlement.charged_attempts =
            [0, lease.charged_attempts, lease.charged_attempts + 1, lease.charged_attempts + 1]
                [usize::try_from(self.random.below(4)).unwrap_or(0)];
        if self.random.below(4) == 0 && !lease.recipients.is_empty() {
            let state = if self.random.below(2) == 0 { RecipientState::Sent } else { RecipientState::Refused };
            settlement.recipients = vec![recipient_outcome(lease.recipients[0].as_str(), state)];
        }
        if self.random.below(5) == 0 && lease.attempts > 0 {
            (settlement.attempt, settlement.charged_attempts) = (None, lease.charged_attempts);
        }
        Some(settlement)
    }

    /// Returns the first difference between the two stores.
    async fn difference(&self) -> Option<String> {
        for id in &self.ids {
            let actual = format!("{:?}", self.store.get(*id).await.expect("getting works"));
            let expected = format!("{:?}", self.model.get(*id).await.expect("getting works"));
            if actual != expected {
                return Some(format!("the store shows {actual}, and the model {expected}"));
            }
        }
        for state in State::ALL {
            let filter = Filter::new().state(state).limit(10_000);
            let actual = format!("{:?}", self.store.list(&filter).await.expect("listing works"));
            let expected = format!("{:?}", self.model.list(&filter).await.expect("listing works"));
            if actual != expected {
                return Some(format!("the store lists {actual}, and the model {expected}"));
            }
        }
        let changed = |entries: Vec<crate::AuditEntry>| {
            let mut changed: Vec<_> =
                entries.into_iter().map(|entry| (entry.at, entry.delivery, entry.action.as_str())).collect();
            changed.sort();
            format!("{changed:?}")
        };
        let all = AuditFilter::new().limit(10_000);
        let actual = changed(self.store.audit(&all).await.expect("reading works"));
        let expected = changed(self.model.audit(&all).await.expect("reading works"));
        if actual != expected {
            return Some(format!("the store recorded {actual}, and the model {expected}"));
        }
        let actual = format!("{:?}", self.store.stats().await.expect("counting works"));
        let expected = format!("{:?}", self.model.stats().await.expect("counting works"));
        (actual != expected).then(|| format!("the store counts {actual}, and the model {expected}"))
    }
}
