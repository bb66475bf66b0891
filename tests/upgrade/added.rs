//! A made-up version of the tables after the newest one. It adds what a later release may add: columns, an index, a table.

use std::future::Future;
use std::time::Duration;

use sqlx::Pool;

use postrider::testkit::ScriptedTransport;
use postrider::{
    AdminStore, Email, Filter, NewDelivery, Outbox, Prune, State, StoreError, StoreErrorKind, UpdateOutcome,
};

use crate::stored::email;
use crate::support::database::{Database, Harness, Sqlite};
use crate::support::fixture::ada;

pub(crate) trait Upgrade: Database {
    /// The statements of the made-up version.
    const ADDED: &'static str;
    /// The directory of the database's dumps.
    const DUMP: &'static str;

    /// Migrates as a release with the made-up version would.
    fn migrate_with_added(store: &Self::Store) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// The statements that upgrade a version to the newest of this program.
    fn schema_from(&self, version: u32) -> Result<String, StoreError>;
    /// Statements that prepare a database for its dump. The database is not used afterwards.
    const BEFORE_DUMP: &'static [&'static str] = &[];

    /// Dumps the rows of all tables with the server's own tool, as inserts into tables with the default names. `None` if another server
    /// makes this dump.
    fn dump(&self) -> Option<String>;
    /// SQL that drops the triggers which enqueue, and SQL that creates them again.
    fn enqueue_triggers(&self, pool: &Pool<Self::Sqlx>) -> impl Future<Output = Vec<(String, String)>> + Send;
    /// Changes the default names in inserts to those of this outbox.
    fn rename_tables(&self, inserts: &str) -> String;
}

impl Upgrade for Sqlite {
    const ADDED: &'static str = "ALTER TABLE postrider_deliveries ADD COLUMN tenant TEXT;
CREATE INDEX postrider_deliveries_tenant ON postrider_deliveries (tenant);
ALTER TABLE postrider_queue ADD COLUMN ordering_key TEXT;
ALTER TABLE postrider_attempts ADD COLUMN host TEXT;
CREATE TABLE postrider_suppressed (address TEXT NOT NULL PRIMARY KEY) STRICT;
";
    const DUMP: &'static str = "sqlite";

    async fn migrate_with_added(store: &Self::Store) -> Result<(), StoreError> {
        store.migrate_with(&[Self::ADDED]).await
    }

    fn schema_from(&self, version: u32) -> Result<String, StoreError> {
        postrider::SqliteStore::schema_from(version)
    }

    fn dump(&self) -> Option<String> {
        Some(crate::dump::sqlite(&self.options()))
    }

    async fn enqueue_triggers(&self, pool: &Pool<Self::Sqlx>) -> Vec<(String, String)> {
        let name = "postrider_enqueue";
        let trigger = sqlx::query_scalar("SELECT sql FROM sqlite_schema WHERE name = ?1").bind(name).fetch_one(pool);
        vec![(format!("DROP TRIGGER {name}"), trigger.await.unwrap())]
    }

    fn rename_tables(&self, inserts: &str) -> String {
        inserts.to_owned()
    }
}

#[cfg(feature = "postgres")]
impl Upgrade for crate::support::database::Postgres {
    const ADDED: &'static str = "ALTER TABLE \"postrider\".deliveries ADD COLUMN tenant text;
CREATE INDEX deliveries_tenant ON \"postrider\".deliveries (tenant, id) WHERE tenant IS NOT NULL;
ALTER TABLE \"postrider\".queue ADD COLUMN ordering_key text;
ALTER TABLE \"postrider\".attempts ADD COLUMN host text;
CREATE TABLE \"postrider\".suppressed (address text NOT NULL PRIMARY KEY);
";
    const DUMP: &'static str = "postgres";

    async fn migrate_with_added(store: &Self::Store) -> Result<(), StoreError> {
        store.migrate_with(&[Self::ADDED]).await
    }

    fn schema_from(&self, version: u32) -> Result<String, StoreError> {
        postrider::PgStore::schema_from(&self.schema, version)
    }

    /// Debian's `pg_dump` does not read newer servers.
    fn dump(&self) -> Option<String> {
        let own = self.url() == crate::support::database::variable("PG", "URL");
        own.then(|| crate::dump::postgres(&self.url(), &self.schema))
    }

