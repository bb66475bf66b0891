//! What is particular to the MySQL store: the caller's transactions, keys, rights, prefixes, plain SQL, odd sessions, what a claim
//! touches, and connections that go away.

mod faults;
mod operation;
mod settings;

use std::time::Duration;

use postrider::store::{Claim, NewRow};
use postrider::testkit::ScriptedTransport;
use postrider::transport::{Encoded, Recipient};
use postrider::{AdminStore, DeliveryId, Email, EnqueueError, MySqlStore, NewDelivery, Outbox, Store, StoreErrorKind};
use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions};

use crate::{SECOND, ada, pool};

type TestOutbox = Outbox<MySqlStore, ScriptedTransport<Email>>;

/// The server that this module is named for.
fn options() -> MySqlConnectOptions {
    crate::url(module_path!()).parse().unwrap()
}

async fn pool(options: MySqlConnectOptions, connections: u32) -> MySqlPool {
    MySqlPoolOptions::new().max_connections(connections).connect_with(options).await.unwrap()
}

fn row() -> NewRow {
    let message = Encoded { format: "test/1".to_owned(), body: "{}".to_owned() };
    NewRow::new(DeliveryId::new(), message, vec![Recipient::new("ada@example.com")])
}

fn keyed(key: &str) -> NewRow {
    let mut row = row();
    row.key = Some(key.to_owned());
    row
}

fn row_for(recipients: Vec<Recipient>) -> NewRow {
    let mut row = row();
    row.recipients = recipients;
    row
}

fn new_prefix() -> String {
    format!("t{}_", DeliveryId::new().as_uuid().simple())
}

/// An outbox with a prefix of its own, and a table of the program's beside it.
async fn outbox() -> (String, MySqlPool, TestOutbox) {
    let prefix = new_prefix();
    let pool = pool(options(), 6).await;
    let store = MySqlStore::with_table_prefix(pool.clone(), &prefix).unwrap();
    let outbox = Outbox::new(store, ScriptedTransport::new());
    outbox.migrate().await.unwrap();
    run(&pool, &format!("CREATE TABLE {prefix}users (name VARCHAR(40) PRIMARY KEY, age INT) ENGINE = InnoDB")).await;
    (prefix, pool, outbox)
}

async fn run(pool: &MySqlPool, sql: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(pool).await.unwrap();
}

/// How many rows the only connection of a pool has read.
async fn rows_read(pool: &MySqlPool) -> i64 {
    let status = "SHOW SESSION STATUS LIKE 'Handler_read%'";
    let counts: Vec<(String, String)> = sqlx::query_as(status).fetch_all(pool).await.unwrap();
    counts.iter().map(|(_, count)| count.parse::<i64>().unwrap()).sum()
}

#[tokio::test]
#[ignore = "needs MySQL and MariaDB: run scripts/test"]
async fn the_mail_and_the_data_share_their_fate() {
    let (prefix, pool, outbox) = outbox().await;
    let add = |name: &str| sqlx::AssertSqlSafe(format!("INSERT INTO {prefix}users (name) VALUES ('{name}')"));
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
    // A statement that fails later leaves the decision to the caller: here, not to commit.
    let mut tx = pool.begin().await.unwrap();
    outbox.enqueue_in(&mut tx, ada()).await.unwrap();
    assert!(sqlx::query(add("Ada")).execute(&mut *tx).await.is_err());
    drop(tx);
    assert_eq!(outbox.relay().drain().await.unwrap().sent, 2);
}

#[tokio::test]
#[ignore = "needs MySQL and MariaDB: run scripts/test"]
async fn the_victim_of_a_deadlock_leaves_no_mail() {
    let (prefix, pool, outbox) = outbox().await;
    run(&pool, &format!("INSERT INTO {prefix}users VALUES ('Ada', 1), ('Bob', 1)")).await;
    let older =
        |name: &str| sqlx::AssertSqlSafe(format!("UPDATE {prefix}users SET age = age + 1 WHERE name = '{name}'"));
    let (mut one, mut other) = (pool.begin().await.unwrap(), pool.begin().await.unwrap());
    let ids = [outbox.enqueue_in(&mut one, ada()).await.unwrap(), outbox.enqueue_in(&mut other, ada()).await.unwrap()];
    sqlx::query(older("Ada")).execute(&mut *one).await.unwrap();
    sqlx::query(older("Bob")).execute(&mut *other).await.unwrap();
    let (first, second) =
        tokio::join!(sqlx::query(older("Bob")).execute(&mut *one), sqlx::query(older("Ada")).execute(&mut *other));
    assert!(first.is_ok() != second.is_ok(), "the server made {first:?} of one and {second:?} of the other");
    let survives = first.is_ok();
    let error = postrider::StoreError::from(if survives { second } else { first }.unwrap_err());
    assert_eq!(error.kind(), StoreErrorKind::Conflict, "{error}");
    one.commit().await.unwrap();
    other.commit().await.unwrap();
    let (kept, gone) = if survives { (ids[0], ids[1]) } else { (ids[1], ids[0]) };
    assert!(outbox.get(kept).await.unwrap().is_some() && outbox.get(gone).await.unwrap().is_none());
    assert_eq!(outbox.relay().drain().await.unwrap().sent, 1);
}

