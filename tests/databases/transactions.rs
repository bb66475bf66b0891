//! Mail in the caller's transaction.

use postrider::State;

use crate::support::database::{Database, Harness};
use crate::support::fixture::ada;

/// A mail exists if and only if its transaction commits, also after a rollback to a savepoint and after a later statement that fails.
/// Invariant 1.
pub(crate) async fn mail_and_data_commit_or_roll_back_together<D: Database>(database: D) {
    let harness = Harness::new(database).await;
    let outbox = &harness.outbox;
    let add = |name: &str| format!("INSERT INTO {{t}}users (name) VALUES ('{name}')");
    for (name, commit) in [("Ada", true), ("Bob", false)] {
        let mut tx = harness.begin().await;
        harness.run_in(&mut tx, &add(name)).await.unwrap();
        outbox.enqueue_in(&mut tx, ada()).await.unwrap();
        if commit { tx.commit().await.unwrap() } else { tx.rollback().await.unwrap() }
    }
    let mut tx = harness.begin().await;
    let kept = outbox.enqueue_in(&mut tx, ada()).await.unwrap();
    let mut savepoint = sqlx::Connection::begin(&mut *tx).await.unwrap();
    let gone = outbox.enqueue_in(&mut savepoint, ada()).await.unwrap();
    savepoint.rollback().await.unwrap();
    tx.commit().await.unwrap();
    assert!(outbox.get(kept).await.unwrap().is_some() && outbox.get(gone).await.unwrap().is_none());
    let mut tx = harness.begin().await;
    outbox.enqueue_in(&mut tx, ada()).await.unwrap();
    assert!(harness.run_in(&mut tx, &add("Ada")).await.is_err());
    drop(tx);
    assert_eq!(harness.number("SELECT COUNT(*) FROM {t}users").await, 1);
    assert_eq!(outbox.relay().drain().await.unwrap().sent, 2);
}

pub(crate) async fn a_spawned_task_enqueues_on_a_pooled_connection<D: Database>(database: D) {
    let harness = Harness::new(database).await;
    let (outbox, pool) = (harness.outbox.clone(), harness.pool.clone());
    let task = tokio::spawn(async move {
        let mut connection = pool.acquire().await.unwrap();
        outbox.enqueue_in(&mut connection, ada()).await.unwrap()
    });
    let id = task.await.unwrap();
    assert_eq!(harness.outbox.get(id).await.unwrap().unwrap().state, State::Pending);
}
