//! Leasing what is due, in one short transaction that waits for nobody.

use std::collections::HashMap;
use std::time::Instant;

use postrider_transport::{DeliveryId, Encoded};
use sqlx::mysql::{MySqlConnection, MySqlRow};
use sqlx::{Connection, Row};

use super::rows::{attempt_item, id, list, numbered, recorded};
use super::sql::{BEGIN, Sql};
use crate::clock::{from_micros, micros, to_micros};
use crate::delivery::{Attempt, Lease, LeaseKey, RecipientOutcome};
use crate::state::Outcome;
use crate::store::floor::{Floor, Floors};
use crate::store::recipients::narrow;
use crate::store::sql::{Columns, addressed, count};
use crate::store::{Claim, StoreError};

pub(super) async fn claim(
    connection: &mut MySqlConnection,
    sql: &Sql,
    claim: Claim,
    floors: &Floors<i64>,
    test_now: Option<i64>,
) -> Result<Vec<Lease>, StoreError> {
    let mut look = floors.next(Instant::now());
    let (mut leases, mut took) = take(connection, sql, claim, &look.floor, test_now).await?;
    if leases.is_empty() && look.floor != Floor::default() {
        look = floors.beginning(Instant::now());
        (leases, took) = take(connection, sql, claim, &look.floor, test_now).await?;
    }
    floors.took(&look, took.len() >= claim.limit, took);
    Ok(leases)
}

/// Claims what is due from the floor on. With the leases comes, for each row, its priority and when it was due.
async fn take(
    connection: &mut MySqlConnection,
    sql: &Sql,
    claim: Claim,
    floor: &Floor<i64>,
    test_now: Option<i64>,
) -> Result<(Vec<Lease>, Vec<(i64, i64)>), StoreError> {
    // Looking takes no lock and no transaction: an idle relay costs the server little.
    let firsts = sql.first_due(test_now, floor).fetch_all(&mut *connection).await?;
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
    let mut rows = Vec::new();
    let mut took = Vec::new();
    for (level, first) in levels {
        let room = i64::try_from(claim.limit - rows.len()).unwrap_or(i64::MAX);
        // From the first one on, so that what was settled before it is not walked over a second time.
        let due = sql.query(&sql.due).bind(level).bind(first).bind(due_by).bind(room).fetch_all(&mut *tx).await?;
        for row in &due {
            took.push((level, row.number("due_at")?));
        }
        rows.extend(due);
        if rows.len() >= claim.limit {
            break;
        }
    }
    if rows.is_empty() {
        tx.rollback().await?;
        return Ok((Vec::new(), Vec::new()));
    }
    let mut ids = Vec::with_capacity(rows.len());
    let mut lost = Vec::new();
    let mut partial = Vec::new();
    for row in &rows {
        let id = id(row, "delivery_id")?;
        ids.push((id, i64::from(is_leased(row)?)));
        if row.flag("partial")? {
            partial.push(id);
        }
        if let Some(item) = lost_item(row, id, now)? {
            lost.push(item);
        }
    }
    let ids = numbered(ids);
    let found = sql.query(&sql.messages).bind(&ids).fetch_all(&mut *tx).await?;
    let messages: HashMap<DeliveryId, MySqlRow> =
        found.into_iter().map(|row| Ok((id(&row, "id")?, row))).collect::<Result<_, StoreError>>()?;
    let mut outcomes: HashMap<DeliveryId, Vec<RecipientOutcome>> = HashMap::new();
    for (id, outcome) in recorded(&mut tx, sql, &partial).await? {
        outcomes.entry(id).or_default().push(outcome);
    }
    let mut leases = Vec::with_capacity(rows.len());
    for row in &rows {
        let id = id(row, "delivery_id")?;
        if let Some(message) = messages.get(&id) {
            let recorded = outcomes.get(&id).map_or(&[][..], Vec::as_slice);
            leases.push(lease(row, id, message, recorded, now)?);
        }
    }
    if !lost.is_empty() {
        sql.query(&sql.record_attempts).bind(list(lost)).execute(&mut *tx).await?;
    }
    sql.query(&sql.take).bind(ids).bind(now).bind(now.saturating_add(micros(claim.lease))).execute(&mut *tx).await?;
    tx.commit().await?;
    Ok((leases, took))
}

fn is_leased(row: &MySqlRow) -> Result<bool, StoreError> {
    Ok(row.number("leased_at")? != 0)
}

/// The attempt of a holder that vanished, which held the token that is still in the row.
fn lost_item(row: &MySqlRow, id: DeliveryId, now: i64) -> Result<Option<serde_json::Value>, StoreError> {
    if !is_leased(row)? {
        return Ok(None);
    }
    let leased_at = row.number("leased_at")?;
    let (number, cycle) = (count(row, "attempts")? + 1, count(row, "cycle")?);
    let attempt = Attempt::new(number, cycle, from_micros(leased_at), from_micros(now), Outcome::Lost);
    Ok(Some(attempt_item(LeaseKey { id, token: row.number("token")? }, &attempt)))
}

/// The lease as it will be once the update is made.
fn lease(
    row: &MySqlRow,
    id: DeliveryId,
    message: &MySqlRow,
    recorded: &[RecipientOutcome],
    now: i64,
) -> Result<Lease, StoreError> {
    let lost = is_leased(row)?;
    let key = LeaseKey { id, token: row.number("token")? + 1 };
    let encoded = Encoded { format: message.try_get("format")?, body: message.try_get("body")? };
    let lease = Lease {
        dated_at: from_micros(message.number("dated_at")?),
        template_id: message.text_or_null("template_id")?,
        attempts: count(row, "attempts")? + u32::from(lost),
        cycle: count(row, "cycle")?,
        spent: count(row, "spent")? + u32::from(lost),
        cycle_started_at: from_micros(row.number("cycle_started_at")?),
        expires_at: row.number_or_null("expires_at")?.map(from_micros),
        lost,
        ..Lease::new(key, from_micros(now), encoded, Vec::new())
    };
    let mut lease = addressed(lease, message.text("recipients"), message.text("when_in_doubt"));
    narrow(&mut lease, recorded);
    Ok(lease)
}
