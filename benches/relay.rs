//! The rate at which relays drain a backlog, with a transport that accepts every message immediately.

#![allow(clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its figures")]

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use postrider::{MemoryStore, Metrics, NewDelivery, Outbox, PgStore, Store};
use sqlx::Connection as _;
use support::figures::{Figures, write_json};
use support::noop::Noop;
use support::{CONCURRENCY, Options, baseline, databases, mail, raw};
use tokio_util::sync::CancellationToken;

/// The time limit of the baseline, which would need minutes for a whole backlog.
const BASELINE_TIME: Duration = Duration::from_secs(4);

/// The mails that are sent one by one before a backlog appears.
const WARM_UP: usize = 200;

#[tokio::main]
async fn main() {
    let options = Options::read();
    let mut tables = BTreeMap::new();
    if !options.only.iter().any(|name| ["backlog", "metrics", "surroundings"].contains(&name.as_str())) {
        tables.insert("stores".to_owned(), stores(&options, options.count.unwrap_or(20_000)).await);
    }
    if options.wants("backlog") {
        tables.insert("backlog".to_owned(), backlog(&options).await);
    }
    if options.wants("metrics") {
        tables.insert("metrics".to_owned(), metrics(&options).await);
    }
    if options.wants("surroundings") {
        tables.insert("surroundings".to_owned(), surroundings(&options).await);
    }
    if let Some(path) = &options.json {
        write_json(path, &tables);
    }
}

/// Compares every store with the baseline on the same database, and PostgreSQL with its bare SQL.
async fn stores(options: &Options, count: usize) -> Figures {
    let mut drains = Figures::default();
    for _ in 0..options.rounds {
        for relays in [1, 4] {
            let name = format!("postgres relay ×{relays}");
            if options.wants(&name) {
                let store = databases::pg_store(20).await;
                fill(&store, count).await;
                databases::quiesce_postgres(&store).await;
                drains.add(&name, drain(store, relays, count).await);
            }
        }
        if options.wants("postgres raw SQL") {
            let store = databases::pg_store(2).await;
            fill(&store, count).await;
            databases::quiesce_postgres(&store).await;
            drains.add("postgres raw SQL", raw::drain(store.pool()).await);
        }
        for workers in [1, 16] {
            let name = format!("postgres baseline ×{workers}");
            if options.wants(&name) {
                let pool = databases::postgres(u32::try_from(workers).expect("a number")).await;
                baseline::postgres::create(&pool).await;
                baseline::postgres::fill(&pool, (0..count).map(mail)).await;
                sqlx::query("ANALYZE").execute(&pool).await.expect("ANALYZE works");
                drains.add(&name, baseline::postgres::drain(&pool, workers, BASELINE_TIME).await);
            }
        }
        if options.wants("mariadb relay ×1") {
            let store = databases::mysql_store(10).await;
            fill(&store, count).await;
            databases::quiesce_mysql(store.pool()).await;
            drains.add("mariadb relay ×1", drain(store, 1, count).await);
        }
        for workers in [1, 16] {
            let name = format!("mariadb baseline ×{workers}");
            if options.wants(&name) {
                let pool = databases::mysql(u32::try_from(workers).expect("a number")).await;
                baseline::mysql::create(&pool).await;
                baseline::mysql::fill(&pool, (0..count).map(mail)).await;
                databases::quiesce_mysql(&pool).await;
                drains.add(&name, baseline::mysql::drain(&pool, workers, BASELINE_TIME).await);
            }
        }
        if options.wants("sqlite relay ×1") {
            let (store, _directory) = databases::sqlite_store(4).await;
            fill(&store, count).await;
            drains.add("sqlite relay ×1", drain(store, 1, count).await);
        }
        if options.wants("sqlite baseline ×1") {
            let (pool, _directory) = databases::sqlite(1).await;
            baseline::sqlite::create(&pool).await;
            baseline::sqlite::fill(&pool, (0..count).map(mail)).await;
            drains.add("sqlite baseline ×1", baseline::sqlite::drain(&pool, 1, BASELINE_TIME).await);
        }
        if options.wants("memory relay ×1") {
            let store = MemoryStore::new();
            fill(&store, count).await;
            drains.add("memory relay ×1", drain(store, 1, count).await);
        }
    }
    drains.print(&format!("Drain of {count}, each store"), "deliveries/s", "postgres relay ×1");
    drains
}

