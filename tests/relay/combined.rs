//! A relay with transports made of others.

use std::time::Duration;

use postrider::testkit::ScriptedTransport;
use postrider::transport::{Failover, Receipt, RoundRobin, Tap};
use postrider::{Email, Failure, MemoryStore, Outbox, Scope, State, Transport};

use crate::support::{Diary, ada, eager};

fn down() -> ScriptedTransport<Email> {
    ScriptedTransport::new().answering(|_| async { Err(Failure::permanent(Scope::Transport, "535 wrong password")) })
}

async fn drained(transport: impl Transport<Message = Email>) {
    let name = transport.name().to_owned();
    let outbox = Outbox::new(MemoryStore::new(), transport);
    let ids = outbox.enqueue_all((0..50).map(|_| ada())).await.unwrap();
    let diary = Diary::default();
    let relay = outbox.relay().concurrency(4).retry(eager()).observer(diary.clone());
    let pass = relay.drain().await.unwrap();
    assert_eq!((pass.sent, pass.retried, pass.paused), (50, 0, None));
    assert_eq!(diary.count("paused"), 0, "one transport that is down stopped the one that works");
    let paused = outbox.stats().await.unwrap().relays[0].paused.clone();
    assert_eq!(paused.unwrap(), format!("{name}/scripted: 535 wrong password"), "nobody learns that one is down");
    for id in ids {
        let delivery = outbox.get(id).await.unwrap().unwrap();
        assert_eq!((delivery.state, delivery.attempts.len()), (State::Sent, 1));
        assert!(delivery.attempts[0].charged);
    }
}

#[tokio::test]
async fn an_outage_of_one_transport_is_no_outage() {
    let (first, second) = (down(), ScriptedTransport::new());
    drained(Failover::new(first.clone()).or(second.clone())).await;
    assert!(first.calls().len() <= 4, "it went on trying");
    assert_eq!(second.calls().len(), 50);

    let (first, second) = (down(), ScriptedTransport::new());
    drained(RoundRobin::new(first.clone(), 10).and(second.clone(), 1)).await;
    assert!(first.calls().len() <= 4, "it went on trying");
    assert_eq!(second.calls().len(), 50);
}

#[tokio::test]
async fn an_outage_of_all_costs_no_message_anything() {
    let outbox = Outbox::new(MemoryStore::new(), Failover::new(down()).or(down()));
    let ids = outbox.enqueue_all((0..10).map(|_| ada())).await.unwrap();
    let pass = outbox.relay().retry(eager()).drain().await.unwrap();
    let pause = pass.paused.expect("the pass says that the transport is paused");
    assert_eq!(pause.transport, "failover");
    assert!(pause.reason.contains("scripted: 535 wrong password"), "{}", pause.reason);
    assert!(pause.reason.contains("scripted#2: 535 wrong password"), "{}", pause.reason);
    for id in ids {
        let delivery = outbox.get(id).await.unwrap().unwrap();
        assert_eq!(delivery.state, State::Pending);
        assert!(delivery.attempts.iter().all(|attempt| !attempt.charged), "a message was charged");
    }
}

/// What the history says of each attempt, where the last of so many succeeds.
async fn paths(transport: impl Transport<Message = Email>, attempts: usize) -> Vec<String> {
    let outbox = Outbox::new(MemoryStore::new(), transport);
    let id = outbox.enqueue(ada()).await.unwrap();
    for _ in 0..attempts {
        outbox.relay().retry(eager()).drain().await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let delivery = outbox.get(id).await.unwrap().unwrap();
    assert_eq!((delivery.state, delivery.attempts.len()), (State::Sent, attempts));
    delivery.attempts.into_iter().map(|attempt| attempt.transport.expect("one was called")).collect()
}

#[tokio::test]
async fn the_history_says_who_was_called() {
    let busy =
        || ScriptedTransport::new().then(Err(Failure::transient(Scope::Message, "busy"))).then(Ok(Receipt::new()));
    assert_eq!(paths(busy(), 2).await, ["scripted", "scripted"]);
    let paused = paths(Failover::new(down()).or(busy()), 2).await;
    assert_eq!(paused, ["failover/scripted, scripted#2", "failover/scripted#2"]);
    let nested = paths(Failover::new(RoundRobin::new(busy(), 1)), 2).await;
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

/// Each waits its turn for longer than a lease lasts.
#[cfg(feature = "rate-limit")]
#[tokio::test]
async fn a_wait_for_a_limit_costs_no_attempt_and_no_lease() {
    let scripted = ScriptedTransport::<Email>::new();
    let limited = postrider::transport::RateLimit::new(scripted.clone(), 1, Duration::from_millis(150));
    let outbox = Outbox::new(MemoryStore::new(), limited);
    let ids = outbox.enqueue_all((0..8).map(|_| ada())).await.unwrap();
    let pass = outbox.relay().lease(Duration::from_millis(100)).retry(eager()).drain().await.unwrap();
    assert_eq!((pass.sent, pass.retried), (8, 0));
    assert_eq!(scripted.calls().len(), 8, "a message was sent again");
    for id in ids {
        let delivery = outbox.get(id).await.unwrap().unwrap();
        assert_eq!((delivery.state, delivery.attempts.len()), (State::Sent, 1));
    }
}
