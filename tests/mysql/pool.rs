//! What relays take of the caller's pool.

use std::time::Duration;

use postrider::StoreErrorKind;
use tokio_util::sync::CancellationToken;

use crate::{SECOND, ada, outbox};

/// A relay in the midst of a backlog keeps connections, but not beyond its own end, nor beyond the pool's.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs MariaDB: run scripts/test"]
async fn a_pool_can_be_closed_whatever_a_relay_keeps() {
    let (_, pool, outbox) = outbox().await;
    outbox.enqueue_all((0..5_000).map(|_| ada())).await.unwrap();
    // One relay is dropped in mid-work, another one works on.
    let dropped = tokio::spawn(outbox.relay().concurrency(100).run(CancellationToken::new()));
    let relay = tokio::spawn(outbox.relay().concurrency(100).run(CancellationToken::new()));
    while outbox.stats().await.unwrap().sent < 1_000 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    dropped.abort();
    let _ = dropped.await;
    tokio::time::timeout(SECOND * 60, pool.close()).await.expect("the pool can be closed");
    let error = tokio::time::timeout(SECOND * 60, relay).await.expect("the relay ends").unwrap().unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::Closed, "{error}");
}

/// As many relays as the pool has connections: each keeps what it can get, and all of them go on.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs MariaDB: run scripts/test"]
async fn relays_that_share_a_pool_leave_one_another_connections() {
    let (_, pool, outbox) = outbox().await;
    let relays = pool.options().get_max_connections();
    for _ in 0..5 {
        outbox.enqueue_all((0..1_000).map(|_| ada())).await.unwrap();
    }
    let drains = (0..relays).map(|_| tokio::spawn(outbox.relay().concurrency(200).drain()));
    let drained = tokio::time::timeout(SECOND * 120, futures_util::future::join_all(drains)).await.expect("they end");
    let passes: Vec<_> =
        drained.into_iter().map(|pass| pass.unwrap().expect("none waits in vain for a connection")).collect();
    assert_eq!(passes.iter().map(|pass| pass.sent).sum::<u64>(), 5_000);
    assert!(passes.iter().all(|pass| pass.lease_lost == 0), "{passes:?}");
}
