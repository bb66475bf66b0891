//! The conformance suite, stamped on every store of this crate.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use postrider::testkit::store::StoreUnderTest;
use postrider::{DeliveryId, NewRow, Store, TestClock};

mod memory {
    use super::*;
    use postrider::MemoryStore;

    struct Memory;

    impl StoreUnderTest for Memory {
        type Store = MemoryStore;

        async fn fresh(&self, clock: TestClock) -> MemoryStore {
            MemoryStore::with_test_clock(clock)
        }

        async fn insert_in_transaction(&self, store: &MemoryStore, rows: Vec<NewRow>, commit: bool) -> Vec<DeliveryId> {
            let mut tx = store.begin();
            let ids = store.insert_in(&mut tx, rows).await.expect("inserting works");
            if commit {
                tx.commit()
            } else {
                tx.rollback()
            }
            ids
        }
    }

    postrider::store_tests!(Memory);
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use super::*;
    use postrider::{AdminStore, SqliteStore};

    struct Sqlite;

    impl StoreUnderTest for Sqlite {
        type Store = SqliteStore;

        async fn fresh(&self, clock: TestClock) -> SqliteStore {
            let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap().keep();
            let url = format!("sqlite://{}/outbox.db", directory.display());
            let store = SqliteStore::open(&url).await.unwrap().with_test_clock(clock);
            store.migrate().await.unwrap();
            store
        }

        async fn insert_in_transaction(&self, store: &SqliteStore, rows: Vec<NewRow>, commit: bool) -> Vec<DeliveryId> {
            let mut tx = store.pool().begin_with("BEGIN IMMEDIATE").await.unwrap();
            let ids = store.insert_in(&mut tx, rows).await.expect("inserting works");
            if commit {
                tx.commit().await.unwrap()
            } else {
                tx.rollback().await.unwrap()
            }
            ids
        }
    }

    postrider::store_tests!(Sqlite);
}
