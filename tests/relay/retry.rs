//! Failures, retries, budgets and messages in doubt.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use postrider::store::TestClock;
use postrider::testkit::ScriptedTransport;
use postrider::transport::{Class, Receipt, Refusal};
use postrider::{
    Email, Event, Failure, MemoryStore, NewDelivery, Outbox, Outcome, RecipientState, RetryPolicy, Scope, State,
    UpdateOutcome, WhenInDoubt,
};

use crate::harness::{EventLog, eager, get, outbox};
use crate::support::fixture::{SECOND, ada, email};

fn with_clock(transport: ScriptedTransport<Email>) -> (TestClock, crate::harness::TestOutbox) {
    let clock = TestClock::new();
    (clock.clone(), Outbox::new(MemoryStore::with_test_clock(clock), transport))
}

#[tokio::test]
async fn a_failed_message_is_not_retried_in_the_same_drain() {
    let transport =
        ScriptedTransport::new().with_handler(|_| async { Err(Failure::transient(Scope::Message, "busy")) });
    let outbox = outbox(transport.clone());
    outbox.enqueue_all((0..20).map(|_| ada())).await.unwrap();
    let summary = outbox.relay().concurrency(3).retry(eager()).drain().await.unwrap();
    assert_eq!((summary.retried, transport.calls().len()), (20, 20));
}

/// Invariants 3, 5, 8.
#[tokio::test]
async fn waits_grow_until_the_budget_is_spent() {
    let (clock, outbox) = with_clock(
        ScriptedTransport::new().with_handler(|_| async { Err(Failure::transient(Scope::Message, "busy")) }),
    );
    let policy = RetryPolicy::default().attempts(3).backoff(SECOND * 10, SECOND * 60).jitter(0.0);
    let id = outbox.enqueue(ada()).await.unwrap();
    for wait in [10, 20] {
        assert_eq!(outbox.relay().retry(policy).tick().await.unwrap().retried, 1);
        clock.advance(SECOND * wait - Duration::from_millis(1));
        assert_eq!(outbox.relay().retry(policy).tick().await.unwrap().retried, 0, "the retry came too early");
        clock.advance(Duration::from_millis(1));
    }
    assert_eq!(outbox.relay().retry(policy).tick().await.unwrap().dead, 1);
    let shown = get(&outbox, id).await;
    assert_eq!(shown.reason.as_deref(), Some("budget: 3 attempts spent: busy"));
    let history: Vec<_> = shown.attempts.iter().map(|a| (a.number, a.outcome, a.error.as_deref())).collect();
    assert_eq!(history, [1, 2, 3].map(|n| (n, Outcome::Transient, Some("busy"))));
}

#[tokio::test]
async fn the_next_hop_can_ask_for_a_longer_wait() {
    let later = Failure::transient(Scope::Message, "greylisted").with_retry_after(SECOND * 1_800);
    let (clock, outbox) = with_clock(ScriptedTransport::new().then(Err(later)));
    let id = outbox.enqueue(ada()).await.unwrap();
    outbox.relay().tick().await.unwrap();
    clock.advance(SECOND * 1_799);
    assert_eq!(outbox.relay().tick().await.unwrap().sent, 0);
    clock.advance(SECOND);
    assert_eq!(outbox.relay().tick().await.unwrap().sent, 1);
    assert_eq!(get(&outbox, id).await.attempts.len(), 2);
}

/// Invariant 5.
#[tokio::test]
async fn on_dead_letter_runs_once_after_the_commit() {
    let outbox = outbox(ScriptedTransport::new().then(Err(Failure::permanent(Scope::Message, "550 no such user"))));
    let id = outbox.enqueue(ada()).await.unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (record, inspect) = (Arc::clone(&seen), outbox.clone());
    let relay = outbox.relay().on_dead_letter(move |event| {
        if let Event::DeadLettered { id, template_id, reason, .. } = event {
            // The store in memory never waits.
            let state = futures_util::FutureExt::now_or_never(inspect.get(*id)).unwrap().unwrap().unwrap().state;
            record.lock().unwrap().push((*id, template_id.map(str::to_owned), (*reason).to_owned(), state));
        }
    });
    assert_eq!(relay.drain().await.unwrap().dead, 1);
    outbox.relay().drain().await.unwrap();
    let expected = (id, Some("hello".to_owned()), "permanent: 550 no such user".to_owned(), State::Dead);
    assert_eq!(*seen.lock().unwrap(), [expected]);
    let shown = get(&outbox, id).await;
    assert_eq!((shown.attempts.len(), shown.attempts[0].outcome), (1, Outcome::Permanent));
}

