//! Claims due deliveries in one short transaction that waits for no lock.

use std::collections::HashMap;
use std::time::Instant;

use postrider_transport::{DeliveryId, Encoded};
use sqlx::Connection;
use sqlx::mysql::{MySqlConnection, MySqlRow};

use super::rows::{attempt_item, ids_json, json_array, read_id, read_outcomes};
use super::sql::{BEGIN, Sql};
use crate::clock::{from_micros, micros, to_micros};
use crate::delivery::Attempt;
use crate::state::Outcome;
use crate::store::claim_cursor::{ClaimCursor, ClaimCursors};
use crate::store::recipients::remove_completed;
use crate::store::row::{Columns, Problems, add_delivery_columns, corrupt, read_count, read_enum, read_last_attempt};
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
    let mut partial = Vec::new();
    let mut retried = Vec::new();
    for row in &rows {
        let id = read_id(row, "delivery_id")?;
        let is_lost = is_leased(row)?;
        ids.push((id, i64::from(is_lost)));
        if row.flag("partial")? {
            partial.push(id);
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
    let mut outcomes: HashMap<DeliveryId, Vec<RecipientOutcome>> = HashMap::new();
    for (id, outcome) in read_outcomes(&mut tx, sql, &partial).await? {
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
                leases.push(build_lease(row, id, message, recorded, now)?.with_last(last.remove(&id)));
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
    /// How many more octets of mail fit into the claim.
    octets_left: i64,
}

impl Found {
    fn new(claim: Claim) -> Self {
        Self {
            rows: Vec::new(),
            positions: Vec::new(),
            octets_left: i64::try_from(claim.max_bytes).unwrap_or(i64::MAX),
        }
    }

    /// Adds rows as long as their mails fit, and the first row in any case. Returns whether all rows fit. The others stay unchanged, and
    /// are locked until the transaction ends.
    fn add(&mut self, priority: i64, rows: Vec<MySqlRow>) -> Result<bool, StoreError> {
        for row in rows {
            self.octets_left = self.octets_left.saturating_sub(row.number("size")?);
            if self.octets_left < 0 && !self.rows.is_empty() {
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
    let format = problems.unwrap_or(message.text("format"), "").to_owned();
    let body = problems.unwrap_or(message.text("body"), "").to_owned();
    let count = |problems: &mut Problems, column| problems.unwrap_or(read_count(row, column), 0);
    let lease = Lease {
        dated_at: message.time("dated_at")?,
        template_id: message.text_or_null("template_id")?,
        attempts: count(&mut problems, "attempts").saturating_add(u32::from(lost)),
        cycle: count(&mut problems, "cycle"),
        charged_attempts: count(&mut problems, "spent").saturating_add(u32::from(lost)),
        cycle_started_at: row.time("cycle_started_at")?,
        expires_at: row.time_or_null("expires_at")?,
        lost,
        ..Lease::new(key, from_micros(now), Encoded::new(format, body), Vec::new())
    };
    let mut lease =
        add_delivery_columns(lease, message.text("recipients"), read_enum(message, "when_in_doubt"), problems);
    remove_completed(&mut lease, recorded);
    Ok(lease)
}
