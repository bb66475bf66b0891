use std::sync::Arc;

use postrider::store::TestClock;
use postrider::{DeliveryId, MySqlStore};
use sqlx::AssertSqlSafe;
use sqlx::mysql::{MySqlConnectOptions, MySqlPool};

use super::{Database, Server, driver_methods, variable};

/// A new table prefix on one of the servers that `scripts/test` starts.
#[derive(Clone)]
pub(crate) struct MySql {
    /// `MARIADB` or `MYSQL`, as in the names of the variables.
    server: &'static str,
    pub(crate) prefix: Arc<str>,
}

/// A table prefix that no other test uses.
pub(crate) fn unique_prefix() -> String {
    format!("t{}_", DeliveryId::new().as_uuid().simple())
}

impl MySql {
    pub(crate) fn new(server: &'static str) -> Self {
        Self { server, prefix: unique_prefix().into() }
    }

    pub(crate) fn is_mariadb(&self) -> bool {
        self.server == "MARIADB"
    }

    /// The server's connections, with `id`, `user` and `command`. MySQL fails to read its own PROCESSLIST while the list contains a
    /// statement with binary text (error 3854).
    pub(crate) fn connections(&self) -> &'static str {
        if self.is_mariadb() {
            "information_schema.processlist"
        } else {
            "(SELECT processlist_id AS id, processlist_user AS user, processlist_command AS command FROM performance_schema.threads) p"
        }
    }

    /// A new user with these rights, each in the test's database on all tables (`*`) or one: its name, and options to log in.
    pub(crate) async fn user(&self, pool: &MySqlPool, rights: &[(&str, &str)]) -> (String, MySqlConnectOptions) {
        let name = format!("u{}", &DeliveryId::new().as_uuid().simple().to_string()[4..]);
        let options = self.options();
        let database = options.get_database().unwrap();
        let create = format!("CREATE USER '{name}'@'%'");
        let grants = rights.iter().map(|(right, table)| format!("GRANT {right} ON {database}.{table} TO '{name}'@'%'"));
        for statement in std::iter::once(create).chain(grants) {
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(pool).await.unwrap();
        }
        (name.clone(), options.username(&name))
    }
}

impl Database for MySql {
    type Sqlx = sqlx::MySql;
    type Store = MySqlStore;

    const BEGIN: &'static str = "START TRANSACTION";
    const TIMES: [&'static str; 2] = ["-9223372036854775808", "9223372036854775807"];
    const LONG_AGO: &'static str = "-9223372036854775808";
    const LAST_COUNT: i64 = i32::MAX as i64;
    // Error 1568; outside of a transaction it applies to the next one, which is rolled back or sets its own level.
    const FAILS_IN_TRANSACTION: &'static str = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED";

    fn another(&self) -> Self {
        Self::new(self.server)
    }

    fn tables(&self) -> &str {
        &self.prefix
    }

    fn options(&self) -> MySqlConnectOptions {
        variable(self.server, "URL").parse().unwrap()
    }

    fn store(&self, pool: MySqlPool) -> MySqlStore {
        MySqlStore::with_table_prefix(pool, &self.prefix).unwrap()
    }

    fn pool_of(store: &MySqlStore) -> &MySqlPool {
        store.pool()
    }

    fn with_test_clock(store: MySqlStore, clock: TestClock) -> MySqlStore {
        store.with_test_clock(clock)
    }

    fn schema(&self) -> String {
        MySqlStore::schema(&self.prefix).unwrap()
    }

    async fn describe_tables(&self, pool: &MySqlPool) -> Vec<String> {
        let sql = "SELECT CONCAT_WS(' ', SUBSTR(table_name, ?), column_name, column_type, is_nullable, collation_name, column_key)
                   FROM information_schema.columns
                   WHERE table_schema = DATABASE() AND LEFT(table_name, ?) = ? ORDER BY 1";
        let length = i64::try_from(self.prefix.len()).unwrap();
        let columns = sqlx::query_scalar(sql).bind(length + 1).bind(length).bind(&*self.prefix);
        columns.fetch_all(pool).await.unwrap()
    }

    fn id(id: DeliveryId) -> String {
        format!("UNHEX('{}')", id.as_uuid().simple())
    }

    driver_methods!();

    fn drop_checks(&self) -> Vec<&'static str> {
        Vec::new()
    }

    async fn delete_mail_only(&self, _: &MySqlPool, id: DeliveryId) -> Vec<String> {
        let id = Self::id(id);
        vec![
            "CREATE TEMPORARY TABLE kept AS SELECT * FROM {t}queue".to_owned(),
            format!("DELETE FROM {{t}}deliveries WHERE id = {id}"),
            format!("INSERT INTO {{t}}queue SELECT * FROM kept WHERE delivery_id = {id}"),
            "DROP TEMPORARY TABLE kept".to_owned(),
        ]
    }
}

impl Server for MySql {
    const READ_ONLY: &'static str = "SET SESSION TRANSACTION READ ONLY";
    const THOUSANDS: u64 = 5;

    async fn login(&self, pool: &MySqlPool) -> (String, MySqlConnectOptions) {
        self.user(pool, &[("INSERT, SELECT, UPDATE, DELETE", "*")]).await
    }

    async fn kill(&self, pool: &MySqlPool, login: &str) -> usize {
        let sql = format!("SELECT CAST(id AS SIGNED) FROM {} WHERE user = ?", self.connections());
        let ids: Vec<i64> = sqlx::query_scalar(AssertSqlSafe(sql)).bind(login).fetch_all(pool).await.unwrap();
        for id in &ids {
            // A connection may have ended by itself.
            let _ = sqlx::raw_sql(AssertSqlSafe(format!("KILL {id}"))).execute(pool).await;
        }
        ids.len()
    }
}
