//! Relays on each database.

use std::time::Duration;

use postrider::testkit::ScriptedTransport;
use postrider::transport::Receipt;
use postrider::{DeliveryId, Email, NewDelivery, Outbox};
use tokio_util::sync::CancellationToken;

use crate::support::database::{Database, Harness};
use crate::support::fixture::{SECOND, ada};
use crate::support::wait::{until, until_sent};

/// A relay works on a pool of one connection, even if the store also listens for notifications.
pub(crate) async fn a_pool_of_one_connection_is_enough<D: Database>(database: D) {
    let harness = Harness::new(database).await;
    let outbox = harness.other_outbox(1).await;
    let shutdown = CancellationToken::new();
    let worker = tokio::spawn(outbox.relay().run(shutdown.clone().cancelled_owned()));
    let id = outbox.enqueue(ada()).await.unwrap();
    until_sent(outbox.store(), id).await;
    shutdown.cancel();
    worker.await.unwrap().unwrap();
}

/// The transport takes the only connection of the pool, and runs a statement that fails in a transaction. Invariant 6.
pub(crate) async fn no_transaction_is_open_while_the_transport_is_called<D: Database>(database: D) {
    let harness = Harness::new(database).await;
    let pool = harness.database.pool(1).await;
    let (during, sql) = (pool.clone(), harness.sql(D::FAILS_IN_TRANSACTION));
    let transport = ScriptedTransport::<Email>::new().with_handler(move |_| {
        let (pool, sql) = (during.clone(), sql.clone());
        async move {
            let mut connection = tokio::time::timeout(SECOND * 20, pool.acquire()).await.expect("it is free").unwrap();
            D::execute(&mut *connection, sql).await.expect("no transaction is open");
            Ok(Receipt::new())
        }
    });
    let outbox = Outbox::new(D::modes(harness.database.store(pool)).remove(0), transport);
    for _ in 0..3 {
        outbox.enqueue(ada()).await.unwrap();
        let summary = outbox.relay().drain().await.unwrap();
        assert_eq!((summary.sent, summary.retried), (1, 0));
    }
}

/// Enqueueing in a transaction notifies the relay before the commit, and no poll comes. Invariants 1, 4.
pub(crate) async fn a_relay_finds_a_commit_after_its_notification<D: Database>(database: D) {
    let harness = Harness::new(database).await;
    let shutdown = CancellationToken::new();
    let relay = harness.outbox.relay().poll(SECOND * 10_000);
    let worker = tokio::spawn(relay.run(shutdown.clone().cancelled_owned()));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut tx = harness.begin().await;
    let id = harness.outbox.enqueue_in(&mut tx, ada()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(30)).await;
    tx.commit().await.unwrap();
    until_sent(harness.store(), id).await;
    shutdown.cancel();
    worker.await.unwrap().unwrap();
}

/// Each relay has a pool of its own, as a process has. Invariants 2, 3.
pub(crate) async fn four_relays_send_each_mail_once_while_others_enqueue<D: Database>(database: D) {
    let harness = Harness::new(database).await;
    let transport = ScriptedTransport::<Email>::new();
    let shutdown = CancellationToken::new();
    let (mut relays, mut outboxes) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let store = harness.database.store(harness.database.pool(4).await);
        let outbox = Outbox::new(store, transport.clone());
        let relay = outbox.relay().concurrency(20).poll(Duration::from_millis(20));
        relays.push(tokio::spawn(relay.run(shutdown.clone().cancelled_owned())));
        outboxes.push(outbox);
    }
    let writers = outboxes.iter().cloned().map(|outbox| {
        tokio::spawn(async move {
            for n in 0..25 {
                let mails = (0..5).map(|_| NewDelivery::new(ada()).key(format!("k{n}-{}", DeliveryId::new())));
                outbox.enqueue_all(mails).await.unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    until("all mails are sent", || async { outboxes[0].stats().await.unwrap().sent >= 500 }).await;
    shutdown.cancel();
    let mut sent = 0;
    for relay in relays {
        sent += relay.await.unwrap().unwrap().sent;
    }
    assert_eq!((sent, transport.calls().len()), (500, 500));
}
