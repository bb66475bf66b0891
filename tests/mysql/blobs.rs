//! Large attachments, each stored once.

use std::time::Duration;

use postrider::store::{Claim, NewRow};
use postrider::transport::Blob;
use postrider::{AdminStore, State, Store};
use sqlx::AssertSqlSafe;
use sqlx::mysql::{MySqlConnection, MySqlPool};

use crate::support::database::MySql;
use crate::support::fixture::{SECOND, ada, row};
use crate::{outbox, run, scalar};

fn carrying(blobs: &[&Blob]) -> NewRow {
    let mut new = row();
    new.message.blobs = blobs.iter().map(|blob| (*blob).clone()).collect();
    new
}

async fn count(pool: &MySqlPool, table: String) -> i64 {
    scalar(pool, format!("SELECT COUNT(*) FROM {table}")).await
}

/// The error number of a statement, 0 for success.
async fn number(connection: &mut MySqlConnection, sql: String) -> u16 {
    match sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await {
        Ok(_) => 0,
        Err(error) => error.as_database_error().unwrap().downcast_ref::<sqlx::mysql::MySqlDatabaseError>().number(),
    }
}

/// Mails of one call and of several calls share one stored blob. If one of the deliveries is deleted, the others keep it.
pub(crate) async fn a_blob_is_stored_once(server: MySql) {
    let (prefix, pool, outbox) = outbox(&server).await;
    let (logo, letter) = (Blob::new(vec![7; 50_000]), Blob::new(*b"letter"));
    let store = outbox.store();
    let ids = store.insert(vec![carrying(&[&logo]), carrying(&[&logo, &letter])]).await.unwrap();
    store.insert(vec![carrying(&[&logo])]).await.unwrap();
    assert_eq!(count(&pool, format!("{prefix}blobs")).await, 2);
    assert_eq!(count(&pool, format!("{prefix}body_blobs")).await, 4);
    let largest = scalar(&pool, format!("SELECT CAST(MAX(size) AS SIGNED) FROM {prefix}queue")).await;
    assert_eq!(largest, 50_000 + 6 + i64::try_from(row().message.body.len()).unwrap());
    let delete = format!("DELETE FROM {prefix}deliveries WHERE id = UNHEX(REPLACE('{}', '-', ''))", ids[1]);
    run(&pool, &delete).await;
    assert_eq!(count(&pool, format!("{prefix}body_blobs")).await, 2);
    let leases = store.claim(Claim::new(10, SECOND * 60)).await.unwrap();
    assert!(leases.len() == 2 && leases.iter().all(|lease| lease.message.blobs == [logo.clone()]));
}

