//! Leasing what is due, in one short transaction that waits for nobody.

use std::collections::HashMap;
use std::time::Instant;

use postrider_transport::{DeliveryId, Encoded};
use sqlx::Connection;
use sqlx::mysql::{MySqlConnection, MySqlRow};

use super::rows::{attempt_item, id, list, numbered, recorded};
use super::sql::{BEGIN, Sql};
use crate::clock::{from_micros, micros, to_micros};
use crate::delivery::Attempt;
use crate::state::Outcome;
use crate::store::claim_cursor::{ClaimCursor, ClaimCursors};
use crate::store::recipients::remove_completed;
use crate::store::row::{Columns, Problems, addressed, corrupt, count, last_attempt, word};
use crate::store::{Claim, LastAttempt, Lease, LeaseKey, RecipientOutcome, StoreError};

pub(super) async fn claim(
    connection: &mut MySqlConnection,
    sql: &Sql,
    claim: Claim,
    cursors: &ClaimCursors<i64>,
    test_now: Option<i64>,
) -> Result<Vec<Lease>, StoreError> {
    let mut look = cursors.next(Instant::now());
    let (mut leases, mut took) = take(connection, sql, claim, &look.cursor, test_now).await?;
    while leases.is_empty() && !took.is_empty() {
        // All of these had lost their mails.
        (leases, took) = take(connection, sql, claim, &look.cursor, test_now).await?;
    }
    if leases.is_empty() && look.cursor != ClaimCursor::default() {
        look = cursors.beginning(Instant::now());
        (leases, took) = take(connection, sql, claim, &look.cursor, test_now).await?;
    }
    cursors.took(&look, took.len() >= claim.limit, took);
    Ok(leases)
}

/// Claims what is due from the cursor on. With the leases comes, for each row, its priority and when it was due.
async fn take(
    connection: &mut MySqlConnection,
    sql: &Sql,
    claim: Claim,
    cursor: &ClaimCursor<i64>,
    test_now: Option<i64>,
) -> Result<(Vec<Lease>, Vec<(i64, i64)>), StoreError> {
    // Looking takes no lock and no transaction: an idle relay costs the server little.
    let firsts = sql.first_due(test_now, cursor).fetch_all(&mut *connection).await?;
    let Some(first) = firsts.first() else {
        return Ok((Vec::new(), Vec::new()));
    };
    let now = first.number("now")?;
    let due_by = claim.due_by.map_or(now, |time| to_micros(time).min(now));
    let mut levels = Vec::new();
    for first in &firsts {
        let due_at = first.number("due_at")?;
        if due_at <= due_by {
            levels.push((first.number("priority")?, due_at));
        }
    }
    if levels.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }

    let mut tx = connection.begin_with(BEGIN).await?;
    let mut found = Found::new(claim);
    for (level, first) in levels {
        let room = i64::try_from(claim.limit - found.rows.len()).unwrap_or(i64::MAX);
        // From the first one on, so that what was settled before it is not walked over a second time.
        let due = sql.query(&sql.due).bind(level).bind(first).bind(due_by).bind(room).fetch_all(&mut *tx).await?;
        if !found.add(level, due)? || found.rows.len() >= claim.limit {
            break;
        }
    }
    let Found { rows, took, .. } = found;
    if rows.is_empty() {
        tx.rollback().await?;
        return Ok((Vec::new(), Vec::new()));
    }
    let mut ids = Vec::with_capacity(rows.len());
    let mut lost = Vec::new();
    let mut partial = Vec::new();
    let mut again = Vec::new();
    for row in &rows {
        let id = id(row, "delivery_id")?;
        let is_lost = is_leased(row)?;
        ids.push((id, i64::from(is_lost)));
        if row.flag("partial")? {
            partial.push(id);
        }
        if is_lost {
            lost.push(lost_item(row, id, now)?);
        }
        if is_lost || row.number("attempts")? > 0 {
            again.push((id, 0));
        }
    }
    let ids = numbered(ids);
    let messages = sql.query(&sql.messages).bind(&ids).fetch_all(&mut *tx).await?;
    let messages: HashMap<DeliveryId, MySqlRow> =
        messages.into_iter().map(|row| Ok((id(&row, "id")?, row))).collect::<Result<_, StoreError>>()?;
    let mut outcomes: HashMap<DeliveryId, Vec<RecipientOutcome>> = HashMap::new();
    for (id, outcome) in recorded(&mut tx, sql, &partial).await? {
        outcomes.entry(id).or_default().push(outcome);
    }
    if !lost.is_empty() {
        sql.query(&sql.record_attempts).bind(list(lost)).execute(&mut *tx).await?;
    }
    let mut last: HashMap<DeliveryId, LastAttempt> = HashMap::new();
    if !again.is_empty() {
        for row in &sql.query(&sql.last_attempts).bind(numbered(again)).fetch_all(&mut *tx).await? {
            last.extend(
                last_attempt(row).map(|last| Ok::<_, StoreError>((id(row, "delivery_id")?, last))).transpose()?,
            );
        }
    }
    let mut leases = Vec::with_capacity(rows.len());
    let mut orphans = Vec::new();
    for row in &rows {
        let id = id(row, "delivery_id")?;
        match messages.get(&id) {
            Some(message) => {
                let recorded = outcomes.get(&id).map_or(&[][..], Vec::as_slice);
                leases.push(lease(row, id, message, recorded, now)?.with_last(last.remove(&id)));
            }
            None => orphans.push((id, 0)),
        }
    }
    let until = now.saturating_add(micros(claim.lease));
    sql.query(&sql.take).bind(ids).bind(now).bind(claim.id.number()).bind(until).execute(&mut *tx).await?;
    if !orphans.is_empty() {
        crate::store::tell_of_orphans(orphans.len());
        let orphans = numbered(orphans);
        for text in &sql.forget_deliveries {
            sql.query(text).bind(&orphans).execute(&mut *tx).await?;
        }
    }
    tx.commit().await?;
    Ok((leases, took))
}

