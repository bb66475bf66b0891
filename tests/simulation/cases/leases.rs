//! Leases, claims and calls around outages and shutdowns.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use postrider::testkit::ScriptedTransport;
use postrider::transport::{Outgoing, Receipt};
use postrider::{AdminStore, Failure, MemoryStore, Outbox, Outcome, State, Transport};

use super::{HOUR, MINUTE, SECOND, message, run_for, scripted, store};
use crate::faulty_store::FaultyStore;
use crate::message::TestMessage;
use crate::next_hop::World;
use crate::plan::{Fault, FaultKind, Plan};

/// A transport that waits before each request.
struct Waiting {
    wait: Duration,
    requests: Arc<AtomicU64>,
}

impl Transport for Waiting {
    type Message = TestMessage;

    fn name(&self) -> &str {
        "waiting"
    }

    async fn send(&self, outgoing: &Outgoing<TestMessage>) -> Result<Receipt, Failure> {
        let waiting = outgoing.waiting();
        tokio::time::sleep(self.wait).await;
        drop(waiting);
        self.requests.fetch_add(1, Ordering::SeqCst);
        Ok(Receipt::new())
    }
}

/// Invariant 9.
#[tokio::test(start_paused = true)]
async fn a_mail_that_waits_in_the_transport_at_shutdown_is_released_uncharged() {
    let requests = Arc::new(AtomicU64::new(0));
    let outbox = Outbox::new(store(), Waiting { wait: HOUR, requests: Arc::clone(&requests) });
    let id = outbox.enqueue(message(0, "a")).await.unwrap();
    run_for(outbox.relay(), MINUTE).await;
    let delivery = outbox.get(id).await.unwrap().unwrap();
    assert_eq!((delivery.state, delivery.attempts.len(), requests.load(Ordering::SeqCst)), (State::Pending, 0, 0));
}

/// A store with one fault, for relay 0.
fn faulty(store: &MemoryStore, kind: FaultKind, from: Duration, until: Duration) -> FaultyStore {
    let mut plan = Plan::draw(0);
    plan.faults = vec![Fault { relay: Some(0), from, until, kind }];
    FaultyStore { store: store.clone(), world: World::new(plan), relay: 0, calls: Arc::default() }
}

/// Invariant 2.
#[tokio::test(start_paused = true)]
async fn a_lost_lease_ends_a_call_that_waits() {
    let (store, requests) = (store(), Arc::new(AtomicU64::new(0)));
    // The outage is longer than the lease. Another relay sends the mail meanwhile.
    let failing = faulty(&store, FaultKind::Down, SECOND * 5, SECOND * 95);
    let slow = Outbox::new(failing, Waiting { wait: MINUTE * 5, requests: Arc::clone(&requests) });
    let quick = Outbox::new(store.clone(), Waiting { wait: Duration::ZERO, requests: Arc::clone(&requests) });
    let id = quick.enqueue(message(0, "a")).await.unwrap();
    let other = async {
        tokio::time::sleep(SECOND * 10).await;
        run_for(quick.relay(), MINUTE * 10).await;
    };
    tokio::join!(run_for(slow.relay(), MINUTE * 10), other);
    assert_eq!((store.get(id).await.unwrap().unwrap().state, requests.load(Ordering::SeqCst)), (State::Sent, 1));
}

/// Invariants 2, 3.
#[tokio::test(start_paused = true)]
async fn an_outage_longer_than_the_lease_sends_no_mail_twice() {
    for outage in [58, 61, 65, 75] {
        let store = store();
        let failing = faulty(&store, FaultKind::Down, SECOND * 5, SECOND * (5 + outage));
        let transport = ScriptedTransport::new().with_handler(|_| async {
            tokio::time::sleep(MINUTE * 4).await;
            Ok(Receipt::new())
        });
        let outbox = Outbox::new(failing, transport.clone());
        let ids = outbox.enqueue_all((0..3).map(|n| message(n, "a"))).await.unwrap();
        run_for(outbox.relay().concurrency(8), MINUTE * 10).await;
        for id in ids {
            let attempts = store.get(id).await.unwrap().unwrap().attempts;
            let outcomes: Vec<_> = attempts.iter().map(|attempt| attempt.outcome).collect();
            assert_eq!(outcomes, [Outcome::Sent], "an outage of {outage} s: it charged its own mail a lost attempt");
        }
        let sent = Outbox::new(store, ScriptedTransport::<TestMessage>::new()).stats().await.unwrap().sent;
        assert_eq!((sent, transport.calls().len()), (3, 3), "an outage of {outage} s");
    }
}

/// Invariants 3, 4.
#[tokio::test(start_paused = true)]
async fn a_claim_without_an_answer_charges_no_mail() {
    let late = |seconds| FaultKind::LateEvenIfDropped(Duration::from_secs(seconds));
    for (kind, lease) in [
        (FaultKind::AnswerLost(100), 60),
        (FaultKind::AnswerLost(100), 5),
        (late(29), 60),
        (late(35), 60),
        (late(35), 5),
    ] {
        let store = store();
        let failing = faulty(&store, kind, Duration::ZERO, SECOND);
        let transport = scripted(|_| Ok(Receipt::new()));
        let outbox = Outbox::new(failing, transport.clone());
        let id = outbox.enqueue(message(0, "a")).await.unwrap();
        run_for(outbox.relay().lease(SECOND * lease), MINUTE * 10).await;
        let attempts = store.get(id).await.unwrap().unwrap().attempts;
        let outcomes: Vec<_> = attempts.iter().map(|attempt| attempt.outcome).collect();
        assert_eq!((outcomes, transport.calls().len()), (vec![Outcome::Sent], 1), "{kind:?}, a lease of {lease} s");
    }
}
