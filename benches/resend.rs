//! A bulk resend of all dead letters while a relay works: the rates of both, and how long an enqueue takes meanwhile.

#![allow(clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its figures")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use postrider::{AdminStore, Change, Filter, Outbox, State, Store};
use support::background_load::{LoadResult, measure_during};
use support::dataset::Dataset;
use support::figures::{Figures, write_json};
use support::{Options, databases};

/// How long the relay is measured without a resend.
const ALONE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() {
    let options = Options::read();
    let mut results = Results::default();
    let dataset = |full: usize| {
        let count = options.count.unwrap_or(if options.full { full } else { 100_000 });
        Dataset { count, unfinished: 0, newest: Duration::from_secs(60) }
    };
    for _ in 0..options.rounds {
        if options.wants("postgres") {
            let store = databases::pg_store(20).await;
            dataset(5_000_000).fill_postgres(&store).await;
            results.measure("postgres", store).await;
        }
        if options.wants("mariadb") {
            let store = databases::mysql_store(20).await;
            dataset(1_000_000).fill_mysql(&store).await;
            results.measure("mariadb", store).await;
        }
        if options.wants("sqlite") {
            let (store, _directory) = databases::sqlite_store(8).await;
            dataset(1_000_000).fill_sqlite(&store).await;
            results.measure("sqlite", store).await;
        }
    }
    results.resent.print("All dead letters (1 in 50) made pending again", "deliveries/s", "");
    results.took.print("… how long it took", "s", "");
    results.relay.print("The relay meanwhile", "mails/s", "");
    for (title, figures) in ["median", "99th percentile", "longest"].iter().zip(&results.enqueue) {
        figures.print(&format!("One enqueue meanwhile, {title}"), "ms", "");
    }
    if let Some(path) = &options.json {
        let [median, p99, longest] = results.enqueue;
        let tables = [results.resent, results.took, results.relay, median, p99, longest];
        let names = ["resent", "seconds", "relay", "enqueue median", "enqueue p99", "enqueue longest"];
        write_json(path, &BTreeMap::from_iter(names.map(str::to_owned).into_iter().zip(tables)));
    }
}

#[derive(Default)]
struct Results {
    /// The deliveries that were made pending, per second.
    resent: Figures,
    took: Figures,
    /// The mails per second that the relay sent.
    relay: Figures,
    /// The median, the 99th percentile and the longest time of an enqueue, in milliseconds.
    enqueue: [Figures; 3],
}

impl Results {
    async fn measure<S: Store + AdminStore>(&mut self, name: &str, store: S) {
        let outbox = Outbox::enqueue_only(store.clone());
        let dead = outbox.stats().await.expect("the counts").dead;
        let alone = measure_during(&store, async || tokio::time::sleep(ALONE).await).await;
        self.add(name, "nothing resent", &alone);
        let load = measure_during(&store, async || {
            let operator = outbox.operator("benchmark").note("the provider is up again");
            let filter = Filter::new().state(State::Dead);
            let done = operator.change_all(Change::Resend, &filter).await.expect("the resend succeeds");
            assert_eq!((done.updated, done.unchanged), (dead, 0), "not everything was resent");
        });
        let load = load.await;
        self.resent.add(&format!("{name}, {dead} dead"), dead as f64 / load.took.as_secs_f64());
        self.took.add(&format!("{name}, {dead} dead"), load.took.as_secs_f64());
        self.add(name, "resend", &load);
    }

    fn add(&mut self, name: &str, part: &str, load: &LoadResult) {
        let name = format!("{name}, {part}");
        self.relay.add(&name, load.sent as f64 / load.took.as_secs_f64());
        for (figures, percent) in self.enqueue.iter_mut().zip([50.0, 99.0, 100.0]) {
            figures.add(&name, load.enqueue.percentile(percent));
        }
    }
}
