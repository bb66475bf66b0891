//! A store in a PostgreSQL database.

mod admin;
mod bell;
mod claim;
mod enqueue;
mod migrate;
mod plans;
mod rows;
mod settle;
mod sql;

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postrider_transport::DeliveryId;
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgConnection;
use sqlx::{PgPool, Postgres, Transaction};

use bell::Bell;
use claim::Place;
use rows::Moment;
use sql::Sql;

use crate::clock::{Clock, TestClock, from_micros, micros};
use crate::delivery::{Lease, LeaseKey, NewRow, Settled, Settlement};
use crate::store::floor::Floors;
use crate::store::lane::Lane;
use crate::store::sql::unsigned;
use crate::store::{Claim, RelayId, RelayReport, SILENCE, Store, StoreError, StoreErrorKind};

/// Deliveries in a PostgreSQL database (13 or later), in a schema of their own beside the caller's tables.
///
/// Give it the pool that the rest of the program uses, and enqueue in that pool's transactions:
///
/// ```no_run
/// # async fn demo(email: postrider::Email) -> Result<(), Box<dyn std::error::Error>> {
/// use postrider::{Outbox, PgStore};
/// use sqlx::postgres::PgPool;
///
/// let pool = PgPool::connect("postgres://localhost/shop").await?;
/// let outbox = Outbox::enqueue_only(PgStore::new(pool.clone()));
/// outbox.migrate().await?;
///
/// let mut tx = pool.begin().await?;
/// sqlx::query("INSERT INTO users (name) VALUES ('Ada')").execute(&mut *tx).await?;
/// outbox.enqueue_in(&mut tx, email).await?;
/// tx.commit().await?;
/// # Ok(()) }
/// ```
///
/// A relay is woken by `LISTEN`, on one connection of the pool if it has at least two, and polls as well. While it works through a
/// backlog it keeps up to two more, where the pool can spare them: all relays of a pool together at most half of what it has beyond
/// four. The outbox's own
/// transactions expect the server's default isolation, `READ COMMITTED`; any isolation level will do for the caller's.
/// Under `SERIALIZABLE` an insert may fail like any other statement, and then the transaction is to be tried again. Under
/// `REPEATABLE READ` one with a key does so, where that key was committed after the transaction's snapshot was taken.
///
/// # Rights
/// A program that enqueues needs `USAGE` on the schema, and `INSERT` and `SELECT` on its table `deliveries`; in plain SQL
/// (`docs/sql.md`) it can do with less. A relay needs `SELECT`, `INSERT`, `UPDATE` and `DELETE` on all of the schema's tables. Triggers
/// act with the rights of the user who migrated: that user must stay.
///
/// # PgBouncer
/// In transaction mode `LISTEN` does not work and prepared statements may not: turn both off with
/// [`without_listen`](Self::without_listen) and [`without_prepared_statements`](Self::without_prepared_statements).
#[derive(Clone)]
pub struct PgStore {
    pool: PgPool,
    sql: Arc<Sql>,
    clock: Clock,
    bell: Arc<Bell>,
    claims: Lane<Postgres>,
    settlements: Lane<Postgres>,
    floors: Arc<Floors<Place>>,
}

impl PgStore {
    /// A store over the caller's pool, in the schema `postrider`.
    pub fn new(pool: PgPool) -> Self {
        Self::with_sql(pool, Sql::new(Self::DEFAULT_SCHEMA))
    }

    /// A store in another schema: 1 to 48 letters, digits and underscores, not beginning with a digit. Several outboxes can live
    /// in one database, each in its schema.
    ///
    /// # Errors
    /// When the name is not of that form.
    pub fn in_schema(pool: PgPool, schema: &str) -> Result<Self, StoreError> {
        Ok(Self::with_sql(pool, Sql::new(checked(schema)?)))
    }

    fn with_sql(pool: PgPool, sql: Sql) -> Self {
        let bell = Bell::listening(pool.clone(), sql.channel());
        let lane = Lane::new();
        Self {
            pool,
            sql: Arc::new(sql),
            clock: Clock::default(),
            bell: Arc::new(bell),
            claims: lane.clone(),
            settlements: lane,
            floors: Arc::default(),
        }
    }

    /// The schema that [`new`](Self::new) uses.
    pub const DEFAULT_SCHEMA: &str = "postrider";

    /// The statements that make a schema and the outbox's tables in it, for those who run their migrations themselves. In that case
    /// [`migrate`](crate::Outbox::migrate) need not be called.
    ///
    /// # Errors
    /// As [`in_schema`](Self::in_schema).
    pub fn schema(name: &str) -> Result<String, StoreError> {
        Ok(migrate::schema(checked(name)?))
    }

    /// Leaves waking to polling and to signals within this process.
    #[must_use]
    pub fn without_listen(mut self) -> Self {
        self.bell = Arc::new(Bell::silent());
        self
    }

    /// Sends every statement unprepared, and each call in a transaction of its own, as a pooler in transaction mode needs. It
    /// costs two round trips for each call.
    #[must_use]
    pub fn without_prepared_statements(mut self) -> Self {
        self.sql = Arc::new(self.sql.unprepared());
        self
    }

    /// The same store with a clock that a test moves.
    #[must_use]
    pub fn with_test_clock(mut self, clock: TestClock) -> Self {
        self.clock = Clock::test(clock);
        self
    }

    /// The pool.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }
}

