//! The statements with the tables' prefix filled in. Each text is built once, since the driver keeps prepared statements by their text. For
//! the same reason a list is passed as one JSON array, and not as many placeholders.
//!
//! Times are microseconds since the Unix epoch.

use std::sync::Arc;

use sqlx::mysql::{MySqlArguments, MySqlRow};
use sqlx::query::{Query, QueryScalar};
use sqlx::{AssertSqlSafe, Decode, MySql, Type};

use crate::store::claim_cursor::ClaimCursor;

/// The current time: the bound value, or else the server's clock. It is in UTC, since in the time zone of a session an hour may occur
/// twice.
const NOW: &str = "COALESCE(?, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)))";

/// A list of ids, each with a number. If a table is joined to it by its primary key, the server looks up and locks these rows only, in this
/// order.
const KEYS: &str = "JSON_TABLE(?, '$[*]' COLUMNS ({id}, n BIGINT PATH '$[1]')) k STRAIGHT_JOIN";

/// An id, and a value such as a state, in a list. Without a character set they would have the database's, and in utf16 no id would match.
const ID: &str = "id CHAR(32) CHARACTER SET ascii PATH '$[0]'";
const NAME_TYPE: &str = "VARCHAR(16) CHARACTER SET ascii PATH";

/// Names the table to lock in a join with [`KEYS`]. MySQL requires it (error 3569), and MariaDB does not support it. MySQL reads such a
/// comment from version 8.0.1 on. MariaDB ignores comments with numbers from 50700 to 99999 (its manual, "Comment Syntax").
const OF_Q: &str = "/*!80001 OF q */";
const OF_D: &str = "/*!80001 OF d */";

/// The numbers of rows in an insert. They are few, so that few statements are prepared.
pub(super) const BATCH_SIZES: [usize; 3] = [64, 8, 1];

/// Begins a transaction that writes. The isolation level applies to this transaction only. At the default REPEATABLE READ, a claim would
/// also lock the gaps between rows, and so block inserts.
pub(super) const BEGIN: &str = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; START TRANSACTION";

/// Begins a read-only transaction on one snapshot.
pub(super) const BEGIN_SNAPSHOT: &str =
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";

#[derive(Debug)]
pub(super) struct Sql {
    prefix: String,
    pub(super) insert: [Arc<str>; 3],
    pub(super) insert_keyed: [Arc<str>; 3],
    pub(super) ids_of_keys: [Arc<str>; 3],
    first_due: Arc<str>,
    pub(super) select_due: Arc<str>,
    pub(super) messages: Arc<str>,
    pub(super) lease: Arc<str>,
    pub(super) last_attempts: Arc<str>,
    pub(super) leased_by: Arc<str>,
    pub(super) release_claims: Arc<str>,
    /// Deletes the rows of deliveries whose mails are gone: one statement for each table.
    pub(super) delete_orphans: [Arc<str>; 4],
    pub(super) lock_held: Arc<str>,
    pub(super) remove: Arc<str>,
    pub(super) remove_held: Arc<str>,
    pub(super) reschedule: Arc<str>,
    pub(super) renew: Arc<str>,
    pub(super) record_attempts: Arc<str>,
    pub(super) record_sent: Arc<str>,
    pub(super) record_ended: Arc<str>,
    pub(super) record_recipients: Arc<str>,
    pub(super) recorded: Arc<str>,
    pub(super) now: Arc<str>,
    pub(super) report: Arc<str>,
    pub(super) delete_old_reports: Arc<str>,
    pub(super) delete_report: Arc<str>,
}

