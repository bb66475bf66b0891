//! What is particular to the PostgreSQL store: the caller's transactions at every isolation level, waking, schemas, plain SQL,
//! plans, and connections that go away.

mod faults;
mod nonsense;
mod plans;
mod rights;

use std::time::Duration;

use postrider::testkit::ScriptedTransport;
use postrider::{AdminStore, DeliveryId, Email, NewDelivery, Outbox, PgStore, State, Store, StoreErrorKind};
use sqlx::postgres::{PgListener, PgPool, PgPoolOptions};
use tokio_util::sync::CancellationToken;

use crate::{SECOND, ada, pool};

type TestOutbox = Outbox<PgStore, ScriptedTransport<Email>>;

/// Where the server is that this module is named for (`PG`), or its PgBouncer (`PGBOUNCER`).
fn url(name: &str) -> String {
    crate::url(module_path!(), name)
}

fn new_schema() -> String {
    format!("t_{}", DeliveryId::new().as_uuid().simple())
}

/// An outbox in a schema of its own, with a table of the program's beside it.
async fn outbox() -> (String, PgPool, TestOutbox) {
    let schema = new_schema();
    let pool = PgPoolOptions::new().max_connections(6).connect(&url("PG")).await.unwrap();
    let outbox = Outbox::new(PgStore::in_schema(pool.clone(), &schema).unwrap(), ScriptedTransport::new());
    outbox.migrate().await.unwrap();
    run(&pool, &format!("CREATE TABLE \"{schema}\".users (name text PRIMARY KEY)")).await;
    (schema, pool, outbox)
}

async fn run(pool: &PgPool, sql: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(pool).await.unwrap();
}

