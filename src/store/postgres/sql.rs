//! The statements with the schema's name filled in. Each text is built once, since the driver keeps prepared statements by their text.
//!
//! If `$1` is a time and not null, it replaces the database's clock. A test clock binds it.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::{Query, QueryScalar};
use sqlx::{AssertSqlSafe, Decode, Postgres, Type};

use super::call::BeginStatements;
use super::statement_variants::{QueueSize, StatementVariants};
use super::{blobs, claim, enqueue, settle};
use crate::state::{Priority, WhenInDoubt};

/// The current time: `$1`, or else the database's clock.
pub(super) const NOW: &str = "coalesce($1::timestamptz, now())";

/// The row of a counter that this connection adds to. Operators and deletions use other rows than relays: they lock deliveries first and
/// the counter last, a relay may lock them in the opposite order, and the two could deadlock.
const SLOT: &str = "pg_backend_pid() % 16";
const ADMIN_SLOT: &str = "pg_backend_pid() % 16 + 16";

/// The beginning of the hour of a time, in UTC.
fn hour_of(time: &str) -> String {
    format!("to_timestamp(floor(date_part('epoch', {time}) / 3600) * 3600)")
}

/// Values of nearly every delivery. Bulk inserts and claims transfer them as null.
pub(super) const DEFAULT_PRIORITY: Priority = Priority::NORMAL;
pub(super) const DEFAULT_FORMAT: &str = "email/1";
pub(super) const DEFAULT_IN_DOUBT: WhenInDoubt = WhenInDoubt::Resend;

#[derive(Debug)]
pub(super) struct Sql {
    schema: String,
    prepared: bool,
    time_limit: Option<Duration>,
    pub(super) begin: BeginStatements,
    pub(super) queue: QueueSize,
    pub(super) insert_one: Arc<str>,
    pub(super) insert_many: Arc<str>,
    pub(super) lock_blobs: Arc<str>,
    pub(super) insert_blobs: Arc<str>,
    pub(super) ids_of_keys: Arc<str>,
    pub(super) claim: StatementVariants,
    pub(super) last_attempts: Arc<str>,
    pub(super) delete_orphans: Arc<str>,
    pub(super) settle_sent: StatementVariants,
    pub(super) settle: StatementVariants,
    pub(super) release_claims: Arc<str>,
    pub(super) record_recipients: Arc<str>,
    pub(super) recorded: Arc<str>,
    pub(super) carried: Arc<str>,
    pub(super) blobs: Arc<str>,
    pub(super) renew: StatementVariants,
    pub(super) next_due: StatementVariants,
    pub(super) queue_size: Arc<str>,
    pub(super) now: Arc<str>,
    pub(super) report: Arc<str>,
    pub(super) delete_report: Arc<str>,
    pub(super) controls: Arc<str>,
}

