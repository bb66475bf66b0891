//! What only SQLite has. `tests/databases` has the behaviours of every database.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use postrider::testkit::ScriptedTransport;
use postrider::transport::{Class, Receipt, Refusal};
use postrider::{
    AdminStore, DeliveryId, Email, EnqueueError, Filter, Outbox, Prune, RecipientState, SqliteStore, State,
    StoreErrorKind,
};
use sqlx::AssertSqlSafe;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use tokio_util::sync::CancellationToken;

use support::database::{Harness, Sqlite};
use support::fixture::{SECOND, ada, email};
use support::wait::until_sent;

/// A pool on a new file, and an outbox over it.
async fn outbox() -> (SqlitePool, Outbox<SqliteStore, ScriptedTransport<Email>>) {
    let Harness { pool, outbox, .. } = Harness::new(Sqlite::new()).await;
    (pool, outbox)
}

/// A store that waits 20 ms for a lock, on the same file.
async fn impatient_store(pool: &SqlitePool) -> SqliteStore {
    let options: SqliteConnectOptions = pool.connect_options().as_ref().clone().busy_timeout(Duration::from_millis(20));
    SqliteStore::new(SqlitePoolOptions::new().max_connections(2).connect_with(options).await.unwrap())
}

/// SQLite's serialization failure: a transaction that has read cannot write after another one wrote. Invariant 1.
#[tokio::test]
async fn a_transaction_that_read_before_another_wrote_leaves_no_mail() {
    let (pool, outbox) = outbox().await;
    let mut early = pool.begin().await.unwrap();
    let users: i64 = sqlx::query_scalar("SELECT count(*) FROM postrider_users").fetch_one(&mut *early).await.unwrap();
    assert_eq!(users, 0);
    let mut other = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    sqlx::query("INSERT INTO postrider_users (name) VALUES ('Ada')").execute(&mut *other).await.unwrap();
    let kept = outbox.enqueue_in(&mut other, ada()).await.unwrap();
    other.commit().await.unwrap();
    match outbox.enqueue_in(&mut early, ada()).await.unwrap_err() {
        EnqueueError::Store(error) => assert_eq!(error.kind(), StoreErrorKind::Conflict, "{error}"),
        error => panic!("{error}"),
    }
    early.commit().await.unwrap();
    assert!(outbox.get(kept).await.unwrap().is_some());
    assert_eq!(outbox.stats().await.unwrap().pending, 1);
}

/// Invariant 4.
#[tokio::test]
async fn a_relay_waits_for_a_writer_that_locks_the_database() {
    let (pool, patient) = outbox().await;
    let store = patient.store();
    let outbox = Outbox::new(impatient_store(&pool).await, ScriptedTransport::<Email>::new());
    let id = outbox.enqueue(ada()).await.unwrap();
    let blocking = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let locked = outbox.enqueue(ada()).await.unwrap_err().to_string();
    assert!(locked.contains("locked"), "{locked}");
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn(outbox.relay().run(shutdown.clone().cancelled_owned()));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(store.get(id).await.unwrap().unwrap().state, State::Pending);
    drop(blocking);
    until_sent(store, id).await;
    shutdown.cancel();
    worker.await.unwrap().unwrap();
}

/// SQLite stores any bytes as text. Invariants 4, 5.
#[tokio::test]
async fn a_text_that_is_not_utf_8_becomes_a_dead_letter() {
    let (pool, outbox) = outbox().await;
    let odd = "CAST(x'7b2261223a22ff227d' AS TEXT)";
    for values in [[odd, "'{}'", "NULL"], ["'email/1'", odd, "NULL"], ["'email/1'", "'{}'", odd]] {
        let values = values.join(", ");
        let add = format!(
            "INSERT INTO postrider_deliveries (format, body, template_id, recipients) VALUES ({values}, '[\"ada@example.com\"]')"
        );
        sqlx::raw_sql(AssertSqlSafe(add)).execute(&pool).await.unwrap();
    }
    let good = outbox.enqueue(ada()).await.unwrap();
    let parent = "UPDATE postrider_deliveries SET traceparent = CAST(x'30ff' AS TEXT)";
    sqlx::raw_sql(parent).execute(&pool).await.unwrap();
    let summary = outbox.relay().drain().await.unwrap();
    assert_eq!((summary.sent, summary.dead), (1, 3));
    let shown = outbox.get(good).await.unwrap().unwrap();
    assert_eq!((shown.state, shown.traceparent, shown.malformed), (State::Sent, None, None));
    let listed = outbox.list(&Filter::new()).await.unwrap();
    assert_eq!(listed.len(), 4);
    for dead in listed.iter().filter(|summary| summary.id != good) {
        assert!(dead.last_error.as_deref().unwrap().contains("the stored row cannot be read"), "{dead:?}");
        assert_eq!(outbox.get(dead.id).await.unwrap().unwrap().state, State::Dead);
    }
}

