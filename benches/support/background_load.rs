//! Measures a relay and a program that enqueues while other work runs.

use std::time::{Duration, Instant};

use postrider::{Outbox, Store};
use tokio_util::sync::CancellationToken;

use super::figures::Times;
use super::noop::Noop;
use super::{CONCURRENCY, mail};

/// The backlog of the relay is kept above this, so that it always has work.
const BACKLOG: u64 = 10_000;

/// The pause between two enqueues of one mail.
const PAUSE: Duration = Duration::from_millis(5);

/// What the relay and the enqueues did while the other work ran.
pub(crate) struct LoadResult {
    pub(crate) took: Duration,
    /// The mails that the relay sent.
    pub(crate) sent: u64,
    pub(crate) enqueue: Times,
}

/// Runs a relay with a backlog, and enqueues single mails, until the work is done.
pub(crate) async fn measure_during<S: Store>(store: &S, work: impl AsyncFnOnce()) -> LoadResult {
    let noop = Noop::default();
    let outbox = Outbox::new(store.clone(), noop.clone());
    let stop = CancellationToken::new();
    let relay = tokio::spawn(outbox.relay().concurrency(CONCURRENCY / 4).run(stop.clone().cancelled_owned()));
    let feeder = tokio::spawn(feed(outbox.handle(), noop.clone(), stop.clone()));
    let caller = tokio::spawn(enqueue_singly(outbox.handle(), stop.clone()));
    // Time for the first backlog.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (before, start) = (noop.calls(), Instant::now());
    work().await;
    let (sent, took) = (noop.calls() - before, start.elapsed());
    assert_ne!(sent, 0, "the relay did nothing");
    stop.cancel();
    feeder.await.expect("the feeder does not panic");
    relay.await.expect("the relay does not panic").expect("the relay ends");
    LoadResult { took, sent, enqueue: caller.await.expect("the caller does not panic") }
}

/// Keeps a backlog for the relay.
async fn feed<S: Store>(outbox: Outbox<S>, noop: Noop, stop: CancellationToken) {
    let mut fed = 0;
    while !stop.is_cancelled() {
        if fed > noop.calls() + BACKLOG {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        }
        outbox.enqueue_all((0..500).map(mail)).await.expect("the mails are enqueued");
        fed += 500;
    }
}

/// Enqueues one mail after another, each in a transaction of its own.
async fn enqueue_singly<S: Store>(outbox: Outbox<S>, stop: CancellationToken) -> Times {
    let mut times = Times::default();
    // The first seconds are not measured.
    tokio::time::sleep(Duration::from_secs(2)).await;
    while !stop.is_cancelled() {
        let email = mail(times.len());
        let start = Instant::now();
        outbox.enqueue(email).await.expect("the mail is enqueued");
        times.add(start.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
    times
}
