//! Large attachments that several transactions store at once.

use postrider::store::Claim;
use postrider::transport::Blob;
use postrider::{AdminStore, Store};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgPool;

use crate::outbox;
use crate::support::database::Postgres;
use crate::support::fixture::{SECOND, keyed_row};
use crate::support::wait::until;

/// The first of two transactions stores a blob and does not use it. The second one also stores it, and waits for a key before it uses it.
/// A sweep during this wait does not delete the blob. Invariant 1.
pub(crate) async fn a_blob_of_another_transaction_is_not_swept_before_it_is_used(server: Postgres) {
    let (schema, pool, outbox) = outbox(&server).await;
    let store = outbox.store();
    let logo = Blob::new(vec![7; 5_000]);
    let mut key_holder = pool.begin().await.unwrap();
    store.insert_in(&mut key_holder, vec![keyed_row("taken")]).await.unwrap();
    let mut first = pool.begin().await.unwrap();
    let insert = format!("INSERT INTO \"{schema}\".blobs VALUES ($1, $2)");
    let insert = sqlx::query(AssertSqlSafe(insert)).bind(&logo.hash().as_bytes()[..]).bind(logo.bytes());
    insert.execute(&mut *first).await.unwrap();

    let second = tokio::spawn({
        let (store, mut row) = (store.clone(), keyed_row("taken"));
        row.message.blobs = vec![logo.clone()];
        async move { store.insert(vec![row]).await }
    });
    until_waiting(&pool, &format!("INSERT INTO \"{schema}\".blobs%")).await;
    first.commit().await.unwrap();
    until_waiting(&pool, &format!("SELECT \"{schema}\".insert_deliveries%")).await;
    assert_eq!(store.sweep_blobs(10).await.unwrap(), 0, "a blob was deleted that is about to be used");
    key_holder.rollback().await.unwrap();
    second.await.unwrap().unwrap();
    let lease = store.claim(Claim::new(10, SECOND * 60)).await.unwrap().remove(0);
    assert_eq!((lease.malformed, lease.message.blobs), (None, vec![logo]));
}

/// Waits until a statement of this form waits for another transaction.
async fn until_waiting(pool: &PgPool, statement: &str) {
    let waits =
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND btrim(query, E' \\n') LIKE $1)";
    until("the statement waits", || async { sqlx::query_scalar(waits).bind(statement).fetch_one(pool).await.unwrap() })
        .await;
}
