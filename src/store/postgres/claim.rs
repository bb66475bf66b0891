//! Claims due deliveries with one statement.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::{Instant, SystemTime};

use futures_util::TryStreamExt;
use postrider_transport::Encoded;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Decode, Postgres, Row};
use uuid::Uuid;

use super::blobs::read_blobs;
use super::rows::{Moment, read_outcomes};
use super::sql::{DEFAULT_FORMAT, DEFAULT_IN_DOUBT, DEFAULT_PRIORITY, Sql};
use super::statement_variants::refresh_queue_size;
use crate::clock::{from_micros, micros, to_micros};
use crate::store::blobs::{BLOB_MISSING, MESSAGE_DELETED, add_blobs};
use crate::store::claim_cursor::{ClaimCursor, ClaimCursors};
use crate::store::recipients::remove_completed;
use crate::store::row::{Problems, add_delivery_columns, corrupt, parse_traceparent, read_last_attempt};
use crate::store::{Claim, LastAttempt, Lease, LeaseKey, RecipientOutcome, StoreError};

/// Claims due deliveries. The statement looks up each priority in the index, the most urgent first, so that it never scans rows that are
/// scheduled for later. Leased rows keep their position in the index. The scan skips them until their lease ends. `$5` and `$6` hold the
/// due time and the id to begin at, for each priority.
///
/// The limit is in a subquery to hide it from the planner. If the queue was last analysed while it was empty, or while all of it was
/// scheduled for later, the planner expects almost no due rows. If it knew the limit, it would read and sort the whole backlog for each
/// claim. Without the limit it assumes that a tenth of the due rows are needed, and reads the rows in the order of the index.
///
/// The statement returns the most common value of a column as null, to save time. For the priority, the format and `when_in_doubt`, null
/// means the default. For the number of blobs it means 0, and for the date of the mail, the due time. In the first claim of a delivery,
/// the counts are null, and so is the start of the cycle, which is then the date of the mail.
///
/// The claim takes rows as long as their mails fit into `$7` bytes, and at least one row. The other rows that it found stay unchanged, and
/// are locked until the transaction ends.
///
/// A counter stops just below the largest value of its column: an overflow in one row would fail the whole claim. A row whose delivery is
/// gone has no recipients.
pub(super) const CLAIM: &str = r#"
    WITH claimed AS (
        UPDATE "{s}".queue q
        SET lease_until = (SELECT {now} + $2 * interval '1 microsecond'), leased_at = (SELECT {now}), leased_by = $8, abandoned_at = leased_at,
            token = CASE WHEN token < 0 THEN -greatest(token, -9223372036854775807) ELSE least(token, 9223372036854775806) + 1 END,
            attempts = least(attempts, 2147483646) + (leased_at IS NOT NULL)::int,
            charged_attempts = least(charged_attempts, 2147483646) + (leased_at IS NOT NULL)::int
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
           CASE WHEN c.token > 1 OR c.cycle > 1 THEN ARRAY[c.attempts, c.cycle, c.charged_attempts, c.has_outcomes::int, (c.abandoned_at IS NOT NULL)::int] END,
           CASE WHEN c.token > 1 OR c.cycle > 1 THEN c.cycle_started_at END,
           nullif(greatest(d.created_at, d.send_at), c.due_at), nullif(b.format, '{format}'), b.body, b.text, b.html, nullif(b.blobs, 0),
           d.recipients, d.template_id, nullif(d.when_in_doubt, '{when_in_doubt}'), left(d.traceparent, 56)
    FROM claimed c
    LEFT JOIN "{s}".deliveries d ON d.id = c.delivery_id
    LEFT JOIN "{s}".bodies b ON b.delivery_id = c.delivery_id"#;

/// Selects the attempt with the highest number of each delivery.
pub(super) const LAST_ATTEMPTS: &str = r#"
    SELECT a.delivery_id, a.cycle::bigint, a.finished_at, a.outcome::text, a.scope::text, a.sure, left(a.error, 1000) error FROM unnest((SELECT $1::uuid[])) u (id)
    CROSS JOIN LATERAL (
        SELECT * FROM "{s}".attempts WHERE delivery_id = u.id ORDER BY number DESC LIMIT 1) a"#;

/// Deletes the rows of deliveries whose mails are gone.
pub(super) const DELETE_ORPHANS: &str = r#"
    WITH queue AS (DELETE FROM "{s}".queue WHERE delivery_id = ANY ($1)),
         ended AS (DELETE FROM "{s}".ended WHERE delivery_id = ANY ($1)),
         attempts AS (DELETE FROM "{s}".attempts WHERE delivery_id = ANY ($1)),
         bodies AS (DELETE FROM "{s}".bodies WHERE delivery_id = ANY ($1)),
         carried AS (DELETE FROM "{s}".body_blobs WHERE delivery_id = ANY ($1))
    DELETE FROM "{s}".recipients WHERE delivery_id = ANY ($1)"#;

/// Releases the deliveries of a claim, which are due again at once. A lost attempt that the claim recorded for an earlier holder stays.
/// There is no index for this rare statement.
pub(super) const RELEASE_CLAIMS: &str = r#"
    UPDATE "{s}".queue SET token = -1 - token, leased_at = NULL, leased_by = 0, abandoned_at = NULL, lease_until = '-infinity'
    WHERE leased_by = ANY ($1) AND leased_at IS NOT NULL"#;

/// The columns of the claim by position, since a lookup by name would cost time for each row.
mod column {
    pub(super) const ID: usize = 0;
    pub(super) const TOKEN: usize = 1;
    pub(super) const PRIORITY: usize = 2;
    pub(super) const DUE_AT: usize = 3;
    pub(super) const CLAIMED_AT: usize = 4;
    pub(super) const EXPIRES_AT: usize = 5;
    pub(super) const PROGRESS: usize = 6;
    pub(super) const CYCLE_STARTED_AT: usize = 7;
    pub(super) const DATED_AT: usize = 8;
    pub(super) const FORMAT: usize = 9;
    pub(super) const BODY: usize = 10;
    pub(super) const TEXT: usize = 11;
    pub(super) const HTML: usize = 12;
    pub(super) const BLOBS: usize = 13;
    pub(super) const RECIPIENTS: usize = 14;
    pub(super) const TEMPLATE_ID: usize = 15;
    pub(super) const WHEN_IN_DOUBT: usize = 16;
    pub(super) const TRACEPARENT: usize = 17;
}

pub(super) async fn claim(
    connection: &mut PgConnection,
    sql: &Sql,
    claim: Claim,
    cursors: &ClaimCursors<QueuePosition>,
    now: Option<Moment>,
) -> Result<Vec<Lease>, StoreError> {
    refresh_queue_size(connection, sql).await?;
    let mut start = cursors.claim_start(Instant::now());
    let mut rows = claim_rows(connection, sql, claim, &start.cursor, now).await?;
    if rows.is_empty() && start.cursor != ClaimCursor::default() {
        start = cursors.rewind(Instant::now());
        rows = claim_rows(connection, sql, claim, &start.cursor, now).await?;
    }
    let positions = rows.iter().map(|row| (row.priority, row.position));
    cursors.advance(&start, rows.len() >= claim.limit, positions);
    // The most urgent first. To sort them, the server would copy every mail.
    rows.sort_by_cached_key(|row| (Reverse(row.priority), row.position));
    let ids = |has: fn(&ClaimedRow) -> bool| rows.iter().filter(|row| has(row)).map(|row| row.position.1).collect();
    let (has_outcomes, retried): (Vec<Uuid>, Vec<Uuid>) =
        (ids(|row| row.has_outcomes), ids(|row| row.lease.attempts > 0));
    let mut outcomes: HashMap<Uuid, Vec<RecipientOutcome>> = HashMap::new();
    for (id, outcome) in read_outcomes(connection, sql, &has_outcomes).await? {
        outcomes.entry(id).or_default().push(outcome);
    }
    for row in rows.iter_mut().filter(|row| row.has_outcomes) {
        remove_completed(&mut row.lease, outcomes.get(&row.position.1).map_or(&[][..], Vec::as_slice));
    }
    attach_blobs(connection, sql, &mut rows).await?;
    let mut last = last_attempts(connection, sql, retried).await?;
    Ok(rows.into_iter().map(|row| row.lease.with_last(last.remove(&row.position.1))).collect())
}

/// Adds the blobs that are stored apart. A lease whose blobs are not all there is malformed.
async fn attach_blobs(connection: &mut PgConnection, sql: &Sql, rows: &mut [ClaimedRow]) -> Result<(), StoreError> {
    let ids: Vec<Uuid> = rows.iter().filter(|row| row.has_blobs).map(|row| row.position.1).collect();
    let (carried, blobs) = read_blobs(connection, sql, &ids).await?;
    for row in rows.iter_mut().filter(|row| row.has_blobs) {
        let hashes = carried.get(&row.position.1).map_or(&[][..], Vec::as_slice);
        if hashes.is_empty() || !add_blobs(&mut row.lease.message, hashes, &blobs) {
            row.lease.malformed.get_or_insert_with(|| BLOB_MISSING.to_owned());
        }
    }
    Ok(())
}

/// Reads the last attempt of each delivery that has one.
async fn last_attempts(
    connection: &mut PgConnection,
    sql: &Sql,
    ids: Vec<Uuid>,
) -> Result<HashMap<Uuid, LastAttempt>, StoreError> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sql.query(&sql.last_attempts).bind(ids).fetch_all(connection).await?;
    rows.iter()
        .filter_map(|row| Some((read_value(row, 0), read_last_attempt(row)?)))
        .map(|(id, last)| Ok((id?, last)))
        .collect()
}

