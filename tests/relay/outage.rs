//! A database that does not answer for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use postrider::store::{
    Claim, ClaimId, Lease, LeaseKey, MemoryTransaction, NewRow, RelayId, RelayReport, Settled, Settlement,
};
use postrider::testkit::ScriptedTransport;
use postrider::transport::Receipt;
use postrider::{DeliveryId, Email, MemoryStore, Outbox, Store, StoreError, StoreErrorKind};
use tokio_util::sync::CancellationToken;

use crate::support::{Diary, ada, until};

/// The store in memory behind a line that can be cut.
#[derive(Clone, Default)]
pub(crate) struct Unreliable {
    store: MemoryStore,
    down: Arc<AtomicBool>,
    /// Calls that are never answered, as on a connection that is gone without a word.
    silent: Arc<AtomicUsize>,
    /// So many calls meet a conflict.
    conflicts: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
    settled: Arc<AtomicUsize>,
    takes: Duration,
}

impl Unreliable {
    pub(crate) fn cut(&self) {
        self.down.store(true, Ordering::SeqCst);
    }

    pub(crate) fn mend(&self) {
        self.down.store(false, Ordering::SeqCst);
    }

    /// How many calls found the line cut.
    pub(crate) fn refusals(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }

    /// As one that takes so long to write results.
    pub(crate) fn taking(self, takes: Duration) -> Self {
        Self { takes, ..self }
    }

    /// How many batches of results were written.
    pub(crate) fn batches(&self) -> usize {
        self.settled.load(Ordering::SeqCst)
    }

    async fn up(&self) -> Result<(), StoreError> {
        let one_less = |left: usize| left.checked_sub(1);
        if self.silent.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
            std::future::pending::<()>().await;
        }
        if self.conflicts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(StoreError::new(StoreErrorKind::Conflict, "deadlock detected"));
        }
        if self.down.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(StoreError::new(StoreErrorKind::Unavailable, "connection refused"));
        }
        Ok(())
    }
}

impl Store for Unreliable {
    type Connection = MemoryTransaction;

    async fn insert(&self, rows: Vec<NewRow>) -> Result<Vec<DeliveryId>, StoreError> {
        self.up().await?;
        self.store.insert(rows).await
    }
    async fn insert_in(&self, tx: &mut MemoryTransaction, rows: Vec<NewRow>) -> Result<Vec<DeliveryId>, StoreError> {
        self.up().await?;
        self.store.insert_in(tx, rows).await
    }
    async fn claim(&self, claim: Claim) -> Result<Vec<Lease>, StoreError> {
        self.up().await?;
        self.store.claim(claim).await
    }
    async fn take_back(&self, claims: &[ClaimId]) -> Result<u64, StoreError> {
        self.up().await?;
        self.store.take_back(claims).await
    }
    async fn settle(&self, settlements: &[Settlement]) -> Result<Vec<Settled>, StoreError> {
        self.up().await?;
        self.settled.fetch_add(1, Ordering::SeqCst);
        if !self.takes.is_zero() {
            tokio::time::sleep(self.takes).await;
        }
        self.store.settle(settlements).await
    }
    async fn renew(&self, keys: &[LeaseKey], lease: Duration) -> Result<Vec<Settled>, StoreError> {
        self.up().await?;
        self.store.renew(keys, lease).await
    }
    async fn next_due(&self) -> Result<Option<Duration>, StoreError> {
        self.up().await?;
        self.store.next_due().await
    }
    async fn now(&self) -> Result<SystemTime, StoreError> {
        self.up().await?;
        self.store.now().await
    }
    async fn report(&self, report: &RelayReport) -> Result<(), StoreError> {
        self.up().await?;
        self.store.report(report).await
    }
    async fn retire(&self, id: RelayId) -> Result<(), StoreError> {
        self.up().await?;
        self.store.retire(id).await
    }
    fn wake(&self) {
        self.store.wake();
    }
    async fn notified(&self) {
        self.store.notified().await;
    }
}