/// What a claim takes, as far as it has come.
struct Found {
    rows: Vec<MySqlRow>,
    /// For each row, its priority and when it was due.
    took: Vec<(i64, i64)>,
    /// How many octets of mail still fit.
    octets: i64,
}

impl Found {
    fn new(claim: Claim) -> Self {
        Self { rows: Vec::new(), took: Vec::new(), octets: i64::try_from(claim.max_bytes).unwrap_or(i64::MAX) }
    }

    /// Adds rows as long as their mails fit, and the first in any case; says whether all of them did. The others are locked until the
    /// transaction ends, and stay as they are.
    fn add(&mut self, level: i64, due: Vec<MySqlRow>) -> Result<bool, StoreError> {
        for row in due {
            self.octets = self.octets.saturating_sub(row.number("size")?);
            if self.octets < 0 && !self.rows.is_empty() {
                return Ok(false);
            }
            self.took.push((level, row.number("due_at")?));
            self.rows.push(row);
        }
        Ok(true)
    }
}

fn is_leased(row: &MySqlRow) -> Result<bool, StoreError> {
    Ok(row.number("leased_at")? != 0)
}

/// The attempt of a holder that vanished, which held the token that is still in the row.
fn lost_item(row: &MySqlRow, id: DeliveryId, now: i64) -> Result<serde_json::Value, StoreError> {
    let mut problems = Problems::default();
    let leased_at = row.number("leased_at")?;
    let number = problems.or(count(row, "attempts"), 0).saturating_add(1);
    let cycle = problems.or(count(row, "cycle"), 1);
    let attempt = Attempt::new(number, cycle, from_micros(leased_at), from_micros(now), Outcome::Lost);
    Ok(attempt_item(LeaseKey { id, token: row.number("token")? }, &attempt))
}

/// The lease as it will be once the update is made. What makes no sense in the row is in the lease.
fn lease(
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
        problems.or(Err(corrupt("the token is at its end")), ());
    }
    let key = LeaseKey { id, token: token.min(i64::MAX - 1) + 1 };
    let format = problems.or(message.text("format"), "").to_owned();
    let body = problems.or(message.text("body"), "").to_owned();
    let count = |problems: &mut Problems, column| problems.or(count(row, column), 0);
    let lease = Lease {
        dated_at: message.time("dated_at")?,
        template_id: message.text_or_null("template_id")?,
        attempts: count(&mut problems, "attempts").saturating_add(u32::from(lost)),
        cycle: count(&mut problems, "cycle"),
        charged_attempts: count(&mut problems, "spent").saturating_add(u32::from(lost)),
        cycle_started_at: row.time("cycle_started_at")?,
        expires_at: row.time_or_null("expires_at")?,
        lost,
        ..Lease::new(key, from_micros(now), Encoded { format, body }, Vec::new())
    };
    let mut lease = addressed(lease, message.text("recipients"), word(message, "when_in_doubt"), problems);
    remove_completed(&mut lease, recorded);
    Ok(lease)
}
