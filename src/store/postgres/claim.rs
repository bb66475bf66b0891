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
use crate::store::claim_cursor::{ClaimCursor, ClaimCursors};
use crate::store::recipients::remove_completed;
use crate::store::row::{Problems, addressed, corrupt, last_attempt};
use crate::store::{Claim, LastAttempt, Lease, LeaseKey, RecipientOutcome, StoreError};

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
    cursors: &ClaimCursors<Place>,
    now: Option<Moment>,
) -> Result<Vec<Lease>, StoreError> {
    plans::refresh(connection, sql).await?;
    let mut look = cursors.next(Instant::now());
    let mut taken = take(connection, sql, claim, &look.cursor, now).await?;
    if taken.is_empty() && look.cursor != ClaimCursor::default() {
        look = cursors.beginning(Instant::now());
        taken = take(connection, sql, claim, &look.cursor, now).await?;
    }
    let places = taken.iter().map(|taken| (taken.priority, taken.place));
    cursors.took(&look, taken.len() >= claim.limit, places);
    // Most urgent first. The server would copy every mail to put them into this order.
    taken.sort_by_cached_key(|taken| (Reverse(taken.priority), taken.place));
    let ids = |of: fn(&Taken) -> bool| taken.iter().filter(|taken| of(taken)).map(|taken| taken.place.1).collect();
    let (partial, again): (Vec<Uuid>, Vec<Uuid>) = (ids(|taken| taken.partial), ids(|taken| taken.lease.attempts > 0));
    let mut outcomes: HashMap<Uuid, Vec<RecipientOutcome>> = HashMap::new();
    for (id, outcome) in recorded(connection, sql, &partial).await? {
        outcomes.entry(id).or_default().push(outcome);
    }
    for taken in taken.iter_mut().filter(|taken| taken.partial) {
        remove_completed(&mut taken.lease, outcomes.get(&taken.place.1).map_or(&[][..], Vec::as_slice));
    }
    let mut last = last_attempts(connection, sql, again).await?;
    Ok(taken.into_iter().map(|taken| taken.lease.with_last(last.remove(&taken.place.1))).collect())
}

/// The last attempt of each delivery that has one.
async fn last_attempts(
    connection: &mut PgConnection,
    sql: &Sql,
    ids: Vec<Uuid>,
) -> Result<HashMap<Uuid, LastAttempt>, StoreError> {
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = sql.query(&sql.last_attempts).bind(ids).fetch_all(connection).await?;
    rows.iter().filter_map(|row| Some((value(row, 0), last_attempt(row)?))).map(|(id, last)| Ok((id?, last))).collect()
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

/// Claims what is due from the cursor on. Rows without a mail are removed, and it looks again where there was nothing else.
async fn take(
    connection: &mut PgConnection,
    sql: &Sql,
    claim: Claim,
    cursor: &ClaimCursor<Place>,
    now: Option<Moment>,
) -> Result<Vec<Taken>, StoreError> {
    loop {
        let (taken, orphans) = take_once(connection, sql, claim, cursor, now).await?;
        if orphans.is_empty() {
            return Ok(taken);
        }
        crate::store::tell_of_orphans(orphans.len());
        sql.query(&sql.forget).bind(orphans).execute(&mut *connection).await?;
        if !taken.is_empty() {
            return Ok(taken);
        }
    }
}

/// What is taken, and the ids of rows that have no mail. Each row is read while the server makes the next.
async fn take_once(
    connection: &mut PgConnection,
    sql: &Sql,
    claim: Claim,
    cursor: &ClaimCursor<Place>,
    now: Option<Moment>,
) -> Result<(Vec<Taken>, Vec<Uuid>), StoreError> {
    let mut rows = sql
        .query(sql.fit(&sql.claim))
        .bind(now)
        .bind(micros(claim.lease))
        .bind(claim.due_by.map(Moment))
        .bind(i64::try_from(claim.limit).unwrap_or(i64::MAX))
        .bind(cursor.map(|from| from.map(|(due_at, _)| Moment(from_micros(due_at)))))
        .bind(cursor.map(|from| from.map(|(_, id)| id)))
        .bind(i64::try_from(claim.max_bytes).unwrap_or(i64::MAX))
        .bind(claim.id.number())
        .fetch(connection);
    let (mut all, mut orphans) = (Vec::new(), Vec::new());
    while let Some(row) = rows.try_next().await? {
        match value(&row, column::BODY)? {
            Some(body) => all.push(taken(&row, body)?),
            None => orphans.push(value(&row, column::ID)?),
        }
    }
    Ok((all, orphans))
}

/// Only an id and a token there must be: what makes no sense beside them is in the lease.
fn taken(row: &PgRow, body: &[u8]) -> Result<Taken, StoreError> {
    let mut problems = Problems::default();
    let id: Uuid = value(row, column::ID)?;
    let key = LeaseKey { id: id.into(), token: value(row, column::TOKEN)? };
    if key.token == i64::MAX {
        problems.or(Err(corrupt("the token is at its end")), ());
    }
    let format = problems.or(text(row, column::FORMAT), None).unwrap_or(USUAL_FORMAT).to_owned();
    let body = problems.or(utf8(body), "").to_owned();
    let due_at = time(row, column::DUE_AT)?;
    let dated_at = time_or_null(row, column::DATED_AT)?.unwrap_or(due_at);
    let progress: Option<Vec<i32>> = value(row, column::PROGRESS)?;
    let [attempts, cycle, spent, partial, lost] = match progress.as_deref() {
        None => [0, 1, 0, 0, 0],
        Some(progress) => progress.try_into().map_err(|_| corrupt("a count is missing"))?,
    };
    let lease = Lease {
        dated_at,
        template_id: problems.or(text(row, column::TEMPLATE_ID), None).map(str::to_owned),
        attempts: problems.or(count(attempts), 0),
        cycle: problems.or(count(cycle), 1),
        charged_attempts: problems.or(count(spent), 0),
        cycle_started_at: time_or_null(row, column::CYCLE_STARTED_AT)?.unwrap_or(dated_at),
        expires_at: time_or_null(row, column::EXPIRES_AT)?,
        lost: lost != 0,
        ..Lease::new(key, time(row, column::CLAIMED_AT)?, Encoded { format, body }, Vec::new())
    };
    let priority: Option<i16> = value(row, column::PRIORITY)?;
    let recipients = text(row, column::RECIPIENTS).map(Option::unwrap_or_default);
    let when_in_doubt = text(row, column::WHEN_IN_DOUBT).and_then(|word| match word {
        Some(word) => word.parse().map_err(|error| corrupt(&format!("when_in_doubt: {error}"))),
        None => Ok(USUAL_IN_DOUBT),
    });
    Ok(Taken {
        priority: priority.map_or(USUAL_PRIORITY.level().into(), i64::from),
        place: (to_micros(due_at), id),
        partial: partial != 0,
        lease: addressed(lease, recipients, when_in_doubt, problems),
    })
}

/// A column's value. The statement says of which type it is, so that it need not be asked for each row.
fn value<'r, T: Decode<'r, Postgres>>(row: &'r PgRow, column: usize) -> Result<T, StoreError> {
    Ok(row.try_get_unchecked(column)?)
}

/// A text, which in a database without an encoding (`SQL_ASCII`) may be any octets.
fn text(row: &PgRow, column: usize) -> Result<Option<&str>, StoreError> {
    let octets: Option<&[u8]> = value(row, column)?;
    octets.map(utf8).transpose()
}

fn utf8(octets: &[u8]) -> Result<&str, StoreError> {
    std::str::from_utf8(octets).map_err(|_| corrupt("a text is no UTF-8"))
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