#[tokio::test]
async fn an_outage_is_told_of_once_and_work_resumes_by_itself() {
    let store = Unreliable::default();
    let transport = ScriptedTransport::<Email>::new();
    let outbox = Outbox::new(store.clone(), transport.clone());
    let diary = Diary::default();
    let shutdown = CancellationToken::new();
    let relay = outbox.relay().poll(Duration::from_millis(5)).observer(diary.clone());
    let worker = tokio::spawn(relay.run(shutdown.clone().cancelled_owned()));
    for outage in 1..=2 {
        outbox.enqueue(ada()).await.unwrap();
        until("it is sent", || async { transport.calls().len() == outage }).await;
        let before = store.refused.load(Ordering::SeqCst);
        store.down.store(true, Ordering::SeqCst);
        until("it asks in vain", || async { store.refused.load(Ordering::SeqCst) >= before + 4 }).await;
        store.down.store(false, Ordering::SeqCst);
        until("it recovers", || async { diary.count("store recovered") == outage }).await;
    }
    shutdown.cancel();
    worker.await.unwrap().unwrap();
    assert_eq!((diary.count("store unavailable"), diary.count("store recovered")), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_database_that_says_nothing_is_given_up_and_asked_again() {
    let store = Unreliable::default();
    let silent = Arc::clone(&store.silent);
    let transport = ScriptedTransport::<Email>::new().answering(move |_| {
        // The next calls, among them those that settle and claim, go on connections that are gone.
        silent.store(4, Ordering::SeqCst);
        async { Ok(Receipt::new()) }
    });
    let outbox = Outbox::new(store.clone(), transport.clone());
    outbox.enqueue(ada()).await.unwrap();
    let diary = Diary::default();
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn(outbox.relay().observer(diary.clone()).run(shutdown.clone().cancelled_owned()));
    tokio::time::sleep(Duration::from_secs(100)).await;
    let counted = Outbox::enqueue_only(store.store.clone());
    until("it is settled", || async { counted.stats().await.unwrap().sent == 1 }).await;
    shutdown.cancel();
    worker.await.unwrap().unwrap();
    assert_eq!((transport.calls().len(), diary.count("lease lost")), (1, 0));
    let told = diary.count("store unavailable");
    assert!(told >= 1 && diary.count("store recovered") == told, "{:?}", diary.lines());
}

#[tokio::test]
async fn results_wait_for_the_database_and_are_not_lost() {
    let store = Unreliable::default();
    let cut = Arc::clone(&store.down);
    let transport = ScriptedTransport::<Email>::new().answering(move |_| {
        // The mail is accepted, and at this moment the database goes away.
        cut.store(true, Ordering::SeqCst);
        async { Ok(Receipt::new()) }
    });
    let outbox = Outbox::new(store.clone(), transport.clone());
    outbox.enqueue_all((0..8).map(|_| ada())).await.unwrap();
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn(outbox.relay().concurrency(8).run(shutdown.clone().cancelled_owned()));
    until("settling fails", || async { store.refused.load(Ordering::SeqCst) >= 3 }).await;
    store.down.store(false, Ordering::SeqCst);
    let counted = Outbox::enqueue_only(store.store.clone());
    until("all are settled", || async { counted.stats().await.unwrap().sent == 8 }).await;
    shutdown.cancel();
    assert_eq!(worker.await.unwrap().unwrap().sent, 8);
    assert_eq!(transport.calls().len(), 8, "a message was sent twice");
}

#[tokio::test]
async fn a_pass_without_a_database_is_an_error() {
    let store = Unreliable::default();
    let outbox = Outbox::new(store.clone(), ScriptedTransport::<Email>::new());
    outbox.enqueue(ada()).await.unwrap();
    store.down.store(true, Ordering::SeqCst);
    let error = outbox.relay().drain().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert_eq!(
        outbox.enqueue(ada()).await.unwrap_err().to_string(),
        "the outbox did not take the message: connection refused"
    );
}

/// What the database answers to a call from before the outage says nothing about now.
#[tokio::test(start_paused = true)]
async fn a_late_answer_ends_no_outage() {
    let store = Unreliable::default().taking(Duration::from_millis(300));
    let outbox = Outbox::new(store.clone(), ScriptedTransport::<Email>::new());
    outbox.enqueue(ada()).await.unwrap();
    let (diary, shutdown) = (Diary::default(), CancellationToken::new());
    let relay = outbox.relay().poll(Duration::from_millis(5)).observer(diary.clone());
    let worker = tokio::spawn(relay.run(shutdown.clone().cancelled_owned()));
    until("the result is being written", || async { store.batches() == 1 }).await;
    store.cut();
    until("it tells", || async { diary.count("store unavailable") == 1 }).await;
    assert_eq!(diary.count("sent"), 0, "the result was written too early for this test to show anything");
    until("the result is written", || async { diary.count("sent") == 1 }).await;
    assert_eq!(diary.count("store recovered"), 0);
    store.mend();
    until("it recovers", || async { diary.count("store recovered") == 1 }).await;
    shutdown.cancel();
    worker.await.unwrap().unwrap();
    assert_eq!(diary.count("store unavailable"), 1);
}

/// A conflict is no outage: nobody is told, and the call is made again, whichever it is.
#[tokio::test(start_paused = true)]
async fn a_pass_goes_on_after_conflicts_of_each_call() {
    for at_once in 1..=4 {
        let store = Unreliable::default();
        let again = Arc::clone(&store.conflicts);
        let transport = ScriptedTransport::<Email>::new().answering(move |_| {
            again.store(at_once, Ordering::SeqCst);
            async { Ok(Receipt::new()) }
        });
        let outbox = Outbox::new(store.clone(), transport.clone());
        outbox.enqueue_all((0..3).map(|_| ada())).await.unwrap();
        let diary = Diary::default();
        store.conflicts.store(at_once, Ordering::SeqCst);
        assert_eq!(outbox.relay().observer(diary.clone()).tick().await.unwrap().sent, 3, "{at_once}");
        outbox.enqueue_all((0..3).map(|_| ada())).await.unwrap();
        store.conflicts.store(at_once, Ordering::SeqCst);
        assert_eq!(outbox.relay().observer(diary.clone()).drain().await.unwrap().sent, 3, "{at_once}");
        assert!(store.refusals() >= 4 * at_once, "the conflicts were not met");
        assert_eq!((transport.calls().len(), diary.count("store unavailable")), (6, 0), "{at_once}");
    }
}

/// Conflicts without end are told of by a pass, and outlasted by a relay that goes on.
#[tokio::test(start_paused = true)]
async fn conflicts_without_end_are_told_of() {
    let store = Unreliable::default();
    let outbox = Outbox::new(store.clone(), ScriptedTransport::<Email>::new());
    outbox.enqueue(ada()).await.unwrap();
    store.conflicts.store(usize::MAX, Ordering::SeqCst);
    for error in [outbox.relay().drain().await.unwrap_err(), outbox.relay().tick().await.unwrap_err()] {
        assert_eq!(error.kind(), StoreErrorKind::Conflict, "{error}");
    }
    let (diary, shutdown) = (Diary::default(), CancellationToken::new());
    let worker = tokio::spawn(outbox.relay().observer(diary.clone()).run(shutdown.clone().cancelled_owned()));
    until("it tells", || async { diary.count("store unavailable") == 1 }).await;
    store.conflicts.store(0, Ordering::SeqCst);
    until("it is sent", || async { diary.count("sent") == 1 && diary.count("store recovered") == 1 }).await;
    shutdown.cancel();
    worker.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_observer_that_panics_is_told_again_and_harms_nobody() {
    struct Nervous(Arc<AtomicUsize>);
    impl postrider::Observer for Nervous {
        fn on_event(&self, _: &postrider::Event<'_>) {
            self.0.fetch_add(1, Ordering::SeqCst);
            panic!("an observer panics");
        }
    }
    let told = Arc::new(AtomicUsize::new(0));
    let outbox = Outbox::new(MemoryStore::new(), ScriptedTransport::<Email>::new());
    outbox.enqueue_all((0..3).map(|_| ada())).await.unwrap();
    let pass = outbox.relay().observer(Nervous(Arc::clone(&told))).drain().await.unwrap();
    assert_eq!(pass.sent, 3);
    assert_eq!(told.load(Ordering::SeqCst), 7, "one claim, three attempts, three results");
}