impl Sql {
    pub(super) fn new(prefix: &str) -> Self {
        let fill = |text: &str| fill(prefix, text);
        let insert = BATCH_SIZES.map(|rows| format!("{INSERT} {}", [ROW].repeat(rows).join(", ")));
        Self {
            prefix: prefix.to_owned(),
            insert_keyed: insert.each_ref().map(|text| fill(&format!("{text} ON DUPLICATE KEY UPDATE id = id"))),
            insert: insert.map(|text| fill(&text)),
            ids_of_keys: BATCH_SIZES
                .map(|keys| fill(&IDS_OF_KEYS.replace("{keys_in}", &["?"].repeat(keys).join(", ")))),
            first_due: fill(&first_due()),
            select_due: fill(SELECT_DUE),
            messages: fill(MESSAGES),
            lease: fill(LEASE),
            last_attempts: fill(LAST_ATTEMPTS),
            leased_by: fill(LEASED_BY),
            release_claims: fill(RELEASE_CLAIMS),
            delete_orphans: ["queue", "ended", "attempts", "recipients"].map(|table| {
                let text = format!(
                    "DELETE t FROM {{keys}} {{p}}{table} t FORCE INDEX (PRIMARY) ON t.delivery_id = UNHEX(k.id)"
                );
                fill(&text)
            }),
            lock_held: fill(LOCK_HELD),
            remove: fill(REMOVE),
            remove_held: fill(REMOVE_HELD),
            reschedule: fill(RESCHEDULE),
            renew: fill(RENEW),
            record_attempts: fill(RECORD_ATTEMPTS),
            record_sent: fill(RECORD_SENT),
            record_ended: fill(RECORD_ENDED),
            record_recipients: fill(RECORD_RECIPIENTS),
            recorded: fill(RECORDED),
            now: fill("SELECT CAST({now} AS SIGNED)"),
            report: fill("REPLACE INTO {p}relays (id, seen_at, in_flight, paused) VALUES (?, {now}, ?, ?)"),
            delete_old_reports: fill("DELETE FROM {p}relays WHERE seen_at < {now} - ?"),
            delete_report: fill("DELETE FROM {p}relays WHERE id = ?"),
        }
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Fills the placeholders of a text that is used rarely.
    pub(super) fn fill(&self, text: &str) -> Arc<str> {
        fill(&self.prefix, text)
    }

    pub(super) fn query(&self, text: &Arc<str>) -> Query<'static, MySql, MySqlArguments> {
        sqlx::query(AssertSqlSafe(Arc::clone(text)))
    }

    /// Queries the first due time of each priority, from a cursor on.
    pub(super) fn first_due(
        &self,
        test_now: Option<i64>,
        cursor: &ClaimCursor<i64>,
    ) -> Query<'static, MySql, MySqlArguments> {
        let query = self.query(&self.first_due).bind(test_now);
        cursor.iter().rev().fold(query, |query, from| query.bind(from.unwrap_or(i64::MIN)))
    }

    pub(super) fn scalar<T>(&self, text: &Arc<str>) -> QueryScalar<'static, MySql, T, MySqlArguments>
    where
        T: for<'r> Decode<'r, MySql> + Type<MySql>,
        (T,): for<'r> sqlx::FromRow<'r, MySqlRow>,
    {
        sqlx::query_scalar(AssertSqlSafe(Arc::clone(text)))
    }
}

fn fill(prefix: &str, text: &str) -> Arc<str> {
    let text = text.replace("{keys}", KEYS).replace("{id}", ID).replace("{word}", NAME_TYPE).replace("{now}", NOW);
    let text = text.replace("{of_d}", OF_D).replace("{of_q}", OF_Q);
    Arc::from(text.replace("{p}", prefix).as_str())
}

const INSERT: &str = "
    INSERT INTO {p}deliveries
        (id, created_at, format, `body`, recipients, template_id, `key`, priority, when_in_doubt, send_at, expires_at)
    VALUES";

/// A row of values. The last two columns are times, each from a flag (whether it is relative to now) and its microseconds.
const ROW: &str = "(?, {now}, ?, ?, ?, ?, ?, ?, ?, IF(?, {now}, 0) + ?, IF(?, {now}, 0) + ?)";

/// It locks the rows. A plain read in the caller's transaction might use a snapshot from before the key was inserted.
const IDS_OF_KEYS: &str =
    "SELECT id, `key` FROM {p}deliveries FORCE INDEX (deliveries_key) WHERE `key` IN ({keys_in}) FOR UPDATE";

/// Selects the first due time of each priority, the most urgent first, and the current time. Each priority costs one index lookup, so that
/// the statement never scans rows that are scheduled for later. Each priority, from 9 down, has a parameter for the time to begin at.
///
/// The server looks up a minimum while it plans the statement, which takes a third of the time of a sorted row.
fn first_due() -> String {
    let level = |priority: u8| {
        format!(
            "SELECT {priority} AS priority, MIN(due_at) AS due_at FROM {{p}}queue FORCE INDEX (queue_due) WHERE priority = {priority} AND due_at >= ?"
        )
    };
    let levels: Vec<String> = (0..=9).rev().map(level).collect();
    format!(
        "SELECT CAST({{now}} AS SIGNED) AS now, first.priority, first.due_at FROM ({}) first WHERE first.due_at IS NOT NULL ORDER BY first.priority DESC",
        levels.join(" UNION ALL ")
    )
}

