//! What is particular to the SQLite store: the caller's pool and transactions, other programs, missing tables.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/dropped.rs"]
mod dropped;
#[path = "support/nonsense.rs"]
mod nonsense;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use postrider::testkit::ScriptedTransport;
use postrider::transport::{Class, Receipt, Refusal};
use postrider::{
    AdminStore, DeliveryId, Email, EnqueueError, Outbox, RecipientState, SqliteStore, State, Store, StoreErrorKind,
};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use tokio_util::sync::CancellationToken;

const SECOND: Duration = Duration::from_secs(1);

fn ada() -> Email {
    Email::builder().from("shop@example.com").to("ada@example.com").text("Hello").build().unwrap()
}

/// The pool of a program that has tables of its own.
async fn pool() -> SqlitePool {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap().keep();
    let options = SqliteConnectOptions::new().filename(directory.join("shop.db")).create_if_missing(true);
    let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await.unwrap();
    sqlx::query("CREATE TABLE users (name TEXT PRIMARY KEY)").execute(&pool).await.unwrap();
    pool
}

async fn outbox(pool: &SqlitePool) -> Outbox<SqliteStore, ScriptedTransport<Email>> {
    let outbox = Outbox::new(SqliteStore::new(pool.clone()), ScriptedTransport::new());
    outbox.migrate().await.unwrap();
    outbox
}

#[tokio::test]
async fn the_mail_and_the_data_share_their_fate() {
    let pool = pool().await;
    let outbox = outbox(&pool).await;
    for (name, commit) in [("Ada", true), ("Bob", false)] {
        let mut tx = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
        sqlx::query("INSERT INTO users VALUES (?1)").bind(name).execute(&mut *tx).await.unwrap();
        outbox.enqueue_in(&mut tx, ada()).await.unwrap();
        if commit { tx.commit().await.unwrap() } else { tx.rollback().await.unwrap() }
    }
    // A savepoint that is rolled back takes its mail with it, and leaves the rest.
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let kept = outbox.enqueue_in(&mut tx, ada()).await.unwrap();
    let mut inner = sqlx::Acquire::begin(&mut *tx).await.unwrap();
    let gone = outbox.enqueue_in(&mut inner, ada()).await.unwrap();
    inner.rollback().await.unwrap();
    tx.commit().await.unwrap();
    assert!(outbox.get(kept).await.unwrap().is_some() && outbox.get(gone).await.unwrap().is_none());
    // A transaction that fails later takes its mail with it as well.
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    outbox.enqueue_in(&mut tx, ada()).await.unwrap();
    assert!(sqlx::query("INSERT INTO users VALUES ('Ada')").execute(&mut *tx).await.is_err());
    drop(tx);
    let users: i64 = sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(&pool).await.unwrap();
    assert_eq!((users, outbox.relay().drain().await.unwrap().sent), (1, 2));
}