/// Invariants 5, 8.
#[tokio::test]
async fn age_ends_a_delivery() {
    let transport =
        ScriptedTransport::new().with_handler(|_| async { Err(Failure::transient(Scope::Message, "busy")) });
    let (clock, outbox) = with_clock(transport.clone());
    let by_policy = outbox.enqueue(ada()).await.unwrap();
    let by_expiry = outbox.enqueue(NewDelivery::new(ada()).expires_in(SECOND * 30)).await.unwrap();
    let policy = RetryPolicy::default().max_age(SECOND * 100).backoff(SECOND, SECOND);
    clock.advance(SECOND * 31);
    let summary = outbox.relay().retry(policy).tick().await.unwrap();
    assert_eq!((summary.dead, summary.retried), (1, 1));
    let expired = get(&outbox, by_expiry).await;
    assert_eq!((expired.state, expired.attempts.len()), (State::Dead, 0));
    assert!(expired.reason.unwrap().starts_with("expired: "));
    clock.advance(SECOND * 70);
    assert_eq!(outbox.relay().retry(policy).tick().await.unwrap().dead, 1);
    assert!(get(&outbox, by_policy).await.reason.unwrap().starts_with("expired: "));
    assert_eq!(transport.calls().len(), 1, "an expired message was sent");
}

/// An error whose `Display` panics.
#[derive(Debug)]
struct PanickingError;

impl std::fmt::Display for PanickingError {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        panic!("an error panics")
    }
}

impl std::error::Error for PanickingError {}

/// Invariant 4.
#[tokio::test]
async fn an_error_that_panics_harms_no_other_message() {
    let transport = ScriptedTransport::new().with_handler(|call| {
        let bad = call.recipients[0].as_str() == "bad@example.com";
        async move { if bad { Err(Failure::transient(Scope::Message, PanickingError)) } else { Ok(Receipt::new()) } }
    });
    let outbox = outbox(transport);
    let bad = outbox.enqueue(email(&["bad@example.com"])).await.unwrap();
    outbox.enqueue_all((0..200).map(|_| ada())).await.unwrap();
    let summary = outbox.relay().concurrency(256).retry(eager()).drain().await.unwrap();
    assert_eq!(summary.sent, 200);
    assert_eq!(get(&outbox, bad).await.state, State::Leased, "the lease has not run out");
}

/// Invariants 3, 5.
#[tokio::test]
async fn a_transport_that_panics_costs_its_message_one_attempt() {
    let transport = ScriptedTransport::new().with_handler(|call| {
        let recipients = call.recipients.clone();
        async move {
            assert_ne!(recipients[0].as_str(), "bad@example.com", "a panic in a transport");
            Ok(Receipt::new())
        }
    });
    let outbox = outbox(transport);
    let bad = outbox.enqueue(email(&["bad@example.com"])).await.unwrap();
    outbox.enqueue_all((0..10).map(|_| ada())).await.unwrap();
    let summary = outbox.relay().retry(eager()).drain().await.unwrap();
    assert_eq!((summary.sent, summary.retried), (10, 1));
    let shown = get(&outbox, bad).await;
    assert_eq!(shown.attempts[0].outcome, Outcome::InDoubt);
    assert_eq!(shown.attempts[0].error.as_deref(), Some("the transport panicked"));
    assert_eq!(shown.attempts[0].transport.as_deref(), Some("scripted"));
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        outbox.relay().retry(eager()).drain().await.unwrap();
    }
    let shown = get(&outbox, bad).await;
    assert_eq!((shown.state, shown.attempts.len()), (State::Dead, 3));
}