    async fn enqueue_triggers(&self, _: &Pool<Self::Sqlx>) -> Vec<(String, String)> {
        Vec::new()
    }

    fn rename_tables(&self, inserts: &str) -> String {
        inserts.replace("INSERT INTO postrider.", &format!("INSERT INTO {}", self.tables()))
    }
}

#[cfg(feature = "mysql")]
impl Upgrade for crate::support::database::MySql {
    const ADDED: &'static str = "ALTER TABLE postrider_deliveries ADD COLUMN tenant VARCHAR(255);
CREATE INDEX deliveries_tenant ON postrider_deliveries (tenant);
ALTER TABLE postrider_queue ADD COLUMN ordering_key VARCHAR(255);
ALTER TABLE postrider_attempts ADD COLUMN host VARCHAR(255), ADD KEY attempts_host (host);
CREATE TABLE IF NOT EXISTS postrider_suppressed (address VARCHAR(700) NOT NULL PRIMARY KEY)
    ENGINE = InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
";
    const DUMP: &'static str = "mysql";

    async fn migrate_with_added(store: &Self::Store) -> Result<(), StoreError> {
        store.migrate_with(&[Self::ADDED]).await
    }

    fn schema_from(&self, version: u32) -> Result<String, StoreError> {
        postrider::MySqlStore::schema_from(&self.prefix, version)
    }

    /// MariaDB's tool dumps generated columns, which cannot be inserted.
    const BEFORE_DUMP: &'static [&'static str] =
        &["ALTER TABLE {t}deliveries DROP COLUMN reversed", "ALTER TABLE {t}recipients DROP COLUMN reversed"];

    fn dump(&self) -> Option<String> {
        self.is_mariadb().then(|| crate::dump::mysql(&self.options(), &self.prefix))
    }

    async fn enqueue_triggers(&self, pool: &Pool<Self::Sqlx>) -> Vec<(String, String)> {
        let sql = "SELECT CAST(trigger_name AS CHAR), CAST(action_statement AS CHAR) FROM information_schema.triggers
                   WHERE event_object_schema = DATABASE() AND event_object_table = ? AND event_manipulation = 'INSERT'
                   ORDER BY action_order";
        let table = format!("{}deliveries", self.prefix);
        let triggers: Vec<(String, String)> = sqlx::query_as(sql).bind(&table).fetch_all(pool).await.unwrap();
        let create =
            |name: &str, statement| format!("CREATE TRIGGER {name} AFTER INSERT ON {table} FOR EACH ROW {statement}");
        triggers
            .into_iter()
            .map(|(name, statement)| (format!("DROP TRIGGER {name}"), create(&name, statement)))
            .collect()
    }

    fn rename_tables(&self, inserts: &str) -> String {
        inserts.replace("postrider_", &self.prefix)
    }
}

/// The version of the tables, from the table `migrations`.
pub(crate) async fn version<D: Database>(harness: &Harness<D>) -> i64 {
    harness.number("SELECT MAX(version) FROM {t}migrations").await
}

/// If the tables are newer than the program, `migrate` fails and changes nothing. Everything else works.
pub(crate) async fn a_database_of_a_newer_release_is_refused<D: Upgrade>(database: D) {
    let harness = Harness::new(database).await;
    let released = version(&harness).await;
    D::migrate_with_added(harness.store()).await.unwrap();
    let tables = harness.database.describe_tables(&harness.pool).await;
    assert_eq!(version(&harness).await, released + 1);
    harness.run("INSERT INTO {t}suppressed VALUES ('ada@example.com')").await;

    let error = harness.outbox.migrate().await.unwrap_err();
    assert_eq!(error.kind(), StoreErrorKind::NewerTables);
    let text = error.to_string();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(
        text.contains(&format!("version {}", released + 1)) && text.contains(&format!("version {released}:")),
        "{text}"
    );

    assert_eq!(version(&harness).await, released + 1);
    assert_eq!(harness.database.describe_tables(&harness.pool).await, tables);
    assert_eq!(harness.number("SELECT COUNT(*) FROM {t}suppressed").await, 1);
    harness.outbox.enqueue(ada()).await.unwrap();
    assert_eq!(harness.outbox.relay().drain().await.unwrap().sent, 1);
    assert_eq!(harness.outbox.stats().await.unwrap().sent, 1);
}

