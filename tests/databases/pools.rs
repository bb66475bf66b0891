//! How relays share the application's pool.

use std::time::Duration;

use futures_util::future::join_all;
use postrider::store::{Claim, Settled};
use postrider::{Outbox, Store, StoreErrorKind};
use sqlx::Pool;

use crate::support::database::{Harness, Server};
use crate::support::fixture::{SECOND, ada, sent};

/// A relay in the middle of a backlog keeps connections, but not after it ends, nor after the pool closes. Invariant 9.
pub(crate) async fn a_pool_closes_under_a_busy_relay<D: Server>(database: D) {
    let Harness { pool, outbox, .. } = Harness::new(database).await;
    outbox.enqueue_all((0..5_000).map(|_| ada())).await.unwrap();
    // One relay is dropped while it works; another one works on.
    let dropped = tokio::spawn(outbox.relay().concurrency(100).run(std::future::pending()));
    let relay = tokio::spawn(outbox.relay().concurrency(100).run(std::future::pending()));
    while outbox.stats().await.unwrap().sent < 1_000 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    dropped.abort();
    let _ = dropped.await;
    tokio::time::timeout(SECOND * 60, pool.close()).await.expect("the pool can be closed");
    let error = tokio::time::timeout(SECOND * 60, relay).await.expect("the relay ends").unwrap().unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Closed, "{error}");
}

/// As many relays as connections share a pool, and all of them drain. Invariants 2, 4.
pub(crate) async fn relays_that_share_a_pool_leave_each_other_connections<D: Server>(database: D) {
    let Harness { pool, outbox, .. } = Harness::new(database).await;
    let relays = pool.options().get_max_connections();
    for _ in 0..D::THOUSANDS {
        outbox.enqueue_all((0..1_000).map(|_| ada())).await.unwrap();
    }
    let drains = (0..relays).map(|_| tokio::spawn(outbox.relay().concurrency(200).drain()));
    let drained = tokio::time::timeout(SECOND * 120, join_all(drains)).await.expect("the drains end");
    let summaries: Vec<_> =
        drained.into_iter().map(|summary| summary.unwrap().expect("each relay gets connections")).collect();
    assert_eq!(summaries.iter().map(|summary| summary.sent).sum::<u64>(), 1_000 * D::THOUSANDS);
    assert!(summaries.iter().all(|summary| summary.lease_lost == 0), "{summaries:?}");
}

/// A small batch of results between large ones does not give the connection back; the end of the backlog does.
pub(crate) async fn a_relay_keeps_its_connection_until_the_backlog_ends<D: Server>(database: D) {
    let Harness { database, pool, .. } = Harness::new(database).await;
    let store = database.store(pool.clone());
    Outbox::enqueue_only(store.clone()).enqueue_all((0..40).map(|_| ada())).await.unwrap();
    let mut leases = Vec::new();
    while leases.len() < 40 {
        leases.extend(store.claim(Claim::new(8, SECOND * 60)).await.unwrap());
    }
    wait_for_use(&pool, 0).await;
    for count in [2, 20, 2, 16] {
        let settlements: Vec<_> = leases.drain(..count).map(|lease| sent(&lease)).collect();
        assert_eq!(store.settle(&settlements).await.unwrap(), vec![Settled::Applied; count]);
        // A connection goes back to the pool shortly after it is released.
        tokio::time::sleep(Duration::from_millis(100)).await;
        wait_for_use(&pool, if leases.len() == 38 { 0 } else { 1 }).await;
    }
    assert!(store.claim(Claim::new(8, SECOND * 60)).await.unwrap().is_empty());
    wait_for_use(&pool, 0).await;
}

/// Waits until this many of a pool's connections are in use.
async fn wait_for_use<D: sqlx::Database>(pool: &Pool<D>, expected: usize) {
    let reached = async {
        while usize::try_from(pool.size()).unwrap() - pool.num_idle() != expected {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SECOND * 10, reached).await.unwrap_or_else(|_| panic!("never {expected} in use"));
}
