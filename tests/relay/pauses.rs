//! Pauses of a transport that cannot send for anyone.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postrider::testkit::ScriptedTransport;
use postrider::transport::Receipt;
use postrider::{Backoff, Email, Failure, Scope, State};
use tokio_util::sync::CancellationToken;

use crate::harness::{EventLog, eager, get, outbox};
use crate::support::fixture::ada;
use crate::support::wait::until;

fn wrong_password() -> Failure {
    Failure::permanent(Scope::Transport, "535 5.7.8 wrong password")
}

/// A transport that fails with a wrong password while the flag is set.
fn broken() -> (Arc<AtomicBool>, ScriptedTransport<Email>) {
    let broken = Arc::new(AtomicBool::new(true));
    let flag = Arc::clone(&broken);
    let transport = ScriptedTransport::new().with_handler(move |_| {
        let fails = flag.load(Ordering::SeqCst);
        async move { if fails { Err(wrong_password()) } else { Ok(Receipt::new()) } }
    });
    (broken, transport)
}

#[tokio::test]
async fn a_wrong_password_pauses_the_transport_and_ends_a_drain() {
    let (_, transport) = broken();
    let outbox = outbox(transport.clone());
    let ids = outbox.enqueue_all((0..50).map(|_| ada())).await.unwrap();
    let events = EventLog::default();
    let relay = outbox.relay().concurrency(4).retry(eager()).observer(events.clone());
    let summary = relay.drain().await.unwrap();
    assert!(transport.calls().len() <= 4, "the relay called a paused transport");
    assert_eq!((summary.sent, summary.dead, summary.retried), (0, 0, 0));
    let pause = summary.paused.expect("the summary says that the transport is paused");
    assert_eq!((pause.transport.as_str(), pause.reason.as_str()), ("scripted", "535 5.7.8 wrong password"));
    assert_eq!(events.count("paused"), 1);
    let stats = outbox.stats().await.unwrap();
    assert_eq!((stats.pending, stats.dead), (50, 0));
    assert_eq!(stats.relays[0].paused.as_deref(), Some("scripted: 535 5.7.8 wrong password"));
    for id in ids {
        for attempt in get(&outbox, id).await.attempts {
            assert!(!attempt.charged, "an attempt was charged");
        }
    }
}

/// Otherwise its pause would be shown beside the relay that takes its place. (A drain leaves its report.)
#[tokio::test]
async fn a_relay_that_stops_while_paused_leaves_no_report() {
    let (_, transport) = broken();
    let outbox = outbox(transport);
    outbox.enqueue(ada()).await.unwrap();
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn(outbox.relay().run(shutdown.clone().cancelled_owned()));
    let reports_a_pause = || async { outbox.stats().await.unwrap().relays.iter().any(|relay| relay.paused.is_some()) };
    until("the relay says that it is paused", reports_a_pause).await;
    shutdown.cancel();
    assert!(worker.await.unwrap().unwrap().paused.is_some());
    assert!(outbox.stats().await.unwrap().relays.is_empty(), "it is still listed");
}

/// Invariant 4.
#[tokio::test]
async fn a_probe_that_succeeds_ends_a_pause() {
    let (broken, transport) = broken();
    let outbox = outbox(transport.clone());
    let ids = outbox.enqueue_all((0..30).map(|_| ada())).await.unwrap();
    let events = EventLog::default();
    let pause = Backoff::new(Duration::from_millis(20), Duration::from_millis(40));
    let relay = outbox.relay().concurrency(4).retry(eager()).pause(pause).observer(events.clone());
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn(relay.run(shutdown.clone().cancelled_owned()));
    // The first four calls fail together. One probe follows each pause.
    until("some probes failed", || async { events.count("paused") >= 5 }).await;
    let calls = transport.calls().len();
    assert!(calls <= 4 + events.count("paused"), "{calls} calls for {} pauses", events.count("paused"));
    assert_eq!(outbox.stats().await.unwrap().relays[0].paused.as_deref(), Some("scripted: 535 5.7.8 wrong password"));

    broken.store(false, Ordering::SeqCst);
    until("all are sent", || async { outbox.stats().await.unwrap().sent == 30 }).await;
    shutdown.cancel();
    let summary = worker.await.unwrap().unwrap();
    assert_eq!((summary.sent, summary.dead, summary.retried, summary.paused), (30, 0, 0, None));
    assert_eq!(events.count("resumed"), 1);
    for id in ids {
        assert_eq!(get(&outbox, id).await.state, State::Sent);
    }
}

