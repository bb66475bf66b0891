//! An upgrade beside relays of the old release.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use postrider::testkit::ScriptedTransport;
use postrider::transport::{Failure, Receipt, Scope};
use postrider::{
    AdminStore, DeliveryId, Email, EnqueueError, NewDelivery, Outbox, RetryPolicy, StoreError, StoreErrorKind,
};
use tokio_util::sync::CancellationToken;

use crate::added::{Upgrade, version};
use crate::support::database::Harness;
use crate::support::fixture::ada;
use crate::support::wait::until;

/// No mail is lost or sent twice, no call fails, and the relays continue on the newer tables. Invariants 2, 4.
pub(crate) async fn relays_work_while_two_processes_upgrade<D: Upgrade>(database: D) {
    let harness = Harness::new(database).await;
    let released = version(&harness).await;
    // Every third call fails, so that every kind of statement runs.
    let count = AtomicUsize::new(0);
    let transport = ScriptedTransport::<Email>::new().with_handler(move |_| {
        let fails = count.fetch_add(1, Ordering::SeqCst).is_multiple_of(3);
        async move {
            tokio::time::sleep(Duration::from_millis(2)).await;
            if fails { Err(Failure::transient(Scope::Message, "later")) } else { Ok(Receipt::new()) }
        }
    });
    let shutdown = CancellationToken::new();
    let retry = RetryPolicy::default().attempts(1_000).backoff(Duration::from_millis(1), Duration::from_millis(1));
    let mut relays = Vec::new();
    for _ in 0..2 {
        let store = harness.database.store(harness.database.pool(4).await);
        let relay = Outbox::new(store, transport.clone()).relay().concurrency(8).poll(Duration::from_millis(20));
        relays.push(tokio::spawn(relay.retry(retry).run(shutdown.clone().cancelled_owned())));
    }
    let stop: Arc<AtomicBool> = Arc::default();
    let writer = tokio::spawn(enqueue::<D>(harness.other_outbox(2).await, Arc::clone(&stop)));
    let reader = tokio::spawn(read(harness.other_outbox(1).await, Arc::clone(&stop)));

    let calls = || async { transport.calls().len() };
    until("the relays send", || async { calls().await >= 50 }).await;
    let upgrades = (0..2).map(|_| {
        let database = harness.database.clone();
        tokio::spawn(async move { D::migrate_with_added(&database.store(database.pool(1).await)).await })
    });
    for upgrade in upgrades.collect::<Vec<_>>() {
        upgrade.await.unwrap().unwrap();
    }
    let before = calls().await;
    assert_eq!(version(&harness).await, released + 1);
    assert_eq!(harness.outbox.migrate().await.unwrap_err().kind(), StoreErrorKind::NewerTables);
    until("the relays continue", || async { calls().await >= before + 50 }).await;
    stop.store(true, Ordering::SeqCst);
    let mails = writer.await.unwrap();
    reader.await.unwrap();

    let all = u64::try_from(mails.len()).unwrap();
    until("all mails are sent", || async { harness.outbox.stats().await.unwrap().sent >= all }).await;
    shutdown.cancel();
    let mut sent = 0;
    for relay in relays {
        let summary = relay.await.unwrap().unwrap();
        assert_eq!((summary.dead, summary.in_doubt, summary.lease_lost), (0, 0, 0));
        sent += summary.sent;
    }
    assert_eq!(sent, all);
    let mut attempts: HashMap<DeliveryId, u32> = HashMap::new();
    transport.calls().iter().for_each(|call| *attempts.entry(call.id).or_default() += 1);
    assert_eq!(attempts.len(), mails.len(), "a mail is lost, or one arrived that was not enqueued");
    for id in mails {
        let delivery = harness.outbox.get(id).await.unwrap().unwrap();
        assert_eq!(delivery.attempts.len(), attempts[&id] as usize, "a call left no attempt");
    }
    assert_eq!(harness.number("SELECT COUNT(*) FROM {t}deliveries WHERE tenant IS NOT NULL").await, 0);
}

/// A transaction of the application uses the tables for longer than the upgrade waits for a lock. Other calls do not wait behind the
/// upgrade.
#[cfg(any(feature = "postgres", feature = "mysql"))]
pub(crate) async fn other_calls_continue_while_an_upgrade_waits<D: Upgrade>(database: D) {
    let harness = Harness::new(database).await;
    let released = version(&harness).await;
    let mut tx = harness.begin().await;
    harness.outbox.enqueue_in(&mut tx, ada()).await.unwrap();
    let upgrade = tokio::spawn({
        let database = harness.database.clone();
        async move { D::migrate_with_added(&database.store(database.pool(1).await)).await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let others = async {
        harness.outbox.enqueue(ada()).await.unwrap();
        assert_eq!(harness.outbox.relay().drain().await.unwrap().sent, 1);
    };
    tokio::time::timeout(Duration::from_secs(60), others).await.expect("no call waits for the application");
    assert_eq!(version(&harness).await, released);
    tx.commit().await.unwrap();
    upgrade.await.unwrap().unwrap();
    assert_eq!(version(&harness).await, released + 1);
    assert_eq!(harness.outbox.relay().drain().await.unwrap().sent, 1);
}

/// Enqueues without a break, in transactions of its own and of the store, until it is told to stop. Returns the ids.
async fn enqueue<D: Upgrade>(
    outbox: Outbox<D::Store, ScriptedTransport<Email>>,
    stop: Arc<AtomicBool>,
) -> Vec<DeliveryId> {
    let mut ids = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let key = format!("key-{}", ids.len());
        ids.push(outbox.enqueue(ada()).await.unwrap());
        ids.push(outbox.enqueue(NewDelivery::new(ada()).key(key)).await.unwrap());
        ids.extend(outbox.enqueue_all((0..3).map(|_| ada())).await.unwrap());
        // A transaction that is open while the tables change may fail, and then writes nothing: the caller repeats it.
        match enqueue_in_transaction::<D>(&outbox).await {
            Ok(more) => ids.extend(more),
            Err(EnqueueError::Store(error)) => assert_eq!(error.kind(), StoreErrorKind::Conflict, "{error:?}"),
            Err(error) => panic!("{error}"),
        }
    }
    ids
}

async fn enqueue_in_transaction<D: Upgrade>(
    outbox: &Outbox<D::Store, ScriptedTransport<Email>>,
) -> Result<[DeliveryId; 2], EnqueueError> {
    let mut tx = D::pool_of(outbox.store()).begin_with(D::BEGIN).await.map_err(StoreError::from)?;
    let first = outbox.enqueue_in(&mut tx, ada()).await?;
    tokio::time::sleep(Duration::from_millis(5)).await;
    let second = outbox.enqueue_in(&mut tx, ada()).await?;
    tx.commit().await.map_err(StoreError::from)?;
    Ok([first, second])
}

/// Reads as an operator does.
async fn read<S: AdminStore>(outbox: Outbox<S, ScriptedTransport<Email>>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::SeqCst) {
        for delivery in outbox.list(&postrider::Filter::new().newest_first().limit(3)).await.unwrap() {
            assert!(outbox.get(delivery.id).await.unwrap().is_some());
        }
        outbox.stats().await.unwrap();
    }
}
