//! A store in a MySQL or MariaDB database.

mod admin;
mod claim;
mod enqueue;
mod migrate;
mod rows;
mod session;
mod settle;
mod sql;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postrider_transport::DeliveryId;
use sqlx::mysql::MySqlConnection;
use sqlx::{MySql, MySqlPool};
use tokio::sync::Notify;

use session::Session;
use sql::Sql;

use crate::clock::{Clock, TestClock, from_micros, micros};
use crate::store::claim_cursor::{ClaimCursor, ClaimCursors};
use crate::store::row::{Columns, unsigned};
use crate::store::session::retry_conflicts;
use crate::store::sticky::{MANY, StickyConnection};
use crate::store::{
    Claim, ClaimId, HEARTBEAT_TTL, Lease, LeaseKey, NewRow, RelayId, RelayReport, Settled, Settlement, Store,
    StoreError, StoreErrorKind,
};

/// Deliveries in a MySQL (8.0.16 or later) or MariaDB (10.6 or later) database, in InnoDB tables beside the caller's own. The tests run
/// it on MySQL 9.7 and MariaDB 10.11. The database's character set and the session's `sql_mode` may be any.
///
/// Give it the pool that the rest of the program uses, and enqueue in that pool's transactions:
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
/// Any isolation level will do for the caller's transactions, and any time zone for its sessions. A transaction that the server
/// ends because of a deadlock ([`Conflict`](StoreErrorKind::Conflict)) is gone as a whole, mail and data alike, and is to be tried again
/// from its beginning. So is one at `REPEATABLE READ` that enqueues with a key which was taken since it began, where MariaDB has
/// `innodb_snapshot_isolation` on, as newer versions have by default. A transaction that enqueues with an idempotency key keeps others with
/// the same key waiting until it ends. The caller's own tables must be in InnoDB as well: those of other engines do not roll back.
///
/// Other processes' commits are noticed by polling. While a relay works through a backlog it keeps up to two connections, where the
/// pool can spare them: all relays of a pool together at most half of what it has beyond four.
///
/// # Cancel safety
/// A call that is dropped half-way closes its connection and so undoes what it had begun. In the caller's transaction that is for the
/// caller to do: the driver cannot go on with a connection on which a statement was dropped
/// ([`close_on_drop`](sqlx::pool::PoolConnection::close_on_drop)).
///
/// # Rights
/// A program that enqueues needs `INSERT` on the table `postrider_deliveries`, and with idempotency keys `SELECT` and `UPDATE` as
/// well; a relay needs `SELECT`, `INSERT`, `UPDATE` and `DELETE` on all of the outbox's tables. To migrate takes `CREATE`, `ALTER`,
/// `DROP`, `INSERT`, `SELECT` and `TRIGGER`, and, where the server writes a binary log, either `SUPER` or the server's setting
/// `log_bin_trust_function_creators = 1`. The trigger acts with the rights of the user who migrated: that user must stay. The binary
/// log's format may be `ROW` or `MIXED`, not `STATEMENT`.
///
/// # Passwords
/// MySQL's `caching_sha2_password` sends the password through TLS, so turn on one of sqlx's `tls-*` features. Without TLS it needs
/// sqlx's feature `mysql-rsa`, which this crate leaves off: it encrypts the password for whatever key the other side sends, so that
/// someone in between can read it, and its crate has an advisory without a fix
/// ([RUSTSEC-2023-0071](https://rustsec.org/advisories/RUSTSEC-2023-0071.html)). A program that needs it all the same names it in its own
/// dependency on sqlx.
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
    /// What the names of the tables begin with that [`new`](Self::new) uses.
    pub const DEFAULT_TABLE_PREFIX: &str = "postrider_";

    /// A store over the caller's pool, in tables whose names begin with `postrider_`.
    pub fn new(pool: MySqlPool) -> Self {
        Self::with_sql(pool, Sql::new(Self::DEFAULT_TABLE_PREFIX))
    }

    /// A store in tables whose names begin with another prefix: 1 to 40 letters, digits and underscores, not beginning with a digit.
    /// Several outboxes can live in one database, each with its prefix.
    ///
    /// # Errors
    /// When the prefix is not of that form.
    pub fn with_table_prefix(pool: MySqlPool, prefix: &str) -> Result<Self, StoreError> {
        Ok(Self::with_sql(pool, Sql::new(checked(prefix)?)))
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

    /// The same store with a clock that a test moves.
    #[must_use]
    pub fn with_test_clock(mut self, clock: TestClock) -> Self {
        self.clock = Clock::test(clock);
        self
    }

    /// The pool.
    pub fn pool(&self) -> &MySqlPool {
        &self.pool
    }

    /// The statements that make the outbox's tables under a prefix, for those who run their migrations themselves. In that case
    /// [`migrate`](crate::Outbox::migrate) need not be called.
    ///
    /// # Errors
    /// As [`with_table_prefix`](Self::with_table_prefix).
    pub fn schema(prefix: &str) -> Result<String, StoreError> {
        Ok(migrate::schema(checked(prefix)?))
    }
}

