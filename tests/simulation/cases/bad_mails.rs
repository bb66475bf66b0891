//! Mails that fail, beside mails that do not.

use postrider::store::TestClock;
use postrider::transport::Receipt;
use postrider::{Backoff, DeliveryId, Failure, NewDelivery, Outbox, Outcome, Priority, Scope, State};
use tokio::time::Instant;

use super::{HOUR, MINUTE, SECOND, failures, message, run_for, scripted, store};

#[tokio::test(start_paused = true)]
async fn one_drain_passes_two_hundred_mails_of_a_refused_sender() {
    for (name, failure) in failures() {
        for concurrency in [1, 4, 32] {
            let transport =
                scripted(
                    move |message| {
                        if message.sender.starts_with("bad") { Err(failure()) } else { Ok(Receipt::new()) }
                    },
                );
            let outbox = Outbox::new(store(), transport.clone());
            outbox.enqueue_all((0..200).map(|n| message(n, "bad"))).await.unwrap();
            let good = outbox.enqueue(message(200, "good")).await.unwrap();
            let summary = outbox.relay().seed(1).concurrency(concurrency).drain().await.unwrap();
            assert_eq!((summary.sent, summary.dead), (1, 0), "{name}, concurrency {concurrency}");
            assert_eq!(outbox.get(good).await.unwrap().unwrap().state, State::Sent, "{name}");
            let calls = transport.calls().len();
            assert!(calls <= 3 * concurrency + 20, "{name}, concurrency {concurrency}: {calls} calls");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn bad_mails_before_a_good_one_do_not_double_its_pause() {
    for concurrency in [1, 8] {
        let began = Instant::now();
        let transport = scripted(|message| {
            if message.sender.starts_with("bad") {
                Err(Failure::transient(Scope::Transport, "421"))
            } else {
                Ok(Receipt::new())
            }
        });
        let outbox = Outbox::new(store(), transport);
        for n in 0..3 {
            outbox.enqueue(NewDelivery::new(message(n, &format!("bad{n}"))).priority(Priority::URGENT)).await.unwrap();
        }
        let good = outbox.enqueue(message(3, "good")).await.unwrap();
        let backoff = Backoff::new(MINUTE, HOUR);
        run_for(outbox.relay().pause(backoff).concurrency(concurrency), MINUTE * 10).await;
        let attempts = outbox.get(good).await.unwrap().unwrap().attempts;
        let left = attempts[0].started_at.duration_since(TestClock::new().now()).unwrap();
        assert!(left < MINUTE * 2 && attempts[0].outcome == Outcome::Sent, "{left:?} after {:?}", began.elapsed());
    }
}

/// Invariant 4.
#[tokio::test(start_paused = true)]
async fn twelve_urgent_bad_mails_do_not_block_a_good_one() {
    let transport = scripted(|message| {
        if message.number < 12 { Err(Failure::transient(Scope::Transport, "421 no")) } else { Ok(Receipt::new()) }
    });
    let outbox = Outbox::new(store(), transport);
    for n in 0..12 {
        outbox.enqueue(NewDelivery::new(message(n, &format!("bad{n}"))).priority(Priority::URGENT)).await.unwrap();
    }
    let later = async {
        tokio::time::sleep(SECOND * 90).await;
        outbox.enqueue(message(12, "good")).await.unwrap()
    };
    let relay = outbox.relay().pause(Backoff::new(MINUTE, MINUTE));
    let (good, ()) = tokio::join!(later, run_for(relay, MINUTE * 5));
    assert_eq!(outbox.get(good).await.unwrap().unwrap().state, State::Sent);
}

#[tokio::test(start_paused = true)]
async fn urgent_bad_mails_do_not_block_their_sender() {
    for (scope, concurrency) in [(Scope::Sender, 1), (Scope::Sender, 8), (Scope::Transport, 1), (Scope::Transport, 8)] {
        let transport =
            scripted(
                move |message| {
                    if message.number < 2 { Err(Failure::transient(scope, "451 no")) } else { Ok(Receipt::new()) }
                },
            );
        let outbox = Outbox::new(store(), transport);
        for n in 0..2 {
            outbox.enqueue(NewDelivery::new(message(n, "a")).priority(Priority::URGENT)).await.unwrap();
        }
        let backoff = Backoff::new(MINUTE, MINUTE * 5);
        let outbox = &outbox;
        let feed = async {
            // One mail each hour, so that the pause has grown.
            let mut ids: Vec<DeliveryId> = Vec::new();
            for n in 2..6 {
                tokio::time::sleep(HOUR).await;
                ids.push(outbox.enqueue(message(n, "a")).await.unwrap());
            }
            ids
        };
        let relay = outbox.relay().pause(backoff).concurrency(concurrency);
        let (ids, ()) = tokio::join!(feed, run_for(relay, HOUR * 5));
        for id in ids {
            let delivery = outbox.get(id).await.unwrap().unwrap();
            let sent = delivery.attempts.last().map(|attempt| attempt.started_at).expect("the mail was never tried");
            let waited = sent.duration_since(delivery.created_at).unwrap();
            assert!(delivery.state == State::Sent && waited <= MINUTE * 11, "{scope}, {concurrency}: {waited:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn urgent_bad_mails_do_not_block_their_sender_in_scheduled_drains() {
    for scope in [Scope::Sender, Scope::Transport] {
        for concurrency in [1, 8] {
            let transport = scripted(move |message| {
                if message.number < 2 { Err(Failure::transient(scope, "451 no")) } else { Ok(Receipt::new()) }
            });
            let outbox = Outbox::new(store(), transport);
            for n in 0..2 {
                outbox.enqueue(NewDelivery::new(message(n, "a")).priority(Priority::URGENT)).await.unwrap();
            }
            outbox.enqueue_all((2..40).map(|n| message(n, "a"))).await.unwrap();
            for minute in 0..10 {
                outbox.relay().seed(minute).concurrency(concurrency).drain().await.unwrap();
                tokio::time::sleep(MINUTE).await;
            }
            assert_eq!(outbox.stats().await.unwrap().sent, 38, "{scope}, concurrency {concurrency}");
        }
    }
}

/// Invariant 5.
#[tokio::test(start_paused = true)]
async fn a_poison_mail_in_unknown_words_ends_with_its_reason() {
    for scope in [Scope::Message, Scope::Sender, Scope::Transport] {
        let transport = scripted(move |message| {
            if message.number == 0 {
                Err(Failure::permanent(scope, "550 frobnicated").unsure())
            } else {
                Ok(Receipt::new())
            }
        });
        let outbox = Outbox::new(store(), transport);
        let poison = outbox.enqueue(message(0, "a")).await.unwrap();
        let fed = &outbox;
        let feed = async {
            for n in 1..500 {
                fed.enqueue(message(n, "a")).await.unwrap();
                tokio::time::sleep(MINUTE * 10).await;
            }
        };
        tokio::join!(feed, run_for(outbox.relay().poll(MINUTE), HOUR * 84));
        let delivery = outbox.get(poison).await.unwrap().unwrap();
        let reason = delivery.reason.unwrap_or_default();
        assert!(
            delivery.state == State::Dead && reason.contains("550 frobnicated"),
            "{scope}: {} {reason}",
            delivery.state
        );
        assert!(scope != Scope::Message || delivery.attempts.len() <= 8, "{} attempts", delivery.attempts.len());
        assert_eq!(outbox.stats().await.unwrap().sent, 499, "{scope}");
    }
}
