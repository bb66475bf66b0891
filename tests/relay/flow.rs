//! When a relay claims deliveries, and how it sends them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use postrider::store::{Claim, TestClock};
use postrider::testkit::ScriptedTransport;
use postrider::transport::Receipt;
use postrider::{Email, MemoryStore, NewDelivery, Outbox, Outcome, Priority, State, Store};
use tokio_util::sync::CancellationToken;

use crate::harness::{EventLog, get, outbox, until_state};
use crate::support::fixture::{SECOND, ada};
use crate::support::wait::until;

/// Invariant 4.
#[tokio::test]
async fn due_and_newly_enqueued_deliveries_are_sent_without_polling() {
    let outbox = outbox(ScriptedTransport::new());
    let before = outbox.enqueue(ada()).await.unwrap();
    let shutdown = CancellationToken::new();
    // The poll never comes: only the start and notifications can wake the relay.
    let worker = tokio::spawn(outbox.relay().poll(SECOND * 10_000).run(shutdown.clone().cancelled_owned()));
    until_state(&outbox, before, State::Sent).await;
    let after = outbox.enqueue(ada()).await.unwrap();
    until_state(&outbox, after, State::Sent).await;
    let mut tx = outbox.store().begin();
    let committed = outbox.enqueue_in(&mut tx, ada()).await.unwrap();
    tx.commit();
    until_state(&outbox, committed, State::Sent).await;
    shutdown.cancel();
    assert_eq!(worker.await.unwrap().unwrap().sent, 3);
}

/// Invariant 4.
#[tokio::test]
async fn a_scheduled_delivery_is_sent_on_time_without_polling() {
    let outbox = outbox(ScriptedTransport::new());
    let soon = NewDelivery::new(ada()).send_in(Duration::from_millis(80));
    let id = outbox.enqueue(soon).await.unwrap();
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn(outbox.relay().poll(SECOND * 10_000).run(shutdown.clone().cancelled_owned()));
    until_state(&outbox, id, State::Sent).await;
    shutdown.cancel();
    worker.await.unwrap().unwrap();
}

/// Invariants 4, 8.
#[tokio::test]
async fn polling_finds_a_delivery_without_a_notification() {
    // The delivery becomes due because the database's clock moves, which notifies no relay.
    let clock = TestClock::new();
    let store = MemoryStore::with_test_clock(clock.clone());
    let outbox = Outbox::new(store, ScriptedTransport::<Email>::new());
    let id = outbox.enqueue(NewDelivery::new(ada()).send_in(SECOND * 3_600)).await.unwrap();
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn(outbox.relay().poll(Duration::from_millis(20)).run(shutdown.clone().cancelled_owned()));
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(get(&outbox, id).await.state, State::Pending);
    clock.advance(SECOND * 3_600);
    until_state(&outbox, id, State::Sent).await;
    shutdown.cancel();
    worker.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_tick_sends_one_claim_and_a_drain_sends_all() {
    let transport = ScriptedTransport::new();
    let outbox = outbox(transport.clone());
    outbox.enqueue_all((0..10).map(|_| ada())).await.unwrap();
    let summary = outbox.relay().concurrency(4).tick().await.unwrap();
    assert_eq!((summary.sent, transport.calls().len()), (4, 4));
    let summary = outbox.relay().concurrency(4).drain().await.unwrap();
    assert_eq!((summary.sent, transport.calls().len()), (6, 10));
    assert_eq!(outbox.relay().tick().await.unwrap().sent, 0);
}

#[tokio::test]
async fn a_drain_leaves_mail_that_is_enqueued_meanwhile() {
    let store = MemoryStore::new();
    let store_of_transport = store.clone();
    let transport = ScriptedTransport::new().with_handler(move |_| {
        let outbox = Outbox::enqueue_only(store_of_transport.clone());
        async move {
            // Due after the start of the drain. A drain without a cutoff would never end.
            tokio::time::sleep(Duration::from_millis(3)).await;
            outbox.enqueue(ada()).await.unwrap();
            Ok(Receipt::new())
        }
    });
    let outbox = Outbox::new(store, transport);
    outbox.enqueue(ada()).await.unwrap();
    let summary = tokio::time::timeout(SECOND * 20, outbox.relay().drain()).await.expect("the drain ends").unwrap();
    assert_eq!(summary.sent, 1);
    assert_eq!(outbox.stats().await.unwrap().pending, 1);
}

#[tokio::test]
async fn concurrency_bounds_the_calls_at_one_time() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (n, m) = (Arc::clone(&now), Arc::clone(&most));
    let transport = ScriptedTransport::new().with_handler(move |_| {
        let (now, most) = (Arc::clone(&n), Arc::clone(&m));
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(1)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(Receipt::new())
        }
    });
    let outbox = outbox(transport);
    outbox.enqueue_all((0..60).map(|_| ada())).await.unwrap();
    assert_eq!(outbox.relay().concurrency(7).drain().await.unwrap().sent, 60);
    assert_eq!(most.load(Ordering::SeqCst), 7);
}