/// The prefix goes into SQL as it stands, and names have at most 64 characters.
fn checked(prefix: &str) -> Result<&str, StoreError> {
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
    async fn session(&self) -> Result<Session, StoreError> {
        Session::of(&self.pool).await
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
        // The commit is still to come: the relay looks several times after a hint.
        crate::store::notify(&self.notifier);
        Ok(ids)
    }

    async fn claim(&self, claim: Claim) -> Result<Vec<Lease>, StoreError> {
        if claim.limit == 0 {
            return Ok(Vec::new());
        }
        let now = self.clock.test_micros();
        let leases = retry_conflicts(|| async {
            let mut session = Session::on(&self.claims, &self.pool).await?;
            let leases = claim::claim(&mut session, &self.sql, claim, &self.cursors, now).await;
            if leases.as_ref().is_ok_and(|leases| leases.len() >= MANY) {
                session.finish_and_keep(&self.claims, &self.pool, leases)
            } else {
                session.finish(leases)
            }
        });
        let leases = leases.await;
        if leases.as_ref().map_or(true, Vec::is_empty) {
            // The backlog is at its end; or the server has gone, and with it what else is kept.
            self.settlements.clear();
        }
        leases
    }

    async fn take_back(&self, claims: &[ClaimId]) -> Result<u64, StoreError> {
        if claims.is_empty() {
            return Ok(0);
        }
        let now = self.clock.test_micros();
        let taken = retry_conflicts(|| async {
            let mut session = self.session().await?;
            let taken = settle::take_back(&mut session, &self.sql, claims, now).await;
            session.finish(taken)
        });
        taken.await
    }

    async fn settle(&self, settlements: &[Settlement]) -> Result<Vec<Settled>, StoreError> {
        if settlements.is_empty() {
            return Ok(Vec::new());
        }
        let now = self.clock.test_micros();
        let settled = retry_conflicts(|| async {
            let mut session = Session::on(&self.settlements, &self.pool).await?;
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
        Ok(next.map(|wait| Duration::from_micros(unsigned(wait))))
    }

    async fn now(&self) -> Result<SystemTime, StoreError> {
        let mut session = self.session().await?;
        let query = self.sql.scalar(&self.sql.now).bind(self.clock.test_micros());
        let now: i64 = query.fetch_one(&mut *session).await?;
        session.finish(Ok(from_micros(now)))
    }

    async fn report(&self, report: &RelayReport) -> Result<(), StoreError> {
        let now = self.clock.test_micros();
        let mut session = self.session().await?;
        let told = self
            .sql
            .query(&self.sql.report)
            .bind(report.id.to_string())
            .bind(now)
            .bind(i64::try_from(report.in_flight).unwrap_or(i64::MAX))
            .bind(report.paused.clone());
        told.execute(&mut *session).await?;
        let forget = self.sql.query(&self.sql.forget).bind(now).bind(micros(HEARTBEAT_TTL));
        forget.execute(&mut *session).await?;
        session.finish(Ok(()))
    }

    async fn retire(&self, id: RelayId) -> Result<(), StoreError> {
        let mut session = self.session().await?;
        self.sql.query(&self.sql.retire).bind(id.to_string()).execute(&mut *session).await?;
        session.finish(Ok(()))
    }

    fn wake(&self) {
        crate::store::notify(&self.notifier);
    }

    async fn notified(&self) {
        self.notifier.notified().await;
    }
}
