//! Deletion of old messages and deliveries while a relay works: the rates of both, and how long an enqueue takes meanwhile.

#![allow(clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its figures")]

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use postrider::{AdminStore, Outbox, Prune, State, Store};
use support::dataset::Dataset;
use support::figures::{Figures, Times, write_json};
use support::noop::Noop;
use support::{CONCURRENCY, Options, databases, mail};
use tokio_util::sync::CancellationToken;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How long the relay is measured without a deletion.
const ALONE: Duration = Duration::from_secs(10);

/// The backlog of the relay is kept above this, so that it always has work.
const BACKLOG: u64 = 10_000;

/// The pause between two enqueues of one mail.
const PAUSE: Duration = Duration::from_millis(5);

#[tokio::main]
async fn main() {
    let options = Options::read();
    let mut results = Results::default();
    let count = options.count.unwrap_or(if options.full { 1_000_000 } else { 100_000 });
    let dataset = Dataset { count, unfinished: 0, newest: 40 * DAY };
    for _ in 0..options.rounds {
        if options.wants("postgres") {
            let store = databases::pg_store(20).await;
            dataset.fill_postgres(&store).await;
            results.measure("postgres", store, count).await;
        }
        if options.wants("mariadb") {
            let store = databases::mysql_store(20).await;
            dataset.fill_mysql(&store).await;
            results.measure("mariadb", store, count).await;
        }
        if options.wants("sqlite") {
            let (store, _directory) = databases::sqlite_store(8).await;
            let dataset = Dataset { count: count / 5, ..dataset };
            dataset.fill_sqlite(&store).await;
            results.measure("sqlite", store, dataset.count).await;
        }
    }
    results.deleted.print(&format!("Deleted, of {count} (SQLite: a fifth)"), "deliveries/s", "");
    results.relay.print("The relay meanwhile", "mails/s", "");
    for (title, figures) in ["median", "99th percentile", "longest"].iter().zip(&results.enqueue) {
        figures.print(&format!("One enqueue meanwhile, {title}"), "ms", "");
    }
    if let Some(path) = &options.json {
        let [median, p99, longest] = results.enqueue;
        let tables = [results.deleted, results.relay, median, p99, longest];
        let names = ["deleted", "relay", "enqueue median", "enqueue p99", "enqueue longest"];
        write_json(path, &BTreeMap::from_iter(names.map(str::to_owned).into_iter().zip(tables)));
    }
}

#[derive(Default)]
struct Results {
    /// The deliveries per second that the deletion changed or deleted.
    deleted: Figures,
    /// The mails per second that the relay sent.
    relay: Figures,
    /// The median, the 99th percentile and the longest time of an enqueue, in milliseconds.
    enqueue: [Figures; 3],
}

impl Results {
    async fn measure<S: Store + AdminStore>(&mut self, name: &str, store: S, count: usize) {
        let alone = measure_during(&store, async || tokio::time::sleep(ALONE).await).await;
        self.add(name, "nothing deleted", &alone);
        let states = [State::Sent, State::Dead, State::InDoubt, State::Cancelled];
        for (part, prune) in [("messages", Prune::messages(30 * DAY)), ("deliveries", Prune::deliveries(30 * DAY))] {
            let prune = states.into_iter().fold(prune, Prune::state);
            let work = measure_during(&store, async || {
                let deleted = store.prune(&prune).await.expect("the deletion succeeds");
                assert_eq!(deleted, count as u64, "not everything was deleted");
            });
            let work = work.await;
            self.deleted.add(&format!("{name}, {part}"), count as f64 / work.took.as_secs_f64());
            self.add(name, &format!("{part} deleted"), &work);
        }
    }

    fn add(&mut self, name: &str, part: &str, work: &Work) {
        let name = format!("{name}, {part}");
        self.relay.add(&name, work.sent as f64 / work.took.as_secs_f64());
        for (figures, percent) in self.enqueue.iter_mut().zip([50.0, 99.0, 100.0]) {
            figures.add(&name, work.enqueue.percentile(percent));
        }
    }
}

/// What the relay and the enqueues did while some work ran.
struct Work {
    took: Duration,
    sent: u64,
    enqueue: Times,
}

/// Runs a relay with a backlog, and enqueues single mails, until the work is done.
async fn measure_during<S: Store>(store: &S, work: impl AsyncFnOnce()) -> Work {
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
    Work { took, sent, enqueue: caller.await.expect("the caller does not panic") }
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
