//! Shutdown.

use std::sync::Arc;
use std::time::Duration;

use postrider::testkit::ScriptedTransport;
use postrider::transport::Receipt;
use postrider::{Email, NewDelivery, Outcome, State, WhenInDoubt};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::harness::{get, outbox};
use crate::support::fixture::{SECOND, ada};
use crate::support::wait::until;

/// A transport whose calls return when the test adds permits.
fn waiting() -> (Arc<Semaphore>, ScriptedTransport<Email>) {
    let gate = Arc::new(Semaphore::new(0));
    let inner = Arc::clone(&gate);
    let transport = ScriptedTransport::new().with_handler(move |_| {
        let gate = Arc::clone(&inner);
        async move {
            gate.acquire().await.unwrap().forget();
            Ok(Receipt::new())
        }
    });
    (gate, transport)
}

/// Invariant 9.
#[tokio::test]
async fn a_shutdown_finishes_calls_and_starts_none() {
    let (gate, transport) = waiting();
    let outbox = outbox(transport.clone());
    outbox.enqueue_all((0..10).map(|_| ada())).await.unwrap();
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn(outbox.relay().concurrency(3).run(shutdown.clone().cancelled_owned()));
    until("three calls are under way", || async { transport.calls().len() == 3 }).await;
    shutdown.cancel();
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert!(!worker.is_finished(), "the relay did not wait for its calls");
    gate.add_permits(100);
    let summary = worker.await.unwrap().unwrap();
    assert_eq!((summary.sent, transport.calls().len()), (3, 3));
    let stats = outbox.stats().await.unwrap();
    assert_eq!((stats.sent, stats.pending, stats.leased), (3, 7, 0));
}

/// Invariants 3, 9.
#[tokio::test]
async fn a_second_signal_ends_the_calls_as_in_doubt() {
    let (_gate, transport) = waiting();
    let outbox = outbox(transport.clone());
    let resent = outbox.enqueue(ada()).await.unwrap();
    let held = outbox.enqueue(NewDelivery::new(ada()).when_in_doubt(WhenInDoubt::Hold)).await.unwrap();
    let (first, second) = (CancellationToken::new(), CancellationToken::new());
    let relay = outbox.relay().grace(SECOND * 10_000).abandon_on(second.clone().cancelled_owned());
    let worker = tokio::spawn(relay.run(first.clone().cancelled_owned()));
    until("both calls are under way", || async { transport.calls().len() == 2 }).await;
    first.cancel();
    second.cancel();
    let summary = tokio::time::timeout(SECOND * 20, worker).await.expect("the relay stops").unwrap().unwrap();
    assert_eq!((summary.retried, summary.in_doubt), (1, 1));
    let resent = get(&outbox, resent).await;
    assert_eq!((resent.state, resent.attempts[0].outcome), (State::Pending, Outcome::InDoubt));
    assert_eq!(get(&outbox, held).await.state, State::InDoubt);
}

/// Invariants 3, 9.
#[tokio::test]
async fn the_end_of_the_grace_period_ends_the_calls_as_in_doubt() {
    let (_gate, transport) = waiting();
    let outbox = outbox(transport.clone());
    let id = outbox.enqueue(ada()).await.unwrap();
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn(outbox.relay().grace(Duration::from_millis(20)).run(shutdown.clone().cancelled_owned()));
    until("the call is under way", || async { transport.calls().len() == 1 }).await;
    shutdown.cancel();
    tokio::time::timeout(SECOND * 20, worker).await.expect("the relay stops").unwrap().unwrap();
    assert_eq!(get(&outbox, id).await.attempts[0].outcome, Outcome::InDoubt);
}

/// Invariant 9.
#[tokio::test]
async fn an_idle_relay_stops_at_once() {
    let outbox = outbox(ScriptedTransport::new());
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn(outbox.relay().poll(SECOND * 10_000).run(shutdown.clone().cancelled_owned()));
    tokio::time::sleep(Duration::from_millis(20)).await;
    shutdown.cancel();
    tokio::time::timeout(SECOND * 20, worker).await.expect("the relay stops").unwrap().unwrap();
}

/// Invariant 9.
#[tokio::test]
async fn a_relay_that_is_shut_down_before_it_starts_sends_nothing() {
    let transport = ScriptedTransport::new();
    let outbox = outbox(transport.clone());
    outbox.enqueue(ada()).await.unwrap();
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    outbox.relay().run(shutdown.cancelled_owned()).await.unwrap();
    assert!(transport.calls().is_empty());
}

/// Invariants 3, 4.
#[tokio::test]
async fn another_relay_takes_over_the_deliveries_of_a_dropped_one() {
    let (gate, transport) = waiting();
    let outbox = outbox(transport.clone());
    let id = outbox.enqueue(ada()).await.unwrap();
    let worker = tokio::spawn(outbox.relay().lease(Duration::from_millis(100)).run(std::future::pending()));
    until("the call is under way", || async { transport.calls().len() == 1 }).await;
    worker.abort();
    gate.add_permits(100);
    let shutdown = CancellationToken::new();
    let other = tokio::spawn(outbox.relay().poll(Duration::from_millis(10)).run(shutdown.clone().cancelled_owned()));
    until("the delivery is taken over", || async { get(&outbox, id).await.state == State::Sent }).await;
    shutdown.cancel();
    other.await.unwrap().unwrap();
    let outcomes: Vec<_> = get(&outbox, id).await.attempts.iter().map(|a| (a.number, a.outcome)).collect();
    assert_eq!(outcomes, [(1, Outcome::Lost), (2, Outcome::Sent)]);
}
