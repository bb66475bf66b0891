//! A store in an SQLite database.

mod admin;
mod change;
mod claim;
mod enqueue;
mod erase;
mod message;
mod migrate;
mod operator;
mod prune;
mod rows;
mod search;
mod settle;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postrider_transport::DeliveryId;
use sqlx::query::Query;
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteQueryResult,
    SqliteSynchronous,
};
use sqlx::{Connection, Sqlite, SqlitePool};
use tokio::sync::Notify;

use crate::clock::{Clock, TestClock, from_millis, millis};
use crate::pause::Controls;
use crate::store::session::{Session, retry_conflicts};
use crate::store::{
    Claim, ClaimId, HEARTBEAT_TTL, Lease, LeaseKey, NewRow, RelayId, RelayReport, Settled, Settlement, Store,
    StoreError, StoreErrorKind,
};

/// Deliveries in an SQLite database (3.38 or later), beside the caller's tables.
///
/// Pass it the pool of your program, and enqueue in transactions of that pool:
///
/// ```no_run
/// # async fn demo(email: postrider::Email) -> Result<(), Box<dyn std::error::Error>> {
/// use postrider::{Outbox, SqliteStore};
/// use sqlx::sqlite::SqlitePool;
///
/// let pool = SqlitePool::connect("sqlite://shop.db").await?;
/// let outbox = Outbox::enqueue_only(SqliteStore::new(pool.clone()));
/// outbox.migrate().await?;
///
/// let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
/// sqlx::query("INSERT INTO users (name) VALUES ('Ada')").execute(&mut *tx).await?;
/// outbox.enqueue_in(&mut tx, email).await?;
/// tx.commit().await?;
/// # Ok(()) }
/// ```
///
/// [`migrate`](crate::Outbox::migrate) switches the database to write-ahead logging, so that a relay and readers do not block each other.
/// SQLite has one writer at a time. A transaction that begins with a read and writes later may fail at once (`SQLITE_BUSY_SNAPSHOT`), so
/// begin a writing transaction with `BEGIN IMMEDIATE`. The pool's `PRAGMA synchronous` sets how durable a commit is.
///
/// A relay finds the commits of other processes by polling. A database in memory needs a pool of one connection that is never closed by
/// idle time or age.
#[derive(Clone)]
pub struct SqliteStore {
    pool: SqlitePool,
    clock: Clock,
    notifier: Arc<Notify>,
}

impl SqliteStore {
    /// A store on the caller's pool.
    pub fn new(pool: SqlitePool) -> Self {
        Self { pool, clock: Clock::default(), notifier: Arc::new(Notify::new()) }
    }

    /// Opens a database, and creates the file if there is none: `sqlite://outbox.db`, `sqlite:///var/lib/app/outbox.db`. The database uses
    /// write-ahead logging and flushes at each commit.
    ///
    /// # Errors
    /// If the URL is malformed or the file cannot be opened.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let in_memory = url.contains(":memory:") || url.contains("mode=memory");
        let options = SqliteConnectOptions::from_str(url)
            .map_err(|error| StoreError::new(StoreErrorKind::Rejected, "this is not an SQLite URL").with_source(error))?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full);
        let pool = if in_memory {
            // A database in memory belongs to its connection, and ends with it.
            SqlitePoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None)
        } else {
            SqlitePoolOptions::new().max_connections(4)
        };
        let pool = pool.connect_with(options).await?;
        Ok(Self::new(pool))
    }

    /// The same store with a test clock.
    #[must_use]
    pub fn with_test_clock(mut self, clock: TestClock) -> Self {
        self.clock = Clock::test(clock);
        self
    }

    /// The connection pool that the store uses.
    pub fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    /// The statements that create the outbox's tables, for programs that run their own migrations. They need not call
    /// [`migrate`](crate::Outbox::migrate).
    pub fn schema() -> String {
        migrate::schema_from(0).unwrap_or_default()
    }

    /// The statements that upgrade tables of a version to the newest, for programs that run their own migrations. There are none if the
    /// version is the newest. Version 0 has no tables.
    ///
    /// # Errors
    /// If the version is newer than this program.
    pub fn schema_from(version: u32) -> Result<String, StoreError> {
        migrate::schema_from(version)
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").finish_non_exhaustive()
    }
}

impl SqliteStore {
    /// Runs a statement as a transaction of its own.
    async fn run(
        &self,
        query: impl Fn() -> Query<'static, Sqlite, SqliteArguments>,
    ) -> Result<SqliteQueryResult, StoreError> {
        let done = retry_conflicts(|| async {
            let mut session = Session::acquire_drop_safe(&self.pool).await?;
            let done = query().execute(&mut *session).await;
            session.finish(done.map_err(StoreError::from))
        });
        done.await
    }
}

