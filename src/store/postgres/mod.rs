//! A store in a PostgreSQL database.

mod admin;
mod blobs;
mod call;
mod change;
mod claim;
mod enqueue;
mod erase;
mod listener;
mod migrate;
mod notifier;
mod operator;
mod prune;
mod rows;
mod search;
mod settle;
mod sql;
mod statement_variants;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use postrider_transport::DeliveryId;
use sqlx::postgres::PgConnection;
use sqlx::{PgPool, Postgres};

use call::Call;
use claim::QueuePosition;
use notifier::Notifier;
pub(super) use rows::Moment;
use settle::OnAttemptConflict;
use sql::Sql;

use crate::clock::{Clock, TestClock, from_micros, micros, millis};
use crate::pause::Controls;
use crate::store::claim_cursor::ClaimCursors;
use crate::store::row::{Columns, is_invalid_text, is_unique_violation};
use crate::store::session::{Session, retry_conflicts};
use crate::store::sticky::StickyConnection;
use crate::store::{
    Claim, ClaimId, HEARTBEAT_TTL, Lease, LeaseKey, NewRow, RelayId, RelayReport, Settled, Settlement, Store,
    StoreError, StoreErrorKind,
};

/// Deliveries in a PostgreSQL database (13 or later), in a schema of their own beside the caller's tables.
///
/// Pass it the pool of your program, and enqueue in transactions of that pool:
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
/// `LISTEN` wakes a relay, on one connection of the pool if the pool has at least two. The relay polls as well. While it works through a
/// backlog it keeps up to two more connections if the pool can spare them: all relays of a pool together keep at most half of the
/// connections beyond four.
///
/// The outbox's own transactions are `READ COMMITTED`. The caller's transactions may have any isolation level. Under `SERIALIZABLE` an
/// insert can fail like any other statement: retry the transaction. Under `REPEATABLE READ` this happens only to an insert with a key that
/// was committed after the transaction took its snapshot.
///
/// A program that enqueues needs `USAGE` on the schema, and `EXECUTE` on its functions `insert_delivery` and `insert_deliveries`. To enqueue
/// several messages with idempotency keys in one call, it also needs `SELECT` on the table `deliveries`; for attachments of 4 KiB and more,
/// `SELECT`, `INSERT` and `UPDATE` on the table `blobs`. For programs that enqueue in plain SQL, see `docs/sql.md`. A relay needs `USAGE` on
/// the schema, and `SELECT`, `INSERT`, `UPDATE` and `DELETE` on all its tables. Functions, triggers and views run with the rights of the user
/// who migrated, so do not drop that user.
///
/// Behind a connection pooler in transaction mode, such as PgBouncer, `LISTEN` does not work, and prepared statements may fail. Turn both
/// off with [`without_listen`](Self::without_listen) and [`without_prepared_statements`](Self::without_prepared_statements).
#[derive(Clone)]
pub struct PgStore {
    pool: PgPool,
    sql: Arc<Sql>,
    clock: Clock,
    notifier: Arc<Notifier>,
    claims: StickyConnection<Postgres>,
    settlements: StickyConnection<Postgres>,
    cursors: Arc<ClaimCursors<QueuePosition>>,
}

impl PgStore {
    /// A store on the caller's pool, in the schema `postrider`.
    pub fn new(pool: PgPool) -> Self {
        Self::with_sql(pool, Sql::new(Self::DEFAULT_SCHEMA))
    }

    /// A store in another schema. Several outboxes can share a database, each with its own schema.
    ///
    /// # Errors
    /// If the name is not 1 to 48 ASCII letters, digits and underscores, or begins with a digit.
    pub fn in_schema(pool: PgPool, schema: &str) -> Result<Self, StoreError> {
        Ok(Self::with_sql(pool, Sql::new(check_schema_name(schema)?)))
    }

    fn with_sql(pool: PgPool, sql: Sql) -> Self {
        let notifier = Notifier::listening(pool.clone(), sql.channel());
        let sticky = StickyConnection::new();
        Self {
            pool,
            sql: Arc::new(sql),
            clock: Clock::default(),
            notifier: Arc::new(notifier),
            claims: sticky.clone(),
            settlements: sticky,
            cursors: Arc::default(),
        }
    }

    /// The schema that [`new`](Self::new) uses.
    pub const DEFAULT_SCHEMA: &str = "postrider";

    /// The statements that create a schema and the outbox's tables, for programs that run their own migrations. They need not call
    /// [`migrate`](crate::Outbox::migrate).
    ///
    /// # Errors
    /// As [`in_schema`](Self::in_schema).
    pub fn schema(name: &str) -> Result<String, StoreError> {
        Self::schema_from(name, 0)
    }

