//! The conformance suite, stamped on every store of this crate.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use postrider::store::{NewRow, TestClock};
use postrider::testkit::store::StoreUnderTest;
use postrider::{DeliveryId, Store};

/// Where a server is that scripts/test has started.
#[cfg(any(feature = "postgres", feature = "mysql"))]
fn url(server: &str) -> String {
    let name = format!("POSTRIDER_TEST_{server}_URL");
    std::env::var(&name).unwrap_or_else(|_| panic!("{name} is not set: run scripts/test"))
}

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

#[cfg(feature = "postgres")]
mod postgres {
    use super::*;
    use postrider::{AdminStore, PgStore};
    use sqlx::postgres::PgPoolOptions;

    /// On the server that a variable names.
    struct Postgres(&'static str);

    impl StoreUnderTest for Postgres {
        type Store = PgStore;

        async fn fresh(&self, clock: TestClock) -> PgStore {
            let pool = PgPoolOptions::new().max_connections(8).connect(&url(self.0)).await.unwrap();
            let schema = format!("t_{}", DeliveryId::new().as_uuid().simple());
            let store = PgStore::in_schema(pool, &schema).unwrap().with_test_clock(clock);
            store.migrate().await.unwrap();
            store
        }

        async fn insert_in_transaction(&self, store: &PgStore, rows: Vec<NewRow>, commit: bool) -> Vec<DeliveryId> {
            let mut tx = store.pool().begin().await.unwrap();
            let ids = store.insert_in(&mut tx, rows).await.expect("inserting works");
            if commit {
                tx.commit().await.unwrap()
            } else {
                tx.rollback().await.unwrap()
            }
            ids
        }
    }

    mod debian {
        postrider::store_tests!(
            #[ignore = "needs PostgreSQL: run scripts/test"]
            super::Postgres("PG")
        );
    }

    mod version_18 {
        postrider::store_tests!(
            #[ignore = "needs PostgreSQL 18: run scripts/test"]
            super::Postgres("PG18")
        );
    }
}

#[cfg(feature = "mysql")]
mod mysql {
    use super::*;
    use postrider::{AdminStore, MySqlStore};
    use sqlx::mysql::MySqlPoolOptions;

    /// On the server that a variable names.
    struct MySql(&'static str);

    impl StoreUnderTest for MySql {
        type Store = MySqlStore;

        async fn fresh(&self, clock: TestClock) -> MySqlStore {
            let pool = MySqlPoolOptions::new().max_connections(8).connect(&url(self.0)).await.unwrap();
            let prefix = format!("t{}_", DeliveryId::new().as_uuid().simple());
            let store = MySqlStore::with_table_prefix(pool, &prefix).unwrap().with_test_clock(clock);
            store.migrate().await.unwrap();
            store
        }

        async fn insert_in_transaction(&self, store: &MySqlStore, rows: Vec<NewRow>, commit: bool) -> Vec<DeliveryId> {
            let mut tx = store.pool().begin().await.unwrap();
            let ids = store.insert_in(&mut tx, rows).await.expect("inserting works");
            if commit {
                tx.commit().await.unwrap()
            } else {
                tx.rollback().await.unwrap()
            }
            ids
        }
    }

    mod mariadb {
        postrider::store_tests!(
            #[ignore = "needs MariaDB: run scripts/test"]
            super::MySql("MARIADB")
        );
    }

    #[allow(clippy::module_inception, reason = "the store is named for this one of its servers")]
    mod mysql {
        postrider::store_tests!(
            #[ignore = "needs MySQL: run scripts/test"]
            super::MySql("MYSQL")
        );
    }
}
