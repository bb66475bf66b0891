//! Deletion of old messages and deliveries while a relay works: the rates of both, and how long an enqueue takes meanwhile.

#![allow(clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its figures")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use postrider::{AdminStore, Prune, State, Store};
use support::background_load::{LoadResult, measure_during};
use support::dataset::Dataset;
use support::figures::{Figures, write_json};
use support::{Options, databases};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// How long the relay is measured without a deletion.
const ALONE: Duration = Duration::from_secs(10);

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
            let load = measure_during(&store, async || {
                let deleted = store.prune(&prune).await.expect("the deletion succeeds");
                assert_eq!(deleted, count as u64, "not everything was deleted");
            });
            let load = load.await;
            self.deleted.add(&format!("{name}, {part}"), count as f64 / load.took.as_secs_f64());
            self.add(name, &format!("{part} deleted"), &load);
        }
    }

    fn add(&mut self, name: &str, part: &str, load: &LoadResult) {
        let name = format!("{name}, {part}");
        self.relay.add(&name, load.sent as f64 / load.took.as_secs_f64());
        for (figures, percent) in self.enqueue.iter_mut().zip([50.0, 99.0, 100.0]) {
            figures.add(&name, load.enqueue.percentile(percent));
        }
    }
}
