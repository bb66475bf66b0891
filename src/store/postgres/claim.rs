//! Leasing what is due, in one statement.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::Instant;

use postrider_transport::Encoded;
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::rows::{Moment, recorded};
use super::sql::Sql;
use crate::clock::{from_micros, micros, to_micros};
use crate::delivery::{Lease, LeaseKey, RecipientOutcome};
use crate::store::floor::{Floor, Floors};
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
    pub(super) const PRIORITY: usize = 16;
    pub(super) const DUE_AT: usize = 17;
}

pub(super) async fn claim(
    connection: &mut PgConnection,
    sql: &Sql,
    claim: Claim,
    floors: &Floors<Place>,
    now: Option<Moment>,
) -> Result<Vec<Lease>, StoreError> {
    let mut look = floors.next(Instant::now());
    let mut rows = take(connection, sql, claim, &look.floor, now).await?;
    if rows.is_empty() && look.floor != Floor::default() {
        look = floors.beginning(Instant::now());
        rows = take(connection, sql, claim, &look.floor, now).await?;
    }
    let mut rows = rows.into_iter().map(|row| Ok((place(&row)?, row))).collect::<Result<Vec<_>, StoreError>>()?;
    floors.took(&look, rows.len() >= claim.limit, rows.iter().map(|(place, _)| *place));
    // Most urgent first. The server would copy every mail to put them into this order.
    rows.sort_unstable_by_key(|((priority, place), _)| (Reverse(*priority), *place));
    let rows: Vec<PgRow> = rows.into_iter().map(|(_, row)| row).collect();
    let partial = rows.iter().filter(|row| row.try_get(column::PARTIAL).unwrap_or(false));
    let partial: Vec<Uuid> = partial.map(|row| row.try_get(column::ID)).collect::<Result<_, _>>()?;
    let mut outcomes: HashMap<Uuid, Vec<RecipientOutcome>> = HashMap::new();
    for (id, outcome) in recorded(connection, sql, &partial).await? {
        outcomes.entry(id).or_default().push(outcome);
    }
    rows.iter().map(|row| lease(row, &outcomes)).collect()
}

/// Claims what is due from the floor on.
async fn take(
    connection: &mut PgConnection,
    sql: &Sql,
    claim: Claim,
    floor: &Floor<Place>,
    now: Option<Moment>,
) -> Result<Vec<PgRow>, StoreError> {
    let query = sql
        .query(&sql.claim)
        .bind(now)
        .bind(micros(claim.lease))
        .bind(claim.due_by.map(Moment))
        .bind(i64::try_from(claim.limit).unwrap_or(i64::MAX))
        .bind(floor.map(|from| from.map(|(due_at, _)| Moment(from_micros(due_at)))))
        .bind(floor.map(|from| from.map(|(_, id)| id)));
    Ok(query.fetch_all(connection).await?)
}

/// When a delivery was due, in microseconds, and its id: many are due at the same moment where they were enqueued in one
/// transaction.
pub(super) type Place = (i64, Uuid);

/// A row's priority and place.
fn place(row: &PgRow) -> Result<(i64, Place), StoreError> {
    let (priority, Moment(due_at)) = (row.try_get::<i16, _>(column::PRIORITY)?, row.try_get(column::DUE_AT)?);
    Ok((i64::from(priority), (to_micros(due_at), row.try_get(column::ID)?)))
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
