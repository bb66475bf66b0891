//! From the queue to the transport.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use postrider::store::{Claim, NewRow, TestClock};
use postrider::testkit::ScriptedTransport;
use postrider::transport::{Encoded, Receipt, Recipient};
use postrider::{
    AdminStore, DeliveryId, Email, Failure, MemoryStore, NewDelivery, Outbox, Outcome, Priority, Scope, State, Store,
};
use tokio_util::sync::CancellationToken;

use crate::support::{Diary, SECOND, ada, eager, get, outbox, until, until_state};

#[tokio::test]
async fn what_is_due_at_the_start_is_sent_and_then_what_comes() {
    let outbox = outbox(ScriptedTransport::new());
    let before = outbox.enqueue(ada()).await.unwrap();
    let shutdown = CancellationToken::new();
    // A poll that never comes: only the start and signals can do it.
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

#[tokio::test]
async fn what_falls_due_is_met_on_time_whatever_the_poll() {
    let outbox = outbox(ScriptedTransport::new());
    let soon = NewDelivery::new(ada()).send_in(Duration::from_millis(80));
    let id = outbox.enqueue(soon).await.unwrap();
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn(outbox.relay().poll(SECOND * 10_000).run(shutdown.clone().cancelled_owned()));
    until_state(&outbox, id, State::Sent).await;
    shutdown.cancel();
    worker.await.unwrap().unwrap();
}

#[tokio::test]
async fn polling_finds_what_no_signal_told_of() {
    // A second handle on the same deliveries whose signals go elsewhere: another process, as it were.
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
async fn a_tick_sends_one_batch_and_a_drain_all() {
    let transport = ScriptedTransport::new();
    let outbox = outbox(transport.clone());
    outbox.enqueue_all((0..10).map(|_| ada())).await.unwrap();
    let pass = outbox.relay().concurrency(4).tick().await.unwrap();
    assert_eq!((pass.sent, transport.calls().len()), (4, 4));
    let pass = outbox.relay().concurrency(4).drain().await.unwrap();
    assert_eq!((pass.sent, transport.calls().len()), (6, 10));
    assert_eq!(outbox.relay().tick().await.unwrap().sent, 0);
}

#[tokio::test]
async fn a_drain_leaves_what_is_enqueued_meanwhile() {
    let store = MemoryStore::new();
    let store_of_transport = store.clone();
    let transport = ScriptedTransport::new().answering(move |_| {
        let outbox = Outbox::enqueue_only(store_of_transport.clone());
        async move {
            // Due a moment after the drain began; without a bound the drain would never end.
            tokio::time::sleep(Duration::from_millis(3)).await;
            outbox.enqueue(ada()).await.unwrap();
            Ok(Receipt::new())
        }
    });
    let outbox = Outbox::new(store, transport);
    outbox.enqueue(ada()).await.unwrap();
    let pass = tokio::time::timeout(SECOND * 20, outbox.relay().drain()).await.expect("the drain ends").unwrap();
    assert_eq!(pass.sent, 1);
    assert_eq!(outbox.stats().await.unwrap().pending, 1);
}

#[tokio::test]
async fn no_more_are_sent_at_once_than_asked() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (n, m) = (Arc::clone(&now), Arc::clone(&most));
    let transport = ScriptedTransport::new().answering(move |_| {
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
async fn the_most_urgent_goes_first() {
    let transport = ScriptedTransport::new();
    let outbox = outbox(transport.clone());
    let bulk = outbox.enqueue(NewDelivery::new(ada()).priority(Priority::BULK)).await.unwrap();
    let normal = outbox.enqueue(ada()).await.unwrap();
    let urgent = outbox.enqueue(NewDelivery::new(ada()).priority(Priority::URGENT)).await.unwrap();
    outbox.relay().concurrency(1).drain().await.unwrap();
    let order: Vec<_> = transport.calls().iter().map(|call| call.id).collect();
    assert_eq!(order, [urgent, normal, bulk]);
}

#[tokio::test]
async fn history_has_the_start_the_end_and_the_answer() {
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

#[tokio::test]
async fn batches_are_filled_and_each_message_has_its_own_result() {
    let transport = ScriptedTransport::new()
        .batches_of(4)
        .then(Ok(Receipt::new()))
        .then(Err(Failure::permanent(Scope::Message, "no")))
        .then(Err(Failure::transient(Scope::Message, "later")));
    let outbox = outbox(transport.clone());
    outbox.enqueue_all((0..6).map(|_| ada())).await.unwrap();
    let pass = outbox.relay().concurrency(6).retry(eager()).drain().await.unwrap();
    assert_eq!((pass.sent, pass.dead, pass.retried), (4, 1, 1));
    assert_eq!(transport.calls().len(), 6);
}

#[tokio::test]
async fn a_message_that_cannot_be_read_ends_as_a_dead_letter_and_stops_nobody() {
    let outbox = outbox(ScriptedTransport::new());
    let raw = |format: &str| {
        let message = Encoded { format: format.to_owned(), body: "{\"secret\": broken".to_owned() };
        NewRow::new(postrider::DeliveryId::new(), message, vec![Recipient::new("ada@example.com")])
    };
    let ids = outbox.store().insert(vec![raw("email/1"), raw("email/99")]).await.unwrap();
    let good = outbox.enqueue(ada()).await.unwrap();
    let pass = outbox.relay().retry(eager()).drain().await.unwrap();
    assert_eq!((pass.dead, pass.retried, pass.sent), (1, 1, 1));
    let damaged = get(&outbox, ids[0]).await;
    assert_eq!((damaged.state, damaged.attempts.len()), (State::Dead, 1));
    assert_eq!(damaged.attempts[0].transport, None, "nobody was called");
    assert!(damaged.reason.unwrap().starts_with("permanent: the stored mail is malformed"));
    // A newer program may know the format, so that one has its whole budget first.
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        outbox.relay().retry(eager()).drain().await.unwrap();
    }
    let unknown = get(&outbox, ids[1]).await;
    assert_eq!((unknown.state, unknown.attempts.len()), (State::Dead, 3));
    assert_eq!(get(&outbox, good).await.state, State::Sent);
}

#[tokio::test]
async fn a_lost_lease_is_reported_and_overwrites_nothing() {
    let clock = TestClock::new();
    let store = MemoryStore::with_test_clock(clock.clone());
    let (thief_store, thief_clock) = (store.clone(), clock.clone());
    let transport = ScriptedTransport::new().answering(move |_| {
        let (store, clock) = (thief_store.clone(), thief_clock.clone());
        async move {
            // While this relay sends, its lease runs out and another one takes the delivery over.
            clock.advance(SECOND * 3_600);
            let stolen = store.claim(Claim::new(1, SECOND * 3_600)).await.unwrap();
            assert!(stolen[0].lost);
            Ok(Receipt::new())
        }
    });
    let outbox = Outbox::new(store, transport);
    let id = outbox.enqueue(ada()).await.unwrap();
    let diary = Diary::default();
    let pass = outbox.relay().observer(diary.clone()).tick().await.unwrap();
    assert_eq!((pass.lease_lost, pass.sent), (1, 0));
    assert_eq!(diary.count("lease lost"), 1);
    let shown = get(&outbox, id).await;
    assert_eq!((shown.state, shown.attempts.len()), (State::Leased, 1));
    assert_eq!(shown.attempts[0].outcome, Outcome::Lost);
}

#[tokio::test]
async fn a_lease_is_renewed_while_a_send_takes_its_time() {
    let transport = ScriptedTransport::new().answering(|_| async {
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
    until("it is sent", || async { outbox.stats().await.unwrap().sent == 1 }).await;
    shutdown.cancel();
    for worker in workers {
        assert_eq!(worker.await.unwrap().unwrap().lease_lost, 0);
    }
    assert_eq!(transport.calls().len(), 1);
}

#[tokio::test]
async fn a_running_relay_is_on_view_and_says_good_bye() {
    let outbox = outbox(ScriptedTransport::new());
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn(outbox.relay().run(shutdown.clone().cancelled_owned()));
    until("the relay reports", || async { outbox.stats().await.unwrap().relays.len() == 1 }).await;
    shutdown.cancel();
    worker.await.unwrap().unwrap();
    assert!(outbox.stats().await.unwrap().relays.is_empty());
}

#[tokio::test]
async fn a_transport_that_cannot_express_a_message_refuses_it_at_once() {
    struct Picky;
    impl postrider::Transport for Picky {
        type Message = Email;
        fn name(&self) -> &str {
            "picky"
        }
        async fn send(&self, _: &postrider::transport::Outgoing<Email>) -> Result<Receipt, Failure> {
            Ok(Receipt::new())
        }
        fn check(&self, _: &Email) -> Result<(), Failure> {
            Err(postrider::transport::Unsupported::new("mail at all").into())
        }
    }
    let outbox = Outbox::new(MemoryStore::new(), Picky);
    let error = outbox.enqueue(ada()).await.unwrap_err();
    assert!(matches!(error, postrider::EnqueueError::Unsupported(_)), "{error:?}");
    assert_eq!(outbox.store().stats().await.unwrap().pending, 0);
}

#[tokio::test]
async fn a_message_type_that_panics_ends_as_a_dead_letter_and_stops_nobody() {
    #[derive(Clone)]
    struct Poison(bool);
    impl postrider::Message for Poison {
        fn encode(&self) -> Result<Encoded, postrider::transport::CodecError> {
            Ok(Encoded { format: "poison/1".into(), body: self.0.to_string() })
        }
        fn decode(encoded: &Encoded) -> Result<Self, postrider::transport::CodecError> {
            assert_ne!(encoded.body, "true", "a panic in a message");
            Ok(Poison(false))
        }
        fn recipients(&self) -> Vec<Recipient> {
            vec![Recipient::new("somebody")]
        }
    }
    let transport = ScriptedTransport::<Poison>::new();
    let outbox = Outbox::new(MemoryStore::new(), transport);
    let bad = outbox.enqueue(Poison(true)).await.unwrap();
    outbox.enqueue_all((0..5).map(|_| Poison(false))).await.unwrap();
    let mut sent = 0;
    for _ in 0..3 {
        sent += outbox.relay().retry(eager()).drain().await.unwrap().sent;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let shown = outbox.get(bad).await.unwrap().unwrap();
    assert_eq!((sent, shown.state, shown.attempts.len()), (5, State::Dead, 3));
}

#[tokio::test]
async fn a_transport_is_given_no_recipient_that_is_no_address() {
    let transport = ScriptedTransport::<Email>::new();
    let outbox = outbox(transport.clone());
    // As a program that writes rows in plain SQL may do.
    let row = |recipients: &[&str]| {
        let recipients = recipients.iter().map(|text| Recipient::new(*text)).collect();
        NewRow::new(DeliveryId::new(), postrider::Message::encode(&ada()).unwrap(), recipients)
    };
    let bad = ["ok@example.com", "x@example.com>\r\nRCPT TO:<y@z"];
    let ids = outbox.store().insert(vec![row(&bad), row(&["Ada@EXAMPLE.com", "ada@bücher.example"])]).await.unwrap();
    let pass = outbox.relay().drain().await.unwrap();
    assert_eq!((pass.dead, pass.sent, transport.calls().len()), (1, 1, 1));
    let reason = get(&outbox, ids[0]).await.reason;
    assert_eq!(reason.as_deref(), Some("permanent: recipient 2 of 2: the address has a control character"));
}

#[tokio::test]
async fn a_message_takes_room_until_its_result_is_written() {
    let store = crate::outage::Unreliable::default();
    let cut = store.clone();
    let transport = ScriptedTransport::<Email>::new().answering(move |_| {
        cut.cut();
        async { Ok(Receipt::new()) }
    });
    let outbox = Outbox::new(store.clone(), transport.clone());
    outbox.enqueue_all((0..20).map(|_| ada())).await.unwrap();
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn(outbox.relay().concurrency(4).run(shutdown.clone().cancelled_owned()));
    until("settling fails", || async { store.refusals() >= 5 }).await;
    assert_eq!(transport.calls().len(), 4, "more was sent than may be in doubt");
    store.mend();
    shutdown.cancel();
    worker.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_result_is_written_at_once_with_those_that_finished_during_the_last_batch() {
    // One call at a time, of a millisecond.
    let line = Arc::new(tokio::sync::Mutex::new(()));
    let transport = ScriptedTransport::<Email>::new().answering(move |_| {
        let line = Arc::clone(&line);
        async move {
            let _turn = line.lock().await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok(Receipt::new())
        }
    });
    let millisecond = Duration::from_millis(1);
    for (mails, takes, batches) in
        [(1, millisecond, 1..=1), (400, millisecond * 5, 70..=110), (400, Duration::ZERO, 400..=400)]
    {
        let store = crate::outage::Unreliable::default().taking(takes);
        let outbox = Outbox::new(store.clone(), transport.clone());
        outbox.enqueue_all((0..mails).map(|_| ada())).await.unwrap();
        let diary = Diary::default();
        let shutdown = CancellationToken::new();
        let worker = tokio::spawn(
            outbox.relay().concurrency(256).observer(diary.clone()).run(shutdown.clone().cancelled_owned()),
        );
        until("all are sent", || async { diary.count("sent") == mails }).await;
        assert!(batches.contains(&store.batches()), "{} batches for {mails} results", store.batches());
        shutdown.cancel();
        worker.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn an_answer_that_no_database_can_store_is_stored_without_what_it_cannot() {
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
async fn a_pass_waits_for_its_sends_however_long_the_grace_of_a_stop_is() {
    let transport = ScriptedTransport::new().answering(|_| async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        Ok(Receipt::new())
    });
    let outbox = outbox(transport);
    outbox.enqueue(ada()).await.unwrap();
    assert_eq!(outbox.relay().grace(Duration::from_millis(10)).drain().await.unwrap().sent, 1);
    outbox.enqueue(ada()).await.unwrap();
    assert_eq!(outbox.relay().grace(Duration::from_millis(10)).tick().await.unwrap().sent, 1);
}
