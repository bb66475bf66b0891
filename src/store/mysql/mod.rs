//! A store in a MySQL or MariaDB database.

mod admin;
mod blobs;
mod change;
mod claim;
mod counters;
mod enqueue;
mod erase;
mod migrate;
mod operator;
mod prune;
mod rows;
mod search;
mod settle;
mod sql;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postrider_transport::DeliveryId;
use sqlx::mysql::MySqlConnection;
use sqlx::{MySql, MySqlPool};
use tokio::sync::Notify;

use sql::Sql;

use crate::clock::{Clock, TestClock, from_micros, micros, millis};
use crate::pause::Controls;
use crate::store::claim_cursor::{ClaimCursor, ClaimCursors};
use crate::store::row::{Columns, to_u64};
use crate::store::session::{Session, retry_conflicts};
use crate::store::sticky::{BACKLOG_BATCH, StickyConnection};
use crate::store::{
    Claim, ClaimId, HEARTBEAT_TTL, Lease, LeaseKey, NewRow, RelayId, RelayReport, Settled, Settlement, Store,
    StoreError, StoreErrorKind,
};

/// Deliveries in a MySQL (8.0.16 or later) or MariaDB (10.6 or later) database, in InnoDB tables beside the caller's own. The tests use
/// MySQL 9.7 and MariaDB 10.11. Any character set of the database and any `sql_mode` of the session work.
///
/// Pass it the pool of your program, and enqueue in transactions of that pool:
///
/// ```no_run
/// # async fn demo(email: postrider::Email) -> Result<(), Box<dyn std::error::Error>> {
/// use postrider::{MySqlStore, Outbox};
/// use sqlx::mysql::MySqlPool;
///
/// let pool = MySqlPool::connect("mysql://app@localhost/shop").await?;
/// let outbox = Outbox::enqueue_only(MySqlStore::new(pool.clone()));
/// outbox.migrate().await?;
///
/// let mut tx = pool.begin().await?;
/// sqlx::query("INSERT INTO users (name) VALUES ('Ada')").execute(&mut *tx).await?;
/// outbox.enqueue_in(&mut tx, email).await?;
/// tx.commit().await?;
/// # Ok(()) }
/// ```
///
/// The caller's transactions may have any isolation level, and its sessions any time zone. The caller's own tables must be in InnoDB as
/// well, since other engines do not roll back.
///
/// The server rolls back the whole transaction after a deadlock ([`Conflict`](StoreErrorKind::Conflict)), data and mail alike: retry it
/// from its beginning. With `innodb_snapshot_isolation`, which newer versions of MariaDB turn on by default, the same happens at
/// `REPEATABLE READ` to a transaction that enqueues with a key which was committed after the transaction began. A transaction that enqueues
/// with an idempotency key blocks other transactions with the same key until it ends.
///
/// A relay finds the commits of other processes by polling. While a relay works through a backlog it keeps up to two connections if the
/// pool can spare them: all relays of a pool together keep at most half of the connections beyond four.
///
/// A call that is dropped closes its connection, and the server rolls back. In the caller's transaction the caller must do that: the driver
/// cannot use a connection again after a statement on it was dropped ([`close_on_drop`](sqlx::pool::PoolConnection::close_on_drop)).
///
/// A message with its texts must fit into the server's `max_allowed_packet` (64 MiB in MySQL, 16 MiB in MariaDB by default), and so must
/// each large attachment, which travels by itself. Over TLS, sqlx 0.9.0 waits 40 ms for each statement above 16 KiB
/// ([issue 4335](https://github.com/transact-rs/sqlx/issues/4335)), which limits a relay: `docs/performance.md` has figures.
///
/// A program that enqueues needs `INSERT` on the table `postrider_deliveries`, and with idempotency keys also `SELECT` and `UPDATE`. With
/// attachments of 4 KiB and more it also needs `SELECT` and `INSERT` on `postrider_blobs`, and `SELECT`, `INSERT` and `UPDATE` on
/// `postrider_body_blobs`. A relay needs `SELECT`, `INSERT`, `UPDATE` and `DELETE` on all tables of the outbox. Migrating needs
/// `CREATE`, `CREATE VIEW`, `ALTER`, `DROP`, `REFERENCES`, `INSERT`, `SELECT` and `TRIGGER`. If the server writes a binary log, migrating
/// also needs either `SUPER` or the server's setting `log_bin_trust_function_creators = 1`. Triggers and views run with the rights of the
/// user who migrated, so do not drop that user. The format of the binary log may be `ROW` or `MIXED`, not `STATEMENT`.
///
/// MySQL's `caching_sha2_password` sends the password through TLS, so turn on one of sqlx's `tls-*` features. Without TLS it needs sqlx's
/// feature `mysql-rsa`, which this crate leaves off. That feature encrypts the password with any key that the other side sends, so that an
/// attacker in between can read it, and its crate has an advisory without a fix
/// ([RUSTSEC-2023-0071](https://rustsec.org/advisories/RUSTSEC-2023-0071.html)). A program that needs it enables it in its own dependency
/// on sqlx.
#[derive(Clone)]
pub struct MySqlStore {
    pool: MySqlPool,
    sql: Arc<Sql>,
    clock: Clock,
    notifier: Arc<Notify>,
    cursors: Arc<ClaimCursors<i64>>,
    claims: StickyConnection<MySql>,
    settlements: StickyConnection<MySql>,
}

