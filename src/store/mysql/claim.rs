//! Claims due deliveries in one short transaction that waits for no lock.

use std::collections::HashMap;
use std::time::Instant;

use postrider_transport::{DeliveryId, Encoded};
use sqlx::Connection;
use sqlx::mysql::{MySqlConnection, MySqlRow};

use super::blobs::{MessageBlobs, read_blobs};
use super::rows::{attempt_item, ids_json, json_array, read_id, read_outcomes};
use super::sql::{BEGIN, Sql};
use crate::clock::{from_micros, micros, to_micros};
use crate::delivery::Attempt;
use crate::state::Outcome;
use crate::store::blobs::{BLOB_MISSING, MESSAGE_DELETED};
use crate::store::claim_cursor::{ClaimCursor, ClaimCursors};
use crate::store::recipients::remove_completed;
use crate::store::row::{
    Columns, Problems, add_delivery_columns, corrupt, read_count, read_enum, read_last_attempt, read_traceparent,
};
use crate::store::{Claim, LastAttempt, Lease, LeaseKey, RecipientOutcome, StoreError};

pub(super) async fn claim(
    connection: &mut MySqlConnection,
    sql: &Sql,
    claim: Claim,
    cursors: &ClaimCursors<i64>,
    test_now: Option<i64>,
) -> Result<Vec<Lease>, StoreError> {
    let mut start = cursors.claim_start(Instant::now());
    let (mut leases, mut positions) = claim_rows(connection, sql, claim, &start.cursor, test_now).await?;
    while leases.is_empty() && !positions.is_empty() {
        // All rows of this claim were without a mail.
        (leases, positions) = claim_rows(connection, sql, claim, &start.cursor, test_now).await?;
    }
    if leases.is_empty() && start.cursor != ClaimCursor::default() {
        start = cursors.rewind(Instant::now());
        (leases, positions) = claim_rows(connection, sql, claim, &start.cursor, test_now).await?;
    }
    cursors.advance(&start, positions.len() >= claim.limit, positions);
    Ok(leases)
}

/// The priorities with a due delivery.
struct DuePriorities {
    /// The time by the server's clock, or by the test clock.
    now: i64,
    /// The latest due time that the claim takes.
    due_by: i64,
    /// Each priority with its first due time, the most urgent first.
    priorities: Vec<(i64, i64)>,
}

