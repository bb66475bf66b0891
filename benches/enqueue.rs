//! The rate at which an application enqueues mail, compared with a bare INSERT of the same bytes.

#![allow(clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its figures")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use postrider::{DeliveryId, Outbox, PgStore, Store};
use sqlx::{Database, MySqlPool, PgPool, Pool, SqlitePool};
use support::figures::{Figures, Times, write_json};
use support::noop::Noop;
use support::{Options, databases, mail, stored};
use tokio_util::sync::CancellationToken;

/// The connections that write at the same time.
const CONNECTIONS: [u32; 3] = [1, 8, 64];

#[tokio::main]
async fn main() {
    let options = Options::read();
    let count = options.count.unwrap_or(8_000);
    let (mut single, mut bulk) = (Single::default(), Figures::default());
    for _ in 0..options.rounds {
        if options.wants("postgres") {
            for connections in CONNECTIONS {
                single.add(&format!("postgres outbox ×{connections}"), postgres(connections, count).await);
                let pool = databases::postgres(connections).await;
                single.add(
                    &format!("postgres bare INSERT ×{connections}"),
                    bare::postgres(pool, connections, count).await,
                );
            }
            let store = databases::pg_store(4).await;
            bulk.add("postgres outbox", in_bulk(&store, 5 * count).await);
            bulk.add("postgres COPY", postgres_copy(5 * count).await);
        }
        if options.wants("mariadb") {
            for connections in CONNECTIONS {
                let store = databases::mysql_store(connections).await;
                databases::quiesce_mysql(store.pool()).await;
                let run = in_transactions(&store, store.pool(), connections, count / 2).await;
                single.add(&format!("mariadb outbox ×{connections}"), run);
                let pool = databases::mysql(connections).await;
                databases::quiesce_mysql(&pool).await;
                single.add(
                    &format!("mariadb bare INSERT ×{connections}"),
                    bare::mysql(pool, connections, count / 2).await,
                );
            }
            let store = databases::mysql_store(4).await;
            databases::quiesce_mysql(store.pool()).await;
            bulk.add("mariadb outbox", in_bulk(&store, 2 * count).await);
            bulk.add("mariadb bare INSERT", mysql_bare_in_bulk(2 * count).await);
        }
        if options.wants("sqlite") {
            let (store, _directory) = databases::sqlite_store(2).await;
            bulk.add("sqlite outbox", in_bulk(&store, count).await);
            // SQLite has one writer at a time.
            let (store, _directory) = databases::sqlite_store(1).await;
            single.add("sqlite outbox ×1", in_transactions(&store, store.pool(), 1, count / 4).await);
            let (pool, _directory) = databases::sqlite(1).await;
            single.add("sqlite bare INSERT ×1", bare::sqlite(pool, 1, count / 4).await);
        }
    }
    single.print();
    bulk.print("1,000 mails in each call", "mails/s", "postgres COPY");
    if let Some(path) = &options.json {
        let mut tables = single.tables();
        tables.insert("bulk".to_owned(), bulk);
        write_json(path, &tables);
    }
}

/// The figures for one mail in each transaction.
#[derive(Default)]
struct Single {
    rates: Figures,
    /// Milliseconds of the call that enqueues, or of the bare `INSERT`, within the transaction.
    calls: [Figures; 2],
    /// Milliseconds from `BEGIN` to the end of `COMMIT`.
    transactions: [Figures; 2],
}

impl Single {
    fn add(&mut self, case: &str, run: Run) {
        self.rates.add(case, run.rate);
        for (tables, times) in [(&mut self.calls, run.calls), (&mut self.transactions, run.transactions)] {
            tables[0].add(case, times.percentile(50.0));
            tables[1].add(case, times.percentile(99.0));
        }
    }

    fn print(&self) {
        self.rates.print("One mail in each transaction", "mails/s", "postgres bare INSERT ×8");
        self.calls[0].print("… the call alone, median", "ms", "postgres bare INSERT ×8");
        self.calls[1].print("… the call alone, 99th percentile", "ms", "postgres bare INSERT ×8");
        self.transactions[0].print("… the whole transaction, median", "ms", "postgres bare INSERT ×8");
        self.transactions[1].print("… the whole transaction, 99th percentile", "ms", "postgres bare INSERT ×8");
    }

    fn tables(self) -> BTreeMap<String, Figures> {
        let ([call_p50, call_p99], [p50, p99]) = (self.calls, self.transactions);
        let names = ["single", "call p50", "call p99", "transaction p50", "transaction p99"];
        names.map(str::to_owned).into_iter().zip([self.rates, call_p50, call_p99, p50, p99]).collect()
    }
}

/// One mail in each transaction, by several connections.
struct Run {
    /// Mails per second.
    rate: f64,
    calls: Times,
    transactions: Times,
}

/// Calls `work` with each number up to `count`, on this many workers. `work` returns the time of its call within the transaction.
async fn by_workers<W, F>(workers: u32, count: usize, work: W) -> Run
where
    W: Fn(usize) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Duration> + Send,
{
    let next = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let all = (0..workers).map(|_| {
        let (next, work) = (Arc::clone(&next), work.clone());
        tokio::spawn(async move {
            let (mut calls, mut transactions) = (Times::default(), Times::default());
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return (calls, transactions);
                }
                let start = Instant::now();
                calls.add(work(number).await);
                transactions.add(start.elapsed());
            }
        })
    });
    let results = futures_util::future::join_all(all).await;
    let mut run = Run {
        rate: count as f64 / start.elapsed().as_secs_f64(),
        calls: Times::default(),
        transactions: Times::default(),
    };
    for worker in results {
        let (calls, transactions) = worker.expect("a worker does not panic");
        run.calls.join(calls);
        run.transactions.join(transactions);
    }
    run
}