/// Two transactions share a blob without a wait. Its deletion waits for both, and is then refused. Invariant 1.
pub(crate) async fn a_blob_is_locked_while_it_is_enqueued(server: MySql) {
    let (prefix, pool, outbox) = outbox(&server).await;
    let logo = Blob::new(vec![7; 50_000]);
    let store = outbox.store();
    store.insert(vec![carrying(&[&logo])]).await.unwrap();
    run(&pool, &format!("DELETE FROM {prefix}deliveries")).await;
    let (mut one, mut other) = (pool.begin().await.unwrap(), pool.begin().await.unwrap());
    let both = async {
        store.insert_in(&mut one, vec![carrying(&[&logo])]).await.unwrap();
        store.insert_in(&mut other, vec![carrying(&[&logo])]).await.unwrap();
    };
    tokio::time::timeout(SECOND * 20, both).await.expect("one transaction waits for the other");
    let deleting = tokio::spawn({
        let (pool, sql) = (pool.clone(), format!("DELETE FROM {prefix}blobs"));
        async move { number(&mut pool.acquire().await.unwrap(), sql).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!deleting.is_finished(), "the deletion does not wait");
    one.commit().await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!deleting.is_finished(), "the deletion does not wait for the second transaction");
    other.rollback().await.unwrap();
    // ER_ROW_IS_REFERENCED_2
    assert_eq!(deleting.await.unwrap(), 1451);
    let lease = store.claim(Claim::new(10, SECOND * 60)).await.unwrap().remove(0);
    assert_eq!((lease.malformed, lease.message.blobs), (None, vec![logo]));
}

/// Two transactions at the default isolation level store new blobs: first different ones, then the same one.
pub(crate) async fn transactions_with_new_blobs_do_not_deadlock(server: MySql) {
    let (prefix, pool, outbox) = outbox(&server).await;
    let store = outbox.store();
    // The blobs are few and large, so that no page of the index splits. A split turns row locks into gap locks.
    let blob = |n: u8| Blob::new(vec![n; 20_000]);
    let (mut one, mut other) = (pool.begin().await.unwrap(), pool.begin().await.unwrap());
    // Both transactions read before one inserts, since the first read fixes the snapshot.
    for tx in [&mut one, &mut other] {
        store.insert_in(tx, vec![row()]).await.unwrap();
        sqlx::query(AssertSqlSafe(format!("SELECT * FROM {prefix}blobs"))).fetch_all(&mut **tx).await.unwrap();
    }
    for n in 0..5 {
        store.insert_in(&mut one, vec![carrying(&[&blob(2 * n)])]).await.unwrap();
        store.insert_in(&mut other, vec![carrying(&[&blob(2 * n + 1)])]).await.unwrap();
    }
    let both = blob(100);
    store.insert_in(&mut one, vec![carrying(&[&both])]).await.unwrap();
    let waiting = tokio::spawn({
        let (store, both) = (store.clone(), both.clone());
        async move {
            // A second blob, which no other mail has, makes the batch partly new.
            store.insert_in(&mut other, vec![carrying(&[&both, &Blob::new(*b"own")])]).await.unwrap();
            other.commit().await.unwrap();
        }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished(), "two transactions inserted the same blob");
    one.commit().await.unwrap();
    waiting.await.unwrap();
    assert_eq!(count(&pool, format!("{prefix}blobs")).await, 12);
    let leases = store.claim(Claim::new(100, SECOND * 60)).await.unwrap();
    assert!(leases.len() == 14 && leases.iter().all(|lease| lease.malformed.is_none()));
}

/// A blob is deleted after a transaction's snapshot, which still shows it.
pub(crate) async fn a_blob_that_was_deleted_meanwhile_is_stored_again(server: MySql) {
    let (prefix, pool, outbox) = outbox(&server).await;
    let (logo, kept) = (Blob::new(vec![7; 50_000]), Blob::new(*b"kept"));
    let store = outbox.store();
    store.insert(vec![carrying(&[&logo, &kept])]).await.unwrap();
    run(&pool, &format!("DELETE FROM {prefix}deliveries")).await;
    let begin = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; START TRANSACTION WITH CONSISTENT SNAPSHOT";
    let mut tx = pool.begin_with(begin).await.unwrap();
    run(&pool, &format!("DELETE FROM {prefix}blobs WHERE OCTET_LENGTH(content) > 100")).await;
    store.insert_in(&mut tx, vec![carrying(&[&logo, &kept])]).await.unwrap();
    tx.commit().await.unwrap();
    let lease = store.claim(Claim::new(10, SECOND * 60)).await.unwrap().remove(0);
    assert_eq!((lease.malformed, lease.message.blobs.len()), (None, 2));
}

/// A claim returns each incomplete message as malformed, with a reason, and affects no other delivery. Invariants 4, 5.
pub(crate) async fn a_message_without_its_parts_is_malformed(server: MySql) {
    let (prefix, pool, outbox) = outbox(&server).await;
    let blob = Blob::new(vec![7; 5_000]);
    let store = outbox.store();
    let ids = store.insert(vec![row(), carrying(&[&blob]), carrying(&[&blob]), row()]).await.unwrap();
    let id = |n: usize| format!("UNHEX(REPLACE('{}', '-', ''))", ids[n]);
    let delete = "SET `body` = NULL, `text` = NULL, html = NULL WHERE id =";
    run(&pool, &format!("UPDATE {prefix}deliveries {delete} {}", id(0))).await;
    run(&pool, &format!("DELETE FROM {prefix}body_blobs WHERE delivery_id = {}", id(1))).await;
    run(&pool, &format!("UPDATE {prefix}blobs SET content = 'damaged'")).await;
    let leases = store.claim(Claim::new(10, SECOND * 60)).await.unwrap();
    let problem = |n: usize| leases.iter().find(|lease| lease.key.id == ids[n]).unwrap().malformed.clone();
    assert!(problem(0).unwrap().contains("the message is deleted"), "{:?}", problem(0));
    for n in [1, 2] {
        assert!(problem(n).unwrap().contains("an attachment of the message is missing"), "{:?}", problem(n));
    }
    assert_eq!(problem(3), None);
    assert_eq!(store.message(ids[0]).await.unwrap(), None);
    assert!(store.message(ids[1]).await.is_err());
    assert_eq!(store.get(ids[0]).await.unwrap().unwrap().state, State::Leased);
    // A mail that the library enqueued is complete.
    let mail = outbox.enqueue(ada()).await.unwrap();
    assert_eq!(store.message(mail).await.unwrap().unwrap().text.as_deref(), Some("Hello there"));
}

/// A sweep skips blobs that an open transaction uses, without waiting, and deletes the others that no message uses.
pub(crate) async fn a_sweep_passes_over_blobs_in_use(server: MySql) {
    let (prefix, pool, outbox) = outbox(&server).await;
    let [used, enqueued, unused, new] = [1, 2, 3, 4].map(|n| Blob::new(vec![n; 20_000]));
    let store = outbox.store();
    store.insert(vec![carrying(&[&enqueued, &unused])]).await.unwrap();
    run(&pool, &format!("DELETE FROM {prefix}deliveries")).await;
    store.insert(vec![carrying(&[&used])]).await.unwrap();
    let mut tx = pool.begin().await.unwrap();
    store.insert_in(&mut tx, vec![carrying(&[&enqueued, &new])]).await.unwrap();
    let swept = tokio::time::timeout(SECOND * 20, store.sweep_blobs(10)).await.expect("the sweep waits").unwrap();
    assert_eq!(swept, 1);
    tx.commit().await.unwrap();
    assert_eq!(store.sweep_blobs(10).await.unwrap(), 0);
    assert_eq!(count(&pool, format!("{prefix}blobs")).await, 3);
    let leases = store.claim(Claim::new(10, SECOND * 60)).await.unwrap();
    assert!(leases.len() == 2 && leases.iter().all(|lease| lease.malformed.is_none()));
}
