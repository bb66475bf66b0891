use std::path::PathBuf;
use std::sync::Arc;

use postrider::store::TestClock;
use postrider::{DeliveryId, SqliteStore};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

use super::{ConnectionOf, Database, driver_methods};

/// SQLite, in a new file.
#[derive(Clone)]
pub(crate) struct Sqlite(Arc<PathBuf>);

impl Sqlite {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap().keep();
        Self(Arc::new(directory.join("outbox.db")))
    }
}

impl Database for Sqlite {
    type Sqlx = sqlx::Sqlite;
    type Store = SqliteStore;

    const IN_PROCESS: bool = true;
    const BEGIN: &'static str = "BEGIN IMMEDIATE";
    const TIMES: [&'static str; 2] = ["-9223372036854775808", "9223372036854775807"];
    const LONG_AGO: &'static str = "-9223372036854775808";
    const LAST_COUNT: i64 = u32::MAX as i64;
    const FAILS_IN_TRANSACTION: &'static str = "VACUUM";

    fn another(&self) -> Self {
        Self::new()
    }

    fn tables(&self) -> &str {
        "postrider_"
    }

    fn options(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new().filename(self.0.as_path()).create_if_missing(true)
    }

    fn store(&self, pool: SqlitePool) -> SqliteStore {
        SqliteStore::new(pool)
    }

    fn pool_of(store: &SqliteStore) -> &SqlitePool {
        store.pool()
    }

    fn with_test_clock(store: SqliteStore, clock: TestClock) -> SqliteStore {
        store.with_test_clock(clock)
    }

    fn schema(&self) -> String {
        SqliteStore::schema()
    }

    async fn describe_tables(&self, pool: &SqlitePool) -> Vec<String> {
        let sql = "SELECT type || ' ' || name || ' ' || coalesce(sql, '') FROM sqlite_schema WHERE name LIKE 'postrider%' ORDER BY name";
        sqlx::query_scalar(sql).fetch_all(pool).await.unwrap()
    }

    fn id(id: DeliveryId) -> String {
        format!("'{id}'")
    }

    driver_methods!();

    fn drop_checks(&self) -> Vec<&'static str> {
        Vec::new()
    }

    /// A table's checks cannot be dropped, but a connection can ignore them.
    async fn execute_unchecked(connection: &mut ConnectionOf<Self>, sql: String) -> Result<(), sqlx::Error> {
        Self::execute(connection, "PRAGMA ignore_check_constraints = ON".to_owned()).await?;
        let done = Self::execute(connection, sql).await;
        Self::execute(connection, "PRAGMA ignore_check_constraints = OFF".to_owned()).await?;
        done
    }

    async fn delete_mail_only(&self, pool: &SqlitePool, id: DeliveryId) -> Vec<String> {
        let trigger = "SELECT sql FROM sqlite_schema WHERE name = 'postrider_delete'";
        let trigger: String = sqlx::query_scalar(trigger).fetch_one(pool).await.unwrap();
        let delete = format!("DELETE FROM {{t}}deliveries WHERE id = {}", Self::id(id));
        vec!["DROP TRIGGER postrider_delete".to_owned(), delete, trigger]
    }
}