/// Selects the first due time of each priority, the most urgent first, and the current time. Each priority costs one index lookup, so that
/// the statement never scans rows that are scheduled for later. Each priority, from 9 down, has a parameter for the time to begin at.
///
/// The server looks up a minimum while it plans the statement. `ORDER BY … LIMIT 1` would take three times as long.
pub(super) fn first_due() -> String {
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

/// Finds the priorities with a due delivery. `None` if nothing is due.
async fn find_due_priorities(
    connection: &mut MySqlConnection,
    sql: &Sql,
    claim: Claim,
    cursor: &ClaimCursor<i64>,
    test_now: Option<i64>,
) -> Result<Option<DuePriorities>, StoreError> {
    // This read takes no lock and no transaction, so that an idle relay costs the server little.
    let rows = sql.first_due(test_now, cursor).fetch_all(connection).await?;
    let Some(first) = rows.first() else {
        return Ok(None);
    };
    let now = first.number("now")?;
    let due_by = claim.due_by.map_or(now, |time| to_micros(time).min(now));
    let mut priorities = Vec::new();
    for row in &rows {
        let due_at = row.number("due_at")?;
        if due_at <= due_by {
            priorities.push((row.number("priority")?, due_at));
        }
    }
    Ok((!priorities.is_empty()).then_some(DuePriorities { now, due_by, priorities }))
}

/// Selects due rows. The index provides the order, so that the server locks no more rows than it returns. The server plans each execution
/// anew, with the value of the limit.
pub(super) const SELECT_DUE: &str = "
    SELECT delivery_id, size, due_at, leased_at, token, attempts, cycle, charged_attempts, cycle_started_at, expires_at, has_outcomes
    FROM {p}queue FORCE INDEX (queue_due)
    WHERE priority = ? AND due_at >= ? AND due_at <= ? ORDER BY due_at LIMIT ? FOR UPDATE SKIP LOCKED";

pub(super) const MESSAGES: &str = "
    SELECT d.id, GREATEST(d.created_at, COALESCE(d.send_at, d.created_at)) AS dated_at, d.format, d.`body`, d.`text`, d.html, d.blobs_size,
           d.recipients, d.template_id, d.when_in_doubt, LEFT(d.traceparent, 56) AS traceparent
    FROM {keys} {p}deliveries d FORCE INDEX (PRIMARY) ON d.id = UNHEX(k.id)";

/// Leases rows. The number beside an id is 1 if the last holder of the row vanished. A counter stops just below the largest value of its
/// column: an overflow in one row would fail the whole claim.
pub(super) const LEASE: &str = "
    UPDATE {keys} {p}queue q FORCE INDEX (PRIMARY) ON q.delivery_id = UNHEX(k.id)
    SET q.token = LEAST(q.token, 9223372036854775806) + 1, q.attempts = LEAST(q.attempts, 2147483646) + k.n,
        q.charged_attempts = LEAST(q.charged_attempts, 2147483646) + k.n, q.leased_at = ?, q.leased_by = ?, q.due_at = ?";

/// Selects the attempt with the highest number of each delivery.
pub(super) const LAST_ATTEMPTS: &str = "
    SELECT a.delivery_id, a.cycle, a.finished_at, a.outcome, a.scope, a.sure, LEFT(a.error, 1000) error
    FROM {keys} {p}attempts a FORCE INDEX (PRIMARY) ON a.delivery_id = UNHEX(k.id)
    WHERE a.number = (SELECT MAX(l.number) FROM {p}attempts l WHERE l.delivery_id = a.delivery_id)";

/// Claims due deliveries from the cursor on. Returns the leases, and the priority and due time of each row.
async fn claim_rows(
    connection: &mut MySqlConnection,
    sql: &Sql,
    claim: Claim,
    cursor: &ClaimCursor<i64>,
    test_now: Option<i64>,
) -> Result<(Vec<Lease>, Vec<(i64, i64)>), StoreError> {
    let Some(due) = find_due_priorities(connection, sql, claim, cursor, test_now).await? else {
        return Ok((Vec::new(), Vec::new()));
    };
    let now = due.now;
    let mut tx = connection.begin_with(BEGIN).await?;
    let mut found = Found::new(claim);
    for (priority, first_due) in due.priorities {
        let remaining = i64::try_from(claim.limit - found.rows.len()).unwrap_or(i64::MAX);
        // Begins at the first due row, so that index entries of settled deliveries before it are not scanned again.
        let query = sql.query(&sql.select_due).bind(priority).bind(first_due).bind(due.due_by).bind(remaining);
        let rows = query.fetch_all(&mut *tx).await?;
        if !found.add(priority, rows)? || found.rows.len() >= claim.limit {
            break;
        }
    }
    let Found { rows, positions, .. } = found;
    if rows.is_empty() {
        tx.rollback().await?;
        return Ok((Vec::new(), Vec::new()));
    }
    let mut ids = Vec::with_capacity(rows.len());
    let mut lost = Vec::new();
    let mut has_outcomes = Vec::new();
    let mut retried = Vec::new();
    for row in &rows {
        let id = read_id(row, "delivery_id")?;
        let is_lost = is_leased(row)?;
        ids.push((id, i64::from(is_lost)));
        if row.flag("has_outcomes")? {
            has_outcomes.push(id);
        }
        if is_lost {
            lost.push(lost_item(row, id, now)?);
        }
        if is_lost || row.number("attempts")? > 0 {
            retried.push((id, 0));
        }
    }
    let ids = ids_json(ids);
    let messages = sql.query(&sql.messages).bind(&ids).fetch_all(&mut *tx).await?;
    let messages: HashMap<DeliveryId, MySqlRow> =
        messages.into_iter().map(|row| Ok((read_id(&row, "id")?, row))).collect::<Result<_, StoreError>>()?;
    let carriers = messages.iter().filter(|(_, row)| row.number("blobs_size").is_ok_and(|size| size > 0));
    let carriers: Vec<DeliveryId> = carriers.map(|(id, _)| *id).collect();
    let blobs = read_blobs(&mut tx, sql, &carriers).await?;
    let mut outcomes: HashMap<DeliveryId, Vec<RecipientOutcome>> = HashMap::new();
    for (id, outcome) in read_outcomes(&mut tx, sql, &has_outcomes).await? {
        outcomes.entry(id).or_default().push(outcome);
    }
    if !lost.is_empty() {
        sql.query(&sql.record_attempts).bind(json_array(lost)).execute(&mut *tx).await?;
    }
    let mut last: HashMap<DeliveryId, LastAttempt> = HashMap::new();
    if !retried.is_empty() {
        for row in &sql.query(&sql.last_attempts).bind(ids_json(retried)).fetch_all(&mut *tx).await? {
            last.extend(
                read_last_attempt(row)
                    .map(|last| Ok::<_, StoreError>((read_id(row, "delivery_id")?, last)))
                    .transpose()?,
            );
        }
    }
    let mut leases = Vec::with_capacity(rows.len());
    let mut orphans = Vec::new();
    for row in &rows {
        let id = read_id(row, "delivery_id")?;
        match messages.get(&id) {
            Some(message) => {
                let recorded = outcomes.get(&id).map_or(&[][..], Vec::as_slice);
                leases.push(build_lease(row, id, message, &blobs, recorded, now)?.with_last(last.remove(&id)));
            }
            None => orphans.push((id, 0)),
        }
    }
    let until = now.saturating_add(micros(claim.lease));
    sql.query(&sql.lease).bind(ids).bind(now).bind(claim.id.number()).bind(until).execute(&mut *tx).await?;
    if !orphans.is_empty() {
        crate::store::warn_of_orphans(orphans.len());
        let orphans = ids_json(orphans);
        for text in &sql.delete_orphans {
            sql.query(text).bind(&orphans).execute(&mut *tx).await?;
        }
    }
    tx.commit().await?;
    Ok((leases, positions))
}

/// The rows that a claim has found so far.
struct Found {
    rows: Vec<MySqlRow>,
    /// The priority and the due time of each row.
    positions: Vec<(i64, i64)>,
    /// How many more bytes of mail fit into the claim.
    bytes_left: i64,
}

impl Found {
    fn new(claim: Claim) -> Self {
        Self { rows: Vec::new(), positions: Vec::new(), bytes_left: i64::try_from(claim.max_bytes).unwrap_or(i64::MAX) }
    }

    /// Adds rows as long as their mails fit, and the first row in any case. Returns whether all rows fit. The others stay unchanged, and
    /// are locked until the transaction ends.
    fn add(&mut self, priority: i64, rows: Vec<MySqlRow>) -> Result<bool, StoreError> {
        for row in rows {
            self.bytes_left = self.bytes_left.saturating_sub(row.number("size")?);
            if self.bytes_left < 0 && !self.rows.is_empty() {
                return Ok(false);
            }
            self.positions.push((priority, row.number("due_at")?));
            self.rows.push(row);
        }
        Ok(true)
    }
}

fn is_leased(row: &MySqlRow) -> Result<bool, StoreError> {
    Ok(row.number("leased_at")? != 0)
}

/// The lost attempt of a relay that vanished. Its token is still in the row.
fn lost_item(row: &MySqlRow, id: DeliveryId, now: i64) -> Result<serde_json::Value, StoreError> {
    let mut problems = Problems::default();
    let leased_at = row.number("leased_at")?;
    let number = problems.unwrap_or(read_count(row, "attempts"), 0).saturating_add(1);
    let cycle = problems.unwrap_or(read_count(row, "cycle"), 1);
    let attempt = Attempt::new(number, cycle, from_micros(leased_at), from_micros(now), Outcome::Lost);
    Ok(attempt_item(LeaseKey { id, token: row.number("token")? }, &attempt))
}

/// Builds the lease as it is after the update. A malformed column makes the lease malformed.
fn build_lease(
    row: &MySqlRow,
    id: DeliveryId,
    message: &MySqlRow,
    blobs: &MessageBlobs,
    recorded: &[RecipientOutcome],
    now: i64,
) -> Result<Lease, StoreError> {
    let mut problems = Problems::default();
    let lost = is_leased(row)?;
    let token = row.number("token")?;
    if token > i64::MAX - 2 {
        problems.unwrap_or(Err(corrupt("the token has its largest value")), ());
    }
    let key = LeaseKey { id, token: token.min(i64::MAX - 1) + 1 };
    let stored = problems.unwrap_or(read_message(message), Encoded::new("", ""));
    let (stored, complete) = blobs.add_to(id, stored, message.number("blobs_size")? > 0);
    if !complete {
        problems.unwrap_or(Err(corrupt(BLOB_MISSING)), ());
    }
    let count = |problems: &mut Problems, column| problems.unwrap_or(read_count(row, column), 0);
    let lease = Lease {
        dated_at: message.time("dated_at")?,
        template_id: message.text_or_null("template_id")?,
        traceparent: read_traceparent(message)?,
        attempts: count(&mut problems, "attempts").saturating_add(u32::from(lost)),
        cycle: count(&mut problems, "cycle"),
        charged_attempts: count(&mut problems, "charged_attempts").saturating_add(u32::from(lost)),
        cycle_started_at: row.time("cycle_started_at")?,
        expires_at: row.time_or_null("expires_at")?,
        lost,
        ..Lease::new(key, from_micros(now), stored, Vec::new())
    };
    let mut lease =
        add_delivery_columns(lease, message.text("recipients"), read_enum(message, "when_in_doubt"), problems);
    remove_completed(&mut lease, recorded);
    Ok(lease)
}

/// Reads the parts of a message that are in its row.
pub(super) fn read_message(row: &MySqlRow) -> Result<Encoded, StoreError> {
    let body = row.bytes("body")?.ok_or_else(|| corrupt(MESSAGE_DELETED))?;
    let utf8 = |bytes| std::str::from_utf8(bytes).map_err(|_| corrupt("a text is not valid UTF-8"));
    let mut message = Encoded::new(row.text("format")?, utf8(body)?);
    message.text = row.bytes("text")?.map(utf8).transpose()?.map(str::to_owned);
    message.html = row.bytes("html")?.map(utf8).transpose()?.map(str::to_owned);
    Ok(message)
}