impl Store for SqliteStore {
    type Connection = SqliteConnection;

    async fn insert(&self, rows: Vec<NewRow>) -> Result<Vec<DeliveryId>, StoreError> {
        let now = self.clock.now_millis();
        let ids = retry_conflicts(|| async {
            let mut session = Session::acquire_drop_safe(&self.pool).await?;
            let inserted = async {
                let mut tx = session.begin_with("BEGIN IMMEDIATE").await?;
                let ids = enqueue::insert(&mut tx, &rows, now).await?;
                tx.commit().await?;
                Ok(ids)
            };
            let inserted = inserted.await;
            session.finish(inserted)
        });
        let ids = ids.await?;
        crate::store::notify(&self.notifier);
        Ok(ids)
    }

    async fn insert_in(
        &self,
        connection: &mut SqliteConnection,
        rows: Vec<NewRow>,
    ) -> Result<Vec<DeliveryId>, StoreError> {
        let ids = enqueue::insert(connection, &rows, self.clock.now_millis()).await?;
        // The commit follows later. The relay polls several times after this notification.
        crate::store::notify(&self.notifier);
        Ok(ids)
    }

    async fn claim(&self, claim: Claim) -> Result<Vec<Lease>, StoreError> {
        retry_conflicts(|| claim::claim(&self.pool, claim, self.clock.now_millis())).await
    }

    async fn release_claims(&self, claims: &[ClaimId]) -> Result<u64, StoreError> {
        let claims: Vec<i64> = claims.iter().map(|claim| claim.number()).collect();
        let claims = serde_json::Value::from(claims).to_string();
        let text = "UPDATE postrider_queue SET leased_at = NULL, leased_by = NULL, due_at = min(due_at, ?2)
             WHERE leased_by IN (SELECT value FROM json_each(?1)) AND leased_at IS NOT NULL";
        let query = || sqlx::query(text).bind(claims.clone()).bind(self.clock.now_millis());
        Ok(self.run(query).await?.rows_affected())
    }

    async fn settle(&self, settlements: &[Settlement]) -> Result<Vec<Settled>, StoreError> {
        retry_conflicts(|| settle::settle(&self.pool, settlements, self.clock.now_millis())).await
    }

    async fn renew(&self, keys: &[LeaseKey], lease: Duration) -> Result<Vec<Settled>, StoreError> {
        let until = self.clock.now_millis().saturating_add(millis(lease));
        retry_conflicts(|| settle::renew(&self.pool, keys, until)).await
    }

    async fn next_due(&self) -> Result<Option<Duration>, StoreError> {
        let now = self.clock.now_millis();
        let mut session = Session::acquire_drop_safe(&self.pool).await?;
        let due = claim::first_due(&mut session).await;
        let due = session.finish(due)?;
        Ok(due.map(|due| Duration::from_millis(u64::try_from(due.saturating_sub(now)).unwrap_or(0))))
    }

    async fn now(&self) -> Result<SystemTime, StoreError> {
        // SQLite runs in this process and uses its clock.
        Ok(from_millis(self.clock.now_millis()))
    }

    async fn controls(&self) -> Result<Controls, StoreError> {
        let mut session = Session::acquire_drop_safe(&self.pool).await?;
        let controls = operator::read_controls(&mut session).await;
        session.finish(controls)
    }

    async fn report(&self, report: &RelayReport) -> Result<(), StoreError> {
        let now = self.clock.now_millis();
        let expired_before = now.saturating_sub(millis(HEARTBEAT_TTL));
        self.run(|| sqlx::query("DELETE FROM postrider_relays WHERE seen_at < ?1").bind(expired_before)).await?;
        let text = "INSERT INTO postrider_relays (id, seen_at, in_flight, paused, host, paused_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
             ON CONFLICT (id) DO UPDATE SET seen_at = ?2, in_flight = ?3, paused = ?4, host = ?5, paused_ms = ?6";
        let query = || {
            let in_flight = i64::try_from(report.in_flight).unwrap_or(i64::MAX);
            let query = sqlx::query(text).bind(report.id.to_string()).bind(now).bind(in_flight);
            query.bind(report.paused.clone()).bind(report.host.clone()).bind(report.paused_for.map(millis))
        };
        self.run(query).await.map(drop)
    }

    async fn retire(&self, id: RelayId) -> Result<(), StoreError> {
        self.run(|| sqlx::query("DELETE FROM postrider_relays WHERE id = ?1").bind(id.to_string())).await.map(drop)
    }

    fn wake(&self) {
        crate::store::notify(&self.notifier);
    }

    async fn notified(&self) {
        self.notifier.notified().await;
    }
}
