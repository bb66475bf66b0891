//! Leasing what is due, in one statement.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::time::{Instant, SystemTime};

use futures_util::TryStreamExt;
use postrider_transport::Encoded;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Decode, Postgres, Row};
use uuid::Uuid;

use super::plans;
use super::rows::{Moment, recorded};
use super::sql::{Sql, USUAL_FORMAT, USUAL_IN_DOUBT, USUAL_PRIORITY};
use crate::clock::{from_micros, micros, to_micros};
use crate::delivery::{Lease, LeaseKey, RecipientOutcome};
use crate::store::floor::{Floor, Floors};
use crate::store::recipients::narrow;
use crate::store::sql::{addressed, corrupt};
use crate::store::{Claim, StoreError};

/// The columns of the claim, in their order: a name would be looked up for each row anew.
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
    pub(super) const RECIPIENTS: usize = 11;
    pub(super) const TEMPLATE_ID: usize = 12;
    pub(super) const WHEN_IN_DOUBT: usize = 13;
}

pub(super) async fn claim(
    connection: &mut PgConnection,
    sql: &Sql,
    claim: Claim,
    floors: &Floors<Place>,
    now: Option<Moment>,
) -> Result<Vec<Lease>, StoreError> {
    plans::refresh(connection, sql).await?;
    let mut look = floors.next(Instant::now());
    let mut taken = take(connection, sql, claim, &look.floor, now).await?;
    if taken.is_empty() && look.floor != Floor::default() {
        look = floors.beginning(Instant::now());
        taken = take(connection, sql, claim, &look.floor, now).await?;
    }
    let places = taken.iter().map(|taken| (taken.priority, taken.place));
    floors.took(&look, taken.len() >= claim.limit, places);
    // Most urgent first. The server would copy every mail to put them into this order.
    taken.sort_by_cached_key(|taken| (Reverse(taken.priority), taken.place));
    let partial: Vec<Uuid> = taken.iter().filter(|taken| taken.partial).map(|taken| taken.place.1).collect();
    let mut outcomes: HashMap<Uuid, Vec<RecipientOutcome>> = HashMap::new();
    for (id, outcome) in recorded(connection, sql, &partial).await? {
        outcomes.entry(id).or_default().push(outcome);
    }
    for taken in taken.iter_mut().filter(|taken| taken.partial) {
        narrow(&mut taken.lease, outcomes.get(&taken.place.1).map_or(&[][..], Vec::as_slice));
    }
    Ok(taken.into_iter().map(|taken| taken.lease).collect())
}

/// When a delivery was due, in microseconds, and its id: many are due at the same moment where they were enqueued in one
/// transaction.
pub(super) type Place = (i64, Uuid);

/// A row of a claim.
struct Taken {
    priority: i64,
    place: Place,
    /// Whether some of the recipients, all of whom the lease still names, are through.
    partial: bool,
    lease: Lease,
}

/// Claims what is due from the floor on. Each row is read while the server makes the next.
async fn take(
    connection: &mut PgConnection,
    sql: &Sql,
    claim: Claim,
    floor: &Floor<Place>,
    now: Option<Moment>,
) -> Result<Vec<Taken>, StoreError> {
    let mut rows = sql
        .query(sql.fit(&sql.claim))
        .bind(now)
        .bind(micros(claim.lease))
        .bind(claim.due_by.map(Moment))
        .bind(i64::try_from(claim.limit).unwrap_or(i64::MAX))
        .bind(floor.map(|from| from.map(|(due_at, _)| Moment(from_micros(due_at)))))
        .bind(floor.map(|from| from.map(|(_, id)| id)))
        .fetch(connection);
    let mut all = Vec::new();
    while let Some(row) = rows.try_next().await? {
        all.push(taken(&row)?);
    }
    Ok(all)
}

fn taken(row: &PgRow) -> Result<Taken, StoreError> {
    let id: Uuid = value(row, column::ID)?;
    let key = LeaseKey { id: id.into(), token: value(row, column::TOKEN)? };
    let format: Option<&str> = value(row, column::FORMAT)?;
    let message = Encoded { format: format.unwrap_or(USUAL_FORMAT).to_owned(), body: value(row, column::BODY)? };
    let due_at = time(row, column::DUE_AT)?;
    let dated_at = time_or_null(row, column::DATED_AT)?.unwrap_or(due_at);
    let progress: Option<Vec<i32>> = value(row, column::PROGRESS)?;
    let [attempts, cycle, spent, partial, lost] = match progress.as_deref() {
        None => [0, 1, 0, 0, 0],
        Some(progress) => progress.try_into().map_err(|_| corrupt("a count is missing"))?,
    };
    let lease = Lease {
        dated_at,
        template_id: value(row, column::TEMPLATE_ID)?,
        attempts: count(attempts)?,
        cycle: count(cycle)?,
        spent: count(spent)?,
        cycle_started_at: time_or_null(row, column::CYCLE_STARTED_AT)?.unwrap_or(dated_at),
        expires_at: time_or_null(row, column::EXPIRES_AT)?,
        lost: lost != 0,
        ..Lease::new(key, time(row, column::CLAIMED_AT)?, message, Vec::new())
    };
    let priority: Option<i16> = value(row, column::PRIORITY)?;
    let when_in_doubt = value(row, column::WHEN_IN_DOUBT);
    let when_in_doubt = when_in_doubt.map(|word: Option<&str>| word.unwrap_or(USUAL_IN_DOUBT.as_str()));
    Ok(Taken {
        priority: priority.map_or(USUAL_PRIORITY.level().into(), i64::from),
        place: (to_micros(due_at), id),
        partial: partial != 0,
        lease: addressed(lease, value(row, column::RECIPIENTS), when_in_doubt),
    })
}

/// A column's value. The statement says of which type it is, so that it need not be asked for each row.
fn value<'r, T: Decode<'r, Postgres>>(row: &'r PgRow, column: usize) -> Result<T, StoreError> {
    Ok(row.try_get_unchecked(column)?)
}

fn time(row: &PgRow, column: usize) -> Result<SystemTime, StoreError> {
    let Moment(time) = value(row, column)?;
    Ok(time)
}

fn time_or_null(row: &PgRow, column: usize) -> Result<Option<SystemTime>, StoreError> {
    let moment: Option<Moment> = value(row, column)?;
    Ok(moment.map(|Moment(time)| time))
}

fn count(number: i32) -> Result<u32, StoreError> {
    u32::try_from(number).map_err(|_| corrupt("a count is out of range"))
}
