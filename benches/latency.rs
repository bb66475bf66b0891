//! Latency from an enqueue, its commit included, to the call of the transport, on an idle outbox.

#![allow(clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its figures")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postrider::store::Claim;
use postrider::transport::{Outgoing, Receipt};
use postrider::{Email, Failure, MemoryStore, Outbox, Store, Transport};
use support::figures::{Figures, write_json};
use support::{Options, databases, mail};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// The time between two mails: 20 mails/s.
const PAUSE: Duration = Duration::from_millis(50);

#[tokio::main]
async fn main() {
    let options = Options::read();
    let count = options.count.unwrap_or(200);
    let (mut p50, mut p99) = (Figures::default(), Figures::default());
    let mut add = |name: &str, mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        p50.add(name, times[times.len() / 2]);
        p99.add(name, times[times.len() * 99 / 100]);
    };
    for _ in 0..options.rounds {
        if options.wants("postgres") {
            let store = databases::pg_store(10).await;
            add("postgres", latencies(store, count).await);
            let store = databases::pg_store(10).await;
            add("postgres commit + claim", commit_and_claim(store, count).await);
        }
        if options.wants("sqlite") {
            let (store, _directory) = databases::sqlite_store(4).await;
            add("sqlite", latencies(store, count).await);
        }
        if options.wants("mariadb") {
            add("mariadb", latencies(databases::mysql_store(10).await, count).await);
        }
        if options.wants("memory") {
            add("memory", latencies(MemoryStore::new(), count).await);
        }
    }
    p50.print("From the commit to the call, median", "ms", "postgres commit + claim");
    p99.print("From the commit to the call, 99th percentile", "ms", "postgres commit + claim");
    if let Some(path) = &options.json {
        write_json(path, &BTreeMap::from([("p50".to_owned(), p50), ("p99".to_owned(), p99)]));
    }
}

/// Sends the time of each call.
struct CallTimes(mpsc::UnboundedSender<Instant>);

impl Transport for CallTimes {
    type Message = Email;

    fn name(&self) -> &str {
        "clock"
    }

    async fn send(&self, _: &Outgoing<Email>) -> Result<Receipt, Failure> {
        let _ = self.0.send(Instant::now());
        Ok(Receipt::new())
    }
}

/// Returns the milliseconds from the start of each enqueue to the call.
async fn latencies<S: Store>(store: S, count: usize) -> Vec<f64> {
    let (sender, mut called) = mpsc::unbounded_channel();
    let outbox = Arc::new(Outbox::new(store, CallTimes(sender)));
    let stop = CancellationToken::new();
    let relay = tokio::spawn(outbox.relay().run(stop.clone().cancelled_owned()));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut times = Vec::with_capacity(count);
    for number in 0..count {
        let email = mail(number);
        let start = Instant::now();
        outbox.enqueue(email).await.expect("the mail is enqueued");
        let call = called.recv().await.expect("the transport is called");
        times.push(call.saturating_duration_since(start).as_secs_f64() * 1e3);
        tokio::time::sleep(PAUSE).await;
    }
    stop.cancel();
    relay.await.expect("the relay does not panic").expect("the relay ends");
    times
}

/// Returns the milliseconds of each enqueue with a claim after it, without a relay.
async fn commit_and_claim<S: Store>(store: S, count: usize) -> Vec<f64> {
    let outbox = Outbox::enqueue_only(store.clone());
    let mut times = Vec::with_capacity(count);
    for number in 0..count {
        let email = mail(number);
        let start = Instant::now();
        outbox.enqueue(email).await.expect("the mail is enqueued");
        let leases = store.claim(Claim::new(32, Duration::from_secs(60))).await.expect("a claim");
        times.push(start.elapsed().as_secs_f64() * 1e3);
        assert_eq!(leases.len(), 1, "the claim did not find the mail");
        tokio::time::sleep(PAUSE).await;
    }
    times
}