/// SQLite's serialization failure: who has read may not write once another has, and waiting does not help.
#[tokio::test]
async fn a_transaction_that_has_read_too_early_leaves_no_mail() {
    let pool = pool().await;
    let outbox = outbox(&pool).await;
    let mut early = pool.begin().await.unwrap();
    let users: i64 = sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(&mut *early).await.unwrap();
    assert_eq!(users, 0);
    let mut other = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    sqlx::query("INSERT INTO users VALUES ('Ada')").execute(&mut *other).await.unwrap();
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

#[tokio::test]
async fn it_can_be_enqueued_from_a_spawned_task_and_a_pooled_connection() {
    let pool = pool().await;
    let outbox = outbox(&pool).await;
    let task = {
        let (outbox, pool) = (outbox.clone(), pool.clone());
        tokio::spawn(async move {
            let mut connection = pool.acquire().await.unwrap();
            outbox.enqueue_in(&mut connection, ada()).await.unwrap()
        })
    };
    let id = task.await.unwrap();
    assert_eq!(outbox.get(id).await.unwrap().unwrap().state, State::Pending);
}

#[tokio::test]
async fn a_relay_finds_what_is_committed_after_the_signal() {
    let pool = pool().await;
    let outbox = outbox(&pool).await;
    let shutdown = CancellationToken::new();
    // The poll would come too late for this test.
    let worker = tokio::spawn(outbox.relay().poll(SECOND * 10_000).run(shutdown.clone().cancelled_owned()));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let id = outbox.enqueue_in(&mut tx, ada()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(30)).await;
    tx.commit().await.unwrap();
    let sent = async {
        while outbox.get(id).await.unwrap().unwrap().state != State::Sent {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(SECOND * 20, sent).await.is_ok(), "the relay did not look again");
    shutdown.cancel();
    worker.await.unwrap().unwrap();
}

#[tokio::test]
async fn another_program_enqueues_with_one_statement() {
    let pool = pool().await;
    let outbox = outbox(&pool).await;
    let id = DeliveryId::new();
    sqlx::query(
        "INSERT INTO postrider_deliveries (id, format, body, recipients, template_id)
         VALUES (?1, 'email/1',
                 '{\"from\": \"Shop <shop@example.com>\", \"to\": [\"ada@example.com\"], \"subject\": \"Hi\", \"text\": \"Hello\"}',
                 '[\"ada@example.com\"]', 'welcome')",
    )
    .bind(id.to_string())
    .execute(&pool)
    .await
    .unwrap();
    assert_eq!(outbox.relay().drain().await.unwrap().sent, 1);
    let shown = outbox.get(id).await.unwrap().unwrap();
    assert_eq!((shown.state, shown.template_id.as_deref()), (State::Sent, Some("welcome")));
    assert!(shown.attempts[0].started_at >= shown.created_at, "the database's clock is off");
    let nobody = "INSERT INTO postrider_deliveries (id, format, body, recipients) VALUES ('x', 'email/1', '{}', '[]')";
    assert!(sqlx::query(nobody).execute(&pool).await.is_err(), "a delivery for nobody was taken");
}

#[tokio::test]
async fn the_schema_as_plain_sql_is_what_migrate_makes() {
    let (by_hand, by_migrate) = (pool().await, pool().await);
    sqlx::raw_sql(sqlx::AssertSqlSafe(SqliteStore::schema())).execute(&by_hand).await.unwrap();
    outbox(&by_migrate).await;
    let sql = "SELECT type, name, sql FROM sqlite_schema WHERE name LIKE 'postrider%' ORDER BY name";
    let by_hand: Vec<(String, String, String)> = sqlx::query_as(sql).fetch_all(&by_hand).await.unwrap();
    let by_migrate: Vec<(String, String, String)> = sqlx::query_as(sql).fetch_all(&by_migrate).await.unwrap();
    assert!(by_hand.len() > 8);
    assert_eq!(by_hand, by_migrate);
}

#[tokio::test]
async fn what_is_wrong_with_the_database_is_said_in_kind() {
    let pool = pool().await;
    let store = SqliteStore::new(pool.clone());
    let outbox = Outbox::new(store.clone(), ScriptedTransport::<Email>::new());
    assert_eq!(outbox.stats().await.unwrap_err().kind(), StoreErrorKind::NotMigrated);
    let run = outbox.relay().run(std::future::pending());
    let error = tokio::time::timeout(SECOND * 20, run).await.expect("it does not wait for tables").unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NotMigrated);

    outbox.migrate().await.unwrap();
    sqlx::query("INSERT INTO postrider_migrations (version) VALUES (99)").execute(&pool).await.unwrap();
    let newer = outbox.migrate().await.unwrap_err();
    assert_eq!(newer.kind(), StoreErrorKind::Rejected);
    assert!(newer.to_string().contains("version 99"), "{newer}");

    pool.close().await;
    assert_eq!(store.next_due().await.unwrap_err().kind(), StoreErrorKind::Closed);
    assert!(SqliteStore::open("postgres://localhost/x").await.is_err());
    assert!(SqliteStore::open("sqlite:///no/such/directory/outbox.db").await.is_err());
}

#[tokio::test]
async fn a_writer_that_holds_the_database_is_waited_for() {
    let pool = pool().await;
    let store = SqliteStore::new(pool.clone());
    store.migrate().await.unwrap();
    let hurried: SqliteConnectOptions = pool.connect_options().as_ref().clone().busy_timeout(Duration::from_millis(20));
    let hurried = SqlitePoolOptions::new().max_connections(2).connect_with(hurried).await.unwrap();
    let outbox = Outbox::new(SqliteStore::new(hurried), ScriptedTransport::<Email>::new());
    let id = outbox.enqueue(ada()).await.unwrap();
    let blocking = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let locked = outbox.enqueue(ada()).await.unwrap_err().to_string();
    assert!(locked.contains("locked"), "{locked}");
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn(outbox.relay().run(shutdown.clone().cancelled_owned()));
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(store.get(id).await.unwrap().unwrap().state, State::Pending);
    drop(blocking);
    let sent = async {
        while store.get(id).await.unwrap().unwrap().state != State::Sent {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(SECOND * 20, sent).await.is_ok(), "the relay did not resume");
    shutdown.cancel();
    worker.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_row_that_makes_no_sense_becomes_a_dead_letter_and_stops_nobody() {
    let pool = pool().await;
    let outbox = outbox(&pool).await;
    let add = "INSERT INTO postrider_deliveries (id, format, body, recipients) VALUES (?1, 'email/1', '{}', ?2)";
    let odd = DeliveryId::new();
    sqlx::query(add).bind(odd.to_string()).bind("[\"ada@example.com\"]").execute(&pool).await.unwrap();
    sqlx::query("UPDATE postrider_deliveries SET recipients = '[{\"a\": 1}]'").execute(&pool).await.unwrap();
    let good = outbox.enqueue(ada()).await.unwrap();
    let pass = outbox.relay().drain().await.unwrap();
    assert_eq!((pass.sent, pass.dead), (1, 1));
    assert_eq!(outbox.get(good).await.unwrap().unwrap().state, State::Sent);
    let dead = outbox.list(&postrider::Filter::new().state(State::Dead)).await.unwrap();
    assert_eq!((dead[0].id, dead[0].attempts), (odd, 1));
    assert!(dead[0].last_error.as_deref().unwrap().contains("the stored row cannot be read"));
    for bad in [
        "0198C0DE-0000-7000-8000-000000000000",
        "gggggggg-gggg-gggg-gggg-gggggggggggg",
        "0198c0de-0000-7000-8000-00000000000-",
        "0198c0de-0000-7000-8000-000000000000\0x",
        "0198c0dé-0000-7000-8000-000000000000",
        "no id",
        "",
    ] {
        assert!(
            sqlx::query(add).bind(bad).bind("[\"a\"]").execute(&pool).await.is_err(),
            "{bad:?} was taken for an id"
        );
    }
}

/// SQLite keeps as a text whatever octets it is told are one.
#[tokio::test]
async fn a_text_that_is_not_utf_8_stops_nobody() {
    let pool = pool().await;
    let outbox = outbox(&pool).await;
    let odd = "CAST(x'7b22ff227d' AS TEXT)";
    for values in [[odd, "'{}'", "NULL"], ["'email/1'", odd, "NULL"], ["'email/1'", "'{}'", odd]] {
        let values = values.join(", ");
        let add = format!(
            "INSERT INTO postrider_deliveries (format, body, template_id, recipients) VALUES ({values}, '[\"ada@example.com\"]')"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(add)).execute(&pool).await.unwrap();
    }
    let good = outbox.enqueue(ada()).await.unwrap();
    let pass = outbox.relay().drain().await.unwrap();
    assert_eq!((pass.sent, pass.dead), (1, 3));
    assert_eq!(outbox.get(good).await.unwrap().unwrap().state, State::Sent);
    let listed = outbox.list(&postrider::Filter::new()).await.unwrap();
    assert_eq!(listed.len(), 4);
    for dead in listed.iter().filter(|summary| summary.id != good) {
        assert!(dead.last_error.as_deref().unwrap().contains("the stored row cannot be read"), "{dead:?}");
        assert_eq!(outbox.get(dead.id).await.unwrap().unwrap().state, State::Dead);
    }
}

/// Whoever took a mail has it, even if the rest of its way shows that it can no longer be read.
#[tokio::test]
async fn a_body_that_is_damaged_after_somebody_took_it_leaves_no_dead_letter() {
    let pool = pool().await;
    let later = Receipt::new().with_refused(vec![Refusal::new("bob@example.com", Class::Transient, "450 later")]);
    let transport = ScriptedTransport::new().then(Ok(later));
    let outbox = Outbox::new(SqliteStore::new(pool.clone()), transport.clone());
    outbox.migrate().await.unwrap();
    let both = Email::builder().from("shop@example.com").to("ada@example.com").to("bob@example.com").text("Hello");
    let id = outbox.enqueue(both.build().unwrap()).await.unwrap();
    assert_eq!(outbox.relay().drain().await.unwrap().retried, 1);
    let damage =
        "UPDATE postrider_deliveries SET body = CAST(x'7b22ff227d' AS TEXT); UPDATE postrider_queue SET due_at = 0";
    sqlx::raw_sql(damage).execute(&pool).await.unwrap();
    outbox.relay().drain().await.unwrap();
    assert_eq!(transport.calls().len(), 1, "there is nothing to send");
    let delivery = outbox.get(id).await.unwrap().unwrap();
    assert_eq!(delivery.state, State::Sent);
    let states: Vec<_> = delivery.recipients.iter().map(|r| (r.recipient.as_str(), r.state)).collect();
    assert_eq!(states, [("ada@example.com", RecipientState::Sent), ("bob@example.com", RecipientState::Refused)]);
}

/// The work of pruning grows as what is pruned, and not as its square.
#[tokio::test]
async fn a_long_history_is_pruned_without_walking_over_it_again_and_again() {
    let mut steps = Vec::new();
    for (state, deliveries) in [("sent", 1_000), ("sent", 12_000), ("dead", 1_000), ("dead", 12_000)] {
        let pool = pool().await;
        outbox(&pool).await;
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
        sqlx::raw_sql(sqlx::AssertSqlSafe(fill)).execute(&pool).await.unwrap();
        let options = pool.connect_options();
        let taken = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&taken);
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
        let prune = postrider::Prune::older_than(SECOND).state(state.parse().unwrap()).history_only();
        assert_eq!(store.prune(&prune).await.unwrap(), deliveries);
        steps.push(taken.load(Ordering::Relaxed));
        assert_eq!(store.prune(&prune).await.unwrap(), 0);
    }
    assert!(steps[1] < steps[0] * 15 && steps[3] < steps[2] * 15, "{steps:?} hundreds of steps");
}

#[tokio::test]
async fn looking_for_what_to_prune_waits_for_no_writer() {
    let pool = pool().await;
    outbox(&pool).await;
    let hurried: SqliteConnectOptions = pool.connect_options().as_ref().clone().busy_timeout(Duration::from_millis(20));
    let hurried = SqliteStore::new(SqlitePoolOptions::new().max_connections(2).connect_with(hurried).await.unwrap());
    let writer = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let prune = postrider::Prune::older_than(SECOND).state(State::Sent);
    assert_eq!(hurried.prune(&prune).await.unwrap(), 0);
    drop(writer);
}

#[tokio::test]
async fn a_delivery_that_is_deleted_by_hand_leaves_nothing_to_trip_over() {
    let pool = pool().await;
    let outbox = outbox(&pool).await;
    outbox.enqueue_all((0..3).map(|_| ada())).await.unwrap();
    sqlx::query("DELETE FROM postrider_deliveries").execute(&pool).await.unwrap();
    assert_eq!(outbox.store().next_due().await.unwrap(), None);
    assert_eq!(outbox.stats().await.unwrap().pending, 0);
}

#[tokio::test]
async fn a_database_in_memory_works_and_tables_made_by_hand_are_not_made_again() {
    let store = SqliteStore::open("sqlite::memory:").await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(SqliteStore::schema())).execute(store.pool()).await.unwrap();
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
async fn rows_of_the_queue_and_the_history_that_make_no_sense_stop_nobody() {
    let pool = pool().await;
    let store = outbox(&pool).await.store().clone();
    let dialect = nonsense::Dialect {
        prefix: "postrider_",
        id: |id| format!("'{id}'"),
        times: ["-9223372036854775808", "9223372036854775807"],
        last_count: u32::MAX.into(),
        unruled: &[],
    };
    // The rules of a table of SQLite's cannot be taken away, but for a connection.
    let run = async |sql: String| {
        let mut connection = pool.acquire().await.unwrap();
        sqlx::query("PRAGMA ignore_check_constraints = ON").execute(&mut *connection).await.unwrap();
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&mut *connection).await.unwrap();
        sqlx::query("PRAGMA ignore_check_constraints = OFF").execute(&mut *connection).await.unwrap();
    };
    nonsense::rows_that_make_no_sense_stop_nobody(store, dialect, run).await;
}

#[tokio::test]
async fn rows_whose_mails_were_deleted_behind_the_triggers_are_removed() {
    let pool = pool().await;
    let store = outbox(&pool).await.store().clone();
    let trigger: String = sqlx::query_scalar("SELECT sql FROM sqlite_schema WHERE name = 'postrider_delete'")
        .fetch_one(&pool)
        .await
        .unwrap();
    let lose = async |id: DeliveryId| {
        let lose =
            format!("DROP TRIGGER postrider_delete; DELETE FROM postrider_deliveries WHERE id = '{id}'; {trigger}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(lose)).execute(&pool).await.unwrap();
    };
    let queued = async || sqlx::query_scalar("SELECT count(*) FROM postrider_queue").fetch_one(&pool).await.unwrap();
    nonsense::rows_without_a_mail_are_removed(store, lose, queued).await;
}

/// The next borrower of the connection must not work, without knowing, in a transaction that a dropped call had begun.
#[tokio::test]
async fn a_call_that_is_dropped_leaves_no_transaction_open() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap().keep();
    let options = SqliteConnectOptions::new().filename(directory.join("outbox.db")).create_if_missing(true);
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    let store = SqliteStore::new(pool.clone());
    store.migrate().await.unwrap();
    let row = || {
        let body = postrider::Message::encode(&ada()).unwrap();
        postrider::store::NewRow::new(
            DeliveryId::new(),
            body,
            vec![postrider::transport::Recipient::new("ada@example.com")],
        )
    };
    for what in [
        "migrate",
        "insert",
        "claim",
        "settle",
        "renew",
        "take back",
        "get",
        "stats",
        "cancel",
        "resend",
        "prune",
        "report",
    ] {
        for polls in 1.. {
            let id = store.insert(vec![row()]).await.unwrap()[0];
            let lease = store.claim(postrider::store::Claim::new(1_000, SECOND * 60)).await.unwrap().pop().unwrap();
            let call = async {
                match what {
                    "migrate" => store.migrate().await,
                    "insert" => store.insert(vec![row()]).await.map(drop),
                    "claim" => store.claim(postrider::store::Claim::new(1, SECOND)).await.map(drop),
                    "settle" => {
                        let attempt = postrider::Attempt::new(
                            1,
                            1,
                            lease.claimed_at,
                            lease.claimed_at,
                            postrider::Outcome::Transient,
                        );
                        let next = postrider::store::Next::Pending { after: SECOND };
                        let back = postrider::store::Settlement::new(lease.key, 1, next).with_attempt(attempt);
                        store.settle(&[back]).await.map(drop)
                    }
                    "renew" => store.renew(&[lease.key], SECOND).await.map(drop),
                    "take back" => store.take_back(&[postrider::store::Claim::new(1, SECOND).id]).await.map(drop),
                    "get" => store.get(id).await.map(drop),
                    "stats" => store.stats().await.map(drop),
                    "cancel" => store.cancel(id).await.map(drop),
                    "resend" => store.resend(id).await.map(drop),
                    "prune" => {
                        store.prune(&postrider::Prune::older_than(Duration::ZERO).state(State::Sent)).await.map(drop)
                    }
                    _ => {
                        store
                            .report(&postrider::store::RelayReport::new(postrider::store::RelayId::new(), 0, None))
                            .await
                    }
                }
            };
            let ended = dropped::dropped_after(polls, call).await;
            // Refused in a transaction.
            sqlx::query("VACUUM")
                .execute(&pool)
                .await
                .unwrap_or_else(|error| panic!("{what} after {polls} polls: {error}"));
            assert!(polls < 500, "{what} never ends");
            if ended {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_database_in_utf_16_is_refused_in_one_line() {
    let pool = SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await.unwrap();
    sqlx::raw_sql("PRAGMA encoding = 'UTF-16le'; CREATE TABLE users (name TEXT)").execute(&pool).await.unwrap();
    let error = SqliteStore::new(pool).migrate().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Rejected);
    assert!(error.to_string().contains("UTF-16le") && !error.to_string().contains('\n'), "{error}");
}

/// What a relay could not send is named when it is enqueued, also by size.
#[tokio::test]
async fn what_breaks_a_rule_is_refused_at_once() {
    let pool = pool().await;
    let outbox = outbox(&pool).await;
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
        sqlx::raw_sql(sqlx::AssertSqlSafe(add)).execute(&pool).await
    };
    for (place, value) in &bad {
        let mut values = good;
        values[*place] = value;
        assert!(insert(values).await.is_err(), "{:.60} was taken", value);
    }
    insert(good).await.unwrap();
    insert([good[0], good[1], &many(10_000), "printf('%255s', '')", "printf('%255s', '')"]).await.unwrap();
    let pager = "INSERT INTO postrider_deliveries (format, body, recipients) VALUES ('pager/1', 'x', '[\"5\"]')";
    sqlx::raw_sql(pager).execute(&pool).await.unwrap();
    assert_eq!(outbox.stats().await.unwrap().pending, 3);
}