    /// The statements that upgrade tables of a version to the newest, for programs that run their own migrations. There are none if the
    /// version is the newest. Version 0 has no tables.
    ///
    /// # Errors
    /// As [`in_schema`](Self::in_schema), and if the version is newer than this program.
    pub fn schema_from(name: &str, version: u32) -> Result<String, StoreError> {
        migrate::schema_from(check_schema_name(name)?, version)
    }

    /// Turns off `LISTEN`. The relay then polls, and still receives notifications from its own process.
    #[must_use]
    pub fn without_listen(mut self) -> Self {
        self.notifier = Arc::new(Notifier::local());
        self
    }

    /// Sends every statement unprepared, and runs each call in a transaction. A pooler in transaction mode needs this.
    #[must_use]
    pub fn without_prepared_statements(mut self) -> Self {
        self.sql = Arc::new(self.sql.unprepared());
        self
    }

    /// The same store with a test clock.
    #[must_use]
    pub fn with_test_clock(mut self, clock: TestClock) -> Self {
        self.clock = Clock::test(clock);
        self
    }

    /// The connection pool that the store uses.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }
}

/// Checks a schema's name. It is used in SQL between double quotes, and in the name of a channel, which has at most 63 bytes.
fn check_schema_name(schema: &str) -> Result<&str, StoreError> {
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

impl PgStore {
    /// The time of the test clock. `None` means that the database's clock counts.
    fn test_now(&self) -> Option<Moment> {
        self.clock.test_micros().map(|micros| Moment(from_micros(micros)))
    }

    /// Begins a call of a single statement. It needs a transaction only if a pooler might send the statements of a call to different
    /// servers, or if settings must apply to the statement.
    async fn begin_call(&self) -> Result<Call, StoreError> {
        if self.sql.is_prepared() && !self.sql.has_time_limit() && !self.sql.begin.uses_raw_text() {
            return Ok(Call::without_transaction(Session::acquire(&self.pool).await?));
        }
        self.begin_transaction().await
    }

    async fn begin_transaction(&self) -> Result<Call, StoreError> {
        Call::begin(Session::acquire(&self.pool).await?, &self.sql.begin).await
    }

    /// Begins a read-only transaction on one snapshot.
    async fn begin_snapshot(&self) -> Result<Call, StoreError> {
        Call::begin_snapshot(Session::acquire(&self.pool).await?, &self.sql.begin).await
    }

    /// Makes a call that reads texts of other programs. It repeats the call after a conflict, and also if a text is invalid in the
    /// database's encoding. From then on the server sends texts without conversion.
    async fn retry_read<T, F>(&self, call: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        match retry_conflicts(&call).await {
            Err(error) if is_invalid_text(&error) && self.sql.begin.enable_raw_text() => retry_conflicts(&call).await,
            result => result,
        }
    }

    async fn claim_once(&self, claim: Claim) -> Result<Vec<Lease>, StoreError> {
        let session = Session::acquire_sticky(&self.claims, &self.pool).await?;
        let mut call = Call::begin(session, &self.sql.begin).await?;
        let claimed = claim::claim(&mut call, &self.sql, claim, &self.cursors, self.test_now()).await;
        let keep = claimed.as_ref().is_ok_and(|leases| call.is_worth_keeping(leases.len()));
        if keep { call.finish_and_keep(&self.claims, &self.pool, claimed).await } else { call.finish(claimed).await }
    }

    async fn settle_once(
        &self,
        settlements: &[Settlement],
        on_conflict: OnAttemptConflict,
    ) -> Result<Vec<Settled>, StoreError> {
        let session = Session::acquire_sticky(&self.settlements, &self.pool).await?;
        let mut call = Call::begin(session, &self.sql.begin).await?;
        let settled = settle::settle(&mut call, &self.sql, settlements, self.test_now(), on_conflict).await;
        if call.is_worth_keeping(settlements.len()) {
            call.finish_and_keep(&self.settlements, &self.pool, settled).await
        } else {
            call.finish(settled).await
        }
    }
}

impl Store for PgStore {
    type Connection = PgConnection;

    async fn insert(&self, rows: Vec<NewRow>) -> Result<Vec<DeliveryId>, StoreError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let ids = retry_conflicts(|| async {
            let alone = enqueue::is_one_statement(&rows);
            let mut call = if alone { self.begin_call().await? } else { self.begin_transaction().await? };
            let ids = enqueue::insert(&mut call, &self.sql, &rows, self.test_now()).await;
            call.finish(ids).await
        });
        let ids = ids.await?;
        self.notifier.notify();
        Ok(ids)
    }

    async fn insert_in(&self, connection: &mut PgConnection, rows: Vec<NewRow>) -> Result<Vec<DeliveryId>, StoreError> {
        let ids = enqueue::insert(connection, &self.sql, &rows, self.test_now()).await?;
        if !self.notifier.is_listening() {
            // Without LISTEN nothing else announces the commit, which follows later. The relay polls several times after this notification.
            self.notifier.notify();
        }
        Ok(ids)
    }

    async fn claim(&self, claim: Claim) -> Result<Vec<Lease>, StoreError> {
        if claim.limit == 0 {
            return Ok(Vec::new());
        }
        let claimed = self.retry_read(|| self.claim_once(claim)).await;
        if claimed.as_ref().map_or(true, Vec::is_empty) {
            // There is no backlog any more, or the connection to the server is broken.
            self.settlements.clear();
        }
        claimed
    }

    async fn release_claims(&self, claims: &[ClaimId]) -> Result<u64, StoreError> {
        let released = retry_conflicts(|| async {
            let mut call = self.begin_call().await?;
            let claims: Vec<i64> = claims.iter().map(|claim| claim.number()).collect();
            let released = self.sql.query(&self.sql.release_claims).bind(claims).execute(&mut *call).await;
            call.finish(released.map_err(StoreError::from)).await
        });
        Ok(released.await?.rows_affected())
    }

    async fn settle(&self, settlements: &[Settlement]) -> Result<Vec<Settled>, StoreError> {
        if settlements.is_empty() {
            return Ok(Vec::new());
        }
        let mut settled = retry_conflicts(|| self.settle_once(settlements, OnAttemptConflict::Fail)).await;
        if settled.as_ref().is_err_and(is_unique_violation) {
            settled = retry_conflicts(|| self.settle_once(settlements, OnAttemptConflict::Overwrite)).await;
        }
        if settled.is_err() {
            self.claims.clear();
        }
        settled
    }

    async fn renew(&self, keys: &[LeaseKey], lease: Duration) -> Result<Vec<Settled>, StoreError> {
        let renewed = retry_conflicts(|| async {
            let mut call = self.begin_transaction().await?;
            let results = settle::renew(&mut call, &self.sql, keys, lease, self.test_now()).await;
            call.finish(results).await
        });
        renewed.await
    }

    async fn next_due(&self) -> Result<Option<Duration>, StoreError> {
        let mut call = self.begin_call().await?;
        let query = self.sql.query(self.sql.variant(&self.sql.next_due)).bind(self.test_now());
        let found = query.fetch_one(&mut *call).await.map_err(StoreError::from);
        let next = found.and_then(|row| Ok((row.time_or_null("due_at")?, row.time("now")?)));
        let (due_at, now) = call.finish(next).await?;
        Ok(due_at.map(|due_at| due_at.duration_since(now).unwrap_or_default()))
    }

    async fn now(&self) -> Result<SystemTime, StoreError> {
        let mut call = self.begin_call().await?;
        let now = self.sql.scalar(&self.sql.now).bind(self.test_now()).fetch_one(&mut *call).await;
        let Moment(now) = call.finish(now.map_err(StoreError::from)).await?;
        Ok(now)
    }

    async fn controls(&self) -> Result<Controls, StoreError> {
        let controls = self.retry_read(|| async {
            let mut call = self.begin_call().await?;
            let controls = self.controls_in(&mut call).await;
            call.finish(controls).await
        });
        controls.await
    }

    async fn report(&self, report: &RelayReport) -> Result<(), StoreError> {
        let reported = retry_conflicts(|| async {
            let mut call = self.begin_call().await?;
            let query = self.sql.query(&self.sql.report).bind(self.test_now()).bind(report.id.to_string());
            let query = query.bind(i64::try_from(report.in_flight).unwrap_or(i64::MAX)).bind(report.paused.clone());
            let query = query.bind(micros(HEARTBEAT_TTL)).bind(report.host.clone()).bind(report.paused_for.map(millis));
            let reported = query.execute(&mut *call).await;
            call.finish(reported.map_err(StoreError::from)).await
        });
        reported.await.map(drop)
    }

    async fn retire(&self, id: RelayId) -> Result<(), StoreError> {
        let mut call = self.begin_call().await?;
        let retired = self.sql.query(&self.sql.delete_report).bind(id.to_string()).execute(&mut *call).await;
        call.finish(retired.map_err(StoreError::from)).await.map(drop)
    }

    fn with_call_limit(mut self, limit: Duration) -> Self {
        self.sql = Arc::new(self.sql.with_time_limit(limit));
        self
    }

    fn wake(&self) {
        self.notifier.notify();
    }

    async fn notified(&self) {
        self.notifier.notified().await;
    }
}