impl Sql {
    pub(super) fn new(schema: &str) -> Self {
        let priority = DEFAULT_PRIORITY.level().to_string();
        let fill = |text: &str| -> Arc<str> {
            let text = text.replace("{hour of now}", &hour_of(NOW)).replace("{hour of finished}", &hour_of("finished"));
            let text = text.replace("{slot}", SLOT).replace("{priority}", &priority);
            let text = text.replace("{s}", schema).replace("{now}", NOW);
            text.replace("{format}", DEFAULT_FORMAT).replace("{when_in_doubt}", DEFAULT_IN_DOUBT.as_str()).into()
        };
        Self {
            schema: schema.to_owned(),
            prepared: true,
            time_limit: None,
            begin: BeginStatements::with_time_limit(None),
            queue: QueueSize::default(),
            insert_one: fill(enqueue::INSERT_ONE),
            insert_many: fill(enqueue::INSERT_MANY),
            lock_blobs: fill(blobs::LOCK_BLOBS),
            insert_blobs: fill(blobs::INSERT_BLOBS),
            ids_of_keys: fill(enqueue::IDS_OF_KEYS),
            claim: StatementVariants::new(&fill(claim::CLAIM)),
            last_attempts: fill(claim::LAST_ATTEMPTS),
            delete_orphans: fill(claim::DELETE_ORPHANS),
            settle_sent: StatementVariants::new(&fill(settle::SETTLE_SENT)),
            settle: StatementVariants::new(&fill(settle::SETTLE)),
            release_claims: fill(claim::RELEASE_CLAIMS),
            record_recipients: fill(settle::RECORD_RECIPIENTS),
            recorded: fill(RECORDED),
            carried: fill(blobs::CARRIED),
            blobs: fill(r#"SELECT hash, content FROM "{s}".blobs WHERE hash = ANY($1)"#),
            renew: StatementVariants::new(&fill(settle::RENEW)),
            next_due: StatementVariants::new(&fill(NEXT_DUE)),
            queue_size: fill(r#"SELECT pg_relation_size(to_regclass('"{s}".queue'))"#),
            now: fill("SELECT {now}"),
            report: fill(REPORT),
            delete_report: fill(r#"DELETE FROM "{s}".relays WHERE id = $1"#),
            controls: fill(r#"SELECT control, kind, name, set_at, operator, note FROM "{s}".controls"#),
        }
    }

    /// The same statements, sent unprepared.
    pub(super) fn unprepared(&self) -> Self {
        self.with(false, self.time_limit)
    }

    /// The same statements, with a time limit that the server enforces on each.
    pub(super) fn with_time_limit(&self, limit: Duration) -> Self {
        self.with(self.prepared, Some(limit))
    }

    fn with(&self, prepared: bool, time_limit: Option<Duration>) -> Self {
        Self { prepared, time_limit, begin: BeginStatements::with_time_limit(time_limit), ..Self::new(&self.schema) }
    }

    pub(super) fn has_time_limit(&self) -> bool {
        self.time_limit.is_some()
    }

    pub(super) fn is_prepared(&self) -> bool {
        self.prepared
    }

    pub(super) fn schema(&self) -> &str {
        &self.schema
    }

    pub(super) fn channel(&self) -> String {
        format!("postrider:{}", self.schema)
    }

    /// Fills the placeholders of a text that is used rarely.
    pub(super) fn fill(&self, text: &str) -> String {
        let text = text.replace("{hour of now}", &hour_of(NOW)).replace("{admin slot}", ADMIN_SLOT);
        text.replace("{s}", &self.schema).replace("{now}", NOW)
    }

    /// The text of a statement on the queue for the present size of the queue.
    pub(super) fn variant<'a>(&self, statement: &'a StatementVariants) -> &'a Arc<str> {
        self.queue.variant(statement)
    }

    pub(super) fn query(&self, text: &Arc<str>) -> Query<'static, Postgres, PgArguments> {
        sqlx::query(AssertSqlSafe(Arc::clone(text))).persistent(self.prepared)
    }

    pub(super) fn scalar<T>(&self, text: &Arc<str>) -> QueryScalar<'static, Postgres, T, PgArguments>
    where
        T: for<'r> Decode<'r, Postgres> + Type<Postgres>,
        (T,): for<'r> sqlx::FromRow<'r, PgRow>,
    {
        sqlx::query_scalar(AssertSqlSafe(Arc::clone(text))).persistent(self.prepared)
    }
}

const RECORDED: &str = r#"SELECT delivery_id, address, outcome, reply FROM "{s}".recipients WHERE delivery_id = ANY($1) AND outcome IS NOT NULL"#;

/// Finds the next due time. A leased delivery is due when its lease ends. In each priority the statement reads the first row that no relay
/// holds, and the leased rows. It tests the token to find out whether a relay holds a row: on a queue without statistics the planner
/// expects that almost no row has a null `leased_at`, and would sort the whole queue to find one.
const NEXT_DUE: &str = r#"
    SELECT min(first.due) AS due_at, {now} AS now
    FROM (VALUES (9), (8), (7), (6), (5), (4), (3), (2), (1), (0)) level (priority)
    CROSS JOIN LATERAL (
        (SELECT due_at AS due FROM "{s}".queue WHERE priority = level.priority AND token < 0 ORDER BY due_at LIMIT 1)
        UNION ALL
        (SELECT min(lease_until) FROM "{s}".queue WHERE leased_at IS NOT NULL AND priority = level.priority AND due_at <= {now})
    ) first"#;

const REPORT: &str = r#"
    WITH silent AS (DELETE FROM "{s}".relays WHERE seen_at < {now} - $5 * interval '1 microsecond' AND id <> $2)
    INSERT INTO "{s}".relays (id, seen_at, in_flight, paused, host, paused_ms) VALUES ($2, {now}, $3, $4, $6, $7)
    ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, in_flight = excluded.in_flight, paused = excluded.paused, host = excluded.host,
        paused_ms = excluded.paused_ms"#;
