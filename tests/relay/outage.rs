//! A database that fails for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use postrider::testkit::ScriptedTransport;
use postrider::transport::Receipt;
use postrider::{Email, MemoryStore, Outbox, Outcome, StoreErrorKind};
use tokio_util::sync::CancellationToken;

use crate::harness::EventLog;
use crate::support::fixture::ada;
use crate::support::wait::until;
use crate::unreliable_store::UnreliableStore;

/// Invariant 4.
#[tokio::test]
async fn an_outage_is_reported_once_and_the_relay_resumes() {
    let store = UnreliableStore::default();
    let transport = ScriptedTransport::<Email>::new();
    let outbox = Outbox::new(store.clone(), transport.clone());
    let events = EventLog::default();
    let shutdown = CancellationToken::new();
    let relay = outbox.relay().poll(Duration::from_millis(5)).observer(events.clone());
    let worker = tokio::spawn(relay.run(shutdown.clone().cancelled_owned()));
    for outage in 1..=2 {
        outbox.enqueue(ada()).await.unwrap();
        until("the mail is sent", || async { transport.calls().len() == outage }).await;
        let before = store.failures();
        store.take_down();
        until("four calls fail", || async { store.failures() >= before + 4 }).await;
        store.bring_up();
        until("the relay recovers", || async { events.count("store recovered") == outage }).await;
    }
    shutdown.cancel();
    worker.await.unwrap().unwrap();
    assert_eq!((events.count("store unavailable"), events.count("store recovered")), (2, 2));
}

/// A claim that waits for the database may return a delivery that this relay is sending. The mail is sent once, and its attempts do not
/// overlap: the attempt that the claim records as lost ends when the next one begins. Invariants 2, 3.
#[tokio::test(start_paused = true)]
async fn a_relay_that_claims_its_own_delivery_goes_on_with_one_call() {
    const LEASE: Duration = Duration::from_secs(10);
    let store = UnreliableStore::on_runtime_time();
    let slow = store.clone();
    let transport = ScriptedTransport::<Email>::new().with_handler(move |_| {
        slow.delay(LEASE * 3 / 2, LEASE * 2);
        async {
            tokio::time::sleep(LEASE * 3).await;
            Ok(Receipt::new())
        }
    });
    let outbox = Outbox::new(store.clone(), transport.clone());
    let id = outbox.enqueue(ada()).await.unwrap();
    let shutdown = CancellationToken::new();
    let relay = outbox.relay().lease(LEASE).poll(LEASE / 10);
    let worker = tokio::spawn(relay.run(shutdown.clone().cancelled_owned()));
    let shown = Outbox::enqueue_only(store.inner());
    until("the mail is sent", || async { shown.stats().await.unwrap().sent == 1 }).await;
    shutdown.cancel();
    worker.await.unwrap().unwrap();
    assert_eq!(transport.calls().len(), 1);
    let attempts = shown.get(id).await.unwrap().unwrap().attempts;
    let outcomes: Vec<_> = attempts.iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(outcomes, [Outcome::Lost, Outcome::Sent], "this test shows nothing unless the claim came too late");
    assert!(attempts[0].finished_at <= attempts[1].started_at, "{attempts:?}");
    assert!(attempts.iter().all(|attempt| attempt.started_at <= attempt.finished_at), "{attempts:?}");
}

/// Invariants 3, 4.
#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_is_given_up_and_made_again() {
    let store = UnreliableStore::default();
    let hanging = store.clone();
    let transport = ScriptedTransport::<Email>::new().with_handler(move |_| {
        // Among the next calls are those that settle and claim.
        hanging.hang(4);
        async { Ok(Receipt::new()) }
    });
    let outbox = Outbox::new(store.clone(), transport.clone());
    outbox.enqueue(ada()).await.unwrap();
    let events = EventLog::default();
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn(outbox.relay().observer(events.clone()).run(shutdown.clone().cancelled_owned()));
    tokio::time::sleep(Duration::from_secs(100)).await;
    let counted = Outbox::enqueue_only(store.inner());
    until("the result is written", || async { counted.stats().await.unwrap().sent == 1 }).await;
    shutdown.cancel();
    worker.await.unwrap().unwrap();
    assert_eq!((transport.calls().len(), events.count("lease lost")), (1, 0));
    let outages = events.count("store unavailable");
    assert!(outages >= 1 && events.count("store recovered") == outages, "{:?}", events.lines());
}

/// Invariants 3, 4.
#[tokio::test]
async fn results_wait_for_the_database() {
    let store = UnreliableStore::default();
    let failing = store.clone();
    let transport = ScriptedTransport::<Email>::new().with_handler(move |_| {
        // The database fails as soon as the mail is accepted.
        failing.take_down();
        async { Ok(Receipt::new()) }
    });
    let outbox = Outbox::new(store.clone(), transport.clone());
    outbox.enqueue_all((0..8).map(|_| ada())).await.unwrap();
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn(outbox.relay().concurrency(8).run(shutdown.clone().cancelled_owned()));
    until("settling fails", || async { store.failures() >= 3 }).await;
    store.bring_up();
    let counted = Outbox::enqueue_only(store.inner());
    until("all are settled", || async { counted.stats().await.unwrap().sent == 8 }).await;
    shutdown.cancel();
    assert_eq!(worker.await.unwrap().unwrap().sent, 8);
    assert_eq!(transport.calls().len(), 8, "a message was sent twice");
}