/// Selects due rows. The index provides the order, so that the server locks no more rows than it returns. The server plans each execution
/// anew, with the value of the limit.
const SELECT_DUE: &str = "
    SELECT delivery_id, size, due_at, leased_at, token, attempts, cycle, spent, cycle_started_at, expires_at, partial
    FROM {p}queue FORCE INDEX (queue_due)
    WHERE priority = ? AND due_at >= ? AND due_at <= ? ORDER BY due_at LIMIT ? FOR UPDATE SKIP LOCKED";

const MESSAGES: &str = "
    SELECT d.id, GREATEST(d.created_at, COALESCE(d.send_at, d.created_at)) AS dated_at, d.format, d.`body`, d.recipients, d.template_id, d.when_in_doubt
    FROM {keys} {p}deliveries d FORCE INDEX (PRIMARY) ON d.id = UNHEX(k.id)";

/// Leases rows. The number of each id is 1 if an earlier holder vanished. Numbers stop below the largest value. Beyond it the server would
/// refuse the whole claim because of one row.
const LEASE: &str = "
    UPDATE {keys} {p}queue q FORCE INDEX (PRIMARY) ON q.delivery_id = UNHEX(k.id)
    SET q.token = LEAST(q.token, 9223372036854775806) + 1, q.attempts = LEAST(q.attempts, 2147483646) + k.n,
        q.spent = LEAST(q.spent, 2147483646) + k.n, q.leased_at = ?, q.leased_by = ?, q.due_at = ?";

/// Selects the attempt with the highest number of each delivery.
const LAST_ATTEMPTS: &str = "
    SELECT a.delivery_id, a.cycle, a.finished_at, a.outcome, a.scope, a.sure, LEFT(a.error, 1000) error
    FROM {keys} {p}attempts a FORCE INDEX (PRIMARY) ON a.delivery_id = UNHEX(k.id)
    WHERE a.number = (SELECT MAX(l.number) FROM {p}attempts l WHERE l.delivery_id = a.delivery_id)";

/// Selects the rows that certain claims leased. There is no index for this rare statement, so it takes no locks.
const LEASED_BY: &str = "
    SELECT q.delivery_id, q.token FROM {p}queue q
    JOIN JSON_TABLE(?, '$[*]' COLUMNS (claim BIGINT PATH '$')) k ON q.leased_by = k.claim WHERE q.leased_at <> 0";

/// Releases the rows with the given tokens, which are due again at once.
const RELEASE_CLAIMS: &str = "
    UPDATE {keys} {p}queue q FORCE INDEX (PRIMARY) ON q.delivery_id = UNHEX(k.id)
    SET q.leased_at = 0, q.leased_by = 0, q.due_at = LEAST(q.due_at, ?) WHERE q.token = k.n";

/// Locks the rows that are leased with the given tokens. Later statements on these rows need not check the token again.
const LOCK_HELD: &str = "
    SELECT q.delivery_id, q.token, q.attempts, q.cycle, CAST({now} AS SIGNED) AS now
    FROM {keys} {p}queue q FORCE INDEX (PRIMARY) ON q.delivery_id = UNHEX(k.id)
    WHERE q.token = k.n AND q.leased_at <> 0 FOR UPDATE {of_q}";

const REMOVE: &str = "DELETE q FROM {keys} {p}queue q FORCE INDEX (PRIMARY) ON q.delivery_id = UNHEX(k.id)";

/// Deletes the rows that are leased with the given tokens.
const REMOVE_HELD: &str = "
    DELETE q FROM {keys} {p}queue q FORCE INDEX (PRIMARY) ON q.delivery_id = UNHEX(k.id)
    WHERE q.token = k.n AND q.leased_at <> 0";

const RESCHEDULE: &str = "
    UPDATE JSON_TABLE(?, '$[*]' COLUMNS (
               {id}, due_at BIGINT PATH '$[1]', called BIGINT PATH '$[2]', spent BIGINT PATH '$[3]',
               partial BIGINT PATH '$[4]')) k
    STRAIGHT_JOIN {p}queue q FORCE INDEX (PRIMARY) ON q.delivery_id = UNHEX(k.id)
    SET q.leased_at = 0, q.leased_by = 0, q.due_at = k.due_at, q.attempts = LEAST(q.attempts, 2147483646) + k.called,
        q.spent = k.spent,
        q.partial = q.partial OR k.partial";

const RENEW: &str = "
    UPDATE {keys} {p}queue q FORCE INDEX (PRIMARY) ON q.delivery_id = UNHEX(k.id) SET q.due_at = ?";