/// Invariant 2.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_relays_send_each_message_once() {
    let transport = ScriptedTransport::new();
    let outbox = outbox(transport.clone());
    let ids = outbox.enqueue_all((0..500).map(|_| ada())).await.unwrap();
    let shutdown = CancellationToken::new();
    let workers: Vec<_> =
        (0..5).map(|_| tokio::spawn(outbox.relay().concurrency(9).run(shutdown.clone().cancelled_owned()))).collect();
    until("all are sent", || async { outbox.stats().await.unwrap().sent == 500 }).await;
    shutdown.cancel();
    for worker in workers {
        worker.await.unwrap().unwrap();
    }
    let mut called: Vec<_> = transport.calls().iter().map(|call| call.id).collect();
    called.sort();
    let mut ids = ids;
    ids.sort();
    assert_eq!(called, ids);
}

#[tokio::test]
async fn the_most_urgent_mail_is_sent_first() {
    let transport = ScriptedTransport::new();
    let outbox = outbox(transport.clone());
    let bulk = outbox.enqueue(NewDelivery::new(ada()).priority(Priority::BULK)).await.unwrap();
    let normal = outbox.enqueue(ada()).await.unwrap();
    let urgent = outbox.enqueue(NewDelivery::new(ada()).priority(Priority::URGENT)).await.unwrap();
    outbox.relay().concurrency(1).drain().await.unwrap();
    let order: Vec<_> = transport.calls().iter().map(|call| call.id).collect();
    assert_eq!(order, [urgent, normal, bulk]);
}

/// Invariant 2.
#[tokio::test]
async fn a_relay_that_lost_its_lease_writes_nothing() {
    let clock = TestClock::new();
    let store = MemoryStore::with_test_clock(clock.clone());
    let (other_store, other_clock) = (store.clone(), clock.clone());
    let transport = ScriptedTransport::new().with_handler(move |_| {
        let (store, clock) = (other_store.clone(), other_clock.clone());
        async move {
            // During the call the lease runs out, and another relay claims the delivery.
            clock.advance(SECOND * 3_600);
            let taken_over = store.claim(Claim::new(1, SECOND * 3_600)).await.unwrap();
            assert!(taken_over[0].lost);
            Ok(Receipt::new())
        }
    });
    let outbox = Outbox::new(store, transport);
    let id = outbox.enqueue(ada()).await.unwrap();
    let events = EventLog::default();
    let summary = outbox.relay().observer(events.clone()).tick().await.unwrap();
    assert_eq!((summary.lease_lost, summary.sent), (1, 0));
    assert_eq!(events.count("lease lost"), 1);
    let shown = get(&outbox, id).await;
    assert_eq!((shown.state, shown.attempts.len()), (State::Leased, 1));
    assert_eq!(shown.attempts[0].outcome, Outcome::Lost);
}

/// Invariant 2.
#[tokio::test]
async fn a_lease_is_renewed_during_a_slow_call() {
    let transport = ScriptedTransport::new().with_handler(|_| async {
        tokio::time::sleep(Duration::from_millis(900)).await;
        Ok(Receipt::new())
    });
    let outbox = outbox(transport.clone());
    outbox.enqueue(ada()).await.unwrap();
    let relay = || outbox.relay().lease(Duration::from_millis(300)).poll(Duration::from_millis(10));
    let shutdown = CancellationToken::new();
    let workers = [
        tokio::spawn(relay().run(shutdown.clone().cancelled_owned())),
        tokio::spawn(relay().run(shutdown.clone().cancelled_owned())),
    ];
    until("the mail is sent", || async { outbox.stats().await.unwrap().sent == 1 }).await;
    shutdown.cancel();
    for worker in workers {
        assert_eq!(worker.await.unwrap().unwrap().lease_lost, 0);
    }
    assert_eq!(transport.calls().len(), 1);
}

#[tokio::test]
async fn stats_list_a_relay_while_it_runs() {
    let outbox = outbox(ScriptedTransport::new());
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn(outbox.relay().run(shutdown.clone().cancelled_owned()));
    until("the relay reports", || async { outbox.stats().await.unwrap().relays.len() == 1 }).await;
    shutdown.cancel();
    worker.await.unwrap().unwrap();
    assert!(outbox.stats().await.unwrap().relays.is_empty());
}

#[tokio::test]
async fn a_drain_waits_for_its_calls_beyond_the_grace_period() {
    let transport = ScriptedTransport::new().with_handler(|_| async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        Ok(Receipt::new())
    });
    let outbox = outbox(transport);
    outbox.enqueue(ada()).await.unwrap();
    assert_eq!(outbox.relay().grace(Duration::from_millis(10)).drain().await.unwrap().sent, 1);
    outbox.enqueue(ada()).await.unwrap();
    assert_eq!(outbox.relay().grace(Duration::from_millis(10)).tick().await.unwrap().sent, 1);
}
