use std::sync::Arc;
use std::time::Duration;

use postrider::store::TestClock;
use postrider::{DeliveryId, PgStore, Store};
use sqlx::postgres::{PgConnectOptions, PgPool};

use super::{Database, Server, driver_methods, unique_name, variable};

/// A new schema on one of the PostgreSQL servers that `scripts/test` starts.
#[derive(Clone)]
pub(crate) struct Postgres {
    /// `PG` or `PG18`, as in the names of the variables.
    server: &'static str,
    pub(crate) schema: Arc<str>,
    tables: Arc<str>,
}

impl Postgres {
    pub(crate) fn new(server: &'static str) -> Self {
        let schema = unique_name();
        let tables = format!("\"{schema}\".").into();
        Self { server, schema: schema.into(), tables }
    }

    pub(crate) fn url(&self) -> String {
        variable(self.server, "URL")
    }

    /// The PgBouncer before the server.
    pub(crate) fn bouncer_url(&self) -> String {
        variable(&format!("{}BOUNCER", self.server), "URL")
    }
}

impl Database for Postgres {
    type Sqlx = sqlx::Postgres;
    type Store = PgStore;

    const NEW: &'static str = "outbox";
    const BEGIN: &'static str = "BEGIN";
    const TIMES: [&'static str; 2] = ["'-infinity'", "'infinity'"];
    const LONG_AGO: &'static str = "'4713-01-01 BC'";
    const LAST_COUNT: i64 = i32::MAX as i64;
    const FAILS_IN_TRANSACTION: &'static str = "VACUUM {t}relays";

    fn another(&self) -> Self {
        Self::new(self.server)
    }

    fn tables(&self) -> &str {
        &self.tables
    }

    fn options(&self) -> PgConnectOptions {
        self.url().parse().unwrap()
    }

    fn store(&self, pool: PgPool) -> PgStore {
        PgStore::in_schema(pool, &self.schema).unwrap()
    }

    fn pool_of(store: &PgStore) -> &PgPool {
        store.pool()
    }

    fn with_test_clock(store: PgStore, clock: TestClock) -> PgStore {
        store.with_test_clock(clock)
    }

    fn schema(&self) -> String {
        PgStore::schema(&self.schema).unwrap()
    }

    async fn describe_tables(&self, pool: &PgPool) -> Vec<String> {
        let sql = "SELECT table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable
                   FROM information_schema.columns
                   WHERE table_schema = $1 AND table_name <> 'migrations' ORDER BY 1";
        sqlx::query_scalar(sql).bind(&*self.schema).fetch_all(pool).await.unwrap()
    }

    fn id(id: DeliveryId) -> String {
        format!("'{id}'")
    }

    driver_methods!();

    fn modes(store: PgStore) -> Vec<PgStore> {
        let store = store.without_listen().with_call_limit(Duration::from_secs(20));
        vec![store.clone(), store.without_prepared_statements()]
    }

    fn drop_checks(&self) -> Vec<&'static str> {
        vec![
            "ALTER DOMAIN {t}outcome DROP CONSTRAINT outcome_check",
            "ALTER DOMAIN {t}scope DROP CONSTRAINT scope_check",
        ]
    }

    async fn delete_mail_only(&self, _: &PgPool, id: DeliveryId) -> Vec<String> {
        vec![
            "SET session_replication_role = replica".to_owned(),
            format!("DELETE FROM {{t}}deliveries WHERE id = {}", Self::id(id)),
            "RESET session_replication_role".to_owned(),
        ]
    }
}

impl Server for Postgres {
    const READ_ONLY: &'static str = "SET default_transaction_read_only = on";
    const THOUSANDS: u64 = 20;

    async fn login(&self, _: &PgPool) -> (String, PgConnectOptions) {
        let name = unique_name();
        (name.clone(), self.options().application_name(&name))
    }

    async fn kill(&self, pool: &PgPool, login: &str) -> usize {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1";
        sqlx::query(sql).bind(login).fetch_all(pool).await.unwrap().len()
    }
}
