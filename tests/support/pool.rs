//! What relays take of the caller's pool, whatever the database.

use std::time::Duration;

use postrider::store::{Claim, Lease, Next, Settled, Settlement};
use postrider::testkit::ScriptedTransport;
use postrider::{AdminStore, Attempt, Email, Outbox, Outcome, Store, StoreErrorKind};
use sqlx::{Database, Pool};

use crate::{SECOND, ada};

/// A relay in the midst of a backlog keeps connections, but not beyond its own end, nor beyond the pool's.
pub(crate) async fn can_be_closed_whatever_a_relay_keeps<S: Store + AdminStore, D: Database>(
    pool: &Pool<D>,
    outbox: &Outbox<S, ScriptedTransport<Email>>,
) {
    outbox.enqueue_all((0..5_000).map(|_| ada())).await.unwrap();
    // One relay is dropped in mid-work, another one works on.
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

/// Few results in the midst of many do not cost them their connection, and the end of the backlog does.
pub(crate) async fn keeps_a_connection_until_the_backlog_is_at_its_end<S: Store, D: Database>(
    pool: &Pool<D>,
    store: &S,
) {
    Outbox::enqueue_only(store.clone()).enqueue_all((0..40).map(|_| ada())).await.unwrap();
    let mut leases = Vec::new();
    while leases.len() < 40 {
        leases.extend(store.claim(Claim::new(8, SECOND * 60)).await.unwrap());
    }
    in_use(pool, 0).await;
    for count in [2, 20, 2, 16] {
        let settlements: Vec<_> = leases.drain(..count).map(|lease| sent(&lease)).collect();
        assert_eq!(store.settle(&settlements).await.unwrap(), vec![Settled::Applied; count]);
        // What is given back is given back in a moment.
        tokio::time::sleep(Duration::from_millis(100)).await;
        in_use(pool, if leases.len() == 38 { 0 } else { 1 }).await;
    }
    assert!(store.claim(Claim::new(8, SECOND * 60)).await.unwrap().is_empty());
    in_use(pool, 0).await;
}

/// Waits until so many of a pool's connections are in use.
async fn in_use<D: Database>(pool: &Pool<D>, expected: usize) {
    let come_to = async {
        while usize::try_from(pool.size()).unwrap() - pool.num_idle() != expected {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SECOND * 10, come_to).await.unwrap_or_else(|_| panic!("never {expected} in use"));
}

/// What a relay writes of a mail that was taken.
pub(crate) fn sent(lease: &Lease) -> Settlement {
    let attempt = Attempt::new(1, 1, lease.claimed_at, lease.claimed_at, Outcome::Sent);
    Settlement::new(lease.key, 1, Next::Sent).with_attempt(attempt)
}
