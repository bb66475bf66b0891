//! Writes the results of leased deliveries. Every change checks the token first.

use std::collections::HashSet;

use postrider_transport::Scope;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Connection, Row, SqlitePool};

use super::rows::read_id;
use crate::clock::{millis, to_millis};
use crate::delivery::Attempt;
use crate::state::State;
use crate::store::counters::Counts;
use crate::store::session::Session;
use crate::store::{LeaseKey, Next, Settled, Settlement, StoreError};

pub(super) async fn settle(
    pool: &SqlitePool,
    settlements: &[Settlement],
    now: i64,
) -> Result<Vec<Settled>, StoreError> {
    let mut session = Session::acquire_drop_safe(pool).await?;
    let settled = async {
        let mut tx = session.begin_with("BEGIN IMMEDIATE").await?;
        let results = settle_in(&mut tx, settlements, now).await?;
        tx.commit().await?;
        Ok(results)
    };
    let settled = settled.await;
    session.finish(settled)
}

async fn settle_in(
    connection: &mut SqliteConnection,
    settlements: &[Settlement],
    now: i64,
) -> Result<Vec<Settled>, StoreError> {
    // Nearly all settlements are plainly sent. Two statements write all of those.
    let mut done = settle_plain(connection, settlements).await?;
    let mut results = Vec::with_capacity(settlements.len());
    for settlement in settlements {
        results.push(match settlement.is_plainly_sent() {
            // Removed, so that a second settlement of the same delivery finds nothing.
            true if done.remove(&settlement.key) => Settled::Applied,
            true => Settled::LeaseLost,
            false => settle_one(connection, settlement, now).await?,
        });
    }
    add_counts(connection, Counts::of(settlements, &results, now)).await?;
    Ok(results)
}

