//! Writing what became of leased deliveries. Every change asks for the token first, and a batch is one or two statements.

use std::collections::HashSet;
use std::time::Duration;

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{PgPool, Postgres, Row};
use uuid::Uuid;

use super::rows::Moment;
use super::sql::Sql;
use crate::clock::micros;
use crate::delivery::{Attempt, LeaseKey, Next, Settled, Settlement};
use crate::store::StoreError;
use crate::store::lane::{Lane, MANY};

pub(super) async fn settle(
    pool: &PgPool,
    lane: &Lane<Postgres>,
    sql: &Sql,
    settlements: &[Settlement],
    now: Option<Moment>,
) -> Result<Vec<Settled>, StoreError> {
    // The same settlement twice in one batch finds nothing left.
    let mut seen = HashSet::new();
    let firsts: Vec<&Settlement> = settlements.iter().filter(|settlement| seen.insert(settlement.key)).collect();
    let (plain, rest): (Vec<&Settlement>, Vec<&Settlement>) = firsts.into_iter().partition(|s| s.is_plainly_sent());
    let done = if rest.is_empty() && sql.is_prepared() {
        // The usual case: one statement, which is its own transaction.
        let mut connection = lane.take(pool).await?;
        let done = settle_sent(&mut connection, sql, &plain).await?;
        if plain.len() >= MANY {
            lane.keep(connection, pool);
        }
        done
    } else {
        let mut tx = pool.begin().await?;
        let mut done = settle_sent(&mut tx, sql, &plain).await?;
        done.extend(settle_rest(&mut tx, sql, &rest, now).await?);
        tx.commit().await?;
        done
    };
    // The usual case again, which needs no look at each.
    if done.len() == settlements.len() {
        return Ok(vec![Settled::Done; settlements.len()]);
    }
    let mut done = keys(&done)?;
    let result = |settlement: &Settlement| {
        if done.remove(&settlement.key) { Settled::Done } else { Settled::LeaseLost }
    };
    Ok(settlements.iter().map(result).collect())
}

/// Which settlements were written, or leases renewed.
fn keys(rows: &[PgRow]) -> Result<HashSet<LeaseKey>, StoreError> {
    let key = |row: &PgRow| Ok(LeaseKey { id: row.try_get::<Uuid, _>(0)?.into(), token: row.try_get(1)? });
    rows.iter().map(key).collect()
}

/// A column of all settlements.
fn column<T>(settlements: &[&Settlement], of: impl Fn(&Settlement) -> T) -> Vec<T> {
    settlements.iter().map(|settlement| of(settlement)).collect()
}

/// A column of their attempts; nothing for those without one.
fn attempts<'a, T>(settlements: &[&'a Settlement], of: impl Fn(&'a Attempt) -> T) -> Vec<Option<T>> {
    settlements.iter().map(|settlement| settlement.attempt.as_ref().map(&of)).collect()
}

fn number(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

async fn settle_sent(
    connection: &mut PgConnection,
    sql: &Sql,
    settlements: &[&Settlement],
) -> Result<Vec<PgRow>, StoreError> {
    if settlements.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sql
        .query(&sql.settle_sent)
        .bind(column(settlements, |s| s.key.id.as_uuid()))
        .bind(column(settlements, |s| s.key.token))
        .bind(attempts(settlements, |a| number(a.number)))
        .bind(attempts(settlements, |a| number(a.cycle)))
        .bind(attempts(settlements, |a| Moment(a.started_at)))
        .bind(attempts(settlements, |a| Moment(a.finished_at)))
        .bind(attempts(settlements, |a| a.reply.as_deref()))
        .bind(attempts(settlements, |a| a.provider_id.as_deref()))
        .bind(attempts(settlements, |a| a.transport.as_deref()))
        .fetch_all(connection)
        .await?;
    Ok(rows)
}

async fn settle_rest(
    connection: &mut PgConnection,
    sql: &Sql,
    settlements: &[&Settlement],
    now: Option<Moment>,
) -> Result<Vec<PgRow>, StoreError> {
    if settlements.is_empty() {
        return Ok(Vec::new());
    }
    let (next, (after, reason)): (Vec<_>, (Vec<_>, Vec<_>)) = settlements
        .iter()
        .map(|settlement| match &settlement.next {
            Next::Pending { after } => ("pending", (Some(micros(*after).max(1_000)), None)),
            Next::Sent => ("sent", (None, None)),
            Next::Dead { reason } => ("dead", (None, Some(reason.as_str()))),
            Next::InDoubt { reason } => ("in_doubt", (None, Some(reason.as_str()))),
        })
        .unzip();
    let rows = sql
        .query(&sql.settle)
        .bind(now)
        .bind(column(settlements, |s| s.key.id.as_uuid()))
        .bind(column(settlements, |s| s.key.token))
        .bind(next)
        .bind(after)
        .bind(reason)
        .bind(column(settlements, |s| s.charge))
        .bind(column(settlements, |s| s.attempt.is_some()))
        .bind(attempts(settlements, |a| number(a.number)))
        .bind(attempts(settlements, |a| number(a.cycle)))
        .bind(attempts(settlements, |a| Moment(a.started_at)))
        .bind(attempts(settlements, |a| Moment(a.finished_at)))
        .bind(attempts(settlements, |a| a.outcome.as_str()))
        .bind(attempts(settlements, |a| a.transport_fault))
        .bind(attempts(settlements, |a| a.error.as_deref()))
        .bind(attempts(settlements, |a| a.reply.as_deref()))
        .bind(attempts(settlements, |a| a.provider_id.as_deref()))
        .bind(attempts(settlements, |a| a.transport.as_deref()))
        .bind(column(settlements, |s| !s.recipients.is_empty()))
        .fetch_all(&mut *connection)
        .await?;
    record_recipients(connection, sql, settlements, &keys(&rows)?).await?;
    Ok(rows)
}

async fn record_recipients(
    connection: &mut PgConnection,
    sql: &Sql,
    settlements: &[&Settlement],
    done: &HashSet<LeaseKey>,
) -> Result<(), StoreError> {
    // Each recipient once: the statement cannot change one row twice.
    let mut seen = HashSet::new();
    let outcomes: Vec<_> = settlements
        .iter()
        .filter(|settlement| done.contains(&settlement.key))
        .flat_map(|settlement| settlement.recipients.iter().map(|outcome| (settlement.key.id.as_uuid(), outcome)))
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
        .query(&sql.renew)
        .bind(now)
        .bind(micros(lease))
        .bind(keys.iter().map(|key| key.id.as_uuid()).collect::<Vec<_>>())
        .bind(keys.iter().map(|key| key.token).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    let renewed = self::keys(&rows)?;
    Ok(keys.iter().map(|key| if renewed.contains(key) { Settled::Done } else { Settled::LeaseLost }).collect())
}
