//! How fast a backlog is drained, by a transport that accepts everything at once.

#![allow(clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "a benchmark talks to its reader")]

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use postrider::{MemoryStore, NewDelivery, Outbox, PgStore, Store};
use sqlx::Connection as _;
use support::figures::{Figures, write_json};
use support::noop::Noop;
use support::{CONCURRENCY, Options, databases, mail, raw, seed};
use tokio_util::sync::CancellationToken;

/// How long the seed's algorithm is watched; it would need minutes for a whole backlog.
const WATCH: Duration = Duration::from_secs(4);

/// One by one, before many come at once.
const FEW: usize = 200;

#[tokio::main]
async fn main() {
    let options = Options::read();
    let mut tables = BTreeMap::new();
    if !options.only.iter().any(|name| name == "backlog" || name == "surroundings") {
        tables.insert("stores".to_owned(), stores(&options, options.count.unwrap_or(20_000)).await);
    }
    if options.wants("backlog") {
        tables.insert("backlog".to_owned(), backlog(&options).await);
    }
    if options.wants("surroundings") {
        tables.insert("surroundings".to_owned(), surroundings(&options).await);
    }
    if let Some(path) = &options.json {
        write_json(path, &tables);
    }
}

/// Every store beside the seed's algorithm on the same database, and PostgreSQL beside its own SQL.
async fn stores(options: &Options, count: usize) -> Figures {
    let mut drains = Figures::default();
    for _ in 0..options.rounds {
        for relays in [1, 4] {
            let name = format!("postgres relay ×{relays}");
            if options.wants(&name) {
                let store = databases::pg_store(20).await;
                fill(&store, count).await;
                databases::settle_down(&store).await;
                drains.add(&name, drain(store, relays, count).await);
            }
        }
        if options.wants("postgres raw SQL") {
            let store = databases::pg_store(2).await;
            fill(&store, count).await;
            databases::settle_down(&store).await;
            drains.add("postgres raw SQL", raw::drain(store.pool()).await);
        }
        for workers in [1, 16] {
            let name = format!("postgres seed ×{workers}");
            if options.wants(&name) {
                let pool = databases::postgres(u32::try_from(workers).expect("a number")).await;
                seed::postgres::create(&pool).await;
                seed::postgres::fill(&pool, (0..count).map(mail)).await;
                sqlx::query("ANALYZE").execute(&pool).await.expect("it can be analyzed");
                drains.add(&name, seed::postgres::drain(&pool, workers, WATCH).await);
            }
        }
        if options.wants("mariadb relay ×1") {
            let store = databases::mysql_store(10).await;
            fill(&store, count).await;
            databases::settle_mysql_down(store.pool()).await;
            drains.add("mariadb relay ×1", drain(store, 1, count).await);
        }
        for workers in [1, 16] {
            let name = format!("mariadb seed ×{workers}");
            if options.wants(&name) {
                let pool = databases::mysql(u32::try_from(workers).expect("a number")).await;
                seed::mysql::create(&pool).await;
                seed::mysql::fill(&pool, (0..count).map(mail)).await;
                databases::settle_mysql_down(&pool).await;
                drains.add(&name, seed::mysql::drain(&pool, workers, WATCH).await);
            }
        }
        if options.wants("sqlite relay ×1") {
            let (store, _directory) = databases::sqlite_store(4).await;
            fill(&store, count).await;
            drains.add("sqlite relay ×1", drain(store, 1, count).await);
        }
        if options.wants("sqlite seed ×1") {
            let (pool, _directory) = databases::sqlite(1).await;
            seed::sqlite::create(&pool).await;
            seed::sqlite::fill(&pool, (0..count).map(mail)).await;
            drains.add("sqlite seed ×1", seed::sqlite::drain(&pool, 1, WATCH).await);
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

/// PostgreSQL over backlogs that grow.
async fn backlog(options: &Options) -> Figures {
    let sizes: &[usize] = if options.full { &[20_000, 200_000, 1_000_000] } else { &[20_000, 200_000] };
    let mut drains = Figures::default();
    for _ in 0..options.rounds {
        for &size in sizes {
            let store = databases::pg_store(10).await;
            databases::fill_by_sql(&store, size, "now()").await;
            databases::settle_down(&store).await;
            drains.add(&size.to_string(), drain(store, 1, size).await);
        }
    }
    drains.print("Drain of a backlog that grows, PostgreSQL, 1 relay", "deliveries/s", "20000");
    drains
}

/// PostgreSQL with rows lying around that are not due, or with a transaction open.
async fn surroundings(options: &Options) -> Figures {
    let (count, around) = (options.count.unwrap_or(20_000), if options.full { 1_000_000 } else { 200_000 });
    let mut drains = Figures::default();
    for _ in 0..options.rounds {
        let store = databases::pg_store(10).await;
        databases::fill_by_sql(&store, count, "now()").await;
        databases::settle_down(&store).await;
        drains.add("nothing", drain(store, 1, count).await);

        let store = databases::pg_store(10).await;
        databases::fill_by_sql(&store, around, "now() + interval '1 day'").await;
        databases::fill_by_sql(&store, count, "now()").await;
        databases::settle_down(&store).await;
        drains.add(&format!("{around} scheduled"), drain(store, 1, count).await);

        let store = databases::pg_store(10).await;
        databases::fill_by_sql(&store, around, "now()").await;
        bury(&store).await;
        databases::fill_by_sql(&store, count, "now()").await;
        databases::settle_down(&store).await;
        drains.add(&format!("{around} dead"), drain(store, 1, count).await);

        let many = 10 * count;
        let store = databases::pg_store(10).await;
        databases::fill_by_sql(&store, many, "now()").await;
        databases::settle_down(&store).await;
        drains.add(&format!("nothing, {many}"), drain(store, 1, many).await);

        let store = databases::pg_store(10).await;
        databases::fill_by_sql(&store, many, "now()").await;
        databases::settle_down(&store).await;
        let mut other =
            sqlx::PgConnection::connect_with(store.pool().connect_options().as_ref()).await.expect("a connection");
        let mut open = other.begin().await.expect("a transaction");
        sqlx::query("SELECT txid_current()").execute(&mut *open).await.expect("a snapshot");
        drains.add(&format!("a transaction held open, {many}"), drain(store, 1, many).await);

        drains.add(&format!("little before, {many}"), all_at_once(databases::pg_store(10).await, many).await);
    }
    drains.print(&format!("Drain of {count} among other things, PostgreSQL, 1 relay"), "deliveries/s", "nothing");
    drains
}

async fn fill<S: Store>(store: &S, count: usize) {
    let outbox = Outbox::enqueue_only(store.clone());
    for first in (0..count).step_by(1000) {
        let mails = (first..count.min(first + 1000)).map(|number| NewDelivery::from(mail(number)));
        outbox.enqueue_all(mails).await.expect("it is enqueued");
    }
}

/// Makes everything in the queue a dead letter.
async fn bury(store: &PgStore) {
    let text = "WITH gone AS (DELETE FROM postrider.queue RETURNING delivery_id)
                INSERT INTO postrider.ended (delivery_id, state, reason, ended_at, token, attempts, cycle)
                SELECT delivery_id, 'dead', 'bounced', now(), 1, 1, 1 FROM gone";
    sqlx::query(text).execute(store.pool()).await.expect("they are buried");
}

/// Deliveries a second, where a relay that had one mail now and then meets so many at once. Nothing tells the server that the queue
/// is no longer nearly empty, but its size.
async fn all_at_once(store: PgStore, count: usize) -> f64 {
    let noop = Noop::default();
    let outbox = Outbox::new(store.clone(), noop.clone());
    databases::settle_down(&store).await;
    let stop = CancellationToken::new();
    let relay = tokio::spawn(outbox.relay().concurrency(CONCURRENCY).run(stop.clone().cancelled_owned()));
    for number in 0..FEW {
        outbox.enqueue(mail(number)).await.expect("it is enqueued");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    databases::fill_by_sql(&store, count, "now()").await;
    let start = Instant::now();
    while noop.calls() < (count + FEW) as u64 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = start.elapsed();
    stop.cancel();
    let pass = relay.await.expect("it does not panic").expect("it ends");
    assert_eq!((pass.sent, noop.calls()), ((count + FEW) as u64, (count + FEW) as u64), "each is sent once");
    count as f64 / took.as_secs_f64()
}

/// Deliveries a second.
async fn drain<S: Store>(store: S, relays: usize, count: usize) -> f64 {
    let noop = Noop::default();
    let outbox = Outbox::new(store, noop.clone());
    let start = Instant::now();
    let drains = (0..relays).map(|_| tokio::spawn(outbox.relay().concurrency(CONCURRENCY).drain()));
    let passes = futures_util::future::join_all(drains).await;
    let took = start.elapsed();
    let sent: u64 = passes.into_iter().map(|pass| pass.expect("it does not panic").expect("it drains").sent).sum();
    assert_eq!((sent, noop.calls()), (count as u64, count as u64), "each is sent once");
    count as f64 / took.as_secs_f64()
}