/// PostgreSQL with backlogs of several sizes.
async fn backlog(options: &Options) -> Figures {
    let sizes: &[usize] = if options.full { &[20_000, 200_000, 1_000_000] } else { &[20_000, 200_000] };
    let mut drains = Figures::default();
    for _ in 0..options.rounds {
        for &size in sizes {
            let store = databases::pg_store(10).await;
            databases::fill_by_sql(&store, size, "now()").await;
            databases::quiesce_postgres(&store).await;
            drains.add(&size.to_string(), drain(store, 1, size).await);
        }
    }
    drains.print("Drain of backlogs of several sizes, PostgreSQL, 1 relay", "deliveries/s", "20000");
    drains
}

/// PostgreSQL with rows that are not due, with an open transaction, and with a backlog that appears at once.
async fn surroundings(options: &Options) -> Figures {
    let (count, around) = (options.count.unwrap_or(20_000), if options.full { 1_000_000 } else { 200_000 });
    let mut drains = Figures::default();
    for _ in 0..options.rounds {
        let store = databases::pg_store(10).await;
        databases::fill_by_sql(&store, count, "now()").await;
        databases::quiesce_postgres(&store).await;
        drains.add("nothing", drain(store, 1, count).await);

        let store = databases::pg_store(10).await;
        databases::fill_by_sql(&store, around, "now() + interval '1 day'").await;
        databases::fill_by_sql(&store, count, "now()").await;
        databases::quiesce_postgres(&store).await;
        drains.add(&format!("{around} scheduled"), drain(store, 1, count).await);

        let store = databases::pg_store(10).await;
        databases::fill_by_sql(&store, around, "now()").await;
        dead_letter_all(&store).await;
        databases::fill_by_sql(&store, count, "now()").await;
        databases::quiesce_postgres(&store).await;
        drains.add(&format!("{around} dead"), drain(store, 1, count).await);

        let many = 10 * count;
        let store = databases::pg_store(10).await;
        databases::fill_by_sql(&store, many, "now()").await;
        databases::quiesce_postgres(&store).await;
        drains.add(&format!("nothing, {many}"), drain(store, 1, many).await);

        let store = databases::pg_store(10).await;
        databases::fill_by_sql(&store, many, "now()").await;
        databases::quiesce_postgres(&store).await;
        let mut other =
            sqlx::PgConnection::connect_with(store.pool().connect_options().as_ref()).await.expect("a connection");
        let mut open = other.begin().await.expect("a transaction");
        sqlx::query("SELECT txid_current()").execute(&mut *open).await.expect("a snapshot");
        drains.add(&format!("a transaction held open, {many}"), drain(store, 1, many).await);

        drains
            .add(&format!("at once to an idle relay, {many}"), all_at_once(databases::pg_store(10).await, many).await);
    }
    drains.print(&format!("Drain of {count} in other surroundings, PostgreSQL, 1 relay"), "deliveries/s", "nothing");
    drains
}

