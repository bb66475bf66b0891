//! Leasing what is due.

use postrider_transport::Encoded;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Row, SqlitePool};

use super::rows::{id, recorded};
use crate::clock::{from_millis, millis, to_millis};
use crate::delivery::{Lease, LeaseKey};
use crate::store::recipients::narrow;
use crate::store::sql::{Columns, addressed, count};
use crate::store::{Claim, StoreError};

/// The priorities that have something due, most urgent first. Each costs one look at the index, so that rows scheduled for later
/// are never walked over.
const LEVELS_DUE: &str = "
    SELECT p.column1 FROM (VALUES (9), (8), (7), (6), (5), (4), (3), (2), (1), (0)) p
    WHERE EXISTS (SELECT 1 FROM postrider_queue WHERE priority = p.column1 AND due_at <= ?1)";

const FIRST_DUE: &str = "
    SELECT min((SELECT min(due_at) FROM postrider_queue WHERE priority = p.column1))
    FROM (VALUES (9), (8), (7), (6), (5), (4), (3), (2), (1), (0)) p";

const DUE: &str = "
    SELECT q.delivery_id, q.leased_at, q.token, q.attempts, q.cycle, q.spent, q.cycle_started_at, q.expires_at,
           max(d.created_at, coalesce(d.send_at, d.created_at)) AS dated_at, d.format, d.body, d.recipients, d.template_id, d.when_in_doubt,
           EXISTS (SELECT 1 FROM postrider_recipients r WHERE r.delivery_id = q.delivery_id) AS partial
    FROM postrider_queue q JOIN postrider_deliveries d ON d.id = q.delivery_id
    WHERE q.priority = ?1 AND q.due_at <= ?2
    ORDER BY q.due_at, q.delivery_id LIMIT ?3";

pub(super) async fn claim(pool: &SqlitePool, claim: Claim, now: i64) -> Result<Vec<Lease>, StoreError> {
    let due_by = claim.due_by.map_or(now, |time| to_millis(time).min(now));
    // Looking takes no lock: an idle relay does not keep writers waiting.
    let levels: Vec<i64> = sqlx::query_scalar(LEVELS_DUE).bind(due_by).fetch_all(pool).await?;
    if levels.is_empty() || claim.limit == 0 {
        return Ok(Vec::new());
    }
    let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
    let mut leases = Vec::new();
    let mut ids = Vec::new();
    for level in levels {
        let room = i64::try_from(claim.limit - leases.len()).unwrap_or(i64::MAX);
        let rows = sqlx::query(DUE).bind(level).bind(due_by).bind(room).fetch_all(&mut *tx).await?;
        for row in &rows {
            ids.push(row.try_get::<String, _>("delivery_id")?);
            leases.push(lease(&mut tx, row, now).await?);
        }
        if leases.len() >= claim.limit {
            break;
        }
    }
    let ids = serde_json::Value::from(ids).to_string();
    if leases.iter().any(|lease| lease.lost) {
        record_losses(&mut tx, &ids, now).await?;
    }
    sqlx::query(
        "UPDATE postrider_queue
         SET token = token + 1, leased_at = ?2, due_at = ?3,
             attempts = attempts + (leased_at IS NOT NULL), spent = spent + (leased_at IS NOT NULL)
         WHERE delivery_id IN (SELECT value FROM json_each(?1))",
    )
    .bind(ids)
    .bind(now)
    .bind(now.saturating_add(millis(claim.lease)))
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(leases)
}

/// The attempts of holders that vanished. They held the token that is still in the row.
async fn record_losses(connection: &mut SqliteConnection, ids: &str, now: i64) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO postrider_attempts (delivery_id, number, cycle, token, started_at, finished_at, outcome)
         SELECT delivery_id, attempts + 1, cycle, token, leased_at, ?2, 'lost' FROM postrider_queue
         WHERE leased_at IS NOT NULL AND delivery_id IN (SELECT value FROM json_each(?1))",
    )
    .bind(ids)
    .bind(now)
    .execute(connection)
    .await?;
    Ok(())
}

/// The lease as it will be once the update is made.
async fn lease(connection: &mut SqliteConnection, row: &SqliteRow, now: i64) -> Result<Lease, StoreError> {
    let lost = row.try_get::<Option<i64>, _>("leased_at")?.is_some();
    let key = LeaseKey { id: id(row, "delivery_id")?, token: row.try_get::<i64, _>("token")? + 1 };
    let (message, template_id, unreadable) = match mail(row) {
        Ok((message, template_id)) => (message, template_id, None),
        Err(error) => (Encoded { format: String::new(), body: String::new() }, None, Some(error.to_string())),
    };
    let lease = Lease {
        dated_at: from_millis(row.try_get("dated_at")?),
        template_id,
        attempts: count(row, "attempts")? + u32::from(lost),
        cycle: count(row, "cycle")?,
        spent: count(row, "spent")? + u32::from(lost),
        cycle_started_at: from_millis(row.try_get("cycle_started_at")?),
        expires_at: row.try_get::<Option<i64>, _>("expires_at")?.map(from_millis),
        lost,
        unreadable,
        ..Lease::new(key, from_millis(now), message, Vec::new())
    };
    let mut lease = addressed(lease, row.text("recipients"), row.text("when_in_doubt"));
    if row.try_get("partial")? {
        narrow(&mut lease, &recorded(connection, row.try_get("delivery_id")?).await?);
    }
    Ok(lease)
}

/// What another program may have written, and which SQLite takes for text whatever its octets are.
fn mail(row: &SqliteRow) -> Result<(Encoded, Option<String>), StoreError> {
    let message = Encoded { format: row.try_get("format")?, body: row.try_get("body")? };
    Ok((message, row.try_get("template_id")?))
}

pub(super) async fn first_due(pool: &SqlitePool) -> Result<Option<i64>, StoreError> {
    Ok(sqlx::query_scalar(FIRST_DUE).fetch_one(pool).await?)
}
