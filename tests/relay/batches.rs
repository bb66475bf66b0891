//! Results: how a relay writes them, and what they record.

use std::sync::Arc;
use std::time::Duration;

use postrider::testkit::ScriptedTransport;
use postrider::transport::Receipt;
use postrider::{Email, Failure, Outbox, Outcome, Scope};
use tokio_util::sync::CancellationToken;

use crate::harness::{EventLog, eager, get, outbox};
use crate::support::fixture::ada;
use crate::support::wait::until;
use crate::unreliable_store::UnreliableStore;

/// Invariant 3.
#[tokio::test]
async fn each_message_of_a_batch_has_its_own_result() {
    let transport = ScriptedTransport::new()
        .with_max_batch(4)
        .then(Ok(Receipt::new()))
        .then(Err(Failure::permanent(Scope::Message, "no")))
        .then(Err(Failure::transient(Scope::Message, "later")));
    let outbox = outbox(transport.clone());
    outbox.enqueue_all((0..6).map(|_| ada())).await.unwrap();
    let summary = outbox.relay().concurrency(6).retry(eager()).drain().await.unwrap();
    assert_eq!((summary.sent, summary.dead, summary.retried), (4, 1, 1));
    assert_eq!(transport.calls().len(), 6);
}

/// Invariant 3.
#[tokio::test]
async fn a_message_holds_its_permit_until_its_result_is_written() {
    let store = UnreliableStore::default();
    let failing = store.clone();
    let transport = ScriptedTransport::<Email>::new().with_handler(move |_| {
        failing.take_down();
        async { Ok(Receipt::new()) }
    });
    let outbox = Outbox::new(store.clone(), transport.clone());
    outbox.enqueue_all((0..20).map(|_| ada())).await.unwrap();
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn(outbox.relay().concurrency(4).run(shutdown.clone().cancelled_owned()));
    until("settling fails", || async { store.failures() >= 5 }).await;
    assert_eq!(transport.calls().len(), 4, "a call was made without a permit");
    store.bring_up();
    shutdown.cancel();
    worker.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn results_that_finish_during_a_write_share_the_next_one() {
    // The transport takes one call at a time, each of a millisecond.
    let queue = Arc::new(tokio::sync::Mutex::new(()));
    let transport = ScriptedTransport::<Email>::new().with_handler(move |_| {
        let queue = Arc::clone(&queue);
        async move {
            let _turn = queue.lock().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok(Receipt::new())
        }
    });
    let millisecond = Duration::from_millis(1);
    for (mails, takes, batches) in
        [(1, millisecond, 1..=1), (400, millisecond * 5, 70..=110), (400, Duration::ZERO, 400..=400)]
    {
        let store = UnreliableStore::default().with_settle_time(takes);
        let outbox = Outbox::new(store.clone(), transport.clone());
        outbox.enqueue_all((0..mails).map(|_| ada())).await.unwrap();
        let events = EventLog::default();
        let shutdown = CancellationToken::new();
        let worker = tokio::spawn(
            outbox.relay().concurrency(256).observer(events.clone()).run(shutdown.clone().cancelled_owned()),
        );
        until("all are sent", || async { events.count("sent") == mails }).await;
        assert!(batches.contains(&store.settle_calls()), "{} batches for {mails} results", store.settle_calls());
        shutdown.cancel();
        worker.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn nul_characters_of_a_reply_are_not_stored() {
    let answer = Receipt::new().with_reply("250 o\0k").with_provider_id("a\0b").with_via("s\0es");
    let outbox =
        outbox(ScriptedTransport::new().then(Ok(answer)).then(Err(Failure::permanent(Scope::Message, "n\0o"))));
    let ids = outbox.enqueue_all((0..2).map(|_| ada())).await.unwrap();
    outbox.relay().concurrency(1).drain().await.unwrap();
    let sent = get(&outbox, ids[0]).await;
    assert_eq!(sent.attempts[0].reply.as_deref(), Some("250 ok"));
    assert_eq!(sent.attempts[0].provider_id.as_deref(), Some("ab"));
    assert_eq!(sent.attempts[0].transport.as_deref(), Some("scripted/ses"));
    assert_eq!(get(&outbox, ids[1]).await.reason.as_deref(), Some("permanent: no"));
}

#[tokio::test]
async fn the_history_has_the_times_and_the_reply_of_an_attempt() {
    let receipt = Receipt::new().with_provider_id("abc").with_reply("250 queued as abc");
    let outbox = outbox(ScriptedTransport::new().then(Ok(receipt)));
    let id = outbox.enqueue(ada()).await.unwrap();
    outbox.relay().drain().await.unwrap();
    let shown = get(&outbox, id).await;
    let attempt = &shown.attempts[0];
    assert_eq!((attempt.number, attempt.cycle, attempt.outcome), (1, 1, Outcome::Sent));
    assert!(attempt.started_at >= shown.created_at && attempt.finished_at >= attempt.started_at);
    assert_eq!((attempt.reply.as_deref(), attempt.provider_id.as_deref()), (Some("250 queued as abc"), Some("abc")));
    assert_eq!(shown.recipients[0].reply.as_deref(), Some("250 queued as abc"));
    assert_eq!(shown.template_id.as_deref(), Some("hello"));
}