/// The same drains with and without metrics, one after the other, in an order that changes with each round.
async fn metrics(options: &Options) -> Figures {
    let count = options.count.unwrap_or(20_000);
    let mut drains = Figures::default();
    for round in 0..options.rounds {
        let order = if round % 2 == 0 { [false, true] } else { [true, false] };
        for with_metrics in order {
            let name = |store: &str| if with_metrics { format!("{store}, metrics") } else { store.to_owned() };
            let metrics = with_metrics.then(|| {
                let exporter = metrics_exporter_prometheus::PrometheusBuilder::new().with_recommended_naming(true);
                Metrics::with_recorder(exporter.build_recorder())
            });
            let store = MemoryStore::new();
            fill(&store, count).await;
            drains.add(&name("memory"), drain_with(store, 1, count, metrics.clone()).await);
            let (store, _directory) = databases::sqlite_store(4).await;
            fill(&store, count).await;
            drains.add(&name("sqlite"), drain_with(store, 1, count, metrics.clone()).await);
            let store = databases::pg_store(10).await;
            fill(&store, count).await;
            databases::quiesce_postgres(&store).await;
            drains.add(&name("postgres"), drain_with(store, 1, count, metrics).await);
        }
    }
    let title = format!("Drain of {count}, with and without metrics, 1 relay");
    drains.print_with_bases(&title, "deliveries/s", &["memory", "sqlite", "postgres"]);
    drains
}

async fn fill<S: Store>(store: &S, count: usize) {
    let outbox = Outbox::enqueue_only(store.clone());
    for first in (0..count).step_by(1000) {
        let mails = (first..count.min(first + 1000)).map(|number| NewDelivery::from(mail(number)));
        outbox.enqueue_all(mails).await.expect("the mails are enqueued");
    }
}

/// Makes every queued delivery a dead letter.
async fn dead_letter_all(store: &PgStore) {
    let text = "WITH gone AS (DELETE FROM postrider.queue RETURNING delivery_id)
                INSERT INTO postrider.ended (delivery_id, state, reason, ended_at, token, attempts, cycle)
                SELECT delivery_id, 'dead', 'bounced', now(), 1, 1, 1 FROM gone";
    sqlx::query(text).execute(store.pool()).await.expect("the queue is emptied");
}

/// Enqueues a backlog at once for a running relay, which had one mail at a time before, and returns the deliveries per second. The server's
/// statistics still say that the queue is nearly empty.
async fn all_at_once(store: PgStore, count: usize) -> f64 {
    let noop = Noop::default();
    let outbox = Outbox::new(store.clone(), noop.clone());
    databases::quiesce_postgres(&store).await;
    let stop = CancellationToken::new();
    let relay = tokio::spawn(outbox.relay().concurrency(CONCURRENCY).run(stop.clone().cancelled_owned()));
    for number in 0..WARM_UP {
        outbox.enqueue(mail(number)).await.expect("the mails are enqueued");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    databases::fill_by_sql(&store, count, "now()").await;
    let start = Instant::now();
    while noop.calls() < (count + WARM_UP) as u64 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = start.elapsed();
    stop.cancel();
    let summary = relay.await.expect("the relay does not panic").expect("the relay ends");
    assert_eq!(
        (summary.sent, noop.calls()),
        ((count + WARM_UP) as u64, (count + WARM_UP) as u64),
        "a mail was not sent once"
    );
    count as f64 / took.as_secs_f64()
}

/// Drains the outbox, and returns the deliveries per second.
async fn drain<S: Store>(store: S, relays: usize, count: usize) -> f64 {
    drain_with(store, relays, count, None).await
}

async fn drain_with<S: Store>(store: S, relays: usize, count: usize, metrics: Option<Metrics>) -> f64 {
    let noop = Noop::default();
    let outbox = Outbox::new(store, noop.clone());
    let start = Instant::now();
    let drains = (0..relays).map(|_| {
        let relay = outbox.relay().concurrency(CONCURRENCY);
        let relay = match &metrics {
            Some(metrics) => relay.observer(metrics.clone()),
            None => relay,
        };
        tokio::spawn(relay.drain())
    });
    let summaries = futures_util::future::join_all(drains).await;
    let took = start.elapsed();
    let sent: u64 = summaries
        .into_iter()
        .map(|summary| summary.expect("the drain does not panic").expect("the drain succeeds").sent)
        .sum();
    assert_eq!((sent, noop.calls()), (count as u64, count as u64), "a mail was not sent once");
    count as f64 / took.as_secs_f64()
}
