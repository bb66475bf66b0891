//! A long random walk, taken by the store and by the store in memory side by side.

use std::time::Duration;

use postrider_transport::DeliveryId;

use super::{LEASE, SECOND, StoreUnderTest, row_for, settlement, through};
use crate::state::{Outcome, Priority, RecipientState};
use crate::store::{Claim, Lease, LeaseKey, NewRow, Next, Settlement, TestClock, When};
use crate::{AdminStore, Filter, MemoryStore, State, Store};

/// A small generator (splitmix64), so that a failing walk can be walked again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let index = self.roll(u64::try_from(from.len().max(1)).unwrap_or(1));
        from.get(usize::try_from(index).unwrap_or(0))
    }
}

/// Along several hundred random steps, the store under test and the store in memory show the same.
pub async fn it_does_what_the_memory_store_does<F: StoreUnderTest>(fixture: &F) {
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
        dice: Dice(seed),
        ids: Vec::new(),
        leases: Vec::new(),
    };
    for step in 0..250 {
        let what = walk.step().await;
        if step % 5 > 0 {
            continue;
        }
        if let Some(difference) = walk.difference().await {
            panic!("seed {seed}, up to step {step} ({what}): {difference}");
        }
    }
}

struct Walk<S> {
    store: S,
    model: MemoryStore,
    clock: TestClock,
    dice: Dice,
    ids: Vec<DeliveryId>,
    /// Every lease ever handed out: most of them are stale.
    leases: Vec<Lease>,
}

/// What both stores said, which must be the same.
fn same<T: std::fmt::Debug>(one: Result<T, crate::StoreError>, other: Result<T, crate::StoreError>) -> T {
    let (one, other) = (one.expect("the store works"), other.expect("the model works"));
    assert_eq!(format!("{one:?}"), format!("{other:?}"), "the stores gave different answers");
    one
}

impl<S: AdminStore> Walk<S> {
    async fn step(&mut self) -> &'static str {
        match self.dice.roll(10) {
            0..=2 => {
                let row = self.row();
                let ids = same(self.store.insert(vec![row.clone()]).await, self.model.insert(vec![row]).await);
                self.ids.extend(ids);
                "insert"
            }
            3..=4 => {
                // Everything that is due: which of several equals a smaller claim takes is the store's own affair.
                let claim = Claim::new(1_000, LEASE);
                let (mut one, mut other) = (
                    self.store.claim(claim).await.expect("claiming works"),
                    self.model.claim(claim).await.expect("claiming works"),
                );
                one.sort_by_key(|lease| lease.key.id);
                other.sort_by_key(|lease| lease.key.id);
                assert_eq!(format!("{one:?}"), format!("{other:?}"), "different leases");
                self.leases.extend(one);
                "claim"
            }
            5..=6 => {
                if let Some(settlement) = self.settlement() {
                    same(
                        self.store.settle(std::slice::from_ref(&settlement)).await,
                        self.model.settle(&[settlement]).await,
                    );
                }
                "settle"
            }
            7 => {
                let keys: Vec<LeaseKey> = self.leases.iter().rev().take(3).map(|lease| lease.key).collect();
                same(self.store.renew(&keys, LEASE).await, self.model.renew(&keys, LEASE).await);
                "renew"
            }
            8 => {
                if let Some(id) = self.dice.pick(&self.ids).copied() {
                    if self.dice.roll(2) == 0 {
                        let _ = same(self.store.resend(id).await, self.model.resend(id).await);
                    } else {
                        let _ = same(self.store.cancel(id).await, self.model.cancel(id).await);
                    }
                }
                "resend or cancel"
            }
            _ => {
                self.clock.advance(Duration::from_secs(self.dice.roll(90)));
                "wait"
            }
        }
    }

    fn row(&mut self) -> NewRow {
        let recipients = ["a@example.com", "b@example.com", "c@example.com"];
        let many = usize::try_from(self.dice.roll(3)).unwrap_or(0) + 1;
        let key = self.dice.roll(12);
        NewRow {
            priority: u8::try_from(self.dice.roll(10)).ok().and_then(Priority::new).unwrap_or_default(),
            due: (self.dice.roll(3) == 0).then(|| When::After(Duration::from_secs(self.dice.roll(200)))),
            expires: (self.dice.roll(3) == 0).then(|| When::After(Duration::from_secs(self.dice.roll(400)))),
            key: (key < 6).then(|| format!("key-{key}")),
            ..row_for(&recipients[..many])
        }
    }

    fn settlement(&mut self) -> Option<Settlement> {
        let lease = self.dice.pick(&self.leases)?.clone();
        let (outcome, next) = match self.dice.roll(5) {
            0 => (Outcome::Sent, Next::Sent),
            1 => (Outcome::Permanent, Next::Dead { reason: "permanent: no".to_owned() }),
            2 => (Outcome::InDoubt, Next::InDoubt { reason: "in doubt: no answer".to_owned() }),
            _ => (Outcome::Transient, Next::Pending { after: SECOND * u32::try_from(self.dice.roll(60)).unwrap_or(0) }),
        };
        let mut settlement = settlement(&lease, outcome, next);
        settlement.charged_attempts =
            [0, lease.charged_attempts, lease.charged_attempts + 1, lease.charged_attempts + 1]
                [usize::try_from(self.dice.roll(4)).unwrap_or(0)];
        if self.dice.roll(4) == 0 && !lease.recipients.is_empty() {
            let state = if self.dice.roll(2) == 0 { RecipientState::Sent } else { RecipientState::Refused };
            settlement.recipients = vec![through(lease.recipients[0].as_str(), state)];
        }
        if self.dice.roll(5) == 0 && lease.attempts > 0 {
            (settlement.attempt, settlement.charged_attempts) = (None, lease.charged_attempts);
        }
        Some(settlement)
    }

    /// The first difference between what the two show.
    async fn difference(&self) -> Option<String> {
        for id in &self.ids {
            let one = format!("{:?}", self.store.get(*id).await.expect("getting works"));
            let other = format!("{:?}", self.model.get(*id).await.expect("getting works"));
            if one != other {
                return Some(format!("the store shows {one}, and the model {other}"));
            }
        }
        for state in State::ALL {
            let filter = Filter::new().state(state).limit(10_000);
            let one = format!("{:?}", self.store.list(&filter).await.expect("listing works"));
            let other = format!("{:?}", self.model.list(&filter).await.expect("listing works"));
            if one != other {
                return Some(format!("the store lists {one}, and the model {other}"));
            }
        }
        let one = format!("{:?}", self.store.stats().await.expect("counting works"));
        let other = format!("{:?}", self.model.stats().await.expect("counting works"));
        (one != other).then(|| format!("the store counts {one}, and the model {other}"))
    }
}
