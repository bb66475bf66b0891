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
use crate::state::{Priority, WhenInDoubt};

/// The current time: `$1`, or else the database's clock.
pub(super) const NOW: &str = "coalesce($1::timestamptz, now())";

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
    pub(super) insert_keyed: Arc<str>,
    pub(super) ids_of_keys: Arc<str>,
    pub(super) claim: StatementVariants,
    pub(super) last_attempts: Arc<str>,
    pub(super) delete_orphans: Arc<str>,
    pub(super) settle_sent: StatementVariants,
    pub(super) settle: StatementVariants,
    pub(super) release_claims: Arc<str>,
    pub(super) record_recipients: Arc<str>,
    pub(super) recorded: Arc<str>,
    pub(super) renew: StatementVariants,
    pub(super) next_due: StatementVariants,
    pub(super) queue_size: Arc<str>,
    pub(super) now: Arc<str>,
    pub(super) report: Arc<str>,
    pub(super) delete_report: Arc<str>,
}

impl Sql {
    pub(super) fn new(schema: &str) -> Self {
        let priority = DEFAULT_PRIORITY.level().to_string();
        let fill = |text: &str| -> Arc<str> {
            let text = text.replace("{s}", schema).replace("{now}", NOW).replace("{priority}", &priority);
            text.replace("{format}", DEFAULT_FORMAT).replace("{when_in_doubt}", DEFAULT_IN_DOUBT.as_str()).into()
        };
        Self {
            schema: schema.to_owned(),
            prepared: true,
            time_limit: None,
            begin: BeginStatements::with_time_limit(None),
            queue: QueueSize::default(),
            insert_one: fill(&INSERT.replace("{rows}", ONE_ROW)),
            insert_many: fill(&INSERT.replace("{rows}", ROWS_FROM_ARRAYS)),
            insert_keyed: fill(&(INSERT.replace("{rows}", ROWS_FROM_ARRAYS) + SKIP_EXISTING_KEYS)),
            ids_of_keys: fill(IDS_OF_KEYS),
            claim: StatementVariants::new(&fill(CLAIM)),
            last_attempts: fill(LAST_ATTEMPTS),
            delete_orphans: fill(DELETE_ORPHANS),
            settle_sent: StatementVariants::new(&fill(SETTLE_SENT)),
            settle: StatementVariants::new(&fill(SETTLE)),
            release_claims: fill(RELEASE_CLAIMS),
            record_recipients: fill(RECORD_RECIPIENTS),
            recorded: fill(RECORDED),
            renew: StatementVariants::new(&fill(RENEW)),
            next_due: StatementVariants::new(&fill(NEXT_DUE)),
            queue_size: fill(r#"SELECT pg_relation_size(to_regclass('"{s}".queue'))"#),
            now: fill("SELECT {now}"),
            report: fill(REPORT),
            delete_report: fill(r#"DELETE FROM "{s}".relays WHERE id = $1"#),
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

const INSERT: &str = r#"
    INSERT INTO "{s}".deliveries
        (id, created_at, format, body, recipients, template_id, key, priority, when_in_doubt, send_at, expires_at)
    SELECT id, {now}, format, body, recipients::json, template_id, key, priority, when_in_doubt,
           CASE WHEN send_after THEN {now} ELSE 'epoch'::timestamptz END + send * interval '1 microsecond',
           CASE WHEN expire_after THEN {now} ELSE 'epoch'::timestamptz END + expire * interval '1 microsecond'
    FROM {rows}
         r (id, format, body, recipients, template_id, key, priority, when_in_doubt, send_after, send, expire_after, expire)"#;

/// One row of values. The server processes it faster than arrays.
const ONE_ROW: &str = r#"(VALUES ($2::uuid, $3::text, $4::text, $5::text, $6::text, $7::text, $8::smallint, $9::text, $10::bool,
                $11::bigint, $12::bool, $13::bigint))"#;

/// Many rows, from an array for each column. A null array means the default value in every row, or in the case of the template `$14`, which
/// all rows share. Each array that is not null costs time for each row.
const ROWS_FROM_ARRAYS: &str = r#"(
        SELECT id, coalesce(format, '{format}'), body, recipients, coalesce(template_id, $14::text), key, coalesce(priority, {priority}::smallint),
               coalesce(when_in_doubt, '{when_in_doubt}'), send_after, send, expire_after, expire
        FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::smallint[], $9::text[], $10::bool[],
                    $11::bigint[], $12::bool[], $13::bigint[])
            u (id, format, body, recipients, template_id, key, priority, when_in_doubt, send_after, send, expire_after, expire))"#;

/// Skips rows whose key exists. The rows are in the order of their keys, so that two transactions cannot deadlock.
const SKIP_EXISTING_KEYS: &str = " ORDER BY key ON CONFLICT (key) WHERE key IS NOT NULL DO NOTHING RETURNING id";

const IDS_OF_KEYS: &str = r#"SELECT key, id FROM "{s}".deliveries WHERE key = ANY($1)"#;

/// Claims due deliveries. The statement looks up each priority in the index, the most urgent first, so that it never scans rows that are
/// scheduled for later. Leased rows keep their position in the index. The scan passes over them until their lease ends. `$5` and `$6` hold
/// the due time and the id to begin at, for each priority.
///
/// The limit is in a sub-select to hide it from the planner. If the queue was last analysed while it was empty, or while all of it was
/// scheduled for later, the planner expects almost no due rows. If it knew the limit, it would read and sort the whole backlog for each
/// claim. Without the limit it assumes that a tenth of the due rows are needed, and reads the rows in the order of the index.
///
/// Common values are returned as null, since every column costs time for every row. Null means the default priority, format and choice in
/// doubt. A null date of the mail is the due time. In a first claim, null also means no attempts, and a first cycle that began at the date
/// of the mail.
///
/// The claim takes rows as long as their mails fit into `$7` octets, and at least one row. The other rows that it found stay unchanged, and
/// are locked until the transaction ends.
///
/// Numbers stop below the largest value. Beyond it the server would refuse the whole claim because of one row. A row whose mail is gone has
/// no body.
const CLAIM: &str = r#"
    WITH claimed AS (
        UPDATE "{s}".queue q
        SET lease_until = (SELECT {now} + $2 * interval '1 microsecond'), leased_at = (SELECT {now}), leased_by = $8, abandoned_at = leased_at,
            token = CASE WHEN token < 0 THEN -greatest(token, -9223372036854775807) ELSE least(token, 9223372036854775806) + 1 END,
            attempts = least(attempts, 2147483646) + (leased_at IS NOT NULL)::int,
            spent = least(spent, 2147483646) + (leased_at IS NOT NULL)::int
        WHERE ctid = ANY (ARRAY (
            SELECT ctid FROM (
                SELECT due.ctid, due.size, sum(due.size) OVER (ROWS UNBOUNDED PRECEDING) AS total
                FROM (VALUES (9), (8), (7), (6), (5), (4), (3), (2), (1), (0)) level (priority)
                CROSS JOIN LATERAL (
                    SELECT ctid, size FROM "{s}".queue
                    WHERE priority = level.priority AND lease_until <= {now}
                      AND due_at <= least({now}, $3::timestamptz)
                      AND (due_at, delivery_id) >= (coalesce(($5::timestamptz[])[1 + level.priority], '-infinity'),
                          coalesce(($6::uuid[])[1 + level.priority], '00000000-0000-0000-0000-000000000000'))
                    ORDER BY due_at, delivery_id LIMIT (SELECT $4::bigint) FOR UPDATE SKIP LOCKED) due
                LIMIT (SELECT $4::bigint)) found
            WHERE total <= $7 OR total = size))
        RETURNING q.*),
    lost AS (
        INSERT INTO "{s}".attempts (delivery_id, number, cycle, token, started_at, finished_at, outcome)
        SELECT delivery_id, attempts, cycle, token - 1, abandoned_at, {now}, 'lost' FROM claimed WHERE abandoned_at IS NOT NULL
        ON CONFLICT DO NOTHING)
    SELECT c.delivery_id, c.token, nullif(c.priority, {priority}), c.due_at, c.leased_at, c.expires_at,
           CASE WHEN c.token > 1 OR c.cycle > 1 THEN ARRAY[c.attempts, c.cycle, c.spent, c.partial::int, (c.abandoned_at IS NOT NULL)::int] END,
           CASE WHEN c.token > 1 OR c.cycle > 1 THEN c.cycle_started_at END,
           nullif(greatest(d.created_at, d.send_at), c.due_at), nullif(d.format, '{format}'), d.body, d.recipients, d.template_id,
           nullif(d.when_in_doubt, '{when_in_doubt}')
    FROM claimed c LEFT JOIN "{s}".deliveries d ON d.id = c.delivery_id"#;

/// Selects the attempt with the highest number of each delivery.
const LAST_ATTEMPTS: &str = r#"
    SELECT a.delivery_id, a.cycle::bigint, a.finished_at, a.outcome::text, a.scope::text, a.sure, left(a.error, 1000) error FROM unnest((SELECT $1::uuid[])) u (id)
    CROSS JOIN LATERAL (
        SELECT * FROM "{s}".attempts WHERE delivery_id = u.id ORDER BY number DESC LIMIT 1) a"#;

/// Deletes the rows of deliveries whose mails are gone.
const DELETE_ORPHANS: &str = r#"
    WITH queue AS (DELETE FROM "{s}".queue WHERE delivery_id = ANY ($1)),
         ended AS (DELETE FROM "{s}".ended WHERE delivery_id = ANY ($1)),
         attempts AS (DELETE FROM "{s}".attempts WHERE delivery_id = ANY ($1))
    DELETE FROM "{s}".recipients WHERE delivery_id = ANY ($1)"#;

/// Settles plainly sent deliveries, which are nearly all: deletes them from the queue, and records their attempts. A null array of numbers
/// means 1. `$10` is the transport if it is the same for all. The result is null if all settlements were written. Otherwise it is an array
/// of the positions of the written ones, from 1 on.
///
/// The sub-selects hide the length of the arrays from the planner. Otherwise it would scan and hash the whole queue for a large batch,
/// until it keeps a generic plan. With them it looks up each row by its key.
const SETTLE_SENT: &str = r#"
    WITH gone AS (
        DELETE FROM "{s}".queue q
        USING unnest((SELECT $1::uuid[]), (SELECT $2::bigint[]), (SELECT $3::int[]), (SELECT $4::int[]), (SELECT $5::timestamptz[]),
                     (SELECT $6::timestamptz[]), (SELECT $7::text[]), (SELECT $8::text[]), (SELECT $9::text[])) WITH ORDINALITY
            u (id, token, number, cycle, started, finished, reply, provider_id, transport, place)
        WHERE q.delivery_id = u.id AND q.token = u.token
        RETURNING u.*),
    recorded AS (
        INSERT INTO "{s}".attempts
            (delivery_id, number, cycle, token, started_at, finished_at, outcome, reply, provider_id, transport)
        SELECT id, coalesce(number, 1), coalesce(cycle, 1), token, started, finished, 'sent', reply, provider_id, coalesce(transport, $10)
        FROM gone)
    SELECT CASE WHEN count(*) < cardinality($1) THEN coalesce(array_agg(place), '{}') END FROM gone"#;

/// Settles all other deliveries. For the sub-selects see [`SETTLE_SENT`].
const SETTLE: &str = r#"
    WITH u AS MATERIALIZED (
        SELECT * FROM unnest((SELECT $2::uuid[]), (SELECT $3::bigint[]), (SELECT $4::text[]), (SELECT $5::bigint[]),
                             (SELECT $6::text[]), (SELECT $7::int[]), (SELECT $8::bool[]), (SELECT $9::int[]), (SELECT $10::int[]),
                             (SELECT $11::timestamptz[]), (SELECT $12::timestamptz[]), (SELECT $13::text[]), (SELECT $14::text[]),
                             (SELECT $15::bool[]), (SELECT $16::bool[]), (SELECT $17::text[]), (SELECT $18::text[]),
                             (SELECT $19::text[]), (SELECT $20::text[]), (SELECT $21::text[]), (SELECT $22::bool[]))
            u (id, token, next, after, reason, spent, called, number, cycle, started, finished, outcome, scope, sure, charged, note,
               error, reply, provider_id, transport, partial)),
    gone AS (
        DELETE FROM "{s}".queue q USING u
        WHERE q.delivery_id = u.id AND q.token = u.token AND u.next <> 'pending'
        RETURNING q.delivery_id, q.token, q.attempts, q.cycle, u.next, u.reason, u.called),
    back AS (
        UPDATE "{s}".queue q
        SET token = -1 - q.token, leased_at = NULL, abandoned_at = NULL, lease_until = '-infinity', due_at = {now} + u.after * interval '1 microsecond',
            leased_by = 0, attempts = least(q.attempts, 2147483646) + u.called::int, spent = u.spent,
            partial = q.partial OR u.partial
        FROM u
        WHERE q.delivery_id = u.id AND q.token = u.token AND u.next = 'pending'
        RETURNING q.delivery_id, u.token),
    done AS (SELECT delivery_id, token FROM gone UNION ALL SELECT delivery_id, token FROM back),
    recorded AS (
        INSERT INTO "{s}".attempts
            (delivery_id, number, cycle, token, started_at, finished_at, outcome, scope, sure, charged, note, error, reply, provider_id,
             transport)
        SELECT id, number, cycle, u.token, started, finished, outcome, scope, sure, charged, note, error, reply, provider_id, transport
        FROM u JOIN done ON done.delivery_id = u.id AND done.token = u.token WHERE u.called
        ON CONFLICT (delivery_id, number) DO UPDATE
        SET cycle = excluded.cycle, token = excluded.token, started_at = excluded.started_at, finished_at = excluded.finished_at,
            outcome = excluded.outcome, scope = excluded.scope, sure = excluded.sure, charged = excluded.charged, note = excluded.note,
            error = excluded.error, reply = excluded.reply, provider_id = excluded.provider_id, transport = excluded.transport),
    ended AS (
        INSERT INTO "{s}".ended (delivery_id, state, reason, ended_at, token, attempts, cycle)
        SELECT delivery_id, next, reason, {now}, token, attempts, cycle FROM gone WHERE next <> 'sent' OR NOT called
        ON CONFLICT (delivery_id) DO UPDATE
        SET state = excluded.state, reason = excluded.reason, ended_at = excluded.ended_at, token = excluded.token,
            attempts = excluded.attempts, cycle = excluded.cycle)
    SELECT delivery_id, token FROM done"#;

/// Releases the deliveries of a claim, which are due again at once. A lost attempt that the claim recorded for an earlier holder stays.
/// There is no index for this rare statement.
const RELEASE_CLAIMS: &str = r#"
    UPDATE "{s}".queue SET token = -1 - token, leased_at = NULL, leased_by = 0, abandoned_at = NULL, lease_until = '-infinity'
    WHERE leased_by = ANY ($1) AND leased_at IS NOT NULL"#;

const RECORD_RECIPIENTS: &str = r#"
    INSERT INTO "{s}".recipients (delivery_id, address, outcome, reply)
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[])
    ON CONFLICT (delivery_id, address) DO UPDATE SET outcome = excluded.outcome, reply = excluded.reply"#;

const RECORDED: &str =
    r#"SELECT delivery_id, address, outcome, reply FROM "{s}".recipients WHERE delivery_id = ANY($1)"#;

/// Extends leases. It skips rows that are locked by a settlement, which need no longer lease. For the sub-selects see [`SETTLE_SENT`].
const RENEW: &str = r#"
    UPDATE "{s}".queue q SET lease_until = {now} + $2 * interval '1 microsecond'
    WHERE ctid = ANY (ARRAY (
        SELECT h.ctid FROM "{s}".queue h JOIN unnest((SELECT $3::uuid[]), (SELECT $4::bigint[])) u (id, token)
            ON h.delivery_id = u.id AND h.token = u.token
        FOR UPDATE OF h SKIP LOCKED))
    RETURNING q.delivery_id, q.token"#;

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
    INSERT INTO "{s}".relays (id, seen_at, in_flight, paused) VALUES ($2, {now}, $3, $4)
    ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, in_flight = excluded.in_flight, paused = excluded.paused"#;