/// The position of a delivery in the index of its priority: its due time in microseconds, and its id. All deliveries of one transaction may
/// have the same due time.
pub(super) type QueuePosition = (i64, Uuid);

/// A claimed row.
struct ClaimedRow {
    priority: i64,
    position: QueuePosition,
    /// Whether some recipients have recorded outcomes. The lease still has all recipients.
    has_outcomes: bool,
    /// Whether blobs of the message are stored apart. The lease does not have them yet.
    has_blobs: bool,
    lease: Lease,
}

/// Claims due deliveries from the cursor on. It deletes rows without a delivery, and repeats the claim if there were no others.
async fn claim_rows(
    connection: &mut PgConnection,
    sql: &Sql,
    claim: Claim,
    cursor: &ClaimCursor<QueuePosition>,
    now: Option<Moment>,
) -> Result<Vec<ClaimedRow>, StoreError> {
    loop {
        let (rows, orphans) = claim_rows_once(connection, sql, claim, cursor, now).await?;
        if orphans.is_empty() {
            return Ok(rows);
        }
        crate::store::warn_of_orphans(orphans.len());
        sql.query(&sql.delete_orphans).bind(orphans).execute(&mut *connection).await?;
        if !rows.is_empty() {
            return Ok(rows);
        }
    }
}

