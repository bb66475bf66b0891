//! Writing what became of leased deliveries. Every change asks for the token first, and a batch is one or two statements.

use std::collections::HashSet;
use std::time::Duration;

use postrider_transport::Scope;
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::rows::Moment;
use super::sql::Sql;
use crate::clock::micros;
use crate::delivery::Attempt;
use crate::store::{LeaseKey, Next, Settled, Settlement, StoreError};

pub(super) async fn settle(
    connection: &mut PgConnection,
    sql: &Sql,
    settlements: &[Settlement],
    now: Option<Moment>,
    history: History,
) -> Result<Vec<Settled>, StoreError> {
    let plainly = |settlement: &Settlement| history == History::Appended && settlement.is_plainly_sent();
    let (plain, rest): (Vec<Placed<'_>>, Vec<Placed<'_>>) =
        settlements.iter().enumerate().partition(|(_, settlement)| plainly(settlement));
    let mut lost = settle_sent(connection, sql, &plain).await?;
    lost.extend(settle_rest(connection, sql, rest, now).await?);
    let mut results = vec![Settled::Applied; settlements.len()];
    for place in lost {
        results[place] = Settled::LeaseLost;
    }
    Ok(results)
}

/// What to expect of the history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum History {
    /// It is as the outbox wrote it: each attempt is a new row.
    Appended,
    /// It has a row where an attempt is to be written. Somebody else wrote it, and it is overwritten: a result that cannot be written
    /// is a mail that is sent again.
    Occupied,
}

/// A settlement with its place among those that were given.
type Placed<'a> = (usize, &'a Settlement);

/// Which settlements were written, or leases renewed.
fn keys(rows: &[PgRow]) -> Result<HashSet<LeaseKey>, StoreError> {
    let key = |row: &PgRow| Ok(LeaseKey { id: row.try_get::<Uuid, _>(0)?.into(), token: row.try_get(1)? });
    rows.iter().map(key).collect()
}

/// A column of all settlements.
fn column<T>(settlements: &[Placed<'_>], of: impl Fn(&Settlement) -> T) -> Vec<T> {
    settlements.iter().map(|(_, settlement)| of(settlement)).collect()
}

/// A column of their attempts; nothing for those without one.
fn attempts<'a, T>(settlements: &[Placed<'a>], of: impl Fn(&'a Attempt) -> T) -> Vec<Option<T>> {
    settlements.iter().map(|(_, settlement)| settlement.attempt.as_ref().map(&of)).collect()
}

/// A column of their texts. Where none has one, it is left out: the server fills it up with nulls.
fn texts<'a>(settlements: &[Placed<'a>], of: impl Fn(&'a Attempt) -> Option<&'a str>) -> Option<Vec<Option<&'a str>>> {
    let texts: Vec<_> = settlements.iter().map(|(_, settlement)| settlement.attempt.as_ref().and_then(&of)).collect();
    texts.iter().any(Option::is_some).then_some(texts)
}

/// A column of their numbers. Where each is 1, as for a first attempt, it is left out.
fn numbers(settlements: &[Placed<'_>], of: impl Fn(&Attempt) -> u32) -> Option<Vec<Option<i32>>> {
    let numbers = attempts(settlements, |attempt| number(of(attempt)));
    numbers.iter().any(|number| *number != Some(1)).then_some(numbers)
}

/// The transport that all of them were sent by.
fn same_transport<'a>(settlements: &[Placed<'a>]) -> Option<&'a str> {
    let mut transports = settlements.iter().map(|(_, settlement)| settlement.attempt.as_ref()?.transport.as_deref());
    let first = transports.next()?;
    transports.all(|transport| transport == first).then_some(first)?
}