/// One mail in each transaction, while a relay of another pool listens.
async fn postgres(connections: u32, count: usize) -> Run {
    let store = databases::pg_store(connections).await;
    let elsewhere =
        PgStore::new(store.pool().options().clone().connect_lazy_with((*store.pool().connect_options()).clone()));
    let stop = CancellationToken::new();
    // The mails are scheduled for later, so that the relay is notified and sends nothing.
    let relay = tokio::spawn(
        Outbox::new(elsewhere, Noop::default())
            .relay()
            .poll(Duration::from_secs(60))
            .run(stop.clone().cancelled_owned()),
    );
    let run = in_transactions(&store, store.pool(), connections, count).await;
    stop.cancel();
    relay.await.expect("the relay does not panic").expect("the relay ends");
    run
}

/// One mail in each transaction.
async fn in_transactions<D, S>(store: &S, pool: &Pool<D>, workers: u32, count: usize) -> Run
where
    D: Database,
    S: Store<Connection = D::Connection>,
{
    let (pool, outbox) = (pool.clone(), Outbox::enqueue_only(store.clone()));
    by_workers(workers, count, move |number| {
        let (pool, outbox) = (pool.clone(), outbox.clone());
        async move {
            let mut tx = pool.begin().await.expect("a transaction");
            let later = postrider::NewDelivery::from(mail(number)).send_in(Duration::from_secs(3600));
            let start = Instant::now();
            outbox.enqueue_in(&mut tx, later).await.expect("the mail is enqueued");
            let call = start.elapsed();
            tx.commit().await.expect("a commit");
            call
        }
    })
    .await
}

/// The bare `INSERT`: the same bytes into one table with a primary key.
mod bare {
    use super::*;

    pub(super) const TABLE: [&str; 3] = [
        "CREATE TABLE mails (id uuid PRIMARY KEY, body text NOT NULL)",
        "CREATE TABLE mails (id binary(16) PRIMARY KEY, body longtext NOT NULL)",
        "CREATE TABLE mails (id BLOB PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID",
    ];

    macro_rules! bare {
        ($name:ident, $pool:ty, $table:expr, $insert:literal) => {
            pub(super) async fn $name(pool: $pool, workers: u32, count: usize) -> Run {
                sqlx::query($table).execute(&pool).await.expect("a table");
                by_workers(workers, count, move |number| {
                    let pool = pool.clone();
                    async move {
                        let mut tx = pool.begin().await.expect("a transaction");
                        let start = Instant::now();
                        let insert = sqlx::query($insert).bind(DeliveryId::new().as_uuid()).bind(stored(&mail(number)));
                        insert.execute(&mut *tx).await.expect("an insert");
                        let call = start.elapsed();
                        tx.commit().await.expect("a commit");
                        call
                    }
                })
                .await
            }
        };
    }

    bare!(postgres, PgPool, TABLE[0], "INSERT INTO mails (id, body) VALUES ($1, $2)");
    bare!(mysql, MySqlPool, TABLE[1], "INSERT INTO mails (id, body) VALUES (?, ?)");
    bare!(sqlite, SqlitePool, TABLE[2], "INSERT INTO mails (id, body) VALUES (?, ?)");
}

/// Statements of 100 rows, ten in a transaction.
async fn mysql_bare_in_bulk(count: usize) -> f64 {
    let pool = databases::mysql(1).await;
    sqlx::query(bare::TABLE[1]).execute(&pool).await.expect("a table");
    databases::quiesce_mysql(&pool).await;
    let start = Instant::now();
    for first in (0..count).step_by(1000) {
        let mut tx = pool.begin().await.expect("a transaction");
        for first in (first..count.min(first + 1000)).step_by(100) {
            let mut insert = sqlx::QueryBuilder::new("INSERT INTO mails (id, body) ");
            insert.push_values(first..count.min(first + 100), |mut row, number| {
                let body = stored(&mail(number));
                row.push_bind(DeliveryId::new().as_uuid()).push_bind(body);
            });
            insert.build().execute(&mut *tx).await.expect("an insert");
        }
        tx.commit().await.expect("a commit");
    }
    count as f64 / start.elapsed().as_secs_f64()
}

async fn postgres_copy(count: usize) -> f64 {
    let pool = databases::postgres(1).await;
    sqlx::query(bare::TABLE[0]).execute(&pool).await.expect("a table");
    let start = Instant::now();
    for first in (0..count).step_by(1000) {
        let mut rows = String::new();
        for number in first..count.min(first + 1000) {
            let body = stored(&mail(number));
            let body = body.replace('\\', "\\\\").replace('\n', "\\n");
            rows.push_str(&format!("{}\t{body}\n", DeliveryId::new()));
        }
        let mut connection = pool.acquire().await.expect("a connection");
        let mut copy = connection.copy_in_raw("COPY mails FROM STDIN").await.expect("a copy");
        copy.send(rows.into_bytes()).await.expect("the rows are sent");
        copy.finish().await.expect("the copy ends");
    }
    count as f64 / start.elapsed().as_secs_f64()
}

async fn in_bulk<S: Store>(store: &S, count: usize) -> f64 {
    let outbox = Outbox::enqueue_only(store.clone());
    let start = Instant::now();
    for first in (0..count).step_by(1000) {
        outbox.enqueue_all((first..count.min(first + 1000)).map(mail)).await.expect("the mails are enqueued");
    }
    count as f64 / start.elapsed().as_secs_f64()
}
