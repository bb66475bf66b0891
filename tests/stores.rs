//! The conformance suite of stores, on every store of this crate.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

mod memory {
    use postrider::store::{NewRow, TestClock};
    use postrider::testkit::store::StoreUnderTest;
    use postrider::{DeliveryId, MemoryStore, Store};

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

#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod databases {
    use postrider::store::{NewRow, TestClock};
    use postrider::testkit::store::StoreUnderTest;
    use postrider::{AdminStore, DeliveryId, Store};

    use crate::support::database::Database;

    struct StoreOf<D>(D);

    impl<D: Database> StoreUnderTest for StoreOf<D> {
        type Store = D::Store;

        async fn fresh(&self, clock: TestClock) -> D::Store {
            let database = self.0.another();
            let store = D::with_test_clock(database.store(database.pool(8).await), clock);
            store.migrate().await.unwrap();
            store
        }

        async fn insert_in_transaction(&self, store: &D::Store, rows: Vec<NewRow>, commit: bool) -> Vec<DeliveryId> {
            let mut tx = D::pool_of(store).begin_with(D::BEGIN).await.unwrap();
            let ids = store.insert_in(&mut tx, rows).await.expect("inserting works");
            if commit {
                tx.commit().await.unwrap()
            } else {
                tx.rollback().await.unwrap()
            }
            ids
        }
    }

    #[cfg(feature = "sqlite")]
    mod sqlite {
        use crate::support::database::Sqlite;

        postrider::store_tests!(super::StoreOf(Sqlite::new()));
    }

    #[cfg(feature = "postgres")]
    mod postgres_15 {
        use crate::support::database::Postgres;

        postrider::store_tests!(
            #[ignore = "needs PostgreSQL: run scripts/test"]
            super::StoreOf(Postgres::new("PG"))
        );
    }

    #[cfg(feature = "postgres")]
    mod postgres_18 {
        use crate::support::database::Postgres;

        postrider::store_tests!(
            #[ignore = "needs PostgreSQL 18: run scripts/test"]
            super::StoreOf(Postgres::new("PG18"))
        );
    }

    #[cfg(feature = "mysql")]
    mod mariadb {
        use crate::support::database::MySql;

        postrider::store_tests!(
            #[ignore = "needs MariaDB: run scripts/test"]
            super::StoreOf(MySql::new("MARIADB"))
        );
    }

    #[cfg(feature = "mysql")]
    mod mysql {
        use crate::support::database::MySql;

        postrider::store_tests!(
            #[ignore = "needs MySQL: run scripts/test"]
            super::StoreOf(MySql::new("MYSQL"))
        );
    }
}
