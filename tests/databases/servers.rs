//! Servers that end connections or refuse to write.

use std::time::Duration;

use postrider::store::{Claim, LeaseKey, RelayId, RelayReport};
use postrider::testkit::ScriptedTransport;
use postrider::{DeliveryId, Email, Outbox, Store, StoreErrorKind};
use sqlx::pool::PoolOptions;
use tokio_util::sync::CancellationToken;

use crate::support::database::{Harness, Server};
use crate::support::fixture::{SECOND, ada, keyed_row};
use crate::support::wait::until_sent;

/// Invariant 4.
pub(crate) async fn a_relay_reconnects_after_its_connections_are_killed<D: Server>(database: D) {
    let harness = Harness::new(database).await;
    let (login, options) = harness.database.login(&harness.pool).await;
    let pool = PoolOptions::new().max_connections(4).connect_with(options).await.unwrap();
    let outbox = Outbox::new(harness.database.store(pool), ScriptedTransport::<Email>::new());
    let shutdown = CancellationToken::new();
    let relay = outbox.relay().poll(Duration::from_millis(50));
    let worker = tokio::spawn(relay.run(shutdown.clone().cancelled_owned()));
    for _ in 0..5 {
        let id = harness.outbox.enqueue(ada()).await.unwrap();
        until_sent(harness.store(), id).await;
        assert!(harness.database.kill(&harness.pool, &login).await > 0, "the relay has no connection");
    }
    shutdown.cancel();
    let summary = worker.await.unwrap().unwrap();
    // If a connection ends between a commit and its answer, the relay finds its lease gone.
    assert_eq!(summary.sent + summary.lease_lost, 5, "{summary:?}");
    assert_eq!(harness.outbox.stats().await.unwrap().sent, 5);
}

/// After a failover the old primary still answers on its open connections, and refuses to write.
pub(crate) async fn a_connection_that_became_read_only_is_not_used_again<D: Server>(database: D) {
    let harness = Harness::new(database).await;
    let pool = harness.database.pool(1).await;
    // Nothing but the calls below uses the only connection.
    let store = D::modes(harness.database.store(pool.clone())).remove(0);
    let key = LeaseKey { id: DeliveryId::new(), token: 1 };
    let relay = RelayReport::new(RelayId::new(), 0, None);
    let call = async |name| match name {
        "insert" => store.insert(vec![keyed_row("a"), keyed_row("b")]).await.map(drop),
        "claim" => store.claim(Claim::new(1, SECOND)).await.map(drop),
        "renew" => store.renew(&[key], SECOND).await.map(drop),
        _ => store.report(&relay).await,
    };
    for name in ["insert", "claim", "renew", "report"] {
        D::execute(&mut *pool.acquire().await.unwrap(), D::READ_ONLY.to_owned()).await.unwrap();
        let error = call(name).await.expect_err(name);
        assert_eq!(error.kind(), StoreErrorKind::Unavailable, "{name}: {error}");
        call(name).await.unwrap_or_else(|error| panic!("{name} used the same connection again: {error}"));
    }
}