impl MySqlStore {
    /// The table prefix that [`new`](Self::new) uses.
    pub const DEFAULT_TABLE_PREFIX: &str = "postrider_";

    /// A store on the caller's pool, in tables with the prefix `postrider_`.
    pub fn new(pool: MySqlPool) -> Self {
        Self::with_sql(pool, Sql::new(Self::DEFAULT_TABLE_PREFIX))
    }

    /// A store in tables with another prefix. Several outboxes can share a database, each with its own prefix.
    ///
    /// # Errors
    /// If the prefix is not 1 to 40 ASCII letters, digits and underscores, or begins with a digit.
    pub fn with_table_prefix(pool: MySqlPool, prefix: &str) -> Result<Self, StoreError> {
        Ok(Self::with_sql(pool, Sql::new(check_table_prefix(prefix)?)))
    }

    fn with_sql(pool: MySqlPool, sql: Sql) -> Self {
        let sticky = StickyConnection::new();
        Self {
            pool,
            sql: Arc::new(sql),
            clock: Clock::default(),
            notifier: Arc::default(),
            cursors: Arc::default(),
            claims: sticky.clone(),
            settlements: sticky,
        }
    }

    /// The same store with a test clock.
    #[must_use]
    pub fn with_test_clock(mut self, clock: TestClock) -> Self {
        self.clock = Clock::test(clock);
        self
    }

    /// The connection pool that the store uses.
    pub fn pool(&self) -> &MySqlPool {
        &self.pool
    }

    /// The statements that create the outbox's tables with a prefix, for programs that run their own migrations. They need not call
    /// [`migrate`](crate::Outbox::migrate).
    ///
    /// # Errors
    /// As [`with_table_prefix`](Self::with_table_prefix).
    pub fn schema(prefix: &str) -> Result<String, StoreError> {
        Self::schema_from(prefix, 0)
    }

    /// The statements that upgrade tables of a version to the newest, for programs that run their own migrations. There are none if the
    /// version is the newest. Version 0 has no tables.
    ///
    /// # Errors
    /// As [`with_table_prefix`](Self::with_table_prefix), and if the version is newer than this program.
    pub fn schema_from(prefix: &str, version: u32) -> Result<String, StoreError> {
        migrate::schema_from(check_table_prefix(prefix)?, version)
    }
}

/// Checks a prefix. It is used in SQL without quotes, and names have at most 64 characters.
fn check_table_prefix(prefix: &str) -> Result<&str, StoreError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if prefix.is_empty() || prefix.len() > 40 || !prefix.bytes().all(plain) || prefix.as_bytes()[0].is_ascii_digit() {
        let text = "a table prefix must be 1 to 40 letters, digits and underscores, not beginning with a digit";
        return Err(StoreError::new(StoreErrorKind::Rejected, text));
    }
    Ok(prefix)
}

impl fmt::Debug for MySqlStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MySqlStore").field("table_prefix", &self.sql.prefix()).finish_non_exhaustive()
    }
}

impl MySqlStore {
    async fn session(&self) -> Result<Session<MySql>, StoreError> {
        Session::acquire(&self.pool).await
    }
}

impl Store for MySqlStore {
    type Connection = MySqlConnection;

