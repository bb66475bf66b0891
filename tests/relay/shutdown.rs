//! Stopping.

use std::sync::Arc;
use std::time::Duration;

use postrider::testkit::ScriptedTransport;
use postrider::transport::Receipt;
use postrider::{Email, NewDelivery, Outcome, State, WhenInDoubt};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::support::{SECOND, ada, get, outbox, until};

/// Answers when the test lets it.
fn waiting() -> (Arc<Semaphore>, ScriptedTransport<Email>) {
    let gate = Arc::new(Semaphore::new(0));
    let inner = Arc::clone(&gate);
    let transport = ScriptedTransport::new().answering(move |_| {
        let gate = Arc::clone(&inner);
        async move {
            gate.acquire().await.unwrap().forget();
            Ok(Receipt::new())
        }
    });
    (gate, transport)
}

#[tokio::test]
async fn a_stop_in_mid_send_finishes_what_is_on_its_way_and_begins_nothing() {
    let (gate, transport) = waiting();
    let outbox = outbox(transport.clone());
    outbox.enqueue_all((0..10).map(|_| ada())).await.unwrap();
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn(outbox.relay().concurrency(3).run(shutdown.clone().cancelled_owned()));
    until("three are on their way", || async { transport.calls().len() == 3 }).await;
    shutdown.cancel();
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert!(!worker.is_finished(), "it did not wait for its messages");
    gate.add_permits(100);
    let pass = worker.await.unwrap().unwrap();
    assert_eq!((pass.sent, transport.calls().len()), (3, 3));
    let stats = outbox.stats().await.unwrap();
    assert_eq!((stats.sent, stats.pending, stats.leased), (3, 7, 0));
}

#[tokio::test]
async fn a_second_signal_waits_no_longer_and_leaves_the_truth_behind() {
    let (_gate, transport) = waiting();
    let outbox = outbox(transport.clone());
    let resent = outbox.enqueue(ada()).await.unwrap();
    let held = outbox.enqueue(NewDelivery::new(ada()).when_in_doubt(WhenInDoubt::Hold)).await.unwrap();
    let (first, second) = (CancellationToken::new(), CancellationToken::new());
    let relay = outbox.relay().grace(SECOND * 10_000).abandon_on(second.clone().cancelled_owned());
    let worker = tokio::spawn(relay.run(first.clone().cancelled_owned()));
    until("both are on their way", || async { transport.calls().len() == 2 }).await;
    first.cancel();
    second.cancel();
    let pass = tokio::time::timeout(SECOND * 20, worker).await.expect("it stops").unwrap().unwrap();
    assert_eq!((pass.retried, pass.in_doubt), (1, 1));
    let resent = get(&outbox, resent).await;
    assert_eq!((resent.state, resent.attempts[0].outcome), (State::Pending, Outcome::InDoubt));
    assert_eq!(get(&outbox, held).await.state, State::InDoubt);
}

#[tokio::test]
async fn the_grace_ends_as_well() {
    let (_gate, transport) = waiting();
    let outbox = outbox(transport.clone());
    let id = outbox.enqueue(ada()).await.unwrap();
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn(outbox.relay().grace(Duration::from_millis(20)).run(shutdown.clone().cancelled_owned()));
    until("it is on its way", || async { transport.calls().len() == 1 }).await;
    shutdown.cancel();
    tokio::time::timeout(SECOND * 20, worker).await.expect("it stops").unwrap().unwrap();
    assert_eq!(get(&outbox, id).await.attempts[0].outcome, Outcome::InDoubt);
}

#[tokio::test]
async fn an_idle_relay_stops_at_once() {
    let outbox = outbox(ScriptedTransport::new());
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn(outbox.relay().poll(SECOND * 10_000).run(shutdown.clone().cancelled_owned()));
    tokio::time::sleep(Duration::from_millis(20)).await;
    shutdown.cancel();
    tokio::time::timeout(SECOND * 20, worker).await.expect("it stops").unwrap().unwrap();
}

#[tokio::test]
async fn a_token_that_is_cancelled_before_the_start_sends_nothing() {
    let transport = ScriptedTransport::new();
    let outbox = outbox(transport.clone());
    outbox.enqueue(ada()).await.unwrap();
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    outbox.relay().run(shutdown.cancelled_owned()).await.unwrap();
    assert!(transport.calls().is_empty());
}

#[tokio::test]
async fn a_dropped_relay_leaves_deliveries_that_others_take_over() {
    let (gate, transport) = waiting();
    let outbox = outbox(transport.clone());
    let id = outbox.enqueue(ada()).await.unwrap();
    let worker = tokio::spawn(outbox.relay().lease(Duration::from_millis(100)).run(std::future::pending()));
    until("it is on its way", || async { transport.calls().len() == 1 }).await;
    worker.abort();
    gate.add_permits(100);
    let shutdown = CancellationToken::new();
    let heir = tokio::spawn(outbox.relay().poll(Duration::from_millis(10)).run(shutdown.clone().cancelled_owned()));
    until("it is taken over", || async { get(&outbox, id).await.state == State::Sent }).await;
    shutdown.cancel();
    heir.await.unwrap().unwrap();
    let outcomes: Vec<_> = get(&outbox, id).await.attempts.iter().map(|a| (a.number, a.outcome)).collect();
    assert_eq!(outcomes, [(1, Outcome::Lost), (2, Outcome::Sent)]);
}