/// Invariant 4.
#[tokio::test]
async fn a_message_that_breaks_the_transport_does_not_block_others() {
    let transport = ScriptedTransport::new().with_handler(|call| {
        let breaks = call.recipients[0].as_str() == "breaking@example.com";
        async move {
            if breaks { Err(Failure::transient(Scope::Transport, "connection reset")) } else { Ok(Receipt::new()) }
        }
    });
    let outbox = outbox(transport);
    outbox.enqueue(crate::support::fixture::email(&["breaking@example.com"])).await.unwrap();
    outbox.enqueue_all((0..20).map(|_| ada())).await.unwrap();
    let pause = Backoff::new(Duration::from_millis(5), Duration::from_millis(10));
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn(outbox.relay().concurrency(2).pause(pause).run(shutdown.clone().cancelled_owned()));
    until("the others are sent", || async { outbox.stats().await.unwrap().sent == 20 }).await;
    shutdown.cancel();
    worker.await.unwrap().unwrap();
    assert_eq!(outbox.stats().await.unwrap().dead, 0);
}

#[tokio::test]
async fn the_next_hop_sets_the_minimum_pause() {
    let rate = Failure::transient(Scope::Transport, "429 slow down").with_retry_after(Duration::from_millis(60));
    let outbox = outbox(ScriptedTransport::new().then(Err(rate)));
    let id = outbox.enqueue(ada()).await.unwrap();
    let shutdown = CancellationToken::new();
    let short = Backoff::new(Duration::from_millis(1), Duration::from_millis(1));
    let worker = tokio::spawn(outbox.relay().pause(short).run(shutdown.clone().cancelled_owned()));
    until("the mail is sent", || async { get(&outbox, id).await.state == State::Sent }).await;
    shutdown.cancel();
    worker.await.unwrap().unwrap();
    let history = get(&outbox, id).await.attempts;
    assert_eq!((history.len(), history[0].charged, history[1].charged), (2, false, true));
}

#[tokio::test]
async fn a_new_drain_ignores_the_pause_of_the_last_one() {
    let (_, transport) = broken();
    let outbox = outbox(transport.clone());
    outbox.enqueue(ada()).await.unwrap();
    let pause = Backoff::new(Duration::from_millis(1), Duration::from_millis(1));
    for drains in 1..=3 {
        tokio::time::sleep(Duration::from_millis(3)).await;
        assert!(outbox.relay().pause(pause).drain().await.unwrap().paused.is_some());
        assert_eq!(transport.calls().len(), drains);
    }
}

/// Invariant 4.
#[tokio::test]
async fn a_probe_without_a_call_is_followed_by_another() {
    let (broken, transport) = broken();
    let clock = postrider::store::TestClock::new();
    let store = postrider::MemoryStore::with_test_clock(clock.clone());
    let outbox = postrider::Outbox::new(store, transport.clone());
    outbox.enqueue(ada()).await.unwrap();
    let pause = Backoff::new(Duration::from_millis(10), Duration::from_millis(10));
    let shutdown = CancellationToken::new();
    let relay = outbox.relay().concurrency(2).pause(pause).poll(Duration::from_millis(5));
    let worker = tokio::spawn(relay.run(shutdown.clone().cancelled_owned()));
    until("the transport is paused", || async { !transport.calls().is_empty() }).await;
    // The probes claim expired deliveries only, and call nothing.
    let expired = postrider::NewDelivery::new(ada()).expires_at(clock.now());
    outbox.enqueue_all((0..200).map(|_| expired.clone())).await.unwrap();
    until("the expired deliveries are dead", || async { outbox.stats().await.unwrap().dead == 200 }).await;
    broken.store(false, Ordering::SeqCst);
    clock.advance(Duration::from_secs(60));
    until("the rest is sent", || async { outbox.stats().await.unwrap().sent == 1 }).await;
    shutdown.cancel();
    worker.await.unwrap().unwrap();
}

/// Invariant 4.
#[tokio::test]
async fn an_urgent_message_that_breaks_the_transport_does_not_block_others() {
    let transport = ScriptedTransport::new().with_handler(|call| {
        let breaks = call.recipients[0].as_str() == "breaking@example.com";
        async move { if breaks { Err(wrong_password()) } else { Ok(Receipt::new()) } }
    });
    let outbox = outbox(transport);
    let urgent = postrider::NewDelivery::new(crate::support::fixture::email(&["breaking@example.com"]));
    outbox.enqueue(urgent.priority(postrider::Priority::URGENT)).await.unwrap();
    outbox.enqueue_all((0..10).map(|_| ada())).await.unwrap();
    let pause = Backoff::new(Duration::from_millis(5), Duration::from_millis(10));
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn(outbox.relay().concurrency(1).pause(pause).run(shutdown.clone().cancelled_owned()));
    until("the others are sent", || async { outbox.stats().await.unwrap().sent == 10 }).await;
    shutdown.cancel();
    worker.await.unwrap().unwrap();
}
