//! A baseline: a plain outbox of four tables, with one delivery in each transaction.

use std::time::{Duration, Instant};

use postrider::Email;
use sqlx::{MySqlPool, PgPool, QueryBuilder, SqlitePool};

use super::stored;

/// The statements of one database.
struct Dialect {
    tables: &'static [&'static str],
    next: &'static str,
    recipients: &'static str,
    attempt: &'static str,
    sent: &'static str,
    begin: &'static str,
}

macro_rules! baseline {
    ($module:ident, $pool:ty, $dialect:expr) => {
        pub(crate) mod $module {
            use super::*;

            const SQL: Dialect = $dialect;

            pub(crate) async fn create(pool: &$pool) {
                for table in SQL.tables {
                    sqlx::raw_sql(*table).execute(pool).await.expect("a table");
                }
            }

            pub(crate) async fn fill(pool: &$pool, mails: impl Iterator<Item = Email>) {
                let mails: Vec<(i64, Email)> = (0..).zip(mails).collect();
                let mut tx = pool.begin_with(SQL.begin).await.expect("a transaction");
                for mails in mails.chunks(500) {
                    let mut insert = QueryBuilder::new("INSERT INTO deliveries (id) ");
                    insert.push_values(mails, |mut row, (id, _)| {
                        row.push_bind(id);
                    });
                    insert.build().execute(&mut *tx).await.expect("deliveries");
                    let mut insert = QueryBuilder::new("INSERT INTO payloads ");
                    insert.push_values(mails, |mut row, (id, mail)| {
                        row.push_bind(id).push_bind(stored(mail));
                    });
                    insert.build().execute(&mut *tx).await.expect("payloads");
                    let mut insert = QueryBuilder::new("INSERT INTO recipients ");
                    let addresses = |(id, mail): &(i64, Email)| {
                        let id = *id;
                        mail.recipient_addresses()
                            .into_iter()
                            .map(move |address| (id, address.as_str().to_owned()))
                            .collect::<Vec<_>>()
                    };
                    insert.push_values(mails.iter().flat_map(addresses), |mut row, (id, address)| {
                        row.push_bind(id).push_bind(address);
                    });
                    insert.build().execute(&mut *tx).await.expect("recipients");
                }
                tx.commit().await.expect("a commit");
            }

            /// Drains with this many workers until the outbox is empty or `limit` has passed. Returns the deliveries per second.
            pub(crate) async fn drain(pool: &$pool, workers: usize, limit: Duration) -> f64 {
                let start = Instant::now();
                let all = (0..workers).map(|_| tokio::spawn(worker(pool.clone(), start, limit)));
                let sent: usize =
                    futures_util::future::join_all(all).await.into_iter().map(|sent| sent.expect("it works")).sum();
                sent as f64 / start.elapsed().as_secs_f64()
            }

            async fn worker(pool: $pool, start: Instant, limit: Duration) -> usize {
                let mut sent = 0;
                while start.elapsed() < limit {
                    let mut tx = pool.begin_with(SQL.begin).await.expect("a transaction");
                    let next: Option<(i64, String)> =
                        sqlx::query_as(SQL.next).fetch_optional(&mut *tx).await.expect("a row");
                    let Some((id, body)) = next else { break };
                    let to: Vec<(String,)> =
                        sqlx::query_as(SQL.recipients).bind(id).fetch_all(&mut *tx).await.expect("rows");
                    std::hint::black_box((body, to));
                    sqlx::query(SQL.attempt).bind(id).execute(&mut *tx).await.expect("an attempt");
                    sqlx::query(SQL.sent).bind(id).execute(&mut *tx).await.expect("an update");
                    tx.commit().await.expect("a commit");
                    sent += 1;
                }
                sent
            }
        }
    };
}

