//! Leasing what is due, in one statement.

use std::collections::HashMap;

use postrider_transport::Encoded;
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::rows::{id, recorded};
use super::sql::Sql;
use crate::clock::{from_micros, micros, to_micros};
use crate::delivery::{Lease, LeaseKey, RecipientOutcome};
use crate::store::sql::{addressed, count};
use crate::store::{Claim, StoreError};

pub(super) async fn claim(
    connection: &mut PgConnection,
    sql: &Sql,
    claim: Claim,
    now: Option<i64>,
) -> Result<Vec<Lease>, StoreError> {
    let rows = sql
        .query(&sql.claim)
        .bind(now)
        .bind(micros(claim.lease))
        .bind(claim.due_by.map(to_micros))
        .bind(i64::try_from(claim.limit).unwrap_or(i64::MAX))
        .fetch_all(&mut *connection)
        .await?;
    let partial = rows.iter().filter(|row| row.try_get("partial").unwrap_or(false));
    let partial: Vec<Uuid> = partial.map(|row| row.try_get("delivery_id")).collect::<Result<_, _>>()?;
    let mut outcomes: HashMap<Uuid, Vec<RecipientOutcome>> = HashMap::new();
    for (id, outcome) in recorded(connection, sql, &partial).await? {
        outcomes.entry(id).or_default().push(outcome);
    }
    rows.iter().map(|row| lease(row, &outcomes)).collect()
}

fn lease(row: &PgRow, outcomes: &HashMap<Uuid, Vec<RecipientOutcome>>) -> Result<Lease, StoreError> {
    let key = LeaseKey { id: id(row, "delivery_id")?, token: row.try_get("token")? };
    let message = Encoded { format: row.try_get("format")?, body: row.try_get("body")? };
    let recorded = outcomes.get(&key.id.as_uuid()).map_or(&[][..], Vec::as_slice);
    let lease = Lease {
        dated_at: from_micros(row.try_get("dated_at")?),
        template_id: row.try_get("template_id")?,
        attempts: count(row, "attempts")?,
        cycle: count(row, "cycle")?,
        spent: count(row, "spent")?,
        cycle_started_at: from_micros(row.try_get("cycle_started_at")?),
        expires_at: row.try_get::<Option<i64>, _>("expires_at")?.map(from_micros),
        lost: row.try_get("lost")?,
        ..Lease::new(key, from_micros(row.try_get("claimed_at")?), message, Vec::new())
    };
    Ok(addressed(lease, row, recorded))
}
