//! The caller's transactions, and the schemas of outboxes.

use postrider::{PgStore, StoreErrorKind};
use sqlx::postgres::PgPoolOptions;

use crate::outbox;
use crate::support::database::{Database, Harness, Postgres};
use crate::support::fixture::ada;

/// PostgreSQL answers the commit of a failed transaction with a rollback. Invariant 1.
pub(crate) async fn a_failed_transaction_that_is_committed_leaves_no_mail(server: Postgres) {
    let harness = Harness::new(server).await;
    let add = "INSERT INTO {t}users (name) VALUES ('Ada')";
    harness.run(add).await;
    let mut tx = harness.begin().await;
    harness.outbox.enqueue_in(&mut tx, ada()).await.unwrap();
    assert!(harness.run_in(&mut tx, add).await.is_err());
    assert!(tx.commit().await.is_ok());
    assert_eq!(harness.outbox.relay().drain().await.unwrap().sent, 0);
}

/// Invariant 1.
pub(crate) async fn a_serialization_failure_leaves_no_mail(server: Postgres) {
    let (schema, pool, outbox) = outbox(&server).await;
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

pub(crate) async fn schema_names_that_need_quotes_are_refused(server: Postgres) {
    let pool = PgPoolOptions::new().connect_lazy_with(server.options());
    for bad in ["", "1st", "a-b", "a\"b", "a b", "ü", &"x".repeat(49)] {
        assert_eq!(PgStore::in_schema(pool.clone(), bad).unwrap_err().kind(), StoreErrorKind::Rejected, "{bad}");
    }
}
