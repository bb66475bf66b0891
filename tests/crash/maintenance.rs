//! Calls of an operator during the faults: deletions and sweeps, one after the other, and resends at the same time. Some calls are dropped.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use postrider::{AdminStore, DeliveryId, Filter, Prune, State, StoreError, StoreErrorKind, UpdateOutcome};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::database::{Database, on_store};
use crate::shop::LATER;

/// How long keys stay taken.
pub(crate) const KEY_AGE: Duration = Duration::from_secs(3_600);

/// The results of the calls.
#[derive(Default)]
pub(crate) struct Work {
    /// How many deliveries a deletion changed or deleted.
    pub(crate) pruned: u64,
    /// How many blobs the sweeps deleted.
    pub(crate) swept: u64,
    /// How many calls got no answer: they were dropped, or a fault ended them.
    pub(crate) unanswered: usize,
    /// How often each delivery was resent.
    pub(crate) resent: HashMap<DeliveryId, usize>,
    /// The deliveries whose resend got no answer, so that it may have happened or not.
    pub(crate) maybe_resent: HashSet<DeliveryId>,
}

pub(crate) struct Maintenance {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Work>,
}

/// A deletion for every finished state, of deliveries that ended longer than `older_than` ago.
pub(crate) fn prune_all(deletion: fn(Duration) -> Prune, older_than: Duration) -> Prune {
    [State::Sent, State::Dead, State::InDoubt, State::Cancelled].into_iter().fold(deletion(older_than), Prune::state)
}

impl Maintenance {
    pub(crate) fn start(database: &Database, random: &mut StdRng) -> Self {
        let stop: Arc<AtomicBool> = Arc::default();
        let (address, stopped, mut random) = (database.address(), Arc::clone(&stop), StdRng::from_rng(random));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let pool = address.connect(5).await;
                on_store!(&pool, pool, store => {
                    let mut one = Caller::new(&store, &stopped, &mut random);
                    let mut two = Caller::new(&store, &stopped, &mut random);
                    let mut sweeper = Caller::new(&store, &stopped, &mut random);
                    let mut operator = Caller::new(&store, &stopped, &mut random);
                    tokio::join!(one.prune(), two.prune(), sweeper.sweep(), operator.resend());
                    let mut work = operator.work;
                    for other in [one.work, two.work, sweeper.work] {
                        work.pruned += other.pruned;
                        work.swept += other.swept;
                        work.unanswered += other.unanswered;
                    }
                    work
                })
            })
        });
        Self { stop, thread }
    }

    pub(crate) fn stop(self) -> Work {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

struct Caller<'a, S> {
    store: S,
    stop: &'a AtomicBool,
    random: StdRng,
    work: Work,
}

impl<'a, S: AdminStore> Caller<'a, S> {
    fn new(store: &S, stop: &'a AtomicBool, random: &mut StdRng) -> Self {
        Self { store: store.clone(), stop, random: StdRng::from_rng(random), work: Work::default() }
    }

    async fn runs(&self) -> bool {
        tokio::time::sleep(Duration::from_millis(3)).await;
        !self.stop.load(Ordering::SeqCst)
    }

    /// Waits for a call, or drops it after a short while. `None` if there is no answer.
    async fn answer<T>(&mut self, call: impl Future<Output = Result<T, StoreError>>) -> Option<T> {
        let limit = if self.random.random_ratio(1, 8) { self.random.random_range(0..4_000) } else { 60_000_000 };
        let answer = match tokio::time::timeout(Duration::from_micros(limit), call).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => Some(error),
            Err(_) => None,
        };
        if let Some(error) = answer {
            // Only a fault of the server or a conflict with another transaction is expected.
            let expected = matches!(error.kind(), StoreErrorKind::Unavailable | StoreErrorKind::Conflict);
            assert!(expected, "{error:?}");
        }
        self.work.unanswered += 1;
        None
    }

    async fn prune(&mut self) {
        while self.runs().await {
            let age = Duration::from_millis(self.random.random_range(0..300));
            let prune = match self.random.random_range(0..3) {
                0 => prune_all(Prune::messages, age),
                1 => prune_all(Prune::history, age),
                _ => prune_all(Prune::deliveries, age).keep_keys(KEY_AGE),
            };
            let store = self.store.clone();
            // `prune_step` does not sweep blobs. `prune` and `sweep_blobs` do.
            let pruned = if self.random.random_ratio(1, 4) {
                self.answer(store.prune(&prune)).await
            } else {
                self.answer(store.prune_step(&prune, None, 1_000)).await.map(|step| step.affected)
            };
            self.work.pruned += pruned.unwrap_or_default();
        }
    }

    async fn sweep(&mut self) {
        while self.runs().await {
            let limit = self.random.random_range(1..=20);
            let store = self.store.clone();
            self.work.swept += self.answer(store.sweep_blobs(limit)).await.unwrap_or_default();
        }
    }

    async fn resend(&mut self) {
        while self.runs().await {
            let (store, sent) = (self.store.clone(), Filter::new().state(State::Sent).newest_first().limit(5));
            let Some(sent) = self.answer(store.list(&sent)).await else { continue };
            if sent.is_empty() {
                continue;
            }
            let scheduled = Filter::new().state(State::Pending).recipient(LATER).limit(20);
            for delivery in self.answer(store.list(&scheduled)).await.unwrap_or_default() {
                // An earlier call without an answer may have cancelled it.
                let _ = self.answer(store.cancel(delivery.id)).await;
            }
            let id = sent[self.random.random_range(0..sent.len())].id;
            match self.answer(store.resend(id)).await {
                Some(UpdateOutcome::Updated) => *self.work.resent.entry(id).or_default() += 1,
                Some(_) => {}
                None => drop(self.work.maybe_resent.insert(id)),
            }
            tokio::time::sleep(Duration::from_millis(self.random.random_range(0..60))).await;
        }
    }
}