async fn until_sent(outbox: &TestOutbox, id: DeliveryId) {
    let sent = async {
        while outbox.get(id).await.ok().flatten().is_none_or(|delivery| delivery.state != State::Sent) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(SECOND * 30, sent).await.is_ok(), "it was never sent");
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn the_mail_and_the_data_share_their_fate() {
    let (schema, pool, outbox) = outbox().await;
    let add = |name: &str| sqlx::AssertSqlSafe(format!("INSERT INTO \"{schema}\".users VALUES ('{name}')"));
    for (name, commit) in [("Ada", true), ("Bob", false)] {
        let mut tx = pool.begin().await.unwrap();
        sqlx::query(add(name)).execute(&mut *tx).await.unwrap();
        outbox.enqueue_in(&mut tx, ada()).await.unwrap();
        if commit { tx.commit().await.unwrap() } else { tx.rollback().await.unwrap() }
    }
    // A savepoint that is rolled back takes its mail with it, and leaves the rest.
    let mut tx = pool.begin().await.unwrap();
    let kept = outbox.enqueue_in(&mut tx, ada()).await.unwrap();
    let mut inner = sqlx::Acquire::begin(&mut *tx).await.unwrap();
    let gone = outbox.enqueue_in(&mut inner, ada()).await.unwrap();
    inner.rollback().await.unwrap();
    tx.commit().await.unwrap();
    assert!(outbox.get(kept).await.unwrap().is_some() && outbox.get(gone).await.unwrap().is_none());
    // A statement that fails later takes the mail with it.
    let mut tx = pool.begin().await.unwrap();
    outbox.enqueue_in(&mut tx, ada()).await.unwrap();
    assert!(sqlx::query(add("Ada")).execute(&mut *tx).await.is_err());
    assert!(tx.commit().await.is_ok(), "PostgreSQL answers a commit of a failed transaction with a rollback");
    assert_eq!(outbox.relay().drain().await.unwrap().sent, 2);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn a_serialization_failure_leaves_no_mail() {
    let (schema, pool, outbox) = outbox().await;
    let count = || sqlx::AssertSqlSafe(format!("SELECT count(*) FROM \"{schema}\".users"));
    let add = |name: &str| sqlx::AssertSqlSafe(format!("INSERT INTO \"{schema}\".users VALUES ('{name}')"));
    let mut one = pool.begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE").await.unwrap();
    let mut other = pool.begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE").await.unwrap();
    for tx in [&mut one, &mut other] {
        sqlx::query(count()).execute(&mut **tx).await.unwrap();
    }
    sqlx::query(add("Ada")).execute(&mut *one).await.unwrap();
    let first = outbox.enqueue_in(&mut one, ada()).await.unwrap();
    one.commit().await.unwrap();
    let second = async {
        sqlx::query(add("Bob")).execute(&mut *other).await?;
        outbox.enqueue_in(&mut other, ada()).await.map_err(|error| sqlx::Error::Protocol(error.to_string()))?;
        other.commit().await
    };
    assert!(second.await.is_err(), "the server let both pass");
    assert!(outbox.get(first).await.unwrap().is_some());
    assert_eq!(outbox.stats().await.unwrap().pending, 1);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn a_key_that_another_transaction_holds_is_waited_for() {
    let (_, pool, outbox) = outbox().await;
    let keyed = || NewDelivery::new(ada()).key("order-1");
    for commit in [false, true] {
        let mut first = pool.begin().await.unwrap();
        let first_id = outbox.enqueue_in(&mut first, keyed()).await.unwrap();
        let waiting = tokio::spawn({
            let outbox = outbox.clone();
            async move { outbox.enqueue(keyed()).await.unwrap() }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        if commit {
            // The second attempt of the loop: the key is taken by what the first one left behind.
            let before = waiting.await.unwrap();
            first.commit().await.unwrap();
            assert_eq!(before, first_id);
        } else {
            assert!(!waiting.is_finished(), "it did not wait for the key");
            first.rollback().await.unwrap();
            assert_ne!(waiting.await.unwrap(), first_id);
        }
    }
    assert_eq!(outbox.stats().await.unwrap().pending, 1);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn a_commit_wakes_a_relay_in_another_process() {
    let (schema, pool, outbox) = outbox().await;
    let shutdown = CancellationToken::new();
    // Another pool, as another process would have; and a poll that would come too late.
    let elsewhere = PgPoolOptions::new().max_connections(3).connect(&url("PG")).await.unwrap();
    let store = PgStore::in_schema(elsewhere, &schema).unwrap();
    let relay = Outbox::new(store, ScriptedTransport::<Email>::new()).relay().poll(SECOND * 10_000);
    let worker = tokio::spawn(relay.run(shutdown.clone().cancelled_owned()));
    tokio::time::sleep(Duration::from_millis(300)).await;
    for _ in 0..3 {
        let mut tx = pool.begin().await.unwrap();
        let id = outbox.enqueue_in(&mut tx, ada()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        tx.commit().await.unwrap();
        until_sent(&outbox, id).await;
    }
    // Many commits at once ring seldom, and are all found.
    let commits = (0..8).map(|_| {
        let outbox = outbox.clone();
        tokio::spawn(async move {
            let mut last = None;
            for _ in 0..20 {
                last = Some(outbox.enqueue(ada()).await.unwrap());
            }
            last.unwrap()
        })
    });
    for commit in commits.collect::<Vec<_>>() {
        until_sent(&outbox, commit.await.unwrap()).await;
    }
    shutdown.cancel();
    assert_eq!(worker.await.unwrap().unwrap().sent, 163);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn bells_are_rung_at_most_fifty_times_a_second() {
    let (schema, _, outbox) = outbox().await;
    let mut listener = PgListener::connect(&url("PG")).await.unwrap();
    listener.listen(&format!("postrider:{schema}")).await.unwrap();
    let started = std::time::Instant::now();
    for _ in 0..300 {
        outbox.enqueue(ada()).await.unwrap();
    }
    let fiftieths = usize::try_from(started.elapsed().as_millis() / 20).unwrap() + 2;
    let mut rung = 0;
    while tokio::time::timeout(Duration::from_millis(200), listener.recv()).await.is_ok() {
        rung += 1;
    }
    assert!(rung >= 1 && rung <= fiftieths, "{rung} notifications in {fiftieths} fiftieths of a second");
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn connections_that_are_killed_are_made_anew_and_listen_again() {
    let (schema, pool, outbox) = outbox().await;
    let options = pool.connect_options().as_ref().clone().application_name(&schema);
    let relay_pool = PgPoolOptions::new().max_connections(4).connect_with(options).await.unwrap();
    let store = PgStore::in_schema(relay_pool, &schema).unwrap();
    let shutdown = CancellationToken::new();
    let relay = Outbox::new(store, ScriptedTransport::<Email>::new()).relay().poll(Duration::from_millis(200));
    let worker = tokio::spawn(relay.run(shutdown.clone().cancelled_owned()));
    for _ in 0..5 {
        let id = outbox.enqueue(ada()).await.unwrap();
        until_sent(&outbox, id).await;
        let killed =
            format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{schema}'");
        run(&pool, &killed).await;
    }
    let listening =
        format!("SELECT count(*) FROM pg_stat_activity WHERE application_name = '{schema}' AND query LIKE 'LISTEN%'");
    let again = async {
        loop {
            let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(listening.clone())).fetch_one(&pool).await.unwrap();
            if count == 1 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(SECOND * 30, again).await.is_ok(), "nobody listens again");
    shutdown.cancel();
    let pass = worker.await.unwrap().unwrap();
    // A connection that dies between a commit and its answer leaves the relay thinking that its lease was lost.
    assert_eq!(pass.sent + pass.lease_lost, 5, "{pass:?}");
    assert_eq!(outbox.stats().await.unwrap().sent, 5);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn another_program_enqueues_with_one_statement() {
    let (schema, pool, outbox) = outbox().await;
    let id = DeliveryId::new();
    let sql = format!(
        "INSERT INTO \"{schema}\".deliveries (id, format, body, recipients, template_id, send_at) VALUES ('{id}', 'email/1',
         '{{\"from\": \"Shop <shop@example.com>\", \"to\": [\"ada@example.com\"], \"subject\": \"Hi\", \"text\": \"Hello\"}}',
         '[\"ada@example.com\"]', 'welcome', now() - interval '1 hour')"
    );
    run(&pool, &sql).await;
    assert_eq!(outbox.relay().drain().await.unwrap().sent, 1);
    let shown = outbox.get(id).await.unwrap().unwrap();
    assert_eq!((shown.state, shown.template_id.as_deref()), (State::Sent, Some("welcome")));
    // For nobody, and for somebody whose outcome could not be written down.
    for recipients in ["[]", r#"["a\u0000@example.com"]"#, "7", "[", r#"{"a": 1}"#] {
        let bad = format!(
            "INSERT INTO \"{schema}\".deliveries (id, format, body, recipients) VALUES (gen_random_uuid(), 'email/1', '{{}}', '{recipients}')"
        );
        let taken = sqlx::raw_sql(sqlx::AssertSqlSafe(bad)).execute(&pool).await;
        assert!(taken.is_err(), "a delivery for {recipients} was taken");
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn outboxes_in_two_schemas_do_not_meet_and_odd_names_are_refused() {
    let (_, pool, one) = outbox().await;
    let (_, _, other) = outbox().await;
    one.enqueue(ada()).await.unwrap();
    assert_eq!(other.relay().drain().await.unwrap().sent, 0);
    assert_eq!(one.relay().drain().await.unwrap().sent, 1);
    for bad in ["", "1st", "a-b", "a\"b", "a b", "ü", &"x".repeat(49)] {
        assert_eq!(PgStore::in_schema(pool.clone(), bad).unwrap_err().kind(), StoreErrorKind::Rejected, "{bad}");
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn ten_processes_migrate_at_once_and_plain_sql_does_the_same() {
    let schema = new_schema();
    let starts = (0..10).map(|_| {
        let schema = schema.clone();
        tokio::spawn(async move {
            let pool = PgPoolOptions::new().max_connections(1).connect(&url("PG")).await.unwrap();
            PgStore::in_schema(pool, &schema).unwrap().migrate().await
        })
    });
    for start in starts.collect::<Vec<_>>() {
        start.await.unwrap().unwrap();
    }
    let (by_hand, pool) = (new_schema(), PgPool::connect(&url("PG")).await.unwrap());
    let store = PgStore::in_schema(pool.clone(), &by_hand).unwrap();
    assert_eq!(store.stats().await.unwrap_err().kind(), StoreErrorKind::NotMigrated);
    run(&pool, &PgStore::schema(&by_hand).unwrap()).await;
    let columns = |schema: &str| {
        let sql = format!(
            "SELECT table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable FROM information_schema.columns
             WHERE table_schema = '{schema}' AND table_name <> 'migrations' ORDER BY 1"
        );
        sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(sql)).fetch_all(&pool)
    };
    let (one, other) = (columns(&schema).await.unwrap(), columns(&by_hand).await.unwrap());
    assert!(one.len() > 40);
    assert_eq!(one, other);
    // Tables made by hand are not made again.
    store.migrate().await.unwrap();
    let outbox = Outbox::new(store, ScriptedTransport::<Email>::new());
    outbox.enqueue(ada()).await.unwrap();
    assert_eq!(outbox.relay().drain().await.unwrap().sent, 1);
}

/// Behind a pooler in transaction mode, with what the manual says to turn off.
#[tokio::test]
#[ignore = "needs PgBouncer: run scripts/test"]
async fn it_works_behind_a_pooler_in_transaction_mode() {
    let (schema, _, direct) = outbox().await;
    let options: sqlx::postgres::PgConnectOptions = url("PGBOUNCER").parse().unwrap();
    let pool = PgPoolOptions::new().max_connections(8).connect_with(options.statement_cache_capacity(0)).await.unwrap();
    let store = PgStore::in_schema(pool.clone(), &schema).unwrap().without_listen().without_prepared_statements();
    let transport = ScriptedTransport::<Email>::new();
    let outbox = Outbox::new(store, transport.clone());
    outbox.migrate().await.unwrap();
    let shutdown = CancellationToken::new();
    let workers: Vec<_> = (0..3)
        .map(|_| {
            tokio::spawn(
                outbox.relay().concurrency(5).poll(Duration::from_millis(50)).run(shutdown.clone().cancelled_owned()),
            )
        })
        .collect();
    let mut ids = Vec::new();
    for n in 0..60 {
        let mut tx = pool.begin().await.unwrap();
        ids.push(outbox.enqueue_in(&mut tx, NewDelivery::new(ada()).key(format!("k{n}"))).await.unwrap());
        tx.commit().await.unwrap();
    }
    for id in ids {
        until_sent(&direct, id).await;
    }
    shutdown.cancel();
    for worker in workers {
        worker.await.unwrap().unwrap();
    }
    assert_eq!(transport.calls().len(), 60);
    assert_eq!(outbox.stats().await.unwrap().sent, 60);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn rows_that_make_no_sense_stop_nobody_and_deleted_ones_leave_nothing() {
    let (schema, pool, outbox) = outbox().await;
    let odd = format!(
        "INSERT INTO \"{schema}\".deliveries (format, body, recipients) VALUES ('email/1', '{{}}', '[\"ada@example.com\"]');
         UPDATE \"{schema}\".deliveries SET recipients = '[{{\"a\": 1}}]'"
    );
    run(&pool, &odd).await;
    outbox.enqueue(ada()).await.unwrap();
    let pass = outbox.relay().drain().await.unwrap();
    assert_eq!((pass.sent, pass.dead), (1, 1));
    let endless = format!(
        "INSERT INTO \"{schema}\".deliveries (id, format, body, recipients, expires_at) VALUES (gen_random_uuid(), 'email/1', '{{}}', '[\"a@b.c\"]', 'infinity')"
    );
    assert!(sqlx::raw_sql(sqlx::AssertSqlSafe(endless)).execute(&pool).await.is_err());
    outbox.enqueue_all((0..3).map(|_| ada())).await.unwrap();
    run(&pool, &format!("DELETE FROM \"{schema}\".deliveries")).await;
    assert_eq!(outbox.store().next_due().await.unwrap(), None);
    let left = format!("SELECT count(*) FROM \"{schema}\".attempts");
    let left: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(left)).fetch_one(&pool).await.unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn a_pool_of_one_connection_is_enough() {
    let (schema, _, _) = outbox().await;
    let pool = PgPoolOptions::new().max_connections(1).connect(&url("PG")).await.unwrap();
    let outbox = Outbox::new(PgStore::in_schema(pool, &schema).unwrap(), ScriptedTransport::<Email>::new());
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn(outbox.relay().run(shutdown.clone().cancelled_owned()));
    let id = outbox.enqueue(ada()).await.unwrap();
    until_sent(&outbox, id).await;
    shutdown.cancel();
    worker.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn a_pool_can_be_closed_whatever_a_relay_keeps() {
    let (_, pool, outbox) = outbox().await;
    pool::can_be_closed_whatever_a_relay_keeps(&pool, &outbox).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn few_results_in_the_midst_of_many_do_not_cost_them_their_connection() {
    let (schema, pool, _outbox) = outbox().await;
    let store = PgStore::in_schema(pool.clone(), &schema).unwrap();
    pool::keeps_a_connection_until_the_backlog_is_at_its_end(&pool, &store).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn relays_that_share_a_pool_leave_one_another_connections() {
    let (_, pool, outbox) = outbox().await;
    pool::is_shared_by_its_relays(&pool, &outbox, 20).await;
}