    async fn insert(&self, rows: Vec<NewRow>) -> Result<Vec<DeliveryId>, StoreError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let now = self.clock.test_micros();
        let ids = retry_conflicts(|| async {
            let mut session = self.session().await?;
            let ids = enqueue::insert(&mut session, &self.sql, &rows, now).await;
            session.finish(ids)
        });
        let ids = ids.await?;
        crate::store::notify(&self.notifier);
        Ok(ids)
    }

    async fn insert_in(
        &self,
        connection: &mut MySqlConnection,
        rows: Vec<NewRow>,
    ) -> Result<Vec<DeliveryId>, StoreError> {
        let ids = enqueue::insert_in(connection, &self.sql, &rows, self.clock.test_micros()).await?;
        // The commit follows later. The relay polls several times after this notification.
        crate::store::notify(&self.notifier);
        Ok(ids)
    }

    async fn claim(&self, claim: Claim) -> Result<Vec<Lease>, StoreError> {
        if claim.limit == 0 {
            return Ok(Vec::new());
        }
        let now = self.clock.test_micros();
        let leases = retry_conflicts(|| async {
            let mut session = Session::acquire_sticky(&self.claims, &self.pool).await?;
            let leases = claim::claim(&mut session, &self.sql, claim, &self.cursors, now).await;
            if leases.as_ref().is_ok_and(|leases| leases.len() >= BACKLOG_BATCH) {
                session.finish_and_keep(&self.claims, &self.pool, leases)
            } else {
                session.finish(leases)
            }
        });
        let leases = leases.await;
        if leases.as_ref().map_or(true, Vec::is_empty) {
            // There is no backlog any more, or the connection to the server is broken.
            self.settlements.clear();
        }
        leases
    }

    async fn release_claims(&self, claims: &[ClaimId]) -> Result<u64, StoreError> {
        if claims.is_empty() {
            return Ok(0);
        }
        let now = self.clock.test_micros();
        let released = retry_conflicts(|| async {
            let mut session = self.session().await?;
            let released = settle::release_claims(&mut session, &self.sql, claims, now).await;
            session.finish(released)
        });
        released.await
    }

    async fn settle(&self, settlements: &[Settlement]) -> Result<Vec<Settled>, StoreError> {
        if settlements.is_empty() {
            return Ok(Vec::new());
        }
        let now = self.clock.test_micros();
        let settled = retry_conflicts(|| async {
            let mut session = Session::acquire_sticky(&self.settlements, &self.pool).await?;
            let settled = settle::settle(&mut session, &self.sql, settlements, now).await;
            if session.is_worth_keeping(settlements.len()) {
                session.finish_and_keep(&self.settlements, &self.pool, settled)
            } else {
                session.finish(settled)
            }
        });
        let settled = settled.await;
        if settled.is_err() {
            self.claims.clear();
        }
        settled
    }

    async fn renew(&self, keys: &[LeaseKey], lease: Duration) -> Result<Vec<Settled>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let now = self.clock.test_micros();
        let renewed = retry_conflicts(|| async {
            let mut session = self.session().await?;
            let renewed = settle::renew(&mut session, &self.sql, keys, lease, now).await;
            session.finish(renewed)
        });
        renewed.await
    }

    async fn next_due(&self) -> Result<Option<Duration>, StoreError> {
        let mut session = self.session().await?;
        let query = self.sql.first_due(self.clock.test_micros(), &ClaimCursor::default());
        let firsts = query.fetch_all(&mut *session).await?;
        session.finish(Ok(()))?;
        let mut next: Option<i64> = None;
        for first in &firsts {
            let wait = first.number("due_at")?.saturating_sub(first.number("now")?);
            next = Some(next.map_or(wait, |next| next.min(wait)));
        }
        Ok(next.map(|wait| Duration::from_micros(to_u64(wait))))
    }

    async fn now(&self) -> Result<SystemTime, StoreError> {
        let mut session = self.session().await?;
        let query = self.sql.scalar(&self.sql.now).bind(self.clock.test_micros());
        let now: i64 = query.fetch_one(&mut *session).await?;
        session.finish(Ok(from_micros(now)))
    }

    async fn controls(&self) -> Result<Controls, StoreError> {
        retry_conflicts(|| self.try_controls()).await
    }

    async fn report(&self, report: &RelayReport) -> Result<(), StoreError> {
        let now = self.clock.test_micros();
        let mut session = self.session().await?;
        let insert = self
            .sql
            .query(&self.sql.report)
            .bind(report.id.to_string())
            .bind(now)
            .bind(i64::try_from(report.in_flight).unwrap_or(i64::MAX))
            .bind(report.paused.clone())
            .bind(report.host.clone())
            .bind(report.paused_for.map(millis));
        insert.execute(&mut *session).await?;
        let delete = self.sql.query(&self.sql.delete_old_reports).bind(now).bind(micros(HEARTBEAT_TTL));
        delete.execute(&mut *session).await?;
        session.finish(Ok(()))
    }

    async fn retire(&self, id: RelayId) -> Result<(), StoreError> {
        let mut session = self.session().await?;
        self.sql.query(&self.sql.delete_report).bind(id.to_string()).execute(&mut *session).await?;
        session.finish(Ok(()))
    }

    fn wake(&self) {
        crate::store::notify(&self.notifier);
    }

    async fn notified(&self) {
        self.notifier.notified().await;
    }
}
