//! The statements with the tables' prefix filled in. Each text is built once, since the driver keeps prepared statements by their text. For
//! the same reason a list is passed as one JSON array, and not as many placeholders.
//!
//! Times are microseconds since the Unix epoch.

use std::sync::Arc;

use sqlx::mysql::{MySqlArguments, MySqlRow};
use sqlx::query::{Query, QueryScalar};
use sqlx::{AssertSqlSafe, Decode, MySql, Type};

use super::{blobs, claim, counters, enqueue, rows, settle};
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
const OF_C: &str = "/*!80001 OF c */";

/// The row of a counter that this connection adds to. Operators and deletions use other rows than relays: a deletion in plain SQL locks a
/// counter before the rest of its deliveries, a relay locks it last, and the two could deadlock.
const SLOT: &str = "MOD(CONNECTION_ID(), 16)";
const ADMIN_SLOT: &str = "MOD(CONNECTION_ID(), 16) + 16";

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
    pub(super) existing_blobs: Arc<str>,
    pub(super) insert_blobs: [Arc<str>; 3],
    pub(super) insert_carried: Arc<str>,
    pub(super) carried: Arc<str>,
    pub(super) blobs: Arc<str>,
    first_due: Arc<str>,
    pub(super) select_due: Arc<str>,
    pub(super) messages: Arc<str>,
    pub(super) lease: Arc<str>,
    pub(super) last_attempts: Arc<str>,
    pub(super) leased_by: Arc<str>,
    pub(super) release_claims: Arc<str>,
    /// Deletes the rows of deliveries whose mails are gone: one statement for each table.
    pub(super) delete_orphans: [Arc<str>; 5],
    pub(super) lock_held: Arc<str>,
    pub(super) remove: Arc<str>,
    pub(super) remove_held: Arc<str>,
    pub(super) reschedule: Arc<str>,
    pub(super) renew: Arc<str>,
    pub(super) record_attempts: Arc<str>,
    pub(super) record_sent: Arc<str>,
    pub(super) record_ended: Arc<str>,
    pub(super) record_recipients: Arc<str>,
    pub(super) add_totals: Arc<str>,
    pub(super) add_hourly: Arc<str>,
    pub(super) recorded: Arc<str>,
    pub(super) now: Arc<str>,
    pub(super) report: Arc<str>,
    pub(super) delete_old_reports: Arc<str>,
    pub(super) delete_report: Arc<str>,
}

impl Sql {
    pub(super) fn new(prefix: &str) -> Self {
        let fill = |text: &str| fill(prefix, text);
        let insert = repeat_rows(enqueue::INSERT, enqueue::ROW);
        Self {
            prefix: prefix.to_owned(),
            insert_keyed: insert.each_ref().map(|text| fill(&format!("{text} ON DUPLICATE KEY UPDATE id = id"))),
            insert: insert.map(|text| fill(&text)),
            ids_of_keys: enqueue::BATCH_SIZES
                .map(|keys| fill(&enqueue::IDS_OF_KEYS.replace("{keys_in}", &["?"].repeat(keys).join(", ")))),
            existing_blobs: fill(blobs::EXISTING_BLOBS),
            insert_blobs: repeat_rows(blobs::INSERT_BLOBS, "(?, ?)").map(|text| fill(&text)),
            insert_carried: fill(blobs::INSERT_CARRIED),
            carried: fill(blobs::CARRIED),
            blobs: fill(blobs::BLOBS),
            first_due: fill(&claim::first_due()),
            select_due: fill(claim::SELECT_DUE),
            messages: fill(claim::MESSAGES),
            lease: fill(claim::LEASE),
            last_attempts: fill(claim::LAST_ATTEMPTS),
            leased_by: fill(settle::LEASED_BY),
            release_claims: fill(settle::RELEASE_CLAIMS),
            delete_orphans: ["queue", "ended", "attempts", "recipients", "body_blobs"].map(|table| {
                let text = format!(
                    "DELETE t FROM {{keys}} {{p}}{table} t FORCE INDEX (PRIMARY) ON t.delivery_id = UNHEX(k.id)"
                );
                fill(&text)
            }),
            lock_held: fill(settle::LOCK_HELD),
            remove: fill(settle::REMOVE),
            remove_held: fill(settle::REMOVE_HELD),
            reschedule: fill(settle::RESCHEDULE),
            renew: fill(settle::RENEW),
            record_attempts: fill(settle::RECORD_ATTEMPTS),
            record_sent: fill(settle::RECORD_SENT),
            record_ended: fill(settle::RECORD_ENDED),
            record_recipients: fill(settle::RECORD_RECIPIENTS),
            add_totals: fill(&counters::ADD_TOTALS.replace("{slot}", SLOT)),
            add_hourly: fill(&counters::ADD_HOURLY.replace("{slot}", SLOT)),
            recorded: fill(rows::RECORDED),
            now: fill("SELECT CAST({now} AS SIGNED)"),
            report: fill(
                "REPLACE INTO {p}relays (id, seen_at, in_flight, paused, host, paused_ms) VALUES (?, {now}, ?, ?, ?, ?)",
            ),
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
    let text = text.replace("{keys}", KEYS).replace("{id}", ID).replace("{name}", NAME_TYPE).replace("{now}", NOW);
    let text =
        text.replace("{of_d}", OF_D).replace("{of_q}", OF_Q).replace("{of_c}", OF_C).replace("{slot}", ADMIN_SLOT);
    Arc::from(text.replace("{p}", prefix).as_str())
}

/// An insert of each number of rows in [`BATCH_SIZES`](enqueue::BATCH_SIZES).
fn repeat_rows(insert: &str, row: &str) -> [String; 3] {
    enqueue::BATCH_SIZES.map(|rows| format!("{insert} {}", [row].repeat(rows).join(", ")))
}