fn number(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Returns the places of those whose lease was lost.
async fn settle_sent(
    connection: &mut PgConnection,
    sql: &Sql,
    settlements: &[Placed<'_>],
) -> Result<Vec<usize>, StoreError> {
    if settlements.is_empty() {
        return Ok(Vec::new());
    }
    let transport = same_transport(settlements);
    let done: Option<Vec<i64>> = sql
        .scalar(sql.fit(&sql.settle_sent))
        .bind(column(settlements, |s| s.key.id.as_uuid()))
        .bind(column(settlements, |s| s.key.token))
        .bind(numbers(settlements, |a| a.number))
        .bind(numbers(settlements, |a| a.cycle))
        .bind(attempts(settlements, |a| Moment(a.started_at)))
        .bind(attempts(settlements, |a| Moment(a.finished_at)))
        .bind(texts(settlements, |a| a.reply.as_deref()))
        .bind(texts(settlements, |a| a.provider_id.as_deref()))
        .bind(if transport.is_none() { texts(settlements, |a| a.transport.as_deref()) } else { None })
        .bind(transport)
        .fetch_one(connection)
        .await?;
    let Some(done) = done else {
        return Ok(Vec::new());
    };
    let done: HashSet<i64> = done.into_iter().collect();
    let lost = (1..).zip(settlements).filter(|(nth, _)| !done.contains(nth));
    Ok(lost.map(|(_, (place, _))| *place).collect())
}

/// Returns the places of those whose lease was lost.
async fn settle_rest(
    connection: &mut PgConnection,
    sql: &Sql,
    settlements: Vec<Placed<'_>>,
    now: Option<Moment>,
) -> Result<Vec<usize>, StoreError> {
    if settlements.is_empty() {
        return Ok(Vec::new());
    }
    // The same settlement twice in one batch finds nothing left.
    let mut seen = HashSet::new();
    let (settlements, again): (Vec<_>, Vec<_>) = settlements.into_iter().partition(|(_, s)| seen.insert(s.key));
    let settlements = &settlements[..];
    let (next, (after, reason)): (Vec<_>, (Vec<_>, Vec<_>)) = settlements
        .iter()
        .map(|(_, settlement)| match &settlement.next {
            Next::Pending { after } => ("pending", (Some(micros(*after).max(1_000)), None)),
            Next::Sent => ("sent", (None, None)),
            Next::Dead { reason } => ("dead", (None, Some(reason.as_str()))),
            Next::InDoubt { reason } => ("in_doubt", (None, Some(reason.as_str()))),
        })
        .unzip();
    let rows = sql
        .query(sql.fit(&sql.settle))
        .bind(now)
        .bind(column(settlements, |s| s.key.id.as_uuid()))
        .bind(column(settlements, |s| s.key.token))
        .bind(next)
        .bind(after)
        .bind(reason)
        .bind(column(settlements, |s| number(s.charged_attempts)))
        .bind(column(settlements, |s| s.attempt.is_some()))
        .bind(attempts(settlements, |a| number(a.number)))
        .bind(attempts(settlements, |a| number(a.cycle)))
        .bind(attempts(settlements, |a| Moment(a.started_at)))
        .bind(attempts(settlements, |a| Moment(a.finished_at)))
        .bind(attempts(settlements, |a| a.outcome.as_str()))
        .bind(texts(settlements, |a| a.scope.map(Scope::as_str)))
        .bind(attempts(settlements, |a| a.sure))
        .bind(attempts(settlements, |a| a.charged))
        .bind(texts(settlements, |a| a.note.as_deref()))
        .bind(texts(settlements, |a| a.error.as_deref()))
        .bind(texts(settlements, |a| a.reply.as_deref()))
        .bind(texts(settlements, |a| a.provider_id.as_deref()))
        .bind(texts(settlements, |a| a.transport.as_deref()))
        .bind(column(settlements, |s| !s.recipients.is_empty()))
        .fetch_all(&mut *connection)
        .await?;
    let done = keys(&rows)?;
    record_recipients(connection, sql, settlements, &done).await?;
    let lost = settlements.iter().filter(|(_, settlement)| !done.contains(&settlement.key));
    Ok(lost.chain(&again).map(|(place, _)| *place).collect())
}

async fn record_recipients(
    connection: &mut PgConnection,
    sql: &Sql,
    settlements: &[Placed<'_>],
    done: &HashSet<LeaseKey>,
) -> Result<(), StoreError> {
    // Each recipient once: the statement cannot change one row twice.
    let mut seen = HashSet::new();
    let outcomes: Vec<_> = settlements
        .iter()
        .filter(|(_, settlement)| done.contains(&settlement.key))
        .flat_map(|(_, settlement)| settlement.recipients.iter().map(|outcome| (settlement.key.id.as_uuid(), outcome)))
        .filter(|(id, outcome)| seen.insert((*id, &outcome.recipient)))
        .collect();
    if outcomes.is_empty() {
        return Ok(());
    }
    sql.query(&sql.record_recipients)
        .bind(outcomes.iter().map(|(id, _)| *id).collect::<Vec<_>>())
        .bind(outcomes.iter().map(|(_, outcome)| outcome.recipient.as_str()).collect::<Vec<_>>())
        .bind(outcomes.iter().map(|(_, outcome)| outcome.state.as_str()).collect::<Vec<_>>())
        .bind(outcomes.iter().map(|(_, outcome)| outcome.reply.as_deref()).collect::<Vec<_>>())
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn renew(
    connection: &mut PgConnection,
    sql: &Sql,
    keys: &[LeaseKey],
    lease: Duration,
    now: Option<Moment>,
) -> Result<Vec<Settled>, StoreError> {
    let rows = sql
        .query(sql.fit(&sql.renew))
        .bind(now)
        .bind(micros(lease))
        .bind(keys.iter().map(|key| key.id.as_uuid()).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.token).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    let renewed = self::keys(&rows)?;
    Ok(keys.iter().map(|key| if renewed.contains(key) { Settled::Applied } else { Settled::LeaseLost }).collect())
}