#[tokio::test]
#[ignore = "needs MySQL and MariaDB: run scripts/test"]
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
        assert!(!waiting.is_finished(), "it did not wait for the key");
        if commit {
            first.commit().await.unwrap();
            assert_eq!(waiting.await.unwrap(), first_id);
        } else {
            first.rollback().await.unwrap();
            assert_ne!(waiting.await.unwrap(), first_id);
        }
    }
    assert_eq!(outbox.stats().await.unwrap().pending, 1);
}

/// A transaction at REPEATABLE READ goes on seeing the moment of its first read; who has the key is to be known all the same.
#[tokio::test]
#[ignore = "needs MySQL and MariaDB: run scripts/test"]
async fn a_key_taken_since_the_transaction_began_is_found() {
    let (prefix, pool, outbox) = outbox().await;
    let keyed = || NewDelivery::new(ada()).key("order-1");
    let count = sqlx::AssertSqlSafe(format!("SELECT COUNT(*) FROM {prefix}deliveries"));
    let begin = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; START TRANSACTION WITH CONSISTENT SNAPSHOT";
    let mut tx = pool.begin_with(begin).await.unwrap();
    // MariaDB has a stricter snapshot as well (see below), which may be its default; MySQL has not.
    let _ = sqlx::raw_sql("SET innodb_snapshot_isolation = OFF").execute(&mut *tx).await;
    let first = outbox.enqueue(keyed()).await.unwrap();
    assert_eq!(sqlx::query_scalar::<_, i64>(count).fetch_one(&mut *tx).await.unwrap(), 0, "the snapshot is younger");
    assert_eq!(outbox.enqueue_in(&mut tx, keyed()).await.unwrap(), first);
    tx.commit().await.unwrap();
    assert_eq!(outbox.stats().await.unwrap().pending, 1);
}

/// Where MariaDB keeps a snapshot strictly, as newer versions do by default, who has taken the key since cannot be known in
/// the same transaction. It is told to be run again, and then knows. MySQL has no such setting, and finds the key at once.
#[tokio::test]
#[ignore = "needs MySQL and MariaDB: run scripts/test"]
async fn a_key_that_a_strict_snapshot_hides_is_a_conflict() {
    let (_, pool, outbox) = outbox().await;
    let keyed = || NewDelivery::new(ada()).key("order-1");
    let begin = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; START TRANSACTION WITH CONSISTENT SNAPSHOT";
    let mut tx = pool.begin_with(begin).await.unwrap();
    let strict = sqlx::raw_sql("SET innodb_snapshot_isolation = ON").execute(&mut *tx).await.is_ok();
    assert_eq!(strict, module_path!().contains("mariadb"));
    let first = outbox.enqueue(keyed()).await.unwrap();
    match outbox.enqueue_in(&mut tx, keyed()).await {
        Err(EnqueueError::Store(error)) if strict => assert_eq!(error.kind(), StoreErrorKind::Conflict, "{error}"),
        found => assert_eq!((strict, found.unwrap()), (false, first)),
    }
    tx.rollback().await.unwrap();
    let mut tx = pool.begin().await.unwrap();
    assert_eq!(outbox.enqueue_in(&mut tx, keyed()).await.unwrap(), first);
    tx.commit().await.unwrap();
    assert_eq!(outbox.stats().await.unwrap().pending, 1);
}

#[tokio::test]
#[ignore = "needs MySQL and MariaDB: run scripts/test"]
async fn keys_are_the_same_only_to_the_letter() {
    let (_, _, outbox) = outbox().await;
    let store = outbox.store();
    let keys = ["a", "A", "a ", "ä", "a\u{308}", "𝄞", &"k".repeat(255), &"𝄞".repeat(255)];
    let rows = || keys.iter().map(|key| keyed(key)).collect::<Vec<_>>();
    let ids = store.insert(rows()).await.unwrap();
    let distinct: std::collections::HashSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), keys.len());
    assert_eq!(store.insert(rows()).await.unwrap(), ids);
    for (id, key) in ids.iter().zip(keys) {
        assert_eq!(store.get(*id).await.unwrap().unwrap().key.as_deref(), Some(key));
    }
}

