//! Quotas and limits of the next hop.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use postrider::testkit::ScriptedTransport;
use postrider::transport::{Class, Receipt, Recipient, Refusal};
use postrider::{Event, Failure, Observer, Outbox, RecipientState, Scope};
use tokio::time::Instant;

use super::{HOUR, MINUTE, MakeFailure, SECOND, failures, message, run_for, scripted, store};
use crate::message::TestMessage;

/// Runs relays over a thousand mails of one sender. `open` says whether the quota allows a mail, by the time and by the number of accepted
/// mails. Returns the counts of dead and of sent mails.
async fn quota(
    failure: MakeFailure,
    open: impl Fn(Duration, usize) -> bool + Send + 'static,
    restarts: bool,
) -> (u64, u64) {
    let began = Instant::now();
    let accepted = Arc::new(AtomicUsize::new(0));
    let transport = scripted(move |_| {
        if open(began.elapsed(), accepted.load(Ordering::SeqCst)) {
            accepted.fetch_add(1, Ordering::SeqCst);
            return Ok(Receipt::new());
        }
        Err(failure())
    });
    let outbox = Outbox::new(store(), transport);
    outbox.enqueue_all((0..1_000).map(|n| message(n, "hello"))).await.unwrap();
    let mut left = 48;
    while left > 0 && outbox.stats().await.unwrap().sent < 1_000 {
        let time = if restarts { 1 } else { 8 };
        run_for(outbox.relay().poll(MINUTE).concurrency(8), HOUR * time).await;
        left -= time;
    }
    let stats = outbox.stats().await.unwrap();
    (stats.dead, stats.sent)
}

#[tokio::test(start_paused = true)]
async fn a_quota_of_hours_ends_no_mail() {
    for (name, failure) in failures() {
        let after_hours = |time: Duration, _| time > HOUR * 3;
        assert_eq!(quota(failure, after_hours, false).await, (0, 1_000), "{name}");
        let five_hundred_first = |time: Duration, sent| sent < 500 || time > HOUR * 3;
        assert_eq!(quota(failure, five_hundred_first, true).await, (0, 1_000), "{name}, with restarts");
    }
}

#[tokio::test(start_paused = true)]
async fn a_quota_of_each_half_hour_ends_no_mail() {
    for (name, failure) in failures() {
        // 50 mails in each half hour.
        let open = |time: Duration, sent: usize| sent as u64 / 50 <= time.as_secs() / 1_800;
        assert_eq!(quota(failure, open, true).await, (0, 1_000), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_quota_ends_no_mail_of_scheduled_drains() {
    for (name, failure) in failures() {
        let began = Instant::now();
        let accepted = Arc::new(AtomicUsize::new(0));
        let transport = scripted(move |_| {
            if accepted.load(Ordering::SeqCst) as u64 / 20 <= began.elapsed().as_secs() / 600 {
                accepted.fetch_add(1, Ordering::SeqCst);
                return Ok(Receipt::new());
            }
            Err(failure())
        });
        let outbox = Outbox::new(store(), transport);
        outbox.enqueue_all((0..200).map(|n| message(n, "hello"))).await.unwrap();
        for minute in 0..2_000 {
            outbox.relay().seed(minute).drain().await.unwrap();
            tokio::time::sleep(MINUTE).await;
        }
        let stats = outbox.stats().await.unwrap();
        assert_eq!((stats.dead, stats.sent), (0, 200), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_100_recipients_reaches_all_2_500() {
    for (class, sure) in [(Class::Transient, true), (Class::Transient, false), (Class::Permanent, false)] {
        let transport = ScriptedTransport::new().with_handler(move |call| {
            let refusal = |to: &Recipient| {
                let refusal = Refusal::new(to.as_str(), class, "552 too many recipients");
                if sure { refusal } else { refusal.unsure() }
            };
            let refused = call.recipients.iter().skip(100).map(refusal).collect();
            async move { Ok(Receipt::new().with_refused(refused)) }
        });
        let outbox = Outbox::new(store(), transport.clone());
        let to = (0..2_500).map(|n| format!("r{n}@example.org")).collect();
        let mail = TestMessage { number: 0, sender: "a@example.com".to_owned(), to };
        let id = outbox.enqueue(mail).await.unwrap();
        run_for(outbox.relay(), HOUR).await;
        let delivery = outbox.get(id).await.unwrap().unwrap();
        let sent = delivery.recipients.iter().filter(|to| to.state == RecipientState::Sent).count();
        assert_eq!((sent, transport.calls().len()), (2_500, 25), "{class:?}, sure {sure}");
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_0_does_not_shorten_the_backoff() {
    async fn calls(asked: Option<Duration>) -> usize {
        let transport = scripted(move |_| {
            let failure = Failure::transient(Scope::Transport, "429 slow down");
            Err(asked.into_iter().fold(failure, Failure::with_retry_after))
        });
        let outbox = Outbox::new(store(), transport.clone());
        outbox.enqueue_all((0..50).map(|n| message(n, "hello"))).await.unwrap();
        run_for(outbox.relay().concurrency(1), MINUTE).await;
        transport.calls().len()
    }
    let without = calls(None).await;
    assert_eq!(calls(Some(Duration::ZERO)).await, without);
    // Pauses of 1, 2, 4, 8, 16 and 32 s, with four candidates in each probe.
    assert!((7..=1 + 4 * 7).contains(&without), "{without} calls");
}

/// Records the pauses of the transport.
#[derive(Clone, Default)]
struct Pauses(Arc<Mutex<Vec<Duration>>>);

impl Observer for Pauses {
    fn on_event(&self, event: &Event<'_>) {
        if let Event::TransportPaused { pause, .. } = event {
            self.0.lock().unwrap().push(*pause);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_comes_at_the_end_of_the_pause() {
    let at = Arc::new(Mutex::new(Vec::new()));
    let times = Arc::clone(&at);
    let transport = scripted(move |_| {
        times.lock().unwrap().push(Instant::now());
        Err(Failure::transient(Scope::Transport, "421 closing"))
    });
    let outbox = Outbox::new(store(), transport);
    outbox.enqueue(message(0, "hello")).await.unwrap();
    let pauses = Pauses::default();
    run_for(outbox.relay().observer(pauses.clone()), HOUR).await;
    let (at, pauses) = (at.lock().unwrap(), pauses.0.lock().unwrap());
    assert!(at.len() > 10 && pauses.len() == at.len(), "{} calls, {} pauses", at.len(), pauses.len());
    for (calls, pause) in at.windows(2).zip(pauses.iter()) {
        let waited = calls[1] - calls[0];
        assert!(waited <= *pause + SECOND / 2, "{waited:?} where the pause was {pause:?}");
    }
}
