//! The databases that suites run on.

use std::future::Future;
use std::time::Duration;

use postrider::store::TestClock;
use postrider::testkit::ScriptedTransport;
use postrider::{AdminStore, DeliveryId, Email, Outbox, Store};
use sqlx::pool::PoolOptions;
use sqlx::{AssertSqlSafe, Pool, Transaction};

#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

#[cfg(feature = "mysql")]
pub(crate) use mysql::{MySql, unique_prefix};
#[cfg(feature = "postgres")]
pub(crate) use postgres::Postgres;
#[cfg(feature = "sqlite")]
pub(crate) use sqlite::Sqlite;

/// The connection of a database's pool.
pub(crate) type ConnectionOf<D> = <<D as Database>::Sqlx as sqlx::Database>::Connection;
/// The options that open a connection.
pub(crate) type OptionsOf<D> = <ConnectionOf<D> as sqlx::Connection>::Options;

/// A place for one outbox's tables, which no other test uses, and the database's dialect.
///
/// In SQL, `{t}` stands for the prefix of the tables' names, and `{new}` for the relation that other programs insert deliveries into.
pub(crate) trait Database: Clone + Send + Sync + 'static {
    type Sqlx: sqlx::Database;
    type Store: AdminStore + Store<Connection = ConnectionOf<Self>>;

    /// Whether the database may answer without a wait.
    const IN_PROCESS: bool = false;
    /// The relation that other programs insert deliveries into, without the prefix of the tables.
    const NEW: &'static str = "deliveries";
    /// Begins a transaction that may write.
    const BEGIN: &'static str;
    /// The first and the last value of a column for times, as literals.
    const TIMES: [&'static str; 2];
    /// More than a thousand years ago, as a literal that the insert trigger accepts as `send_at`.
    const LONG_AGO: &'static str;
    /// The last value of a column for counts.
    const LAST_COUNT: i64;
    /// A statement that fails in a transaction, and has no effect outside of one.
    const FAILS_IN_TRANSACTION: &'static str;

    /// A place for another outbox in the same kind of database.
    fn another(&self) -> Self;
    /// The prefix of the tables' names.
    fn tables(&self) -> &str;
    fn options(&self) -> OptionsOf<Self>;
    fn store(&self, pool: Pool<Self::Sqlx>) -> Self::Store;
    fn pool_of(store: &Self::Store) -> &Pool<Self::Sqlx>;
    fn with_test_clock(store: Self::Store, clock: TestClock) -> Self::Store;
    /// The tables as plain SQL.
    fn schema(&self) -> String;
    /// A description of the tables, by which two outboxes can be compared.
    fn describe_tables(&self, pool: &Pool<Self::Sqlx>) -> impl Future<Output = Vec<String>> + Send;
    /// An id as a literal.
    fn id(id: DeliveryId) -> String;

    /// Runs SQL, which may be several statements.
    fn execute(
        connection: &mut ConnectionOf<Self>,
        sql: String,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send;
    /// Reads one number, cast to `BIGINT` if need be.
    fn number(
        connection: &mut ConnectionOf<Self>,
        sql: String,
    ) -> impl Future<Output = Result<i64, sqlx::Error>> + Send;

    /// The store in each of its modes that sends other statements, for a pool of one connection.
    fn modes(store: Self::Store) -> Vec<Self::Store> {
        vec![store]
    }

    /// SQL that drops the tables' checks.
    fn drop_checks(&self) -> Vec<&'static str>;

    /// Runs SQL that the tables' checks would refuse, after [`drop_checks`](Self::drop_checks).
    fn execute_unchecked(
        connection: &mut ConnectionOf<Self>,
        sql: String,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send {
        Self::execute(connection, sql)
    }

    /// SQL that deletes the mail of a delivery and leaves its row in the queue.
    fn delete_mail_only(&self, pool: &Pool<Self::Sqlx>, id: DeliveryId) -> impl Future<Output = Vec<String>> + Send;

    /// A new pool with this number of connections.
    fn pool(&self, connections: u32) -> impl Future<Output = Pool<Self::Sqlx>> + Send {
        self.connect(PoolOptions::new().max_connections(connections))
    }

    fn connect(&self, pool: PoolOptions<Self::Sqlx>) -> impl Future<Output = Pool<Self::Sqlx>> + Send {
        let options = self.options();
        async { pool.connect_with(options).await.expect("the database answers") }
    }
}

/// A database behind a server, which can end connections.
pub(crate) trait Server: Database {
    /// Makes a session read-only.
    const READ_ONLY: &'static str;
    /// How many thousand mails the relays of one pool share.
    const THOUSANDS: u64;

    /// The name and the options of a login whose connections can be told from all others.
    fn login(&self, pool: &Pool<Self::Sqlx>) -> impl Future<Output = (String, OptionsOf<Self>)> + Send;
    /// Ends the connections of a login, and returns how many there were.
    fn kill(&self, pool: &Pool<Self::Sqlx>, login: &str) -> impl Future<Output = usize> + Send;
}

/// An outbox with tables of its own, and a table `users` of the application beside them.
pub(crate) struct Harness<D: Database> {
    pub(crate) database: D,
    pub(crate) pool: Pool<D::Sqlx>,
    pub(crate) outbox: Outbox<D::Store, ScriptedTransport<Email>>,
}

impl<D: Database> Harness<D> {
    pub(crate) async fn new(database: D) -> Self {
        let pool = database.pool(6).await;
        let outbox = Outbox::new(database.store(pool.clone()), ScriptedTransport::new());
        outbox.migrate().await.unwrap();
        let harness = Self { database, pool, outbox };
        harness.run("CREATE TABLE {t}users (name VARCHAR(40) PRIMARY KEY, age INTEGER)").await;
        harness
    }

    pub(crate) fn store(&self) -> &D::Store {
        self.outbox.store()
    }

    /// An outbox over the same tables with its own pool of this number of connections, as in another process.
    pub(crate) async fn other_outbox(&self, connections: u32) -> Outbox<D::Store, ScriptedTransport<Email>> {
        let pool = self.database.pool(connections).await;
        Outbox::new(self.database.store(pool), ScriptedTransport::new())
    }

    /// SQL with the tables' prefix in place of `{t}`, and the relation for inserts in place of `{new}`.
    pub(crate) fn sql(&self, sql: &str) -> String {
        sql.replace("{new}", &format!("{{t}}{}", D::NEW)).replace("{t}", self.database.tables())
    }

    pub(crate) async fn run(&self, sql: &str) {
        self.try_run(sql).await.unwrap_or_else(|error| panic!("{sql:.200}: {error}"));
    }

    pub(crate) async fn try_run(&self, sql: &str) -> Result<(), sqlx::Error> {
        D::execute(&mut *self.pool.acquire().await?, self.sql(sql)).await
    }

    pub(crate) async fn run_unchecked(&self, sql: &str) {
        let done = D::execute_unchecked(&mut *self.pool.acquire().await.unwrap(), self.sql(sql)).await;
        done.unwrap_or_else(|error| panic!("{sql:.200}: {error}"));
    }

    pub(crate) async fn number(&self, sql: &str) -> i64 {
        D::number(&mut *self.pool.acquire().await.unwrap(), self.sql(sql)).await.unwrap()
    }

    /// Begins a transaction that may write.
    pub(crate) async fn begin(&self) -> Transaction<'static, D::Sqlx> {
        self.pool.begin_with(D::BEGIN).await.unwrap()
    }

    pub(crate) async fn run_in(&self, tx: &mut Transaction<'static, D::Sqlx>, sql: &str) -> Result<(), sqlx::Error> {
        D::execute(&mut **tx, self.sql(sql)).await
    }
}

/// The variable that `scripts/test` sets for a server.
pub(crate) fn variable(server: &str, name: &str) -> String {
    let name = format!("POSTRIDER_TEST_{server}_{name}");
    std::env::var(&name).unwrap_or_else(|_| panic!("{name} is not set: run scripts/test"))
}

/// A name that no other test uses.
pub(crate) fn unique_name() -> String {
    format!("t_{}", DeliveryId::new().as_uuid().simple())
}

/// The part of a [`Database`] that is the same code for each driver.
macro_rules! driver_methods {
    () => {
        async fn execute(
            connection: &mut crate::support::database::ConnectionOf<Self>,
            sql: String,
        ) -> Result<(), sqlx::Error> {
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(connection).await.map(drop)
        }

        async fn number(
            connection: &mut crate::support::database::ConnectionOf<Self>,
            sql: String,
        ) -> Result<i64, sqlx::Error> {
            sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(connection).await
        }
    };
}
use driver_methods;
