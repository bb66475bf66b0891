//! The caller's transactions: deadlocks, snapshots and isolation levels.

use postrider::testkit::ScriptedTransport;
use postrider::{Email, EnqueueError, MySqlStore, NewDelivery, Outbox, StoreError, StoreErrorKind};
use sqlx::AssertSqlSafe;

use crate::support::database::{Database, MySql};
use crate::support::fixture::ada;
use crate::{outbox, pool, run};

/// Invariant 1.
pub(crate) async fn the_victim_of_a_deadlock_leaves_no_mail(server: MySql) {
    let (prefix, pool, outbox) = outbox(&server).await;
    run(&pool, &format!("INSERT INTO {prefix}users VALUES ('Ada', 1), ('Bob', 1)")).await;
    let older = |name: &str| AssertSqlSafe(format!("UPDATE {prefix}users SET age = age + 1 WHERE name = '{name}'"));
    let (mut one, mut other) = (pool.begin().await.unwrap(), pool.begin().await.unwrap());
    let ids = [outbox.enqueue_in(&mut one, ada()).await.unwrap(), outbox.enqueue_in(&mut other, ada()).await.unwrap()];
    sqlx::query(older("Ada")).execute(&mut *one).await.unwrap();
    sqlx::query(older("Bob")).execute(&mut *other).await.unwrap();
    let (first, second) =
        tokio::join!(sqlx::query(older("Bob")).execute(&mut *one), sqlx::query(older("Ada")).execute(&mut *other));
    assert!(first.is_ok() != second.is_ok(), "both transactions ended alike: {first:?} and {second:?}");
    let survives = first.is_ok();
    let error = StoreError::from(if survives { second } else { first }.unwrap_err());
    assert_eq!(error.kind(), StoreErrorKind::Conflict, "{error}");
    one.commit().await.unwrap();
    other.commit().await.unwrap();
    let (kept, gone) = if survives { (ids[0], ids[1]) } else { (ids[1], ids[0]) };
    assert!(outbox.get(kept).await.unwrap().is_some() && outbox.get(gone).await.unwrap().is_none());
    assert_eq!(outbox.relay().drain().await.unwrap().sent, 1);
}

/// A transaction at REPEATABLE READ sees the data of its first read, but must find a key that was taken later.
pub(crate) async fn a_key_taken_after_the_snapshot_is_found(server: MySql) {
    let (prefix, pool, outbox) = outbox(&server).await;
    let keyed = || NewDelivery::new(ada()).key("order-1");
    let count = AssertSqlSafe(format!("SELECT COUNT(*) FROM {prefix}deliveries"));
    let begin = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; START TRANSACTION WITH CONSISTENT SNAPSHOT";
    let mut tx = pool.begin_with(begin).await.unwrap();
    // In MariaDB a stricter snapshot may be the default (see below). MySQL has no such setting.
    let _ = sqlx::raw_sql("SET innodb_snapshot_isolation = OFF").execute(&mut *tx).await;
    let first = outbox.enqueue(keyed()).await.unwrap();
    assert_eq!(
        sqlx::query_scalar::<_, i64>(count).fetch_one(&mut *tx).await.unwrap(),
        0,
        "the snapshot is too young for this test"
    );
    assert_eq!(outbox.enqueue_in(&mut tx, keyed()).await.unwrap(), first);
    tx.commit().await.unwrap();
    assert_eq!(outbox.stats().await.unwrap().pending, 1);
}

/// With a strict snapshot, as newer MariaDB versions have by default, a transaction cannot read who has a key that was taken after it
/// began. It fails with a conflict, and finds the key when it is run again. MySQL has no such setting, and finds the key at once.
pub(crate) async fn a_key_that_a_strict_snapshot_hides_is_a_conflict(server: MySql) {
    let (_, pool, outbox) = outbox(&server).await;
    let keyed = || NewDelivery::new(ada()).key("order-1");
    let begin = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; START TRANSACTION WITH CONSISTENT SNAPSHOT";
    let mut tx = pool.begin_with(begin).await.unwrap();
    let strict = sqlx::raw_sql("SET innodb_snapshot_isolation = ON").execute(&mut *tx).await.is_ok();
    assert_eq!(strict, server.is_mariadb());
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

/// The store works at READ COMMITTED, on connections whose other users keep their own level.
pub(crate) async fn the_callers_isolation_level_is_kept(server: MySql) {
    let (prefix, other, _) = outbox(&server).await;
    let pool = pool(server.options(), 1).await;
    let outbox =
        Outbox::new(MySqlStore::with_table_prefix(pool.clone(), &prefix).unwrap(), ScriptedTransport::<Email>::new());
    outbox.enqueue_all([ada(), ada()]).await.unwrap();
    assert_eq!(outbox.relay().drain().await.unwrap().sent, 2);
    outbox.stats().await.unwrap();
    let count = || AssertSqlSafe(format!("SELECT COUNT(*) FROM {prefix}users"));
    let mut tx = pool.begin().await.unwrap();
    let before: i64 = sqlx::query_scalar(count()).fetch_one(&mut *tx).await.unwrap();
    run(&other, &format!("INSERT INTO {prefix}users (name) VALUES ('Ada')")).await;
    let after: i64 = sqlx::query_scalar(count()).fetch_one(&mut *tx).await.unwrap();
    assert_eq!((before, after), (0, 0), "the caller's transaction is not REPEATABLE READ");
}
