//! Leasing what is due, in one statement.

use std::collections::HashMap;

use postrider_transport::Encoded;
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::rows::{Moment, recorded};
use super::sql::Sql;
use crate::clock::micros;
use crate::delivery::{Lease, LeaseKey, RecipientOutcome};
use crate::store::sql::{addressed, corrupt};
use crate::store::{Claim, StoreError};

/// The columns of the claim, in their order: a name would be looked up for each row anew.
mod column {
    pub(super) const ID: usize = 0;
    pub(super) const TOKEN: usize = 1;
    pub(super) const ATTEMPTS: usize = 2;
    pub(super) const CYCLE: usize = 3;
    pub(super) const SPENT: usize = 4;
    pub(super) const PARTIAL: usize = 5;
    pub(super) const LOST: usize = 6;
    pub(super) const CLAIMED_AT: usize = 7;
    pub(super) const CYCLE_STARTED_AT: usize = 8;
    pub(super) const EXPIRES_AT: usize = 9;
    pub(super) const DATED_AT: usize = 10;
    pub(super) const FORMAT: usize = 11;
    pub(super) const BODY: usize = 12;
    pub(super) const RECIPIENTS: usize = 13;
    pub(super) const TEMPLATE_ID: usize = 14;
    pub(super) const WHEN_IN_DOUBT: usize = 15;
}

pub(super) async fn claim(
    connection: &mut PgConnection,
    sql: &Sql,
    claim: Claim,
    now: Option<Moment>,
) -> Result<Vec<Lease>, StoreError> {
    let rows = sql
        .query(&sql.claim)
        .bind(now)
        .bind(micros(claim.lease))
        .bind(claim.due_by.map(Moment))
        .bind(i64::try_from(claim.limit).unwrap_or(i64::MAX))
        .fetch_all(&mut *connection)
        .await?;
    let partial = rows.iter().filter(|row| row.try_get(column::PARTIAL).unwrap_or(false));
    let partial: Vec<Uuid> = partial.map(|row| row.try_get(column::ID)).collect::<Result<_, _>>()?;
    let mut outcomes: HashMap<Uuid, Vec<RecipientOutcome>> = HashMap::new();
    for (id, outcome) in recorded(connection, sql, &partial).await? {
        outcomes.entry(id).or_default().push(outcome);
    }
    rows.iter().map(|row| lease(row, &outcomes)).collect()
}

fn lease(row: &PgRow, outcomes: &HashMap<Uuid, Vec<RecipientOutcome>>) -> Result<Lease, StoreError> {
    let id: Uuid = row.try_get(column::ID)?;
    let key = LeaseKey { id: id.into(), token: row.try_get(column::TOKEN)? };
    let message = Encoded { format: row.try_get(column::FORMAT)?, body: row.try_get(column::BODY)? };
    let recorded = if outcomes.is_empty() { &[][..] } else { outcomes.get(&id).map_or(&[][..], Vec::as_slice) };
    let time = |column| row.try_get(column).map(|Moment(time)| time);
    let lease = Lease {
        dated_at: time(column::DATED_AT)?,
        template_id: row.try_get(column::TEMPLATE_ID)?,
        attempts: count(row, column::ATTEMPTS)?,
        cycle: count(row, column::CYCLE)?,
        spent: count(row, column::SPENT)?,
        cycle_started_at: time(column::CYCLE_STARTED_AT)?,
        expires_at: row.try_get::<Option<Moment>, _>(column::EXPIRES_AT)?.map(|Moment(time)| time),
        lost: row.try_get(column::LOST)?,
        ..Lease::new(key, time(column::CLAIMED_AT)?, message, Vec::new())
    };
    let text = |column| row.try_get(column).map_err(StoreError::from);
    Ok(addressed(lease, text(column::RECIPIENTS), text(column::WHEN_IN_DOUBT), recorded))
}

fn count(row: &PgRow, column: usize) -> Result<u32, StoreError> {
    u32::try_from(row.try_get::<i32, _>(column)?).map_err(|_| corrupt("a count is out of range"))
}
