//! What relays take of the caller's pool, whatever the database.

use std::time::Duration;

use postrider::testkit::ScriptedTransport;
use postrider::{AdminStore, Email, Outbox, Store, StoreErrorKind};
use sqlx::{Database, Pool};
use tokio_util::sync::CancellationToken;

use crate::{SECOND, ada};

/// A relay in the midst of a backlog keeps connections, but not beyond its own end, nor beyond the pool's.
pub(crate) async fn can_be_closed_whatever_a_relay_keeps<S: Store + AdminStore, D: Database>(
    pool: &Pool<D>,
    outbox: &Outbox<S, ScriptedTransport<Email>>,
) {
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

/// As many relays as the pool has connections, over so many thousand mails: each keeps what it can get, and all of them go on.
pub(crate) async fn is_shared_by_its_relays<S: Store, D: Database>(
    pool: &Pool<D>,
    outbox: &Outbox<S, ScriptedTransport<Email>>,
    thousands: u64,
) {
    let relays = pool.options().get_max_connections();
    for _ in 0..thousands {
        outbox.enqueue_all((0..1_000).map(|_| ada())).await.unwrap();
    }
    let drains = (0..relays).map(|_| tokio::spawn(outbox.relay().concurrency(200).drain()));
    let drained = tokio::time::timeout(SECOND * 120, futures_util::future::join_all(drains)).await.expect("they end");
    let passes: Vec<_> =
        drained.into_iter().map(|pass| pass.unwrap().expect("none waits in vain for a connection")).collect();
    assert_eq!(passes.iter().map(|pass| pass.sent).sum::<u64>(), 1_000 * thousands);
    assert!(passes.iter().all(|pass| pass.lease_lost == 0), "{passes:?}");
}
