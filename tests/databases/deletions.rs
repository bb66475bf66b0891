//! Concurrent deletions.

use std::time::Duration;

use postrider::{NewDelivery, Prune, State};

use crate::support::database::{Database, Harness};
use crate::support::fixture::ada;

/// Several processes delete the same deliveries, whose keys stay taken. The counters are right afterwards.
pub(crate) async fn deletions_at_once_count_each_delivery_once<D: Database>(database: D) {
    let harness = Harness::new(database).await;
    let mut all = 0;
    for round in 0..8 {
        let mails = (0..100).map(|n| NewDelivery::new(ada()).key(format!("{round}-{n}")));
        all += harness.outbox.enqueue_all(mails).await.unwrap().len();
        assert_eq!(harness.outbox.relay().drain().await.unwrap().sent, 100);
        tokio::time::sleep(Duration::from_millis(5)).await;
        let mut deletions = Vec::new();
        for _ in 0..4 {
            let outbox = harness.other_outbox(1).await;
            let prune = Prune::deliveries(Duration::ZERO).state(State::Sent).keep_keys(Duration::from_secs(3_600));
            deletions.push(tokio::spawn(async move { outbox.prune(&prune).await.unwrap() }));
        }
        let mut deleted = 0;
        for deletion in deletions {
            deleted += deletion.await.unwrap();
        }
        assert_eq!(deleted, 100, "a deletion was counted twice or not at all");
        assert_eq!(harness.outbox.stats().await.unwrap().sent, 0);
    }
    assert_eq!(harness.number("SELECT COUNT(*) FROM {t}deliveries").await, i64::try_from(all).unwrap());
}
