//! PgBouncer in front of the server.

use std::time::Duration;

use postrider::testkit::ScriptedTransport;
use postrider::{Email, NewDelivery, Outbox, PgStore};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use tokio_util::sync::CancellationToken;

use crate::outbox;
use crate::support::database::Postgres;
use crate::support::fixture::ada;
use crate::support::wait::until_sent;

/// The store has the settings that the documentation requires. Invariants 2, 3.
pub(crate) async fn an_outbox_works_behind_a_pooler_in_transaction_mode(server: Postgres) {
    let (schema, _, direct) = outbox(&server).await;
    let options: PgConnectOptions = server.bouncer_url().parse().unwrap();
    let pool = PgPoolOptions::new().max_connections(8).connect_with(options.statement_cache_capacity(0)).await.unwrap();
    let store = PgStore::in_schema(pool.clone(), &schema).unwrap().without_listen().without_prepared_statements();
    let transport = ScriptedTransport::<Email>::new();
    let outbox = Outbox::new(store, transport.clone());
    outbox.migrate().await.unwrap();
    let shutdown = CancellationToken::new();
    let relay = || outbox.relay().concurrency(5).poll(Duration::from_millis(50));
    let workers: Vec<_> = (0..3).map(|_| tokio::spawn(relay().run(shutdown.clone().cancelled_owned()))).collect();
    let mut ids = Vec::new();
    for n in 0..60 {
        let mut tx = pool.begin().await.unwrap();
        ids.push(outbox.enqueue_in(&mut tx, NewDelivery::new(ada()).key(format!("k{n}"))).await.unwrap());
        tx.commit().await.unwrap();
    }
    for id in ids {
        until_sent(direct.store(), id).await;
    }
    shutdown.cancel();
    for worker in workers {
        worker.await.unwrap().unwrap();
    }
    assert_eq!(transport.calls().len(), 60);
    assert_eq!(outbox.stats().await.unwrap().sent, 60);
}