#[tokio::test]
async fn a_message_in_doubt_is_resent_or_held() {
    let doubt = || Err(Failure::maybe_accepted("no answer"));
    let outbox = outbox(ScriptedTransport::new().then(doubt()).then(doubt()));
    let events = EventLog::default();
    let hold = NewDelivery::new(ada()).when_in_doubt(WhenInDoubt::Hold);
    let held = outbox.enqueue(hold).await.unwrap();
    let again = outbox.enqueue(ada()).await.unwrap();
    let pause = postrider::Backoff::new(Duration::from_millis(1), Duration::from_millis(1));
    let relay = || outbox.relay().concurrency(1).retry(eager()).pause(pause).observer(events.clone());
    // A next hop that does not answer may answer no one, so each of the two ends a drain.
    for expected in [(1, 0), (0, 1)] {
        let summary = relay().drain().await.unwrap();
        assert_eq!((summary.in_doubt, summary.retried), expected);
        assert_eq!(summary.paused.unwrap().reason, "no answer");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    relay().drain().await.unwrap();
    let shown = get(&outbox, held).await;
    assert_eq!((shown.state, shown.reason.as_deref()), (State::InDoubt, Some("in doubt: no answer")));
    assert_eq!(events.count("held"), 1);
    assert_eq!(get(&outbox, again).await.state, State::Sent);
    assert_eq!(outbox.resend(held).await.unwrap(), UpdateOutcome::Updated);
    relay().drain().await.unwrap();
    assert_eq!(get(&outbox, held).await.state, State::Sent);
}

/// Invariant 3.
#[tokio::test]
async fn each_recipient_gets_one_copy_and_refusals_are_recorded() {
    let refused = vec![
        Refusal::new("b@example.com", Class::Permanent, "550 no such user"),
        Refusal::new("c@example.com", Class::Transient, "450 busy"),
    ];
    let transport = ScriptedTransport::new().then(Ok(Receipt::new().with_reply("250 ok").with_refused(refused)));
    let outbox = outbox(transport.clone());
    let id = outbox.enqueue(email(&["a@example.com", "b@example.com", "c@example.com"])).await.unwrap();
    outbox.relay().retry(eager()).drain().await.unwrap();
    tokio::time::sleep(Duration::from_millis(5)).await;
    outbox.relay().retry(eager()).drain().await.unwrap();
    let calls = transport.calls();
    let mailed: Vec<Vec<&str>> =
        calls.iter().map(|call| call.recipients.iter().map(|r| r.as_str()).collect()).collect();
    assert_eq!(mailed, [vec!["a@example.com", "b@example.com", "c@example.com"], vec!["c@example.com"]]);
    assert_ne!(calls[0].idempotency_key, calls[1].idempotency_key, "another request needs another key");
    let shown = get(&outbox, id).await;
    assert_eq!(shown.state, State::Sent);
    let states: Vec<_> = shown.recipients.iter().map(|r| (r.state, r.reply.as_deref())).collect();
    assert_eq!(states[0], (RecipientState::Sent, Some("250 ok")));
    assert_eq!(states[1], (RecipientState::Refused, Some("550 no such user")));
    assert_eq!(states[2].0, RecipientState::Sent);
}

/// Invariant 3.
#[tokio::test]
async fn a_resend_has_a_new_budget_and_a_new_idempotency_key() {
    let transport = ScriptedTransport::new().then(Err(Failure::permanent(Scope::Message, "no")));
    let outbox = outbox(transport.clone());
    let id = outbox.enqueue(ada()).await.unwrap();
    outbox.relay().drain().await.unwrap();
    assert_eq!(get(&outbox, id).await.state, State::Dead);
    assert_eq!(outbox.resend(id).await.unwrap(), UpdateOutcome::Updated);
    outbox.relay().drain().await.unwrap();
    let shown = get(&outbox, id).await;
    let history: Vec<_> = shown.attempts.iter().map(|a| (a.number, a.cycle, a.outcome)).collect();
    assert_eq!(history, [(1, 1, Outcome::Permanent), (2, 2, Outcome::Sent)]);
    let calls = transport.calls();
    assert_eq!(calls[1].attempt, 2);
    assert_ne!(calls[0].idempotency_key, calls[1].idempotency_key);
}

/// Invariant 3.
#[tokio::test]
async fn a_call_that_never_ends_is_in_doubt_after_the_timeout() {
    let transport = ScriptedTransport::new().with_handler(|_| std::future::pending());
    let outbox = outbox(transport);
    let id = outbox.enqueue(NewDelivery::new(ada()).when_in_doubt(WhenInDoubt::Hold)).await.unwrap();
    let summary = outbox.relay().send_timeout(Duration::from_millis(20)).drain().await.unwrap();
    assert_eq!(summary.in_doubt, 1);
    assert_eq!(get(&outbox, id).await.attempts[0].outcome, Outcome::InDoubt);
}

#[tokio::test]
async fn the_largest_settings_and_waits_work() {
    let endless = || Failure::transient(Scope::Message, "later").with_retry_after(Duration::MAX);
    let transport =
        ScriptedTransport::new().then(Err(endless())).then(Err(endless().with_scope(postrider::Scope::Transport)));
    let outbox = outbox(transport);
    let never = NewDelivery::new(ada()).send_in(Duration::MAX).expires_in(Duration::MAX);
    let never = outbox.enqueue(never).await.unwrap();
    outbox.enqueue_all((0..2).map(|_| ada())).await.unwrap();
    let policy = RetryPolicy::default()
        .backoff(Duration::MAX, Duration::MAX)
        .factor(f64::MAX)
        .jitter(f64::INFINITY)
        .attempts(u32::MAX)
        .max_age(Duration::MAX);
    let relay = outbox.relay().concurrency(1).retry(policy).lease(Duration::MAX).poll(Duration::MAX);
    let relay = relay.grace(Duration::MAX).send_timeout(Duration::MAX);
    let summary = relay.drain().await.unwrap();
    assert_eq!((summary.sent, summary.paused.is_some()), (0, true));
    assert_eq!(get(&outbox, never).await.state, State::Pending);
    let shutdown = tokio_util::sync::CancellationToken::new();
    let worker = tokio::spawn(outbox.relay().poll(Duration::MAX).run(shutdown.clone().cancelled_owned()));
    tokio::time::sleep(Duration::from_millis(20)).await;
    shutdown.cancel();
    worker.await.unwrap().unwrap();
}