/// A driver caches what it knows of a prepared statement, such as its columns. An upgrade must not break such a statement.
pub(crate) async fn statements_prepared_before_an_upgrade_work_after_it<D: Upgrade>(database: D) {
    // A driver whose cache is wrong may never answer.
    let all = tokio::time::timeout(Duration::from_secs(60), use_statements_around_an_upgrade(database));
    all.await.expect("every statement gets an answer");
}

async fn use_statements_around_an_upgrade<D: Upgrade>(database: D) {
    let harness = Harness::new(database).await;
    let outbox = harness.other_outbox(1).await;
    for round in 0..3 {
        if round == 1 {
            D::migrate_with_added(harness.store()).await.unwrap();
        }
        let ids = outbox.enqueue_all([ada(), email("shared blobs"), email("one refused")]).await.unwrap();
        let keyed = outbox.enqueue(NewDelivery::new(ada()).key(format!("{round}"))).await.unwrap();
        assert_eq!(outbox.cancel(keyed).await.unwrap(), UpdateOutcome::Updated);
        assert_eq!(outbox.relay().drain().await.unwrap().sent, 3);
        assert_eq!(outbox.resend(ids[0]).await.unwrap(), UpdateOutcome::Updated);
        assert_eq!(outbox.relay().drain().await.unwrap().sent, 1);
        assert_eq!(outbox.get(ids[0]).await.unwrap().unwrap().attempts.len(), 2);
        assert_eq!(outbox.store().message(ids[1]).await.unwrap().unwrap().blobs.len(), 2);
        let filter = Filter::new().recipient("ada@example.com").state(State::Sent);
        assert_eq!(outbox.list(&filter).await.unwrap().len(), 3);
        assert_eq!(outbox.count(&filter).await.unwrap(), 3);
        assert_eq!(outbox.stats().await.unwrap().sent, 3);
        assert!(!outbox.hourly(std::time::UNIX_EPOCH).await.unwrap().is_empty());
        tokio::time::sleep(Duration::from_millis(20)).await;
        for part in [Prune::history, Prune::messages, Prune::deliveries] {
            let prune =
                part(Duration::ZERO).state(State::Sent).state(State::Cancelled).keep_keys(Duration::from_secs(3_600));
            assert!(outbox.prune(&prune).await.unwrap() > 0);
        }
    }
}

/// For programs with migrations of their own. The statements of version 1 and then those from version 1 on create the same tables as
/// `migrate`.
pub(crate) async fn the_statements_from_a_version_on_upgrade_it<D: Upgrade>(database: D) {
    let (by_hand, pool) = (database.another(), database.pool(1).await);
    let migrated = Outbox::new(database.store(pool.clone()), ScriptedTransport::<Email>::new());
    migrated.migrate().await.unwrap();
    let tables = database.describe_tables(&pool).await;
    let newest = format!("SELECT MAX(version) FROM {}migrations", database.tables());
    let newest = D::number(&mut *pool.acquire().await.unwrap(), newest).await.unwrap();
    let newest = u32::try_from(newest).unwrap();
    assert_eq!(by_hand.schema_from(0).unwrap(), by_hand.schema());
    assert_eq!(by_hand.schema_from(newest).unwrap(), "");
    assert_eq!(by_hand.schema_from(newest + 1).unwrap_err().kind(), StoreErrorKind::NewerTables);
    let pool = by_hand.pool(2).await;
    for sql in [version_1(&by_hand), by_hand.schema_from(1).unwrap()] {
        // MySQL refuses an empty text.
        if !sql.is_empty() {
            D::execute(&mut *pool.acquire().await.unwrap(), sql).await.unwrap();
        }
    }
    let outbox = Outbox::new(by_hand.store(pool.clone()), ScriptedTransport::<Email>::new());
    outbox.migrate().await.unwrap();
    assert!(by_hand.describe_tables(&pool).await == tables, "the tables differ from those of migrate");
    outbox.enqueue(ada()).await.unwrap();
    assert_eq!(outbox.relay().drain().await.unwrap().sent, 1);
}

/// The statements that create version 1 alone.
pub(crate) fn version_1<D: Upgrade>(database: &D) -> String {
    let (all, later) = (database.schema(), database.schema_from(1).unwrap());
    all.strip_suffix(&later).expect("later versions are at the end").to_owned()
}