/// Returns the claimed rows, and the ids of rows without a delivery. It reads each row while the server produces the next.
async fn claim_rows_once(
    connection: &mut PgConnection,
    sql: &Sql,
    claim: Claim,
    cursor: &ClaimCursor<QueuePosition>,
    now: Option<Moment>,
) -> Result<(Vec<ClaimedRow>, Vec<Uuid>), StoreError> {
    let mut rows = sql
        .query(sql.variant(&sql.claim))
        .bind(now)
        .bind(micros(claim.lease))
        .bind(claim.due_by.map(Moment))
        .bind(i64::try_from(claim.limit).unwrap_or(i64::MAX))
        .bind(cursor.map(|from| from.map(|(due_at, _)| Moment(from_micros(due_at)))))
        .bind(cursor.map(|from| from.map(|(_, id)| id)))
        .bind(i64::try_from(claim.max_bytes).unwrap_or(i64::MAX))
        .bind(claim.id.number())
        .fetch(connection);
    let (mut claimed, mut orphans) = (Vec::new(), Vec::new());
    while let Some(row) = rows.try_next().await? {
        let delivery: Option<&[u8]> = read_value(&row, column::RECIPIENTS)?;
        match delivery {
            Some(_) => claimed.push(read_claimed_row(&row)?),
            None => orphans.push(read_value(&row, column::ID)?),
        }
    }
    Ok((claimed, orphans))
}