/// Adds to the counters.
pub(super) async fn add_counts(connection: &mut SqliteConnection, counts: Counts) -> Result<(), StoreError> {
    for (state, count) in counts.ended {
        sqlx::query(
            "INSERT INTO postrider_totals (state, count) VALUES (?1, ?2) ON CONFLICT (state) DO UPDATE SET count = count + ?2",
        )
        .bind(state)
        .bind(count)
        .execute(&mut *connection)
        .await?;
    }
    for ((hour, event, transport), count) in counts.hourly {
        sqlx::query(
            "INSERT INTO postrider_hourly (hour, event, transport, count) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (hour, event, transport) DO UPDATE SET count = count + ?4",
        )
        .bind(hour)
        .bind(event.as_str())
        .bind(transport.unwrap_or_default())
        .bind(count)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Selects the queue rows that are leased with the given keys. Because of the cross join, SQLite looks up each key in the queue instead of
/// scanning the queue.
const HELD: &str = "
    delivery_id IN (
        SELECT q.delivery_id FROM json_each(?1) k CROSS JOIN postrider_queue q ON q.delivery_id = k.value ->> 0
        WHERE q.token = k.value ->> 1 AND q.leased_at IS NOT NULL)
    RETURNING delivery_id, token";

fn read_keys(rows: &[SqliteRow]) -> Result<HashSet<LeaseKey>, StoreError> {
    rows.iter().map(|row| Ok(LeaseKey { id: read_id(row, "delivery_id")?, token: row.try_get("token")? })).collect()
}

fn keys_as_json<'a>(keys: impl Iterator<Item = &'a LeaseKey>) -> String {
    serde_json::Value::from_iter(keys.map(|key| serde_json::json!([key.id.to_string(), key.token]))).to_string()
}

async fn settle_plain(
    connection: &mut SqliteConnection,
    settlements: &[Settlement],
) -> Result<HashSet<LeaseKey>, StoreError> {
    let plain = || settlements.iter().filter(|settlement| settlement.is_plainly_sent());
    if plain().next().is_none() {
        return Ok(HashSet::new());
    }
    let deleted = sqlx::query(AssertSqlSafe(format!("DELETE FROM postrider_queue WHERE {HELD}")))
        .bind(keys_as_json(plain().map(|settlement| &settlement.key)))
        .fetch_all(&mut *connection)
        .await?;
    let done = read_keys(&deleted)?;
    let mut recorded = HashSet::new();
    let attempts = plain().filter(|settlement| done.contains(&settlement.key) && recorded.insert(settlement.key));
    let attempts = attempts.filter_map(|settlement| {
        let attempt = settlement.attempt.as_ref()?;
        Some(serde_json::json!([
            settlement.key.id.to_string(),
            attempt.number,
            attempt.cycle,
            settlement.key.token,
            to_millis(attempt.started_at),
            to_millis(attempt.finished_at),
            attempt.outcome.as_str(),
            attempt.reply,
            attempt.provider_id,
            attempt.transport,
        ]))
    });
    sqlx::query(
        "INSERT INTO postrider_attempts
             (delivery_id, number, cycle, token, started_at, finished_at, outcome, reply, provider_id, transport)
         SELECT a.value ->> 0, a.value ->> 1, a.value ->> 2, a.value ->> 3, a.value ->> 4, a.value ->> 5, a.value ->> 6,
                a.value ->> 7, a.value ->> 8, a.value ->> 9
         FROM json_each(?1) a WHERE true
         ON CONFLICT (delivery_id, number) DO UPDATE
         SET cycle = excluded.cycle, token = excluded.token, started_at = excluded.started_at, finished_at = excluded.finished_at,
             outcome = excluded.outcome, scope = NULL, sure = true, charged = true, note = NULL, error = NULL,
             reply = excluded.reply, provider_id = excluded.provider_id, transport = excluded.transport",
    )
    .bind(serde_json::Value::from_iter(attempts).to_string())
    .execute(connection)
    .await?;
    Ok(done)
}

async fn settle_one(
    connection: &mut SqliteConnection,
    settlement: &Settlement,
    now: i64,
) -> Result<Settled, StoreError> {
    let key = settlement.key;
    let id = key.id.to_string();
    let held = match &settlement.next {
        Next::Pending { after } => {
            reschedule(connection, settlement, now.saturating_add(millis(*after).max(1))).await?
        }
        // For a sent delivery the row of its attempt is enough.
        Next::Sent if settlement.attempt.is_some() => remove_from_queue(connection, key, None, now).await?,
        Next::Sent => remove_from_queue(connection, key, Some((State::Sent, None)), now).await?,
        Next::Dead { reason } => remove_from_queue(connection, key, Some((State::Dead, Some(reason))), now).await?,
        Next::InDoubt { reason } => {
            remove_from_queue(connection, key, Some((State::InDoubt, Some(reason))), now).await?
        }
    };
    if !held {
        return Ok(Settled::LeaseLost);
    }
    if let Some(attempt) = &settlement.attempt {
        write_attempt(connection, &id, key.token, attempt).await?;
    }
    for outcome in &settlement.recipients {
        sqlx::query(
            "INSERT INTO postrider_recipients (delivery_id, address, outcome, reply) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (delivery_id, address) DO UPDATE SET outcome = ?3, reply = ?4",
        )
        .bind(&id)
        .bind(outcome.recipient.as_str())
        .bind(outcome.state.as_str())
        .bind(&outcome.reply)
        .execute(&mut *connection)
        .await?;
    }
    Ok(Settled::Applied)
}

async fn reschedule(connection: &mut SqliteConnection, settlement: &Settlement, due: i64) -> Result<bool, StoreError> {
    let updated = sqlx::query(
        "UPDATE postrider_queue
         SET leased_at = NULL, leased_by = NULL, due_at = ?3, attempts = min(attempts, 2147483646) + ?4, charged_attempts = ?5
         WHERE delivery_id = ?1 AND token = ?2 AND leased_at IS NOT NULL",
    )
    .bind(settlement.key.id.to_string())
    .bind(settlement.key.token)
    .bind(due)
    .bind(i64::from(settlement.attempt.is_some()))
    .bind(i64::from(settlement.charged_attempts))
    .execute(connection)
    .await?;
    Ok(updated.rows_affected() > 0)
}

/// Removes a delivery from the queue, and records how it ended if that is given.
async fn remove_from_queue(
    connection: &mut SqliteConnection,
    key: LeaseKey,
    state: Option<(State, Option<&String>)>,
    now: i64,
) -> Result<bool, StoreError> {
    let id = key.id.to_string();
    if let Some((state, reason)) = state {
        sqlx::query(
            "INSERT INTO postrider_ended (delivery_id, state, reason, ended_at, token, attempts, cycle)
             SELECT delivery_id, ?3, ?4, ?5, token, attempts, cycle FROM postrider_queue
             WHERE delivery_id = ?1 AND token = ?2 AND leased_at IS NOT NULL
             ON CONFLICT (delivery_id) DO UPDATE
             SET state = excluded.state, reason = excluded.reason, ended_at = excluded.ended_at, token = excluded.token,
                 attempts = excluded.attempts, cycle = excluded.cycle",
        )
        .bind(&id)
        .bind(key.token)
        .bind(state.as_str())
        .bind(reason)
        .bind(now)
        .execute(&mut *connection)
        .await?;
    }
    let deleted =
        sqlx::query("DELETE FROM postrider_queue WHERE delivery_id = ?1 AND token = ?2 AND leased_at IS NOT NULL")
            .bind(&id)
            .bind(key.token)
            .execute(connection)
            .await?;
    Ok(deleted.rows_affected() > 0)
}

/// Writes an attempt. It overwrites a row that another program wrote in its place: if the result could not be written, the mail would be
/// sent again.
async fn write_attempt(
    connection: &mut SqliteConnection,
    id: &str,
    token: i64,
    attempt: &Attempt,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT OR REPLACE INTO postrider_attempts
             (delivery_id, number, cycle, token, started_at, finished_at, outcome, scope, sure, charged, note, error, reply,
              provider_id, transport)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
    )
    .bind(id)
    .bind(i64::from(attempt.number))
    .bind(i64::from(attempt.cycle))
    .bind(token)
    .bind(to_millis(attempt.started_at))
    .bind(to_millis(attempt.finished_at))
    .bind(attempt.outcome.as_str())
    .bind(attempt.scope.map(Scope::as_str))
    .bind(attempt.sure)
    .bind(attempt.charged)
    .bind(&attempt.note)
    .bind(&attempt.error)
    .bind(&attempt.reply)
    .bind(&attempt.provider_id)
    .bind(&attempt.transport)
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) async fn renew(pool: &SqlitePool, keys: &[LeaseKey], until: i64) -> Result<Vec<Settled>, StoreError> {
    let mut session = Session::acquire_drop_safe(pool).await?;
    let renewed = sqlx::query(AssertSqlSafe(format!("UPDATE postrider_queue SET due_at = ?2 WHERE {HELD}")))
        .bind(keys_as_json(keys.iter()))
        .bind(until)
        .fetch_all(&mut *session)
        .await;
    let renewed = read_keys(&session.finish(renewed.map_err(StoreError::from))?)?;
    Ok(keys.iter().map(|key| if renewed.contains(key) { Settled::Applied } else { Settled::LeaseLost }).collect())
}