baseline!(postgres, PgPool, Dialect {
    tables: &[
        "CREATE TABLE deliveries (id bigint PRIMARY KEY, status text NOT NULL DEFAULT 'pending', attempts int NOT NULL DEFAULT 0,
            due_at timestamptz NOT NULL DEFAULT now(), sent_at timestamptz)",
        "CREATE INDEX deliveries_due ON deliveries (status, due_at)",
        "CREATE TABLE payloads (id bigint PRIMARY KEY REFERENCES deliveries, body text NOT NULL)",
        "CREATE TABLE recipients (id bigint REFERENCES deliveries, address text, PRIMARY KEY (id, address))",
        "CREATE TABLE attempts (id bigint REFERENCES deliveries, number int, finished_at timestamptz, outcome text, PRIMARY KEY (id, number))",
    ],
    next: "SELECT d.id, p.body FROM deliveries d JOIN payloads p USING (id) WHERE d.status = 'pending' AND d.due_at <= now()
           ORDER BY d.due_at LIMIT 1 FOR UPDATE OF d SKIP LOCKED",
    recipients: "SELECT address FROM recipients WHERE id = $1",
    attempt: "INSERT INTO attempts VALUES ($1, 1, now(), 'sent')",
    sent: "UPDATE deliveries SET status = 'sent', attempts = 1, sent_at = now() WHERE id = $1",
    begin: "BEGIN",
});

baseline!(sqlite, SqlitePool, Dialect {
    tables: &[
        "CREATE TABLE deliveries (id INTEGER PRIMARY KEY, status TEXT NOT NULL DEFAULT 'pending', attempts INTEGER NOT NULL DEFAULT 0,
            due_at INTEGER NOT NULL DEFAULT 0, sent_at INTEGER)",
        "CREATE INDEX deliveries_due ON deliveries (status, due_at)",
        "CREATE TABLE payloads (id INTEGER PRIMARY KEY, body TEXT NOT NULL)",
        "CREATE TABLE recipients (id INTEGER, address TEXT, PRIMARY KEY (id, address))",
        "CREATE TABLE attempts (id INTEGER, number INTEGER, finished_at INTEGER, outcome TEXT, PRIMARY KEY (id, number))",
    ],
    next: "SELECT d.id, p.body FROM deliveries d JOIN payloads p USING (id) WHERE d.status = 'pending' AND d.due_at <= unixepoch()
           ORDER BY d.due_at LIMIT 1",
    recipients: "SELECT address FROM recipients WHERE id = ?",
    attempt: "INSERT INTO attempts VALUES (?, 1, unixepoch(), 'sent')",
    sent: "UPDATE deliveries SET status = 'sent', attempts = 1, sent_at = unixepoch() WHERE id = ?",
    begin: "BEGIN IMMEDIATE",
});

baseline!(mysql, MySqlPool, Dialect {
    tables: &[
        "CREATE TABLE deliveries (id bigint PRIMARY KEY, status varchar(16) NOT NULL DEFAULT 'pending', attempts int NOT NULL DEFAULT 0,
            due_at datetime(6) NOT NULL DEFAULT now(6), sent_at datetime(6), INDEX (status, due_at))",
        "CREATE TABLE payloads (id bigint PRIMARY KEY, body mediumtext NOT NULL)",
        "CREATE TABLE recipients (id bigint, address varchar(254), PRIMARY KEY (id, address))",
        "CREATE TABLE attempts (id bigint, number int, finished_at datetime(6), outcome varchar(16), PRIMARY KEY (id, number))",
    ],
    next: "SELECT d.id, p.body FROM deliveries d JOIN payloads p USING (id) WHERE d.status = 'pending' AND d.due_at <= now(6)
           ORDER BY d.due_at LIMIT 1 FOR UPDATE SKIP LOCKED",
    recipients: "SELECT address FROM recipients WHERE id = ?",
    attempt: "INSERT INTO attempts VALUES (?, 1, now(6), 'sent')",
    sent: "UPDATE deliveries SET status = 'sent', attempts = 1, sent_at = now(6) WHERE id = ?",
    begin: "BEGIN",
});