/// A recipient has the mail, so the delivery ends as sent, although its mail can no longer be read.
#[tokio::test]
async fn a_mail_that_is_damaged_after_one_recipient_accepted_it_ends_as_sent() {
    let (pool, _) = outbox().await;
    let later = Receipt::new().with_refused(vec![Refusal::new("bob@example.com", Class::Transient, "450 later")]);
    let transport = ScriptedTransport::new().then(Ok(later));
    let outbox = Outbox::new(SqliteStore::new(pool.clone()), transport.clone());
    let id = outbox.enqueue(email(&["ada@example.com", "bob@example.com"])).await.unwrap();
    assert_eq!(outbox.relay().drain().await.unwrap().retried, 1);
    let damage = "UPDATE postrider_deliveries SET body = CAST(x'7b2261223a22ff227d' AS TEXT); UPDATE postrider_queue SET due_at = 0";
    sqlx::raw_sql(damage).execute(&pool).await.unwrap();
    outbox.relay().drain().await.unwrap();
    assert_eq!(transport.calls().len(), 1, "a damaged mail was sent");
    let delivery = outbox.get(id).await.unwrap().unwrap();
    assert_eq!(delivery.state, State::Sent);
    let states: Vec<_> = delivery.recipients.iter().map(|r| (r.recipient.as_str(), r.state)).collect();
    assert_eq!(states, [("ada@example.com", RecipientState::Sent), ("bob@example.com", RecipientState::Refused)]);
}

/// The number of steps of SQLite's virtual machine grows with the number of rows pruned, and not with its square.
#[tokio::test]
async fn pruning_reads_the_history_once() {
    let mut steps = Vec::new();
    for (state, deliveries) in [("sent", 1_000), ("sent", 12_000), ("dead", 1_000), ("dead", 12_000)] {
        let (pool, _) = outbox().await;
        let fill = format!(
            "INSERT INTO postrider_deliveries (created_at, format, body, recipients)
             WITH n AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM n WHERE n < {deliveries})
             SELECT 1000, 'email/1', '{{}}', '[\"ada@example.com\"]' FROM n;
             DELETE FROM postrider_queue;
             INSERT INTO postrider_attempts (delivery_id, number, cycle, token, started_at, finished_at, outcome)
             SELECT id, number.column1, 1, number.column1, 1000, 1000, 'transient'
             FROM postrider_deliveries, (VALUES (1), (2)) number;
             INSERT INTO postrider_ended SELECT id, 'dead', NULL, 1000, 2, 2, 1 FROM postrider_deliveries WHERE '{state}' = 'dead'"
        );
        sqlx::raw_sql(AssertSqlSafe(fill)).execute(&pool).await.unwrap();
        let options = pool.connect_options();
        let steps_taken = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&steps_taken);
        let pool = SqlitePoolOptions::new().max_connections(1).after_connect(move |connection, _| {
            let counter = Arc::clone(&counter);
            Box::pin(async move {
                let count = move || counter.fetch_add(1, Ordering::Relaxed) < u64::MAX;
                connection.lock_handle().await?.set_progress_handler(100, count);
                Ok(())
            })
        });
        let pool = pool.connect_with(options.as_ref().clone()).await.unwrap();
        let store = SqliteStore::new(pool);
        let prune = Prune::history(SECOND).state(state.parse().unwrap());
        assert_eq!(store.prune(&prune).await.unwrap(), deliveries);
        steps.push(steps_taken.load(Ordering::Relaxed));
        assert_eq!(store.prune(&prune).await.unwrap(), 0);
    }
    assert!(steps[1] < steps[0] * 15 && steps[3] < steps[2] * 15, "{steps:?} hundreds of steps");
}

#[tokio::test]
async fn a_prune_that_finds_nothing_waits_for_no_writer() {
    let (pool, _) = outbox().await;
    let writer = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let prune = Prune::deliveries(SECOND).state(State::Sent);
    assert_eq!(impatient_store(&pool).await.prune(&prune).await.unwrap(), 0);
    drop(writer);
}

