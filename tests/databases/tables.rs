//! Creating the tables, and calls without them.

use postrider::store::{Claim, RelayId, RelayReport};
use postrider::testkit::ScriptedTransport;
use postrider::{AdminStore, DeliveryId, Email, Outbox, Store, StoreErrorKind};

use crate::support::database::{Database, Harness};
use crate::support::fixture::{SECOND, ada, row};

/// Ten concurrent migrations create the same tables as a single one.
pub(crate) async fn ten_processes_migrate_at_once<D: Database>(database: D) {
    let starts = (0..10).map(|_| {
        let database = database.clone();
        tokio::spawn(async move { database.store(database.pool(1).await).migrate().await })
    });
    for start in starts.collect::<Vec<_>>() {
        start.await.unwrap().unwrap();
    }
    let alone = database.another();
    let (pool, pool_of_alone) = (database.pool(2).await, alone.pool(2).await);
    alone.store(pool_of_alone.clone()).migrate().await.unwrap();
    assert_eq!(database.describe_tables(&pool).await, alone.describe_tables(&pool_of_alone).await);
    let outbox = Outbox::new(database.store(pool), ScriptedTransport::<Email>::new());
    outbox.enqueue(ada()).await.unwrap();
    assert_eq!(outbox.relay().drain().await.unwrap().sent, 1);
}

/// `migrate` also accepts tables that plain SQL created, with mail in them.
pub(crate) async fn plain_sql_makes_the_same_tables_as_migrate<D: Database>(by_migrate: D) {
    let by_hand = by_migrate.another();
    let migrated = by_migrate.pool(2).await;
    by_migrate.store(migrated.clone()).migrate().await.unwrap();
    let pool = by_hand.pool(2).await;
    D::execute(&mut *pool.acquire().await.unwrap(), by_hand.schema()).await.unwrap();
    let columns = by_hand.describe_tables(&pool).await;
    assert!(columns.concat().len() > 1_000, "{columns:?}");
    assert_eq!(columns, by_migrate.describe_tables(&migrated).await);
    let outbox = Outbox::new(by_hand.store(pool.clone()), ScriptedTransport::<Email>::new());
    outbox.enqueue(ada()).await.unwrap();
    outbox.migrate().await.unwrap();
    assert_eq!(by_hand.describe_tables(&pool).await, columns);
    assert_eq!(outbox.relay().drain().await.unwrap().sent, 1);
}

/// Every call fails, and a relay ends instead of waiting for the tables.
pub(crate) async fn a_call_without_tables_fails_as_not_migrated<D: Database>(database: D) {
    let store = database.store(database.pool(2).await);
    let outbox = Outbox::new(store.clone(), ScriptedTransport::<Email>::new());
    let run = outbox.relay().run(std::future::pending());
    let errors = [
        store.insert(vec![row()]).await.unwrap_err(),
        store.claim(Claim::new(1, SECOND)).await.unwrap_err(),
        store.stats().await.unwrap_err(),
        store.get(DeliveryId::new()).await.unwrap_err(),
        store.report(&RelayReport::new(RelayId::new(), 0, None)).await.unwrap_err(),
        tokio::time::timeout(SECOND * 60, run).await.expect("a relay without tables ends").unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), StoreErrorKind::NotMigrated, "{error}");
    }
}

pub(crate) async fn a_closed_pool_fails_as_closed<D: Database>(database: D) {
    let harness = Harness::new(database).await;
    harness.pool.close().await;
    assert_eq!(harness.store().next_due().await.unwrap_err().kind(), StoreErrorKind::Closed);
    assert_eq!(harness.store().insert(vec![row()]).await.unwrap_err().kind(), StoreErrorKind::Closed);
}

pub(crate) async fn two_outboxes_are_separate<D: Database>(one: D) {
    let (other, one) = (Harness::new(one.another()).await.outbox, Harness::new(one).await.outbox);
    one.enqueue(ada()).await.unwrap();
    assert_eq!(other.relay().drain().await.unwrap().sent, 0);
    assert_eq!(one.relay().drain().await.unwrap().sent, 1);
}