/// Reads a claimed row. A value of the wrong type is an error. A malformed text or count makes the lease malformed.
fn read_claimed_row(row: &PgRow) -> Result<ClaimedRow, StoreError> {
    let mut problems = Problems::default();
    let id: Uuid = read_value(row, column::ID)?;
    let key = LeaseKey { id: id.into(), token: read_value(row, column::TOKEN)? };
    if key.token == i64::MAX {
        problems.unwrap_or(Err(corrupt("the token has its largest value")), ());
    }
    let format = problems.unwrap_or(read_text(row, column::FORMAT), None).unwrap_or(DEFAULT_FORMAT);
    let body = problems.unwrap_or(read_text(row, column::BODY), None);
    let body = problems.unwrap_or(body.ok_or_else(|| corrupt(MESSAGE_DELETED)), "");
    let mut message = Encoded::new(format, body);
    message.text = problems.unwrap_or(read_text(row, column::TEXT), None).map(str::to_owned);
    message.html = problems.unwrap_or(read_text(row, column::HTML), None).map(str::to_owned);
    let blobs: Option<i16> = read_value(row, column::BLOBS)?;
    let due_at = read_time(row, column::DUE_AT)?;
    let dated_at = read_time_or_null(row, column::DATED_AT)?.unwrap_or(due_at);
    let progress: Option<Vec<i32>> = read_value(row, column::PROGRESS)?;
    let [attempts, cycle, charged_attempts, has_outcomes, lost] = match progress.as_deref() {
        None => [0, 1, 0, 0, 0],
        Some(progress) => progress.try_into().map_err(|_| corrupt("a count is missing"))?,
    };
    let lease = Lease {
        dated_at,
        template_id: problems.unwrap_or(read_text(row, column::TEMPLATE_ID), None).map(str::to_owned),
        traceparent: parse_traceparent(read_value(row, column::TRACEPARENT)?),
        attempts: problems.unwrap_or(count(attempts), 0),
        cycle: problems.unwrap_or(count(cycle), 1),
        charged_attempts: problems.unwrap_or(count(charged_attempts), 0),
        cycle_started_at: read_time_or_null(row, column::CYCLE_STARTED_AT)?.unwrap_or(dated_at),
        expires_at: read_time_or_null(row, column::EXPIRES_AT)?,
        lost: lost != 0,
        ..Lease::new(key, read_time(row, column::CLAIMED_AT)?, message, Vec::new())
    };
    let priority: Option<i16> = read_value(row, column::PRIORITY)?;
    let recipients = read_text(row, column::RECIPIENTS).map(Option::unwrap_or_default);
    let when_in_doubt = read_text(row, column::WHEN_IN_DOUBT).and_then(|text| match text {
        Some(text) => text.parse().map_err(|error| corrupt(&format!("when_in_doubt: {error}"))),
        None => Ok(DEFAULT_IN_DOUBT),
    });
    Ok(ClaimedRow {
        priority: priority.map_or(DEFAULT_PRIORITY.level().into(), i64::from),
        position: (to_micros(due_at), id),
        has_outcomes: has_outcomes != 0,
        has_blobs: blobs.is_some(),
        lease: add_delivery_columns(lease, recipients, when_in_doubt, problems),
    })
}

/// Reads a column. The statement fixes its type, so the check for each row is unnecessary.
fn read_value<'r, T: Decode<'r, Postgres>>(row: &'r PgRow, column: usize) -> Result<T, StoreError> {
    Ok(row.try_get_unchecked(column)?)
}

/// Reads a text. In a database without an encoding (`SQL_ASCII`) it may be any bytes.
fn read_text(row: &PgRow, column: usize) -> Result<Option<&str>, StoreError> {
    let bytes: Option<&[u8]> = read_value(row, column)?;
    bytes.map(utf8).transpose()
}

fn utf8(bytes: &[u8]) -> Result<&str, StoreError> {
    std::str::from_utf8(bytes).map_err(|_| corrupt("a text is not valid UTF-8"))
}

fn read_time(row: &PgRow, column: usize) -> Result<SystemTime, StoreError> {
    let Moment(time) = read_value(row, column)?;
    Ok(time)
}

fn read_time_or_null(row: &PgRow, column: usize) -> Result<Option<SystemTime>, StoreError> {
    let moment: Option<Moment> = read_value(row, column)?;
    Ok(moment.map(|Moment(time)| time))
}

fn count(number: i32) -> Result<u32, StoreError> {
    u32::try_from(number).map_err(|_| corrupt("a count is out of range"))
}