#[tokio::test]
async fn twenty_tasks_share_a_database_in_memory() {
    let store = SqliteStore::open("sqlite::memory:").await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(SqliteStore::schema())).execute(store.pool()).await.unwrap();
    let outbox = Outbox::new(store, ScriptedTransport::<Email>::new());
    outbox.migrate().await.unwrap();
    let tasks = (0..20).map(|_| {
        let outbox = outbox.clone();
        tokio::spawn(async move { outbox.enqueue(ada()).await.unwrap() })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(outbox.relay().drain().await.unwrap().sent, 20);
}

#[tokio::test]
async fn a_database_in_utf_16_is_refused_in_one_line() {
    let pool = SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await.unwrap();
    sqlx::raw_sql("PRAGMA encoding = 'UTF-16le'; CREATE TABLE users (name TEXT)").execute(&pool).await.unwrap();
    let error = SqliteStore::new(pool).migrate().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Rejected);
    assert!(error.to_string().contains("UTF-16le") && !error.to_string().contains('\n'), "{error}");
}

/// Invariant 5.
#[tokio::test]
async fn the_insert_trigger_refuses_rows_that_break_a_rule() {
    let (pool, outbox) = outbox().await;
    let good = ["'email/1'", "'{}'", "'[\"ada@example.com\"]'", "NULL", "NULL"];
    let many = |n: usize| format!("'[{}]'", vec!["\"ada@example.com\""; n].join(","));
    let bad = [
        (0, "printf('%65s', '')".to_owned()),
        (1, "printf('%67108865s', '')".to_owned()),
        (2, "'[]'".to_owned()),
        (2, "'[7]'".to_owned()),
        (2, "'[\"nobody\"]'".to_owned()),
        (2, "'[\"ada@example.com\", \"nobody\"]'".to_owned()),
        (2, format!("'[\"{}@example.com\"]'", "x".repeat(700))),
        (2, many(10_001)),
        (3, "printf('%256s', '')".to_owned()),
        (4, "printf('%256s', '')".to_owned()),
    ];
    let insert = async |values: [&str; 5]| {
        let values = values.join(", ");
        let add =
            format!("INSERT INTO postrider_deliveries (format, body, recipients, template_id, key) VALUES ({values})");
        sqlx::raw_sql(AssertSqlSafe(add)).execute(&pool).await
    };
    for (place, value) in &bad {
        let mut values = good;
        values[*place] = value;
        assert!(insert(values).await.is_err(), "{:.60} was accepted", value);
    }
    insert(good).await.unwrap();
    insert([good[0], good[1], &many(10_000), "printf('%255s', '')", "printf('%255s', '')"]).await.unwrap();
    let pager = "INSERT INTO postrider_deliveries (format, body, recipients) VALUES ('pager/1', 'x', '[\"5\"]')";
    sqlx::raw_sql(pager).execute(&pool).await.unwrap();
    assert_eq!(outbox.stats().await.unwrap().pending, 3);
}

#[tokio::test]
async fn tables_of_a_newer_version_and_unusable_urls_are_refused() {
    let (pool, outbox) = outbox().await;
    sqlx::query("INSERT INTO postrider_migrations (version) VALUES (99)").execute(&pool).await.unwrap();
    let newer = outbox.migrate().await.unwrap_err();
    assert_eq!(newer.kind(), StoreErrorKind::NewerTables);
    assert!(newer.to_string().contains("version 99"), "{newer}");
    assert!(SqliteStore::open("postgres://localhost/x").await.is_err());
    assert!(SqliteStore::open("sqlite:///no/such/directory/outbox.db").await.is_err());
}

/// The column is text, and a relay must be able to read each id.
#[tokio::test]
async fn an_id_that_is_not_a_uuid_in_lower_case_is_refused() {
    let (pool, _) = outbox().await;
    let insert =
        "INSERT INTO postrider_deliveries (id, format, body, recipients) VALUES (?1, 'email/1', '{}', '[\"a@b.c\"]')";
    for bad in [
        "0198C0DE-0000-7000-8000-000000000000",
        "gggggggg-gggg-gggg-gggg-gggggggggggg",
        "0198c0de-0000-7000-8000-00000000000-",
        "0198c0de-0000-7000-8000-000000000000\0x",
        "0198c0dé-0000-7000-8000-000000000000",
        "no id",
        "",
    ] {
        assert!(sqlx::query(insert).bind(bad).execute(&pool).await.is_err(), "{bad:?} was accepted");
    }
    sqlx::query(insert).bind(DeliveryId::new().to_string()).execute(&pool).await.unwrap();
}
