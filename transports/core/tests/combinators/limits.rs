//! `Timeout` and `RateLimit`. These tests run on paused time, which advances while all tasks wait.

use std::sync::Arc;
use std::time::Duration;

use postrider_transport::{Class, RateLimit, Scope, TimedOut, Timeout, Transport};
use tokio::time::Instant;

use crate::support::*;

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_call_that_exceeds_its_limit_is_in_doubt() {
    let fake = Fake::new("smtp").with_max_batch(3);
    let transport = Timeout::new(fake.clone(), SECOND);
    assert!(transport.send(&mail()).await.is_ok());
    fake.hang(true);
    let mut results = transport.send_batch(&mails(3)).await;
    assert_eq!(results.len(), 3);
    results.push(transport.send(&mail()).await);
    for result in results {
        let failure = result.unwrap_err();
        assert_eq!((failure.class(), failure.scope(), failure.in_doubt()), (Class::Transient, Scope::Transport, true));
        assert_eq!(failure.downcast_ref::<TimedOut>().unwrap().limit(), SECOND);
    }
}

/// The time at which each call was sent, in milliseconds from the start.
async fn times(transport: &Arc<RateLimit<Fake>>, calls: usize) -> Vec<u128> {
    let start = Instant::now();
    let calls: Vec<_> = (0..calls)
        .map(|_| {
            let transport = Arc::clone(transport);
            tokio::spawn(async move {
                transport.send(&mail()).await.unwrap();
                start.elapsed().as_millis()
            })
        })
        .collect();
    let mut times = Vec::new();
    for call in calls {
        times.push(call.await.unwrap());
    }
    times
}

#[tokio::test(start_paused = true)]
async fn messages_are_evenly_spaced_in_order() {
    let transport = Arc::new(RateLimit::new(Fake::new("ses"), 10, SECOND));
    for (index, time) in times(&transport, 20).await.into_iter().enumerate() {
        let due = index as u128 * 100;
        assert!((due..due + 50).contains(&time), "message {index} was sent after {time} ms");
    }
}

/// Several calls wake at the same time. The one that waited longest is first.
#[tokio::test(start_paused = true)]
async fn no_call_overtakes_one_that_waits() {
    let fake = Fake::new("ses");
    let transport = Arc::new(RateLimit::new(fake.clone(), 10, SECOND));
    transport.send(&mail()).await.unwrap();
    let early = mail();
    let early_id = early.id();
    let send = |mail, after| {
        let transport = Arc::clone(&transport);
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            transport.send(&mail).await.unwrap();
        })
    };
    let due = Duration::from_millis(100);
    let mut calls = vec![send(mail(), due)];
    tokio::task::yield_now().await;
    calls.push(send(early, Duration::ZERO));
    tokio::time::sleep(Duration::from_millis(1)).await;
    calls.push(send(mail(), due - Duration::from_millis(1)));
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(fake.mails()[1].id(), early_id);
}

#[tokio::test(start_paused = true)]
async fn a_pause_allows_one_burst() {
    let transport = Arc::new(RateLimit::new(Fake::new("ses"), 60, SECOND * 60).burst(5));
    let first = times(&transport, 8).await;
    assert_eq!(first.iter().filter(|time| **time < 500).count(), 5, "{first:?}");
    tokio::time::sleep(SECOND * 600).await;
    let after_a_pause = times(&transport, 8).await;
    assert_eq!(after_a_pause.iter().filter(|time| **time < 500).count(), 5, "{after_a_pause:?}");
}

#[tokio::test(start_paused = true)]
async fn every_message_of_a_batch_counts() {
    for burst in [1, 3, 50] {
        let fake = Fake::new("ses").with_max_batch(10);
        let transport = RateLimit::new(fake.clone(), 1, SECOND).burst(burst);
        assert_eq!(transport.max_batch(), 10);
        let start = Instant::now();
        for _ in 0..10 {
            assert_eq!(transport.send_batch(&mails(10)).await.len(), 10);
        }
        let minimum = SECOND * (100 - burst);
        assert!(start.elapsed() >= minimum, "100 messages in {:?} with a burst of {burst}", start.elapsed());
        assert!(
            start.elapsed() <= minimum + SECOND * 2,
            "100 messages in {:?} with a burst of {burst}",
            start.elapsed()
        );
        assert_eq!(fake.calls(), [10; 10]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_wait_does_not_count() {
    let fake = Fake::new("ses");
    let transport = RateLimit::new(fake.clone(), 1, SECOND);
    transport.send(&mail()).await.unwrap();
    let start = Instant::now();
    for _ in 0..100 {
        let waited = tokio::time::timeout(Duration::from_millis(1), transport.send(&mail())).await;
        assert!(waited.is_err(), "it did not wait");
    }
    transport.send(&mail()).await.unwrap();
    assert!(start.elapsed() < SECOND * 2, "dropped waits were counted: {:?}", start.elapsed());
    assert_eq!(fake.calls().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn zero_and_huge_limits_work() {
    for (messages, period) in [(0, SECOND), (u32::MAX, Duration::ZERO), (1, Duration::from_nanos(1))] {
        let transport = RateLimit::new(Fake::new("ses"), messages, period).burst(0);
        for _ in 0..3 {
            transport.send(&mail()).await.unwrap();
        }
    }
}

/// Values beyond the range of the clock are clamped, and still limit.
#[tokio::test(start_paused = true)]
async fn limits_beyond_the_range_of_the_clock_still_limit() {
    let year = SECOND * 365 * 24 * 3600;
    let limits = [
        (1, Duration::MAX, 1),
        (1, Duration::MAX, u32::MAX),
        (1, year * 90, u32::MAX),
        (1, year, u32::MAX),
        (7, year, 5),
    ];
    for (messages, period, burst) in limits {
        let fake = Fake::new("ses").with_max_batch(1_000);
        let transport = RateLimit::new(fake.clone(), messages, period).burst(burst);
        transport.send(&mail()).await.unwrap();
        // Larger than every burst.
        let batch = mails(1_000);
        let sent = tokio::time::timeout(SECOND, transport.send_batch(&batch)).await;
        assert!(
            sent.is_err(),
            "1000 messages were sent at once with a limit of {messages} in {period:?} and a burst of {burst}"
        );
        assert_eq!(fake.calls(), [1]);
    }
}
