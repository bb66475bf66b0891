//! What each table and each index costs the program that enqueues, on PostgreSQL, compared with the same call without it.

#![allow(clippy::expect_used, clippy::print_stdout, clippy::print_stderr, reason = "a benchmark prints its figures")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use postrider::{DeliveryId, Email, NewDelivery, Outbox, PgStore, TraceParent};
use sqlx::{AssertSqlSafe, PgPool};
use support::figures::{Figures, write_json};
use support::{Options, databases, mail, stored};

/// The connections that write at the same time.
const CONNECTIONS: u32 = 8;

/// What is enqueued.
#[derive(Clone, Copy)]
enum Given {
    OneRecipient,
    TwoRecipients,
    Key,
    /// One recipient, with the trace context of a request.
    Traced,
    /// The bytes of a mail, in a table with a primary key and nothing else.
    Bare,
}

/// What is taken away.
#[derive(Clone, Copy)]
enum Without {
    Nothing,
    Indexes(&'static str),
    /// The insert into this table.
    Table(&'static str),
    /// The table of messages: they are in the row of the delivery instead.
    Bodies,
    Notifications,
}

const CASES: [(&str, Given, Without); 12] = [
    ("bare INSERT", Given::Bare, Without::Nothing),
    ("one recipient", Given::OneRecipient, Without::Nothing),
    ("two recipients", Given::TwoRecipients, Without::Nothing),
    ("a key", Given::Key, Without::Nothing),
    ("a trace context", Given::Traced, Without::Nothing),
    ("without the index by recipient", Given::OneRecipient, Without::Indexes("deliveries_recipient")),
    (
        "two, without both indexes by recipient",
        Given::TwoRecipients,
        Without::Indexes("deliveries_recipient, {s}.recipients_address"),
    ),
    ("without the indexes by key", Given::OneRecipient, Without::Indexes("deliveries_key, {s}.deliveries_key_until")),
    ("without the index of due times", Given::OneRecipient, Without::Indexes("queue_due")),
    ("without the queue", Given::OneRecipient, Without::Table("queue")),
    ("without a table of messages", Given::OneRecipient, Without::Bodies),
    ("without notifications", Given::OneRecipient, Without::Notifications),
];

#[tokio::main]
async fn main() {
    let options = Options::read();
    let count = options.count.unwrap_or(20_000);
    let (mut rates, mut wal) = (Figures::default(), Figures::default());
    for _ in 0..options.rounds {
        for (name, given, without) in CASES.into_iter().filter(|(name, ..)| options.wants(name)) {
            let store = databases::pg_store(CONNECTIONS).await;
            databases::quiesce_postgres(&store).await;
            without.apply(&store).await;
            let before = position(store.pool()).await;
            let start = Instant::now();
            enqueue(&store, given, count).await;
            rates.add(name, count as f64 / start.elapsed().as_secs_f64());
            wal.add(name, (position(store.pool()).await - before) / count as f64);
        }
    }
    rates.print(&format!("Enqueue one mail in each call, {CONNECTIONS} connections"), "mails/s", "one recipient");
    wal.print("… WAL for each mail", "bytes", "one recipient");
    if let Some(path) = &options.json {
        write_json(path, &BTreeMap::from([("rate".to_owned(), rates), ("wal".to_owned(), wal)]));
    }
}

impl Without {
    async fn apply(self, store: &PgStore) {
        let schema = format!("\"{}\"", PgStore::DEFAULT_SCHEMA);
        let run = async |sql: String| {
            sqlx::raw_sql(AssertSqlSafe(sql.replace("{s}", &schema)))
                .execute(store.pool())
                .await
                .expect("the statement runs");
        };
        match self {
            Self::Nothing => {}
            Self::Indexes(names) => run(format!("DROP INDEX {{s}}.{names}")).await,
            Self::Table(name) => {
                run(cut(&function(store).await, &format!("INSERT INTO \"postrider\".{name} "), ";")).await
            }
            Self::Notifications => run(cut(&function(store).await, "IF pg_sequence_last_value", "END IF;")).await,
            Self::Bodies => {
                run("ALTER TABLE {s}.deliveries ADD format text, ADD body text, ADD text text, ADD html text"
                    .to_owned())
                .await;
                let changed = cut(&function(store).await, "INSERT INTO \"postrider\".bodies ", ";");
                let columns = changed.replacen("tags, traceparent)", "tags, traceparent, format, body, text, html)", 1);
                run(columns.replacen(
                    "new_traceparent)",
                    "new_traceparent, new_format, new_body, new_text, new_html)",
                    1,
                ))
                .await;
            }
        }
    }
}

/// The function that enqueues one mail, as a statement that replaces it.
async fn function(store: &PgStore) -> String {
    let text = "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = 'insert_delivery'";
    sqlx::query_scalar(text).fetch_one(store.pool()).await.expect("the function exists")
}

/// Replaces the text from `start` up to and with `end` by `NULL;`, a statement that does nothing.
fn cut(text: &str, start: &str, end: &str) -> String {
    let (before, rest) = text.split_once(start).expect("the function has this part");
    let (_, after) = rest.split_once(end).expect("the part ends");
    format!("{before}NULL;{after}")
}

/// The position in the WAL, in bytes.
async fn position(pool: &PgPool) -> f64 {
    let text = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8";
    sqlx::query_scalar(text).fetch_one(pool).await.expect("the server has a WAL")
}

async fn enqueue(store: &PgStore, given: Given, count: usize) {
    let (outbox, pool) = (Outbox::enqueue_only(store.clone()), store.pool().clone());
    if let Given::Bare = given {
        let table = "CREATE TABLE mails (id uuid PRIMARY KEY, body text NOT NULL)";
        sqlx::query(table).execute(&pool).await.expect("a table");
    }
    let next = Arc::new(AtomicUsize::new(0));
    let workers = (0..CONNECTIONS).map(|_| {
        let (outbox, pool, next) = (outbox.clone(), pool.clone(), Arc::clone(&next));
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return;
                }
                match given {
                    Given::Bare => {
                        let insert = sqlx::query("INSERT INTO mails (id, body) VALUES ($1, $2)");
                        let insert = insert.bind(DeliveryId::new().as_uuid()).bind(stored(&mail(number)));
                        insert.execute(&pool).await.expect("an insert");
                    }
                    Given::OneRecipient => drop(outbox.enqueue(mail(number)).await.expect("the mail is enqueued")),
                    Given::TwoRecipients => drop(outbox.enqueue(archived(number)).await.expect("the mail is enqueued")),
                    Given::Traced => {
                        let parent = TraceParent::new([7; 16], u64::try_from(number + 1).unwrap_or(1).to_be_bytes(), 1);
                        let traced = NewDelivery::new(mail(number)).traceparent(parent);
                        outbox.enqueue(traced).await.expect("the mail is enqueued");
                    }
                    Given::Key => {
                        let keyed = NewDelivery::new(mail(number)).key(format!("order-{number}"));
                        outbox.enqueue(keyed).await.expect("the mail is enqueued");
                    }
                }
            }
        })
    });
    for worker in futures_util::future::join_all(workers).await {
        worker.expect("a worker does not panic");
    }
}

/// The `number`th mail, with a copy to the archive.
fn archived(number: usize) -> Email {
    let mail = mail(number);
    let copy =
        Email::builder().from("Shop <orders@shop.example>").to(format!("customer-{number}@example.org").as_str());
    let copy = copy.bcc("archive@shop.example").subject(mail.subject()).template_id("order");
    copy.text(mail.text().unwrap_or_default()).build().expect("the mail is valid")
}
