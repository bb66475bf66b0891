//! Resends, cancels and dismisses deliveries.

use postrider_transport::DeliveryId;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::admin::find_with_state;
use super::operator::record;
use super::rows::read_outcomes;
use super::settle::add_counts;
use crate::admin::{CountedEvent, UpdateOutcome};
use crate::audit::Act;
use crate::operator::Change;
use crate::state::State;
use crate::store::StoreError;
use crate::store::counters::{Counts, HOUR};
use crate::store::recipients::outcomes_kept_on_resend;
use crate::store::row::{read_enum, read_recipients};

/// Changes the deliveries, and records the changes.
pub(super) async fn change(
    connection: &mut SqliteConnection,
    change: Change,
    from: Option<State>,
    ids: &[DeliveryId],
    act: Option<&Act>,
    now: i64,
) -> Result<Vec<UpdateOutcome>, StoreError> {
    let mut outcomes = Vec::with_capacity(ids.len());
    for id in ids {
        let text = id.to_string();
        let outcome = change_one(connection, change, from, &text, now).await?;
        if let (UpdateOutcome::Updated, Some(act)) = (outcome, act) {
            record(connection, change.action(), Some(&text), act, now).await?;
        }
        outcomes.push(outcome);
    }
    Ok(outcomes)
}

async fn change_one(
    connection: &mut SqliteConnection,
    change: Change,
    from: Option<State>,
    id: &str,
    now: i64,
) -> Result<UpdateOutcome, StoreError> {
    let Some(row) = find_with_state(connection, id).await? else {
        return Ok(UpdateOutcome::NotFound);
    };
    let state: State = read_enum(&row, "state")?;
    if !change.applies_to(state) || from.is_some_and(|from| from != state) {
        return Ok(UpdateOutcome::Unchanged(state));
    }
    let mut counts = Counts::default();
    if state.is_finished() {
        counts.ended.insert(state.as_str(), -1);
    }
    let ended = match change {
        Change::Resend => {
            let has_message = "SELECT body IS NOT NULL FROM postrider_deliveries WHERE id = ?1";
            if !sqlx::query_scalar::<_, bool>(has_message).bind(id).fetch_one(&mut *connection).await? {
                return Ok(UpdateOutcome::MessageDeleted);
            }
            resend(connection, state, &row, id, now).await?;
            None
        }
        Change::Cancel => {
            cancel(connection, id, now).await?;
            Some((State::Cancelled, CountedEvent::Cancelled))
        }
        Change::Dismiss => {
            let dismiss = "UPDATE postrider_ended SET state = 'dismissed', ended_at = ?2 WHERE delivery_id = ?1";
            sqlx::query(dismiss).bind(id).bind(now).execute(&mut *connection).await?;
            Some((State::Dismissed, CountedEvent::Dismissed))
        }
    };
    if let Some((state, event)) = ended {
        counts.ended.insert(state.as_str(), 1);
        counts.hourly.insert((now.div_euclid(HOUR) * HOUR, event, None), 1);
    }
    add_counts(connection, counts).await?;
    Ok(UpdateOutcome::Updated)
}

async fn resend(
    connection: &mut SqliteConnection,
    state: State,
    row: &SqliteRow,
    id: &str,
    now: i64,
) -> Result<(), StoreError> {
    delete_outcomes_on_resend(connection, state, row, id).await?;
    // Token, attempts and cycle continue those of the last cycle: they are in the row of `postrider_ended` or, for a sent delivery, in its
    // last attempt. They stop below the largest value.
    sqlx::query(
        "INSERT INTO postrider_queue (delivery_id, priority, size, due_at, token, attempts, cycle, cycle_started_at)
         SELECT d.id, d.priority,
                coalesce(length(CAST(d.body AS BLOB)), 0) + coalesce(length(CAST(d.text AS BLOB)), 0)
                + coalesce(length(CAST(d.html AS BLOB)), 0)
                + (SELECT coalesce(sum(length(content)), 0) FROM json_each(d.blobs) JOIN postrider_blobs ON hash = value),
                ?2,
                max(coalesce(e.token, 0), coalesce(a.token, 0)),
                max(coalesce(e.attempts, 0), coalesce(a.number, 0)),
                min(max(coalesce(e.cycle, 1), coalesce(a.cycle, 1)), 2147483646) + 1, ?2
         FROM postrider_deliveries d
         LEFT JOIN postrider_ended e ON e.delivery_id = d.id
         LEFT JOIN postrider_attempts a ON a.delivery_id = d.id
              AND a.number = (SELECT max(number) FROM postrider_attempts WHERE delivery_id = d.id)
         WHERE d.id = ?1",
    )
    .bind(id)
    .bind(now)
    .execute(&mut *connection)
    .await?;
    sqlx::query("DELETE FROM postrider_ended WHERE delivery_id = ?1").bind(id).execute(&mut *connection).await?;
    Ok(())
}

async fn cancel(connection: &mut SqliteConnection, id: &str, now: i64) -> Result<(), StoreError> {
    let end = "INSERT OR REPLACE INTO postrider_ended (delivery_id, state, ended_at, token, attempts, cycle)
         SELECT delivery_id, 'cancelled', ?2, token, attempts, cycle FROM postrider_queue WHERE delivery_id = ?1";
    sqlx::query(end).bind(id).bind(now).execute(&mut *connection).await?;
    sqlx::query("DELETE FROM postrider_queue WHERE delivery_id = ?1").bind(id).execute(&mut *connection).await?;
    Ok(())
}

/// Deletes the recorded outcomes that do not survive a resend.
async fn delete_outcomes_on_resend(
    connection: &mut SqliteConnection,
    state: State,
    row: &SqliteRow,
    id: &str,
) -> Result<(), StoreError> {
    let outcomes = read_outcomes(connection, id).await?;
    // The recipients may be malformed. The next claim then makes the delivery a dead letter again, with the reason.
    let kept = outcomes_kept_on_resend(state, &read_recipients(row).unwrap_or_default(), &outcomes);
    let clear =
        "UPDATE postrider_recipients SET outcome = NULL, reply = NULL WHERE delivery_id = ?1 AND outcome IS NOT NULL";
    sqlx::query(clear).bind(id).execute(&mut *connection).await?;
    for outcome in kept {
        sqlx::query("INSERT OR REPLACE INTO postrider_recipients (delivery_id, address, outcome, reply) VALUES (?1, ?2, ?3, ?4)")
            .bind(id)
            .bind(outcome.recipient.as_str())
            .bind(outcome.state.as_str())
            .bind(outcome.reply)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