const RECORD_ATTEMPTS: &str = "
    INSERT INTO {p}attempts
        (delivery_id, number, cycle, token, started_at, finished_at, outcome, scope, sure, charged, error, reply, provider_id,
         transport, note)
    SELECT UNHEX(a.id), a.number, a.cycle, a.token, a.started_at, a.finished_at, a.outcome, a.scope, a.sure, a.charged, a.error,
           a.reply, a.provider_id, a.transport, a.note
    FROM JSON_TABLE(?, '$[*]' COLUMNS (
        {id}, number BIGINT PATH '$[1]', cycle BIGINT PATH '$[2]', token BIGINT PATH '$[3]',
        started_at BIGINT PATH '$[4]', finished_at BIGINT PATH '$[5]', outcome {word} '$[6]',
        scope {word} '$[7]', sure BIGINT PATH '$[8]', charged BIGINT PATH '$[9]',
        error LONGTEXT CHARACTER SET utf8mb4 PATH '$[10]', reply LONGTEXT CHARACTER SET utf8mb4 PATH '$[11]',
        provider_id LONGTEXT CHARACTER SET utf8mb4 PATH '$[12]', transport LONGTEXT CHARACTER SET utf8mb4 PATH '$[13]',
        note LONGTEXT CHARACTER SET utf8mb4 PATH '$[14]')) a
    ON DUPLICATE KEY UPDATE cycle = a.cycle, token = a.token, started_at = a.started_at, finished_at = a.finished_at,
        outcome = a.outcome, scope = a.scope, sure = a.sure, charged = a.charged, error = a.error, reply = a.reply,
        provider_id = a.provider_id, transport = a.transport, note = a.note";

/// Records attempts that sent. With fewer columns to extract from each row, it takes half the time of [`RECORD_ATTEMPTS`].
const RECORD_SENT: &str = "
    INSERT INTO {p}attempts
        (delivery_id, token, started_at, finished_at, number, cycle, outcome, transport, reply, provider_id)
    SELECT UNHEX(a.id), a.token, a.started_at, a.finished_at, a.number, a.cycle, 'sent', a.transport, a.reply, a.provider_id
    FROM JSON_TABLE(?, '$[*]' COLUMNS (
        {id}, token BIGINT PATH '$[1]', started_at BIGINT PATH '$[2]', finished_at BIGINT PATH '$[3]',
        number BIGINT PATH '$[4]', cycle BIGINT PATH '$[5]', transport LONGTEXT CHARACTER SET utf8mb4 PATH '$[6]',
        reply LONGTEXT CHARACTER SET utf8mb4 PATH '$[7]', provider_id LONGTEXT CHARACTER SET utf8mb4 PATH '$[8]')) a
    ON DUPLICATE KEY UPDATE cycle = a.cycle, token = a.token, started_at = a.started_at, finished_at = a.finished_at,
        outcome = 'sent', scope = NULL, sure = TRUE, charged = TRUE, error = NULL, note = NULL, reply = a.reply,
        provider_id = a.provider_id, transport = a.transport";

const RECORD_ENDED: &str = "
    INSERT INTO {p}ended (delivery_id, state, reason, ended_at, token, attempts, cycle)
    SELECT UNHEX(e.id), e.state, e.reason, e.ended_at, e.token, e.attempts, e.cycle
    FROM JSON_TABLE(?, '$[*]' COLUMNS (
        {id}, state {word} '$[1]', reason LONGTEXT CHARACTER SET utf8mb4 PATH '$[2]',
        ended_at BIGINT PATH '$[3]', token BIGINT PATH '$[4]', attempts BIGINT PATH '$[5]', cycle BIGINT PATH '$[6]')) e
    ON DUPLICATE KEY UPDATE state = e.state, reason = e.reason, ended_at = e.ended_at, token = e.token, attempts = e.attempts,
        cycle = e.cycle";

const RECORD_RECIPIENTS: &str = "
    INSERT INTO {p}recipients (delivery_id, address, outcome, reply)
    SELECT UNHEX(r.id), r.address, r.outcome, r.reply
    FROM JSON_TABLE(?, '$[*]' COLUMNS (
        {id}, address VARCHAR(700) CHARACTER SET utf8mb4 PATH '$[1]', outcome {word} '$[2]',
        reply LONGTEXT CHARACTER SET utf8mb4 PATH '$[3]')) r
    ON DUPLICATE KEY UPDATE outcome = r.outcome, reply = r.reply";

const RECORDED: &str = "
    SELECT r.delivery_id, r.address, r.outcome, r.reply
    FROM {keys} {p}recipients r FORCE INDEX (PRIMARY) ON r.delivery_id = UNHEX(k.id)";