/// More rows than one statement takes, some too large to travel together, with and without keys.
#[tokio::test]
#[ignore = "needs MySQL and MariaDB: run scripts/test"]
async fn many_rows_go_in_portions_and_come_back_in_their_order() {
    let (_, _, outbox) = outbox().await;
    let store = outbox.store();
    let rows: Vec<NewRow> = (0..300)
        .map(|n| {
            let mut row = row();
            row.key = (n % 3 == 0).then(|| format!("key-{}", n % 100));
            row.message.body = if n % 40 == 0 { "x".repeat(1 << 20) } else { n.to_string() };
            row
        })
        .collect();
    let ids = store.insert(rows.clone()).await.unwrap();
    assert_eq!(ids.len(), 300);
    for (n, (row, id)) in rows.iter().zip(&ids).enumerate() {
        match rows[..n].iter().position(|earlier| row.key.is_some() && earlier.key == row.key) {
            None => assert_eq!(*id, row.id),
            Some(first) => assert_eq!(*id, ids[first]),
        }
    }
    let distinct: std::collections::HashSet<_> = ids.iter().collect();
    let leases = store.claim(Claim::new(1_000, SECOND * 60)).await.unwrap();
    assert_eq!(leases.len(), distinct.len());
    for lease in leases {
        assert!(rows.iter().any(|row| row.id == lease.key.id && row.message == lease.message));
    }
}

#[tokio::test]
#[ignore = "needs MySQL and MariaDB: run scripts/test"]
async fn what_cannot_all_be_inserted_is_not_inserted_at_all() {
    let (_, _, outbox) = outbox().await;
    let store = outbox.store();
    let mut twice: Vec<NewRow> = (0..200).map(|_| row()).collect();
    twice[199].id = twice[0].id;
    let long = Recipient::new(format!("{}@example.com", "a".repeat(800)));
    for rows in [twice, vec![row(), row_for(vec![long])], vec![row(), row_for(Vec::new())]] {
        let error = store.insert(rows).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Rejected, "{error}");
        assert!(!error.to_string().contains("aaaa"), "an address is in the error");
    }
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.pending, stats.sent), (0, 0));
}

#[tokio::test]
#[ignore = "needs MySQL and MariaDB: run scripts/test"]
async fn another_program_enqueues_with_one_statement() {
    let (prefix, pool, outbox) = outbox().await;
    let id = DeliveryId::new();
    let sql = format!(
        r#"INSERT INTO {prefix}deliveries (id, format, body, recipients, template_id) VALUES
           (UNHEX(REPLACE('{id}', '-', '')), 'email/1',
            '{{"from": "Shop <shop@example.com>", "to": ["ada@example.com"], "subject": "Hi", "text": "Hello"}}',
            '["ada@example.com"]', 'welcome')"#
    );
    run(&pool, &sql).await;
    assert_eq!(outbox.relay().drain().await.unwrap().sent, 1);
    let shown = outbox.get(id).await.unwrap().unwrap();
    assert_eq!((shown.state, shown.template_id.as_deref()), (postrider::State::Sent, Some("welcome")));
    for nobody in ["[]", "{}", "x", "\"ada@example.com\""] {
        let sql = format!(
            "INSERT INTO {prefix}deliveries (id, format, body, recipients) VALUES (UNHEX(REPEAT('1', 32)), 'email/1', '{{}}', '{nobody}')"
        );
        let inserted = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&pool).await;
        assert!(inserted.is_err(), "a delivery for {nobody} was taken");
    }
}

/// What a claim cannot read is handed out as such, with the others.
#[tokio::test]
#[ignore = "needs MySQL and MariaDB: run scripts/test"]
async fn a_row_that_makes_no_sense_stops_no_other() {
    let (prefix, pool, outbox) = outbox().await;
    let odd = format!(
        "INSERT INTO {prefix}deliveries (id, format, body, recipients) VALUES (UNHEX(REPEAT('0', 32)), 'email/1', '{{}}', '[7]')"
    );
    run(&pool, &odd).await;
    let good = outbox.store().insert(vec![row()]).await.unwrap()[0];
    let leases = outbox.store().claim(Claim::new(10, SECOND)).await.unwrap();
    let readable: Vec<_> = leases.iter().filter(|lease| lease.malformed.is_none()).map(|lease| lease.key.id).collect();
    assert_eq!((leases.len(), readable), (2, vec![good]));
}