/// The name goes into SQL between double quotes, and into the name of a channel, which has at most 63 octets.
fn checked(schema: &str) -> Result<&str, StoreError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let starts_with_digit = schema.as_bytes().first().is_none_or(u8::is_ascii_digit);
    if starts_with_digit || schema.len() > 48 || !schema.bytes().all(plain) {
        let text = "a schema's name must be 1 to 48 letters, digits and underscores, not beginning with a digit";
        return Err(StoreError::new(StoreErrorKind::Rejected, text));
    }
    Ok(schema)
}

impl fmt::Debug for PgStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgStore").field("schema", &self.sql.schema()).finish_non_exhaustive()
    }
}

/// A connection for one call: bare, or in a transaction where a pooler might put its statements on different servers.
enum Session {
    Bare(PoolConnection<Postgres>),
    Transaction(Transaction<'static, Postgres>),
}

impl Session {
    async fn finish(self) -> Result<(), StoreError> {
        match self {
            Session::Bare(_) => Ok(()),
            Session::Transaction(tx) => Ok(tx.commit().await?),
        }
    }
}

impl Deref for Session {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match self {
            Session::Bare(connection) => connection,
            Session::Transaction(tx) => tx,
        }
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match self {
            Session::Bare(connection) => connection,
            Session::Transaction(tx) => tx,
        }
    }
}

impl PgStore {
    /// What a test's clock shows; nothing leaves it to the database.
    fn test_now(&self) -> Option<Moment> {
        self.clock.test_micros().map(|micros| Moment(from_micros(micros)))
    }

    async fn session(&self) -> Result<Session, StoreError> {
        Ok(if self.sql.is_prepared() {
            Session::Bare(self.pool.acquire().await?)
        } else {
            Session::Transaction(self.pool.begin().await?)
        })
    }
}

impl Store for PgStore {
    type Connection = PgConnection;

    async fn insert(&self, rows: Vec<NewRow>) -> Result<Vec<DeliveryId>, StoreError> {
        let mut session = self.session().await?;
        let ids = enqueue::insert(&mut session, &self.sql, &rows, self.test_now()).await?;
        session.finish().await?;
        self.bell.ring();
        Ok(ids)
    }

    async fn insert_in(&self, connection: &mut PgConnection, rows: Vec<NewRow>) -> Result<Vec<DeliveryId>, StoreError> {
        let ids = enqueue::insert(connection, &self.sql, &rows, self.test_now()).await?;
        if !self.bell.is_listening() {
            // Nothing else will tell of the commit, which is still to come: the relay looks several times after a hint.
            self.bell.ring();
        }
        Ok(ids)
    }

    async fn claim(&self, claim: Claim) -> Result<Vec<Lease>, StoreError> {
        if claim.limit == 0 {
            return Ok(Vec::new());
        }
        if !self.sql.is_prepared() {
            let mut tx = self.pool.begin().await?;
            let leases = claim::claim(&mut tx, &self.sql, claim, &self.floors, self.test_now()).await?;
            tx.commit().await?;
            return Ok(leases);
        }
        let mut connection = self.claims.take(&self.pool).await?;
        connection.begin();
        let claimed = claim::claim(&mut connection, &self.sql, claim, &self.floors, self.test_now()).await;
        connection.end();
        match &claimed {
            Ok(leases) if connection.is_worth_keeping(leases.len()) => self.claims.keep(connection, &self.pool),
            Ok(leases) if !leases.is_empty() => {}
            // The backlog is at its end; or the server has gone, and with it what else is kept.
            Ok(_) | Err(_) => self.settlements.clear(),
        }
        claimed
    }

    async fn settle(&self, settlements: &[Settlement]) -> Result<Vec<Settled>, StoreError> {
        if settlements.is_empty() {
            return Ok(Vec::new());
        }
        let settled = settle::settle(&self.pool, &self.settlements, &self.sql, settlements, self.test_now()).await;
        if settled.is_err() {
            self.claims.clear();
        }
        settled
    }

    async fn renew(&self, keys: &[LeaseKey], lease: Duration) -> Result<Vec<Settled>, StoreError> {
        let mut session = self.session().await?;
        let results = settle::renew(&mut session, &self.sql, keys, lease, self.test_now()).await?;
        session.finish().await?;
        Ok(results)
    }

    async fn next_due(&self) -> Result<Option<Duration>, StoreError> {
        let mut session = self.session().await?;
        let wait: Option<i64> =
            self.sql.scalar(self.sql.fit(&self.sql.next_due)).bind(self.test_now()).fetch_one(&mut *session).await?;
        session.finish().await?;
        Ok(wait.map(|wait| Duration::from_micros(unsigned(wait))))
    }

    async fn now(&self) -> Result<SystemTime, StoreError> {
        let mut session = self.session().await?;
        let Moment(now) = self.sql.scalar(&self.sql.now).bind(self.test_now()).fetch_one(&mut *session).await?;
        session.finish().await?;
        Ok(now)
    }

    async fn report(&self, report: &RelayReport) -> Result<(), StoreError> {
        let mut session = self.session().await?;
        self.sql
            .query(&self.sql.report)
            .bind(self.test_now())
            .bind(report.id.to_string())
            .bind(i64::try_from(report.in_flight).unwrap_or(i64::MAX))
            .bind(&report.paused)
            .bind(micros(SILENCE))
            .execute(&mut *session)
            .await?;
        session.finish().await
    }

    async fn retire(&self, id: RelayId) -> Result<(), StoreError> {
        let mut session = self.session().await?;
        self.sql.query(&self.sql.retire).bind(id.to_string()).execute(&mut *session).await?;
        session.finish().await
    }

    fn wake(&self) {
        self.bell.ring();
    }

    async fn woken(&self) {
        self.bell.rung().await;
    }
}
