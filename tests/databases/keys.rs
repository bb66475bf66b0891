//! Idempotency keys.

use std::collections::HashSet;
use std::time::Duration;

use postrider::{AdminStore, NewDelivery, Store};

use crate::support::database::{Database, Harness};
use crate::support::fixture::{ada, keyed_row};

/// The second enqueue returns the first delivery if the first transaction commits, and adds its own after a rollback. Invariant 1.
pub(crate) async fn a_key_that_another_transaction_holds_is_waited_for<D: Database>(database: D) {
    let harness = Harness::new(database).await;
    for (key, commit) in [("order-1", false), ("order-2", true), ("order-2", true)] {
        let keyed = NewDelivery::new(ada()).key(key);
        let mut tx = harness.begin().await;
        let first = harness.outbox.enqueue_in(&mut tx, keyed.clone()).await.unwrap();
        let waiting = tokio::spawn({
            let outbox = harness.outbox.clone();
            async move { outbox.enqueue(keyed).await.unwrap() }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        let known = harness.outbox.get(first).await.unwrap().is_some();
        assert!(known || !waiting.is_finished(), "the second enqueue did not wait for the key");
        if commit {
            tx.commit().await.unwrap();
            assert_eq!(waiting.await.unwrap(), first);
        } else {
            tx.rollback().await.unwrap();
            assert_ne!(waiting.await.unwrap(), first);
        }
    }
    assert_eq!(harness.outbox.stats().await.unwrap().pending, 2);
}

/// Keys are compared exactly: case, accents, trailing spaces and the composition of characters matter.
pub(crate) async fn keys_that_differ_in_one_character_differ<D: Database>(database: D) {
    let harness = Harness::new(database).await;
    let store = harness.store();
    let keys = ["a", "A", "a ", "ä", "a\u{308}", "𝄞", &"k".repeat(255), &"𝄞".repeat(255)];
    let rows = || keys.iter().map(|key| keyed_row(key)).collect::<Vec<_>>();
    let ids = store.insert(rows()).await.unwrap();
    let distinct: HashSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), keys.len());
    assert_eq!(store.insert(rows()).await.unwrap(), ids);
    for (id, key) in ids.iter().zip(keys) {
        assert_eq!(store.get(*id).await.unwrap().unwrap().key.as_deref(), Some(key));
    }
}