#[tokio::test]
#[ignore = "needs MySQL and MariaDB: run scripts/test"]
async fn outboxes_under_two_prefixes_do_not_meet_and_odd_prefixes_are_refused() {
    let (_, pool, one) = outbox().await;
    let (_, _, other) = outbox().await;
    one.enqueue(ada()).await.unwrap();
    assert_eq!(other.relay().drain().await.unwrap().sent, 0);
    assert_eq!(one.relay().drain().await.unwrap().sent, 1);
    for bad in ["", "1st", "a-b", "a`b", "a b", "ü", "a.b", &"x".repeat(41)] {
        let error = MySqlStore::with_table_prefix(pool.clone(), bad).unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Rejected, "{bad}");
        assert!(MySqlStore::schema(bad).is_err(), "{bad}");
    }
    let longest = format!("p{}", &new_prefix().repeat(2)[..39]);
    MySqlStore::with_table_prefix(pool, &longest).unwrap().migrate().await.unwrap();
}

/// Another program may write any number for a time.
#[tokio::test]
#[ignore = "needs MySQL and MariaDB: run scripts/test"]
async fn a_delivery_due_since_ever_can_be_counted_and_sent() {
    let (prefix, pool, outbox) = outbox().await;
    let id = outbox.enqueue(ada()).await.unwrap();
    let copy = format!(
        "INSERT INTO {prefix}deliveries (format, body, recipients, send_at)
         SELECT format, body, recipients, -9223372036854775808 FROM {prefix}deliveries"
    );
    run(&pool, &copy).await;
    let stats = outbox.stats().await.unwrap();
    assert_eq!(stats.pending, 2);
    assert!(stats.oldest_due.unwrap() > SECOND * 60 * 60 * 24 * 365 * 1_000);
    assert_eq!(outbox.relay().drain().await.unwrap().sent, 2);
    assert_eq!(outbox.get(id).await.unwrap().unwrap().state, postrider::State::Sent);
}

/// The work of pruning grows as what is pruned, and not as its square.
#[tokio::test]
#[ignore = "needs MySQL and MariaDB: run scripts/test"]
async fn a_long_history_is_pruned_without_walking_over_it_again_and_again() {
    let mut reads = Vec::new();
    for (state, deliveries) in [("sent", 1_000), ("sent", 12_000), ("dead", 1_000), ("dead", 12_000)] {
        let prefix = new_prefix();
        // One connection, whose own counters tell what the store did.
        let pool = pool(options(), 1).await;
        let store = MySqlStore::with_table_prefix(pool.clone(), &prefix).unwrap();
        store.migrate().await.unwrap();
        let fill = format!(
            "INSERT INTO {prefix}deliveries (id, created_at, format, body, recipients)
             WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 1000)
             SELECT UNHEX(LPAD(HEX(a.n * 1000 + b.n), 32, '0')), 1000, 'email/1', '{{}}', '[\"ada@example.com\"]'
             FROM n a, n b WHERE a.n <= {deliveries} / 1000;
             DELETE FROM {prefix}queue;
             INSERT INTO {prefix}attempts (delivery_id, number, cycle, token, started_at, finished_at, outcome)
             SELECT id, seq, 1, seq, 1000, 1000, 'transient' FROM {prefix}deliveries, (SELECT 1 AS seq UNION SELECT 2) two;
             INSERT INTO {prefix}ended SELECT id, 'dead', NULL, 1000, 2, 2, 1 FROM {prefix}deliveries WHERE '{state}' = 'dead'"
        );
        run(&pool, &fill).await;
        run(&pool, "FLUSH STATUS").await;
        let prune = postrider::Prune::older_than(SECOND).state(state.parse().unwrap()).history_only();
        assert_eq!(store.prune(&prune).await.unwrap(), deliveries);
        reads.push(rows_read(&pool).await);
        assert_eq!(store.prune(&prune).await.unwrap(), 0);
    }
    assert!(reads[1] < reads[0] * 15 && reads[3] < reads[2] * 15, "{reads:?} rows read");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs MySQL and MariaDB: run scripts/test"]
async fn a_pool_can_be_closed_whatever_a_relay_keeps() {
    let (_, pool, outbox) = outbox().await;
    pool::can_be_closed_whatever_a_relay_keeps(&pool, &outbox).await;
}

#[tokio::test]
#[ignore = "needs MySQL and MariaDB: run scripts/test"]
async fn few_results_in_the_midst_of_many_do_not_cost_them_their_connection() {
    let (prefix, pool, _outbox) = outbox().await;
    let store = MySqlStore::with_table_prefix(pool.clone(), &prefix).unwrap();
    pool::keeps_a_connection_until_the_backlog_is_at_its_end(&pool, &store).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs MySQL and MariaDB: run scripts/test"]
async fn relays_that_share_a_pool_leave_one_another_connections() {
    let (_, pool, outbox) = outbox().await;
    pool::is_shared_by_its_relays(&pool, &outbox, 5).await;
}
