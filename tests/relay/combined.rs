//! Relays with a failover, a round robin, a tap or a rate limit.

use std::time::Duration;

use postrider::testkit::ScriptedTransport;
use postrider::transport::{Failover, Receipt, RoundRobin, Tap};
use postrider::{Email, Failure, MemoryStore, Outbox, Scope, State, Transport};

use crate::harness::{EventLog, eager};
use crate::support::fixture::ada;

fn down() -> ScriptedTransport<Email> {
    ScriptedTransport::new().with_handler(|_| async { Err(Failure::permanent(Scope::Transport, "535 wrong password")) })
}

async fn drain_fifty(transport: impl Transport<Message = Email>) {
    let name = transport.name().to_owned();
    let outbox = Outbox::new(MemoryStore::new(), transport);
    let ids = outbox.enqueue_all((0..50).map(|_| ada())).await.unwrap();
    let events = EventLog::default();
    let relay = outbox.relay().concurrency(4).retry(eager()).observer(events.clone());
    let summary = relay.drain().await.unwrap();
    assert_eq!((summary.sent, summary.retried, summary.paused), (50, 0, None));
    assert_eq!(events.count("paused"), 0, "the relay paused although one transport works");
    let paused = outbox.stats().await.unwrap().relays[0].paused.clone();
    assert_eq!(
        paused.unwrap(),
        format!("{name}/scripted: 535 wrong password"),
        "the stats do not show the transport that is down"
    );
    for id in ids {
        let delivery = outbox.get(id).await.unwrap().unwrap();
        assert_eq!((delivery.state, delivery.attempts.len()), (State::Sent, 1));
        assert!(delivery.attempts[0].charged);
    }
}

#[tokio::test]
async fn an_outage_of_one_transport_pauses_no_relay() {
    let (first, second) = (down(), ScriptedTransport::new());
    drain_fifty(Failover::new(first.clone()).or(second.clone())).await;
    assert!(first.calls().len() <= 4, "the paused transport was called");
    assert_eq!(second.calls().len(), 50);

    let (first, second) = (down(), ScriptedTransport::new());
    drain_fifty(RoundRobin::new(first.clone(), 10).and(second.clone(), 1)).await;
    assert!(first.calls().len() <= 4, "the paused transport was called");
    assert_eq!(second.calls().len(), 50);
}

#[tokio::test]
async fn an_outage_of_all_transports_charges_no_message() {
    let outbox = Outbox::new(MemoryStore::new(), Failover::new(down()).or(down()));
    let ids = outbox.enqueue_all((0..10).map(|_| ada())).await.unwrap();
    let summary = outbox.relay().retry(eager()).drain().await.unwrap();
    let pause = summary.paused.expect("the summary says that the transport is paused");
    assert_eq!(pause.transport, "failover");
    assert!(pause.reason.contains("scripted: 535 wrong password"), "{}", pause.reason);
    assert!(pause.reason.contains("scripted#2: 535 wrong password"), "{}", pause.reason);
    for id in ids {
        let delivery = outbox.get(id).await.unwrap().unwrap();
        assert_eq!(delivery.state, State::Pending);
        assert!(delivery.attempts.iter().all(|attempt| !attempt.charged), "a message was charged");
    }
}

/// Drains `attempts` times, of which the last one sends. Returns the transport of each attempt.
async fn transports_of(transport: impl Transport<Message = Email>, attempts: usize) -> Vec<String> {
    let outbox = Outbox::new(MemoryStore::new(), transport);
    let id = outbox.enqueue(ada()).await.unwrap();
    for _ in 0..attempts {
        outbox.relay().retry(eager()).drain().await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let delivery = outbox.get(id).await.unwrap().unwrap();
    assert_eq!((delivery.state, delivery.attempts.len()), (State::Sent, attempts));
    delivery.attempts.into_iter().map(|attempt| attempt.transport.expect("a transport was called")).collect()
}

#[tokio::test]
async fn the_history_names_the_transport_of_each_attempt() {
    let busy =
        || ScriptedTransport::new().then(Err(Failure::transient(Scope::Message, "busy"))).then(Ok(Receipt::new()));
    assert_eq!(transports_of(busy(), 2).await, ["scripted", "scripted"]);
    let paused = transports_of(Failover::new(down()).or(busy()), 2).await;
    assert_eq!(paused, ["failover/scripted, scripted#2", "failover/scripted#2"]);
    let nested = transports_of(Failover::new(RoundRobin::new(busy(), 1)), 2).await;
    assert_eq!(nested, ["failover/round-robin/scripted", "failover/round-robin/scripted"]);
}

#[tokio::test]
async fn a_tap_sees_what_a_relay_sends() {
    let seen = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let note = std::sync::Arc::clone(&seen);
    let scripted = ScriptedTransport::<Email>::new()
        .then(Err(Failure::transient(Scope::Message, "busy")))
        .then(Ok(Receipt::new()));
    let transport = Tap::new(scripted, move |outgoing, result: &Result<Receipt, Failure>| {
        note.lock().unwrap().push((outgoing.attempt(), result.is_ok()));
    });
    let outbox = Outbox::new(MemoryStore::new(), transport);
    outbox.enqueue(ada()).await.unwrap();
    while outbox.stats().await.unwrap().sent == 0 {
        outbox.relay().retry(eager()).drain().await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(*seen.lock().unwrap(), [(1, false), (2, true)]);
}

/// Each message waits longer than its lease. Invariant 2.
#[cfg(feature = "rate-limit")]
#[tokio::test]
async fn a_wait_for_a_rate_limit_costs_no_attempt_and_no_lease() {
    let scripted = ScriptedTransport::<Email>::new();
    let limited = postrider::transport::RateLimit::new(scripted.clone(), 1, Duration::from_millis(150));
    let outbox = Outbox::new(MemoryStore::new(), limited);
    let ids = outbox.enqueue_all((0..8).map(|_| ada())).await.unwrap();
    let summary = outbox.relay().lease(Duration::from_millis(100)).retry(eager()).drain().await.unwrap();
    assert_eq!((summary.sent, summary.retried), (8, 0));
    assert_eq!(scripted.calls().len(), 8, "a message was sent again");
    for id in ids {
        let delivery = outbox.get(id).await.unwrap().unwrap();
        assert_eq!((delivery.state, delivery.attempts.len()), (State::Sent, 1));
    }
}