#[tokio::test]
async fn a_drain_without_a_database_is_an_error() {
    let store = UnreliableStore::default();
    let outbox = Outbox::new(store.clone(), ScriptedTransport::<Email>::new());
    outbox.enqueue(ada()).await.unwrap();
    store.take_down();
    let error = outbox.relay().drain().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Unavailable);
    assert_eq!(
        outbox.enqueue(ada()).await.unwrap_err().to_string(),
        "the message could not be enqueued: connection refused"
    );
}

/// The late answer to a call that was made before the outage does not show that the database works now.
#[tokio::test(start_paused = true)]
async fn a_late_answer_does_not_end_an_outage() {
    let store = UnreliableStore::default().with_settle_time(Duration::from_millis(300));
    let outbox = Outbox::new(store.clone(), ScriptedTransport::<Email>::new());
    outbox.enqueue(ada()).await.unwrap();
    let (events, shutdown) = (EventLog::default(), CancellationToken::new());
    let relay = outbox.relay().poll(Duration::from_millis(5)).observer(events.clone());
    let worker = tokio::spawn(relay.run(shutdown.clone().cancelled_owned()));
    until("the result is being written", || async { store.settle_calls() == 1 }).await;
    store.take_down();
    until("the outage is reported", || async { events.count("store unavailable") == 1 }).await;
    assert_eq!(events.count("sent"), 0, "the result was written too early for this test to show anything");
    until("the result is written", || async { events.count("sent") == 1 }).await;
    assert_eq!(events.count("store recovered"), 0);
    store.bring_up();
    until("the relay recovers", || async { events.count("store recovered") == 1 }).await;
    shutdown.cancel();
    worker.await.unwrap().unwrap();
    assert_eq!(events.count("store unavailable"), 1);
}

/// Each kind of call has conflicts. The relay repeats it and reports no outage.
#[tokio::test(start_paused = true)]
async fn a_call_that_meets_a_conflict_is_made_again() {
    for at_once in 1..=4 {
        let store = UnreliableStore::default();
        let conflicting = store.clone();
        let transport = ScriptedTransport::<Email>::new().with_handler(move |_| {
            conflicting.conflict(at_once);
            async { Ok(Receipt::new()) }
        });
        let outbox = Outbox::new(store.clone(), transport.clone());
        outbox.enqueue_all((0..3).map(|_| ada())).await.unwrap();
        let events = EventLog::default();
        store.conflict(at_once);
        assert_eq!(outbox.relay().observer(events.clone()).tick().await.unwrap().sent, 3, "{at_once}");
        outbox.enqueue_all((0..3).map(|_| ada())).await.unwrap();
        store.conflict(at_once);
        assert_eq!(outbox.relay().observer(events.clone()).drain().await.unwrap().sent, 3, "{at_once}");
        assert!(store.failures() >= 4 * at_once, "no call had a conflict");
        assert_eq!((transport.calls().len(), events.count("store unavailable")), (6, 0), "{at_once}");
    }
}

/// A drain fails. A running relay reports an outage, and resumes after it.
#[tokio::test(start_paused = true)]
async fn endless_conflicts_are_an_outage() {
    let store = UnreliableStore::default();
    let outbox = Outbox::new(store.clone(), ScriptedTransport::<Email>::new());
    outbox.enqueue(ada()).await.unwrap();
    store.conflict(usize::MAX);
    for error in [outbox.relay().drain().await.unwrap_err(), outbox.relay().tick().await.unwrap_err()] {
        assert_eq!(error.kind(), StoreErrorKind::Conflict, "{error}");
    }
    let (events, shutdown) = (EventLog::default(), CancellationToken::new());
    let worker = tokio::spawn(outbox.relay().observer(events.clone()).run(shutdown.clone().cancelled_owned()));
    until("the outage is reported", || async { events.count("store unavailable") == 1 }).await;
    store.conflict(0);
    until("the mail is sent", || async { events.count("sent") == 1 && events.count("store recovered") == 1 }).await;
    shutdown.cancel();
    worker.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_observer_that_panics_harms_nothing_and_gets_every_event() {
    struct Panicking(Arc<AtomicUsize>);
    impl postrider::Observer for Panicking {
        fn on_event(&self, _: &postrider::Event<'_>) {
            self.0.fetch_add(1, Ordering::SeqCst);
            panic!("an observer panics");
        }
    }
    let calls = Arc::new(AtomicUsize::new(0));
    let outbox = Outbox::new(MemoryStore::new(), ScriptedTransport::<Email>::new());
    outbox.enqueue_all((0..3).map(|_| ada())).await.unwrap();
    let summary = outbox.relay().observer(Panicking(Arc::clone(&calls))).drain().await.unwrap();
    assert_eq!(summary.sent, 3);
    assert_eq!(calls.load(Ordering::SeqCst), 7, "one claim, three attempts, three results");
}
